//! The bodies of POST, PUT and PATCH: all that is wrong with one is said at once.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{Members, pointer};
use crate::problem::{FieldError, Problem};
use crate::user::{Email, Name, NewUser, UserPatch};

/// POST: `active` is true where it is absent.
///
/// # Errors
/// A malformed body, or every field that is missing, unknown or wrong.
pub fn new_user(body: &[u8]) -> Result<NewUser, Problem> {
    whole_user(body, Some(true))
}

/// PUT: all fields are required.
///
/// # Errors
/// As [`new_user`].
pub fn replacement(body: &[u8]) -> Result<NewUser, Problem> {
    whole_user(body, None)
}

/// PATCH: a JSON merge patch (RFC 7396), in which no field can be null, as none can be removed.
///
/// # Errors
/// As [`new_user`].
pub fn patch(body: &[u8]) -> Result<UserPatch, Problem> {
    let mut fields = Fields::parse(body)?;
    let patch = UserPatch { name: fields.name(), email: fields.email(), active: fields.active() };
    fields.finish(Some(patch))
}

fn whole_user(body: &[u8], default_active: Option<bool>) -> Result<NewUser, Problem> {
    let mut fields = Fields::parse(body)?;
    fields.require("name");
    fields.require("email");
    if default_active.is_none() {
        fields.require("active");
    }
    let (name, email, active) = (fields.name(), fields.email(), fields.active());
    let active = active.or(default_active);
    let user = || Some(NewUser { name: name?, email: email?, active: active? });
    fields.finish(user())
}

/// The members of a body as they are decoded, and what was wrong with them.
struct Fields<'a> {
    members: Members<'a>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Problem> {
        Ok(Self { members: Members::parse(body)?, errors: Vec::new() })
    }

    fn require(&mut self, name: &str) {
        if !self.members.contains(name) {
            self.reject(name, "is required".into());
        }
    }

    fn name(&mut self) -> Option<Name> {
        self.field("name", |value| Name::parse(&string(value)?))
    }

    fn email(&mut self) -> Option<Email> {
        self.field("email", |value| Email::parse(&string(value)?))
    }

    fn active(&mut self) -> Option<bool> {
        self.field("active", |value| serde_json::from_str(value.get()).map_err(|_| "must be true or false".into()))
    }

    fn field<T>(&mut self, name: &str, decode: impl FnOnce(&RawValue) -> Result<T, Cow<'static, str>>) -> Option<T> {
        let value = self.members.take(name)?;
        decode(value).map_err(|detail| self.reject(name, detail)).ok()
    }

    fn reject(&mut self, name: &str, detail: Cow<'static, str>) {
        self.errors.push(FieldError { pointer: pointer(name), detail });
    }

    /// The value, which is there where nothing was rejected and no member is left.
    fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        let Self { members, mut errors } = self;
        errors.extend(members.into_names().map(|name| FieldError {
            pointer: pointer(&name),
            detail: "is not a field that can be set; those are name, email and active".into(),
        }));
        value.filter(|_| errors.is_empty()).ok_or_else(|| Problem::invalid_fields(errors))
    }
}

fn string(value: &RawValue) -> Result<Cow<'_, str>, Cow<'static, str>> {
    if !value.get().starts_with('"') {
        return Err("must be a string".into());
    }
    // What is left to fail is an escape of half a surrogate pair.
    serde_json::from_str::<String>(value.get())
        .map(Cow::Owned)
        .map_err(|_| "must be Unicode text: a \\u escape in it is half of a surrogate pair".into())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn errors(result: Result<impl Sized, Problem>) -> Vec<(String, String)> {
        let response = result.err().unwrap().into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let document: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        let text = |error: &serde_json::Value, key: &str| error[key].as_str().unwrap().to_owned();
        let list = document["errors"].as_array().unwrap();
        list.iter().map(|error| (text(error, "pointer"), text(error, "detail"))).collect()
    }

    fn pointers(result: Result<impl Sized, Problem>) -> Vec<String> {
        errors(result).into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn active_is_true_where_absent_on_post_and_required_on_put() {
        let body = br#"{"name":"Ada","email":"ada@x.org"}"#;
        assert!(new_user(body).unwrap().active);
        assert_eq!(errors(replacement(body)), [("/active".to_owned(), "is required".to_owned())]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let body = br#"{"name":7,"email":"nobody","active":null,"id":1,"a/b":[]}"#;
        assert_eq!(pointers(new_user(body)), ["/name", "/email", "/active", "/a~1b", "/id"]);
        assert_eq!(pointers(new_user(b"{}")), ["/name", "/email"]);
        assert_eq!(pointers(new_user(b"[]")), [""]);
    }

    #[test]
    fn a_patch_sets_what_it_names_and_removes_nothing() {
        let one = patch(br#"{"active":false}"#).unwrap();
        assert_eq!(one, UserPatch { active: Some(false), ..UserPatch::default() });
        assert_eq!(patch(b"{}").unwrap(), UserPatch::default());
        assert_eq!(pointers(patch(br#"{"name":null,"updated_at":null}"#)), ["/name", "/updated_at"]);
    }

    #[test]
    fn values_of_any_shape_and_size_are_a_matter_of_their_field() {
        for value in ["1e999", "-0", "{\"a\":{}}", "[[[]]]", "true", "\"\\ud800\"", "\"\""] {
            let body = format!(r#"{{"name":{value},"email":"a@x.org"}}"#);
            assert_eq!(pointers(new_user(body.as_bytes())), ["/name"], "{value}");
        }
    }
}
