//! A slot with the workers in it: one that serves, and those that come and go.

use std::net::{SocketAddr, TcpListener};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::generation::Tag;
use super::slot::{self, Slot};
use crate::metrics::{Account, Ledger};

/// A worker that dies sooner than this after its start was started in vain.
pub const VAIN: Duration = Duration::from_secs(1);

/// So many starts in vain in a row are a crash loop.
pub const VAIN_MAX: u32 = 5;

/// Pause before the second start in a row; doubled for each further one. The first is made at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was ordered, and does not serve yet.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what is in flight.
    Draining,
    /// It died, and the next one starts after a pause.
    Waiting,
}

impl State {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Waiting => "waiting",
        }
    }
}

/// A process that serves a slot.
#[derive(Debug)]
pub struct Worker {
    /// Tells it from others of the same number.
    pub life: u64,
    /// What it is made of.
    pub tag: Tag,
    /// Its process, once it reported.
    pub pid: Option<Pid>,
    /// When the template was told to make it.
    pub ordered: Option<Instant>,
    /// Where it is asked.
    pub control: SocketAddr,
    /// Kept until it ends: requests wait here.
    pub listener: TcpListener,
    /// What it is doing.
    pub state: State,
    /// When it is ended if it has not ended by then.
    pub kill_at: Option<Instant>,
    /// When it is ended instead, once it took the order to drain; `None` after that.
    pub drained_by: Option<Instant>,
    /// Whether we have killed it.
    pub killed: bool,
    started: SystemTime,
    since: Instant,
    /// What it counted stays when it goes.
    _account: Account,
}

impl Worker {
    /// One that is yet to be made.
    ///
    /// # Errors
    /// If there is no socket for its control listener.
    pub fn new(life: u64, tag: Tag, ledger: &Ledger) -> Result<Self> {
        let (listener, control) = slot::control().context("cannot make a control listener")?;
        Ok(Self {
            life,
            tag,
            pid: None,
            ordered: None,
            control,
            listener,
            state: State::Starting,
            kill_at: None,
            drained_by: None,
            killed: false,
            started: SystemTime::now(),
            since: Instant::now(),
            _account: ledger.open(life),
        })
    }

    fn is_unreported(&self, generation: u64) -> bool {
        self.pid.is_none() && self.tag.number == generation
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A worker as the admin address shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// Its number.
    pub worker: usize,
    /// Its process, once it reported.
    pub pid: Option<i32>,
    /// What it is doing.
    pub state: State,
    /// RFC 3339, UTC.
    pub started: Option<String>,
    /// How often it was started again because it died.
    pub restarts: u64,
    /// Those with the same number have the same code and settings.
    pub generation: u64,
    /// The first digits of the digest of its module's file.
    pub code: String,
    /// Its life and where it is asked, if there is one.
    #[serde(skip)]
    pub process: Option<(u64, SocketAddr)>,
}

/// A slot and its workers.
#[derive(Debug)]
pub struct Seat {
    /// The slot.
    pub slot: Slot,
    /// The worker that serves it, or is about to.
    pub current: Option<Worker>,
    /// The one that will take its place once it is ready.
    pub next: Option<Worker>,
    /// Those that finish what is in flight.
    pub leaving: Vec<Worker>,
    /// How often a dead worker was replaced.
    pub restarts: u64,
    /// When the next worker starts after a pause.
    pub due: Option<Instant>,
    /// Starts in vain, in a row.
    pub vain: u32,
    /// Set when all workers stop and none of this seat's was told to take what waits in the slot: until when one
    /// can be made for that.
    pub queue_by: Option<Instant>,
    /// Who asked for a replacement.
    pub asked: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Seat {
    /// A slot without workers.
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            current: None,
            next: None,
            leaving: Vec::new(),
            restarts: 0,
            due: None,
            vain: 0,
            queue_by: None,
            asked: Vec::new(),
        }
    }

