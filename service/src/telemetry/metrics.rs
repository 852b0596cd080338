//! Metrics: how many requests and how fast, who is connected, what the database costs. Named by
//! OpenTelemetry's conventions, in Prometheus's form.
//!
//! Counting goes through the handles of the `metrics` facade. Each is looked up once, so that a request
//! costs a search in a small map and one of them. What counts is `prometheus`, whose histograms
//! have their buckets at once: nothing has to be drained, and nothing grows with the requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ::metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, gauge, histogram, with_local_recorder};
use http::StatusCode;
use metrics_prometheus::Recorder;
use metrics_prometheus::failure::strategy::NoOp;
use prometheus::{HistogramOpts, HistogramVec, Registry, TextEncoder};

use crate::store::PoolUsage;
use crate::tally::{Counted, Tally};

/// What cannot be registered or written; only a name that is wrong or given twice is a reason.
pub type MetricsError = prometheus::Error;

/// The media type of what [`Metrics::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
const ACTIVE_REQUESTS: &str = "http_server_active_requests";
const OPEN_CONNECTIONS: &str = "http_server_open_connections";
const OPERATION_DURATION: &str = "db_client_operation_duration_seconds";
const POOL_CONNECTIONS: &str = "db_client_connections";
const POOL_PENDING: &str = "db_client_connection_pending_requests";
const POOL_TIMEOUTS: &str = "db_client_connection_timeouts_total";
const RUN_DURATION: &str = "usher_inference_run_duration_seconds";
const RUN_ROWS: &str = "usher_inference_rows_total";
const QUEUE_DURATION: &str = "usher_inference_queue_duration_seconds";
const QUEUE_REQUESTS: &str = "usher_inference_queue_requests";
const QUEUE_REFUSED: &str = "usher_inference_refused_total";
const START_TIME: &str = "process_start_time_seconds";
const BUILD_INFO: &str = "usher_service_build_info";

/// OpenTelemetry's bounds for HTTP, in seconds.
const REQUEST_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// OpenTelemetry's bounds for databases, in seconds.
const OPERATION_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// From a small model on one row to a large one, in seconds.
const INFERENCE_BUCKETS: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0];

/// A status, a route and a method: all of few, so that there are few series.
type RequestKind = (u16, &'static str, &'static str);

/// What the process counts.
#[derive(Debug)]
pub struct Metrics {
    recorder: Recorder<NoOp>,
    requests: Mutex<BTreeMap<RequestKind, Histogram>>,
    // Their gauges are set when they are asked for: going up and down would cost a request more there.
    active_requests: Tally,
    queue_requests: Tally,
}

