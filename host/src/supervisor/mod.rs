//! The supervisor: owns the slots, has workers made for them, and sees to it that they live.
//!
//! One thread, one task, one event after another; whatever takes time is asked in a task of its own, whose
//! answer is an event again.

mod commands;
mod control;
mod generation;
mod lifecycle;
mod orders;
mod reload;
mod seat;
mod signals;
mod slot;
mod stop;
mod template;

use std::future::pending;
use std::sync::Arc;

use anyhow::{Result, bail};
use aot_cache::Digest;
use host::protocol::Report;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep_until};

pub use commands::{Command, Overview, Readiness};
pub use generation::Generation;
pub use seat::{Shown, State};
pub use signals::Signals;
pub use slot::{Slot, explain};

use crate::cpus::Share;
use crate::metrics::Ledger;
use crate::say;
use crate::source::Source;
use control::About;
use lifecycle::end;
use reload::{Made, Reload, Wish};
use seat::{Seat, Worker};

/// A template that does not answer an order within this is taken for dead.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a task found out about a worker.
#[derive(Debug)]
struct News {
    seat: usize,
    life: u64,
    kind: NewsKind,
}

#[derive(Debug)]
enum NewsKind {
    Serves(Result<About>),
    Draining(Result<()>),
}

/// How many workers there should be.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// As many as were asked for.
    Exactly(usize),
    /// As many as there are processors for, unless the module can have only one.
    Share(Share),
}

impl Wanted {
    /// At most.
    pub fn most(self) -> usize {
        match self {
            Self::Exactly(count) => count,
            Self::Share(share) => share.count,
        }
    }
}

/// What a supervisor is made with.
#[derive(Debug)]
pub struct Setup {
    pub source: Arc<Source>,
    pub wanted: Wanted,
    pub slots: Vec<Slot>,
    pub drain: Duration,
    /// What workers count, also those that are gone.
    pub ledger: Ledger,
    /// How long a new generation may take to load, and each of its workers to be ready.
    pub reload_timeout: Duration,
    /// Printed when all workers are ready, each in a line.
    pub greeting: Greeting,
}

/// What is printed when all workers are ready.
#[derive(Debug)]
pub struct Greeting {
    pub version: String,
    pub address: String,
    pub admin: String,
}

/// Where a supervisor hears from.
#[derive(Debug)]
pub struct Inputs {
    pub signals: Signals,
    pub commands: mpsc::Receiver<Command>,
    /// Each finished new content that is seen at the module's path.
    pub seen: mpsc::Receiver<Digest>,
}

/// Keeps the workers alive.
#[derive(Debug)]
pub struct Supervisor {
    setup: Setup,
    seats: Vec<Seat>,
    /// Slots whose workers are started once the first one told how many there can be.
    spare: Vec<Slot>,
    /// What workers are made of.
    serving: Generation,
    /// What is to take its place.
    reload: Option<Reload>,
    /// What is to follow that.
    wish: Option<Wish>,
    /// The number of the newest generation.
    generations: u64,
    /// What was seen last at the module's path.
    seen: Option<Digest>,
    /// The content of the last reload, if that failed.
    failed: Option<Digest>,
    about: Option<About>,
    greeted: bool,
    lives: u64,
    news: mpsc::UnboundedSender<News>,
    /// What it ends with, once it is stopping: nothing is started any more.
    stop: Option<Result<()>>,
}

impl Supervisor {
    /// Runs workers until a signal, and drains them then.
    ///
    /// # Errors
    /// If it could not go on: a crash loop, settings that the guest refuses.
    pub async fn run(mut setup: Setup, first: Generation, mut inputs: Inputs) -> Result<()> {
        let (news, mut heard) = mpsc::unbounded_channel();
        let mut spare = std::mem::take(&mut setup.slots);
        spare.reverse();
        let mut supervisor = Self {
            setup,
            seats: Vec::new(),
            spare,
            generations: first.tag.number,
            serving: first,
            reload: None,
            wish: None,
            seen: None,
            failed: None,
            about: None,
            greeted: false,
            lives: 0,
            news,
            stop: None,
        };
        supervisor.open_seat()?;
        let result = supervisor.follow(&mut inputs, &mut heard).await;
        supervisor.end_all();
        result
    }

