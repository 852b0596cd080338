//! What a service counts, as Prometheus would read it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::{Reply, Service, artifacts};

/// What was counted, and how it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The value of each series, by its name and labels as they are written.
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads an answer.
    pub fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let samples = reply.body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample =
            |line: &str| line.rsplit_once(' ').map(|(series, value)| (series.to_owned(), value.parse().unwrap()));
        Self { values: samples.map(|line| sample(line).unwrap()).collect() }
    }

    /// The value of a series.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.values.get(series).copied()
    }

    /// The value of a series that is there.
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series} among {:#?}", self.values))
    }

    /// How many requests of a kind were answered.
    pub fn requests(&self, method: &str, route: &str, status: u16) -> f64 {
        let kind =
            format!("http_request_method=\"{method}\",http_response_status_code=\"{status}\",http_route=\"{route}\"");
        self.get(&format!("http_server_request_duration_seconds_count{{{kind}}}")).unwrap_or_default()
    }

    /// How many operations of a kind the database was asked for.
    pub fn operations(&self, operation: &str, system: &str) -> f64 {
        let kind = format!("db_operation_name=\"{operation}\",db_system_name=\"{system}\"");
        self.value(&format!("db_client_operation_duration_seconds_count{{{kind}}}"))
    }

    /// All series of that name, with all labels.
    pub fn all(&self, name: &str) -> Vec<(&str, f64)> {
        let of = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.values.iter().filter(|(series, _)| of(series)).map(|(series, value)| (series.as_str(), *value)).collect()
    }

    /// What got less from `self` to `later`, or vanished, among what must only grow.
    pub fn shrunk(&self, later: &Self) -> Vec<String> {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
        };
        let grown = |series: &str, value: f64| later.get(series).is_some_and(|later| later >= value);
        let shrunk = self.values.iter().filter(|(series, value)| grows(series) && !grown(series, **value));
        shrunk.map(|(series, value)| format!("{series}: {value}, then {:?}", later.get(series))).collect()
    }
}

impl Service {
    /// What the service says on its public address.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.get("/metrics"))
    }

    /// What usher says of all workers.
    pub fn ushers_metrics(&self) -> Metrics {
        Metrics::of(&self.ask_usher("GET", "/metrics"))
    }
}

/// Asserts that `promtool check metrics` has nothing to say.
pub fn assert_well_formed(exposition: &str) {
    let mut promtool = Command::new(artifacts::promtool());
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}\n{exposition}", output.status);
}
