//! `cargo xtask`: everything that building, running and testing the service takes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool talks to its terminal, and may end when that is closed"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod aot;
mod apt;
mod artifacts;
mod bench;
mod binaryen;
mod bundle;
mod cargo;
mod clang;
mod database;
mod deploy;
mod host;
mod image;
mod kubectl;
mod library;
mod links;
mod mariadb;
mod module;
mod mysql;
mod node;
mod paths;
mod plugin;
mod process;
mod progress;
mod promtool;
mod python;
mod run;
mod setup;
mod standin;
mod system;
mod tensorflow_lite;
mod test;
mod tools;
mod unpacked;
mod versions;
mod wasmedge;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use aot_cache::files;
use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Builds, runs and tests the service; sets the machine up as needed.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what is missing: the wasm target, clang, and WasmEdge and TensorFlow Lite in .tools/
    Setup,
    /// Builds the portable module, ./service.wasm, and the plugin by which it runs models
    Build,
    /// Compiles the module ahead of time for this machine and prints the result's path
    Aot {
        /// Another module than ./service.wasm, taken as it is
        #[arg(long, value_name = "PATH")]
        module: Option<PathBuf>,
    },
    /// Serves on this machine until Ctrl-C
    Run {
        /// The address to serve on; port 0 takes a free one
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Interpret the module instead of compiling it: starts at once, serves slowly
        #[arg(long)]
        interpret: bool,
        /// A setting for the service; may be repeated
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
    },
    /// Runs everything that CI runs
    Test {
        /// The long tests too (soak, large data)
        #[arg(long)]
        long: bool,
        /// Only images and manifests: checked without a cluster, then tried on container engines
        #[arg(long, conflicts_with_all = ["long", "filter"])]
        deploy: bool,
        /// Only the tests whose name contains one of these
        filter: Vec<String>,
    },
    /// Measures the service side by side with its native build, and writes bench/RESULTS.md
    Bench {
        /// What to measure
        #[command(subcommand)]
        subject: bench::Subject,
    },
    /// Lays out what an image holds, for the Dockerfile
    ImageFiles {
        /// Which image
        image: image::Image,
        /// A folder, made anew
        folder: PathBuf,
    },
    /// Makes what the end-to-end tests drive and prints it as NAME=path lines
    Artifacts,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let paths = Paths::of_this_checkout()?;
    match task {
        Task::Setup => {
            setup::setup(&paths)?;
            eprintln!("ready: {}", paths.wasmedge().display());
        }
        Task::Build => {
            let module = module::build(&paths)?;
            eprintln!("{}: {}", module.display(), module::size_of(&module)?);
            eprintln!("{}", plugin::build(&paths)?.display());
        }
        Task::Aot { module } => println!("{}", aot::of(&paths, module)?.display()),
        Task::Run { listen, interpret, env } => {
            let options = run::Options { listen, interpret, env };
            run::run(&paths, &options)?;
        }
        Task::Test { deploy: true, .. } => test::deployment(&paths)?,
        Task::Test { long, filter, .. } => test::test(&paths, long, &filter)?,
        Task::Bench { subject } => bench::bench(&paths, &subject)?,
        Task::ImageFiles { image, folder } => image.make(&paths, &folder)?,
        Task::Artifacts => artifacts::prepare(&paths)?
            .variables()
            .iter()
            .for_each(|(name, path)| println!("{name}={}", path.display())),
    }
    Ok(())
}
