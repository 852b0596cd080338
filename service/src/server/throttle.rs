//! Log lines for conditions that last: the first at once, then one a period.

use std::time::Duration;

use tokio::time::Instant;

/// How often a lasting condition is logged.
const PERIOD: Duration = Duration::from_secs(10);

/// Whether it is time for a line again.
#[derive(Debug, Default)]
pub struct Throttle(Option<Instant>);

impl Throttle {
    /// True at most once a period.
    pub fn permits(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now.duration_since(last) >= PERIOD);
        if due {
            self.0 = Some(now);
        }
        due
    }
}
