//! What end-to-end tests are made of: the service as it is shipped, started on a free port in a
//! folder of its own, and clients for it. Everything ends with its owner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the log of a failed test is shown to people")]

mod artifacts;
mod client;
mod process;
mod service;
mod wait;

pub use client::{Raw, Reply};
pub use process::Usage;
pub use service::{Builder, Failed, Runtime, Service};
pub use wait::{eventually, within};

/// Whether long tests are asked for (`cargo xtask test --long`).
pub fn long() -> bool {
    std::env::var_os("USHER_LONG").is_some()
}
