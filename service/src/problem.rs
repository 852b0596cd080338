//! Every error as a problem document (RFC 9457): the only place that gives an error its status.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::inference::InferenceError;
use crate::json::JsonError;
use crate::store::StoreError;

/// How long a client that meets a passing failure should wait, in whole seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How many invalid fields are listed at most, so that an answer stays smaller than its question.
pub const FIELD_ERRORS_MAX: usize = 32;

/// What is wrong with one member of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Which member, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: Cow<'static, str>,
}

/// The kinds of problem there are. Each has a stable `type`, a title and a status of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`describe` below says what each is")]
pub enum Kind {
    MalformedRequest,
    MalformedBody,
    InvalidId,
    InvalidParameter,
    NoSuchResource,
    NoSuchUser,
    MethodNotAllowed,
    RequestTimeout,
    DuplicateEmail,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidFields,
    NoSuchModel,
    InvalidTensors,
    InvalidImage,
    NoExtension,
    TooManyInferences,
    Internal,
    HandlingTimeout,
    NotReady,
    Overloaded,
    StoreUnavailable,
}

impl Kind {
    /// Status, the last part of `type`, and title.
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedRequest => (S::BAD_REQUEST, "malformed-request", "Malformed request"),
            Self::MalformedBody => (S::BAD_REQUEST, "malformed-body", "Malformed body"),
            Self::InvalidId => (S::BAD_REQUEST, "invalid-id", "Invalid id"),
            Self::InvalidParameter => (S::BAD_REQUEST, "invalid-parameter", "Invalid query parameter"),
            Self::NoSuchResource => (S::NOT_FOUND, "no-such-resource", "No such resource"),
            Self::NoSuchUser => (S::NOT_FOUND, "no-such-user", "No such user"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive"),
            Self::DuplicateEmail => (S::CONFLICT, "duplicate-email", "E-mail address already in use"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::InvalidFields => (S::UNPROCESSABLE_ENTITY, "invalid-fields", "Invalid fields"),
            Self::NoSuchModel => (S::NOT_FOUND, "no-such-model", "No such model"),
            Self::InvalidTensors => (S::BAD_REQUEST, "invalid-tensors", "Invalid tensors"),
            Self::InvalidImage => (S::BAD_REQUEST, "invalid-image", "Invalid image"),
            Self::NoExtension => (S::SERVICE_UNAVAILABLE, "no-extension", "Models cannot be run here"),
            Self::TooManyInferences => (S::SERVICE_UNAVAILABLE, "too-many-inferences", "Too many inferences"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::HandlingTimeout => {
                (S::SERVICE_UNAVAILABLE, "handling-timeout", "The request took too long to handle")
            }
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Too many connections"),
            Self::StoreUnavailable => (S::SERVICE_UNAVAILABLE, "store-unavailable", "The store is unavailable"),
        }
    }
}

/// An error on its way to the client.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of that kind. `detail` is read by the client: what is wrong here and what would
    /// be right, never a cause from inside.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let problem = Self { kind, detail: detail.into(), errors: Vec::new(), headers: Vec::new() };
        match kind.describe().0 {
            StatusCode::SERVICE_UNAVAILABLE => problem.with_header(header::RETRY_AFTER, RETRY_AFTER),
            _ => problem,
        }
    }

    /// A well-formed body with members that are missing, unknown or wrong.
    pub fn invalid_fields(mut errors: Vec<FieldError>) -> Self {
        let detail: Cow<'static, str> = match errors.len() {
            0..=FIELD_ERRORS_MAX => "see errors for each field".into(),
            n => format!("see errors for the first {FIELD_ERRORS_MAX} of {n} fields").into(),
        };
        errors.truncate(FIELD_ERRORS_MAX);
        Self { errors, ..Self::new(Kind::InvalidFields, detail) }
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Ends the connection after the answer: what the client still sends is not read.
    pub fn closing(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The answer, as `application/problem+json`.
    pub fn into_response(self) -> Response<Bytes> {
        let (status, slug, title) = self.kind.describe();
        let document = Document {
            r#type: format!("urn:usher:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        // Strings and numbers always serialise; an empty body would still carry the status.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        self.respond("application/problem+json", body)
    }

    /// The answer as the protocols for inference have it: `{"error": …}`.
    pub fn into_inference_response(self) -> Response<Bytes> {
        let body = serde_json::to_vec(&InferenceDocument { error: &self.detail }).unwrap_or_default();
        self.respond("application/json", body)
    }

    fn respond(self, content_type: &'static str, body: Vec<u8>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.kind.describe().0;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().extend(self.headers);
        response
    }
}

#[derive(Serialize)]
struct InferenceDocument<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::NotAnObject => {
                Self::invalid_fields(vec![FieldError { pointer: String::new(), detail: error.to_string().into() }])
            }
            malformed => Self::new(Kind::MalformedBody, malformed.to_string()),
        }
    }
}

impl From<InferenceError> for Problem {
    fn from(error: InferenceError) -> Self {
        let kind = match error {
            InferenceError::NoExtension => Kind::NoExtension,
            InferenceError::NoSuchModel(_) | InferenceError::NoSuchVersion(_) => Kind::NoSuchModel,
            InferenceError::Invalid(_) | InferenceError::Refused => Kind::InvalidTensors,
            InferenceError::Full => Kind::TooManyInferences,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::new(Kind::NoSuchUser, "there is no user with this id"),
            StoreError::DuplicateEmail => {
                let detail = "another user has this e-mail address";
                let field = FieldError { pointer: "/email".to_owned(), detail: detail.into() };
                Self { errors: vec![field], ..Self::new(Kind::DuplicateEmail, detail) }
            }
            StoreError::Unavailable { reason, cause, .. } => {
                tracing::error!(cause = chain(&*cause), "store unavailable: {reason}");
                Self::new(Kind::StoreUnavailable, reason)
            }
        }
    }
}

/// An error with all its causes, for the log; without those that its own text has already.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(problem: Problem) -> (Response<Bytes>, serde_json::Value) {
        let response = problem.into_response();
        let value = serde_json::from_slice(response.body()).unwrap();
        (response, value)
    }

    #[test]
    fn a_cause_is_never_shown_to_the_client() {
        let cause = "password=hunter2".into();
        let error =
            StoreError::Unavailable { reason: "cannot read".into(), advice: Some("mend hunter2".into()), cause };
        let (response, document) = document(error.into());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(document["detail"], "cannot read");
        assert!(!document.to_string().contains("hunter2"));
    }

    #[test]
    fn a_cause_is_logged_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Telling(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Silent(#[source] std::io::Error);

        let inner = || std::io::Error::other("inner");
        assert_eq!(chain(&Telling(inner())), "outer: inner");
        assert_eq!(chain(&Silent(inner())), "outer: inner");
    }

    #[test]
    fn the_list_of_fields_is_bounded() {
        let error = FieldError { pointer: "/x".into(), detail: "unknown".into() };
        let (_, document) = document(Problem::invalid_fields(vec![error; 1000]));
        assert_eq!(document["errors"].as_array().unwrap().len(), FIELD_ERRORS_MAX);
        assert!(document["detail"].as_str().unwrap().contains("of 1000"));
    }

    #[test]
    fn a_duplicate_names_its_field() {
        let (response, document) = document(StoreError::DuplicateEmail.into());
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(document["type"], "urn:usher:problem:duplicate-email");
        assert_eq!(document["errors"][0]["pointer"], "/email");
    }
}
