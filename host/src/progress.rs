//! What takes time, and how large things are, as people say it.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::say;

/// Does `work`, which takes a while, and says so.
pub fn during<T>(doing: impl Display, work: impl FnOnce() -> T) -> (T, Duration) {
    say::log(format_args!("{doing} …"));
    let start = Instant::now();
    (work(), start.elapsed())
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// A size as people say it.
pub fn megabytes(bytes: usize) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
