//! The admin address: what there is to ask of a running usher, and to order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::metrics::{self, Facts, Ledger};
use crate::supervisor::{Command, Readiness};

/// Connections at once: those who ask are few.
const CONNECTIONS_MAX: usize = 32;

/// From a connection's begin to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a connection may last beyond a worker's drain, for which a replacement may wait: that a
/// module is compiled may be waited for, too.
const CONNECTION_MAX: Duration = Duration::from_secs(15 * 60);

/// How long somebody should wait who asks when usher cannot do it, in whole seconds.
const RETRY_LATER: HeaderValue = HeaderValue::from_static("1");

/// Pause after an accept that failed, such as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The supervisor.
    pub commands: mpsc::Sender<Command>,
    /// What workers counted.
    pub ledger: Ledger,
    /// What does not change.
    pub facts: Arc<Facts>,
}

/// Serves until it is dropped. A worker's drain takes as long as `drain` at most.
pub async fn serve(listener: TcpListener, sources: Sources, drain: Duration) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, sources.clone());
                tokio::spawn(async move {
                    let _ = timeout(drain + CONNECTION_MAX, connection).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, sources: Sources) {
    let service = service_fn(|request| {
        let sources = sources.clone();
        async move { Ok::<_, Infallible>(respond(&request, &sources).await) }
    });
    // What goes wrong is the client's affair: it is gone, or sent nonsense.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What there is to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Livez,
    Readyz,
    Workers,
    Stats,
    Metrics,
    Replace(usize),
    Reload,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/workers" => Self::Workers,
            "/stats" => Self::Stats,
            "/metrics" => Self::Metrics,
            "/reload" => Self::Reload,
            _ => Self::Replace(path.strip_prefix("/workers/")?.strip_suffix("/replace")?.parse().ok()?),
        })
    }

    fn method(self) -> Method {
        match self {
            Self::Livez | Self::Readyz | Self::Workers | Self::Stats | Self::Metrics => Method::GET,
            Self::Replace(_) | Self::Reload => Method::POST,
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn respond(request: &Request<Incoming>, sources: &Sources) -> Answer {
    let Some(route) = Route::of(request.uri().path()) else {
        let known = "GET /livez, /readyz, /metrics, /stats and /workers, POST /workers/{n}/replace and /reload";
        return problem(StatusCode::NOT_FOUND, &format!("there is nothing at this path; there is {known}"));
    };
    if *request.method() != route.method() && !(request.method() == Method::HEAD && route.method() == Method::GET) {
        let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not have that method; see Allow");
        let allow = if route.method() == Method::GET { "GET, HEAD" } else { "POST" };
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        return answer;
    }
    perform(route, sources).await.unwrap_or_else(|| problem(StatusCode::SERVICE_UNAVAILABLE, "usher is stopping"))
}

/// `None` when the supervisor is no longer there to ask.
async fn perform(route: Route, Sources { commands, ledger, facts }: &Sources) -> Option<Answer> {
    Some(match route {
        Route::Livez => ok(),
        Route::Readyz => match ask(commands, Command::Ready).await? {
            Readiness::Ready => ok(),
            Readiness::NotReady(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        Route::Workers => json(StatusCode::OK, "application/json", &ask(commands, Command::Overview).await?.workers),
        Route::Stats => {
            let overview = ask(commands, Command::Overview).await?;
            json(StatusCode::OK, "application/json", &metrics::stats(ledger, facts, overview).await)
        }
        Route::Metrics => {
            let overview = ask(commands, Command::Overview).await?;
            let all = metrics::collect(ledger, facts, &overview).await;
            with_type(StatusCode::OK, metrics::CONTENT_TYPE, all.to_string().into())
        }
        Route::Replace(worker) => match ask(commands, |reply| Command::Replace { worker, reply }).await? {
            Ok(()) => json(StatusCode::OK, "application/json", &json!({ "worker": worker, "replaced": true })),
            Err(why) => problem(StatusCode::CONFLICT, &why),
        },
        Route::Reload => match ask(commands, Command::Reload).await? {
            Ok(reloaded) => json(StatusCode::OK, "application/json", &reloaded),
            Err(why) => problem(StatusCode::CONFLICT, &why),
        },
    })
}

async fn ask<T>(commands: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}

fn ok() -> Answer {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"OK\n"))
}

fn json(status: StatusCode, kind: &'static str, value: &impl serde::Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    with_type(status, kind, body.into())
}

/// RFC 9457; what passes says when to ask again.
fn problem(status: StatusCode, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    let value = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut answer = json(status, "application/problem+json", &value);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, RETRY_LATER);
    }
    answer
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_routes() {
        assert_eq!(Route::of("/workers"), Some(Route::Workers));
        assert_eq!(Route::of("/metrics"), Some(Route::Metrics));
        assert_eq!(Route::of("/stats"), Some(Route::Stats));
        assert_eq!(Route::of("/workers/12/replace"), Some(Route::Replace(12)));
        assert_eq!(Route::of("/reload"), Some(Route::Reload));
        for path in ["/", "/workers/", "/workers/x/replace", "/workers/-1/replace", "/workers/1/replace/"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
