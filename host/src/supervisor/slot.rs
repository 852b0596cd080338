//! The sockets that outlive the workers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Connections that the kernel keeps for a slot until its worker accepts them (it has a bound of its own,
/// net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Connections that may wait for a worker's control listener: we are its only client.
const CONTROL_BACKLOG: i32 = 16;

/// One worker's share of the address that is served. What is queued here is not lost with a worker: the
/// next one answers it.
#[derive(Debug)]
pub struct Slot(Socket);

impl Slot {
    /// Binds `count` slots to one address; the kernel spreads connections over those that listen.
    ///
    /// # Errors
    /// If the address is taken, or may not be used: with what to do.
    pub fn bind_all(address: SocketAddr, count: usize) -> Result<Vec<Self>> {
        let explain = |error: io::Error| anyhow!(explain(address, &error));
        // Among sockets that share an address, one of another usher would not be noticed.
        bound(address, false).map_err(explain)?;
        let first = bound(address, true).map_err(explain)?;
        let taken = address_of(&first)?;
        let mut slots = vec![Self(first)];
        for _ in 1..count {
            slots.push(Self(bound(taken, true).map_err(explain)?));
        }
        Ok(slots)
    }

    /// The address, with the port that was taken.
    pub fn address(&self) -> Result<SocketAddr> {
        address_of(&self.0)
    }

    /// Starts to take connections.
    pub fn listen(&self) -> io::Result<()> {
        self.0.listen(BACKLOG)
    }

    /// Lets nobody begin to connect any more. Whoever began already is let through to the worker.
    ///
    /// A program for the kernel's packet filter (bpf(4)) that drops what has SYN and no ACK. It sees the
    /// packet from its TCP header on, whose flags are the byte at offset 13 (RFC 9293 §3.1).
    pub fn close_to_newcomers(&self) -> io::Result<()> {
        const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        let instruction = SockFilter::new;
        self.0.attach_filter(&[
            instruction(LOAD_BYTE, 0, 0, 13),
            instruction(AND, 0, 0, SYN | ACK),
            instruction(JUMP_IF_EQUAL, 0, 1, SYN),
            instruction(RETURN, 0, 0, 0),
            instruction(RETURN, 0, 0, u32::MAX),
        ])
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A worker's control listener, on a free port of the loopback.
pub fn control() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = bound((Ipv4Addr::LOCALHOST, 0).into(), false)?;
    socket.listen(CONTROL_BACKLOG)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A socket as a guest can use it: it cannot ask for any of this itself.
fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn address_of(socket: &Socket) -> Result<SocketAddr> {
    socket.local_addr()?.as_socket().context("a TCP socket has no address")
}

/// Why an address cannot be used, with the flag that helps.
pub fn explain(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is already in use: stop the other program, or choose another"),
        io::ErrorKind::PermissionDenied => {
            format!("{address} may not be used by this user: choose a port from 1024 on, or start as root with --user")
        }
        io::ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine: choose another"),
        _ => format!("cannot listen on {address}: {error}: choose another"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn slots_share_an_address_and_nobody_else_does() {
        let slots = Slot::bind_all(local(), 3).unwrap();
        let address = slots[0].address().unwrap();
        slots[0].listen().unwrap();
        assert!(slots.iter().all(|slot| slot.address().unwrap() == address));
        let error = Slot::bind_all(address, 1).unwrap_err().to_string();
        assert!(error.contains("already in use"), "{error}");
    }

    #[test]
    fn who_began_before_is_let_through_and_who_comes_later_is_not() {
        let slots = Slot::bind_all(local(), 1).unwrap();
        let address = slots[0].address().unwrap();
        slots[0].listen().unwrap();
        let early = TcpStream::connect(address).unwrap();
        slots[0].close_to_newcomers().unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (accepted, _) = slots[0].0.accept().unwrap();
        assert_eq!(accepted.peer_addr().unwrap().as_socket(), Some(early.local_addr().unwrap()));
    }
}
