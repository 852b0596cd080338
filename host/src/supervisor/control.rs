//! What the supervisor asks of a worker, on its control listener. A request that is sent before the worker
//! exists waits in the listener's queue and is answered when it serves.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde::Deserialize;

use crate::client::{self, Answer};

/// What a worker says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    /// Where it keeps its data, in its own words.
    pub store: String,
    /// Whether only one worker may use that at a time.
    pub single_writer: bool,
}

/// What becomes of the connections in a slot's queue when a worker stops accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It takes them before it stops: nobody else will.
    Take,
    /// It leaves them to its successor.
    Leave,
}

/// Asks what a worker is; the answer means that it serves.
pub async fn about(worker: SocketAddr) -> Result<About> {
    let answer = client::request(worker, Method::GET, "/about").await?;
    let known = answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok()).flatten();
    known.with_context(|| {
        format!("the module does not answer GET /about on its control listener as it should ({})", answer.status)
    })
}

/// Whether it is ready for requests, or why not.
pub async fn ready(worker: SocketAddr) -> Result<Answer> {
    client::request(worker, Method::GET, "/readyz").await
}

/// Tells a worker to stop accepting, to finish what is in flight, and to end when it was asked for its report.
pub async fn drain(worker: SocketAddr, queued: Queued) -> Result<()> {
    let path = match queued {
        Queued::Take => "/drain?queued=take&report=true",
        Queued::Leave => "/drain?queued=leave&report=true",
    };
    let answer = client::request(worker, Method::POST, path).await?;
    ensure!(answer.status.is_success(), "the module does not take POST /drain ({})", answer.status);
    Ok(())
}
