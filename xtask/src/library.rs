//! What a shared library needs and what it defines.

use std::path::Path;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Sym};

use crate::module;

/// The dynamic part of a shared library.
#[derive(Debug, Default)]
pub struct Library {
    /// The names of the libraries that it needs.
    pub needed: Vec<String>,
    /// What it defines or wants to be defined, for the dynamic linker.
    pub symbols: Vec<Symbol>,
}

/// A symbol of a shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    /// The version's name ("LLVM_21.1"), where symbols have one.
    pub version: Option<String>,
    /// The library that has to define it, where symbols have versions.
    pub from: Option<String>,
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
}

/// What a symbol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Function,
    Data,
    /// Data that each thread has of its own.
    ThreadLocal,
}

impl Library {
    /// Reads it from a file for a 64-bit machine.
    pub fn read(path: &Path) -> Result<Self> {
        parse(&module::read(path)?).with_context(|| format!("{} is no usable library", path.display()))
    }
}

fn parse(data: &[u8]) -> Result<Library> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut library = Library::default();

    let dynamic = sections.dynamic_table(endian, data)?;
    for entry in dynamic.iter().filter(|entry| entry.tag == elf::DT_NEEDED) {
        library.needed.push(text(dynamic.string(entry)?));
    }
    let versions = sections.versions(endian, data)?.unwrap_or_default();
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    for (index, symbol) in symbols.enumerate() {
        let version = versions.version(versions.version_index(endian, index).index())?;
        library.symbols.push(Symbol {
            name: text(symbols.symbol_name(endian, symbol)?),
            version: version.map(|version| text(version.name())),
            from: version.and_then(|version| version.file()).map(text),
            kind: kind(symbol.st_type()),
            size: symbol.st_size(endian),
        });
    }
    Ok(library)
}

fn kind(of: elf::SymbolType) -> Kind {
    match of {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => Kind::Function,
        elf::STT_TLS => Kind::ThreadLocal,
        _ => Kind::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Library::read(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("is no usable library"), "{error}");
    }
}
