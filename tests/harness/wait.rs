//! Waiting on conditions: the only place that sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails; machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
///
/// # Panics
/// If it takes too long; `what` says what did not happen.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, condition).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks until `condition` gives something or the time is up.
pub fn within<T>(time: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
