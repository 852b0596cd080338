//! Query parameters: each known, each once, each within its bounds; else 400 with its name.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::problem::{Kind, Problem};

/// The parameters of a query string, decoded as HTML forms encode them.
#[derive(Debug)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Decodes a query string that may have the parameters in `known`.
    ///
    /// # Errors
    /// A parameter that is unknown, repeated, or not UTF-8.
    pub fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(Cow<str>, Cow<str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| invalid("a name", "is not UTF-8"))?;
            if !known.contains(&&*name) {
                return Err(unknown(&name, known));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(invalid(&name, "is given twice"));
            }
            let value = decode(value).ok_or_else(|| invalid(&name, "is not UTF-8"))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter, read by `parse`, which says what would be right.
    ///
    /// # Errors
    /// What `parse` says, with the parameter's name.
    pub fn get<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Cow<'static, str>>,
    ) -> Result<Option<T>, Problem> {
        let value = self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        value.map(|value| parse(value).map_err(|detail| invalid(name, &detail))).transpose()
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

fn invalid(name: &str, detail: &str) -> Problem {
    Problem::new(Kind::InvalidParameter, format!("query parameter {name}: {detail}"))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let known = match known {
        [] => "there are none here".to_owned(),
        names => format!("known are {}", names.join(", ")),
    };
    let shown: String = name.chars().take(40).collect();
    invalid(&format!("\"{}\"", shown.escape_debug()), &format!("is unknown; {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(query: &str) -> String {
        let problem = Query::parse(Some(query), &["a", "b"]).unwrap_err();
        String::from_utf8(problem.into_response().into_body().to_vec()).unwrap()
    }

    #[test]
    fn parameters_are_decoded_once() {
        let query = Query::parse(Some("a=x%2By+z%C3%A9&&b"), &["a", "b"]).unwrap();
        let text = |name| query.get(name, |v| Ok(v.to_owned())).unwrap();
        assert_eq!(text("a").as_deref(), Some("x+y zé"));
        assert_eq!(text("b").as_deref(), Some(""));
        assert_eq!(Query::parse(None, &[]).unwrap().get("a", |_| Ok(())).unwrap(), None);
    }

    #[test]
    fn unknown_repeated_and_undecodable_ones_are_named() {
        assert!(detail("c=1").contains("is unknown; known are a, b"));
        assert!(detail("a=1&%61=2").contains("parameter a: is given twice"));
        assert!(detail("a=%ff").contains("parameter a: is not UTF-8"));
    }
}
