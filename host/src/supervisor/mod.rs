//! The supervisor: owns the slots, has workers made for them, and sees to it that they live.
//!
//! One thread, one task, one event after another; whatever takes time is asked in a task of its own, whose
//! answer is an event again.

mod commands;
mod control;
mod lifecycle;
mod orders;
mod seat;
mod signals;
mod slot;
mod stop;
mod template;

use std::future::pending;

use anyhow::{Result, bail};
use host::protocol::{Plan, Report};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};

pub use commands::{Command, Overview, Readiness};
pub use seat::{Shown, State};
pub use signals::Signals;
pub use slot::{Slot, explain};
pub use template::Template;

use crate::cpus::Share;
use crate::metrics::Ledger;
use crate::processes::Engine;
use crate::say;
use control::About;
use lifecycle::end;
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
    pub engine: Engine,
    pub real_llvm: bool,
    pub plan: Plan,
    pub wanted: Wanted,
    pub slots: Vec<Slot>,
    pub drain: Duration,
    /// What workers count, also those that are gone.
    pub ledger: Ledger,
    /// Printed when all workers are ready, each in a line.
    pub greeting: Greeting,
}

/// What is printed when all workers are ready.
#[derive(Debug)]
pub struct Greeting {
    pub code: String,
    pub address: String,
    pub admin: String,
}

/// Keeps the workers alive.
#[derive(Debug)]
pub struct Supervisor {
    setup: Setup,
    seats: Vec<Seat>,
    /// Slots whose workers are started once the first one told how many there can be.
    spare: Vec<Slot>,
    template: Option<Template>,
    templates_in_vain: u32,
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
    pub async fn run(
        mut setup: Setup,
        template: Template,
        signals: &mut Signals,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<()> {
        let (news, mut heard) = mpsc::unbounded_channel();
        let mut spare = std::mem::take(&mut setup.slots);
        spare.reverse();
        let mut supervisor = Self {
            setup,
            seats: Vec::new(),
            spare,
            template: Some(template),
            templates_in_vain: 0,
            about: None,
            greeted: false,
            lives: 0,
            news,
            stop: None,
        };
        supervisor.load()?;
        supervisor.open_seat()?;
        let result = supervisor.follow(signals, commands, &mut heard).await;
        supervisor.end_all();
        result
    }

    async fn follow(
        &mut self,
        signals: &mut Signals,
        commands: &mut mpsc::Receiver<Command>,
        heard: &mut mpsc::UnboundedReceiver<News>,
    ) -> Result<()> {
        while !self.is_over() {
            let due = self.next_due();
            tokio::select! {
                biased;
                signal = signals.next() => self.on_signal(signal)?,
                report = report(self.template.as_ref()) => self.on_report(report)?,
                Some(news) = heard.recv() => self.on_news(news)?,
                Some(command) = commands.recv() => self.on_command(command),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.on_time()?;
        }
        self.stop.take().unwrap_or(Ok(()))
    }

    fn on_signal(&mut self, signal: signals::Event) -> Result<()> {
        match (signal, &self.stop) {
            (signals::Event::ChildEnded, _) => self.reap(),
            (signals::Event::Stop(name), None) => {
                say::log(format_args!("{name}: finishing what is in flight"));
                self.stop(Ok(()));
                Ok(())
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
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        // Those of a worker that is gone are of no interest.
        let Some(worker) = seat.workers_mut().find(|worker| worker.life == life) else { return Ok(()) };
        match kind {
            NewsKind::Draining(Ok(())) => Ok(()),
            NewsKind::Draining(Err(error)) | NewsKind::Serves(Err(error)) => {
                say::log(format_args!("worker {index}: {error:#}; ending it"));
                end(worker);
                Ok(())
            }
            NewsKind::Serves(Ok(about)) => {
                if worker.state == State::Starting {
                    worker.state = State::Ready;
                }
                self.on_ready(index, life, about)
            }
        }
    }

    /// Does what is due by now.
    fn on_time(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut stuck = false;
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            for worker in seat.workers_mut() {
                if worker.kill_at.is_some_and(|at| at <= now) {
                    say::log(format_args!("worker {index} is not done at its deadline; ending it"));
                    end(worker);
                }
                stuck |= worker.pid.is_none() && worker.ordered.is_some_and(|at| at + FORK_TIMEOUT <= now);
            }
            if seat.due.is_some_and(|due| due <= now) {
                self.start(index)?;
            }
        }
        if stuck {
            say::log("the template does not make workers; starting another");
            self.restart_template()?;
        }
        Ok(())
    }

    fn next_due(&self) -> Option<Instant> {
        let of_worker = |worker: &Worker| {
            let forked = worker.ordered.filter(|_| worker.pid.is_none()).map(|at| at + FORK_TIMEOUT);
            worker.kill_at.into_iter().chain(forked).min()
        };
        let of_seat = |seat: &Seat| seat.workers().filter_map(of_worker).chain(seat.due).min();
        self.seats.iter().filter_map(of_seat).min()
    }

    /// Leaves nobody behind, however it ends.
    fn end_all(&mut self) {
        for worker in self.seats.iter_mut().flat_map(Seat::workers_mut) {
            end(worker);
        }
        if let Some(template) = self.template.take() {
            template.end();
        }
    }
}

async fn report(template: Option<&Template>) -> std::io::Result<Option<Report>> {
    match template {
        Some(template) => template.report().await,
        None => pending().await,
    }
}
