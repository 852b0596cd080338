//! A listening socket: bound here, or handed over as a standard stream.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use super::capacity::{self, Bounds, CapacityError};
use super::front::Front;
use super::{CONTROL_CAPACITY, PROBE_ROOM};
use crate::config::{Listen, Stream};

/// Connections that the kernel keeps for us until we accept them (it has a bound of its own,
/// net.core.somaxconn).
const BACKLOG: u32 = 4096;

/// Why there is no listening socket.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ListenError {
    #[error("cannot listen on {address}: {cause}; set {setting} to another address or port (port 0 takes a free one)")]
    Bind { address: SocketAddr, setting: &'static str, cause: io::Error },
    #[error("cannot serve on {}: {cause}; it must be a listening TCP socket that does not block", describe(*stream))]
    Stream { stream: Stream, cause: io::Error },
    #[error(transparent)]
    Capacity(#[from] CapacityError),
}

/// A stream and the setting that asks for it.
fn describe(stream: Stream) -> &'static str {
    match stream {
        Stream::Input => "standard input (LISTEN_STDIN)",
        Stream::Output => "standard output (ADMIN_STDOUT)",
    }
}

#[cfg(not(target_os = "wasi"))]
type Socket = TcpListener;

/// Never dropped, so that it stays open until the process ends: a host that handed it over still
/// owns it, and WasmEdge 0.17.1 aborts in the poll after a listener is closed.
#[cfg(target_os = "wasi")]
type Socket = std::mem::ManuallyDrop<TcpListener>;

/// A listening socket, what is served on it, and how many of its connections may be open at once.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
    front: Front,
    capacity: usize,
}

impl Listener {
    /// Starts to listen for the API, with as many connections as `bounds` allow and `others` of the
    /// descriptors left to the store and to control. Open those first: what they hold is then not
    /// counted.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn open(listen: Listen, bounds: Bounds, others: usize) -> Result<Self, ListenError> {
        let (socket, address) = socket(listen, Front::Public)?;
        Ok(Self { socket, address, front: Front::Public, capacity: capacity::connections(bounds, others)? })
    }

    /// Starts to listen for the control routes.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn open_control(listen: Listen) -> Result<Self, ListenError> {
        let (socket, address) = socket(listen, Front::Control)?;
        Ok(Self { socket, address, front: Front::Control, capacity: CONTROL_CAPACITY })
    }

    /// The address that is served, with the port that was taken. Of a standard stream a guest knows
    /// the port only; the IP address is 0.0.0.0 then.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn front(&self) -> Front {
        self.front
    }

    /// Connections that are taken: on a public listener more than are served, as probes are let
    /// through.
    pub(super) fn room(&self) -> usize {
        match self.front {
            Front::Public => self.capacity + PROBE_ROOM,
            Front::Control => self.capacity,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.socket.accept().await?;
        // Answers leave in one write; under WasmEdge this has no effect, and needs none.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Takes no more connections. Natively the socket is closed, so that the next ones are refused
    /// unless another process holds it too.
    pub(super) fn stop(self) {}
}

fn socket(listen: Listen, front: Front) -> Result<(Socket, SocketAddr), ListenError> {
    match listen {
        Listen::Address(address) => bind(address).map_err(|cause| {
            let setting = front.address_setting();
            ListenError::Bind { address, setting, cause }
        }),
        Listen::Stream(stream) => inherited(stream).map_err(|cause| ListenError::Stream { stream, cause }),
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
fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketOptLevel, SocketOptName, SocketType};

    let socket = Socket::new(AddressFamily::from(&address), SocketType::Stream)?;
    socket.setsockopt(SocketOptLevel::SolSocket, SocketOptName::SoReuseaddr, 1i32)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG as i32)?;
    let (listener, port) = adopt(socket)?;
    Ok((listener, SocketAddr::new(address.ip(), port)))
}

#[cfg(target_os = "wasi")]
fn inherited(stream: Stream) -> io::Result<(Socket, SocketAddr)> {
    use std::os::fd::FromRawFd;
    use wasmedge_wasi_socket::socket::Socket;

    let descriptor = match stream {
        Stream::Input => 0,
        Stream::Output => 1,
    };
    // SAFETY: nothing else in the process uses the stream once it is asked for as a socket.
    let (listener, port) = adopt(unsafe { Socket::from_raw_fd(descriptor) })?;
    Ok((listener, SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port)))
}

/// Of a socket's own address only the port is to be had: in an optimised build,
/// wasmedge_wasi_socket 0.5.5 gives the IP address as zeros.
#[cfg(target_os = "wasi")]
fn adopt(socket: wasmedge_wasi_socket::socket::Socket) -> io::Result<(Socket, u16)> {
    use std::os::fd::{FromRawFd, IntoRawFd};

    // On a standard stream WasmEdge does not allow it; there it must be so already.
    socket.set_nonblocking(true)?;
    let port = socket.get_local()?.port();
    // SAFETY: the descriptor is a socket, and `socket` gives it up.
    let listener = unsafe { wasmedge_wasi_socket::TcpListener::from_raw_fd(socket.into_raw_fd()) };
    Ok((Socket::new(TcpListener::from_std(listener)?), port))
}

#[cfg(not(target_os = "wasi"))]
fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    use tokio::net::TcpSocket;

    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(not(target_os = "wasi"))]
fn inherited(stream: Stream) -> io::Result<(Socket, SocketAddr)> {
    use std::os::fd::AsFd;

    let descriptor = match stream {
        Stream::Input => io::stdin().as_fd().try_clone_to_owned()?,
        Stream::Output => io::stdout().as_fd().try_clone_to_owned()?,
    };
    let listener = std::net::TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}
