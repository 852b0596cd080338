//! The numbers of errors in WASI preview 1, which are not the kernel's.

use std::io;

/// One of them.
pub type Errno = u16;

/// No error.
pub const SUCCESS: Errno = 0;
/// Nothing is there yet, or there is no room.
pub const AGAIN: Errno = 6;
/// There is no such descriptor.
pub const BADF: Errno = 8;
/// A pointer leads out of the guest's memory.
pub const FAULT: Errno = 21;
/// An argument makes no sense.
pub const INVAL: Errno = 28;
/// The hardware, or something else that is none of the others.
pub const IO: Errno = 29;
/// The process has too many descriptors open.
pub const MFILE: Errno = 33;
/// No memory.
pub const NOMEM: Errno = 48;

/// What the kernel said, as a guest understands it: what polls and transfers may fail with.
pub fn of(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EACCES) => 2,
        Some(libc::EAFNOSUPPORT) => 5,
        Some(libc::EAGAIN) => AGAIN,
        Some(libc::EBADF) => BADF,
        Some(libc::ECONNABORTED) => 13,
        Some(libc::ECONNREFUSED) => 14,
        Some(libc::ECONNRESET) => 15,
        Some(libc::EDESTADDRREQ) => 17,
        Some(libc::EFAULT) => FAULT,
        Some(libc::EHOSTUNREACH) => 23,
        Some(libc::EINVAL) => INVAL,
        Some(libc::EMFILE | libc::ENFILE) => MFILE,
        Some(libc::EMSGSIZE) => 35,
        Some(libc::ENETDOWN) => 38,
        Some(libc::ENETUNREACH) => 40,
        Some(libc::ENOBUFS) => 42,
        Some(libc::ENOMEM | libc::ENOSPC) => NOMEM,
        Some(libc::ENOTCONN) => 53,
        Some(libc::ENOTSOCK) => 57,
        Some(libc::EOPNOTSUPP) => 58,
        Some(libc::EPERM) => 63,
        Some(libc::EPIPE) => 64,
        Some(libc::ETIMEDOUT) => 73,
        _ => IO,
    }
}
