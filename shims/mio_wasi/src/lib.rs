//! The part of mio 0.8 that tokio_wasi uses, on WasmEdge's `poll_oneoff`.
//!
//! The original hands an interrupted poll to tokio_wasi, which panics. It also asks for what nobody
//! waits for: whether a socket has room, after each read and write, and whether a listener has.
#![cfg_attr(not(target_os = "wasi"), allow(dead_code, reason = "the sockets are WasmEdge's: natively there are tests"))]

mod abi;
mod events;
mod interest;
mod selector;
mod table;

#[cfg(target_os = "wasi")]
pub mod net;
#[cfg(target_os = "wasi")]
mod poll;
#[cfg(target_os = "wasi")]
mod wasmedge;
#[cfg(target_os = "wasi")]
mod watched;

pub use events::{Events, Token};
pub use interest::Interest;
#[cfg(target_os = "wasi")]
pub use poll::{Poll, Registry, Waker};

/// What a poll says, and about what.
pub mod event {
    pub use crate::events::Event;
    #[cfg(target_os = "wasi")]
    pub use crate::poll::Source;
}

#[cfg(test)]
mod tests;
