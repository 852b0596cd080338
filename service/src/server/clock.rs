//! The time, looked at no more often than somebody needs it exactly: a guest calls its host for each look.
//!
//! As in other servers with an event loop, what begins in a turn of the loop begins at the time that was last
//! looked at: when the turn began, or when the last answer was ready. That is when its client began to wait
//! for us, too. Bounds are not for it: a loop that is never idle begins no new turn.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    /// The last look; the runtime has one thread.
    static LATEST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Looks at the time.
pub fn now() -> Instant {
    let now = Instant::now();
    LATEST.set(Some(now));
    now
}

/// The time of the last look. The runtime looks after each sleep, and the server for each answer.
pub fn latest() -> Instant {
    LATEST.get().unwrap_or_else(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_is_that_of_the_last_look() {
        let first = latest();
        assert_eq!(latest(), first, "nobody looked since");
        let second = now();
        assert!(second >= first);
        assert_eq!(latest(), second);
    }
}
