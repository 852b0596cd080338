//! Images and manifests on real container engines, each test on a node of its own: `cargo xtask test --deploy`.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "figures are told to whoever runs them with --nocapture")]

mod compose;
mod containerd;
mod images;
mod kubelet;
mod manifests;
mod node;
mod podman;
mod running;
mod service;

mod cri;
mod host;
mod misconfigured;
mod wasm;
