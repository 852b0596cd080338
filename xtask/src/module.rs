//! The portable module, `./service.wasm`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use wasmparser::{Parser, Payload};

use crate::versions::Versions;
use crate::{binaryen, cargo, files, paths::Paths, setup};

/// With every part that is still to come it must stay below this; see DESIGN.md.
const MAX_BYTES: usize = 5_000_000;

/// The section that names the service's settings, by which a host knows which variables are for it.
const SETTINGS: &str = "usher.settings";

/// Builds the module and returns its path; it is rewritten only when its content changed.
pub fn build(paths: &Paths) -> Result<PathBuf> {
    setup::setup(paths)?;
    let versions = Versions::pinned()?;
    let target = versions.rust.target;
    let built = cargo::build(paths, &["--release", "--package", "service", "--target", &target], "service")?;
    let content = binaryen::optimized(paths, &versions.binaryen, &built, &read(&built)?)?;
    check(&content).with_context(|| format!("{} is not fit to ship", built.display()))?;
    let module = paths.service_wasm();
    if fs::read(&module).ok().as_ref() != Some(&content) {
        files::write_atomically(&module, &content)?;
    }
    Ok(module)
}

/// A module's size in people's words.
pub fn size_of(module: &Path) -> Result<String> {
    let bytes = read(module)?.len();
    Ok(format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000))
}

/// Reads a file whole.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Fails for a module that is too large, carries what does not belong into a portable one, or does
/// not name its settings.
fn check(content: &[u8]) -> Result<()> {
    ensure!(
        content.len() <= MAX_BYTES,
        "it has {} bytes, more than the {MAX_BYTES} allowed: look at new dependencies",
        content.len()
    );
    let mut settings = None;
    for payload in Parser::new(0).parse_all(content) {
        if let Payload::CustomSection(section) = payload.context("it is no WebAssembly module")? {
            let name = section.name();
            ensure!(
                belongs(name),
                "it has a section `{name}`: [profile.release] must strip symbols, and the \
                 AOT form is a file of its own"
            );
            if name == SETTINGS {
                settings = Some(section.data());
            }
        }
    }
    let settings = settings.with_context(|| format!("it has no section `{SETTINGS}`: main.rs puts it there"))?;
    ensure!(settings.ends_with(b"\n"), "its section `{SETTINGS}` is no list of names, one a line");
    Ok(())
}

/// "wasmedge" is the section that its compiler adds with native code.
fn belongs(section: &str) -> bool {
    section != "wasmedge" && section != "name" && !section.starts_with(".debug")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module_with(sections: &[(&str, &str)]) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (name, data) in sections {
            let length = name.len() as u8;
            module.extend([0, length + 1 + data.len() as u8, length]);
            module.extend(name.as_bytes());
            module.extend(data.as_bytes());
        }
        module
    }

    #[test]
    fn a_portable_module_passes() {
        check(&module_with(&[("producers", ""), (SETTINGS, "LISTEN_ADDR\n")])).unwrap();
    }

    #[test]
    fn a_module_that_does_not_name_its_settings_is_refused() {
        for sections in [&[][..], &[("producers", "")], &[(SETTINGS, "")], &[(SETTINGS, "LISTEN_ADDR")]] {
            let error = check(&module_with(sections)).unwrap_err().to_string();
            assert!(error.contains(SETTINGS), "{sections:?}: {error}");
        }
    }

    #[test]
    fn native_code_names_and_debug_data_are_refused() {
        for section in ["wasmedge", "name", ".debug_info"] {
            let error = check(&module_with(&[(section, ""), (SETTINGS, "LISTEN_ADDR\n")])).unwrap_err().to_string();
            assert!(error.contains(section), "{error}");
        }
    }

    #[test]
    fn size_and_format_are_checked() {
        assert!(check(&vec![0; MAX_BYTES + 1]).is_err());
        assert!(check(b"\x7fELF").is_err());
    }
}
