//! How workers come and go: started, found ready, found dead, started again.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use host::protocol::{NO_MODELS, TRAPPED};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::time::{Duration, Instant};

use super::control::{self, About, Queued};
use super::generation::Tag;
use super::seat::{Role, Seat, State, VAIN_MAX, Worker};
use super::{Greeting, NewsKind, Supervisor, Wanted};
use crate::cli::{AlreadySaid, UsageError};
use crate::processes::WANT_OF_MEMORY;
use crate::say;

/// Exit code by which a guest says that its settings are wrong.
const GUEST_USAGE: i32 = 2;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Killed(Signal),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(TRAPPED) => f.write_str("ended by an error of its own"),
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(signal) => write!(f, "was ended by {signal} (signal {})", *signal as i32),
        }
    }
}

impl Ended {
    /// Where to look for why.
    fn reason(self) -> &'static str {
        match self {
            Self::Killed(Signal::SIGKILL) => WANT_OF_MEMORY,
            _ => "what it said last is above",
        }
    }
}

impl Supervisor {
    /// Sees who ended. One signal may stand for several.
    pub(super) fn reap(&mut self) -> Result<()> {
        for seat in 0..self.seats.len() {
            self.reap_seat(seat)?;
        }
        let coming = self.reload.as_mut().and_then(|reload| reload.coming_mut());
        let mut ended = Vec::new();
        for generation in std::iter::once(&mut self.serving).chain(coming) {
            if let Some(template) = &mut generation.template
                && let Some(status) = template.ended()
            {
                ended.push((generation.tag.number, template.describe(status)));
            }
        }
        ended.into_iter().try_for_each(|(generation, how)| self.lose_template(generation, &how))
    }

