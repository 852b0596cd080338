//! The load: wrk, on a processor of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::machine::Processors;
use crate::process::capture;

/// What to ask for, and by how many connections at once.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub url: &'a str,
    pub connections: usize,
    /// In whole seconds.
    pub time: Duration,
    /// What to ask, where it is no plain GET.
    pub script: Option<&'a Path>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tally {
    /// Requests that were answered.
    pub requests: u64,
    pub per_second: f64,
    /// Half of them were answered within so many microseconds.
    pub p50: f64,
    /// All but one in a hundred were answered within so many microseconds.
    pub p99: f64,
}

/// Loads a service. Fails when a single request does.
pub fn run(processors: &Processors, load: Load<'_>) -> Result<Tally> {
    let mut wrk = processors.for_load("wrk");
    wrk.args(["--threads", "1", "--latency", "--connections", &load.connections.to_string()]);
    wrk.args(["--duration", &format!("{}s", load.time.as_secs())]);
    if let Some(script) = load.script {
        wrk.arg("--script").arg(script);
    }
    wrk.arg(load.url);
    let output = capture(&mut wrk)?;
    tally_in(&output).with_context(|| format!("wrk at {}:\n{output}", load.url))
}

/// What wrk says in the end.
fn tally_in(output: &str) -> Result<Tally> {
    let mut lines = output.lines().map(str::trim);
    if let Some(failures) = lines.find(|line| line.starts_with("Socket errors") || line.starts_with("Non-2xx")) {
        bail!("not all requests were answered as they should be: {failures}");
    }
    let after = |label: &str| output.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests = output.lines().find_map(|line| line.split_once(" requests in ")).map(|(count, _)| count.trim());
    Ok(Tally {
        requests: requests.and_then(|count| count.parse().ok()).context("it tells no number of requests")?,
        per_second: after("Requests/sec:").and_then(|rate| rate.parse().ok()).context("it tells no rate")?,
        p50: after("50%").and_then(micros).context("it tells no median of the latency")?,
        p99: after("99%").and_then(micros).context("it tells no 99th percentile of the latency")?,
    })
}

/// A time as wrk writes it ("1.25ms"), in microseconds.
fn micros(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.strip_prefix(number)? {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://127.0.0.1:8080/api/health
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   702.55us    1.09ms  18.12ms   95.45%
    Req/Sec    25.10k     1.55k   27.60k    80.00%
  Latency Distribution
     50%  612.00us
     75%    0.87ms
     90%    0.99ms
     99%    4.25ms
  50231 requests in 2.01s, 5.03MB read
Requests/sec:  24990.55
Transfer/sec:      2.50MB
";

    #[test]
    fn the_tally_is_read() {
        let tally = tally_in(OUTPUT).unwrap();
        assert_eq!(tally, Tally { requests: 50231, per_second: 24990.55, p50: 612.0, p99: 4250.0 });
    }

    #[test]
    fn one_failure_is_an_error_that_tells_it() {
        for failures in ["Non-2xx or 3xx responses: 1", "Socket errors: connect 0, read 1, write 0, timeout 0"] {
            let output = OUTPUT.replace("Requests/sec", &format!("  {failures}\nRequests/sec"));
            let error = tally_in(&output).unwrap_err().to_string();
            assert!(error.contains(failures), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (line, missing) in
            [("requests in", "number"), ("Requests/sec", "rate"), ("50%  ", "median"), ("99%  ", "99th")]
        {
            let without: Vec<&str> = OUTPUT.lines().filter(|other| !other.contains(line)).collect();
            let error = tally_in(&without.join("\n")).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn times_are_read_in_all_units() {
        let times = ["0.50us", "1.25ms", "2.00s", "1.50m"].map(|text| micros(text).unwrap());
        assert_eq!(times, [0.5, 1250.0, 2e6, 90e6]);
        for wrong in ["", "12", "ms", "1.2h3"] {
            assert_eq!(micros(wrong), None, "{wrong}");
        }
    }
}
