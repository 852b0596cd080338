//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use wasmedge_wasi_socket as wasmedge;

use crate::abi::Direction;
use crate::events::Token;
use crate::interest::Interest;
use crate::net::TcpStream;
use crate::poll::{Registry, Source};
use crate::table::Writing;
use crate::watched::Watched;

/// A listening socket.
#[derive(Debug)]
pub struct TcpListener(Watched<wasmedge::TcpListener>);

impl TcpListener {
    /// Listens on an address.
    ///
    /// # Errors
    /// Those of the host, such as an address that is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        wasmedge::TcpListener::bind(address, true).map(Self::from_std)
    }

    /// Watches a socket that does not block.
    #[must_use]
    pub fn from_std(listener: wasmedge::TcpListener) -> Self {
        Self(Watched::new(listener, Writing::Never))
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; those of the host, such as too many descriptors.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.0.attempt(&[Direction::Read], |listener| listener.accept(true))?;
        Ok((TcpStream::accepted(stream), address))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the host.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_addr()
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
}

impl Source for TcpListener {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.0.register(registry, token, interest)
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        self.0.deregister()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

impl FromRawFd for TcpListener {
    unsafe fn from_raw_fd(descriptor: RawFd) -> Self {
        // SAFETY: the caller's promise is the same.
        Self::from_std(unsafe { wasmedge::TcpListener::from_raw_fd(descriptor) })
    }
}
