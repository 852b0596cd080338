//! `poll_oneoff` on an epoll that lives as long as the guest (WASI preview 1; epoll(7)).
//!
//! WasmEdge's own registers every descriptor anew at each call, so that a call costs as much as there are
//! connections, and a signal in between leaves it half registered. Here the kernel keeps what it was told,
//! and is told differences only.
//!
//! A guest's descriptor that was ever polled has a *slot*, which knows the native descriptor and what the
//! kernel was told about it (what is *armed*). What always holds:
//!
//! - A native descriptor comes from WasmEdge's table and from nowhere else.
//! - There is one slot at most for a guest's descriptor, and one for a native one.
//! - What a slot says is armed is what the kernel holds. A slot is forgotten, by the kernel first, before the
//!   descriptor is closed or renumbered.
//! - Before this sleeps, everything that was subscribed to is armed or answered. More may be armed than was
//!   subscribed to: a guest that stops reading a connection for a while often comes back to it. It is
//!   disarmed when it fires for nothing, and once only.
//! - Whoever wants to write mostly can. So write interest is asked for directly, by one poll(2) for all of
//!   it, and armed only where the answer is no.
//! - A signal is not an error: what is left of the time is waited for.
//! - What is wrong with one descriptor is told for that one, as its event's error.
//!
//! The epoll descriptor is made at the first call: in the worker, after it was forked.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;

use super::errno::{self, Errno};

/// Most events that are taken from the kernel at once; the others come with the next call.
const BATCH: usize = 256;

/// No subscription, no slot.
const NONE: usize = usize::MAX;

/// The native descriptor of a slot that was forgotten.
const GONE: RawFd = -1;

/// Shorter than this the kernel cannot sleep: its timers have 50 µs of slack.
const SLEEP_MIN: Duration = Duration::from_micros(1);

/// Directions, as epoll has them.
const READ: u32 = libc::EPOLLIN as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;

/// What a descriptor may report whether or not it was asked for: both directions find out by trying.
const BROKEN: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// One subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The guest's own, given back with the event.
    pub userdata: u64,
    /// What it waits for.
    pub kind: Kind,
}

/// What a subscription waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A time.
    Clock(Clock),
    /// Something to read on a guest's descriptor.
    Read(u32),
    /// Room to write to a guest's descriptor.
    Write(u32),
    /// Nothing that there is.
    Unknown(u8),
}

/// A time to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// From now on, in nanoseconds.
    In(u64),
    /// On the monotonic clock, in nanoseconds.
    AtMonotonic(u64),
    /// Since 1970, in nanoseconds.
    AtRealtime(u64),
    /// A clock that cannot be waited for.
    Unknown,
}

impl Clock {
    /// When that is; `None` if there is no such clock.
    fn deadline(self) -> Option<Instant> {
        let now = Instant::now();
        let wait = match self {
            Self::In(nanos) => Duration::from_nanos(nanos),
            Self::AtMonotonic(at) => Duration::from_nanos(at.saturating_sub(monotonic())),
            Self::AtRealtime(at) => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Duration::from_nanos(at).saturating_sub(since)
            }
            Self::Unknown => return None,
        };
        // Beyond what the clock can count nobody will notice.
        Some(now.checked_add(wait).unwrap_or(now + Duration::from_secs(1 << 30)))
    }
}

/// The clock that guests read as the monotonic one, in nanoseconds.
fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The subscription that it answers.
    pub subscription: usize,
    /// What is wrong with its descriptor.
    pub error: Errno,
    /// Whether the other side is gone.
    pub hung_up: bool,
}

/// What is known of a guest's descriptor.
#[derive(Debug)]
struct Slot {
    guest: u32,
    native: RawFd,
    /// What the kernel holds; nothing: the descriptor is not registered.
    armed: u32,
    /// Not to be polled, but always ready: a plain file.
    plain: bool,
    /// The call in which the rest is valid.
    call: u64,
    wanted: u32,
    /// Its subscriptions to read: the last one, which leads to the others.
    readers: usize,
    /// Those to write.
    writers: usize,
}

