//! What end-to-end tests are made of: the service as it is shipped, started on a free port in a
//! folder of its own, and clients for it. Everything ends with its owner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the log of a failed test is shown to people")]
#![allow(clippy::print_stdout, reason = "what could not be tried is told to whoever looks")]

pub mod artifacts;
mod certificates;
mod client;
mod compiler;
mod database;
mod dns;
mod flavour;
mod lines;
mod load;
mod metrics;
mod models;
mod modules;
mod process;
mod proxy;
mod service;
mod wait;
mod watch;
pub mod wire;
mod workers;

pub use artifacts::{cache, usher};
pub use certificates::{Authority, Identity, Validity};
pub use client::{Raw, Reply, ask, statuses};
pub use compiler::Compiler;
pub use database::{Database, DatabaseBuilder, Session};
pub use dns::{Dns, DnsAnswer};
pub use flavour::Flavour;
pub use lines::Lines;
pub use load::{Connections, Load, Tally};
pub use metrics::{Metrics, assert_well_formed};
pub use models::{Models, client, images, shipped_file, shipped_models, small_models};
pub use modules::{make_module, variant};
pub use process::{
    Usage, can_have_own_mounts, children, precise_cpu, proportional_anonymous_kib, proportional_kib,
    raise_descriptor_limit,
};
pub use proxy::{Proxy, Verdict, command, error_packet, ok_packet};
pub use service::{Builder, Failed, Runtime, Service};
pub use wait::{eventually, within};
pub use workers::{Worker, shared, two_workers};

/// Whether long tests are asked for (`cargo xtask test --long`).
pub fn long() -> bool {
    std::env::var_os("USHER_LONG").is_some()
}

/// Checks every row of a table, and fails with all that are wrong: `check` says what of a row is.
pub fn none_wrong<T>(rows: impl IntoIterator<Item = T>, check: impl FnMut(T) -> Option<String>) {
    let wrong: Vec<String> = rows.into_iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
