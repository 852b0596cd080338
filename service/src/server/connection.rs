//! One connection, from accept to close.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use http::header::{self, HeaderValue};
use hyper::Body;
use hyper::body::HttpBody;
use hyper::server::conn::Http;
use hyper::service::service_fn;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::exchange;
use super::front::Front;
use super::phase::{Phase, PhaseClock};
use super::stream::WatchedStream;
use crate::problem::{Kind, Problem};
use crate::{App, Queued};

/// Largest head of a request, in bytes, give or take what one read brings; beyond it is 431.
/// hyper's buffers are no larger either.
const HEAD_MAX: usize = 16 << 10;

/// How long a client may go on sending after we have said all we have to say.
const LINGER: Duration = Duration::from_secs(10);

/// How long a connection may stay silent, or linger, once the service is stopping.
const HURRY: Duration = Duration::from_secs(1);

/// How long a connection beyond the capacity may stay silent, or linger: probes come at once.
const HURRY_CROWDED: Duration = Duration::from_millis(500);

/// Why a connection is over.
enum End {
    /// hyper is done with it.
    Done(hyper::Result<()>),
    /// It took too long over a phase.
    Expired(Phase),
}

/// Serves a connection until either side ends it.
pub async fn run(socket: TcpStream, app: Arc<App>, front: Front, crowded: bool) {
    let clock = Arc::new(PhaseClock::new());
    let mut watchdog = Watchdog::new(Arc::clone(&clock), Arc::clone(&app), crowded);
    let stream = WatchedStream::new(socket, clock);
    let service = service_fn(|request: Request<Body>| {
        let (app, stream) = (Arc::clone(&app), stream.clone());
        stream.begin_body(request.body().size_hint().exact());
        Box::pin(async move {
            let mut response = exchange::answer(&app, front, crowded, request).await;
            if is_last(&app, || stream.has_more()) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            stream.begin_answer();
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = protocol().serve_connection(stream.clone(), service);
    let end = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
        Poll::Ready(result) => Poll::Ready(End::Done(result)),
        Poll::Pending => watchdog.poll_expired(cx).map(End::Expired),
    })
    .await;
    let patience = match (crowded, app.is_draining()) {
        (true, _) => HURRY_CROWDED,
        (false, true) => HURRY,
        (false, false) => LINGER,
    };
    finish(connection.into_parts().io, end, patience).await;
}

/// Whether an answer given now ends the connection because the service is stopping. It does not
/// while requests have come behind it, except for a client that never pauses, whose connection would
/// be cut at the deadline.
fn is_last(app: &App, has_more: impl FnOnce() -> bool) -> bool {
    app.draining_for().is_some_and(|time| time >= app.limits.drain / 2 || !has_more())
}

fn protocol() -> Http {
    let mut http = Http::new();
    http.http1_only(true)
        // A client that ends its side after its request still waits for the answer (RFC 9112
        // §9.6). One that is gone altogether is noticed when it is written to.
        .http1_half_close(true)
        // Two writes a response would wait for each other's acknowledgement: 44 ms.
        .http1_writev(false)
        .max_buf_size(HEAD_MAX);
    http
}

async fn finish(mut stream: WatchedStream, end: End, patience: Duration) {
    match end {
        End::Done(Ok(())) => {}
        End::Done(Err(error)) => tracing::debug!(%error, "connection failed"),
        End::Expired(Phase::Head) => {
            // Its socket is as willing to take this as any answer, or it does not matter.
            let _ = timeout(HURRY, stream.write_all(&head_timeout())).await;
        }
        // Nothing was said that could be lost, or whoever did not take an answer takes no end of it.
        End::Expired(Phase::Silent | Phase::Sending) => return,
        End::Expired(Phase::Handling) => {}
    }
    stream.close(patience).await;
}

/// The answer to a head that does not come to its end, written without hyper, which waits for it.
fn head_timeout() -> Vec<u8> {
    let problem = Problem::new(Kind::RequestTimeout, "the request's head took too long to arrive").closing();
    let response = problem.into_response();
    let mut bytes =
        format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n", response.status(), response.body().len()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(response.body());
    bytes
}

/// Tells when a connection has been in a phase for too long.
struct Watchdog {
    clock: Arc<PhaseClock>,
    app: Arc<App>,
    crowded: bool,
    /// Wakes the connection when the service is to stop, once it was polled.
    drained: Pin<Box<dyn Future<Output = Queued> + Send>>,
    listens: bool,
    drained_at: Option<Instant>,
    /// Set anew only when it would fire too late, so that a request costs nothing here.
    timer: Pin<Box<Sleep>>,
    /// Whether the timer will wake the connection.
    timed: bool,
}

impl Watchdog {
    fn new(clock: Arc<PhaseClock>, app: Arc<App>, crowded: bool) -> Self {
        let timer = Box::pin(sleep_until(clock.get().1 + app.limits.idle));
        let drained = Box::pin(app.drained());
        Self { clock, app, crowded, drained, listens: false, drained_at: None, timer, timed: false }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        if self.drained_at.is_none() && self.is_draining(cx) {
            self.drained_at = Some(Instant::now());
        }
        loop {
            let (phase, since) = self.clock.get();
            let Some(deadline) = self.deadline(phase, since) else {
                return Poll::Pending;
            };
            ready!(self.poll_timer(deadline, cx));
            if deadline <= Instant::now() {
                return Poll::Ready(phase);
            }
        }
    }

    /// Ready at the deadline, or before it.
    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_elapsed() || deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
            self.timed = false;
        }
        // A connection is one task, whose waker stays the same.
        if std::mem::replace(&mut self.timed, true) {
            return Poll::Pending;
        }
        // Without a budget: where that is used up, the timer would not take the waker.
        Pin::new(&mut unconstrained(self.timer.as_mut())).poll(cx)
    }

    fn is_draining(&mut self, cx: &mut Context<'_>) -> bool {
        // The waker stays the same here, too.
        let listens = std::mem::replace(&mut self.listens, true);
        self.app.is_draining() || (!listens && self.drained.as_mut().poll(cx).is_ready())
    }

    fn deadline(&self, phase: Phase, since: Instant) -> Option<Instant> {
        match phase {
            Phase::Silent => {
                let patient = since + self.app.limits.idle;
                let drained = self.drained_at.map(|at| at.max(since) + HURRY);
                let crowded = self.crowded.then_some(since + HURRY_CROWDED);
                [drained, crowded].into_iter().flatten().chain([patient]).min()
            }
            Phase::Head => Some(since + self.app.limits.head),
            Phase::Handling => None,
            Phase::Sending => Some(since + self.app.limits.write),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_stopping_service_is_the_last_if_no_more_has_come_or_half_of_the_time_is_over() {
        let (mut app, _folder) = App::over_a_new_store();
        app.limits.drain = Duration::from_secs(3600);
        assert!(!is_last(&app, || panic!("looked, although nothing depends on it")));
        app.drain(Queued::Take);
        assert!(is_last(&app, || false));
        assert!(!is_last(&app, || true));
        app.limits.drain = Duration::ZERO;
        assert!(is_last(&app, || true));
    }
}
