//! What a connection is doing, and since when; each phase has a bound of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
///
/// Most requests go through all phases in one turn of their connection, and a guest pays for each
/// look at the time. So a phase begins at a time that somebody looked at in the same turn anyway, or
/// else when somebody asks for it.
#[derive(Debug)]
pub struct PhaseClock(Mutex<Now>);

#[derive(Debug, Clone, Copy)]
struct Now {
    phase: Phase,
    /// When it began, once that is known.
    since: Option<Instant>,
    /// A time in this turn.
    at: Option<Instant>,
}

impl PhaseClock {
    /// A connection that was just accepted.
    pub fn new() -> Self {
        Self(Mutex::new(Now { phase: Phase::Silent, since: None, at: None }))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a turn: the phase, and when it began.
    pub fn get(&self) -> (Phase, Instant) {
        let mut now = self.now();
        let at = now.at.take();
        (now.phase, *now.since.get_or_insert_with(|| at.unwrap_or_else(Instant::now)))
    }

    /// A phase begins.
    pub fn enter(&self, phase: Phase) {
        let mut now = self.now();
        (now.phase, now.since) = (phase, None);
    }

    /// A phase begins at a time that was just looked at.
    pub fn enter_at(&self, phase: Phase, at: Instant) {
        *self.now() = Now { phase, since: None, at: Some(at) };
    }

    /// A phase begins if the connection is in `from`.
    pub fn advance(&self, from: Phase, to: Phase) {
        let mut now = self.now();
        if now.phase == from {
            (now.phase, now.since) = (to, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_phase_begins_in_the_turn_in_which_it_was_entered() {
        let (clock, start) = (PhaseClock::new(), Instant::now());
        let (phase, since) = clock.get();
        assert!(phase == Phase::Silent && since >= start);
        clock.advance(Phase::Head, Phase::Handling);
        assert_eq!(clock.get(), (Phase::Silent, since), "it was not in that phase, and asking begins nothing");
        clock.advance(Phase::Silent, Phase::Head);
        let asked = Instant::now();
        let (phase, since) = clock.get();
        assert!(phase == Phase::Head && since >= asked);
    }

    #[test]
    fn a_time_of_this_turn_is_taken_and_one_of_an_earlier_turn_is_not() {
        let (clock, at) = (PhaseClock::new(), Instant::now() + Duration::from_secs(3600));
        clock.enter_at(Phase::Sending, at);
        clock.advance(Phase::Sending, Phase::Silent);
        assert_eq!(clock.get(), (Phase::Silent, at));
        clock.enter_at(Phase::Sending, at);
        assert_eq!(clock.get(), (Phase::Sending, at));
        clock.advance(Phase::Sending, Phase::Silent);
        let (phase, since) = clock.get();
        assert!(phase == Phase::Silent && since < at, "the answer went out later");
    }
}