impl Slot {
    fn last(&mut self, direction: u32) -> &mut usize {
        if direction == READ { &mut self.readers } else { &mut self.writers }
    }
}

/// The polls of one guest.
#[derive(Debug, Default)]
pub struct Poller {
    epoll: Option<OwnedFd>,
    slots: Vec<Slot>,
    /// Slots that may be used anew.
    free: Vec<usize>,
    by_guest: FxHashMap<u32, usize>,
    by_native: FxHashMap<RawFd, usize>,
    call: u64,
    /// The slot of each subscription of the last call: a guest's list hardly changes.
    before: Vec<usize>,
    /// For each subscription, another one of the same descriptor and direction.
    others: Vec<usize>,
    /// The times that are waited for in this call, with their subscriptions.
    times: Vec<(usize, Instant)>,
    /// The slots that are wanted in this call and not armed for it, to read and to write.
    new_readers: Vec<usize>,
    new_writers: Vec<usize>,
    writers: Vec<libc::pollfd>,
}

impl Poller {
    /// Waits until something that was subscribed to is there, and gives it.
    ///
    /// `native` is WasmEdge's table of descriptors.
    ///
    /// # Errors
    /// If there is no subscription, or the kernel has no room for an epoll.
    pub fn poll(
        &mut self,
        subscriptions: &[Subscription],
        native: impl Fn(u32) -> Option<RawFd>,
        events: &mut Vec<Event>,
    ) -> Result<(), Errno> {
        events.clear();
        if subscriptions.is_empty() {
            return Err(errno::INVAL);
        }
        self.take(subscriptions, native, events);
        self.arm_readers(events)?;
        self.ask_writers(events)?;
        let until = self.times.iter().map(|(_, at)| *at).min();
        loop {
            let patience = if events.is_empty() { until.map(left) } else { Some(Duration::ZERO) };
            self.wait(patience, events)?;
            let now = Instant::now();
            let due = self.times.iter().filter(|(_, at)| *at <= now);
            events.extend(due.map(|(subscription, _)| good(*subscription)));
            if !events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Forgets a descriptor that is about to be closed, or to become another one.
    pub fn forget(&mut self, guest: u32) {
        let Some(index) = self.by_guest.remove(&guest) else { return };
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.armed != 0
            && let Some(epoll) = &self.epoll
        {
            // Nothing can be wrong with it but that it is gone already.
            let _ = control(epoll, libc::EPOLL_CTL_DEL, slot.native, 0, index);
        }
        self.by_native.remove(&slot.native);
        (slot.native, slot.armed, slot.call) = (GONE, 0, 0);
        self.free.push(index);
    }

    /// Notes what is subscribed to; what cannot be is answered.
    fn take(&mut self, subscriptions: &[Subscription], native: impl Fn(u32) -> Option<RawFd>, events: &mut Vec<Event>) {
        self.call += 1;
        self.times.clear();
        self.new_readers.clear();
        self.new_writers.clear();
        self.others.clear();
        self.others.resize(subscriptions.len(), NONE);
        self.before.resize(subscriptions.len(), NONE);
        for (index, subscription) in subscriptions.iter().enumerate() {
            let (guest, direction) = match subscription.kind {
                Kind::Read(guest) => (guest, READ),
                Kind::Write(guest) => (guest, WRITE),
                Kind::Clock(clock) => {
                    match clock.deadline() {
                        Some(at) => self.times.push((index, at)),
                        None => events.push(bad(index, errno::INVAL)),
                    }
                    continue;
                }
                Kind::Unknown(_) => {
                    events.push(bad(index, errno::INVAL));
                    continue;
                }
            };
            match self.slot_of(index, guest, &native) {
                Some(slot) => self.want(slot, direction, index, events),
                None => events.push(bad(index, errno::BADF)),
            }
        }
    }

    /// The slot of a guest's descriptor, made if need be; `None` if there is no such descriptor.
    fn slot_of(&mut self, index: usize, guest: u32, native: impl Fn(u32) -> Option<RawFd>) -> Option<usize> {
        let before = self.before.get(index).copied().unwrap_or(NONE);
        if self.slots.get(before).is_some_and(|slot| slot.guest == guest && slot.native != GONE) {
            return Some(before);
        }
        let slot = match self.by_guest.get(&guest) {
            Some(slot) => *slot,
            None => self.new_slot(guest, native(guest)?),
        };
        if let Some(place) = self.before.get_mut(index) {
            *place = slot;
        }
        Some(slot)
    }

    fn new_slot(&mut self, guest: u32, native: RawFd) -> usize {
        // Another descriptor of the guest's had that native one: it was closed without our knowing.
        if let Some(other) = self.by_native.get(&native).and_then(|slot| self.slots.get(*slot)).map(|slot| slot.guest) {
            self.forget(other);
        }
        let slot = Slot { guest, native, armed: 0, plain: false, call: 0, wanted: 0, readers: NONE, writers: NONE };
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.by_guest.insert(guest, index);
        self.by_native.insert(native, index);
        index
    }

    fn want(&mut self, slot: usize, direction: u32, subscription: usize, events: &mut Vec<Event>) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        if state.plain {
            events.push(good(subscription));
            return;
        }
        if state.call != self.call {
            (state.call, state.wanted, state.readers, state.writers) = (self.call, 0, NONE, NONE);
        }
        if direction & !state.wanted & !state.armed != 0 {
            let new = if direction == READ { &mut self.new_readers } else { &mut self.new_writers };
            new.push(slot);
        }
        state.wanted |= direction;
        let last = state.last(direction);
        if let Some(other) = self.others.get_mut(subscription) {
            *other = *last;
        }
        *last = subscription;
    }

    /// Tells the kernel of everybody who wants to read and whom it does not know yet.
    fn arm_readers(&mut self, events: &mut Vec<Event>) -> Result<(), Errno> {
        let new = std::mem::take(&mut self.new_readers);
        for index in &new {
            if self.unarmed(*index, READ).is_some() {
                self.arm(*index, READ, events)?;
            }
        }
        self.new_readers = new;
        Ok(())
    }

    /// Asks for everybody who wants to write whether they can; arms those who cannot, if nobody can.
    fn ask_writers(&mut self, events: &mut Vec<Event>) -> Result<(), Errno> {
        self.writers.clear();
        let mut asked = Vec::new();
        for index in &self.new_writers {
            let Some(slot) = self.unarmed(*index, WRITE) else { continue };
            self.writers.push(libc::pollfd { fd: slot.native, events: libc::POLLOUT, revents: 0 });
            asked.push(*index);
        }
        if asked.is_empty() {
            return Ok(());
        }
        // SAFETY: the pointer leads to that many of them. It does not wait, so that nothing interrupts it.
        unsafe { libc::poll(self.writers.as_mut_ptr(), self.writers.len() as libc::nfds_t, 0) };
        let mut slow = Vec::new();
        for (at, index) in asked.into_iter().enumerate() {
            let told = self.writers.get(at).map_or(0, |writer| writer.revents);
            match told {
                0 => slow.push(index),
                _ if told & libc::POLLNVAL != 0 => self.lose(index, errno::BADF, events),
                _ => self.tell(index, WRITE, told & (libc::POLLHUP | libc::POLLERR) != 0, events),
            }
        }
        if events.is_empty() {
            slow.into_iter().try_for_each(|index| self.arm(index, WRITE, events))?;
        }
        Ok(())
    }

    /// A slot, if it is still to be armed for a direction.
    fn unarmed(&self, index: usize, direction: u32) -> Option<&Slot> {
        let slot = self.slots.get(index)?;
        // Not one that turned out to be nothing to wait for, or whose descriptor became another's.
        let waits = slot.call == self.call && !slot.plain && slot.wanted & direction & !slot.armed != 0;
        waits.then_some(slot)
    }

    /// Adds a direction to what the kernel holds of a slot.
    fn arm(&mut self, index: usize, direction: u32, events: &mut Vec<Event>) -> Result<(), Errno> {
        let epoll = match &self.epoll {
            Some(epoll) => epoll,
            None => self.epoll.insert(new_epoll()?),
        };
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        let armed = slot.armed | direction;
        let operation = if slot.armed == 0 { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
        match control(epoll, operation, slot.native, armed, index) {
            Ok(()) => slot.armed = armed,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                slot.plain = true;
                self.tell(index, READ, false, events);
                self.tell(index, WRITE, false, events);
            }
            Err(error) => self.lose(index, errno::of(&error), events),
        }
        Ok(())
    }

    /// Tells all who wait for a descriptor what is wrong with it, and forgets it.
    fn lose(&mut self, index: usize, error: Errno, events: &mut Vec<Event>) {
        let Some(slot) = self.slots.get(index) else { return };
        for mut subscription in [slot.readers, slot.writers] {
            while subscription != NONE {
                events.push(bad(subscription, error));
                subscription = self.others.get(subscription).copied().unwrap_or(NONE);
            }
        }
        let guest = slot.guest;
        self.forget(guest);
    }

    /// Tells all who wait for a descriptor in a direction that it is there, once a call.
    fn tell(&mut self, index: usize, direction: u32, hung_up: bool, events: &mut Vec<Event>) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.wanted & direction != 0) else { return };
        slot.wanted &= !direction;
        let mut subscription = *slot.last(direction);
        while subscription != NONE {
            events.push(Event { hung_up, ..good(subscription) });
            subscription = self.others.get(subscription).copied().unwrap_or(NONE);
        }
    }

    /// Waits for the kernel's events, or for the time (`None`: however long).
    fn wait(&mut self, patience: Option<Duration>, events: &mut Vec<Event>) -> Result<(), Errno> {
        let mut fired = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let epoll = match &self.epoll {
            Some(epoll) => epoll,
            None => self.epoll.insert(new_epoll()?),
        };
        let count = match sleep_on(epoll, &mut fired, patience) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(errno::of(&error)),
        };
        for event in fired.iter().take(count) {
            let (bits, index) = (event.events, event.u64 as usize);
            self.take_event(index, bits, events);
        }
        Ok(())
    }

    fn take_event(&mut self, index: usize, bits: u32, events: &mut Vec<Event>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let wanted = if slot.call == self.call { slot.wanted } else { 0 };
        let told = bits & (READ | WRITE) | if bits & BROKEN != 0 { READ | WRITE } else { 0 };
        let for_nothing = if bits & BROKEN != 0 && wanted == 0 { slot.armed } else { bits & slot.armed & !wanted };
        if for_nothing != 0 {
            let armed = slot.armed & !for_nothing;
            let operation = if armed == 0 { libc::EPOLL_CTL_DEL } else { libc::EPOLL_CTL_MOD };
            if let Some(epoll) = &self.epoll
                && control(epoll, operation, slot.native, armed, index).is_ok()
            {
                slot.armed = armed;
            }
        }
        for direction in [READ, WRITE] {
            if told & wanted & direction != 0 {
                self.tell(index, direction, bits & BROKEN != 0, events);
            }
        }
    }
}

