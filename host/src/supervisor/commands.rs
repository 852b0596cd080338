//! What the admin address asks for.

use anyhow::Result;
use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use super::Supervisor;
use super::control::{self, Queued};
use super::reload::{Reloaded, Wish};
use super::seat::{Seat, Shown, State};
use super::stop::STOPPING;

/// How long a worker may take to say whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(6);

/// Orders and questions from the admin address.
#[derive(Debug)]
pub enum Command {
    /// All workers, and what becomes of them.
    Overview(oneshot::Sender<Overview>),
    /// Whether requests can be served.
    Ready(oneshot::Sender<Readiness>),
    /// Replace a worker; answered when its successor is ready.
    Replace { worker: usize, reply: oneshot::Sender<Result<(), String>> },
    /// Reload; answered when the new workers serve, or with why they do not.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

/// How it goes.
#[derive(Debug)]
pub struct Overview {
    /// All workers.
    pub workers: Vec<Shown>,
    /// Whether usher is stopping.
    pub draining: bool,
}

/// Whether requests can be served.
#[derive(Debug)]
pub enum Readiness {
    Ready,
    NotReady(String),
}

impl Supervisor {
    pub(super) fn on_command(&mut self, command: Command) -> Result<()> {
        match command {
            // Whoever asked may have gone.
            Command::Overview(reply) => drop(reply.send(self.overview())),
            Command::Ready(reply) => self.tell_readiness(reply),
            Command::Replace { worker, reply } => self.replace(worker, reply),
            Command::Reload(reply) => return self.want_reload(Wish { cause: "POST /reload", askers: vec![reply] }),
        }
        Ok(())
    }

    fn overview(&self) -> Overview {
        let shown = |(index, seat): (usize, &Seat)| seat.shown(index, &self.serving.tag);
        let workers = self.seats.iter().enumerate().flat_map(shown).collect();
        Overview { workers, draining: self.stop.is_some() }
    }

    /// Ready is whoever has a worker that says so.
    fn tell_readiness(&self, reply: oneshot::Sender<Readiness>) {
        if self.stop.is_some() {
            let _ = reply.send(Readiness::NotReady(STOPPING.to_owned()));
            return;
        }
        let ready =
            |seat: &Seat| seat.current.as_ref().filter(|worker| worker.state == State::Ready).map(|w| w.control);
        let workers: Vec<_> = self.seats.iter().filter_map(ready).collect();
        tokio::spawn(async move {
            let mut why = "no worker serves".to_owned();
            for worker in workers {
                match timeout(READY_TIMEOUT, control::ready(worker)).await {
                    Ok(Ok(answer)) if answer.status.is_success() => return drop(reply.send(Readiness::Ready)),
                    Ok(Ok(answer)) => why = control::detail(&answer.body),
                    Ok(Err(error)) => why = format!("a worker does not answer: {error:#}"),
                    Err(_) => why = "a worker does not answer in time".to_owned(),
                }
            }
            drop(reply.send(Readiness::NotReady(why)));
        });
    }

    /// Replaces a worker without losing a request: the new one accepts from the same slot before the old
    /// one stops; or, where only one can use the store, starts when the old one has closed it, while
    /// connections wait in the slot.
    fn replace(&mut self, index: usize, reply: oneshot::Sender<Result<(), String>>) {
        if let Err(why) = self.try_replace(index) {
            drop(reply.send(Err(why)));
        } else if let Some(seat) = self.seats.get_mut(index) {
            seat.asked.push(reply);
        }
    }

    fn try_replace(&mut self, index: usize) -> Result<(), String> {
        let (single, tag) = (self.is_single(), self.serving.tag.clone());
        if self.stop.is_some() {
            return Err(STOPPING.to_owned());
        }
        if self.coming().is_some() {
            return Err("a reload is replacing all workers".to_owned());
        }
        let count = self.seats.len();
        let seat = self.seats.get_mut(index).ok_or_else(|| format!("there is no worker {index}; there are {count}"))?;
        if seat.current.as_ref().is_none_or(|worker| worker.state != State::Ready) || seat.next.is_some() {
            return Err("this worker is being replaced already".to_owned());
        }
        if single {
            seat.leaving.extend(seat.current.take());
            self.retire(index, Queued::Leave);
            return Ok(());
        }
        let worker = self.new_worker(index, tag).map_err(|error| format!("{error:#}"))?;
        if let Some(seat) = self.seats.get_mut(index) {
            seat.next = Some(worker);
        }
        self.order().map_err(|error| format!("{error:#}"))
    }
}
