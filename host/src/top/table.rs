//! Samples as text: no cell has a space in it, so that lines can be taken apart by words.

use std::time::{Duration, SystemTime};

use super::rates::{Quantile, Rates};
use super::sample::{Line, Sample};

/// What is not known.
const NONE: &str = "-";

/// The columns and how wide they are. The first eleven fit into 80.
const COLUMNS: [(&str, usize); 13] = [
    ("WORKER", 6),
    ("PID", 6),
    ("STATE", 8),
    ("REQ/S", 7),
    ("MEAN", 6),
    ("P99", 6),
    ("5XX", 5),
    ("ACTIVE", 6),
    ("CONNS", 5),
    ("MEMORY", 7),
    ("RESTARTS", 8),
    ("GEN", 3),
    ("UPTIME", 6),
];

/// The line about usher itself. What another process says of itself can be no order to the terminal.
pub fn title(sample: &Sample, admin: impl std::fmt::Display) -> String {
    let usher = &sample.stats.usher;
    let draining = if usher.draining { ", draining" } else { "" };
    let up = sample.uptime().map_or_else(|| NONE.to_owned(), time);
    let title = format!("usher {} on {}, admin on {admin}, up {up}{draining}", usher.version, usher.address);
    title.chars().filter(|character| !character.is_control()).collect()
}

/// The names of the columns.
pub fn columns() -> String {
    row(COLUMNS.map(|(name, _)| name.to_owned()))
}

/// A line of the table.
pub fn line(line: &Line) -> String {
    let answers = line.rates.as_ref().and_then(|rates| rates.answers.as_ref());
    row([
        line.name.clone(),
        known(line.pid, |pid| pid.to_string()),
        line.state.clone(),
        known(line.rates.as_ref(), |Rates { per_second, .. }| format!("{per_second:.1}")),
        known(answers, |answers| latency(answers.mean)),
        known(answers.and_then(|answers| answers.p99), quantile),
        known(answers, |answers| share(answers.failed)),
        known(line.active, |count| count.to_string()),
        known(line.open, |count| count.to_string()),
        known(line.memory, memory),
        line.restarts.to_string(),
        known(line.generation, |generation| generation.to_string()),
        known(line.uptime, time),
    ])
}

/// A moment as it is put before a line, in UTC.
pub fn moment(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn row(cells: [String; COLUMNS.len()]) -> String {
    let padded = cells.into_iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join(" ")
}

fn known<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

fn quantile(quantile: Quantile) -> String {
    let longer = if quantile.is_longer { ">" } else { "" };
    format!("{longer}{}", latency(quantile.seconds))
}

fn latency(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    match seconds {
        ..0.001 => format!("{:.0}us", seconds * 1e6),
        ..0.01 => format!("{milliseconds:.1}ms"),
        ..1.0 => format!("{milliseconds:.0}ms"),
        _ => format!("{seconds:.1}s"),
    }
}

/// Never `0.0%` where there is one.
fn share(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0%".to_owned(),
        ..0.1 => "<0.1%".to_owned(),
        ..10.0 => format!("{percent:.1}%"),
        _ => format!("{percent:.0}%"),
    }
}

fn memory(bytes: u64) -> String {
    format!("{:.1}M", bytes as f64 / f64::from(1 << 20))
}

/// Its two largest units.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rates::Answers;

    fn worker(rates: Option<Rates>) -> Line {
        Line {
            name: "0".to_owned(),
            pid: Some(4711),
            state: "ready".to_owned(),
            rates,
            active: Some(3),
            open: Some(8),
            memory: Some(5_452_595),
            restarts: 1,
            generation: Some(2),
            uptime: Some(Duration::from_secs(192)),
        }
    }

    #[test]
    fn cells_are_words_below_their_names() {
        let p99 = Some(Quantile { seconds: 10.0, is_longer: true });
        let answers = Some(Answers { mean: 0.0012, p99, failed: 0.0001 });
        let text = line(&worker(Some(Rates { per_second: 5123.44, answers })));
        let shown = "     0   4711    ready  5123.4  1.2ms >10.0s <0.1%      3     8    5.2M        1   2  3m12s";
        assert_eq!(text, shown);
        assert_eq!(text.split_whitespace().count(), COLUMNS.len());
        assert_eq!(columns().len(), text.len());
        let first: usize = COLUMNS[..11].iter().map(|(_, width)| width + 1).sum();
        assert_eq!(first - 1, 80);
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let none =
            Line { pid: None, active: None, open: None, memory: None, generation: None, uptime: None, ..worker(None) };
        let cells = line(&none);
        assert_eq!(cells.split_whitespace().filter(|cell| *cell == NONE).count(), 10, "{cells}");
        let idle = line(&worker(Some(Rates { per_second: 0.0, answers: None })));
        assert!(idle.contains(" 0.0 ") && !idle.contains("NaN"), "{idle}");
        assert_eq!(idle.split_whitespace().filter(|cell| *cell == NONE).count(), 3, "{idle}");
    }

    #[test]
    fn figures_are_short_whatever_their_size() {
        let latencies = [0.0, 0.000_034, 0.0049, 0.025, 0.25, 7.5].map(latency);
        assert_eq!(latencies, ["0us", "34us", "4.9ms", "25ms", "250ms", "7.5s"]);
        let times = [5, 192, 3600 * 5 + 61, 86_400 * 12 + 7200].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(times, ["5s", "3m12s", "5h01m", "12d02h"]);
        assert_eq!([0.0, 0.0001, 0.015, 1.0].map(share), ["0%", "<0.1%", "1.5%", "100%"]);
    }
}
