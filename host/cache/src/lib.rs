//! Modules compiled ahead of time, kept between runs by everything that their code depends on.
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

mod cache;
mod digest;
mod entry;
pub mod files;
mod folder;
mod key;

pub use cache::{Cache, Compiled, MAX_BYTES, MAX_ENTRIES};
pub use digest::Digest;
pub use key::{Cpu, Key};
