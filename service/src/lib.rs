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
pub mod json;
pub mod problem;
pub mod resolver;
pub mod routes;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod user;

use std::time::{Duration, Instant};

use tokio::sync::watch;

use config::{Config, Limits};
use store::Store;

/// What becomes of connections that wait in the listening socket when the service stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// They are taken and answered: nobody else would do it.
    Take,
    /// They are left to another process that holds the same socket.
    Leave,
}

/// What every request may use.
#[derive(Debug)]
pub struct App {
    /// Where users are.
    pub store: Store,
    /// What a connection may take.
    pub limits: Limits,
    /// The store, in words that have no secret.
    store_name: String,
    /// The order to stop and when it was given, once it is.
    order: watch::Sender<Option<(Queued, Instant)>>,
}

impl App {
    /// An application that serves from `store`.
    pub fn new(store: Store, config: &Config) -> Self {
        let (order, _) = watch::channel(None);
        Self { store, limits: config.limits.clone(), store_name: config.store.to_string(), order }
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

    /// An application over a new store, and the folder that it lives in.
    #[cfg(test)]
    fn over_a_new_store() -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Self::new(Store::open_embedded(folder.path()).unwrap(), &Config::unconfigured()), folder)
    }
}
