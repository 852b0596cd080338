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
/// Most requests go through all phases in one turn of the loop, and a guest pays for each look at the time. So a
/// phase begins when somebody asks for it.
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
        Self(Mutex::new(Now { phase: Phase::Silent, since: Some(clock::now()) }))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The phase, and when it began.
    pub fn get(&self) -> (Phase, Instant) {
        let Now { phase, since } = &mut *self.now();
        let since = since.get_or_insert_with(|| match phase {
            // Since the answer, whose time was looked at in this turn.
            Phase::Silent => clock::latest(),
            Phase::Head | Phase::Handling | Phase::Sending => clock::now(),
        });
        (*phase, *since)
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
    fn a_phase_begins_when_it_is_asked_for_first() {
        let phases = PhaseClock::new();
        let (phase, start) = phases.get();
        assert_eq!((phase, start), (Phase::Silent, clock::latest()));
        clock::now();
        phases.advance(Phase::Head, Phase::Handling);
        assert_eq!(phases.get(), (Phase::Silent, start), "it was not in that phase, and asking begins nothing");
        phases.advance(Phase::Silent, Phase::Head);
        let before = clock::latest();
        let (phase, since) = phases.get();
        assert!(phase == Phase::Head && since >= before && since == clock::latest(), "the time was looked at");
        assert_eq!(phases.get(), (Phase::Head, since));
    }

    #[test]
    fn silence_begins_with_the_answer() {
        let phases = PhaseClock::new();
        phases.enter(Phase::Sending);
        let answered = clock::now();
        phases.advance(Phase::Sending, Phase::Silent);
        assert_eq!(phases.get(), (Phase::Silent, answered));
    }
}
