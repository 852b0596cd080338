//! The users service, as a library: `main.rs` puts it together, tests take it apart.
//!
//! The way of a request: `server -> routes -> handlers -> store -> response | problem`. Each sees
//! only the next.

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

use std::sync::atomic::{AtomicBool, Ordering};

use config::Limits;
use store::Store;

/// What every request may use.
#[derive(Debug)]
pub struct App {
    /// Where users are.
    pub store: Store,
    /// What a connection may take.
    pub limits: Limits,
    draining: AtomicBool,
}

impl App {
    /// An application that serves from `store`.
    pub fn new(store: Store, limits: Limits) -> Self {
        Self { store, limits, draining: AtomicBool::new(false) }
    }

    /// Whether the service is on its way to stop, and no longer ready.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
