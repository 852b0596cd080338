//! The host: `usher`, with `usher-engine` beside it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::paths::Paths;
use crate::process::end_with_us;
use crate::{cargo, setup};

/// The program that people start; it starts the engine.
const PROGRAM: &str = "usher";

/// Builds both programs and returns the path of `usher`.
pub fn build(paths: &Paths) -> Result<PathBuf> {
    // The engine is linked with the WasmEdge that set-up provides.
    setup::setup(paths)?;
    cargo::build(paths, &["--release", "--package", "host"], PROGRAM)
}

/// A command of usher's, whose output we read. Relative paths in its variables are the checkout's, wherever one stands in it.
pub fn command(paths: &Paths, usher: &Path) -> Command {
    let mut command = Command::new(usher);
    command.current_dir(paths.root()).stdin(Stdio::null()).stdout(Stdio::piped());
    end_with_us(&mut command);
    command
}

/// The compiled form of `module`, from the cache that `usher serve` uses, too.
pub fn compiled(paths: &Paths, usher: &Path, module: &Path) -> Result<PathBuf> {
    let said = compile(paths, usher, module, &[])?;
    Ok(paths.root().join(said.trim_end()))
}

/// Compiles `module` for any processor of this architecture, into the file `result`.
pub fn compile_for_any(paths: &Paths, usher: &Path, module: &Path, result: &Path) -> Result<()> {
    let options = ["--generic".as_ref(), "-o".as_ref(), result.as_os_str()];
    compile(paths, usher, module, &options).map(drop)
}

/// Has usher compile a module, and gives what it prints.
fn compile(paths: &Paths, usher: &Path, module: &Path, options: &[&OsStr]) -> Result<String> {
    let module = std::path::absolute(module).context("cannot find out where we are")?;
    let mut command = command(paths, usher);
    // A minute's work is told while it goes on.
    command.arg("compile").args(options).arg(module).stderr(Stdio::inherit());
    let output = command.output().context("cannot start usher")?;
    ensure!(output.status.success(), "usher cannot compile the module, and says why above");
    String::from_utf8(output.stdout).context("the name of usher's cache is not UTF-8")
}
