//! What a connection is doing, and since when; each phase has a bound of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::clock;

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
///
/// Most requests go through all phases in one turn of the loop. So a phase begins when somebody asks for it.
#[derive(Debug)]
pub struct PhaseClock(Mutex<Now>);

#[derive(Debug, Clone, Copy)]
struct Now {
    phase: Phase,
    /// When it began, once somebody asked.
    since: Option<Instant>,
}

impl PhaseClock {
    /// A connection that was just accepted.
    pub fn new() -> Self {
        Self(Mutex::new(Now { phase: Phase::Silent, since: None }))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The phase, and when it began.
    pub fn get(&self) -> (Phase, Instant) {
        let mut now = self.now();
        (now.phase, *now.since.get_or_insert_with(clock::latest))
    }

    /// A phase begins.
    pub fn enter(&self, phase: Phase) {
        *self.now() = Now { phase, since: None };
    }

    /// A phase begins if the connection is in `from`.
    pub fn advance(&self, from: Phase, to: Phase) {
        let mut now = self.now();
        if now.phase == from {
            *now = Now { phase: to, since: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_begins_in_the_turn_in_which_it_was_entered() {
        let (phases, start) = (PhaseClock::new(), clock::now());
        assert_eq!(phases.get(), (Phase::Silent, start));
        let second = clock::now();
        phases.advance(Phase::Head, Phase::Handling);
        assert_eq!(phases.get(), (Phase::Silent, start), "it was not in that phase, and asking begins nothing");
        phases.advance(Phase::Silent, Phase::Head);
        assert_eq!(phases.get(), (Phase::Head, second));
        phases.enter(Phase::Head);
        let third = clock::now();
        assert_eq!(phases.get(), (Phase::Head, third), "it begins anew");
    }
}
