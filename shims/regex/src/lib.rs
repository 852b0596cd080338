//! A stand-in for `regex` on `regex-lite`: what the MySQL driver and bindgen use of it; see the README beside it.

use std::fmt;

pub use regex_lite::Regex;

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// What is wrong with its syntax.
    Syntax(String),
    /// It is too large.
    CompiledTooBig(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) => f.write_str(reason),
            Self::CompiledTooBig(limit) => write!(f, "the pattern is larger than {limit} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// Several patterns that are tried on the same text.
#[derive(Debug, Clone)]
pub struct RegexSet(Vec<Regex>);

impl RegexSet {
    /// A set of these patterns.
    ///
    /// # Errors
    /// The first that is none.
    pub fn new<I>(patterns: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let compile = |pattern: I::Item| Regex::new(pattern.as_ref()).map_err(|error| Error::Syntax(error.to_string()));
        patterns.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether any pattern matches somewhere in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.iter().any(|regex| regex.is_match(text))
    }

    /// The patterns that match somewhere in a text.
    pub fn matches(&self, text: &str) -> SetMatches {
        let matching = self.0.iter().enumerate().filter(|(_, regex)| regex.is_match(text));
        SetMatches(matching.map(|(place, _)| place).collect())
    }
}

/// The places of the patterns that match.
#[derive(Debug, Clone)]
pub struct SetMatches(Vec<usize>);

impl SetMatches {
    /// Whether there are any.
    pub fn matched_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Each place.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }
}

impl<'a> IntoIterator for &'a SetMatches {
    type Item = usize;
    type IntoIter = std::iter::Copied<std::slice::Iter<'a, usize>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().copied()
    }
}

/// Patterns on bytes. The driver looks for ASCII at the start of what a server says, so it is enough to look at the
/// bytes up to the first that are no UTF-8.
pub mod bytes {
    use super::Error;

    /// A pattern on bytes.
    #[derive(Debug, Clone)]
    pub struct Regex(regex_lite::Regex);

    impl Regex {
        /// Reads a pattern.
        ///
        /// # Errors
        /// If it is none.
        pub fn new(pattern: &str) -> Result<Self, Error> {
            regex_lite::Regex::new(pattern).map(Self).map_err(|error| Error::Syntax(error.to_string()))
        }

        /// Whether it matches somewhere.
        pub fn is_match(&self, bytes: &[u8]) -> bool {
            std::str::from_utf8(bytes).is_ok_and(|text| self.0.is_match(text))
        }

        /// What its groups match, where it matches first.
        pub fn captures<'t>(&self, bytes: &'t [u8]) -> Option<Captures<'t>> {
            let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            self.0.captures(text).map(Captures)
        }
    }

    /// What groups matched.
    #[derive(Debug)]
    pub struct Captures<'t>(regex_lite::Captures<'t>);

    impl<'t> Captures<'t> {
        /// What a group matched, by its number; 0 is all.
        pub fn get(&self, group: usize) -> Option<Match<'t>> {
            self.0.get(group).map(|found| Match(found.as_str().as_bytes()))
        }
    }

    /// Bytes that matched.
    #[derive(Debug, Clone, Copy)]
    pub struct Match<'t>(&'t [u8]);

    impl<'t> Match<'t> {
        /// The bytes.
        pub fn as_bytes(&self) -> &'t [u8] {
            self.0
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// The driver's patterns, as far as they differ in kind.
    #[test]
    fn the_drivers_patterns_find_what_they_are_for() {
        let version = bytes::Regex::new(r"^(\d{1,2})\.(\d{1,2})\.(\d{1,3})(.*)").unwrap();
        let captures = version.captures(b"10.11.6-MariaDB\xff").unwrap();
        let group = |number| captures.get(number).unwrap().as_bytes();
        assert_eq!((group(1), group(2), group(3), group(4)), (&b"10"[..], &b"11"[..], &b"6"[..], &b"-MariaDB"[..]));
        let maria = bytes::Regex::new(r"^5.5.5-(\d{1,2})\.(\d{1,2})\.(\d{1,3})-MariaDB").unwrap();
        assert!(maria.captures(b"5.5.5-10.4.1-MariaDB-log").is_some() && maria.captures(b"10.4.1-MariaDB").is_none());
        let time = bytes::Regex::new(r"^[0-8]\d\d:[0-5]\d:[0-5]\d\.\d{1,6}$").unwrap();
        assert!(
            time.is_match(b"838:59:59.000001") && !time.is_match(b"838:59:59.\xff") && !time.is_match(b"8:59:59.1")
        );
    }

    #[test]
    fn a_set_says_which_patterns_match() {
        let set = RegexSet::new(["^(a.*)$", "^(b)$", "^(ab)$"]).unwrap();
        assert_eq!(set.matches("ab").into_iter().collect::<Vec<_>>(), [0, 2]);
        assert!(set.is_match("b") && !set.is_match("c") && !set.matches("c").matched_any());
        assert!(matches!(RegexSet::new(["("]), Err(Error::Syntax(_))));
    }
}
