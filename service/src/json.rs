//! JSON bodies (RFC 8259) as the API takes them: one object, each name once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// Why a body is not an object of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum JsonError {
    /// Nothing was sent.
    #[error("the body is empty; send a JSON object")]
    Empty,
    /// RFC 8259 §8.1 asks for UTF-8.
    #[error("the body is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// Not JSON, or a name that occurs twice.
    #[error("the body is not valid JSON: {0}")]
    Malformed(String),
    /// JSON, but an array, a string, a number, a boolean or null.
    #[error("the body must be a JSON object")]
    NotAnObject,
}

/// The members of an object by name, their values checked for syntax but not yet decoded, so that
/// a value of the wrong type is a matter of its field and not of the whole body.
#[derive(Debug)]
pub struct Members<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Members<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(body: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(body).map_err(|e| JsonError::NotUtf8(e.valid_up_to()))?;
        if text.trim_ascii().is_empty() {
            return Err(JsonError::Empty);
        }
        let malformed = |e: serde_json::Error| JsonError::Malformed(e.to_string());
        let value: &RawValue = serde_json::from_str(text).map_err(malformed)?;
        if !value.get().starts_with('{') {
            return Err(JsonError::NotAnObject);
        }
        serde_json::from_str(value.get()).map_err(malformed)
    }

    /// Whether there is a member of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Takes a member out; what is left at the end was not asked for.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.0.remove(name)
    }

    /// The names that nobody took.
    pub fn into_names(self) -> impl Iterator<Item = Cow<'a, str>> {
        self.0.into_keys()
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueNames;

        impl<'de> Visitor<'de> for UniqueNames {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(MemberName(name)) = map.next_key()? {
                    if members.contains_key(&name) {
                        let message = format!("the name \"{}\" occurs twice", name.escape_debug());
                        return Err(serde::de::Error::custom(message));
                    }
                    members.insert(name, map.next_value()?);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(UniqueNames)
    }
}

/// Borrowed where the text has no escapes: serde's own `Cow<str>` never borrows.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

/// A name as a JSON pointer (RFC 6901) to a member of the body.
pub fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_taken_by_name() {
        let mut members = Members::parse(br#" {"a": 1, "b": [true], "c": null} "#).unwrap();
        assert_eq!(members.take("b").unwrap().get(), "[true]");
        assert!(members.take("d").is_none());
        assert_eq!(members.into_names().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_name_twice_is_malformed_also_when_written_differently() {
        let error = Members::parse(br#"{"a": 1, "\u0061": 2}"#).unwrap_err();
        assert!(error.to_string().contains(r#""a" occurs twice"#), "{error}");
    }

    #[test]
    fn what_is_not_an_object_is_told_apart_from_what_is_not_json() {
        for body in ["[]", "1", "null", "\"{}\""] {
            assert_eq!(Members::parse(body.as_bytes()).unwrap_err(), JsonError::NotAnObject);
        }
        for body in ["{", "{}{}", "{'a':1}", "{\"a\":01}", "nul", "{\"a\":1,}", "\u{feff}{}"] {
            let error = Members::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::Malformed(_)), "{body}: {error:?}");
        }
        assert_eq!(Members::parse(b" \n").unwrap_err(), JsonError::Empty);
        assert_eq!(Members::parse(b"{\"a\xff\"}").unwrap_err(), JsonError::NotUtf8(3));
    }

    #[test]
    fn nesting_costs_no_stack() {
        let body = format!("{{\"a\":{}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        assert!(Members::parse(body.as_bytes()).is_ok());
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(pointer("a/b~c"), "/a~1b~0c");
    }
}
