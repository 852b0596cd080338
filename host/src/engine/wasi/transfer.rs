//! `sock_recv` and `sock_send` straight to the kernel (WASI preview 1; recv(2), send(2)).
//!
//! WasmEdge's own look the descriptor up each time, and pass a list of buffers where nearly every guest has one:
//! some 3 % of what a small request costs.

use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;

use anyhow::Result;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use wasmedge_sdk::ValType::I32;

use super::call::Call;
use super::descriptors::native;
use super::errno::{self, BADF, Errno, FAULT, INVAL, SUCCESS};
use super::replacement::Outcome;
use super::{State, Wasi};

/// Bytes of a buffer's address and length.
const BUFFER: u32 = 8;

/// Most buffers in one call, as for the kernel.
const BUFFERS_MAX: u32 = libc::UIO_MAXIOV as u32;

/// What a guest may ask for: to look only, and to wait for all.
const PEEK: u32 = 1;
const WAITALL: u32 = 2;

/// What it is told: that a datagram was longer than its buffers.
const DATA_TRUNCATED: u16 = 1;

/// A guest's socket, as it was found in WasmEdge's table.
#[derive(Debug, Clone, Copy)]
pub struct Socket {
    native: RawFd,
    /// Nothing of it is ever cut off.
    stream: bool,
}

/// Puts them in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have one of them, or does not let it be replaced.
pub fn replace(wasi: &mut Wasi) -> Result<()> {
    wasi.replace("sock_recv", &[I32; 6], |state, call| Outcome::Done(recv(state, call).err().unwrap_or(SUCCESS)))?;
    wasi.replace("sock_send", &[I32; 5], |state, call| Outcome::Done(send(state, call).err().unwrap_or(SUCCESS)))
}

fn recv(state: &mut State, call: &mut Call<'_>) -> Result<(), Errno> {
    let (to_count, to_flags) = (call.address(4), call.address(5));
    // Found out before anything is taken.
    call.memory(to_count, 4)?;
    call.memory(to_flags, 2)?;
    let flags = recv_flags(call.address(3))?;
    let socket = state.socket(call.address(0))?;
    state.take_buffers(call, call.address(1), call.address(2))?;
    let (count, cut) = match state.buffers.as_slice() {
        // SAFETY: the buffer is the guest's, which does not run meanwhile.
        [buffer] if socket.stream => {
            repeat(|| unsafe { libc::recv(socket.native, buffer.iov_base, buffer.iov_len, flags) })
                .map(|count| (count, false))?
        }
        _ => recv_message(socket.native, &mut state.buffers, flags)?,
    };
    let told = if cut { DATA_TRUNCATED } else { 0 };
    call.memory(to_flags, 2)?.copy_from_slice(&told.to_le_bytes());
    call.memory(to_count, 4)?.copy_from_slice(&count.to_le_bytes());
    Ok(())
}

fn recv_message(native: RawFd, buffers: &mut [libc::iovec], flags: i32) -> Result<(u32, bool), Errno> {
    let mut message = message(buffers);
    // SAFETY: the message leads to that many buffers of the guest's, which does not run meanwhile.
    let count = repeat(|| unsafe { libc::recvmsg(native, &raw mut message, flags) })?;
    Ok((count, message.msg_flags & libc::MSG_TRUNC != 0))
}

fn recv_flags(guest: u32) -> Result<i32, Errno> {
    if guest & !(PEEK | WAITALL) != 0 {
        return Err(INVAL);
    }
    let flag = |bit, native| if guest & bit != 0 { native } else { 0 };
    Ok(flag(PEEK, libc::MSG_PEEK) | flag(WAITALL, libc::MSG_WAITALL))
}

fn send(state: &mut State, call: &mut Call<'_>) -> Result<(), Errno> {
    let to_count = call.address(4);
    call.memory(to_count, 4)?;
    if call.address(3) != 0 {
        return Err(INVAL);
    }
    let socket = state.socket(call.address(0))?;
    state.take_buffers(call, call.address(1), call.address(2))?;
    // SAFETY: the buffers are the guest's, which does not run meanwhile.
    let count = match state.buffers.as_slice() {
        [buffer] => {
            repeat(|| unsafe { libc::send(socket.native, buffer.iov_base, buffer.iov_len, libc::MSG_NOSIGNAL) })?
        }
        _ => {
            let message = message(&mut state.buffers);
            repeat(|| unsafe { libc::sendmsg(socket.native, &raw const message, libc::MSG_NOSIGNAL) })?
        }
    };
    call.memory(to_count, 4)?.copy_from_slice(&count.to_le_bytes());
    Ok(())
}

fn message(buffers: &mut [libc::iovec]) -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: buffers.as_mut_ptr(),
        msg_iovlen: buffers.len(),
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// How many bytes a call moved, which a signal does not end.
fn repeat(mut call: impl FnMut() -> isize) -> Result<u32, Errno> {
    loop {
        // Less than 2 GiB, by which the kernel bounds a transfer (read(2)).
        if let Ok(count) = u32::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(errno::of(&error));
        }
    }
}

impl State {
    /// A guest's socket, looked up once.
    fn socket(&mut self, guest: u32) -> Result<Socket, Errno> {
        match self.sockets.entry(guest) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(place) => {
                let native = native(self.context, guest).ok_or(BADF)?;
                // SAFETY: it is in WasmEdge's table, so that it is open.
                let borrowed = unsafe { BorrowedFd::borrow_raw(native) };
                let kind = getsockopt(&borrowed, sockopt::SockType).map_err(|error| errno::of(&error.into()))?;
                Ok(*place.insert(Socket { native, stream: kind == SockType::Stream }))
            }
        }
    }

    /// Notes the buffers that a list in the guest's memory leads to.
    fn take_buffers(&mut self, call: &mut Call<'_>, list: u32, count: u32) -> Result<(), Errno> {
        if count > BUFFERS_MAX {
            return Err(INVAL);
        }
        self.buffers.clear();
        for index in 0..count {
            let buffer = list.checked_add(index * BUFFER).ok_or(FAULT)?;
            let (address, length) = (call.word(buffer)?, call.word(buffer.saturating_add(4))?);
            let bytes = call.memory(address, length as usize)?;
            self.buffers.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        }
        Ok(())
    }
}
