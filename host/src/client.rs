//! A request to another process of ours, over HTTP on the loopback.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer that is read, in bytes. Metrics are the largest that we ask for: about 2.4 kB for each kind of request.
const ANSWER_MAX: usize = 4 << 20;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Sends a request without a body on a connection of its own, and waits for the answer, however long.
///
/// # Errors
/// If there is no connection, or no answer.
pub async fn request(address: SocketAddr, method: Method, path: &str) -> Result<Answer> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("nothing answers at {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, address.to_string())
            .header(hyper::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| anyhow!(error))?;
        anyhow::Ok(Answer { status, body: body.to_bytes() })
    };
    // The connection has to be driven for the answer to come; what ends it shows in the answer.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
