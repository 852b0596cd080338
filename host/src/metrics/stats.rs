//! What each worker counted and uses, apart from the others, as `usher top` needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use serde::{Deserialize, Serialize};

use super::exposition::{Exposition, Histogram};
use super::ledger::Ledger;
use super::own::{self, Facts};
use crate::supervisor::{Overview, Shown};

/// The names that a module has to give them, which are those of OpenTelemetry's conventions.
const DURATIONS: &str = "http_server_request_duration_seconds";
const STATUS: &str = "http_response_status_code";
const ACTIVE: &str = "http_server_active_requests";
const OPEN: &str = "http_server_open_connections";

/// How it was at a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stats {
    /// The moment: RFC 3339, UTC.
    pub time: String,
    /// usher itself.
    pub usher: About,
    /// What all workers counted, those that are gone among them.
    pub requests: Requests,
    /// Each worker.
    pub workers: Vec<WorkerStats>,
}

/// What usher is, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Its version.
    pub version: String,
    /// The version of WasmEdge.
    pub wasmedge: String,
    /// Where it serves.
    pub address: String,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// Whether it is stopping.
    pub draining: bool,
}

/// A worker, what it counted since its start, and what it uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStats {
    /// What it is.
    #[serde(flatten)]
    pub shown: Shown,
    /// Its proportional set size in bytes; `None` without a process.
    pub memory_bytes: Option<u64>,
    /// What it answered; `None` if it did not say.
    pub requests: Option<Requests>,
    /// How many requests it is handling; `None` if it did not say.
    pub active_requests: Option<u64>,
    /// How many connections clients have to it; `None` if it did not say.
    pub open_connections: Option<u64>,
}

/// Requests that were answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// Those of them with a status from 500 on.
    pub server_errors: u64,
    /// The time that all took together.
    pub seconds: f64,
    /// By how long they took, in ascending order.
    pub buckets: Vec<Bucket>,
}

/// How many requests took so long at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// So long, finite.
    pub seconds: f64,
    /// So many, those that took less among them.
    pub count: u64,
}

impl Stats {
    /// `answered` has the lives that said what they counted.
    pub fn new(ledger: &Ledger, facts: &Facts, overview: Overview, answered: &BTreeSet<u64>) -> Self {
        let usher = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wasmedge: facts.wasmedge.clone(),
            address: facts.address.clone(),
            started: format_rfc3339_millis(facts.started).to_string(),
            draining: overview.draining,
        };
        let said = |shown: &Shown| {
            let life = shown.process?.0;
            ledger.said(life).filter(|_| answered.contains(&life))
        };
        Self {
            time: format_rfc3339_millis(SystemTime::now()).to_string(),
            usher,
            requests: Requests::of(&ledger.merged(&BTreeMap::new())),
            workers: overview.workers.into_iter().map(|shown| WorkerStats::new(said(&shown), shown)).collect(),
        }
    }
}

impl WorkerStats {
    fn new(said: Option<Exposition>, shown: Shown) -> Self {
        let gauge = |name| said.as_ref()?.gauge(name).map(|value| value as u64);
        Self {
            memory_bytes: shown.pid.and_then(own::proportional_memory),
            active_requests: gauge(ACTIVE),
            open_connections: gauge(OPEN),
            requests: said.as_ref().map(Requests::of),
            shown,
        }
    }
}