fn good(subscription: usize) -> Event {
    Event { subscription, error: errno::SUCCESS, hung_up: false }
}

fn bad(subscription: usize, error: Errno) -> Event {
    Event { subscription, error, hung_up: false }
}

/// What is left until then.
fn left(until: Instant) -> Duration {
    let left = until.saturating_duration_since(Instant::now());
    if left < SLEEP_MIN { Duration::ZERO } else { left }
}

fn new_epoll() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers; the result is checked.
    match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
        -1 => Err(errno::of(&io::Error::last_os_error())),
        // SAFETY: a new descriptor, which nobody else owns.
        raw => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
    }
}

fn control(epoll: &OwnedFd, operation: i32, native: RawFd, armed: u32, index: usize) -> io::Result<()> {
    let mut event = libc::epoll_event { events: armed, u64: index as u64 };
    // SAFETY: the pointer leads to an event, which the kernel copies.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, native, &raw mut event) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// epoll_pwait2(2): to the nanosecond, as a guest's runtime yields by waiting for ten of them.
fn sleep_on(epoll: &OwnedFd, fired: &mut [libc::epoll_event], patience: Option<Duration>) -> io::Result<usize> {
    let time = patience.map(|time| libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (epoll, most) = (epoll.as_raw_fd(), fired.len());
    // SAFETY: the pointers lead to that many events and to a timespec, or nowhere.
    let count =
        unsafe { libc::syscall(libc::SYS_epoll_pwait2, epoll, fired.as_mut_ptr(), most, time, ptr::null::<u8>(), 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// WasmEdge's table: guests' descriptors and native ones.
    #[derive(Default)]
    struct Table(HashMap<u32, UnixStream>);

    impl Table {
        fn native(&self, guest: u32) -> Option<RawFd> {
            self.0.get(&guest).map(AsRawFd::as_raw_fd)
        }

        /// A connection whose guest's end is in the table; the other end.
        fn connect(&mut self, guest: u32) -> UnixStream {
            let (here, there) = UnixStream::pair().unwrap();
            here.set_nonblocking(true).unwrap();
            there.set_nonblocking(true).unwrap();
            self.0.insert(guest, here);
            there
        }

        fn stream(&mut self, guest: u32) -> &mut UnixStream {
            self.0.get_mut(&guest).unwrap()
        }
    }

    const NOW: Kind = Kind::Clock(Clock::In(0));

    /// What a poll says: kinds and errors, and how many events.
    fn poll(poller: &mut Poller, table: &Table, kinds: &[Kind]) -> Vec<(Kind, Errno)> {
        let subscriptions: Vec<_> = kinds.iter().map(|kind| Subscription { userdata: 0, kind: *kind }).collect();
        let mut events = Vec::new();
        poller.poll(&subscriptions, |guest| table.native(guest), &mut events).unwrap();
        events.iter().map(|event| (kinds[event.subscription], event.error)).collect()
    }

    /// The same without the times.
    fn ready(poller: &mut Poller, table: &Table, kinds: &[Kind]) -> Vec<Kind> {
        let events = poll(poller, table, &[kinds, &[NOW]].concat());
        events
            .into_iter()
            .filter(|(kind, error)| *kind != NOW && *error == errno::SUCCESS)
            .map(|(kind, _)| kind)
            .collect()
    }

    /// Asserts that what the slots say is armed is what the kernel holds: it lists it in /proc (proc(5)).
    fn assert_armed(poller: &Poller) {
        let Some(epoll) = &poller.epoll else { return };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.as_raw_fd())).unwrap();
        let mut held = HashMap::new();
        for line in info.lines().filter(|line| line.starts_with("tfd:")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (native, armed) = (words[1].parse().unwrap(), u32::from_str_radix(words[3], 16).unwrap());
            held.insert(native, armed & (READ | WRITE));
        }
        let live = poller.slots.iter().filter(|slot| slot.armed != 0);
        let said: HashMap<RawFd, u32> = live.map(|slot| (slot.native, slot.armed)).collect();
        assert_eq!(said, held);
        let natives = poller.slots.iter().filter(|slot| slot.native != GONE).count();
        assert_eq!((natives, natives), (poller.by_guest.len(), poller.by_native.len()));
    }

    #[test]
    fn only_what_is_there_is_told_and_only_differences_reach_the_kernel() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let mut there = table.connect(7);
        let kinds = [Kind::Read(7), Kind::Write(7)];
        assert_eq!(ready(&mut poller, &table, &kinds), [Kind::Write(7)]);
        there.write_all(b"x").unwrap();
        for _ in 0..3 {
            assert_eq!(ready(&mut poller, &table, &[Kind::Read(7)]), [Kind::Read(7)], "as long as it is not read");
        }
        assert_armed(&poller);
        table.stream(7).read_exact(&mut [0]).unwrap();
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(7)]), []);
    }

    #[test]
    fn a_slow_reader_is_armed_until_it_can_be_written_to_and_then_no_more() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let mut there = table.connect(1);
        while table.stream(1).write(&[0; 65536]).is_ok() {}
        assert_eq!(ready(&mut poller, &table, &[Kind::Write(1)]), []);
        assert_eq!(poller.slots[0].armed, WRITE);
        let mut buffer = vec![0; 1 << 20];
        while there.read(&mut buffer).is_ok() {}
        assert_eq!(ready(&mut poller, &table, &[Kind::Write(1)]), [Kind::Write(1)]);
        // Nobody asks any more: it fires once for nothing, and is quiet.
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(1)]), []);
        assert_eq!(poller.slots[0].armed, READ);
        assert_armed(&poller);
    }

    #[test]
    fn what_hung_up_and_is_not_asked_for_does_not_keep_the_guest_awake() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let there = table.connect(1);
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(1)]), []);
        drop(there);
        let start = Instant::now();
        let nap = Kind::Clock(Clock::In(20_000_000));
        assert_eq!(poll(&mut poller, &table, &[nap]), [(nap, errno::SUCCESS)]);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(poller.slots[0].armed, 0);
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(1)]), [Kind::Read(1)]);
    }

    #[test]
    fn what_is_wrong_with_one_is_told_for_that_one() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let mut there = table.connect(1);
        there.write_all(b"x").unwrap();
        let kinds = [Kind::Read(1), Kind::Read(99), Kind::Unknown(9), Kind::Clock(Clock::Unknown), Kind::Write(99)];
        let mut events = poll(&mut poller, &table, &kinds);
        events.sort_by_key(|(_, error)| *error);
        assert_eq!(
            events,
            [
                (Kind::Read(1), errno::SUCCESS),
                (Kind::Read(99), errno::BADF),
                (Kind::Write(99), errno::BADF),
                (Kind::Unknown(9), errno::INVAL),
                (Kind::Clock(Clock::Unknown), errno::INVAL),
            ]
        );
        assert_eq!(Poller::default().poll(&[], |_| None, &mut Vec::new()), Err(errno::INVAL));
    }

    #[test]
    fn a_plain_file_is_always_ready_and_told_once() {
        let file = File::open("/proc/self/exe").unwrap();
        let mut poller = Poller::default();
        let kinds = [Kind::Read(3), Kind::Write(3)].map(|kind| Subscription { userdata: 0, kind });
        for _ in 0..2 {
            let mut events = Vec::new();
            poller.poll(&kinds, |_| Some(file.as_raw_fd()), &mut events).unwrap();
            let mut told: Vec<usize> = events.iter().map(|event| event.subscription).collect();
            told.sort_unstable();
            assert_eq!(told, [0, 1]);
        }
    }

    #[test]
    fn whoever_subscribed_twice_is_told_twice() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let mut there = table.connect(1);
        there.write_all(b"x").unwrap();
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(1), Kind::Read(1), Kind::Write(1)]).len(), 3);
    }

    #[test]
    fn a_native_descriptor_that_came_to_another_guests_is_not_mistaken() {
        let (mut table, mut poller) = (Table::default(), Poller::default());
        let _first = table.connect(1);
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(1)]), []);
        let native = table.native(1).unwrap();
        // Closed without our knowing, as by a guest's death; the number is used anew at once.
        table.0.remove(&1);
        let mut second = table.connect(2);
        assert_eq!(table.native(2), Some(native), "the lowest number is taken first");
        second.write_all(b"x").unwrap();
        assert_eq!(ready(&mut poller, &table, &[Kind::Read(2)]), [Kind::Read(2)]);
        assert_armed(&poller);
    }

    #[test]
    fn times_are_kept_to_the_millisecond_and_a_yield_costs_none() {
        let mut poller = Poller::default();
        let table = Table::default();
        let realtime = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let clocks: [&dyn Fn() -> Clock; 3] =
            [&|| Clock::In(30_000_000), &|| Clock::AtMonotonic(monotonic() + 30_000_000), &|| {
                Clock::AtRealtime(realtime() + 30_000_000)
            }];
        for clock in clocks {
            let start = Instant::now();
            let kind = Kind::Clock(clock());
            assert_eq!(poll(&mut poller, &table, &[kind]), [(kind, errno::SUCCESS)]);
            assert!(start.elapsed() >= Duration::from_millis(29), "{kind:?}: {:?}", start.elapsed());
        }
        for past in [Clock::In(10), Clock::AtMonotonic(1), Clock::AtRealtime(1)] {
            assert_eq!(poll(&mut poller, &table, &[Kind::Clock(past)]).len(), 1);
        }
    }

    extern "C" fn nothing(_: i32) {}

    #[test]
    fn signals_neither_end_a_poll_nor_shorten_it() {
        use nix::sys::pthread::{pthread_kill, pthread_self};
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

        // Not restarted: the kernel interrupts the wait, as it does for a process that was stopped.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action).unwrap() };
        let (mut table, mut poller, waiting) = (Table::default(), Poller::default(), pthread_self());
        let _there = table.connect(1);
        let (start, nap) = (Instant::now(), Kind::Clock(Clock::In(60_000_000)));
        let told = std::thread::scope(|scope| {
            let ended = std::sync::atomic::AtomicBool::new(false);
            let ended = &*Box::leak(Box::new(ended));
            scope.spawn(move || {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = pthread_kill(waiting, Signal::SIGUSR1);
                }
            });
            let told = poll(&mut poller, &table, &[Kind::Read(1), nap]);
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            told
        });
        assert_eq!(told, [(nap, errno::SUCCESS)]);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    /// A small generator of its own, so that a failure can be repeated (Marsaglia's xorshift64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// What poll(2) says of the same descriptors.
    fn oracle(table: &Table, kinds: &[Kind]) -> Vec<Kind> {
        let told = |kind: &Kind| {
            let (guest, wanted) = match kind {
                Kind::Read(guest) => (*guest, libc::POLLIN),
                Kind::Write(guest) => (*guest, libc::POLLOUT),
                _ => return false,
            };
            let mut asked = libc::pollfd { fd: table.native(guest).unwrap(), events: wanted, revents: 0 };
            // SAFETY: one of them.
            unsafe { libc::poll(&raw mut asked, 1, 0) };
            asked.revents != 0
        };
        kinds.iter().copied().filter(told).collect()
    }

    #[test]
    fn it_says_what_poll_says_whatever_happens_to_the_descriptors() {
        for seed in 1..=20 {
            let (mut random, mut table, mut poller) = (Random(seed * 0x9e37_79b9), Table::default(), Poller::default());
            let mut peers: HashMap<u32, UnixStream> = HashMap::new();
            for step in 0..400 {
                let guest = random.below(12) as u32;
                match random.below(9) {
                    0..=1 if !table.0.contains_key(&guest) => drop(peers.insert(guest, table.connect(guest))),
                    2 => {
                        // As fd_close does it: we are told first.
                        poller.forget(guest);
                        table.0.remove(&guest);
                        peers.remove(&guest);
                    }
                    3 => drop(peers.get_mut(&guest).map(|peer| peer.write(&[0; 100]))),
                    4 => drop(table.0.get_mut(&guest).map(|here| here.read(&mut [0; 1000]))),
                    5 => drop(table.0.get_mut(&guest).map(|here| here.write(&vec![0; 300_000]))),
                    6 => drop(peers.get_mut(&guest).map(|peer| peer.read(&mut vec![0; 400_000]))),
                    7 => drop(peers.get(&guest).map(|peer| peer.shutdown(Shutdown::Write))),
                    _ => drop(peers.remove(&guest)),
                }
                let mut kinds: Vec<Kind> = Vec::new();
                for guest in table.0.keys().copied() {
                    let both = [Kind::Read(guest), Kind::Write(guest)];
                    kinds.extend(both.into_iter().filter(|_| random.below(3) != 0));
                }
                let mut expected = oracle(&table, &kinds);
                let mut told = ready(&mut poller, &table, &kinds);
                let order = |kind: &Kind| format!("{kind:?}");
                expected.sort_by_key(order);
                told.sort_by_key(order);
                assert_eq!(told, expected, "seed {seed}, step {step}");
                assert_armed(&poller);
            }
        }
    }
}
