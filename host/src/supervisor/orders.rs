//! What the supervisor and the templates tell each other.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Result, bail};
use host::protocol::{Report, TRAPPED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Duration, Instant};

use super::Supervisor;
use super::generation::Generation;
use super::lifecycle::Ended;
use super::seat::{Role, Seat, VAIN_MAX};
use super::template::Template;
use crate::{guest, say};

impl Supervisor {
    /// The generation of that number, if workers can be made of it.
    fn generation_mut(&mut self, number: u64) -> Option<&mut Generation> {
        let Self { serving, reload, .. } = self;
        let coming = reload.as_mut().and_then(|reload| reload.coming_mut());
        std::iter::once(serving).chain(coming).find(|generation| generation.tag.number == number)
    }

    /// Has the templates make the workers that they were not told of yet.
    pub(super) fn order(&mut self) -> Result<()> {
        let Self { serving, reload, seats, .. } = self;
        let coming = reload.as_ref().and_then(|reload| reload.coming());
        let mut failed = Vec::new();
        for generation in std::iter::once(&*serving).chain(coming) {
            if let Err(error) = order_of(generation, seats) {
                failed.push((generation.tag.number, format!("does not take orders ({error})")));
            }
        }
        failed.into_iter().try_for_each(|(generation, how)| self.lose_template(generation, &how))
    }

    /// Goes on without a template that is gone or of no use any more.
    pub(super) fn lose_template(&mut self, number: u64, how: &str) -> Result<()> {
        if number == self.serving.tag.number {
            say::log(format_args!("the template {how}; starting another"));
            return self.restart_template(how);
        }
        if let Some(template) = self.generation_mut(number).and_then(|generation| generation.template.take()) {
            // What it said last may be why.
            self.take_reports(number, template.end())?;
        }
        if self.is_coming(number) {
            return self.fail_reload(&format!("the process that its workers are made from {how}"));
        }
        Ok(())
    }

    fn restart_template(&mut self, how: &str) -> Result<()> {
        let number = self.serving.tag.number;
        self.serving.in_vain += 1;
        if self.serving.in_vain > VAIN_MAX {
            bail!("{VAIN_MAX} times in a row no worker was made: the process that they are made from {how}");
        }
        if let Some(template) = self.serving.template.take() {
            self.take_reports(number, template.end())?;
        }
        if self.stop.is_some() {
            self.seats.iter_mut().for_each(|seat| seat.drop_unreported(number));
            return Ok(());
        }
        for seat in &mut self.seats {
            seat.unreported(number).into_iter().for_each(|worker| worker.ordered = None);
        }
        let options = &self.setup.source.options;
        self.serving.template = Some(Template::start(&self.setup.source.engine, options.loading())?);
        Ok(())
    }

    /// Heeds what a template said last.
    pub(super) fn take_reports(&mut self, generation: u64, reports: Vec<Report>) -> Result<()> {
        reports.into_iter().try_for_each(|report| self.on_known_report(generation, report))
    }

    pub(super) fn on_report(&mut self, generation: u64, report: std::io::Result<Option<Report>>) -> Result<()> {
        match report {
            Ok(Some(report)) => self.on_known_report(generation, report),
            // Its end is seen by SIGCHLD, too, but it may have closed the channel and gone on.
            Ok(None) => {
                let template = self.generation_mut(generation).and_then(|generation| generation.template.as_mut());
                let how = template.map_or_else(|| "ended".to_owned(), Template::finish);
                self.lose_template(generation, &how)
            }
            Err(error) => self.lose_template(generation, &format!("said nonsense ({error})")),
        }
    }

    fn on_known_report(&mut self, number: u64, report: Report) -> Result<()> {
        match report {
            // Of a template that was started anew; the first one's was heard before.
            Report::Hello { .. } if number == self.serving.tag.number => self.serving.load(),
            Report::Loaded { models } => self.on_loaded(number, models),
            Report::Refused { error } if self.is_coming(number) => self.fail_reload(&error),
            Report::Refused { error } if number == self.serving.tag.number => bail!(error),
            // The last words of one that is not needed any more.
            Report::Hello { .. } | Report::Refused { .. } => Ok(()),
            Report::NotStarted { worker, error } => self.on_not_started(number, worker, &error),
            Report::Started { worker, pid } => self.on_started(number, worker, Pid::from_raw(pid)),
        }
    }

    fn on_loaded(&mut self, number: u64, models: Option<PathBuf>) -> Result<()> {
        if let Some(generation) = self.generation_mut(number) {
            generation.models = models;
            if let Some(template) = generation.template.as_mut() {
                template.loaded = true;
            }
        }
        if self.is_coming(number) { self.install() } else { self.order() }
    }

    fn on_started(&mut self, number: u64, index: usize, pid: Pid) -> Result<()> {
        if let Some(generation) = self.generation_mut(number) {
            generation.in_vain = 0;
        }
        let worker = self.seats.get_mut(index).and_then(|seat| seat.unreported(number));
        match worker {
            Some(worker) => worker.pid = Some(pid),
            // Nobody waits for it.
            None => drop(kill(pid, Signal::SIGKILL)),
        }
        // It may have ended before we knew its number.
        self.reap_seat(index)
    }

    fn on_not_started(&mut self, number: u64, index: usize, error: &str) -> Result<()> {
        if self.is_coming(number) {
            return self.fail_reload(&format!("worker {index} cannot be made: {error}"));
        }
        say::log(format_args!("worker {index} cannot be made: {error}"));
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        let Some(life) = seat.unreported(number).map(|worker| worker.life) else { return Ok(()) };
        match seat.remove(life) {
            Some((Role::Current, _)) => self.restart(index, Duration::ZERO, &Ended::Exited(TRAPPED)),
            _ => {
                seat.answer(&Err(format!("a new worker cannot be made: {error}")));
                Ok(())
            }
        }
    }
}

/// Tells a template of the workers that it is to make, if it can make any yet.
fn order_of(generation: &Generation, seats: &mut [Seat]) -> std::io::Result<()> {
    let Some(template) = generation.maker() else { return Ok(()) };
    for (index, seat) in seats.iter_mut().enumerate() {
        let Some((slot, worker)) = seat.unordered(generation.tag.number) else { continue };
        template.fork(index, guest::told_one(index), [slot.as_fd(), worker.listener.as_fd()])?;
        worker.ordered = Some(Instant::now());
    }
    Ok(())
}
