//! Making compiled code of a module, through the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use aot_cache::{Cache, Cpu, Key};

use crate::cli::{self, Code, UsageError};
use crate::module::{Kind, Module};
use crate::processes::Engine;
use crate::progress::{self, megabytes, seconds};
use crate::say;

/// `usher compile`.
pub fn run(options: &cli::Compile) -> Result<ExitCode> {
    let module = Module::read(&options.module).map_err(|error| cli::usage(&error))?;
    if module.kind == Kind::Compiled {
        bail!(UsageError(format!("{} is compiled already", module.path.display())));
    }
    if let Some(output) = &options.output
        && output.extension().is_none_or(|extension| extension != "so")
    {
        bail!(UsageError(format!("the result must end with .so, and {} does not", output.display())));
    }
    let engine = Engine::find()?;
    let version = engine.about()?.wasmedge;
    let made = compiled(&engine, &version, &module, &options.code)?;
    let code = match &options.output {
        Some(output) => {
            fs::copy(&made, output).with_context(|| format!("cannot write {}", output.display()))?;
            output
        }
        None => &made,
    };
    say::log(format_args!("{}: {}", module.path.display(), megabytes(size_of(&module.path)?)));
    say::log(format_args!("{}: {} for WasmEdge {version}", code.display(), megabytes(size_of(code)?)));
    say::out(code.display());
    Ok(ExitCode::SUCCESS)
}

/// The compiled form of a portable module: from the cache, or made now, which takes a while.
pub fn compiled(engine: &Engine, version: &str, module: &Module, code: &Code) -> Result<PathBuf> {
    let folder = match &code.cache {
        Some(folder) => folder.clone(),
        None => Cache::folder_for_user()?,
    };
    let cpu = if code.generic { Cpu::Generic } else { Cpu::this() };
    let key = Key::new(module.digest.clone(), version, &format!("-O{}", code.opt), &cpu);
    let cache = Cache::at(folder);
    let waiting = || say::log("another compilation is running, waiting …");
    let made = cache.compiled(&key, waiting, |result| {
        let path = module.path.display();
        let doing = format!("compiling {path} ahead of time for WasmEdge {version} (a minute or two)");
        let (done, took) = progress::during(&doing, || engine.compile(module, result, code.opt, code.generic));
        done.inspect(|()| say::log(format_args!("compiled in {}", seconds(took))))
    })?;
    Ok(made.code)
}

fn size_of(path: &Path) -> Result<usize> {
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(usize::try_from(bytes)?)
}
