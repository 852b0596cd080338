//! The process itself, for its host and for whoever runs it.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Serialize;

use super::query::Query;
use super::{Answer, json};
use crate::{App, Queued};

#[derive(Serialize)]
struct About<'a> {
    version: &'static str,
    store: &'a str,
    single_writer: bool,
}

#[derive(Serialize)]
struct Draining {
    draining: bool,
}

/// `GET /about`: what serves here, and whether a second process could serve the same users.
pub fn about(app: &App, request: &Request<Bytes>) -> Answer {
    Query::parse(request.uri().query(), &[])?;
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        store: &app.store_name,
        single_writer: app.store.has_single_writer(),
    };
    json(StatusCode::OK, &about)
}

/// `POST /drain`: the order to stop. It may be repeated; the first one counts.
pub fn drain(app: &App, request: &Request<Bytes>) -> Answer {
    let query = Query::parse(request.uri().query(), &["queued", "report"])?;
    let queued = query.get("queued", parse_queued)?.unwrap_or(Queued::Take);
    if query.get("report", parse_switch)?.unwrap_or(false) {
        app.want_report();
    }
    app.drain(queued);
    json(StatusCode::ACCEPTED, &Draining { draining: app.is_draining() })
}

fn parse_switch(text: &str) -> Result<bool, Cow<'static, str>> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

fn parse_queued(text: &str) -> Result<Queued, Cow<'static, str>> {
    match text {
        "take" => Ok(Queued::Take),
        "leave" => Ok(Queued::Leave),
        _ => Err("must be take or leave".into()),
    }
}
