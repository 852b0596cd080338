//! The whole API on one screen: method and path to handler.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;

use crate::App;
use crate::handlers::{Answer, classify, health, metrics, open_inference, serving, users};
use crate::inference::Place;
use crate::inference::repository::version_number;
use crate::problem::{Kind, Problem};

/// Largest body of a request, in bytes.
pub const BODY_MAX: usize = 64 << 10;

/// Largest body of a request for inference, in bytes, decoded.
pub const INFERENCE_BODY_MAX: usize = 8 << 20;

#[derive(Clone, Copy)]
enum Route<'a> {
    Users,
    User(&'a str),
    Classify,
    Health,
    Livez,
    Readyz,
    Metrics,
    Models,
    /// A path of TensorFlow Serving's below `/v1/models/`.
    Serving(ModelAt<'a>, ServingAction),
    /// A path of the Open Inference Protocol.
    OpenInference(OpenInferenceRoute<'a>),
    /// The server as a whole (RFC 9110 §9.3.7).
    Asterisk,
}

#[derive(Clone, Copy)]
enum ServingAction {
    Status,
    Metadata,
    Predict,
}

#[derive(Clone, Copy)]
enum OpenInferenceRoute<'a> {
    Server,
    Live,
    Ready,
    Metadata(ModelAt<'a>),
    ModelReady(ModelAt<'a>),
    Infer(ModelAt<'a>),
}

/// A model as a path has it: its name, not yet decoded, and its version, if it says one.
type ModelAt<'a> = (&'a str, Option<&'a str>);

/// A model that a path names.
#[derive(Debug)]
pub struct ModelPath<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    version: Option<&'a str>,
}

impl<'a> ModelPath<'a> {
    fn of((name, version): ModelAt<'a>) -> Self {
        Self { name: percent_decode_str(name).decode_utf8_lossy(), version }
    }

    /// The version, if one is named.
    pub(crate) fn version(&self) -> Result<Option<u64>, Problem> {
        let wrong = || Problem::new(Kind::InvalidParameter, "a version is a number, written in digits");
        self.version.map(|text| version_number(text).ok_or_else(wrong)).transpose()
    }
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/api/users" => Self::Users,
            "/api/classify" => Self::Classify,
            "/api/health" => Self::Health,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/v1/models" => Self::Models,
            "*" => Self::Asterisk,
            _ => return Self::of_prefix(path),
        })
    }

    fn of_prefix(path: &'a str) -> Option<Self> {
        if let Some(id) = path.strip_prefix("/api/users/") {
            return (!id.is_empty() && !id.contains('/')).then_some(Self::User(id));
        }
        if let Some(rest) = path.strip_prefix("/v1/models/") {
            return Self::of_serving(rest);
        }
        OpenInferenceRoute::of(path).map(Self::OpenInference)
    }

    fn of_serving(rest: &'a str) -> Option<Self> {
        let (rest, action) = match (rest.strip_suffix(":predict"), rest.strip_suffix("/metadata")) {
            (Some(rest), _) => (rest, ServingAction::Predict),
            (None, Some(rest)) => (rest, ServingAction::Metadata),
            (None, None) => (rest, ServingAction::Status),
        };
        Some(Self::Serving(model_at(rest)?, action))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Users => "/api/users",
            Self::User(_) => "/api/users/{id}",
            Self::Classify => "/api/classify",
            Self::Health => "/api/health",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Models => "/v1/models",
            Self::Serving((_, None), ServingAction::Status) => "/v1/models/{model}",
            Self::Serving((_, Some(_)), ServingAction::Status) => "/v1/models/{model}/versions/{version}",
            Self::Serving((_, None), ServingAction::Metadata) => "/v1/models/{model}/metadata",
            Self::Serving((_, Some(_)), ServingAction::Metadata) => "/v1/models/{model}/versions/{version}/metadata",
            Self::Serving((_, None), ServingAction::Predict) => "/v1/models/{model}:predict",
            Self::Serving((_, Some(_)), ServingAction::Predict) => "/v1/models/{model}/versions/{version}:predict",
            Self::OpenInference(route) => route.name(),
            Self::Asterisk => "*",
        }
    }

    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Users => "GET, HEAD, POST, OPTIONS",
            Self::User(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            route if route.is_inference() => "POST, OPTIONS",
            Self::Asterisk => "OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        })
    }

    /// Whether requests run a model.
    fn is_inference(self) -> bool {
        matches!(
            self,
            Self::Classify
                | Self::Serving(_, ServingAction::Predict)
                | Self::OpenInference(OpenInferenceRoute::Infer(_))
        )
    }

    fn is_served_by(self, app: &App) -> bool {
        app.metrics_are_public || !matches!(self, Self::Metrics)
    }
}

