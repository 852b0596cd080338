//! One poll, made of as many of the host's as it takes.
//!
//! WasmEdge keeps what it was asked for until a poll has ended well. One that a signal interrupted ends
//! with "interrupted" for every descriptor, and the next says of each that it is there already, unless
//! it is ready; the one after that is clean. Both are answered by asking again. What WasmEdge has kept
//! are places in the list, so it is asked for the very same list, with less time.

use std::io;
use std::time::Duration;

use crate::abi::{Answer, CLOCK, Direction, EXIST, Host, INTR, INVAL, Subscription};
use crate::events::Event;
use crate::table::Table;

/// Of the host, for one poll of ours. Signals that come faster than that are not worth serving under.
const ATTEMPTS: usize = 200;
/// Interrupted attempts that are followed by the next at once. One signal makes two.
const AT_ONCE: usize = 20;
/// Between attempts that come to nothing.
const PAUSE: Duration = Duration::from_millis(1);

/// What came of one poll of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Events, or the time is over.
    Done,
    Interrupted,
    /// It returned, and said nothing: a socket that waits for room was half closed by its peer. WasmEdge
    /// has no event for that, and goes on not having one until there is room.
    Nothing,
}

/// Asks a host which sources are ready.
#[derive(Debug)]
pub(crate) struct Selector<H> {
    host: H,
    answers: Vec<Answer>,
    /// Whether the last poll did not ask the host.
    unasked: bool,
}

impl<H: Host> Selector<H> {
    pub(crate) fn new(host: H) -> Self {
        Self { host, answers: Vec::new(), unasked: false }
    }

    /// Waits for events, at most for so long. There may be none.
    ///
    /// # Errors
    /// What the host says about the poll as a whole, unless asking again helps.
    pub(crate) fn select(
        &mut self,
        table: &mut Table,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        events.clear();
        let told = table.tell_ready(events);
        // What is known already costs no poll; but not twice in a row, as others wait for the host.
        self.unasked = told && !self.unasked;
        if self.unasked {
            return Ok(());
        }
        self.ask(table, events, if told { Some(Duration::ZERO) } else { timeout })
    }

    fn ask(&mut self, table: &mut Table, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let deadline = timeout.map(|timeout| self.host.now().saturating_add(timeout));
        let mut left = timeout;
        for attempt in 1..=ATTEMPTS {
            match self.attempt(table, events, left)? {
                Outcome::Done => break,
                Outcome::Interrupted if attempt <= AT_ONCE => {}
                Outcome::Interrupted | Outcome::Nothing => self.pause(),
            }
            // When the time is over the host is still asked: an interrupted poll must be followed by the same.
            left = deadline.map(|deadline| deadline.saturating_sub(self.host.now()));
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        table: &mut Table,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<Outcome> {
        let polled = table.with_clock(timeout.map(Subscription::clock), |list| {
            self.answers.resize(self.answers.len().max(list.len()), Answer::default());
            let polled = self.host.poll(list, &mut self.answers);
            // There is nothing to wait for, and the host says so.
            if list.is_empty() && polled == Err(INVAL) { Ok(0) } else { polled }
        });
        match polled {
            Ok(count) => Ok(report(table, events, self.answers.iter().take(count))),
            Err(INTR | EXIST) => Ok(Outcome::Interrupted),
            Err(error) => Err(io::Error::from_raw_os_error(error.into())),
        }
    }

    fn pause(&mut self) {
        self.answers.resize(self.answers.len().max(1), Answer::default());
        // If it fails there was no pause, and the attempts are counted all the same.
        let _ = self.host.poll(&[Subscription::clock(PAUSE)], &mut self.answers);
    }
}

fn report<'a>(table: &mut Table, events: &mut Vec<Event>, answers: impl Iterator<Item = &'a Answer>) -> Outcome {
    let (mut cut_short, mut unclean, mut expired) = (false, false, false);
    for answer in answers {
        match answer.error {
            INTR => cut_short = true,
            EXIST => unclean = true,
            _ if answer.userdata == CLOCK => expired = true,
            _ => events.extend(told(table, answer)),
        }
    }
    if !cut_short && (expired || !events.is_empty()) {
        Outcome::Done
    } else if cut_short || unclean {
        Outcome::Interrupted
    } else {
        Outcome::Nothing
    }
}

fn told(table: &mut Table, answer: &Answer) -> Option<Event> {
    let direction = Direction::of(answer.kind)?;
    let token = table.tell(answer.userdata, direction)?;
    Some(Event::answered(token, direction, answer))
}
