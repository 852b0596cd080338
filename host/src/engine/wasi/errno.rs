//! The numbers of errors in WASI preview 1, which are not the kernel's.

use std::io;

/// One of them.
pub type Errno = u16;

/// No error.
pub const SUCCESS: Errno = 0;
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

/// What the kernel said, as a guest understands it.
pub fn of(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EBADF) => BADF,
        Some(libc::EFAULT) => FAULT,
        Some(libc::EINVAL) => INVAL,
        Some(libc::EMFILE | libc::ENFILE) => MFILE,
        Some(libc::ENOMEM | libc::ENOSPC) => NOMEM,
        _ => IO,
    }
}
