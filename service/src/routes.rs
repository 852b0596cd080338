//! The whole API on one screen: method and path to handler.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::App;
use crate::handlers::{Answer, health, metrics, users};
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
    Metrics,
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
            "/metrics" => Self::Metrics,
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
            Self::Metrics => "/metrics",
            Self::Asterisk => "*",
        }
    }

    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Users => "GET, HEAD, POST, OPTIONS",
            Self::User(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            Self::Health | Self::Livez | Self::Readyz | Self::Metrics => "GET, HEAD, OPTIONS",
            Self::Asterisk => "OPTIONS",
        })
    }

    fn is_served_by(self, app: &App) -> bool {
        app.metrics_are_public || !matches!(self, Self::Metrics)
    }
}

/// Answers a request. Whatever goes wrong is an answer too.
///
/// HEAD is answered like GET: whoever sends the answer leaves the body out.
pub async fn respond(app: &App, request: &Request<Bytes>) -> Response<Bytes> {
    let Some(route) = Route::of(request.uri().path()).filter(|route| route.is_served_by(app)) else {
        let problem = Problem::new(Kind::NoSuchResource, "there is nothing at this path; users are at /api/users");
        return problem.into_response();
    };
    dispatch(app, route, request).await.unwrap_or_else(Problem::into_response)
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
        (Route::Readyz, &Method::GET | &Method::HEAD) => health::ready(app, 1).await,
        (Route::Metrics, &Method::GET | &Method::HEAD) => metrics::all(app),
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

/// The route of a path, for log and metrics: a template, so that there are few.
pub fn name(path: &str) -> &'static str {
    Route::of(path).map_or("unknown", Route::name)
}

/// Whether a path is for probes and those who watch, which are answered when nothing else is.
pub fn is_probe(path: &str) -> bool {
    matches!(Route::of(path), Some(Route::Health | Route::Livez | Route::Readyz | Route::Metrics))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Queued;
    use crate::store::suite::block_on;

    fn ask(app: &App, method: &str, target: &str, body: &str) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(target).header("content-type", "application/json");
        block_on(respond(app, &request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()))
    }

    fn value(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    fn add(app: &App, n: u32, active: bool) -> Value {
        let body = json!({"name": "n", "email": format!("u{n}@x.org"), "active": active});
        let response = ask(app, "POST", "/api/users", &body.to_string());
        assert_eq!(response.status(), StatusCode::CREATED);
        value(&response)
    }

    #[test]
    fn a_user_can_be_created_read_replaced_patched_and_deleted() {
        let (app, _folder) = App::over_a_new_store();
        let created = add(&app, 1, true);
        assert_eq!(value(&ask(&app, "GET", "/api/users/1", "")), created);
        let whole = r#"{"name":"b","email":"B@x.org","active":false}"#;
        assert_eq!(value(&ask(&app, "PUT", "/api/users/1", whole))["email"], "B@x.org");
        assert_eq!(value(&ask(&app, "PATCH", "/api/users/1", r#"{"name":"c"}"#))["name"], "c");
        assert_eq!(ask(&app, "DELETE", "/api/users/1", "").status(), StatusCode::NO_CONTENT);
        assert_eq!(ask(&app, "GET", "/api/users/1", "").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_link_to_the_next_page_keeps_filter_and_size() {
        let (app, _folder) = App::over_a_new_store();
        (1..=5).for_each(|n| drop(add(&app, n, n % 2 == 1)));
        let first = ask(&app, "GET", "/api/users?active=true&page_size=2", "");
        let token = value(&first)["next_page_token"].as_str().unwrap().to_owned();
        let next = format!("/api/users?page_size=2&active=true&page_token={token}");
        assert_eq!(first.headers()[header::LINK], format!("<{next}>; rel=\"next\""));
        let last = ask(&app, "GET", &next, "");
        assert_eq!(value(&last)["users"][0]["id"], 5);
        assert_eq!((value(&last).get("next_page_token"), last.headers().get(header::LINK)), (None, None));
        let elsewhere = ask(&app, "GET", &format!("/api/users?page_token={token}"), "");
        assert_eq!(elsewhere.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn every_path_answers_every_method_it_does_not_have_with_those_it_has() {
        let (app, _folder) = App::over_a_new_store();
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
        for path in ["/api/users", "/api/users/1", "/api/health", "/livez", "/readyz", "/metrics"] {
            let allow = ask(&app, "OPTIONS", path, "").headers()[header::ALLOW].to_str().unwrap().to_owned();
            for method in methods {
                let response = ask(&app, method, path, "{}");
                let refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
                assert_eq!(refused, !allow.split(", ").any(|allowed| allowed == method), "{method} {path}");
                assert!(!refused || response.headers()[header::ALLOW] == allow, "{method} {path}");
            }
        }
    }

    #[test]
    fn other_paths_are_not_found_by_any_method() {
        let (app, _folder) = App::over_a_new_store();
        for path in ["/", "/api", "/api/users/", "/api/users/1/", "/api/users/1/x", "/API/users", "//livez"] {
            for method in ["GET", "POST", "OPTIONS"] {
                assert_eq!(ask(&app, method, path, "{}").status(), StatusCode::NOT_FOUND, "{method} {path}");
            }
        }
    }

    #[test]
    fn readiness_follows_draining_and_liveness_does_not() {
        let (app, _folder) = App::over_a_new_store();
        assert_eq!(ask(&app, "GET", "/readyz", "").status(), StatusCode::OK);
        app.drain(Queued::Take);
        let response = ask(&app, "GET", "/readyz", "");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(value(&response)["type"], "urn:usher:problem:not-ready");
        assert_eq!(ask(&app, "GET", "/livez", "").status(), StatusCode::OK);
    }

    #[test]
    fn a_full_server_is_alive_and_not_ready() {
        let (app, _folder) = App::over_a_new_store();
        let asking = app.clients.enter();
        assert_eq!(ask(&app, "GET", "/readyz", "").status(), StatusCode::OK, "its connection will be free again");
        let _other = app.clients.enter();
        let response = ask(&app, "GET", "/readyz", "");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(value(&response)["type"], "urn:usher:problem:overloaded");
        assert_eq!(ask(&app, "GET", "/livez", "").status(), StatusCode::OK);
        drop(asking);
        assert_eq!(ask(&app, "GET", "/readyz", "").status(), StatusCode::OK);
    }

    #[test]
    fn metrics_are_for_everybody_unless_there_is_a_control_listener() {
        let (mut app, _folder) = App::over_a_new_store();
        let response = ask(&app, "GET", "/metrics", "");
        assert_eq!((response.status(), &response.headers()["content-type"]), (StatusCode::OK, &metrics_type()));
        assert!(response.body().starts_with(b"# HELP "), "{response:?}");
        app.metrics_are_public = false;
        for method in ["GET", "POST", "OPTIONS"] {
            assert_eq!(ask(&app, method, "/metrics", "").status(), StatusCode::NOT_FOUND, "{method}");
        }
    }

    fn metrics_type() -> HeaderValue {
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8")
    }

    #[test]
    fn routes_are_named_by_template() {
        assert_eq!(name("/api/users/12"), "/api/users/{id}");
        assert_eq!(name("/api/users/12/x"), "unknown");
        assert!(is_probe("/livez") && !is_probe("/api/users"));
    }
}
