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

/// What bounds the connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Those that were asked for; `None`: as many as possible.
    pub connections: Option<usize>,
    /// Free descriptors, where the host said how many; `None`: they are counted.
    pub descriptors: Option<usize>,
}

/// Connections at once: those that were asked for, or as many as the free descriptors allow, with
/// `others` of them left to the store and to control.
///
/// # Errors
/// If there is no room for so many.
pub fn connections(bounds: Bounds, others: usize) -> Result<usize, CapacityError> {
    let reserved = others + PROBE_ROOM + SPARE;
    let enough = CONNECTIONS_MAX + reserved;
    let free = bounds.descriptors.map_or_else(|| free_descriptors(enough), |free| free.min(enough));
    let room = free.saturating_sub(reserved);
    let wanted = bounds.connections;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(connections: Option<usize>, descriptors: usize) -> Result<usize, CapacityError> {
        super::connections(Bounds { connections, descriptors: Some(descriptors) }, 10)
    }

    #[test]
    fn what_the_host_says_is_not_counted_anew() {
        assert_eq!(with(None, 64).unwrap(), 64 - 10 - PROBE_ROOM - SPARE);
        assert_eq!(with(None, 1_000_000).unwrap(), CONNECTIONS_MAX);
        assert_eq!(with(Some(20), 64).unwrap(), 20);
        assert!(matches!(with(Some(40), 64), Err(CapacityError::TooMany { wanted: 40, room: 32 })));
        assert!(matches!(with(None, 5), Err(CapacityError::None)));
    }
}
