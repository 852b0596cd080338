//! Modules compiled ahead of time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use aot_cache::{Cache, Cpu, Digest, Key};

use crate::paths::Paths;
use crate::process::capture;
use crate::{host, module, progress, wasmedge};

/// Options of the oldest `wasmedge compile`. None: its defaults are the highest level, for this CPU.
const OPTIONS: [&str; 0] = [];

/// What to do where compiled modules cannot be kept.
const FIX: &str = "the checkout has to lie where there is space, and where programs can be written and run";

/// The compiled form of `module` as it is, or of a fresh ./service.wasm.
pub fn of(paths: &Paths, module: Option<PathBuf>) -> Result<PathBuf> {
    let module = module.map_or_else(|| module::build(paths), Ok)?;
    host::compiled(paths, &host::build(paths)?, &module)
}

/// The compiled form of `module` for the oldest WasmEdge, by its own command line tool; for tests.
pub fn for_oldest(paths: &Paths, module: &Path) -> Result<PathBuf> {
    let compiler = paths.oldest_wasmedge_bin();
    let version = wasmedge::version_of(&compiler)?;
    let key = Key::new(Digest::of(&module::read(module)?), &version, &OPTIONS.join(" "), &Cpu::this());
    kept(paths.oldest_aot_cache(), &key, |result| compile(&compiler, &version, module, result))
}

/// The compiled form of `module` for any processor of this architecture; for images.
pub fn for_any(paths: &Paths, usher: &Path, module: &Path) -> Result<PathBuf> {
    let version = wasmedge::version_of(&paths.wasmedge_bin())?;
    let key = Key::new(Digest::of(&module::read(module)?), &version, "", &Cpu::Generic);
    kept(paths.generic_aot_cache(), &key, |result| host::compile_for_any(paths, usher, module, result))
}

/// The code of that key in a cache of ours, which `make` makes if it is not there.
fn kept(cache: PathBuf, key: &Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let waiting = || eprintln!("another compilation is running, waiting …");
    Ok(Cache::at(cache).advising(FIX).compiled(key, waiting, make)?.code)
}

fn compile(compiler: &Path, version: &str, module: &Path, result: &Path) -> Result<()> {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    let doing = format!("compiling {name} ahead of time for WasmEdge {version} (about a minute)");
    progress::during(&doing, &format!("compiled for WasmEdge {version}"), || {
        let mut command = Command::new(compiler);
        command.arg("compile").args(OPTIONS).arg(module).arg(result);
        capture(&mut command).with_context(|| format!("WasmEdge cannot compile {}", module.display()))?;
        Ok(())
    })
}
