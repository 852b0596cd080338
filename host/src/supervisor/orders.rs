//! What the supervisor and the template tell each other.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use host::protocol::{Report, TRAPPED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Duration, Instant};

use super::Supervisor;
use super::lifecycle::Ended;
use super::seat::{Role, Seat, VAIN_MAX};
use super::template::Template;
use crate::{guest, say};

impl Supervisor {
    /// Has the template make the workers that it was not told of yet.
    pub(super) fn order(&mut self) -> Result<()> {
        let Some(template) = self.template.as_ref().filter(|template| template.loaded) else { return Ok(()) };
        let mut failed = None;
        for (index, seat) in self.seats.iter_mut().enumerate() {
            let Some((slot, worker)) = seat.unordered() else { continue };
            match template.fork(index, guest::told_one(index), [slot.as_fd(), worker.listener.as_fd()]) {
                Ok(()) => worker.ordered = Some(Instant::now()),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            say::log(format_args!("the template does not take orders ({error}); starting another"));
            self.restart_template()?;
        }
        Ok(())
    }

    pub(super) fn load(&mut self) -> Result<()> {
        let Some(template) = &self.template else { return Ok(()) };
        template.load(&self.setup.plan).context("cannot hand the module and its environment to the template")
    }

    pub(super) fn restart_template(&mut self) -> Result<()> {
        if let Some(template) = self.template.take() {
            self.templates_in_vain += 1;
            if self.templates_in_vain > VAIN_MAX {
                bail!("the process that workers are made from ended {VAIN_MAX} times in a row before one was made");
            }
            for report in template.end() {
                self.on_known_report(report)?;
            }
        }
        if self.stop.is_some() {
            self.seats.iter_mut().for_each(Seat::drop_unreported);
            return Ok(());
        }
        for worker in self.seats.iter_mut().flat_map(Seat::workers_mut).filter(|worker| worker.pid.is_none()) {
            worker.ordered = None;
        }
        self.template = Some(Template::start(&self.setup.engine, self.setup.real_llvm)?);
        Ok(())
    }

    pub(super) fn on_report(&mut self, report: std::io::Result<Option<Report>>) -> Result<()> {
        match report {
            Ok(Some(report)) => self.on_known_report(report),
            // Its end is seen by SIGCHLD, too, but it may have closed the channel and gone on.
            Ok(None) => self.restart_template(),
            Err(error) => {
                say::log(format_args!("the template said nonsense ({error}); starting another"));
                self.restart_template()
            }
        }
    }

    fn on_known_report(&mut self, report: Report) -> Result<()> {
        match report {
            // Of a template that was started anew; the first one's was heard before.
            Report::Hello { .. } => self.load(),
            Report::Loaded => {
                if let Some(template) = &mut self.template {
                    template.loaded = true;
                }
                self.order()
            }
            Report::Refused { error } => bail!(error),
            Report::NotStarted { worker, error } => self.on_not_started(worker, &error),
            Report::Started { worker, pid } => self.on_started(worker, Pid::from_raw(pid)),
        }
    }

    fn on_started(&mut self, index: usize, pid: Pid) -> Result<()> {
        self.templates_in_vain = 0;
        let worker = self.seats.get_mut(index).and_then(Seat::unreported);
        match worker {
            Some(worker) => worker.pid = Some(pid),
            // Nobody waits for it.
            None => drop(kill(pid, Signal::SIGKILL)),
        }
        // It may have ended before we knew its number.
        self.reap_seat(index)
    }

    fn on_not_started(&mut self, index: usize, error: &str) -> Result<()> {
        say::log(format_args!("worker {index} cannot be made: {error}"));
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        let Some(life) = seat.unreported().map(|worker| worker.life) else { return Ok(()) };
        match seat.remove(life) {
            Some((Role::Current, _)) => self.restart(index, Duration::ZERO, &Ended::Exited(TRAPPED)),
            _ => {
                seat.answer(&Err(format!("a new worker cannot be made: {error}")));
                Ok(())
            }
        }
    }
}
