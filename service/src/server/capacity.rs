//! How many connections there may be: as many as there are descriptors for.

use std::io;

use thiserror::Error;

use super::PROBE_ROOM;
use crate::config::CONNECTIONS_MAX;

/// Descriptors left to what nobody thought of, WasmEdge's own among them.
const SPARE: usize = 6;

/// Why there are not enough descriptors.
#[derive(Debug, Error)]
pub enum CapacityError {
    #[error(
        "MAX_CONNECTIONS is {wanted}, but the descriptor limit leaves room for {room}; raise it (ulimit -n) or ask for less"
    )]
    TooMany { wanted: usize, room: usize },
    #[error("the descriptor limit leaves no room for connections; raise it (ulimit -n), 64 would do")]
    None,
}

/// Connections at once: `wanted`, or as many as the descriptors that are free now allow, with
/// `others` of them left to the store and to control.
///
/// # Errors
/// If there is no room for so many.
pub fn connections(wanted: Option<usize>, others: usize) -> Result<usize, CapacityError> {
    let reserved = others + PROBE_ROOM + SPARE;
    let room = free_descriptors(CONNECTIONS_MAX + reserved).saturating_sub(reserved);
    match wanted {
        Some(wanted) if wanted > room => Err(CapacityError::TooMany { wanted, room }),
        Some(wanted) => Ok(wanted),
        None if room == 0 => Err(CapacityError::None),
        None => Ok(room),
    }
}

/// Counts free descriptors by taking them, up to `enough`: WASI cannot ask for the limit.
fn free_descriptors(enough: usize) -> usize {
    let taken: Vec<_> = std::iter::from_fn(|| take_one().ok()).take(enough).collect();
    taken.len()
}

#[cfg(target_os = "wasi")]
fn take_one() -> io::Result<impl Sized> {
    use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketType};
    Socket::new(AddressFamily::Inet4, SocketType::Datagram)
}

#[cfg(not(target_os = "wasi"))]
fn take_one() -> io::Result<impl Sized> {
    std::fs::File::open("/dev/null")
}
