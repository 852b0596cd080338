//! What a body is said to be: its media type, and how it is coded (RFC 9110 §8.3, §8.4).

use std::io::Read;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request};

use crate::problem::{Kind, Problem};

/// Refuses a body that is not JSON as it stands: another type, another charset, or compressed.
/// `accepts` is the header that tells the client which types would do.
pub fn require_json(request: &Request<Bytes>, types: &[&str], accepts: &'static str) -> Result<(), Problem> {
    if coding(request.headers()).is_some() {
        return Err(coding_not_taken("send the body without a content coding", "identity"));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| is_one_of(value, types)) {
        return Ok(());
    }
    let detail = format!("send the body with Content-Type: {}, in UTF-8", types.join(" or "));
    let problem = Problem::new(Kind::UnsupportedMediaType, detail);
    match HeaderValue::try_from(types.join(", ")) {
        Ok(value) => Err(problem.with_header(HeaderName::from_static(accepts), value)),
        Err(_) => Err(problem),
    }
}

/// Whether a body is coded, and how.
pub fn coding(headers: &HeaderMap) -> Option<&HeaderValue> {
    let coding = headers.get(header::CONTENT_ENCODING)?;
    (!coding.as_bytes().eq_ignore_ascii_case(b"identity")).then_some(coding)
}

/// The body without its coding, gzip or deflate, which may have so many bytes.
pub fn decoded(request: &Request<Bytes>, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = request.body();
    let Some(coding) = coding(request.headers()) else { return Ok(body.clone()) };
    let is = |name: &str| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    let mut whole = Vec::new();
    // One byte more than may be, to see whether there are more.
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = match () {
        () if is("gzip") || is("x-gzip") => MultiGzDecoder::new(&**body).take(limit).read_to_end(&mut whole),
        () if is("deflate") => ZlibDecoder::new(&**body).take(limit).read_to_end(&mut whole),
        () => {
            return Err(coding_not_taken(
                "send the body as it is, or coded with gzip or deflate",
                "gzip, deflate, identity",
            ));
        }
    };
    match read {
        Ok(size) if size > bytes_max => {
            Err(Problem::new(Kind::BodyTooLarge, format!("the body must have at most {bytes_max} bytes, decoded")))
        }
        Ok(_) => Ok(whole.into()),
        Err(_) => Err(Problem::new(Kind::MalformedBody, "the body is not coded as its Content-Encoding says")),
    }
}

/// RFC 9110 §15.5.16: the header tells it apart from a wrong type.
fn coding_not_taken(detail: &'static str, codings: &'static str) -> Problem {
    Problem::new(Kind::UnsupportedMediaType, detail)
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static(codings))
}

/// Whether a media type (RFC 9110 §8.3.1) is one of `types`, its charset, if any, being UTF-8.
fn is_one_of(content_type: &str, types: &[&str]) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    types.iter().any(|known| known.eq_ignore_ascii_case(essence))
        && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http::StatusCode;

    use super::*;

    #[test]
    fn media_types_are_compared_without_their_parameters() {
        for ok in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; x=y"] {
            assert!(is_one_of(ok, &["application/json"]), "{ok}");
        }
        for other in ["", "text/json", "application/json; charset=latin1", "application/jsonx"] {
            assert!(!is_one_of(other, &["application/json"]), "{other}");
        }
    }

    fn request(coding: &str, body: Vec<u8>) -> Request<Bytes> {
        Request::builder().header("content-encoding", coding).body(body.into()).unwrap()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn codings_are_undone_within_the_bound() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"tensor").unwrap();
        for (coding, body) in [
            ("identity", b"tensor".to_vec()),
            ("gzip", gzip(b"tensor")),
            ("X-GZIP", gzip(b"tensor")),
            ("gzip", [gzip(b"ten"), gzip(b"sor")].concat()),
            ("deflate", zlib.finish().unwrap()),
        ] {
            assert_eq!(decoded(&request(coding, body.clone()), 6).unwrap(), "tensor", "{coding}");
            let at_most_five = decoded(&request(coding, body), 5);
            assert_eq!(at_most_five.is_err(), coding != "identity", "{coding}: what is not coded was bounded before");
        }
    }

    #[test]
    fn other_codings_are_refused_with_those_that_would_do() {
        let refused = decoded(&request("br", vec![]), 6).unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(refused.headers()["accept-encoding"], "gzip, deflate, identity");
    }

    #[test]
    fn damaged_and_exploding_bodies_are_refused() {
        let status = |body| decoded(&request("gzip", body), 1 << 20).unwrap_err().into_response().status();
        assert_eq!(status(b"tensor".to_vec()), StatusCode::BAD_REQUEST);
        assert_eq!(status([&gzip(b"tensor")[..], b"and more"].concat()), StatusCode::BAD_REQUEST);
        assert_eq!(status(gzip(b"tensor").into_iter().take(12).collect()), StatusCode::BAD_REQUEST);
        assert_eq!(status(gzip(&vec![0; 64 << 20])), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