impl Requests {
    /// Those of all kinds; zeros where nothing is counted by that name.
    fn of(said: &Exposition) -> Self {
        let mut all: Option<Histogram> = None;
        let mut server_errors = 0.0;
        for (labels, histogram) in said.histograms(DURATIONS) {
            if labels.get(STATUS).is_some_and(|status| status.starts_with('5')) {
                server_errors += histogram.count();
            }
            match &mut all {
                Some(all) => all.combine(histogram, |a, b| a + b),
                None => all = Some(histogram.clone()),
            }
        }
        let Some(all) = all else { return Self::default() };
        let finite = |(bound, count): &(String, f64)| {
            let seconds = bound.parse().ok().filter(|seconds: &f64| seconds.is_finite())?;
            Some(Bucket { seconds, count: *count as u64 })
        };
        Self {
            count: all.count() as u64,
            server_errors: server_errors as u64,
            seconds: all.sum,
            buckets: all.buckets.iter().filter_map(finite).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::metrics::parse::parse;
    use crate::supervisor::State;

    fn series(status: u16, counts: [u32; 3], sum: f64) -> String {
        let [first, second, all] = counts;
        let labels = format!("{STATUS}=\"{status}\"");
        format!(
            "{DURATIONS}_bucket{{{labels},le=\"0.5\"}} {first}\n{DURATIONS}_bucket{{{labels},le=\"1\"}} {second}\n\
             {DURATIONS}_bucket{{{labels},le=\"+Inf\"}} {all}\n{DURATIONS}_sum{{{labels}}} {sum}\n\
             {DURATIONS}_count{{{labels}}} {all}\n"
        )
    }

    fn said() -> Exposition {
        let all = [series(200, [4, 5, 5], 1.0), series(503, [0, 0, 2], 8.0), series(404, [1, 1, 1], 0.25)].concat();
        parse(&format!("# TYPE {DURATIONS} histogram\n{all}# TYPE {ACTIVE} gauge\n{ACTIVE} 3\n")).unwrap()
    }

    fn shown(worker: usize, life: Option<u64>) -> Shown {
        let process = life.map(|life| (life, SocketAddr::from(([127, 0, 0, 1], 1))));
        let pid = life.map(|_| std::process::id().cast_signed());
        let (state, code) = (State::Ready, String::new());
        Shown { worker, pid, state, started: None, restarts: 1, generation: 1, code, process }
    }

    fn facts() -> Facts {
        let (wasmedge, address) = ("0.17.1".to_owned(), "127.0.0.1:8080".to_owned());
        Facts { wasmedge, poll: "usher", address, started: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn requests_of_all_kinds_are_one() {
        let buckets = [(0.5, 5), (1.0, 6)].map(|(seconds, count)| Bucket { seconds, count }).to_vec();
        assert_eq!(Requests::of(&said()), Requests { count: 8, server_errors: 2, seconds: 9.25, buckets });
        assert_eq!(Requests::of(&Exposition::default()), Requests::default());
    }

    #[test]
    fn those_that_did_not_answer_say_nothing_and_still_count_among_all() {
        let ledger = Ledger::default();
        let _accounts = [ledger.open(1), ledger.open(2)];
        ledger.note(1, said());
        ledger.note(2, said());
        let workers = vec![shown(0, Some(1)), shown(1, Some(2)), shown(2, None)];
        let stats = Stats::new(&ledger, &facts(), Overview { workers, draining: true }, &BTreeSet::from([1]));
        let counts: Vec<_> = stats.workers.iter().map(|worker| worker.requests.as_ref().map(|all| all.count)).collect();
        assert_eq!((stats.requests.count, counts), (16, vec![Some(8), None, None]));
        let [first, second, third] = &stats.workers[..] else { panic!("{stats:?}") };
        assert_eq!((first.active_requests, first.open_connections, second.active_requests), (Some(3), None, None));
        assert!(second.memory_bytes.is_some_and(|bytes| bytes > 100_000) && third.memory_bytes.is_none());
        assert!(stats.usher.draining);
    }

    #[test]
    fn what_is_told_is_read_as_the_same() {
        let ledger = Ledger::default();
        let _account = ledger.open(1);
        ledger.note(1, said());
        let overview = Overview { workers: vec![shown(0, Some(1)), shown(1, None)], draining: false };
        let told = serde_json::to_value(Stats::new(&ledger, &facts(), overview, &BTreeSet::from([1]))).unwrap();
        let read: Stats = serde_json::from_value(told.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), told);
        assert_eq!(told["workers"][0]["state"], State::Ready.name());
    }
}
