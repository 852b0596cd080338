//! Connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use wasmedge_wasi_socket as wasmedge;
use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketType};

use crate::abi::Direction;
use crate::events::Token;
use crate::interest::Interest;
use crate::poll::{Registry, Source};
use crate::table::Writing;
use crate::watched::Watched;

/// "In progress", in WASI.
const INPROGRESS: i32 = 26;

/// A connection.
#[derive(Debug)]
pub struct TcpStream(Watched<wasmedge::TcpStream>);

impl TcpStream {
    /// Begins to connect. It can be written to once it is connected, or has failed to.
    ///
    /// # Errors
    /// Those of the host; `Unsupported` with an IPv6 address.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(AddressFamily::from(&address), SocketType::Stream)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() != Some(INPROGRESS) => Err(error),
            _ => Ok(Self(Watched::new(wasmedge::TcpStream::new(socket), Writing::Unknown))),
        }
    }

    pub(crate) fn accepted(stream: wasmedge::TcpStream) -> Self {
        Self(Watched::new(stream, Writing::Ready))
    }

    /// Where the peer is.
    ///
    /// # Errors
    /// Those of the host, such as a connection that is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.peer_addr()
    }

    /// Where this side is.
    ///
    /// # Errors
    /// Those of the host.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_addr()
    }

    /// Ends one side, or both.
    ///
    /// # Errors
    /// Those of the host, such as a connection that is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.socket.shutdown(how)
    }

    /// Does nothing: Nagle's algorithm cannot be switched off. Callers who try, and who would give the
    /// connection up, are better served by a slower one.
    ///
    /// # Errors
    /// None.
    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// Whether Nagle's algorithm is off. It never is.
    ///
    /// # Errors
    /// None.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Not to be had.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn ttl(&self) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not to be had.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn set_ttl(&self, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What made the connection fail: always nothing. The first read or write says it.
    ///
    /// # Errors
    /// None.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }

    /// Not to be had.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Does something with the socket that may block; in which direction is not known.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn try_io<R>(&self, operation: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.0.attempt(&[Direction::Read, Direction::Write], |_| operation())
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.transfer(Direction::Read, buffer.len(), |mut stream| stream.read(buffer))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.transfer(Direction::Write, bytes.len(), |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for TcpStream {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.0.register(registry, token, interest)
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        self.0.deregister()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

impl FromRawFd for TcpStream {
    unsafe fn from_raw_fd(descriptor: RawFd) -> Self {
        // SAFETY: the caller's promise is the same.
        Self(Watched::new(unsafe { wasmedge::TcpStream::from_raw_fd(descriptor) }, Writing::Unknown))
    }
}
