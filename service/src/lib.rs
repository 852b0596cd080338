//! The users service, as a library: `main.rs` puts it together, tests take it apart.
//!
//! The way of a request: `server -> routes -> handlers -> store -> response | problem`. Each sees
//! only the next. `admin` stands in place of `routes` on the control listener.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod admin;
pub mod config;
mod grants;
pub mod handlers;
pub mod inference;
pub mod json;
pub mod occupancy;
pub mod problem;
pub mod resolver;
pub mod routes;
pub mod server;
pub mod store;
pub mod tally;
pub mod telemetry;
pub mod user;

use std::time::{Duration, Instant};

use tokio::sync::watch;

use config::{Config, Limits};
use inference::Inference;
use occupancy::Occupancy;
use store::Store;
use telemetry::metrics::Metrics;

/// What becomes of connections that wait in the listening socket when the service stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// They are taken and answered: nobody else would do it.
    Take,
    /// They are left to another process that holds the same socket.
    Leave,
}

/// The last metrics of a service that stops, for whoever ordered that and wants all to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Report {
    /// Nobody asked for them.
    Unwanted,
    /// Whoever ordered to stop will ask for them.
    Wanted,
    /// All that was in flight is answered, so that there is no more to count.
    Due,
    /// They were told.
    Given,
}

/// What every request may use.
#[derive(Debug)]
pub struct App {
    /// Where users are.
    pub store: Store,
    /// The models, and what waits for them.
    pub inference: Inference,
    /// What a connection may take.
    pub limits: Limits,
    /// How many clients are connected, and how many may be.
    pub clients: Occupancy,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether everybody may see it: else only whoever reaches the control listener.
    pub metrics_are_public: bool,
    /// The store, in words that have no secret.
    store_name: String,
    /// The order to stop and when it was given, once it is.
    order: watch::Sender<Option<(Queued, Instant)>>,
    report: watch::Sender<Report>,
}

impl App {
    /// An application that serves from `store` and the models, to so many clients at once.
    pub fn new(store: Store, inference: Inference, metrics: Metrics, config: &Config, capacity: usize) -> Self {
        let (order, _) = watch::channel(None);
        Self {
            store,
            inference,
            limits: config.limits.clone(),
            clients: Occupancy::new(capacity),
            metrics,
            metrics_are_public: config.control.is_none(),
            store_name: config.store.to_string(),
            order,
            report: watch::channel(Report::Unwanted).0,
        }
    }

    /// Whether the service is on its way to stop, and no longer ready.
    pub fn is_draining(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// How long ago the order to stop was given, if it was.
    pub fn draining_for(&self) -> Option<Duration> {
        self.order.borrow().map(|(_, since)| since.elapsed())
    }

    /// Orders the service to stop. The first order counts.
    pub fn drain(&self, queued: Queued) {
        let new = (queued, Instant::now());
        self.order.send_if_modified(|order| order.replace(order.unwrap_or(new)).is_none());
    }

    /// Resolves to the order to stop, once it is given.
    fn drained(&self) -> impl Future<Output = Queued> + Send + use<> {
        let mut order = self.order.subscribe();
        async move {
            loop {
                let given = *order.borrow_and_update();
                if let Some((queued, _)) = given {
                    return queued;
                }
                // Nobody is left to give an order when the application is gone.
                if order.changed().await.is_err() {
                    return Queued::Take;
                }
            }
        }
    }

    /// Has the service wait with its end, for a moment, until its last metrics were asked for.
    pub fn want_report(&self) {
        self.advance_report(Report::Unwanted, Report::Wanted);
    }

    /// Notes that all is answered. Gives whether somebody is going to ask for the last metrics.
    fn finish(&self) -> bool {
        self.advance_report(Report::Wanted, Report::Due);
        self.report_is(Report::Due)
    }

    /// Resolves when there is no more to count; at once to `false` if nobody asked for a report.
    pub async fn is_finished(&self) -> bool {
        if !self.report_is(Report::Wanted) {
            return false;
        }
        self.reached(Report::Due).await;
        true
    }

    /// Notes that the last metrics are told.
    pub fn report_given(&self) {
        self.advance_report(Report::Due, Report::Given);
    }

    fn report_is(&self, least: Report) -> bool {
        *self.report.borrow() >= least
    }

    fn advance_report(&self, from: Report, to: Report) {
        self.report.send_if_modified(|report| {
            let advances = *report == from;
            if advances {
                *report = to;
            }
            advances
        });
    }

    /// Resolves when the report is there, or further.
    fn reached(&self, least: Report) -> impl Future<Output = ()> + Send + use<> {
        let mut report = self.report.subscribe();
        async move {
            while *report.borrow_and_update() < least {
                // Nobody is left to give it when the application is gone.
                if report.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// An application over a new store, and the folder that it lives in.
    #[cfg(test)]
    fn over_a_new_store() -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let store = Store::open_embedded(folder.path(), &metrics).unwrap();
        let config = Config::unconfigured();
        let inference = Inference::open(&config.models, &metrics);
        (Self::new(store, inference, metrics, &config, 1), folder)
    }
}
