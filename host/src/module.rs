//! What a file is that should be served: a module, or code that was made of one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aot_cache::Digest;
use wasmparser::{Parser, Payload};

/// The custom section in which a module lists the variables that are settings of it, one a line.
const SETTINGS: &str = "usher.settings";

/// The custom section in which WasmEdge's compiler puts native code.
const NATIVE: &str = "wasmedge";

/// A file that can be served.
#[derive(Debug)]
pub struct Module {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The variables that are settings of it.
    pub settings: Vec<String>,
}

/// What can be served.
#[derive(Debug)]
pub enum Kind {
    /// A portable module, and the digest of its bytes.
    Portable(Digest),
    /// A shared library that WasmEdge's compiler made.
    Compiled,
}

impl Module {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, or neither a portable module nor compiled code.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| {
            format!(
                "cannot read the module {}: give the path of a service.wasm (`cargo xtask build` makes one)",
                path.display()
            )
        })?;
        Self::of(path, &bytes).with_context(|| format!("cannot serve {}", path.display()))
    }

    fn of(path: &Path, bytes: &[u8]) -> Result<Self> {
        let path = path.to_owned();
        match bytes.first_chunk::<4>() {
            Some(b"\0asm") => {
                let settings = settings_in(bytes)?;
                Ok(Self { path, kind: Kind::Portable(Digest::of(bytes)), settings })
            }
            Some(b"\x7fELF") => {
                let settings = embedded(bytes).map(settings_in).transpose()?.unwrap_or_default();
                Ok(Self { path, kind: Kind::Compiled, settings })
            }
            _ => bail!("it is no WebAssembly module (which begins with the bytes 00 61 73 6D) and no compiled one"),
        }
    }
}

/// The settings that a module lists.
fn settings_in(module: &[u8]) -> Result<Vec<String>> {
    let mut settings = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload.context("it is no whole WebAssembly module")? {
            match section.name() {
                // WasmEdge falls back to interpreting such code without a word if another version made it.
                NATIVE => bail!(
                    "it carries code compiled by some WasmEdge, which may silently be interpreted; give the \
                     portable module, whose compiled form is kept in the cache, or a .so made by `usher compile`"
                ),
                SETTINGS => settings = lines(section.data()),
                _ => {}
            }
        }
    }
    Ok(settings)
}

fn lines(data: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(data).lines().map(str::to_owned).filter(|name| !name.is_empty()).collect()
}

/// The module that WasmEdge's compiler keeps whole in the shared library that it makes.
fn embedded(library: &[u8]) -> Option<&[u8]> {
    use object::read::elf::ElfFile64;
    use object::{Object, ObjectSymbol};

    let file: ElfFile64 = ElfFile64::parse(library).ok()?;
    let find = |name: &str| file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
    let length = data_at(&file, find("wasm.size")?.address(), 4)?;
    let length = u64::from(u32::from_le_bytes(length.try_into().ok()?));
    data_at(&file, find("wasm.code")?.address(), length)
}

fn data_at<'a>(file: &object::read::elf::ElfFile64<'a>, address: u64, length: u64) -> Option<&'a [u8]> {
    use object::{Object, ObjectSegment};
    file.segments().find_map(|segment| segment.data_range(address, length).ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_section(name: &str, data: &[u8]) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend([0, (1 + name.len() + data.len()) as u8, name.len() as u8]);
        module.extend(name.as_bytes());
        module.extend(data);
        module
    }

    fn of(bytes: &[u8]) -> Result<Module> {
        Module::of(Path::new("x"), bytes)
    }

    #[test]
    fn a_module_says_which_settings_it_has() {
        let module = of(&with_section("usher.settings", b"DATA_DIR\nLOG_LEVEL\n")).unwrap();
        assert_eq!(module.settings, ["DATA_DIR", "LOG_LEVEL"]);
        assert!(matches!(module.kind, Kind::Portable(_)));
        assert!(of(&with_section("other", b"")).unwrap().settings.is_empty());
    }

    #[test]
    fn what_would_be_interpreted_silently_is_refused() {
        let error = format!("{:#}", of(&with_section("wasmedge", b"code")).unwrap_err());
        assert!(error.contains("interpreted") && error.contains("portable module"), "{error}");
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(of(b"").is_err());
        assert!(of(b"#!/bin/sh\n").is_err());
        assert!(of(b"\0asm\x01\0\0\0\x0b").is_err(), "cut short");
        assert!(matches!(of(b"\x7fELF and so on").unwrap().kind, Kind::Compiled));
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let error = format!("{:#}", Module::read(Path::new("/no/service.wasm")).unwrap_err());
        assert!(error.contains("/no/service.wasm") && error.contains("cargo xtask build"), "{error}");
    }
}
