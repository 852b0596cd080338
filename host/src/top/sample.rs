//! A look at a running usher, and what there is to tell of it with the one before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use super::rates::Rates;
use crate::client;
use crate::metrics::{Stats, WorkerStats};
use crate::supervisor::State;

/// How long usher may take to answer: longer than it waits for a worker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What usher told, and when.
#[derive(Debug)]
pub struct Sample {
    /// When it came.
    pub at: Instant,
    /// What it told.
    pub stats: Stats,
}

/// A worker, or all of them together. What is not known is `None`.
#[derive(Debug)]
pub struct Line {
    /// The worker's number, or `all`.
    pub name: String,
    /// Its process.
    pub pid: Option<i32>,
    /// What it is doing; of all, how many are ready.
    pub state: String,
    /// How its requests went since the look before.
    pub rates: Option<Rates>,
    /// Requests that it is handling.
    pub active: Option<u64>,
    /// Connections of clients.
    pub open: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// How often it was started again because it died.
    pub restarts: u64,
    /// How many reloads made it.
    pub generation: Option<u64>,
    /// How long it has been there.
    pub uptime: Option<Duration>,
}

impl Sample {
    /// Asks usher.
    ///
    /// # Errors
    /// With what to do, if it does not answer, or if it is none of ours that does.
    pub async fn take(admin: SocketAddr) -> Result<Self> {
        let asked = client::request(admin, Method::GET, "/stats");
        let answer = async { timeout(TIMEOUT, asked).await.context("no answer in time")? };
        let answer = answer
            .await
            .with_context(|| format!("cannot ask usher at {admin}: is it running, with that --admin address?"))?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            bail!("what answers at {admin} cannot say how it is, as an usher that is about to end");
        }
        let stats = Some(&answer.body).filter(|_| answer.status.is_success());
        let stats = stats.and_then(|body| serde_json::from_slice(body).ok());
        let stats = stats.with_context(|| {
            let version = env!("CARGO_PKG_VERSION");
            format!(
                "what answers at {admin} is not the admin address of an usher {version} (GET /stats: {}): give --admin \
                 the address that it prints behind \"admin on\"",
                answer.status
            )
        })?;
        Ok(Self { at: Instant::now(), stats })
    }

    /// Whether it is the same run of usher.
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.stats.usher.started == other.stats.usher.started
    }

    /// How long usher has been there.
    pub fn uptime(&self) -> Option<Duration> {
        self.since(&self.stats.usher.started)
    }

    /// A line for all together, and one for each worker. Without a look before at the same usher, there are no
    /// rates.
    pub fn lines(&self, before: Option<&Self>) -> Vec<Line> {
        let before = before.filter(|before| before.is_of_same(self));
        let workers = self.stats.workers.iter().map(|worker| self.line(worker, before));
        std::iter::once(self.all(before)).chain(workers).collect()
    }

    fn all(&self, before: Option<&Self>) -> Line {
        let workers = &self.stats.workers;
        let sum = |of: fn(&WorkerStats) -> Option<u64>| {
            let known: Vec<u64> = workers.iter().filter_map(of).collect();
            (!known.is_empty()).then(|| known.iter().sum())
        };
        // Several processes may have the same number.
        let restarts: BTreeMap<_, _> =
            workers.iter().map(|worker| (worker.shown.worker, worker.shown.restarts)).collect();
        let ready = workers.iter().filter(|worker| worker.shown.state == State::Ready).count();
        let rates =
            before.and_then(|before| Rates::between(&before.stats.requests, &self.stats.requests, self.at - before.at));
        Line {
            name: "all".to_owned(),
            pid: None,
            state: format!("{ready}/{}", workers.len()),
            rates,
            active: sum(|worker| worker.active_requests),
            open: sum(|worker| worker.open_connections),
            memory: sum(|worker| worker.memory_bytes),
            restarts: restarts.values().sum(),
            generation: None,
            uptime: self.uptime(),
        }
    }

    fn line(&self, worker: &WorkerStats, before: Option<&Self>) -> Line {
        let shown = &worker.shown;
        Line {
            name: shown.worker.to_string(),
            pid: shown.pid,
            state: shown.state.name().to_owned(),
            rates: before.and_then(|before| self.rates(worker, before)),
            active: worker.active_requests,
            open: worker.open_connections,
            memory: worker.memory_bytes,
            restarts: shown.restarts,
            generation: Some(shown.generation),
            uptime: shown.started.as_deref().and_then(|started| self.since(started)),
        }
    }

    /// A process that was not there before has counted all that it counted since.
    fn rates(&self, worker: &WorkerStats, before: &Self) -> Option<Rates> {
        let now = worker.requests.as_ref()?;
        let process = |worker: &WorkerStats| (worker.shown.worker, worker.shown.pid, worker.shown.started.clone());
        let known = before.stats.workers.iter().find(|known| process(known) == process(worker));
        let none = Default::default();
        let then = known.map_or(Some(&none), |known| known.requests.as_ref())?;
        Rates::between(then, now, self.at - before.at)
    }

    /// By usher's own clock.
    fn since(&self, time: &str) -> Option<Duration> {
        let parse = |time: &str| -> Option<SystemTime> { humantime::parse_rfc3339(time).ok() };
        Some(parse(&self.stats.time)?.duration_since(parse(time)?).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn worker(number: u64, pid: Option<i32>, started: &str, count: Option<u64>) -> Value {
        let requests = count.map(requests);
        let state = if pid.is_some() { "ready" } else { "waiting" };
        json!({
            "worker": number, "pid": pid, "state": state, "started": started, "restarts": 2, "generation": 3,
            "code": "abc", "memory_bytes": pid.map(|_| 1000), "requests": requests,
            "active_requests": count.map(|_| 1), "open_connections": count.map(|_| 4),
        })
    }

    fn requests(count: u64) -> Value {
        json!({ "count": count, "server_errors": 0, "seconds": count as f64, "buckets": [] })
    }

    /// So many seconds after the first one.
    fn sample(seconds: u64, started: &str, total: u64, workers: Vec<Value>) -> Sample {
        let usher = json!({
            "version": "0.1.0", "wasmedge": "0.17.1", "address": "127.0.0.1:8080", "started": started,
            "draining": false,
        });
        let stats = json!({
            "time": "2026-11-25T12:01:30Z", "usher": usher, "requests": requests(total), "workers": workers,
        });
        let at = Instant::now() + Duration::from_secs(seconds);
        Sample { at, stats: serde_json::from_value(stats).unwrap() }
    }

    const NOON: &str = "2026-11-25T12:00:00Z";

    fn per_second(lines: &[Line]) -> Vec<Option<i64>> {
        lines.iter().map(|line| line.rates.as_ref().map(|rates| rates.per_second.round() as i64)).collect()
    }

    #[test]
    fn a_replaced_worker_counts_anew_and_all_together_go_on() {
        let before =
            sample(0, NOON, 1000, vec![worker(0, Some(10), NOON, Some(400)), worker(1, Some(11), NOON, Some(600))]);
        let now = sample(
            10,
            NOON,
            1300,
            vec![worker(0, Some(12), "2026-11-25T12:01:00Z", Some(50)), worker(1, Some(11), NOON, Some(700))],
        );
        let lines = now.lines(Some(&before));
        assert_eq!(per_second(&lines), [Some(30), Some(5), Some(10)]);
        let uptimes: Vec<_> = lines.iter().map(|line| line.uptime.unwrap().as_secs()).collect();
        assert_eq!(uptimes, [90, 30, 90]);
        let all = &lines[0];
        assert_eq!((all.state.as_str(), all.active, all.open, all.memory), ("2/2", Some(2), Some(8), Some(2000)));
    }

    #[test]
    fn a_process_with_the_number_of_an_earlier_one_is_another() {
        let before = sample(0, NOON, 400, vec![worker(0, Some(10), NOON, Some(400))]);
        let now = sample(10, NOON, 900, vec![worker(0, Some(10), "2026-11-25T12:01:00Z", Some(500))]);
        assert_eq!(per_second(&now.lines(Some(&before))), [Some(50), Some(50)]);
    }

    #[test]
    fn what_is_not_known_at_both_ends_has_no_rate() {
        let known = || worker(0, Some(10), NOON, Some(1));
        let silent = || worker(0, Some(10), NOON, None);
        for (before, now) in [(known(), silent()), (silent(), known()), (known(), worker(0, None, NOON, None))] {
            let before = sample(0, NOON, 1, vec![before]);
            let lines = sample(1, NOON, 1, vec![now]).lines(Some(&before));
            assert_eq!(per_second(&lines), [Some(0), None]);
        }
        let now = sample(1, NOON, 1, vec![known()]);
        assert_eq!(per_second(&now.lines(None)), [None, None]);
    }

    #[test]
    fn another_run_of_usher_has_nothing_to_do_with_the_one_before() {
        let before = sample(0, NOON, 400, vec![worker(0, Some(10), NOON, Some(400))]);
        let now = sample(1, "2026-11-25T12:01:00Z", 900, vec![worker(0, Some(10), NOON, Some(900))]);
        assert_eq!(per_second(&now.lines(Some(&before))), [None, None]);
    }

    #[test]
    fn restarts_count_once_for_each_number() {
        let workers = vec![worker(0, Some(10), NOON, Some(1)), worker(0, Some(11), NOON, Some(1))];
        assert_eq!(sample(0, NOON, 1, workers).lines(None)[0].restarts, 2);
        let lines = sample(0, NOON, 1, vec![worker(0, None, NOON, None)]).lines(None);
        assert_eq!((lines[0].state.as_str(), lines[0].active, lines[0].memory), ("0/1", None, None));
    }
}
