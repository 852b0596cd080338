//! `/api/users` and `/api/users/{id}`.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use serde::Serialize;

use super::content::require_json;
use super::query::Query;
use super::{Answer, json, user_body};
use crate::App;
use crate::problem::{Kind, Problem};
use crate::store::PageQuery;
use crate::user::{Email, User, UserId};

/// Users on a page where the client does not say.
const PAGE_SIZE_DEFAULT: usize = 20;
/// Users on a page at most.
const PAGE_SIZE_MAX: usize = 100;

/// `GET /api/users`: a page, with the way to the next.
pub async fn list(app: &App, request: &Request<Bytes>) -> Answer {
    let query = page_query(request.uri().query())?;
    let page = app.store.page(&query).await?;
    let last = page.users.last().filter(|_| page.more);
    let token = last.map(|user| page_token(user.id, query.active));
    let link = token.as_deref().map(|token| next_link(&query, token));
    let mut response = json(StatusCode::OK, &PageBody { users: &page.users, next_page_token: token.as_deref() })?;
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

#[derive(Serialize)]
struct PageBody<'a> {
    users: &'a [User],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<&'a str>,
}

/// `POST /api/users`
pub async fn create(app: &App, request: &Request<Bytes>) -> Answer {
    no_query(request)?;
    require_json(request, &["application/json"], "accept-post")?;
    let user = app.store.create(user_body::new_user(request.body())?).await?;
    let mut response = json(StatusCode::CREATED, &user)?;
    if let Ok(location) = HeaderValue::try_from(format!("/api/users/{}", user.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /api/users/{id}`
pub async fn get(app: &App, id: &str, request: &Request<Bytes>) -> Answer {
    no_query(request)?;
    json(StatusCode::OK, &app.store.get(parse_id(id)?).await?)
}

/// `PUT /api/users/{id}`
pub async fn replace(app: &App, id: &str, request: &Request<Bytes>) -> Answer {
    no_query(request)?;
    let id = parse_id(id)?;
    require_json(request, &["application/json"], "accept")?;
    let user = user_body::replacement(request.body())?;
    json(StatusCode::OK, &app.store.update(id, user.into()).await?)
}

/// `PATCH /api/users/{id}`
pub async fn patch(app: &App, id: &str, request: &Request<Bytes>) -> Answer {
    no_query(request)?;
    let id = parse_id(id)?;
    require_json(request, &["application/merge-patch+json", "application/json"], "accept-patch")?;
    let patch = user_body::patch(request.body())?;
    json(StatusCode::OK, &app.store.update(id, patch).await?)
}

/// `DELETE /api/users/{id}`
pub async fn delete(app: &App, id: &str, request: &Request<Bytes>) -> Answer {
    no_query(request)?;
    app.store.delete(parse_id(id)?).await?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn parse_id(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).ok_or_else(|| {
        Problem::new(Kind::InvalidId, format!("an id is an integer from 1 to {}, written in digits", UserId::MAX))
    })
}

fn no_query(request: &Request<Bytes>) -> Result<(), Problem> {
    Query::parse(request.uri().query(), &[]).map(drop)
}

fn page_query(query: Option<&str>) -> Result<PageQuery, Problem> {
    let query = Query::parse(query, &["active", "email", "page_size", "page_token"])?;
    let active = query.get("active", |value| match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".into()),
    })?;
    let email = query.get("email", Email::parse)?;
    let limit = query.get("page_size", |value| {
        let size = UserId::parse(value).and_then(|size| usize::try_from(size.get()).ok());
        size.filter(|size| *size <= PAGE_SIZE_MAX)
            .ok_or_else(|| format!("must be an integer from 1 to {PAGE_SIZE_MAX}").into())
    })?;
    let after = query.get("page_token", |value| {
        parse_page_token(value)
            // A list by address has at most one user, hence never a next page.
            .filter(|(_, of_active)| *of_active == active && email.is_none())
            .map(|(id, _)| id)
            .ok_or_else(|| "must be the next_page_token of a page with the same filters".into())
    })?;
    Ok(PageQuery { after, limit: limit.unwrap_or(PAGE_SIZE_DEFAULT), active, email })
}

/// The place after a user in the list with this filter. Opaque to clients, so that it can change.
fn page_token(after: UserId, active: Option<bool>) -> String {
    let filter = active.map_or("all", |active| if active { "active" } else { "inactive" });
    BASE64_URL_SAFE_NO_PAD.encode(format!("{filter}:{after}"))
}

fn parse_page_token(token: &str) -> Option<(UserId, Option<bool>)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (filter, after) = text.split_once(':')?;
    let active = match filter {
        "all" => None,
        "active" => Some(true),
        "inactive" => Some(false),
        _ => return None,
    };
    Some((UserId::parse(after)?, active))
}

/// The next page as a link (RFC 8288) that keeps filter and size.
fn next_link(query: &PageQuery, token: &str) -> String {
    let mut link = format!("</api/users?page_size={}", query.limit);
    if let Some(active) = query.active {
        // Writing to a string cannot fail.
        let _ = write!(link, "&active={active}");
    }
    link + "&page_token=" + token + ">; rel=\"next\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_ours_or_none() {
        let id = UserId::new(42).unwrap();
        for active in [None, Some(true), Some(false)] {
            assert_eq!(parse_page_token(&page_token(id, active)), Some((id, active)));
        }
        for text in ["", "42", "YWxsOjQ=x", "all:42"] {
            assert_eq!(parse_page_token(text), None, "{text}");
        }
        for inner in ["all:0", "all:042", "all", "none:1", "all:1:2"] {
            assert_eq!(parse_page_token(&BASE64_URL_SAFE_NO_PAD.encode(inner)), None, "{inner}");
        }
    }
}
