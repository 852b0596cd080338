//! The log: one line per event to standard error, for people or for machines.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};

/// Starts the log. Until then nothing is logged.
pub fn init(config: &Config) {
    // A standard error that is closed loses the log and nothing else; reporting that to standard
    // error would end the process.
    let builder = fmt().with_max_level(config.log_level).with_writer(io::stderr).log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).with_target(false).init(),
        LogFormat::Json => {
            let numbered = config.worker.is_some();
            builder.json().flatten_event(true).with_current_span(numbered).with_span_list(false).init();
        }
    }
    if let Some(number) = config.worker {
        // There is one thread, which never leaves it: every line has the number.
        std::mem::forget(tracing::error_span!("worker", number).entered());
    }
}

/// Logs an answered request.
pub fn request(method: &str, route: &str, status: StatusCode, duration: Duration) {
    let duration_ms = duration.as_micros() as f64 / 1000.0;
    tracing::info!(method, route, status = status.as_u16(), duration_ms, "request");
}