impl<'a> OpenInferenceRoute<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/v2" | "/v2/" => Self::Server,
            "/v2/health/live" => Self::Live,
            "/v2/health/ready" => Self::Ready,
            _ => {
                let rest = path.strip_prefix("/v2/models/")?;
                match (rest.strip_suffix("/infer"), rest.strip_suffix("/ready")) {
                    (Some(rest), _) => Self::Infer(model_at(rest)?),
                    (None, Some(rest)) => Self::ModelReady(model_at(rest)?),
                    (None, None) => Self::Metadata(model_at(rest)?),
                }
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Server => "/v2",
            Self::Live => "/v2/health/live",
            Self::Ready => "/v2/health/ready",
            Self::Metadata((_, None)) => "/v2/models/{model}",
            Self::Metadata((_, Some(_))) => "/v2/models/{model}/versions/{version}",
            Self::ModelReady((_, None)) => "/v2/models/{model}/ready",
            Self::ModelReady((_, Some(_))) => "/v2/models/{model}/versions/{version}/ready",
            Self::Infer((_, None)) => "/v2/models/{model}/infer",
            Self::Infer((_, Some(_))) => "/v2/models/{model}/versions/{version}/infer",
        }
    }
}

/// `{model}` or `{model}/versions/{version}`.
fn model_at(rest: &str) -> Option<ModelAt<'_>> {
    let (name, version) = match rest.split_once("/versions/") {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    let is_segment = |text: &str| !text.is_empty() && !text.contains('/');
    (is_segment(name) && version.is_none_or(is_segment)).then_some((name, version))
}

/// Answers a request. Whatever goes wrong is an answer too.
///
/// HEAD is answered like GET: whoever sends the answer leaves the body out.
pub async fn respond(app: &App, request: &Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path();
    let Some(route) = Route::of(path).filter(|route| route.is_served_by(app)) else {
        return refuse(path, Problem::new(Kind::NoSuchResource, nothing_there(path)));
    };
    dispatch(app, route, request).await.unwrap_or_else(|problem| refuse(path, problem))
}

fn nothing_there(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("/v1/") => {
            "there is nothing at this path; TensorFlow Serving's REST API is served for /v1/models, /metadata and \
             :predict, without labels, :classify and :regress"
        }
        _ if path.starts_with("/v2/") => {
            "there is nothing at this path; the Open Inference Protocol is served for /v2, /v2/health/live, \
             /v2/health/ready and /v2/models/{model}[/versions/{version}][/ready|/infer]"
        }
        _ => "there is nothing at this path; users are at /api/users",
    }
}

/// A problem in the form that clients of this path know.
pub fn refuse(path: &str, problem: Problem) -> Response<Bytes> {
    match path.starts_with("/v1/") || path == "/v2" || path.starts_with("/v2/") {
        true => problem.into_inference_response(),
        false => problem.into_response(),
    }
}

/// What the body of a request for this path may have.
#[derive(Debug)]
pub struct Room {
    /// Bytes at most.
    pub bytes_max: usize,
    /// The place of a request that runs a model, until it is answered.
    pub place: Option<Place>,
}

