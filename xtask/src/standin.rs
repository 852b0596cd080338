//! A stand-in for LLVM. A WasmEdge that can compile is linked with it, but calls nothing of it while
//! it serves compiled code, and LLVM is most of the memory and of the start. A host that does not
//! compile loads this small library in its place: the same name and symbols, and nothing behind them.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::library::{Kind, Library, Symbol};
use crate::paths::Paths;
use crate::process::capture;
use crate::{files, tools};

/// By this symbol the engine knows that it has a stand-in and cannot compile (`host/src/engine/compiler.rs`).
const MARK: &str = "usher_stands_in_for_llvm";

/// Whether there is nothing to make: all that WasmEdge wants of LLVM is there, or it wants nothing.
pub fn ready(paths: &Paths) -> bool {
    match Wanted::by(&libwasmedge(paths)) {
        Ok(Some(wanted)) => Library::read(&paths.standin().join(&wanted.name))
            .is_ok_and(|made| wanted.symbols.iter().all(|symbol| made.defines(symbol)) && made.is_marked()),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Makes it, where there is an LLVM to stand in for. Only under set-up's lock.
pub fn make(paths: &Paths) -> Result<()> {
    let Some(wanted) = Wanted::by(&libwasmedge(paths))? else { return Ok(()) };
    let llvm = Library::read(&find(&wanted.name, &libwasmedge(paths))?)?;
    let symbols = wanted.as_defined_by(&llvm);
    tools::put(paths, &paths.standin(), |staging, made| {
        files::make_folder(made)?;
        link(&wanted.name, &symbols, staging, made)
            .with_context(|| format!("cannot make a library that stands in for {}", wanted.name))
    })
}

fn libwasmedge(paths: &Paths) -> PathBuf {
    paths.wasmedge().join("lib/libwasmedge.so")
}

/// What a libwasmedge wants of the LLVM that it is linked with.
struct Wanted {
    name: String,
    symbols: Vec<Symbol>,
}

impl Wanted {
    /// None where LLVM is part of libwasmedge, or is of a kind not met yet: without versions, or for a
    /// processor that we know no trap of.
    fn by(libwasmedge: &Path) -> Result<Option<Self>> {
        Ok(Self::of(Library::read(libwasmedge)?).filter(|_| trap(ARCH).is_some()))
    }

    fn of(library: Library) -> Option<Self> {
        let name = library.needed.into_iter().find(|name| name.starts_with("libLLVM"))?;
        let mut symbols = library.symbols;
        symbols.retain(|symbol| symbol.from.as_ref() == Some(&name));
        (!symbols.is_empty()).then_some(Self { name, symbols })
    }

    /// The symbols with the kind and the size that only their definition has.
    fn as_defined_by(&self, llvm: &Library) -> Vec<Symbol> {
        let defined: BTreeMap<&str, &Symbol> =
            llvm.symbols.iter().map(|symbol| (symbol.name.as_str(), symbol)).collect();
        let definition = |wanted: &Symbol| defined.get(wanted.name.as_str()).map_or(wanted, |symbol| symbol).clone();
        let of_llvm =
            self.symbols.iter().map(|wanted| Symbol { version: wanted.version.clone(), ..definition(wanted) });
        let version = self.symbols.first().and_then(|symbol| symbol.version.clone());
        let mark = Symbol { name: MARK.to_owned(), version, from: None, kind: Kind::Data, size: 1 };
        of_llvm.chain([mark]).collect()
    }
}

impl Library {
    fn defines(&self, wanted: &Symbol) -> bool {
        self.symbols.iter().any(|own| same(own, wanted))
    }

    fn is_marked(&self) -> bool {
        self.symbols.iter().any(|own| own.name == MARK)
    }
}

fn same(own: &Symbol, wanted: &Symbol) -> bool {
    own.name == wanted.name && own.version == wanted.version && own.from.is_none()
}

/// Where LLVM lies: beside libwasmedge, or where the system's loader says.
fn find(name: &str, libwasmedge: &Path) -> Result<PathBuf> {
    let real = libwasmedge.canonicalize().context("libwasmedge.so has gone")?;
    let beside = real.with_file_name(name);
    if beside.exists() {
        return Ok(beside);
    }
    let output = capture(Command::new("ldd").arg(&real))?;
    found_in(&output, name).with_context(|| format!("the system finds no {name}, which libwasmedge needs"))
}

/// Reads a line like `libLLVM.so.21.1 => /usr/lib/libLLVM.so.21.1 (0x00007f3d38800000)`.
fn found_in(output: &str, name: &str) -> Option<PathBuf> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" => "))?;
    let path = line.rsplit_once(" (").map_or(line, |(path, _)| path);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn link(name: &str, symbols: &[Symbol], staging: &Path, made: &Path) -> Result<()> {
    let (source, versions) = (staging.join("standin.s"), staging.join("standin.map"));
    let trap = trap(ARCH).context("no trap is known for this processor")?;
    fs::write(&source, assembly(symbols, trap)).context("cannot write its source")?;
    fs::write(&versions, version_script(symbols)).context("cannot write its versions")?;
    let mut clang = Command::new("clang");
    clang.args(["-shared", "-nostdlib"]).arg(format!("-Wl,-soname,{name}"));
    clang.arg(format!("-Wl,--version-script={}", versions.display()));
    clang.arg("-o").arg(made.join(name)).arg(source);
    capture(&mut clang).map(drop)
}

/// An instruction that ends the process: a call of what is not there must not go on.
fn trap(arch: &str) -> Option<&'static str> {
    match arch {
        "x86_64" => Some("ud2"),
        "aarch64" => Some("udf #0"),
        _ => None,
    }
}

