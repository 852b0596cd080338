//! A connection's socket, as hyper sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::phase::{Phase, PhaseClock};

/// How long a client may pause while it sends what nobody will read.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// A TCP stream that notes the phases of its connection, and that can be closed without a reset.
#[derive(Debug)]
pub struct WatchedStream {
    socket: TcpStream,
    clock: Arc<PhaseClock>,
    /// The client has nothing more to say: a clean end or an error.
    ended: bool,
}

impl WatchedStream {
    /// Watches a stream.
    pub fn new(socket: TcpStream, clock: Arc<PhaseClock>) -> Self {
        Self { socket, clock, ended: false }
    }

    /// Ends our side and reads what the client still sends until it ends its own, for as long as
    /// `patience` and while it does not pause for long.
    /// A socket closed with unread input is reset, and the client may lose our last answer with it
    /// (RFC 9112 §9.6).
    pub async fn close(mut self, patience: Duration) {
        if self.ended || self.socket.shutdown().await.is_err() {
            return;
        }
        let _ = timeout(patience, async {
            let mut rest = [0; 4096];
            while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, self.socket.read(&mut rest)).await {}
        })
        .await;
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.socket).poll_read(cx, buf));
        if result.is_ok() && buf.filled().len() > before {
            self.clock.advance(Phase::Silent, Phase::Head);
        } else {
            self.ended = true;
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    /// hyper flushes when it has written all of an answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.clock.advance(Phase::Sending, Phase::Silent);
        Poll::Ready(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
