//! One request to its answer: what HTTP asks of any server, before and after the routes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, Version};
use hyper::Body;
use hyper::body::HttpBody;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::clock;
use super::front::Front;
use crate::App;
use crate::inference::Place;
use crate::problem::{Kind, Problem};
use crate::routes::{self, Room};
use crate::telemetry::{self, log};

/// Answers a request, logs it and, if it is a client's, counts it. On a `crowded` server only probes are let through.
pub async fn answer(app: &App, front: Front, crowded: bool, mut request: Request<Body>) -> Response<Body> {
    let started = clock::latest();
    let _active = (front == Front::Public).then(|| app.metrics.active_request());
    let method = telemetry::method_name(request.method());
    let route = front.route(request.uri().path());
    // hyper does not tell whether a Content-Length came with the chunks, and then the connection
    // must end, as somebody on the way may have gone by it (RFC 9112 §6.1).
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match admit(app, crowded, &mut request).await {
        Ok(Admitted { body, place: _place }) => respond(app, front, &request.map(|_| body)).await,
        Err(problem) => routes::refuse(request.uri().path(), problem),
    };
    if chunked {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let duration = clock::now() - started;
    log::request(method, route, response.status(), duration);
    if front == Front::Public {
        app.metrics.request(method, route, response.status(), duration);
    }
    response.map(Body::from)
}

/// A request that is let through.
struct Admitted {
    body: Bytes,
    /// Its place among those that run models, if it does.
    place: Option<Place>,
}

/// The request's body, or why it is not let through. A refusal that leaves a body unread ends the connection.
async fn admit(app: &App, crowded: bool, request: &mut Request<Body>) -> Result<Admitted, Problem> {
    if crowded && !routes::is_probe(request.uri().path()) {
        return Err(Problem::new(Kind::Overloaded, "the server has too many connections; try again later").closing());
    }
    if !has_valid_target(request) {
        let detail = "the target must begin with a slash or be a URL (RFC 9112 §3.2)";
        return Err(Problem::new(Kind::MalformedRequest, detail).closing());
    }
    if !has_valid_host(request) {
        let detail = "an HTTP/1.1 request needs exactly one Host header with a valid host (RFC 9112 §3.2)";
        return Err(Problem::new(Kind::MalformedRequest, detail).closing());
    }
    if request.body().is_end_stream() {
        return Ok(Admitted { body: Bytes::new(), place: None });
    }
    let Room { bytes_max, mut place } = routes::room(app, request.uri().path()).map_err(Problem::closing)?;
    let read = within(app.limits.body, pin!(read(request.body_mut(), bytes_max, place.as_mut()))).await;
    let late = |_| Err(Problem::new(Kind::RequestTimeout, "the body took too long to arrive").closing());
    let body = read.unwrap_or_else(late)?;
    if let Some(place) = &mut place
        && request.headers().contains_key(header::CONTENT_ENCODING)
    {
        // It may become as large as any when it is decoded.
        place.grow(bytes_max - body.len())?;
    }
    Ok(Admitted { body, place })
}

/// RFC 9112 §3.2: a path, or the URL of one; host and port alone are for CONNECT.
fn has_valid_target(request: &Request<Body>) -> bool {
    match (request.uri().scheme_str(), request.uri().authority()) {
        (None, None) | (Some("http" | "https"), Some(_)) => true,
        _ => request.method() == Method::CONNECT,
    }
}

/// RFC 9112 §3.2: exactly one Host header. A target in absolute form names the host itself and
/// outweighs the header (§3.2.2), so that a missing one leaves nothing open there.
fn has_valid_host(request: &Request<Body>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.is_empty() || is_host(host.as_bytes()),
        (None, _) => request.version() < Version::HTTP_11 || request.uri().authority().is_some(),
        (Some(_), Some(_)) => false,
    }
}

/// RFC 9110 §7.2: a host and, if any, a port in digits; nothing about a user.
fn is_host(text: &[u8]) -> bool {
    is_plain_host(text)
        || Authority::try_from(text).is_ok_and(|authority| {
            authority.as_str().strip_prefix(authority.host()).is_some_and(|rest| is_port(rest.as_bytes()))
        })
}

/// Whether it is a host as nearly all are, a name or an IPv4 address: told without the copy that others cost.
fn is_plain_host(text: &[u8]) -> bool {
    let is_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let end = text.iter().position(|byte| !is_of_a_name(byte)).unwrap_or(text.len());
    end > 0 && text.get(end..).is_some_and(is_port)
}

/// A colon and digits, or nothing at all.
fn is_port(text: &[u8]) -> bool {
    text.strip_prefix(b":").unwrap_or(text).iter().all(u8::is_ascii_digit)
}

/// Reads a body of so many bytes at most. One that says beforehand that it is larger is not begun, so
/// that a client which waits for `100 Continue` never sends it.
async fn read(body: &mut Body, bytes_max: usize, mut place: Option<&mut Place>) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Kind::BodyTooLarge, format!("the body must have at most {bytes_max} bytes")).closing();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::new(Kind::MalformedRequest, "the body is not what its headers say").closing()
        })?;
        if whole.len() + part.len() > bytes_max {
            return Err(too_large());
        }
        if let Some(place) = &mut place {
            place.grow(part.len()).map_err(|error| Problem::from(error).closing())?;
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

async fn respond(app: &App, front: Front, request: &Request<Bytes>) -> Response<Bytes> {
    within(app.limits.handle, pin!(front.respond(app, request))).await.unwrap_or_else(|_| {
        tracing::error!(limit = ?app.limits.handle, "a request took too long to handle");
        let problem = Problem::new(Kind::HandlingTimeout, "the request took too long to handle; try again later");
        routes::refuse(request.uri().path(), problem)
    })
}

/// [`timeout`] for what mostly is there at once: only then it costs a guest no look at the time.
async fn within<F: Future>(limit: Duration, mut future: Pin<&mut F>) -> Result<F::Output, Elapsed> {
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        // In a box: others need no room for a timer.
        Poll::Pending => Box::pin(timeout(limit, future)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_host_is_a_host_and_no_other_is_taken_for_one() {
        for host in ["x", "x.org", "x.org:80", "127.0.0.1:8080", "a-b.c:", "X:99999", "-", "x..y"] {
            assert!(is_plain_host(host.as_bytes()), "{host}");
            let authority = Authority::try_from(host).unwrap();
            assert!(authority.as_str().strip_prefix(authority.host()).is_some_and(|rest| is_port(rest.as_bytes())));
        }
        for host in ["", ":80", "x:8o", "x y", "u@x", "[::1]:80", "x:80:80", "x/", "x%41"] {
            assert!(!is_plain_host(host.as_bytes()), "{host}");
        }
        for (host, valid) in [("[::1]:80", true), ("a_b", true), ("u@x", false), (":80", true), ("x:8o", false)] {
            assert_eq!(is_host(host.as_bytes()), valid, "{host}");
        }
    }
}
