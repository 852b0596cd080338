//! `poll_oneoff` as the guest calls it: its subscriptions and events in its memory (WASI preview 1).

use anyhow::Result;
use wasmedge_sdk::ValType::I32;

use super::call::Call;
use super::descriptors::native;
use super::errno::{self, Errno, FAULT, INVAL, SUCCESS};
use super::poll::{Clock, Event, Kind, Subscription};
use super::replacement::Outcome;
use super::{State, Wasi};

/// Bytes of a subscription.
const SUBSCRIPTION: usize = 48;
/// Bytes of an event.
const EVENT: usize = 32;

/// The kinds of subscriptions and events.
const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// The clocks that can be waited for.
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
/// A flag of a clock: its time is not from now on.
const ABSTIME: u16 = 1;

/// A flag of an event: the other side is gone.
const HANGUP: u16 = 1;

/// Most subscriptions at once: a guest cannot have so many descriptors.
const SUBSCRIPTIONS_MAX: u32 = 1 << 20;

/// Puts it in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have it, or does not let it be replaced.
pub fn replace(wasi: &mut Wasi) -> Result<()> {
    wasi.replace("poll_oneoff", &[I32, I32, I32, I32], poll_oneoff)
}

fn poll_oneoff(state: &mut State, call: &mut Call<'_>) -> Outcome {
    Outcome::Done(poll(state, call).err().unwrap_or(SUCCESS))
}

fn poll(state: &mut State, call: &mut Call<'_>) -> Result<(), Errno> {
    let (from, to, count, told) = (call.address(0), call.address(1), call.address(2), call.address(3));
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(INVAL);
    }
    // Found out before anything is waited for.
    let count = count as usize;
    call.memory(to, count * EVENT)?;
    call.memory(told, 4)?;
    let State { context, poller, subscriptions, events, .. } = state;
    subscriptions.clear();
    let bytes = call.memory(from, count * SUBSCRIPTION)?;
    subscriptions.extend(bytes.as_chunks::<SUBSCRIPTION>().0.iter().map(read));
    let poller = poller.as_mut().ok_or(errno::IO)?;
    poller.poll(subscriptions, |guest| native(*context, guest), events)?;
    let bytes = call.memory(to, count * EVENT)?;
    for (place, event) in bytes.as_chunks_mut::<EVENT>().0.iter_mut().zip(events.iter()) {
        let subscription = subscriptions.get(event.subscription).ok_or(FAULT)?;
        write(place, *event, subscription);
    }
    let number = u32::try_from(events.len().min(count)).map_err(|_| FAULT)?;
    call.memory(told, 4)?.copy_from_slice(&number.to_le_bytes());
    Ok(())
}

/// A number in the guest's memory.
macro_rules! number {
    ($kind:ty, $bytes:expr, $at:literal) => {{
        let mut number = [0; size_of::<$kind>()];
        number.copy_from_slice(&$bytes[$at..$at + size_of::<$kind>()]);
        <$kind>::from_le_bytes(number)
    }};
}

#[expect(clippy::indexing_slicing, reason = "all places lie within the fixed size")]
fn read(bytes: &[u8; SUBSCRIPTION]) -> Subscription {
    let kind = match bytes[8] {
        CLOCK => Kind::Clock(clock(number!(u32, bytes, 16), number!(u64, bytes, 24), number!(u16, bytes, 40))),
        FD_READ => Kind::Read(number!(u32, bytes, 16)),
        FD_WRITE => Kind::Write(number!(u32, bytes, 16)),
        other => Kind::Unknown(other),
    };
    Subscription { userdata: number!(u64, bytes, 0), kind }
}

fn clock(id: u32, time: u64, flags: u16) -> Clock {
    match (id, flags & ABSTIME != 0) {
        (REALTIME | MONOTONIC, false) => Clock::In(time),
        (REALTIME, true) => Clock::AtRealtime(time),
        (MONOTONIC, true) => Clock::AtMonotonic(time),
        _ => Clock::Unknown,
    }
}

fn write(bytes: &mut [u8; EVENT], event: Event, subscription: &Subscription) {
    let (kind, readable) = match subscription.kind {
        Kind::Clock(_) => (CLOCK, 0),
        // How much there is nobody asks; that there is something is what the event says.
        Kind::Read(_) => (FD_READ, 1),
        Kind::Write(_) => (FD_WRITE, 1),
        Kind::Unknown(kind) => (kind, 0),
    };
    let flags = if event.hung_up { HANGUP } else { 0 };
    *bytes = [0; EVENT];
    let mut put = |at: usize, number: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + number.len()) {
            place.copy_from_slice(number);
        }
    };
    put(0, &subscription.userdata.to_le_bytes());
    put(8, &event.error.to_le_bytes());
    put(10, &[kind]);
    put(16, &u64::to_le_bytes(readable));
    put(24, &flags.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasi::errno::BADF;

    fn bytes(kind: u8, union: &[(usize, &[u8])]) -> [u8; SUBSCRIPTION] {
        let mut bytes = [0; SUBSCRIPTION];
        bytes[..8].copy_from_slice(&7_u64.to_le_bytes());
        bytes[8] = kind;
        for (at, number) in union {
            bytes[*at..at + number.len()].copy_from_slice(number);
        }
        bytes
    }

    #[test]
    fn subscriptions_are_read_as_wasi_lays_them_out() {
        let fd = 0x7654_3210_u32.to_le_bytes();
        let is = |bytes: &[u8; SUBSCRIPTION], kind| assert_eq!(read(bytes), Subscription { userdata: 7, kind });
        is(&bytes(FD_READ, &[(16, &fd)]), Kind::Read(0x7654_3210));
        is(&bytes(FD_WRITE, &[(16, &fd)]), Kind::Write(0x7654_3210));
        let time = 1_500_u64.to_le_bytes();
        is(&bytes(CLOCK, &[(16, &[1]), (24, &time)]), Kind::Clock(Clock::In(1_500)));
        is(&bytes(CLOCK, &[(16, &[1]), (24, &time), (40, &[1])]), Kind::Clock(Clock::AtMonotonic(1_500)));
        is(&bytes(CLOCK, &[(24, &time), (40, &[1])]), Kind::Clock(Clock::AtRealtime(1_500)));
        is(&bytes(CLOCK, &[(16, &[9])]), Kind::Clock(Clock::Unknown));
        is(&bytes(200, &[]), Kind::Unknown(200));
    }

    #[test]
    fn events_are_written_as_wasi_lays_them_out() {
        let subscription = Subscription { userdata: 7, kind: Kind::Write(3) };
        let mut place = [0xff; EVENT];
        write(&mut place, Event { subscription: 0, error: BADF, hung_up: true }, &subscription);
        let mut expected = [0; EVENT];
        (expected[0], expected[8], expected[10], expected[16], expected[24]) = (7, 8, 2, 1, 1);
        assert_eq!(place, expected);
    }
}
