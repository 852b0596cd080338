//! `usher`: runs the service, a sandboxed worker per core, and keeps it alive.
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

mod admin;
mod check;
mod cli;
mod client;
mod compile;
mod cpus;
mod folders;
mod guest;
mod health;
mod metrics;
mod module;
mod processes;
mod progress;
mod say;
mod serve;
mod source;
mod supervisor;
mod top;
mod user;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use cli::{AlreadySaid, Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::read().command {
        Command::Compile(options) => compile::run(&options),
        Command::Serve(options) => serve::run(options),
        Command::Check(options) => check::run(&options),
        Command::Health(options) => health::run(&options),
        Command::Top(options) => top::run(&options),
    };
    result.unwrap_or_else(|error| {
        if !error.is::<AlreadySaid>() {
            let _ = writeln!(io::stderr(), "error: {error:#}");
        }
        cli::exit_code(&error)
    })
}
