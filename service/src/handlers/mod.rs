//! One function per operation: decode, one call, encode.

pub mod classify;
mod content;
pub mod control;
pub mod health;
pub mod metrics;
pub mod open_inference;
mod query;
pub mod serving;
mod tensor_json;
mod user_body;
pub mod users;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::problem::{Kind, Problem};

/// What a handler gives: an answer, or a problem that becomes one.
pub type Answer = Result<Response<Bytes>, Problem>;

/// A JSON answer.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "cannot encode an answer");
        Problem::new(Kind::Internal, "the answer could not be encoded")
    })?;
    Ok(typed(status, "application/json", body.into()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
