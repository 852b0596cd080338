//! The control routes on one screen: what a host or an operator asks of the process.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};

use crate::App;
use crate::handlers::{Answer, control, health, metrics};
use crate::problem::{Kind, Problem};

#[derive(Clone, Copy)]
enum Route {
    About,
    Drain,
    Livez,
    Readyz,
    Metrics,
    Report,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/about" => Self::About,
            "/drain" => Self::Drain,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/report" => Self::Report,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::About => "/about",
            Self::Drain => "/drain",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Report => "/report",
        }
    }

    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::About | Self::Livez | Self::Readyz | Self::Metrics | Self::Report => "GET, HEAD",
            Self::Drain => "POST",
        })
    }
}

/// Answers a request on the control listener. Whatever goes wrong is an answer too.
///
/// HEAD is answered like GET: whoever sends the answer leaves the body out.
pub async fn respond(app: &App, request: &Request<Bytes>) -> Response<Bytes> {
    let Some(route) = Route::of(request.uri().path()) else {
        let detail = "there is nothing at this path; control has /about, /drain, /livez, /metrics, /readyz and /report";
        return Problem::new(Kind::NoSuchResource, detail).into_response();
    };
    dispatch(app, route, request).await.unwrap_or_else(Problem::into_response)
}

async fn dispatch(app: &App, route: Route, request: &Request<Bytes>) -> Answer {
    match (route, request.method()) {
        (Route::About, &Method::GET | &Method::HEAD) => control::about(app, request),
        (Route::Drain, &Method::POST) => control::drain(app, request),
        (Route::Livez, &Method::GET | &Method::HEAD) => health::alive(),
        (Route::Readyz, &Method::GET | &Method::HEAD) => health::ready(app, 0).await,
        (Route::Metrics, &Method::GET | &Method::HEAD) => metrics::all(app),
        (Route::Report, &Method::GET | &Method::HEAD) => metrics::last(app).await,
        _ => Err(Problem::new(Kind::MethodNotAllowed, "this path does not have that method; see Allow")
            .with_header(header::ALLOW, route.allow())),
    }
}

/// The route of a path, for the log: one of few.
pub fn name(path: &str) -> &'static str {
    Route::of(path).map_or("unknown", Route::name)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::suite::block_on;
    use crate::{Queued, Report};

    fn ask(app: &App, method: &str, target: &str) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(target);
        block_on(respond(app, &request.body(Bytes::new()).unwrap()))
    }

    fn value(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn about_says_what_serves_and_from_where() {
        let (app, _folder) = App::over_a_new_store();
        let response = ask(&app, "GET", "/about");
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &HeaderValue::from_static("application/json"))
        );
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(value(&response), json!({"version": version, "store": "embedded in ./data", "single_writer": true}));
    }

    #[test]
    fn a_drain_is_ordered_once_and_the_first_order_counts() {
        for (target, queued) in
            [("/drain", Queued::Take), ("/drain?queued=take", Queued::Take), ("/drain?queued=leave", Queued::Leave)]
        {
            let (app, _folder) = App::over_a_new_store();
            assert_eq!(ask(&app, "GET", "/readyz").status(), StatusCode::OK);
            for repeated in [target, "/drain?queued=take", "/drain?queued=leave"] {
                let response = ask(&app, "POST", repeated);
                assert_eq!(response.status(), StatusCode::ACCEPTED, "{repeated}");
                assert_eq!(value(&response), json!({"draining": true}));
            }
            assert_eq!(block_on(app.drained()), queued, "{target}");
            assert_eq!(ask(&app, "GET", "/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(ask(&app, "GET", "/livez").status(), StatusCode::OK);
        }
    }

    #[test]
    fn it_is_not_ready_while_clients_have_all_connections() {
        let (app, _folder) = App::over_a_new_store();
        let client = app.clients.enter();
        let response = ask(&app, "GET", "/readyz");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(value(&response)["type"], "urn:usher:problem:overloaded");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        drop(client);
        assert_eq!(ask(&app, "GET", "/readyz").status(), StatusCode::OK);
    }

    #[test]
    fn a_report_is_given_once_there_is_no_more_to_count_and_to_none_but_who_asked_for_it() {
        let (app, _folder) = App::over_a_new_store();
        assert_eq!(ask(&app, "GET", "/report").status(), StatusCode::NOT_FOUND);
        assert_eq!(ask(&app, "POST", "/drain?report=false").status(), StatusCode::ACCEPTED);
        assert_eq!((app.finish(), ask(&app, "GET", "/report").status()), (false, StatusCode::NOT_FOUND));

        assert_eq!(ask(&app, "POST", "/drain?report=true").status(), StatusCode::ACCEPTED);
        let report = block_on(async {
            let request = Request::builder().uri("/report").body(Bytes::new()).unwrap();
            let early = respond(&app, &request);
            let end = async {
                app.metrics.request("GET", "/livez", StatusCode::OK, std::time::Duration::ZERO);
                assert!(app.finish());
            };
            let (report, (), ()) = tokio::join!(early, end, app.reached(Report::Given));
            report
        });
        assert_eq!(report.status(), StatusCode::OK);
        let text = std::str::from_utf8(report.body()).unwrap();
        assert!(text.contains("http_route=\"/livez\"} 1\n"), "{text}");
    }

    #[test]
    fn a_wrong_parameter_orders_nothing_and_is_told_the_right_ones() {
        let (app, _folder) = App::over_a_new_store();
        for (method, target, says) in [
            ("POST", "/drain?queue=take", "known are queued, report"),
            ("POST", "/drain?queued=drop", "must be take or leave"),
            ("POST", "/drain?queued", "must be take or leave"),
            ("POST", "/drain?queued=take&queued=take", "given twice"),
            ("POST", "/drain?report=1", "must be true or false"),
            ("GET", "/about?x=1", "there are none here"),
        ] {
            let response = ask(&app, method, target);
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
            assert!(value(&response)["detail"].as_str().unwrap().contains(says), "{target}: {:?}", response.body());
        }
        assert!(!app.is_draining());
    }

    #[test]
    fn every_path_answers_every_method_it_does_not_have_with_those_it_has() {
        let (app, _folder) = App::over_a_new_store();
        for (path, allow) in [
            ("/about", "GET, HEAD"),
            ("/livez", "GET, HEAD"),
            ("/readyz", "GET, HEAD"),
            ("/metrics", "GET, HEAD"),
            ("/report", "GET, HEAD"),
            ("/drain", "POST"),
        ] {
            let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
            let refused = methods.into_iter().filter(|method| !allow.split(", ").any(|allowed| allowed == *method));
            for method in refused {
                let response = ask(&app, method, path);
                assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert_eq!(response.headers()[header::ALLOW], allow, "{method} {path}");
            }
        }
        assert!(!app.is_draining());
    }

    #[test]
    fn other_paths_are_not_found_not_even_those_of_the_api() {
        let (app, _folder) = App::over_a_new_store();
        for path in ["/", "/api/users", "/api/health", "/drain/", "/Drain", "*"] {
            for method in ["GET", "POST", "OPTIONS"] {
                let response = ask(&app, method, path);
                assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
                assert_eq!(value(&response)["type"], "urn:usher:problem:no-such-resource");
            }
        }
    }

    #[test]
    fn routes_are_named_for_the_log() {
        assert_eq!((name("/drain"), name("/api/users")), ("/drain", "unknown"));
    }
}
