//! One request to its answer: what HTTP asks of any server, before and after the routes.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Request, Response, Version};
use hyper::Body;
use hyper::body::HttpBody;
use tokio::time::timeout;

use crate::App;
use crate::problem::{Kind, Problem};
use crate::routes::{self, BODY_MAX};
use crate::telemetry;

/// Answers a request and logs it. On a `crowded` server only probes are let through.
pub async fn answer(app: &App, crowded: bool, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let method = request.method().clone();
    let route = routes::name(request.uri().path());
    let mut response = match admit(app, crowded, request).await {
        Ok(request) => respond(app, request).await,
        Err(problem) => problem.into_response(),
    };
    if app.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    telemetry::request(&method, route, response.status(), started.elapsed());
    response.map(Body::from)
}

/// The whole request, or why it is not let through. A refusal that leaves a body unread ends the
/// connection.
async fn admit(app: &App, crowded: bool, request: Request<Body>) -> Result<Request<Bytes>, Problem> {
    if crowded && !routes::is_probe(request.uri().path()) {
        return Err(Problem::new(Kind::Overloaded, "the server has too many connections; try again later").closing());
    }
    if !has_valid_host(&request) {
        let detail = "an HTTP/1.1 request needs exactly one Host header with a valid host (RFC 9112 §3.2)";
        return Err(Problem::new(Kind::MalformedRequest, detail).closing());
    }
    let (head, body) = request.into_parts();
    let body = match timeout(app.limits.body, read(body)).await {
        Ok(body) => body?,
        Err(_) => return Err(Problem::new(Kind::RequestTimeout, "the body took too long to arrive").closing()),
    };
    Ok(Request::from_parts(head, body))
}

/// RFC 9112 §3.2: exactly one Host header. A target in absolute form names the host itself and
/// outweighs the header (§3.2.2), so that a missing one leaves nothing open there.
fn has_valid_host(request: &Request<Body>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (None, _) => request.version() < Version::HTTP_11 || request.uri().authority().is_some(),
        (Some(_), Some(_)) => false,
    }
}

/// Reads a body up to [`BODY_MAX`]. One that says beforehand that it is larger is not begun, so
/// that a client which waits for `100 Continue` never sends it.
async fn read(mut body: Body) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Kind::BodyTooLarge, format!("the body must have at most {BODY_MAX} bytes")).closing();
    if body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::new(Kind::MalformedRequest, "the body is not what its headers say").closing()
        })?;
        if whole.len() + part.len() > BODY_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

async fn respond(app: &App, request: Request<Bytes>) -> Response<Bytes> {
    timeout(app.limits.handle, routes::respond(app, request)).await.unwrap_or_else(|_| {
        tracing::error!(limit = ?app.limits.handle, "a request took too long to handle");
        Problem::new(Kind::HandlingTimeout, "the request took too long to handle; try again later").into_response()
    })
}
