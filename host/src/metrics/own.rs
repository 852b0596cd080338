//! What usher itself has to tell.

use std::collections::BTreeMap;
use std::time::SystemTime;

use procfs::process::Process;

use super::exposition::{Exposition, Family, Labels, Series};
use crate::supervisor::{Overview, Shown, State};

/// What does not change while usher runs.
#[derive(Debug)]
pub struct Facts {
    /// The version of WasmEdge.
    pub wasmedge: String,
    /// Whose poll the guest waits by.
    pub poll: &'static str,
    /// Where usher serves.
    pub address: String,
    /// When usher started.
    pub started: SystemTime,
}

/// Adds usher's own metrics. `answered` has the numbers of the workers that said what they counted.
pub fn tell(all: &mut Exposition, facts: &Facts, overview: &Overview, answered: &BTreeMap<usize, u64>) {
    let workers = &overview.workers;
    let started = facts.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let version = env!("CARGO_PKG_VERSION");
    let build = labels(&[("version", version), ("wasmedge", &facts.wasmedge)]);
    let mut gauge = |name: &str, help: &str, series: BTreeMap<Labels, f64>| {
        all.insert(name, Family { help: help.to_owned(), series: Series::Gauges(series) });
    };
    gauge("usher_build_info", "1, with the versions of usher and of WasmEdge.", BTreeMap::from([(build, 1.0)]));
    gauge("usher_draining", "Whether usher is stopping: 1 or 0.", one(overview.draining.into()));
    let poll = labels(&[("poll", facts.poll)]);
    gauge("usher_poll_info", "1, with whose poll the guests wait by.", BTreeMap::from([(poll, 1.0)]));
    gauge("usher_start_time_seconds", "When usher started, in seconds since 1970.", one(started));
    gauge("usher_workers", "Processes of workers, by what they do.", by_state(workers));
    let memory = "Proportional set size of a worker's processes: its own memory and its share of what it has in \
                  common with others, in bytes.";
    gauge("usher_worker_resident_memory_bytes", memory, memory_of_each(workers));
    let up = "Whether a worker said what it counted: 1 or 0. Without it, what it said last is in the totals.";
    let is_up = |shown: &Shown| (of_worker(shown), f64::from(answered.contains_key(&shown.worker)));
    gauge("usher_worker_up", up, workers.iter().map(is_up).collect());
    let restarts = workers.iter().map(|shown| (of_worker(shown), shown.restarts as f64)).collect();
    let help = "How often a worker was started again because it died.".to_owned();
    all.insert("usher_worker_restarts_total", Family { help, series: Series::Counters(restarts) });
}

fn by_state(workers: &[Shown]) -> BTreeMap<Labels, f64> {
    let states = [State::Starting, State::Ready, State::Draining, State::Waiting];
    let count = |state| workers.iter().filter(|shown| shown.state == state).count() as f64;
    states.into_iter().map(|state| (labels(&[("state", state.name())]), count(state))).collect()
}

fn memory_of_each(workers: &[Shown]) -> BTreeMap<Labels, f64> {
    let mut each = BTreeMap::new();
    for (shown, bytes) in workers.iter().filter_map(|shown| Some((shown, proportional_memory(shown.pid?)?))) {
        *each.entry(of_worker(shown)).or_default() += bytes as f64;
    }
    each
}

/// In bytes; `None` where the process has ended, or may not be looked into.
pub fn proportional_memory(pid: i32) -> Option<u64> {
    let rollup = Process::new(pid).ok()?.smaps_rollup().ok()?;
    rollup.memory_map_rollup.iter().next()?.extension.map.get("Pss").copied()
}

fn of_worker(shown: &Shown) -> Labels {
    labels(&[("worker", &shown.worker.to_string())])
}

fn one(value: f64) -> BTreeMap<Labels, f64> {
    BTreeMap::from([(Labels::new(), value)])
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::parse::parse;

    fn shown(worker: usize, state: State, restarts: u64) -> Shown {
        let pid = (state != State::Waiting).then(|| std::process::id().cast_signed());
        Shown { worker, pid, state, started: None, restarts, generation: 1, code: String::new(), process: None }
    }

    fn told(all: &str, draining: bool) -> String {
        let (wasmedge, address, started) = ("0.17.1".to_owned(), String::new(), SystemTime::UNIX_EPOCH);
        let facts = Facts { wasmedge, poll: "usher", address, started };
        let workers = vec![shown(0, State::Ready, 3), shown(0, State::Draining, 3), shown(1, State::Waiting, 1)];
        let mut all = parse(all).unwrap();
        tell(&mut all, &facts, &Overview { workers, draining }, &BTreeMap::from([(0, 7)]));
        all.to_string()
    }

    #[test]
    fn usher_tells_what_it_is_and_how_its_workers_are() {
        let text = told("", false);
        for line in [
            "usher_draining 0",
            "usher_poll_info{poll=\"usher\"} 1",
            "usher_start_time_seconds 0",
            "usher_workers{state=\"draining\"} 1",
            "usher_workers{state=\"ready\"} 1",
            "usher_workers{state=\"starting\"} 0",
            "usher_workers{state=\"waiting\"} 1",
            "usher_worker_up{worker=\"0\"} 1",
            "usher_worker_up{worker=\"1\"} 0",
            "usher_worker_restarts_total{worker=\"0\"} 3",
            "usher_worker_restarts_total{worker=\"1\"} 1",
            "# TYPE usher_worker_restarts_total counter",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
        let build = format!("usher_build_info{{version=\"{}\",wasmedge=\"0.17.1\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
        assert!(told("", true).contains("\nusher_draining 1\n"));
    }

    #[test]
    fn the_memory_of_processes_with_the_same_number_is_added() {
        let text = told("", false);
        let lines: Vec<_> =
            text.lines().filter(|line| line.starts_with("usher_worker_resident_memory_bytes{")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let bytes: f64 = lines[0].rsplit(' ').next().unwrap().parse().unwrap();
        let ours = proportional_memory(std::process::id().cast_signed()).unwrap() as f64;
        assert!(ours > 100_000.0 && bytes > ours * 1.5 && bytes < ours * 2.5, "{bytes} {ours}");
    }

    #[test]
    fn no_worker_can_say_it_in_place_of_usher() {
        let text = told("# TYPE usher_draining counter\nusher_draining{x=\"y\"} 5\n", false);
        assert!(text.contains("# TYPE usher_draining gauge\nusher_draining 0\n"), "{text}");
        assert!(!text.contains("usher_draining{"), "{text}");
    }
}
