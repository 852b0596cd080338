//! `usher-engine`: the part of usher that has WasmEdge in it. Started by `usher`, not by people.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails"))]

mod code;
mod compiler;
mod confine;
mod extension;
mod locks;
mod template;
mod trim;
mod wasi;
mod worker;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use host::protocol::About;
use nix::unistd::dup2_stdout;
use wasmedge_sdk::plugin::PluginManager;
use wasmedge_sdk::utils::CoreVersion;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match perform(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["about"] => about(),
        ["compile", module, compiled, level, target] => {
            compiler::compile(Path::new(module), Path::new(compiled), level, target)
        }
        ["template", options @ .., supervisor] => {
            let supervisor = supervisor.parse().context("the supervisor's process id")?;
            template::run(supervisor, options.contains(&"--plugins"))
        }
        _ => bail!("usher-engine is started by usher; see `usher --help`"),
    }
}

fn about() -> Result<()> {
    // What WasmEdge has to say of plugins that it cannot load, it says on standard output.
    let answer = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    dup2_stdout(io::stderr())?;
    let models = extension::load()?;
    let about = About {
        wasmedge: CoreVersion::version_string(),
        plugins: PluginManager::names(),
        models,
        wasi: wasi::Wasi::try_out().err().map(|error| format!("{error:#}")),
        compiles: compiler::is_there(),
        landlock: confine::can_leave_files(),
    };
    serde_json::to_writer(answer, &about).context("cannot answer")
}