    async fn follow(&mut self, inputs: &mut Inputs, heard: &mut mpsc::UnboundedReceiver<News>) -> Result<()> {
        while !self.is_over() {
            let due = self.next_due();
            let (serving, mut reload) = (&self.serving, self.reload.as_mut());
            let (coming, making) = reload.as_mut().map_or((None, None), |reload| reload.parts());
            let number = coming.map(|coming| coming.tag.number);
            tokio::select! {
                biased;
                signal = inputs.signals.next() => self.on_signal(signal)?,
                report = report(Some(serving)) => self.on_report(self.serving.tag.number, report)?,
                report = report(coming) => self.on_report(number.unwrap_or_default(), report)?,
                made = made(making) => self.on_made(made)?,
                Some(news) = heard.recv() => self.on_news(news)?,
                Some(command) = inputs.commands.recv() => self.on_command(command)?,
                Some(digest) = inputs.seen.recv() => self.on_seen(digest)?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.on_time()?;
        }
        self.stop.take().unwrap_or(Ok(()))
    }

    fn on_signal(&mut self, signal: signals::Event) -> Result<()> {
        match (signal, &self.stop) {
            (signals::Event::ChildEnded, _) => self.reap(),
            (signals::Event::Reload, _) => self.want_reload(Wish { cause: "SIGHUP", askers: Vec::new() }),
            (signals::Event::Stop(name), None) => {
                say::log(format_args!("{name}: finishing what is in flight"));
                self.stop(Ok(()))
            }
            (signals::Event::Stop(name), Some(_)) => bail!("ended at once by a second signal ({name})"),
        }
    }

    /// Asks a worker something; what it answers is news.
    fn ask(&self, seat: usize, life: u64, question: impl Future<Output = NewsKind> + Send + 'static) {
        let news = self.news.clone();
        tokio::spawn(async move {
            // The receiver lives as long as the supervisor.
            let _ = news.send(News { seat, life, kind: question.await });
        });
    }

    fn on_news(&mut self, news: News) -> Result<()> {
        let News { seat: index, life, kind } = news;
        let coming = self.coming().map(|coming| coming.tag.number);
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        // Those of a worker that is gone are of no interest.
        let Some(worker) = seat.workers_mut().find(|worker| worker.life == life) else { return Ok(()) };
        let generation = worker.tag.number;
        match kind {
            NewsKind::Draining(Ok(())) => {
                worker.kill_at = worker.drained_by.take();
                Ok(())
            }
            NewsKind::Serves(Err(error)) if coming == Some(generation) => {
                self.fail_reload(&format!("worker {index} {error:#}"))
            }
            NewsKind::Draining(Err(error)) | NewsKind::Serves(Err(error)) => {
                say::log(format_args!("worker {index}: {error:#}; ending it"));
                end(worker);
                Ok(())
            }
            NewsKind::Serves(Ok(about)) => {
                if worker.state == State::Starting {
                    worker.state = State::Ready;
                }
                if coming == Some(generation) {
                    return self.on_coming_ready(about);
                }
                self.on_ready(index, life, about)
            }
        }
    }

    /// Does what is due by now.
    fn on_time(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut stuck = None;
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            for worker in seat.workers_mut() {
                if worker.kill_at.is_some_and(|at| at <= now) {
                    say::log(format_args!("worker {index} is not done at its deadline; ending it"));
                    end(worker);
                }
                if worker.pid.is_none() && worker.ordered.is_some_and(|at| at + FORK_TIMEOUT <= now) {
                    stuck = Some(worker.tag.number);
                }
            }
            if seat.due.is_some_and(|due| due <= now) {
                self.start(index)?;
            }
        }
        if let Some(generation) = stuck {
            self.lose_template(generation, "does not make workers")?;
        }
        self.on_reload_time()
    }

    fn next_due(&self) -> Option<Instant> {
        let of_worker = |worker: &Worker| {
            let forked = worker.ordered.filter(|_| worker.pid.is_none()).map(|at| at + FORK_TIMEOUT);
            worker.kill_at.into_iter().chain(forked).min()
        };
        let of_seat = |seat: &Seat| seat.workers().filter_map(of_worker).chain(seat.due).min();
        self.seats.iter().filter_map(of_seat).chain(self.reload_due()).min()
    }

    /// Leaves nobody behind, however it ends.
    fn end_all(&mut self) {
        for worker in self.seats.iter_mut().flat_map(Seat::workers_mut) {
            end(worker);
        }
    }
}

async fn report(generation: Option<&Generation>) -> std::io::Result<Option<Report>> {
    match generation.and_then(|generation| generation.template.as_ref()) {
        Some(template) => template.report().await,
        None => pending().await,
    }
}

async fn made(making: Option<&mut JoinHandle<Made>>) -> Made {
    match making {
        Some(task) => task.await.unwrap_or_else(Made::lost),
        None => pending().await,
    }
}
