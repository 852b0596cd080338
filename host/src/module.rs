//! What a file is that should be served: a module, or code that was made of one.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aot_cache::Digest;
use nix::sys::memfd::{MFdFlags, memfd_create};
use wasmparser::{Parser, Payload};

/// The custom section in which a module lists the variables that are settings of it, one a line.
const SETTINGS: &str = "usher.settings";

/// The custom section in which WasmEdge's compiler puts native code.
const NATIVE: &str = "wasmedge";

/// A file as it was when it was read. What becomes of its path afterwards is of no interest.
#[derive(Debug)]
pub struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
    file: File,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// A file that can be served.
#[derive(Debug)]
pub struct Module {
    /// Where it was.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The variables that are settings of it.
    pub settings: Vec<String>,
    /// Its bytes, whatever is at its path by now: of a portable module a copy in memory, as it is small and
    /// needed for a moment only.
    pub file: File,
}

/// What can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A portable module.
    Portable,
    /// A shared library that WasmEdge's compiler made.
    Compiled,
}

impl Content {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, or may not be read.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let mut file = File::open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok((file, bytes))
        };
        let (file, bytes) = read().with_context(|| {
            format!(
                "cannot read the module {}: give the path of a service.wasm (`cargo xtask build` makes one)",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), digest: Digest::of(&bytes), bytes, file })
    }

    /// What it is.
    ///
    /// # Errors
    /// If it is neither a portable module nor compiled code.
    pub fn module(self) -> Result<Module> {
        let (kind, settings) = kind_of(&self.bytes).with_context(|| format!("cannot serve {}", self.path.display()))?;
        let file = match kind {
            Kind::Portable => in_memory(&self.bytes).context("cannot keep the module in memory")?,
            Kind::Compiled => self.file,
        };
        Ok(Module { path: self.path, kind, digest: self.digest, settings, file })
    }
}

impl Module {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, or neither a portable module nor compiled code.
    pub fn read(path: &Path) -> Result<Self> {
        Content::read(path)?.module()
    }
}

fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("module", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// What a file is, and the settings that it lists.
fn kind_of(bytes: &[u8]) -> Result<(Kind, Vec<String>)> {
    match bytes.first_chunk::<4>() {
        Some(b"\0asm") => Ok((Kind::Portable, settings_in(bytes)?)),
        Some(b"\x7fELF") => Ok((Kind::Compiled, embedded(bytes).map(settings_in).transpose()?.unwrap_or_default())),
        _ => bail!("it is no WebAssembly module (which begins with the bytes 00 61 73 6D) and no compiled one"),
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
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;

    fn with_section(name: &str, data: &[u8]) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend([0, (1 + name.len() + data.len()) as u8, name.len() as u8]);
        module.extend(name.as_bytes());
        module.extend(data);
        module
    }

    #[test]
    fn a_module_says_which_settings_it_has() {
        let (kind, settings) = kind_of(&with_section("usher.settings", b"DATA_DIR\nLOG_LEVEL\n")).unwrap();
        assert_eq!((kind, settings), (Kind::Portable, vec!["DATA_DIR".to_owned(), "LOG_LEVEL".to_owned()]));
        assert!(kind_of(&with_section("other", b"")).unwrap().1.is_empty());
    }

    #[test]
    fn what_would_be_interpreted_silently_is_refused() {
        let error = format!("{:#}", kind_of(&with_section("wasmedge", b"code")).unwrap_err());
        assert!(error.contains("interpreted") && error.contains("portable module"), "{error}");
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(kind_of(b"").is_err());
        assert!(kind_of(b"#!/bin/sh\n").is_err());
        assert!(kind_of(b"\0asm\x01\0\0\0\x0b").is_err(), "cut short");
        assert_eq!(kind_of(b"\x7fELF and so on").unwrap().0, Kind::Compiled);
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let error = format!("{:#}", Module::read(Path::new("/no/service.wasm")).unwrap_err());
        assert!(error.contains("/no/service.wasm") && error.contains("cargo xtask build"), "{error}");
    }

    #[test]
    fn what_was_read_stays_whatever_becomes_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        for name in ["usher.settings", "wasm"] {
            let bytes = with_section(name, b"A\n");
            fs::write(&path, &bytes).unwrap();
            let module = Module::read(&path).unwrap();
            fs::write(&path, "else").unwrap();
            let kept = fs::read(format!("/proc/self/fd/{}", module.file.as_raw_fd())).unwrap();
            assert_eq!((kept.as_slice(), &module.digest), (bytes.as_slice(), &Digest::of(&bytes)));
        }
    }
}
