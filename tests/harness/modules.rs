//! Small modules that a test has served instead of the service.

use std::fs;
use std::path::{Path, PathBuf};

/// Makes the module that `tests/modules/NAME.wat` describes, in a folder.
pub fn make_module(name: &str, folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("modules").join(name).with_extension("wat");
    let module = folder.join(name).with_extension("wasm");
    fs::write(&module, wat::parse_file(source).unwrap()).unwrap();
    module
}

/// A module, or compiled code, of other content that does the same: custom sections and what follows a
/// library mean nothing.
pub fn variant(of: &Path, number: u8) -> Vec<u8> {
    let mut bytes = fs::read(of).unwrap();
    let name = format!("variant {number:03}");
    bytes.extend([0, 1 + u8::try_from(name.len()).unwrap(), u8::try_from(name.len()).unwrap()]);
    bytes.extend(name.as_bytes());
    bytes
}
