//! A connection's socket, as hyper sees it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::intake::Intake;
use super::phase::{Phase, PhaseClock};

/// How long a client may pause while it sends what nobody will read.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// A TCP stream that notes the phases of its connection, that hands on one request at a time, and
/// that can be closed without a reset. Its clones are the same stream: hyper has one and cannot be
/// asked about it, so the service has another.
#[derive(Debug, Clone)]
pub struct WatchedStream {
    socket: Arc<Mutex<Socket>>,
    clock: Arc<PhaseClock>,
}

#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    intake: Intake,
    /// The client has nothing more to say: a clean end or an error.
    ended: bool,
}

impl WatchedStream {
    /// Watches a stream.
    pub fn new(tcp: TcpStream, clock: Arc<PhaseClock>) -> Self {
        let socket = Socket { tcp, intake: Intake::default(), ended: false };
        Self { socket: Arc::new(Mutex::new(socket)), clock }
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// hyper has read a head, and a body of that length follows; `None`: a chunked one.
    pub fn begin_body(&self, length: Option<u64>) {
        self.clock.enter(Phase::Handling);
        self.socket().intake.begin_body(length);
    }

    /// hyper is about to be given the answer.
    pub fn begin_answer(&self) {
        self.clock.enter(Phase::Sending);
    }

    /// Whether another request, or the beginning of one, has come behind the one that hyper has all
    /// of. Only then may hyper be answered: what is taken from the socket here, it is not told of.
    pub fn has_more(&self) -> bool {
        let mut socket = self.socket();
        socket.intake.is_between_requests() && (socket.intake.holds_a_request() || socket.look())
    }

    /// Ends our side and reads what the client still sends until it ends its own, for as long as
    /// `patience` and while it does not pause for long.
    /// A socket closed with unread input is reset, and the client may lose our last answer with it
    /// (RFC 9112 §9.6).
    pub async fn close(mut self, patience: Duration) {
        if self.socket().ended || self.shutdown().await.is_err() {
            return;
        }
        let _ = timeout(patience, async {
            // Not in the future, which every connection carries along.
            let mut rest = vec![0; 4096];
            while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, self.read(&mut rest)).await {}
        })
        .await;
    }
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.intake.give(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.tcp).poll_read(cx, buf));
        self.ended = result.is_err() || buf.filled().len() == before;
        self.intake.cut(buf, before);
        Poll::Ready(result)
    }

    /// Takes in what waits in the socket. Gives whether a request is among it.
    fn look(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let length = self.tcp.try_read(&mut bytes).unwrap_or(0);
        self.intake.hold(bytes.get(..length).unwrap_or_default());
        self.intake.holds_a_request()
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(self.socket().poll_read(cx, buf));
        if buf.filled().len() > before {
            self.clock.advance(Phase::Silent, Phase::Head);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket().tcp).poll_write(cx, buf)
    }

    /// hyper flushes when it has written all of an answer. The socket has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.clock.advance(Phase::Sending, Phase::Silent);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::{Shutdown, TcpStream as Client};

    use tokio::net::TcpListener;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn accepted() -> (Client, WatchedStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        (client, WatchedStream::new(tcp, Arc::new(PhaseClock::new())))
    }

    /// One read, as hyper does it.
    async fn read(stream: &mut WatchedStream) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        let length = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(length);
        bytes
    }

    #[tokio::test]
    async fn what_came_behind_a_request_is_known_wherever_it_waits() {
        let (mut client, mut stream) = accepted().await;
        assert!(!stream.has_more(), "no request yet");
        client.write_all(&GET.repeat(2)).unwrap();
        assert_eq!(read(&mut stream).await, GET);
        stream.begin_body(Some(0));
        assert!(stream.has_more(), "it came with the first");
        assert_eq!(read(&mut stream).await, GET);
        stream.begin_body(Some(0));
        assert!(!stream.has_more());
        client.write_all(&GET.repeat(2)).unwrap();
        poll_fn(|cx| stream.socket().tcp.poll_read_ready(cx)).await.unwrap();
        assert!(stream.has_more(), "it is in the socket");
        assert!(stream.has_more());
        client.shutdown(Shutdown::Write).unwrap();
        for more in [true, false] {
            assert_eq!(read(&mut stream).await, GET);
            stream.begin_body(Some(0));
            assert_eq!(stream.has_more(), more);
        }
        assert_eq!(read(&mut stream).await, b"");
        assert!(stream.socket().ended);
    }

    #[tokio::test]
    async fn an_unread_body_is_nothing_more() {
        let (mut client, mut stream) = accepted().await;
        client.write_all(&[b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", GET].concat()).unwrap();
        read(&mut stream).await;
        for length in [Some(99), None] {
            stream.begin_body(length);
            assert!(!stream.has_more(), "{length:?}");
        }
    }
}
