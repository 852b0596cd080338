//! What a connection is doing, and since when; each phase has a bound of its own.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the next request has come.
    Silent,
    /// A request's head is coming.
    Head,
    /// The request is being read to its end and handled, under bounds of their own.
    Handling,
    /// The answer is on its way out.
    Sending,
}

/// The phase of one connection, shared by those who see it change: the stream sees the first byte
/// come and the last one go, the service sees the request and the answer.
#[derive(Debug)]
pub struct PhaseClock(Mutex<(Phase, Instant)>);

impl PhaseClock {
    /// A connection that was just accepted.
    pub fn new() -> Self {
        Self(Mutex::new((Phase::Silent, Instant::now())))
    }

    /// The phase and when it began.
    pub fn get(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A phase begins.
    pub fn enter(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// A phase begins if the connection is in `from`.
    pub fn advance(&self, from: Phase, to: Phase) {
        if self.get().0 == from {
            self.enter(to);
        }
    }
}
