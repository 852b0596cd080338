//! Modules compiled ahead of time by WasmEdge's command line tool.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use aot_cache::{Cache, Cpu, Key};

use crate::module;
use crate::paths::Paths;
use crate::process::capture;
use crate::{progress, setup, wasmedge};

/// Options of `wasmedge compile`. None: its defaults are the highest level, for this CPU.
const OPTIONS: [&str; 0] = [];

/// What to do where compiled modules cannot be kept.
const FIX: &str = "the checkout has to lie where there is space, and where programs can be written and run";

/// The compiled form of `module` as it is, or of a fresh ./service.wasm.
pub fn of(paths: &Paths, module: Option<PathBuf>) -> Result<PathBuf> {
    let module = match module {
        Some(module) => {
            setup::setup(paths)?;
            module
        }
        None => module::build(paths)?,
    };
    Compiler::new(paths).compiled(&module)
}

/// A WasmEdge and the cache where what it compiled is kept.
pub struct Compiler {
    program: PathBuf,
    cache: Cache,
}

impl Compiler {
    /// The one that set-up installs.
    pub fn new(paths: &Paths) -> Self {
        Self::with(paths.wasmedge_bin(), paths.aot_cache())
    }

    /// The oldest one, for tests. Its cache is its own, so both may compile at once.
    pub fn oldest(paths: &Paths) -> Self {
        Self::with(paths.oldest_wasmedge_bin(), paths.oldest_aot_cache())
    }

    fn with(program: PathBuf, folder: PathBuf) -> Self {
        let cache = Cache::at(folder).advising(FIX);
        Self { program, cache }
    }

    /// The compiled form of `module`.
    pub fn compiled(&self, module: &Path) -> Result<PathBuf> {
        let version = wasmedge::version_of(&self.program)?;
        let key = Key::new(&module::read(module)?, &version, &OPTIONS.join(" "), &Cpu::this());
        let waiting = || eprintln!("another compilation is running, waiting …");
        Ok(self.cache.compiled(&key, waiting, |result| self.compile(module, &version, result))?.code)
    }

    fn compile(&self, module: &Path, version: &str, result: &Path) -> Result<()> {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let doing = format!("compiling {name} ahead of time for WasmEdge {version} (about a minute)");
        progress::during(&doing, &format!("compiled for WasmEdge {version}"), || {
            let mut compiler = Command::new(&self.program);
            compiler.arg("compile").args(OPTIONS).arg(module).arg(result);
            capture(&mut compiler).with_context(|| format!("WasmEdge cannot compile {}", module.display()))?;
            Ok(())
        })
    }
}
