//! The listening socket: bound here, or handed over on standard input.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use super::capacity::{self, CapacityError};
use crate::config::Listen;

/// Connections that the kernel keeps for us until we accept them (it has a bound of its own,
/// net.core.somaxconn).
const BACKLOG: u32 = 4096;

/// Why there is no listening socket.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ListenError {
    #[error(
        "cannot listen on {address}: {cause}; set LISTEN_ADDR to another address or port (port 0 takes a free one)"
    )]
    Bind { address: SocketAddr, cause: io::Error },
    #[error(
        "cannot serve on standard input (LISTEN_STDIN): {0}; it must be a listening TCP socket that does not block"
    )]
    Stdin(io::Error),
    #[error(transparent)]
    Capacity(#[from] CapacityError),
}

/// A listening socket, and how many of its connections may be open at once.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    capacity: usize,
}

impl Listener {
    /// Starts to listen. `connections` at once, or as many as there are descriptors for, `store_room`
    /// of them left out for the store. Open the store first: what it holds is then not counted.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn open(listen: Listen, connections: Option<usize>, store_room: usize) -> Result<Self, ListenError> {
        let opened = match listen {
            Listen::Address(address) => bind(address).map_err(|cause| ListenError::Bind { address, cause })?,
            Listen::Stdin => stdin().map_err(ListenError::Stdin)?,
        };
        let (socket, address) = opened;
        Ok(Self { socket, address, capacity: capacity::connections(connections, store_room)? })
    }

    /// The address that is served, with the port that was taken. Of a socket on standard input a
    /// guest knows the port only; the IP address is 0.0.0.0 then.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.socket.accept().await?;
        // Answers leave in one write; under WasmEdge this has no effect, and needs none.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Listener {
    /// Takes no more connections. Natively the socket is closed, so that the next ones are refused.
    #[cfg(not(target_os = "wasi"))]
    pub(super) fn stop(self) {}

    /// Takes no more connections. The socket stays open until the process ends: a host that handed
    /// it over still owns it, and WasmEdge 0.17.1 aborts in the poll after a listener is closed.
    #[cfg(target_os = "wasi")]
    pub(super) fn stop(self) {
        std::mem::forget(self);
    }
}

/// Whether an accept error means that somebody shut the listener down, which is how a host tells
/// a guest to stop.
pub(super) fn is_shut_down(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Whether an accept error is about one connection, whose peer is already gone.
pub(super) fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected)
}

#[cfg(target_os = "wasi")]
fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketOptLevel, SocketOptName, SocketType};

    let socket = Socket::new(AddressFamily::from(&address), SocketType::Stream)?;
    socket.setsockopt(SocketOptLevel::SolSocket, SocketOptName::SoReuseaddr, 1i32)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG as i32)?;
    let (listener, port) = adopt(socket)?;
    Ok((listener, SocketAddr::new(address.ip(), port)))
}

#[cfg(target_os = "wasi")]
fn stdin() -> io::Result<(TcpListener, SocketAddr)> {
    use std::os::fd::FromRawFd;
    use wasmedge_wasi_socket::socket::Socket;

    // SAFETY: nothing else in the process uses descriptor 0.
    let (listener, port) = adopt(unsafe { Socket::from_raw_fd(0) })?;
    Ok((listener, SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port)))
}

/// Of a socket's own address only the port is to be had: in an optimised build,
/// wasmedge_wasi_socket 0.5.5 gives the IP address as zeros.
#[cfg(target_os = "wasi")]
fn adopt(socket: wasmedge_wasi_socket::socket::Socket) -> io::Result<(TcpListener, u16)> {
    use std::os::fd::{FromRawFd, IntoRawFd};

    // On standard input WasmEdge does not allow it; there it must be so already.
    socket.set_nonblocking(true)?;
    let port = socket.get_local()?.port();
    // SAFETY: the descriptor is a socket, and `socket` gives it up.
    let listener = unsafe { wasmedge_wasi_socket::TcpListener::from_raw_fd(socket.into_raw_fd()) };
    Ok((TcpListener::from_std(listener)?, port))
}

#[cfg(not(target_os = "wasi"))]
fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    use tokio::net::TcpSocket;

    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(not(target_os = "wasi"))]
fn stdin() -> io::Result<(TcpListener, SocketAddr)> {
    use std::os::fd::AsFd;

    let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}
