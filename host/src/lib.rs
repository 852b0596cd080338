//! What `usher` and its engine share: how they talk to each other.

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

pub mod channel;
pub mod protocol;
