//! End-to-end tests: a module per subject.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "long tests report figures to whoever runs them with --nocapture")]

mod bodies;
mod database;
mod development;
mod dns;
mod embedded;
mod http;
mod lifecycle;
mod limits;
mod mysql;
mod mysql_faults;
mod readme;
mod soak;
mod users;
