//! A slot with the workers in it: one that serves, and those that come and go.

use std::net::{SocketAddr, TcpListener};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub fn new(life: u64, ledger: &Ledger) -> Result<Self> {
        let (listener, control) = slot::control().context("cannot make a control listener")?;
        let (started, since) = (SystemTime::now(), Instant::now());
        let state = State::Starting;
        let account = ledger.open(life);
        Ok(Self {
            life,
            pid: None,
            ordered: None,
            control,
            listener,
            state,
            kill_at: None,
            started,
            since,
            _account: account,
        })
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A worker as the admin address shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Its number.
    pub worker: usize,
    /// Its process, once it reported.
    pub pid: Option<i32>,
    /// What it is doing.
    #[serde(serialize_with = "by_name")]
    pub state: State,
    /// RFC 3339, UTC.
    pub started: Option<String>,
    /// How often it was started again because it died.
    pub restarts: u64,
    /// Its life and where it is asked, if there is one.
    #[serde(skip)]
    pub process: Option<(u64, SocketAddr)>,
}

fn by_name<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.name())
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

    /// One that is yet to be ordered, or was ordered and has not reported; there is one at most.
    pub fn unreported(&mut self) -> Option<&mut Worker> {
        self.workers_mut().find(|worker| worker.pid.is_none())
    }

    /// The slot, and the worker for it that the template was not told of yet; there is one at most.
    pub fn unordered(&mut self) -> Option<(&Slot, &mut Worker)> {
        let mut workers = self.current.iter_mut().chain(&mut self.next).chain(&mut self.leaving);
        let worker = workers.find(|worker| worker.pid.is_none() && worker.ordered.is_none())?;
        Some((&self.slot, worker))
    }

    /// Gives up those that no process was made for.
    pub fn drop_unreported(&mut self) {
        self.current.take_if(|worker| worker.pid.is_none());
        self.next.take_if(|worker| worker.pid.is_none());
        self.leaving.retain(|worker| worker.pid.is_some());
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

    /// Its workers as the admin address shows them.
    pub fn shown(&self, worker: usize) -> Vec<Shown> {
        let restarts = self.restarts;
        if self.due.is_some() {
            return vec![Shown { worker, pid: None, state: State::Waiting, started: None, restarts, process: None }];
        }
        let shown = self.workers().map(|process| Shown {
            worker,
            pid: process.pid.map(Pid::as_raw),
            state: process.state,
            started: Some(humantime::format_rfc3339_millis(process.started).to_string()),
            restarts,
            process: Some((process.life, process.control)),
        });
        shown.collect()
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

    use super::*;

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
        let worker = |life| Worker::new(life, &Ledger::default()).unwrap();
        seat.current = Some(worker(1));
        seat.next = Some(worker(2));
        seat.leaving.push(worker(3));
        assert_eq!(seat.workers().count(), 3);
        assert_eq!(seat.remove(3).unwrap().0, Role::Leaving);
        assert_eq!(seat.remove(2).unwrap().0, Role::Next);
        assert_eq!(seat.remove(1).unwrap().0, Role::Current);
        assert!(seat.remove(1).is_none());
    }
}