impl Metrics {
    /// Begins to count.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn new() -> Result<Self, MetricsError> {
        let recorder = Recorder::builder().with_registry(Registry::new()).with_failure_strategy(NoOp).build();
        recorder.try_register_metric(HistogramVec::new(
            HistogramOpts::new(REQUEST_DURATION, "Time from a request's head to its answer, in seconds.")
                .buckets(REQUEST_BUCKETS.to_vec()),
            &["http_request_method", "http_route", "http_response_status_code"],
        )?)?;
        recorder.try_register_metric(HistogramVec::new(
            HistogramOpts::new(OPERATION_DURATION, "Time of an operation on the store, in seconds.")
                .buckets(OPERATION_BUCKETS.to_vec()),
            &["db_system_name", "db_operation_name"],
        )?)?;
        recorder.try_register_metric(HistogramVec::new(
            HistogramOpts::new(RUN_DURATION, "Time of a model's run on one or several rows, in seconds.")
                .buckets(INFERENCE_BUCKETS.to_vec()),
            &["model", "version"],
        )?)?;
        recorder.try_register_metric(HistogramVec::new(
            HistogramOpts::new(QUEUE_DURATION, "Time from a request's tensors to their first run, in seconds.")
                .buckets(INFERENCE_BUCKETS.to_vec()),
            &[],
        )?)?;
        with_local_recorder(&recorder, || {
            describe_all();
            gauge!(START_TIME).set(seconds_since_epoch());
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        });
        Ok(Self {
            recorder,
            requests: Mutex::default(),
            active_requests: Tally::default(),
            queue_requests: Tally::default(),
        })
    }

    /// Counts an answered request. Method and route must be of few.
    pub fn request(&self, method: &'static str, route: &'static str, status: StatusCode, duration: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = requests.entry((status.as_u16(), route, method)).or_insert_with(|| {
            with_local_recorder(&self.recorder, || {
                histogram!(
                    REQUEST_DURATION,
                    "http_request_method" => method,
                    "http_route" => route,
                    "http_response_status_code" => status.as_str().to_owned(),
                )
            })
        });
        histogram.record(duration);
    }

    /// A request is being handled, until what this gives is dropped.
    pub fn active_request(&self) -> Counted {
        self.active_requests.enter()
    }

    /// A clock for each operation of a store, which is of the kind `system`.
    pub fn operations(&self, system: &'static str) -> Operations {
        let timer = |operation: &'static str| {
            Timer(histogram!(OPERATION_DURATION, "db_system_name" => system, "db_operation_name" => operation))
        };
        with_local_recorder(&self.recorder, || Operations {
            create: timer("create"),
            get: timer("get"),
            update: timer("update"),
            delete: timer("delete"),
            page: timer("page"),
            check: timer("check"),
        })
    }

    /// What a model's runs are counted by.
    pub fn model(&self, name: &str, version: u64) -> ModelMetrics {
        let (name, version) = (name.to_owned(), version.to_string());
        with_local_recorder(&self.recorder, || ModelMetrics {
            duration: histogram!(RUN_DURATION, "model" => name.clone(), "version" => version.clone()),
            rows: counter!(RUN_ROWS, "model" => name, "version" => version),
        })
    }

    /// What waits for models is counted by.
    pub fn inference(&self) -> InferenceMetrics {
        with_local_recorder(&self.recorder, || InferenceMetrics {
            waited: histogram!(QUEUE_DURATION),
            waiting: self.queue_requests.clone(),
            refused: counter!(QUEUE_REFUSED),
        })
    }

    /// All that was counted, as Prometheus reads it, with the connections of clients and to the database, if there
    /// is one.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn render(&self, connections: usize, pool: Option<PoolUsage>) -> Result<String, MetricsError> {
        with_local_recorder(&self.recorder, || {
            gauge!(ACTIVE_REQUESTS).set(self.active_requests.count() as f64);
            gauge!(OPEN_CONNECTIONS).set(connections as f64);
            gauge!(QUEUE_REQUESTS).set(self.queue_requests.count() as f64);
            if let Some(PoolUsage { used, idle, waiting, timeouts }) = pool {
                gauge!(POOL_CONNECTIONS, "db_client_connection_state" => "used").set(used as f64);
                gauge!(POOL_CONNECTIONS, "db_client_connection_state" => "idle").set(idle as f64);
                gauge!(POOL_PENDING).set(waiting as f64);
                counter!(POOL_TIMEOUTS).absolute(timeouts);
            }
        });
        TextEncoder::new().encode_to_string(&self.recorder.registry().gather())
    }
}

fn describe_all() {
    describe_gauge!(ACTIVE_REQUESTS, "Requests that are being handled.");
    describe_gauge!(OPEN_CONNECTIONS, "Connections of clients that are open.");
    describe_gauge!(POOL_CONNECTIONS, "Connections to the database, by what they do.");
    describe_gauge!(POOL_PENDING, "Operations that wait for a connection to the database.");
    describe_counter!(POOL_TIMEOUTS, "Operations that got no connection to the database in time.");
    describe_counter!(RUN_ROWS, "Rows that a model was run on.");
    describe_gauge!(QUEUE_REQUESTS, "Requests whose tensors wait for a model, or are in it.");
    describe_counter!(QUEUE_REFUSED, "Requests that were refused because too many were waiting for models.");
    describe_gauge!(START_TIME, "When the process started, in seconds since 1970.");
    describe_gauge!(BUILD_INFO, "1, with the version of the service.");
}

