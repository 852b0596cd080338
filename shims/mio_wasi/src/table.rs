//! Who waits for what.
//!
//! tokio wants to hear of a change: once told that a source is ready it does not ask again until an
//! operation found that it no longer is. `poll_oneoff` speaks of states: what is asked for is answered
//! at once, as long as it holds. So a source is asked for only while its owner waits for the change.
//! Each of its two directions is always in one of these states:
//!
//! ```text
//!                              the host answers
//!                  ┌─────────┐ ─────────────────────────────────────────────────► ┌──────┐
//!  registered ───► │ waiting │                                                    │ told │
//!                  └─────────┘ ◄───────────────────────────────────────────────── └──────┘
//!                    in the list   an operation would block, or moved less than      not in the list
//!                                  it could have: tokio waits after either
//! ```
//!
//! - A socket that nobody reads from is told once, and so is one that its peer has closed; a full one
//!   stays in the list until there is room.
//! - After an operation that moved all it could, or that failed for good, tokio tries again without
//!   being told, so there is nothing to wait for.
//! - Being told once too often is harmless: the next operation would block, and the direction waits.
//!
//! Reading starts out as waiting. How writing starts is a matter of [`Writing`]: a listener never
//! writes, and an accepted socket has room, which needs no host to be known.

use std::io;

use crate::abi::{Direction, Subscription};
use crate::events::{Event, Token};
use crate::interest::Interest;

/// How a source starts out where writing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Never: a listener.
    Never,
    /// At once: an accepted socket.
    Ready,
    /// When the host says so: a socket that is being connected, or that somebody else made.
    Unknown,
}

/// A source's place in the table. Its next owner has another generation, so that an answer to what was
/// asked for the former one is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    fn userdata(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves are what was put together")]
    fn of(userdata: u64) -> Self {
        Self { index: userdata as u32, generation: (userdata >> 32) as u32 }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not asked for.
    Unwanted,
    Told,
    /// Where in the list.
    Waiting(usize),
}

#[derive(Debug)]
struct Source {
    descriptor: u32,
    token: Token,
    read: State,
    write: State,
}

impl Source {
    fn state(&mut self, direction: Direction) -> &mut State {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    source: Option<Source>,
}

/// All sources, and the list of what to ask the host for. The list is kept from poll to poll.
#[derive(Debug, Default)]
pub(crate) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    list: Vec<Subscription>,
    /// Those that can be written to and whose owners do not know it yet.
    ready: Vec<Key>,
}

impl Table {
    /// Watches a source from now on. `None` if there are as many as can be told apart.
    pub(crate) fn add(&mut self, descriptor: u32, token: Token, interest: Interest, writing: Writing) -> Option<Key> {
        let state = |wanted| if wanted { State::Told } else { State::Unwanted };
        let read = state(interest.is_readable());
        let write = state(interest.is_writable() && writing != Writing::Never);
        let key = self.settle(Source { descriptor, token, read, write })?;
        self.wait(key, Direction::Read);
        match writing {
            Writing::Ready if interest.is_writable() => self.ready.push(key),
            _ => self.wait(key, Direction::Write),
        }
        Some(key)
    }

    fn settle(&mut self, source: Source) -> Option<Key> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place::default());
                u32::try_from(self.places.len() - 1).ok()?
            }
        };
        let place = self.places.get_mut(index as usize)?;
        place.source = Some(source);
        Some(Key { index, generation: place.generation })
    }

    /// Forgets a source.
    pub(crate) fn remove(&mut self, key: Key) {
        if self.source(key).is_none() {
            return;
        }
        self.stop(key, Direction::Read);
        self.stop(key, Direction::Write);
        if let Some(place) = self.places.get_mut(key.index as usize) {
            place.source = None;
            place.generation = place.generation.wrapping_add(1);
            self.free.push(key.index);
        }
    }

    fn source(&mut self, key: Key) -> Option<&mut Source> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.source.as_mut() } else { None }
    }

    /// The owner waits: has the host asked.
    pub(crate) fn wait(&mut self, key: Key, direction: Direction) {
        let position = self.list.len();
        let Some(source) = self.source(key) else { return };
        if *source.state(direction) != State::Told {
            return;
        }
        *source.state(direction) = State::Waiting(position);
        let subscription = Subscription::descriptor(key.userdata(), direction, source.descriptor);
        self.list.push(subscription);
    }

    /// Takes what the host answered to from the list. `None` if nobody waits for that any more.
    pub(crate) fn tell(&mut self, userdata: u64, direction: Direction) -> Option<Token> {
        let key = Key::of(userdata);
        self.stop(key, direction).then(|| self.source(key).map(|source| source.token)).flatten()
    }

    /// Whether there was a wait.
    fn stop(&mut self, key: Key, direction: Direction) -> bool {
        let Some(source) = self.source(key) else { return false };
        let State::Waiting(position) = *source.state(direction) else { return false };
        *source.state(direction) = State::Told;
        self.list.swap_remove(position);
        self.moved_to(position);
        true
    }

    fn moved_to(&mut self, position: usize) {
        let Some(&Subscription { userdata, kind, .. }) = self.list.get(position) else { return };
        if let (Some(direction), Some(source)) = (Direction::of(kind), self.source(Key::of(userdata))) {
            *source.state(direction) = State::Waiting(position);
        }
    }

    /// Tells of those that can be written to from the start. Whether there were any.
    pub(crate) fn tell_ready(&mut self, events: &mut Vec<Event>) -> bool {
        let before = events.len();
        let mut ready = std::mem::take(&mut self.ready);
        let tokens = ready.drain(..).filter_map(|key| self.source(key).map(|source| source.token));
        events.extend(tokens.map(Event::writable));
        self.ready = ready;
        events.len() > before
    }

    /// What to ask the host for, with a timeout if there is one.
    pub(crate) fn with_clock<R>(&mut self, clock: Option<Subscription>, ask: impl FnOnce(&[Subscription]) -> R) -> R {
        self.list.extend(clock);
        let answer = ask(&self.list);
        if clock.is_some() {
            self.list.pop();
        }
        answer
    }

    #[cfg(test)]
    pub(crate) fn list(&self) -> Vec<(u64, u8)> {
        let mut list: Vec<_> = self.list.iter().map(|one| (one.subject, one.kind)).collect();
        list.sort_unstable();
        list
    }
}

/// Whether tokio waits after a read or write of up to so many bytes that ended like this. At the end of a
/// stream it does not.
pub(crate) fn moved_less(result: &io::Result<usize>, length: usize) -> bool {
    match result {
        Ok(moved) => *moved > 0 && *moved < length,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}
