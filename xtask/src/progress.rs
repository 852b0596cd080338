//! Telling people what takes time: a spinner on a terminal, plain lines elsewhere. All on stderr.

use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Keeps those that turn at once on lines of their own.
static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Does `work` while showing `doing` ("compiling …") and then `done` ("compiled") with the time.
pub fn during<T>(doing: &str, done: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let spinner = io::stderr().is_terminal().then(|| spinner(doing));
    if spinner.is_none() {
        eprintln!("{doing} …");
    }
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    if result.is_ok() {
        eprintln!("{done} in {}", seconds(start.elapsed()));
    }
    result
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

fn spinner(message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    let spinner = SPINNERS
        .add(ProgressBar::new_spinner())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let texts = [0.04, 9.94, 23.4, 119.0, 150.0].map(|s| seconds(Duration::from_secs_f64(s)));
        assert_eq!(texts, ["0.0 s", "9.9 s", "23 s", "119 s", "2 min 30 s"]);
    }
}
