//! What the service tells of itself: a log and metrics.

pub mod log;
pub mod metrics;

use http::Method;

/// The method as log and metrics name it: a client may send any, so that all that are not HTTP's own
/// have one name, OpenTelemetry's.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_are_not_of_http_have_one_name() {
        for (method, name) in [("GET", "GET"), ("PATCH", "PATCH"), ("BREW", "_OTHER"), ("get", "_OTHER")] {
            assert_eq!(method_name(&Method::from_bytes(method.as_bytes()).unwrap()), name);
        }
    }
}
