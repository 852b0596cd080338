//! The whole API on one screen: method and path to handler.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::App;
use crate::handlers::{Answer, health, users};
use crate::problem::{Kind, Problem};

/// Largest body of a request, in bytes.
pub const BODY_MAX: usize = 64 << 10;

#[derive(Clone, Copy)]
enum Route<'a> {
    Users,
    User(&'a str),
    Health,
    Livez,
    Readyz,
    /// The server as a whole (RFC 9110 §9.3.7).
    Asterisk,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/api/users" => Self::Users,
            "/api/health" => Self::Health,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "*" => Self::Asterisk,
            _ => Self::User(path.strip_prefix("/api/users/").filter(|id| !id.is_empty() && !id.contains('/'))?),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Users => "/api/users",
            Self::User(_) => "/api/users/{id}",
            Self::Health => "/api/health",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Asterisk => "*",
        }
    }

    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Users => "GET, HEAD, POST, OPTIONS",
            Self::User(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            Self::Health | Self::Livez | Self::Readyz => "GET, HEAD, OPTIONS",
            Self::Asterisk => "OPTIONS",
        })
    }
}

/// Answers a request. Whatever goes wrong is an answer too.
///
/// HEAD is answered like GET: whoever sends the answer leaves the body out.
pub async fn respond(app: &App, request: Request<Bytes>) -> Response<Bytes> {
    let Some(route) = Route::of(request.uri().path()) else {
        let problem = Problem::new(Kind::NoSuchResource, "there is nothing at this path; users are at /api/users");
        return problem.into_response();
    };
    dispatch(app, route, &request).await.unwrap_or_else(Problem::into_response)
}

async fn dispatch(app: &App, route: Route<'_>, request: &Request<Bytes>) -> Answer {
    match (route, request.method()) {
        (Route::Users, &Method::GET | &Method::HEAD) => users::list(app, request).await,
        (Route::Users, &Method::POST) => users::create(app, request).await,
        (Route::User(id), &Method::GET | &Method::HEAD) => users::get(app, id, request).await,
        (Route::User(id), &Method::PUT) => users::replace(app, id, request).await,
        (Route::User(id), &Method::PATCH) => users::patch(app, id, request).await,
        (Route::User(id), &Method::DELETE) => users::delete(app, id, request).await,
        (Route::Health | Route::Livez, &Method::GET | &Method::HEAD) => health::alive(),
        (Route::Readyz, &Method::GET | &Method::HEAD) => health::ready(app).await,
        (_, &Method::OPTIONS) => Ok(options(route)),
        _ => Err(Problem::new(Kind::MethodNotAllowed, "this path does not have that method; see Allow")
            .with_header(header::ALLOW, route.allow())),
    }
}

fn options(route: Route<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, route.allow());
    response
}

/// The route of a path, for the log: a template, so that there are few.
pub fn name(path: &str) -> &'static str {
    Route::of(path).map_or("unknown", Route::name)
}

/// Whether a path is for probes, which are answered when nothing else is.
pub fn is_probe(path: &str) -> bool {
    matches!(Route::of(path), Some(Route::Health | Route::Livez | Route::Readyz))
}
