//! What a poll found out.

use std::slice;

use crate::abi::{Answer, Direction};

/// What a source is registered under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

impl From<Token> for usize {
    fn from(token: Token) -> Self {
        token.0
    }
}

/// What a source is ready for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    token: Token,
    readable: bool,
    writable: bool,
    error: bool,
    hung_up: bool,
}

impl Event {
    pub(crate) fn writable(token: Token) -> Self {
        Self { token, readable: false, writable: true, error: false, hung_up: false }
    }

    /// A source that cannot be watched is ready for everything: whatever its owner does next says why.
    pub(crate) fn answered(token: Token, direction: Direction, answer: &Answer) -> Self {
        let error = answer.error != 0;
        Self {
            token,
            readable: error || direction == Direction::Read,
            writable: error || direction == Direction::Write,
            error,
            hung_up: answer.hung_up(),
        }
    }

    /// Whose event it is.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether there is something to read or to accept.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether there is room to write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether the host could not watch the source.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.error
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        self.readable && self.hung_up
    }

    /// Whether nothing more can be sent.
    #[must_use]
    pub fn is_write_closed(&self) -> bool {
        self.writable && self.hung_up
    }
}

/// What a poll found out.
#[derive(Debug)]
pub struct Events(pub(crate) Vec<Event>);

impl Events {
    /// With room for so many at first.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// One after the other.
    pub fn iter(&self) -> slice::Iter<'_, Event> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
