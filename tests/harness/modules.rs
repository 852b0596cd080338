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
