//! From two looks at what was counted to how fast it went between them.

use std::time::Duration;

use crate::metrics::{Bucket, Requests};

/// How requests went in an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Requests a second.
    pub per_second: f64,
    /// How long they took and how they ended; `None` where there were none.
    pub answers: Option<Answers>,
}

/// Of the requests that were answered in an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Their mean duration in seconds.
    pub mean: f64,
    /// The time that 99 % of them took at most; `None` where there are no buckets.
    pub p99: Option<Quantile>,
    /// The share of those with a status from 500 on, from 0 to 1.
    pub failed: f64,
}

/// An estimate from buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// In seconds.
    pub seconds: f64,
    /// Whether it was longer than that, which is the last bucket's bound.
    pub is_longer: bool,
}

impl Rates {
    /// Those of the time from `before` to `now`; `None` if it cannot be told, because something began anew.
    pub fn between(before: &Requests, now: &Requests, time: Duration) -> Option<Self> {
        let count = now.count.checked_sub(before.count)? as f64;
        let failed = now.server_errors.checked_sub(before.server_errors)? as f64;
        let seconds = now.seconds - before.seconds;
        let buckets = difference(&before.buckets, &now.buckets)?;
        if time.is_zero() || seconds < 0.0 {
            return None;
        }
        let answers =
            || Answers { mean: seconds / count, p99: quantile(0.99, count, &buckets), failed: failed / count };
        Some(Self { per_second: count / time.as_secs_f64(), answers: (count > 0.0).then(answers) })
    }
}

/// By how much each bucket grew; `None` if one did not, or they have other bounds now.
fn difference(before: &[Bucket], now: &[Bucket]) -> Option<Vec<Bucket>> {
    if before.is_empty() {
        return Some(now.to_vec());
    }
    if before.len() != now.len() {
        return None;
    }
    let grown = |(before, now): (&Bucket, &Bucket)| {
        let count = now.count.checked_sub(before.count)?;
        (before.seconds == now.seconds).then_some(Bucket { seconds: now.seconds, count })
    };
    before.iter().zip(now).map(grown).collect()
}

/// As `histogram_quantile` of Prometheus has it: values are spread evenly within a bucket, the first one begins
/// at 0, and beyond the last finite bound nothing is known but that.
fn quantile(share: f64, count: f64, buckets: &[Bucket]) -> Option<Quantile> {
    let rank = share * count;
    let mut lower = Bucket { seconds: 0.0, count: 0 };
    for bucket in buckets {
        let within = (bucket.count as f64) - lower.count as f64;
        if bucket.count as f64 >= rank && within > 0.0 {
            let part = (rank - lower.count as f64) / within;
            let seconds = lower.seconds + (bucket.seconds - lower.seconds) * part;
            return Some(Quantile { seconds, is_longer: false });
        }
        lower = bucket.clone();
    }
    buckets.last().map(|last| Quantile { seconds: last.seconds, is_longer: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn requests(count: u64, server_errors: u64, seconds: f64, counts: [u64; 3]) -> Requests {
        let buckets = [0.1, 0.2, 1.0].into_iter().zip(counts).map(|(seconds, count)| Bucket { seconds, count });
        Requests { count, server_errors, seconds, buckets: buckets.collect() }
    }

    fn p99(counts: [u64; 3], count: u64) -> Quantile {
        let rates = Rates::between(&Requests::default(), &requests(count, 0, 1.0, counts), SECOND).unwrap();
        rates.answers.unwrap().p99.unwrap()
    }

    #[test]
    fn rates_are_of_the_interval_alone() {
        let before = requests(1000, 10, 500.0, [0, 0, 900]);
        let now = requests(1200, 60, 510.0, [100, 200, 1100]);
        let rates = Rates::between(&before, &now, 2 * SECOND).unwrap();
        assert_eq!(rates.per_second, 100.0);
        let answers = rates.answers.unwrap();
        assert_eq!((answers.mean, answers.failed), (0.05, 0.25));
        // 198 of 200: 98 of the 100 between 0.1 and 0.2.
        let Quantile { seconds, is_longer } = answers.p99.unwrap();
        assert!((seconds - 0.198).abs() < 1e-9 && !is_longer, "{seconds}");
    }

    #[test]
    fn without_a_request_there_is_no_latency() {
        let same = requests(7, 1, 3.0, [1, 2, 7]);
        assert_eq!(Rates::between(&same, &same, SECOND), Some(Rates { per_second: 0.0, answers: None }));
        let none = Requests::default();
        assert_eq!(Rates::between(&none, &none, SECOND), Some(Rates { per_second: 0.0, answers: None }));
    }

    #[test]
    fn what_began_anew_has_no_rate() {
        let before = requests(10, 2, 3.0, [1, 2, 10]);
        for now in [
            requests(9, 2, 3.0, [1, 2, 10]),
            requests(11, 1, 3.0, [1, 2, 11]),
            requests(11, 2, 2.0, [1, 2, 11]),
            requests(11, 2, 3.0, [1, 1, 11]),
            Requests::default(),
        ] {
            assert_eq!(Rates::between(&before, &now, SECOND), None, "{now:?}");
        }
        let mut other = requests(11, 2, 3.0, [1, 2, 11]);
        other.buckets[1].seconds = 0.3;
        assert_eq!(Rates::between(&before, &other, SECOND), None);
        assert_eq!(Rates::between(&before, &requests(11, 2, 3.0, [1, 2, 11]), Duration::ZERO), None);
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        assert!((p99([100, 100, 100], 100).seconds - 0.099).abs() < 1e-9);
        assert!((p99([0, 0, 100], 100).seconds - 0.992).abs() < 1e-9);
        assert!((p99([99, 99, 100], 100).seconds - 0.1).abs() < 1e-9);
        assert!((p99([0, 1, 1], 1).seconds - 0.199).abs() < 1e-9);
    }

    #[test]
    fn beyond_the_last_bound_a_quantile_is_longer_than_that() {
        assert_eq!(p99([0, 0, 98], 100), Quantile { seconds: 1.0, is_longer: true });
        assert_eq!(p99([0, 0, 0], 1), Quantile { seconds: 1.0, is_longer: true });
        let without = Requests { count: 1, server_errors: 0, seconds: 1.0, buckets: Vec::new() };
        let rates = Rates::between(&Requests::default(), &without, SECOND).unwrap();
        assert_eq!(rates.answers.unwrap().p99, None);
    }
}