/// The room for the body of a request for this path.
pub fn room(app: &App, path: &str) -> Result<Room, Problem> {
    match Route::of(path).is_some_and(Route::is_inference) {
        true => Ok(Room { bytes_max: INFERENCE_BODY_MAX, place: Some(app.inference.enter()?) }),
        false => Ok(Room { bytes_max: BODY_MAX, place: None }),
    }
}

async fn dispatch(app: &App, route: Route<'_>, request: &Request<Bytes>) -> Answer {
    match (route, request.method()) {
        (Route::Users, &Method::GET | &Method::HEAD) => users::list(app, request).await,
        (Route::Users, &Method::POST) => users::create(app, request).await,
        (Route::User(id), &Method::GET | &Method::HEAD) => users::get(app, id, request).await,
        (Route::User(id), &Method::PUT) => users::replace(app, id, request).await,
        (Route::User(id), &Method::PATCH) => users::patch(app, id, request).await,
        (Route::User(id), &Method::DELETE) => users::delete(app, id, request).await,
        (Route::Classify, &Method::POST) => classify::image(app, request).await,
        (Route::Health | Route::Livez, &Method::GET | &Method::HEAD) => health::alive(),
        (Route::Readyz, &Method::GET | &Method::HEAD) => health::ready(app, 1).await,
        (Route::Metrics, &Method::GET | &Method::HEAD) => metrics::all(app),
        (Route::Models, &Method::GET | &Method::HEAD) => serving::list(app),
        (Route::Serving(at, ServingAction::Status), &Method::GET | &Method::HEAD) => {
            serving::status(app, &ModelPath::of(at))
        }
        (Route::Serving(at, ServingAction::Metadata), &Method::GET | &Method::HEAD) => {
            serving::metadata(app, &ModelPath::of(at))
        }
        (Route::Serving(at, ServingAction::Predict), &Method::POST) => {
            serving::predict(app, &ModelPath::of(at), request).await
        }
        (Route::OpenInference(OpenInferenceRoute::Infer(at)), &Method::POST) => {
            open_inference::infer(app, &ModelPath::of(at), request).await
        }
        (Route::OpenInference(route), &Method::GET | &Method::HEAD)
            if !matches!(route, OpenInferenceRoute::Infer(_)) =>
        {
            tell(app, route).await
        }
        (_, &Method::OPTIONS) => Ok(options(route)),
        _ => Err(Problem::new(Kind::MethodNotAllowed, "this path does not have that method; see Allow")
            .with_header(header::ALLOW, route.allow())),
    }
}