    pub(super) fn reap_seat(&mut self, index: usize) -> Result<()> {
        let Some(seat) = self.seats.get(index) else { return Ok(()) };
        let processes: Vec<(u64, Pid)> = seat.workers().filter_map(|worker| Some((worker.life, worker.pid?))).collect();
        for (life, pid) in processes {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => self.on_end(index, life, Ended::Exited(code))?,
                Ok(WaitStatus::Signaled(_, signal, _)) => self.on_end(index, life, Ended::Killed(signal))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn on_end(&mut self, index: usize, life: u64, how: Ended) -> Result<()> {
        let stopping = self.stop.is_some();
        let single = self.is_single();
        let coming = self.coming().map(|coming| coming.tag.number);
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        let Some((role, worker)) = seat.remove(life) else { return Ok(()) };
        // It said itself that it cannot start, and would say it again. Later it is what its files say now, and they
        // may say something else next time.
        if let Ended::Exited(code) = how
            && !matches!(code, 0 | TRAPPED)
            && role == Role::Current
            && self.about.is_none()
            && !stopping
        {
            bail!(AlreadySaid { usage: code == GUEST_USAGE });
        }
        let expected = worker.state == State::Draining;
        if !(expected && how == Ended::Exited(0)) {
            let pid = worker.pid.map_or(0, Pid::as_raw);
            match how {
                Ended::Killed(Signal::SIGKILL) if !worker.killed => {
                    say::log(format_args!("worker {index} (pid {pid}) {how}, {WANT_OF_MEMORY}"));
                }
                _ => say::log(format_args!("worker {index} (pid {pid}) {how}")),
            }
        }
        match role {
            Role::Leaving if stopping => return self.take_queue(index),
            Role::Leaving if !single || seat.current.is_some() || !seat.leaving.is_empty() => {
                return self.next_reload();
            }
            // The single writer is gone, so that its successor may start.
            Role::Leaving => return self.start(index),
            Role::Next | Role::Current if coming == Some(worker.tag.number) => {
                return self.fail_reload(&format!("worker {index} {how}"));
            }
            Role::Next => {
                seat.answer(&Err(format!("the new worker {how}; the old one goes on")));
                return Ok(());
            }
            Role::Current if stopping => return Ok(()),
            Role::Current => {}
        }
        self.restart(index, worker.age(), &how)
    }

    /// Has a dead worker replaced: at once, or after a pause where that keeps happening.
    pub(super) fn restart(&mut self, index: usize, age: Duration, how: &Ended) -> Result<()> {
        let serving = self.serving.tag.number;
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        let pause = seat.pause_after(age);
        if seat.vain >= VAIN_MAX {
            let message = format!(
                "worker {index} {how} within a second of its start, {VAIN_MAX} times in a row; {}",
                how.reason()
            );
            seat.answer(&Err(message.clone()));
            say::log("giving up");
            return self.stop(Err(anyhow!(message)));
        }
        seat.restarts += 1;
        if let Some(next) = seat.next.take_if(|next| next.tag.number == serving) {
            // It is on its way already.
            seat.current = Some(next);
        } else if pause.is_zero() {
            self.start(index)?;
        } else {
            seat.due = Some(Instant::now() + pause);
        }
        Ok(())
    }

    /// Opens the next slot and starts its worker.
    pub(super) fn open_seat(&mut self) -> Result<()> {
        let Some(slot) = self.spare.pop() else { return Ok(()) };
        slot.listen().context("cannot listen")?;
        self.seats.push(Seat::new(slot));
        self.start(self.seats.len() - 1)
    }

    /// Starts a worker in a seat that has none.
    pub(super) fn start(&mut self, index: usize) -> Result<()> {
        let worker = self.new_worker(index, self.due_tag())?;
        if let Some(seat) = self.seats.get_mut(index) {
            seat.due = None;
            seat.current = Some(worker);
        }
        self.order()
    }

    pub(super) fn new_worker(&mut self, seat: usize, tag: Tag) -> Result<Worker> {
        self.lives += 1;
        let patience = self.is_coming(tag.number).then_some(self.setup.reload_timeout);
        let worker = Worker::new(self.lives, tag, &self.setup.ledger)?;
        let (life, control) = (worker.life, worker.control);
        self.ask(seat, life, async move {
            NewsKind::Serves(match patience {
                Some(patience) => control::about_once_ready(control, patience).await,
                None => control::about(control).await,
            })
        });
        Ok(worker)
    }

    pub(super) fn on_ready(&mut self, index: usize, life: u64, about: About) -> Result<()> {
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        if seat.next.as_ref().is_some_and(|next| next.life == life) {
            let old = std::mem::replace(&mut seat.current, seat.next.take());
            seat.leaving.extend(old);
            self.retire(index, Queued::Leave);
        }
        if let Some(seat) = self.seats.get_mut(index) {
            seat.answer(&Ok(()));
        }
        if self.about.is_none() {
            self.settle(&about)?;
            self.about = Some(about);
        }
        self.greet();
        self.next_reload()
    }

    /// Now that one worker told what it is, starts as many as there can be.
    fn settle(&mut self, about: &About) -> Result<()> {
        if self.stop.is_some() {
            return Ok(());
        }
        if about.single_writer {
            if let Wanted::Exactly(count @ 2..) = self.setup.wanted {
                bail!(UsageError(format!(
                    "--workers {count}: only one worker can use the store ({}); leave --workers out, or give the \
                     service a database that workers can share",
                    about.store
                )));
            }
            self.spare.clear();
        }
        while !self.spare.is_empty() {
            self.open_seat()?;
        }
        Ok(())
    }

    /// Says once that all is up.
    pub(super) fn greet(&mut self) {
        let ready = |seat: &Seat| seat.current.as_ref().is_some_and(|worker| worker.state == State::Ready);
        let Some(about) = self.about.as_ref().filter(|_| !self.greeted && self.seats.iter().all(ready)) else { return };
        self.greeted = true;
        let count = self.seats.len();
        let reason = match self.setup.wanted {
            _ if about.single_writer => "only one can use the store",
            Wanted::Exactly(_) => "as --workers says",
            Wanted::Share(share) => share.reason,
        };
        let Greeting { version, address, admin } = &self.setup.greeting;
        let plural = if count == 1 { "" } else { "s" };
        let code = self.serving.described(&self.setup.source.options.module);
        say::out(format_args!(
            "{version}: {code}\nlistening on http://{address} (store: {})\nadmin on http://{admin}\nmodels {}\n{count} worker{plural}: {reason}",
            about.store,
            models_by(self.serving.models.as_deref())
        ));
    }

    pub(super) fn is_single(&self) -> bool {
        self.about.as_ref().is_some_and(|about| about.single_writer)
    }
}

/// What runs models, for people.
fn models_by(plugin: Option<&Path>) -> String {
    match plugin {
        Some(plugin) => format!("by {}", plugin.display()),
        None => format!("cannot be run: {NO_MODELS}"),
    }
}

/// Ends a worker at once. One without a process ends by itself when it finds its listener closed.
pub(super) fn end(worker: &mut Worker) {
    worker.kill_at = None;
    worker.killed = true;
    if let Some(pid) = worker.pid {
        // It is our child and not reaped yet, so that the number is still its own.
        let _ = kill(pid, Signal::SIGKILL);
    }
}
