//! Compiling a module ahead of time.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use wasmedge_sdk::config::{CommonConfigOptions, CompilerConfigOptions, ConfigBuilder};
use wasmedge_sdk::{Compiler, CompilerOptimizationLevel, CompilerOutputFormat};

/// Whether there is an LLVM to compile with, and not the library that stands in for it (`xtask/src/standin.rs`).
pub fn is_there() -> bool {
    // SAFETY: the name is a C string, and the address is not used.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"usher_stands_in_for_llvm".as_ptr()) }.is_null()
}

/// Compiles `module` to a shared library at `compiled`. `level` is one of 0 1 2 3 s z, `target` is
/// `native` (this CPU) or `generic` (any of its architecture).
pub fn compile(module: &Path, compiled: &Path, level: &str, target: &str) -> Result<()> {
    ensure!(
        is_there(),
        "this usher comes without a compiler (LLVM): where it was built, `usher compile --generic -o service.so \
         service.wasm` makes what it serves"
    );
    let generic = match target {
        "native" => false,
        "generic" => true,
        _ => bail!("no such target: {target}"),
    };
    let options = CompilerConfigOptions::new()
        .out_format(CompilerOutputFormat::Native)
        .optimization_level(level_of(level)?)
        .generic_binary(generic);
    let config = ConfigBuilder::new(CommonConfigOptions::default()).with_compiler_config(options).build()?;
    let bytes = std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let folder = compiled.parent().context("the result lies in no folder")?;
    let name = compiled.file_stem().and_then(|name| name.to_str()).context("the result has no name")?;
    let made =
        Compiler::new(Some(&config))?.compile_from_bytes(bytes, name, folder).context("WasmEdge does not take it")?;
    if made != compiled {
        bail!("the result must end with .so: {}", compiled.display());
    }
    Ok(())
}

fn level_of(text: &str) -> Result<CompilerOptimizationLevel> {
    Ok(match text {
        "0" => CompilerOptimizationLevel::O0,
        "1" => CompilerOptimizationLevel::O1,
        "2" => CompilerOptimizationLevel::O2,
        "3" => CompilerOptimizationLevel::O3,
        "s" => CompilerOptimizationLevel::Os,
        "z" => CompilerOptimizationLevel::Oz,
        _ => bail!("no such level: {text}"),
    })
}