async fn tell(app: &App, route: OpenInferenceRoute<'_>) -> Answer {
    match route {
        OpenInferenceRoute::Server => open_inference::server(),
        OpenInferenceRoute::Live => open_inference::live(),
        OpenInferenceRoute::Ready => health::ready(app, 1).await,
        OpenInferenceRoute::ModelReady(at) => open_inference::model_ready(app, &ModelPath::of(at)),
        OpenInferenceRoute::Metadata(at) | OpenInferenceRoute::Infer(at) => {
            open_inference::metadata(app, &ModelPath::of(at))
        }
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
    matches!(
        Route::of(path),
        Some(
            Route::Health
                | Route::Livez
                | Route::Readyz
                | Route::Metrics
                | Route::OpenInference(OpenInferenceRoute::Live | OpenInferenceRoute::Ready)
        )
    )
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

    const EVERY_PATH: [&str; 21] = [
        "/api/users",
        "/api/users/1",
        "/api/classify",
        "/api/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/v1/models/a",
        "/v1/models/a/versions/1",
        "/v1/models/a/metadata",
        "/v1/models/a/versions/1/metadata",
        "/v1/models/a:predict",
        "/v1/models/a/versions/1:predict",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/a",
        "/v2/models/a/versions/1/ready",
        "/v2/models/a/infer",
        "/v2/models/a/versions/1/infer",
    ];

    #[test]
    fn every_path_answers_every_method_it_does_not_have_with_those_it_has() {
        let (app, _folder) = App::over_a_new_store();
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
        for path in EVERY_PATH {
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
        let users = ["/", "/api", "/api/users/", "/api/users/1/", "/api/users/1/x", "/API/users", "//livez"];
        let models = ["/v1", "/v1/models/", "/v1/models/a/b", "/v1/models/:predict", "/v1/models/a/versions/:predict"];
        let others = ["/v1/models/a/labels/b", "/v2/models", "/v2/models/", "/v2/models/a/b/infer", "/v3"];
        for path in users.into_iter().chain(models).chain(others) {
            for method in ["GET", "POST", "OPTIONS"] {
                assert_eq!(ask(&app, method, path, "{}").status(), StatusCode::NOT_FOUND, "{method} {path}");
            }
        }
    }

    #[test]
    fn versions_are_written_in_digits() {
        let version = |text| ModelPath::of(("a", Some(text))).version();
        assert_eq!((version("12").unwrap(), version("007").unwrap()), (Some(12), Some(7)));
        for text in ["+1", "-1", "1.0", "one", "%31", "18446744073709551616"] {
            assert!(version(text).is_err(), "{text}");
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
    fn without_an_extension_models_are_not_run_and_say_why_in_the_form_of_their_protocol() {
        let (app, _folder) = App::over_a_new_store();
        for path in ["/v1/models/a:predict", "/v2/models/a/infer"] {
            let response = ask(&app, "POST", path, "{}");
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let error = value(&response);
            let members = error.as_object().unwrap();
            assert!(members.len() == 1 && members["error"].as_str().unwrap().contains("plugin"), "{error}");
        }
        let response = ask(&app, "POST", "/api/classify", "");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(value(&response)["type"], "urn:usher:problem:no-extension");
        assert_eq!(value(&ask(&app, "GET", "/v1/models", "")), json!({"models": []}));
        assert_eq!(ask(&app, "GET", "/v1/models/a", "").status(), StatusCode::NOT_FOUND);
        assert_eq!(ask(&app, "GET", "/v2/health/ready", "").status(), StatusCode::OK);
    }

    #[test]
    fn bodies_for_models_have_room_of_their_own_and_so_many_places() {
        let (app, _folder) = App::over_a_new_store();
        assert_eq!(room(&app, "/api/users").unwrap().bytes_max, BODY_MAX);
        let status = |problem: Problem| problem.into_response().status();
        let predict = || room(&app, "/v1/models/a:predict");
        let places: Vec<_> = std::iter::from_fn(|| predict().ok()).collect();
        assert_eq!(places.len(), 256);
        assert!(places.iter().all(|room| room.bytes_max == INFERENCE_BODY_MAX && room.place.is_some()));
        assert_eq!(status(predict().unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
        assert!(room(&app, "/api/users").is_ok(), "users have nothing to do with it");
        drop(places);
        let mut first = predict().unwrap().place.unwrap();
        let mut second = room(&app, "/api/classify").unwrap().place.unwrap();
        first.grow(31 << 20).unwrap();
        assert!(second.grow(2 << 20).is_err(), "so many bytes");
        second.grow(1 << 20).unwrap();
        drop(first);
        second.grow(31 << 20).unwrap();
    }

    #[test]
    fn routes_are_named_by_template() {
        assert_eq!(name("/v1/models/x/versions/3:predict"), "/v1/models/{model}/versions/{version}:predict");
        assert_eq!(name("/v2/models/x/infer"), "/v2/models/{model}/infer");
        assert_eq!(name("/api/users/12"), "/api/users/{id}");
        assert_eq!(name("/api/users/12/x"), "unknown");
        assert!(is_probe("/livez") && !is_probe("/api/users"));
    }
}
