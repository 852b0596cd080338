//! `usher health`: for a container that has no shell.

use std::process::ExitCode;

use anyhow::{Context, Result};
use hyper::Method;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::cli::Health;
use crate::{client, say};

/// Asks the admin address whether the service is ready.
pub fn run(options: &Health) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let asked = client::request(options.admin, Method::GET, "/readyz");
        timeout(options.timeout, asked).await.context("no answer in time")?
    });
    let answer = answer
        .with_context(|| format!("cannot ask usher at {}: is it running, with that --admin address?", options.admin))?;
    say::out(String::from_utf8_lossy(&answer.body).trim_end());
    Ok(if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
