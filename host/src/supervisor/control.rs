//! What the supervisor asks of a worker, on its control listener. A request that is sent before the worker
//! exists waits in the listener's queue and is answered when it serves.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hyper::Method;
use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::client::{self, Answer};

/// Between one question whether a worker is ready and the next.
const PAUSE: Duration = Duration::from_millis(100);

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

/// What a worker is, once it is ready for requests.
///
/// # Errors
/// If it is not by then: why not, in its own words.
pub async fn about_once_ready(worker: SocketAddr, within: Duration) -> Result<About> {
    let deadline = Instant::now() + within;
    let late = |_| anyhow!("does not serve within {}", humantime::format_duration(within));
    let about = timeout_at(deadline, about(worker)).await.map_err(late)??;
    loop {
        let answer = timeout_at(deadline, ready(worker)).await.map_err(late)??;
        if answer.status.is_success() {
            return Ok(about);
        }
        if Instant::now() + PAUSE >= deadline {
            bail!("is not ready within {}: {}", humantime::format_duration(within), detail(&answer.body));
        }
        sleep(PAUSE).await;
    }
}

/// What a problem document says (RFC 9457), or the text as it is.
pub fn detail(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    detail.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
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