    /// Every worker that has or will have a process.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.current.iter().chain(&self.next).chain(&self.leaving)
    }

    /// The same, to be changed.
    pub fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.current.iter_mut().chain(&mut self.next).chain(&mut self.leaving)
    }

    /// One of a generation that is yet to be ordered, or was ordered and has not reported; there is one at most.
    pub fn unreported(&mut self, generation: u64) -> Option<&mut Worker> {
        self.workers_mut().find(|worker| worker.is_unreported(generation))
    }

    /// The slot, and the worker for it that the generation's template was not told of yet; there is one at most.
    pub fn unordered(&mut self, generation: u64) -> Option<(&Slot, &mut Worker)> {
        let mut workers = self.current.iter_mut().chain(&mut self.next).chain(&mut self.leaving);
        let worker = workers.find(|worker| worker.is_unreported(generation) && worker.ordered.is_none())?;
        Some((&self.slot, worker))
    }

    /// Gives up those of a generation that no process was made for.
    pub fn drop_unreported(&mut self, generation: u64) {
        self.current.take_if(|worker| worker.is_unreported(generation));
        self.next.take_if(|worker| worker.is_unreported(generation));
        self.leaving.retain(|worker| !worker.is_unreported(generation));
    }

    /// Whether those who leave accept nothing more.
    pub fn is_retired(&self) -> bool {
        self.leaving.iter().all(|worker| worker.drained_by.is_none())
    }

    /// Whether a worker of that generation waits to take the place of the one that serves, and is ready to.
    pub fn has_ready_next(&self, generation: u64) -> bool {
        self.next.as_ref().is_some_and(|next| next.tag.number == generation && next.state == State::Ready)
    }

    /// Takes a dead worker out.
    pub fn remove(&mut self, life: u64) -> Option<(Role, Worker)> {
        if let Some(worker) = self.current.take_if(|worker| worker.life == life) {
            return Some((Role::Current, worker));
        }
        if let Some(worker) = self.next.take_if(|worker| worker.life == life) {
            return Some((Role::Next, worker));
        }
        let index = self.leaving.iter().position(|worker| worker.life == life)?;
        Some((Role::Leaving, self.leaving.swap_remove(index)))
    }

    /// Notes that a worker died at that age, and says how long to wait before the next.
    pub fn pause_after(&mut self, age: Duration) -> Duration {
        self.vain = if age < VAIN { self.vain + 1 } else { 0 };
        match self.vain {
            0 | 1 => Duration::ZERO,
            n => PAUSE.saturating_mul(1 << (n - 2).min(16)).min(PAUSE_MAX),
        }
    }

    /// Tells those who asked for a replacement how it went.
    pub fn answer(&mut self, result: &Result<(), String>) {
        for asked in self.asked.drain(..) {
            // Whoever asked may have gone.
            let _ = asked.send(result.clone());
        }
    }

    /// Its workers as the admin address shows them; one that is waited for will be made of `serving`.
    pub fn shown(&self, number: usize, serving: &Tag) -> Vec<Shown> {
        let shown = |process: Option<&Worker>, state, tag: &Tag| Shown {
            worker: number,
            pid: process.and_then(|process| process.pid).map(Pid::as_raw),
            state,
            started: process.map(|process| humantime::format_rfc3339_millis(process.started).to_string()),
            restarts: self.restarts,
            generation: tag.number,
            code: tag.digest.short().to_owned(),
            process: process.map(|process| (process.life, process.control)),
        };
        let waiting = self.due.map(|_| shown(None, State::Waiting, serving));
        let workers = self.workers().map(|worker| shown(Some(worker), worker.state, &worker.tag));
        waiting.into_iter().chain(workers).collect()
    }
}

/// What a worker was for its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Current,
    Next,
    Leaving,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use aot_cache::Digest;

    use super::*;

    fn worker(life: u64, generation: u64) -> Worker {
        Worker::new(life, Tag { number: generation, digest: Digest::of(b"") }, &Ledger::default()).unwrap()
    }

    fn seat() -> Seat {
        Seat::new(Slot::bind_all((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap().remove(0))
    }

    #[test]
    fn the_first_restart_is_at_once_and_those_in_vain_wait_longer_and_longer() {
        let mut seat = seat();
        let pauses: Vec<u128> = (0..8).map(|_| seat.pause_after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(seat.pause_after(VAIN), Duration::ZERO);
        assert_eq!(seat.vain, 0);
    }

    #[test]
    fn a_worker_is_found_by_its_life_whatever_it_is() {
        let mut seat = seat();
        seat.current = Some(worker(1, 1));
        seat.next = Some(worker(2, 2));
        seat.leaving.push(worker(3, 1));
        assert_eq!(seat.workers().count(), 3);
        assert_eq!(seat.remove(3).unwrap().0, Role::Leaving);
        assert_eq!(seat.remove(2).unwrap().0, Role::Next);
        assert_eq!(seat.remove(1).unwrap().0, Role::Current);
        assert!(seat.remove(1).is_none());
    }

    #[test]
    fn those_of_a_generation_whose_template_is_gone_are_given_up() {
        let mut seat = seat();
        seat.current = Some(worker(1, 1));
        seat.next = Some(worker(2, 2));
        seat.leaving.push(worker(3, 2));
        seat.leaving[0].pid = Some(Pid::from_raw(1));
        assert_eq!(seat.unreported(2).unwrap().life, 2);
        seat.drop_unreported(2);
        assert!(seat.unreported(2).is_none() && seat.unordered(2).is_none());
        assert_eq!(seat.workers().map(|worker| worker.life).collect::<Vec<_>>(), [1, 3]);
    }
}