fn seconds_since_epoch() -> f64 {
    // A clock before 1970 is wrong by more than this.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What a model's runs are counted by.
#[derive(Debug)]
pub struct ModelMetrics {
    duration: Histogram,
    rows: Counter,
}

impl ModelMetrics {
    /// Counts a run on so many rows, which took so long.
    pub fn ran(&self, rows: usize, took: Duration) {
        self.duration.record(took);
        self.rows.increment(u64::try_from(rows).unwrap_or(u64::MAX));
    }
}

/// What waits for models is counted by.
#[derive(Debug)]
pub struct InferenceMetrics {
    waited: Histogram,
    waiting: Tally,
    refused: Counter,
}

impl InferenceMetrics {
    /// A request waits for a model, or is in it, until what this gives is dropped.
    pub fn waiting(&self) -> Counted {
        self.waiting.enter()
    }

    /// Counts a request that waited so long until its first rows were run.
    pub fn waited(&self, time: Duration) {
        self.waited.record(time);
    }

    /// Counts a request that was refused.
    pub fn refused(&self) {
        self.refused.increment(1);
    }
}

/// A clock for each operation of a store.
#[derive(Debug)]
#[expect(missing_docs, reason = "they are called like the operations")]
pub struct Operations {
    pub create: Timer,
    pub get: Timer,
    pub update: Timer,
    pub delete: Timer,
    pub page: Timer,
    pub check: Timer,
}

/// Measures how long something takes.
#[derive(Debug)]
pub struct Timer(Histogram);

impl Timer {
    /// Does it, and counts it with its time unless it is given up before its end.
    pub async fn time<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = work.await;
        self.0.record(started.elapsed());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::block_on;

    fn rendered(metrics: &Metrics) -> String {
        metrics.render(0, None).unwrap()
    }

    #[test]
    fn requests_are_counted_by_method_route_and_status_in_cumulative_buckets() {
        let metrics = Metrics::new().unwrap();
        for millis in [1, 20, 30_000] {
            metrics.request("GET", "/api/users", StatusCode::OK, Duration::from_millis(millis));
        }
        metrics.request("_OTHER", "unknown", StatusCode::NOT_FOUND, Duration::ZERO);
        let text = rendered(&metrics);
        let labels = r#"http_request_method="GET",http_response_status_code="200",http_route="/api/users""#;
        for (bound, count) in [("0.005", 1), ("0.01", 1), ("0.025", 2), ("10", 2), ("+Inf", 3)] {
            let line = format!("{REQUEST_DURATION}_bucket{{{labels},le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains(&format!("{REQUEST_DURATION}_sum{{{labels}}} 30.021")), "{text}");
        let other = r#"http_request_method="_OTHER",http_response_status_code="404",http_route="unknown""#;
        assert!(text.contains(&format!("{REQUEST_DURATION}_count{{{other}}} 1\n")), "{text}");
        assert_eq!(text.matches(&format!("# TYPE {REQUEST_DURATION} histogram\n")).count(), 1, "{text}");
    }

    #[test]
    fn the_bounds_are_those_of_the_conventions() {
        let metrics = Metrics::new().unwrap();
        metrics.request("GET", "/livez", StatusCode::OK, Duration::ZERO);
        drop(metrics.operations("mysql"));
        let text = rendered(&metrics);
        let bounds = |label: &str| {
            let of = text.lines().filter(|line| line.contains("_bucket{") && line.contains(label));
            let bounds = of.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next());
            bounds.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(bounds("/livez"), "0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 +Inf");
        assert_eq!(bounds("\"check\""), "0.001 0.005 0.01 0.05 0.1 0.5 1 5 10 +Inf");
    }

    #[test]
    fn what_is_going_on_counts_until_it_is_over() {
        let metrics = Metrics::new().unwrap();
        let (first, second) = (metrics.active_request(), metrics.active_request());
        drop(first);
        let text = rendered(&metrics);
        assert!(text.contains("http_server_active_requests 1\n"), "{text}");
        assert!(text.contains("http_server_open_connections 0\n"), "{text}");
        drop(second);
        let text = metrics.render(3, None).unwrap();
        assert!(text.contains("http_server_active_requests 0\n"), "{text}");
        assert!(text.contains("http_server_open_connections 3\n"), "{text}");
    }

    #[test]
    fn operations_are_timed_and_those_that_were_not_done_are_there_as_zero() {
        let metrics = Metrics::new().unwrap();
        let operations = metrics.operations("mysql");
        assert_eq!(block_on(operations.create.time(async { 7 })), 7);
        let text = rendered(&metrics);
        for (operation, count) in [("create", 1), ("get", 0), ("update", 0), ("delete", 0), ("page", 0), ("check", 0)] {
            let labels = format!("db_operation_name=\"{operation}\",db_system_name=\"mysql\"");
            assert!(text.contains(&format!("{OPERATION_DURATION}_count{{{labels}}} {count}\n")), "{text}");
        }
    }

    #[test]
    fn a_pool_has_gauges_and_no_pool_has_none() {
        let metrics = Metrics::new().unwrap();
        assert!(!rendered(&metrics).contains("db_client_connection"));
        let text = metrics.render(0, Some(PoolUsage { used: 3, idle: 2, waiting: 1, timeouts: 4 })).unwrap();
        for line in [
            "db_client_connections{db_client_connection_state=\"used\"} 3\n",
            "db_client_connections{db_client_connection_state=\"idle\"} 2\n",
            "db_client_connection_pending_requests 1\n",
            "db_client_connection_timeouts_total 4\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn every_metric_says_what_it_is() {
        let metrics = Metrics::new().unwrap();
        metrics.request("GET", "/livez", StatusCode::OK, Duration::ZERO);
        drop((metrics.operations("mysql"), metrics.model("digits", 1), metrics.inference()));
        let text = metrics.render(0, Some(PoolUsage { used: 0, idle: 0, waiting: 0, timeouts: 0 })).unwrap();
        let words = |line: &str| line.split(' ').nth(2).map(str::to_owned);
        let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).filter_map(words).collect();
        let helps = text.lines().filter(|line| line.starts_with("# HELP ") && line.ends_with('.'));
        assert_eq!(helps.filter_map(words).collect::<Vec<_>>(), types);
        assert_eq!(types.len(), 14, "{text}");
    }
}
