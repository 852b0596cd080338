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

/// The type of what a worker answers that has as many connections as it can take (RFC 9457).
const OVERLOADED: &str = "urn:usher:problem:overloaded";

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

/// What a worker is, once it is ready for requests. One that clients have filled meanwhile has been: a reload
/// must not fail because many want to be served.
///
/// # Errors
/// If it is not by then: why not, in its own words.
pub async fn about_once_ready(worker: SocketAddr, within: Duration) -> Result<About> {
    let deadline = Instant::now() + within;
    let within = humantime::format_duration(within);
    let about = timeout_at(deadline, about(worker)).await.map_err(|_| anyhow!("does not serve within {within}"))??;
    // What it said last: at the deadline it may be about to say something.
    let mut reason = "it does not say why".to_owned();
    while let Ok(answer) = timeout_at(deadline, ready(worker)).await {
        let answer = answer?;
        if answer.status.is_success() || is_overloaded(&answer.body) {
            return Ok(about);
        }
        reason = detail(&answer.body);
        if Instant::now() + PAUSE >= deadline {
            break;
        }
        sleep(PAUSE).await;
    }
    bail!("is not ready within {within}: {reason}")
}

/// What a problem document says (RFC 9457), or the text as it is.
pub fn detail(body: &[u8]) -> String {
    member(body, "detail").unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

fn is_overloaded(body: &[u8]) -> bool {
    member(body, "type").is_some_and(|kind| kind == OVERLOADED)
}

/// A member of a problem document that is a text.
fn member(body: &[u8], name: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(problem.get(name)?.as_str()?.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_full_is_told_from_one_that_is_not_ready() {
        let full = br#"{"type":"urn:usher:problem:overloaded","detail":"full"}"#;
        assert!(is_overloaded(full));
        assert_eq!(detail(full), "full");
        for other in [&br#"{"type":"urn:usher:problem:not-ready"}"#[..], br#"{"type":1}"#, b"[]", b"not ready", b""] {
            assert!(!is_overloaded(other), "{other:?}");
        }
    }
}
