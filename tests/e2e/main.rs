//! End-to-end tests: a module per subject.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod embedded;
mod lifecycle;
mod readme;
mod users;
