//! What is asked of `poll_oneoff` and what it answers, laid out in memory as WASI has it.

use std::mem::{offset_of, size_of};
use std::time::Duration;

/// An error's number in WASI.
pub(crate) type Errno = u16;

/// What WasmEdge says of each descriptor in the poll after an interrupted one.
pub(crate) const EXIST: Errno = 20;
/// A signal came.
pub(crate) const INTR: Errno = 27;
/// What WasmEdge says when it is asked for nothing.
pub(crate) const INVAL: Errno = 28;

/// What the clock's subscription is known by; no key is, as there are never so many sources.
pub(crate) const CLOCK: u64 = u64::MAX;

const KIND_CLOCK: u8 = 0;
const MONOTONIC: u64 = 1;
const HANGUP: u16 = 1;

/// What a source can be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Direction {
    Read = 1,
    Write = 2,
}

impl Direction {
    pub(crate) fn of(kind: u8) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|direction| *direction as u8 == kind)
    }
}

/// One thing to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Subscription {
    /// Comes back with the answer.
    pub(crate) userdata: u64,
    pub(crate) kind: u8,
    /// The descriptor or the clock: 32 bits and their padding, which is the same in little-endian.
    pub(crate) subject: u64,
    /// In nanoseconds from now; of a clock only, as what follows.
    pub(crate) timeout: u64,
    precision: u64,
    flags: u16,
}

impl Subscription {
    pub(crate) fn descriptor(userdata: u64, direction: Direction, descriptor: u32) -> Self {
        let (kind, subject) = (direction as u8, u64::from(descriptor));
        Self { userdata, kind, subject, timeout: 0, precision: 0, flags: 0 }
    }

    pub(crate) fn clock(timeout: Duration) -> Self {
        // Zero would switch the timer off in some hosts.
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { userdata: CLOCK, kind: KIND_CLOCK, subject: MONOTONIC, timeout, precision: 0, flags: 0 }
    }
}

/// One answer. What follows the kind has a meaning only where there is no error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Answer {
    pub(crate) userdata: u64,
    pub(crate) error: Errno,
    pub(crate) kind: u8,
    bytes: u64,
    flags: u16,
}

impl Answer {
    #[cfg(test)]
    pub(crate) fn to(subscription: &Subscription, error: Errno) -> Self {
        Self { userdata: subscription.userdata, kind: subscription.kind, error, ..Self::default() }
    }

    pub(crate) fn hung_up(&self) -> bool {
        self.error == 0 && self.flags & HANGUP != 0
    }
}

const _: () = {
    assert!(size_of::<Subscription>() == 48);
    assert!(offset_of!(Subscription, kind) == 8);
    assert!(offset_of!(Subscription, subject) == 16);
    assert!(offset_of!(Subscription, timeout) == 24);
    assert!(offset_of!(Subscription, flags) == 40);
    assert!(size_of::<Answer>() == 32);
    assert!(offset_of!(Answer, error) == 8);
    assert!(offset_of!(Answer, kind) == 10);
    assert!(offset_of!(Answer, bytes) == 16);
    assert!(offset_of!(Answer, flags) == 24);
};

/// Whoever has the descriptors.
pub(crate) trait Host {
    /// Waits until one of these can be answered, and says how many were. There is room for an answer
    /// to each.
    ///
    /// # Errors
    /// The host's own, about all of them together.
    fn poll(&mut self, subscriptions: &[Subscription], answers: &mut [Answer]) -> Result<usize, Errno>;

    /// A clock that only goes forward.
    fn now(&mut self) -> Duration;
}