/// The source of a library with these symbols.
fn assembly(symbols: &[Symbol], trap: &str) -> String {
    let mut source = String::from(".section .note.GNU-stack,\"\",%progbits\n");
    for Symbol { name, kind, size, .. } in symbols {
        let (section, kind) = match kind {
            Kind::Function => (".text", "function"),
            Kind::Data => (".bss", "object"),
            Kind::ThreadLocal => (".section .tbss,\"awT\",%nobits", "tls_object"),
        };
        let content = if kind == "function" { trap.to_owned() } else { format!(".zero {size}") };
        source.push_str(&format!(
            "{section}\n.balign 16\n.globl {name}\n.type {name}, %{kind}\n{name}:\n{content}\n.size {name}, .-{name}\n"
        ));
    }
    source
}

/// The linker's script that gives each symbol its version.
fn version_script(symbols: &[Symbol]) -> String {
    let mut nodes: BTreeMap<&str, String> = BTreeMap::new();
    for symbol in symbols {
        let node = nodes.entry(symbol.version.as_deref().unwrap_or_default()).or_default();
        node.push_str(&format!("  {};\n", symbol.name));
    }
    nodes.iter().map(|(version, names)| format!("{version} {{\nglobal:\n{names}}};\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, kind: Kind, size: u64) -> Symbol {
        let version = Some(String::from("LLVM_21.1"));
        Symbol { name: name.to_owned(), version, from: None, kind, size }
    }

    fn wanted(symbol: &Symbol, from: &str) -> Symbol {
        Symbol { from: Some(from.to_owned()), size: 0, kind: Kind::Data, ..symbol.clone() }
    }

    fn symbols() -> Vec<Symbol> {
        vec![
            symbol("LLVMDispose", Kind::Function, 99),
            symbol("_ZTVN4llvm9ErrorListE", Kind::Data, 40),
            symbol("_ZN4llvm5indexE", Kind::ThreadLocal, 4),
        ]
    }

    #[test]
    fn functions_trap_and_data_is_zeros_of_its_size() {
        let source = assembly(&symbols(), "ud2");
        for text in [
            ".text\n.balign 16\n.globl LLVMDispose\n.type LLVMDispose, %function\nLLVMDispose:\nud2\n",
            ".bss\n.balign 16\n.globl _ZTVN4llvm9ErrorListE\n.type _ZTVN4llvm9ErrorListE, %object\n",
            "_ZTVN4llvm9ErrorListE:\n.zero 40\n.size _ZTVN4llvm9ErrorListE, .-_ZTVN4llvm9ErrorListE\n",
            ".section .tbss,\"awT\",%nobits\n.balign 16\n.globl _ZN4llvm5indexE\n.type _ZN4llvm5indexE, %tls_object\n",
        ] {
            assert!(source.contains(text), "{source}");
        }
    }

    #[test]
    fn each_version_is_a_node() {
        let mut symbols = symbols();
        symbols[1].version = Some("LLVM_22".to_owned());
        assert_eq!(
            version_script(&symbols),
            "LLVM_21.1 {\nglobal:\n  LLVMDispose;\n  _ZN4llvm5indexE;\n};\n\
             LLVM_22 {\nglobal:\n  _ZTVN4llvm9ErrorListE;\n};\n"
        );
    }

    #[test]
    fn what_is_wanted_of_llvm_gets_its_definitions_kind_and_size() {
        let llvm = Library { needed: vec![], symbols: symbols() };
        let mut of_wasmedge: Vec<Symbol> = llvm.symbols.iter().map(|own| wanted(own, "libLLVM.so.21.1")).collect();
        of_wasmedge.push(wanted(&symbol("memcpy", Kind::Function, 1), "libc.so.6"));
        of_wasmedge.push(symbol("WasmEdge_VMCreate", Kind::Function, 1));
        let needed = ["libz.so.1", "libLLVM.so.21.1"].map(String::from).to_vec();

        let wanted = Wanted::of(Library { needed, symbols: of_wasmedge.clone() }).unwrap();

        assert_eq!(wanted.name, "libLLVM.so.21.1");
        let mark = symbol(MARK, Kind::Data, 1);
        assert_eq!(wanted.as_defined_by(&llvm), [symbols(), vec![mark]].concat());
        let without = Library { needed: vec!["libz.so.1".to_owned()], symbols: of_wasmedge };
        assert!(Wanted::of(without).is_none());
    }

    #[test]
    fn a_linked_library_defines_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        link("libLLVM.so.21.1", &symbols(), folder.path(), folder.path()).unwrap();
        let library = Library::read(&folder.path().join("libLLVM.so.21.1")).unwrap();
        assert!(library.needed.is_empty());
        for wanted in symbols() {
            let own = library.symbols.iter().find(|own| same(own, &wanted)).unwrap();
            assert_eq!(own.kind, wanted.kind);
            assert!(own.kind == Kind::Function || own.size == wanted.size, "{own:?}");
        }
        let other = Symbol { version: Some("LLVM_22".to_owned()), ..symbols().remove(0) };
        assert!(!library.symbols.iter().any(|own| same(own, &other)));
    }

    #[test]
    fn the_loaders_answer_is_read() {
        let output = "\tlibz.so.1 => /lib/libz.so.1 (0x7f)\n\tlibLLVM.so.21.1 => /usr/lib/a b/libLLVM.so.21.1 (0x7f)\n";
        assert_eq!(found_in(output, "libLLVM.so.21.1").unwrap(), Path::new("/usr/lib/a b/libLLVM.so.21.1"));
        assert_eq!(found_in("\tlibLLVM.so.21.1 => not found\n", "libLLVM.so.21.1"), None);
        assert_eq!(found_in(output, "libLLVM.so"), None);
    }
}
