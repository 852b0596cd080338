//! Reloading: a new generation is made beside the one that serves, and takes its place once all its workers are
//! ready. Until then nothing of the old one is given up, so that there is nothing to go back to when that fails;
//! but for a store with a single writer, whose old worker has to close it first.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use aot_cache::Digest;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Duration, Instant};

use super::Supervisor;
use super::control::{About, Queued};
use super::generation::{Generation, Tag};
use super::seat::Seat;
use super::stop::STOPPING;
use super::template::Template;
use crate::say;
use crate::source::{Fresh, Source};

/// Workers of a slot that may still finish what they have begun when a reload makes another one such.
const LEAVING_MAX: usize = 3;

/// How long old workers may take to accept nothing more; a reload is not told to be done before.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who waits for a reload.
type Asker = oneshot::Sender<Result<Reloaded, String>>;

/// What a reload came to.
#[derive(Debug, Clone, Serialize)]
pub struct Reloaded {
    reloaded: bool,
    generation: u64,
    /// The first digits of the digest of the module's file.
    code: String,
}

/// A reload that is wanted.
#[derive(Debug)]
pub(super) struct Wish {
    pub cause: &'static str,
    pub askers: Vec<Asker>,
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    began: Instant,
    askers: Vec<Asker>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The module is read and compiled.
    Making(JoinHandle<Made>),
    /// A template loads it.
    Loading { coming: Box<Generation>, by: Instant },
    /// Its workers are started. With a single writer, connections have been waiting since the given moment.
    Replacing { coming: Box<Generation>, waiting: Option<Instant> },
    /// It serves, and the old workers are told to accept nothing more. How long connections had to wait is known.
    Retiring { old: Tag, pause: Option<Duration>, by: Instant },
}

/// What came of making a generation, and of which content of the module's file.
#[derive(Debug)]
pub(super) struct Made {
    digest: Option<Digest>,
    result: Result<Generation>,
}

impl Made {
    /// Nothing: whoever made it ended.
    pub fn lost(error: JoinError) -> Self {
        Self { digest: None, result: Err(anyhow!(error)) }
    }
}

impl Reload {
    /// The new generation, once it is made; until then, who makes it.
    pub fn parts(&mut self) -> (Option<&Generation>, Option<&mut JoinHandle<Made>>) {
        match &mut self.stage {
            Stage::Making(task) => (None, Some(task)),
            Stage::Loading { coming, .. } | Stage::Replacing { coming, .. } => (Some(coming), None),
            Stage::Retiring { .. } => (None, None),
        }
    }

    pub fn coming(&self) -> Option<&Generation> {
        match &self.stage {
            Stage::Making(_) | Stage::Retiring { .. } => None,
            Stage::Loading { coming, .. } | Stage::Replacing { coming, .. } => Some(coming),
        }
    }

    pub fn coming_mut(&mut self) -> Option<&mut Generation> {
        match &mut self.stage {
            Stage::Making(_) | Stage::Retiring { .. } => None,
            Stage::Loading { coming, .. } | Stage::Replacing { coming, .. } => Some(coming),
        }
    }
}

impl Supervisor {
    pub(super) fn coming(&self) -> Option<&Generation> {
        self.reload.as_ref()?.coming()
    }

    pub(super) fn is_coming(&self, generation: u64) -> bool {
        self.coming().is_some_and(|coming| coming.tag.number == generation)
    }

    /// When the reload has to go on, one way or another.
    pub(super) fn reload_due(&self) -> Option<Instant> {
        match self.reload.as_ref()?.stage {
            Stage::Loading { by, .. } | Stage::Retiring { by, .. } => Some(by),
            Stage::Making(_) | Stage::Replacing { .. } => None,
        }
    }

    /// Goes on where nobody is waited for any more.
    pub(super) fn on_reload_time(&mut self) -> Result<()> {
        let late = self.reload_due().is_some_and(|at| at <= Instant::now());
        match self.reload.as_ref().map(|reload| &reload.stage) {
            Some(Stage::Loading { .. }) if late => {
                let time = humantime::format_duration(self.setup.reload_timeout);
                self.fail_reload(&format!("it does not load within {time}"))
            }
            Some(Stage::Retiring { .. }) if late || self.seats.iter().all(Seat::is_retired) => self.finish_reload(),
            _ => Ok(()),
        }
    }

    /// What a worker is made of that is started in a seat without one: with a single writer, the new generation
    /// once its turn has come.
    pub(super) fn due_tag(&self) -> Tag {
        let replacing = self.reload.as_ref().filter(|reload| matches!(reload.stage, Stage::Replacing { .. }));
        let coming = replacing.and_then(Reload::coming).filter(|_| self.is_single());
        coming.unwrap_or(&self.serving).tag.clone()
    }

    /// Reloads now, or after the reload that is under way: once, however often that is wanted meanwhile.
    pub(super) fn want_reload(&mut self, wish: Wish) -> Result<()> {
        if self.stop.is_some() {
            say::log(format_args!("{}: not reloaded, {STOPPING}", wish.cause));
            answer(wish.askers, &Err(STOPPING.to_owned()));
            return Ok(());
        }
        if self.is_crowded() {
            say::log(format_args!("{}: to be reloaded once there are fewer old workers", wish.cause));
        }
        match &mut self.wish {
            Some(earlier) => earlier.askers.extend(wish.askers),
            None => self.wish = Some(wish),
        }
        self.next_reload()
    }

    /// Another content is at the module's path.
    pub(super) fn on_seen(&mut self, digest: Digest) -> Result<()> {
        self.seen = Some(digest);
        self.next_reload()
    }

    /// Begins what is to be done next, if it can be done by now.
    pub(super) fn next_reload(&mut self) -> Result<()> {
        if self.reload.is_some() || self.stop.is_some() || self.about.is_none() || self.is_crowded() {
            return Ok(());
        }
        let differs = self.seen.as_ref().is_some_and(|seen| *seen != self.serving.tag.digest);
        let changed = differs && self.seen != self.failed;
        match self.wish.take() {
            Some(wish) => self.begin(wish),
            None if changed => self.begin(Wish { cause: "the module changed", askers: Vec::new() }),
            None => {}
        }
        Ok(())
    }

    fn is_crowded(&self) -> bool {
        self.seats.iter().any(|seat| seat.leaving.len() >= LEAVING_MAX)
    }

    fn begin(&mut self, wish: Wish) {
        let source = Arc::clone(&self.setup.source);
        say::log(format_args!("{}: reloading {}", wish.cause, source.options.module.display()));
        // What counts now is what is read now.
        self.seen = None;
        self.generations += 1;
        let task = tokio::spawn(make(source, self.generations));
        self.reload = Some(Reload { began: Instant::now(), askers: wish.askers, stage: Stage::Making(task) });
    }

    pub(super) fn on_made(&mut self, made: Made) -> Result<()> {
        if let Some(digest) = made.digest {
            // Unless a watcher saw another one since.
            self.seen.get_or_insert_with(|| digest.clone());
            // Until it is shown to serve.
            self.failed = Some(digest);
        }
        match (made.result, &mut self.reload) {
            (Ok(generation), Some(reload)) => {
                let by = Instant::now() + self.setup.reload_timeout;
                reload.stage = Stage::Loading { coming: Box::new(generation), by };
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => self.fail_reload(&format!("{error:#}")),
        }
    }

    /// Now that workers can be made, has the first one made: whether that serves decides about the others.
    pub(super) fn install(&mut self) -> Result<()> {
        let single = self.is_single();
        let Some(mut reload) = self.reload.take() else { return Ok(()) };
        if let Stage::Loading { coming, .. } = reload.stage {
            reload.stage = Stage::Replacing { coming, waiting: single.then(Instant::now) };
        }
        self.reload = Some(reload);
        if single { self.hand_over() } else { self.bring_up(0) }
    }

    /// Has the worker that alone may use the store close it; its successor starts when it has ended.
    fn hand_over(&mut self) -> Result<()> {
        let Some(seat) = self.seats.first_mut() else { return Ok(()) };
        seat.due = None;
        seat.leaving.extend(seat.current.take());
        if seat.leaving.is_empty() {
            return self.start(0);
        }
        self.retire(0, Queued::Leave);
        Ok(())
    }

    /// Starts a worker of the new generation beside the one that serves.
    fn bring_up(&mut self, index: usize) -> Result<()> {
        let Some(tag) = self.coming().map(|coming| coming.tag.clone()) else { return Ok(()) };
        if let Some(seat) = self.seats.get_mut(index) {
            seat.answer(&Err("a reload is replacing all workers".to_owned()));
            let replacement = seat.next.take();
            self.dismiss(index, replacement.into_iter().collect());
        }
        let worker = match self.new_worker(index, tag) {
            Ok(worker) => worker,
            Err(error) => return self.fail_reload(&format!("{error:#}")),
        };
        if let Some(seat) = self.seats.get_mut(index) {
            seat.next = Some(worker);
        }
        self.order()
    }

    /// A worker of the new generation is ready.
    pub(super) fn on_coming_ready(&mut self, about: About) -> Result<()> {
        if about.single_writer != self.is_single() {
            return self.fail_reload(&format!(
                "its store ({}) can be used by {}, other than the one before: that takes a restart of usher",
                about.store,
                if about.single_writer { "one worker only" } else { "several workers" }
            ));
        }
        let Some(number) = self.coming().map(|coming| coming.tag.number) else { return Ok(()) };
        if self.is_single() || self.seats.iter().all(|seat| seat.has_ready_next(number)) {
            return self.commit(about);
        }
        let of_it = |seat: &Seat| seat.next.as_ref().is_some_and(|next| next.tag.number == number);
        let lacking: Vec<usize> = (0..).zip(&self.seats).filter(|(_, seat)| !of_it(seat)).map(|(n, _)| n).collect();
        lacking.into_iter().try_for_each(|index| self.bring_up(index))
    }

    /// The new generation serves from now on; the old one finishes what it has begun.
    fn commit(&mut self, about: About) -> Result<()> {
        let Some(Reload { began, askers, stage }) = self.reload.take() else { return Ok(()) };
        let Stage::Replacing { coming, waiting } = stage else { return Ok(()) };
        let mut old = std::mem::replace(&mut self.serving, *coming);
        (self.about, self.failed) = (Some(about), None);
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            if let Some(next) = seat.next.take() {
                seat.leaving.extend(seat.current.replace(next));
            }
            (seat.due, seat.vain) = (None, 0);
            seat.answer(&Ok(()));
            self.retire(index, Queued::Leave);
        }
        if let Some(template) = old.template.take() {
            self.take_reports(old.tag.number, template.end())?;
        }
        self.seats.iter_mut().for_each(|seat| seat.drop_unreported(old.tag.number));
        self.greet();
        let (pause, by) = (waiting.map(|since| since.elapsed()), Instant::now() + RETIRE_TIMEOUT);
        self.reload = Some(Reload { began, askers, stage: Stage::Retiring { old: old.tag, pause, by } });
        self.on_reload_time()
    }

    /// Tells that whoever connects from now on meets the new generation.
    fn finish_reload(&mut self) -> Result<()> {
        let Some(Reload { began, askers, stage }) = self.reload.take() else { return Ok(()) };
        let Stage::Retiring { old, pause, .. } = stage else { return Ok(()) };
        let Tag { number, digest } = &self.serving.tag;
        let (before, now) = (old.digest.short(), digest.short());
        let code = if before == now { format!("{now}, as before") } else { format!("{before} -> {now}") };
        let pause = pause.map(|pause| format!("; connections waited for {}", spent(pause))).unwrap_or_default();
        say::log(format_args!("reloaded in {}: generation {number}, code {code}{pause}", spent(began.elapsed())));
        answer(askers, &Ok(Reloaded { reloaded: true, generation: *number, code: now.to_owned() }));
        self.next_reload()
    }

    /// Goes on with the old generation, whose workers serve still, or start again where they had to make room.
    pub(super) fn fail_reload(&mut self, why: &str) -> Result<()> {
        let Some(mut reload) = self.reload.take() else { return Ok(()) };
        let handed_over = matches!(reload.stage, Stage::Replacing { waiting: Some(_), .. });
        let goes_on = if handed_over { "the old module is started again" } else { "the old workers serve on" };
        say::log(format_args!("not reloaded: {why}; {goes_on}"));
        if let Some(coming) = reload.coming_mut() {
            let template = coming.template.take();
            self.take_back(coming.tag.number, template)?;
        }
        answer(reload.askers, &Err(format!("{why}; {goes_on}")));
        self.next_reload()
    }

    fn take_back(&mut self, generation: u64, template: Option<Template>) -> Result<()> {
        if let Some(template) = template {
            self.take_reports(generation, template.end())?;
        }
        for index in 0..self.seats.len() {
            self.withdraw(index, generation);
            if self.seats.get(index).is_some_and(|seat| seat.due.is_none() && seat.workers().next().is_none()) {
                self.start(index)?;
            }
        }
        Ok(())
    }

    /// Gives up what is under way and what is wanted, as all workers are stopping.
    pub(super) fn cancel_reload(&mut self) -> Result<()> {
        let wanted = self.wish.take().into_iter().flat_map(|wish| wish.askers);
        answer(wanted.collect(), &Err(STOPPING.to_owned()));
        if matches!(&self.reload, Some(Reload { stage: Stage::Retiring { .. }, .. })) {
            return self.finish_reload();
        }
        let Some(reload) = self.reload.take() else { return Ok(()) };
        answer(reload.askers, &Err(STOPPING.to_owned()));
        match reload.stage {
            Stage::Retiring { .. } => {}
            Stage::Making(task) => task.abort(),
            Stage::Loading { mut coming, .. } | Stage::Replacing { mut coming, .. } => {
                let reports = coming.template.take().map(Template::end).unwrap_or_default();
                self.take_reports(coming.tag.number, reports)?;
                self.seats.iter_mut().for_each(|seat| seat.drop_unreported(coming.tag.number));
            }
        }
        Ok(())
    }
}

fn answer(askers: Vec<Asker>, result: &Result<Reloaded, String>) {
    for asker in askers {
        // Whoever asked may have gone.
        let _ = asker.send(result.clone());
    }
}

fn spent(time: Duration) -> String {
    humantime::format_duration(Duration::from_millis(time.as_millis().try_into().unwrap_or_default())).to_string()
}

async fn make(source: Arc<Source>, number: u64) -> Made {
    let reader = Arc::clone(&source);
    // Files may lie on a disk that does not answer.
    let read = spawn_blocking(move || Fresh::read(&reader.options)).await;
    match read {
        Ok((digest, Ok(fresh))) => Made { digest, result: Generation::make(&source, number, fresh).await },
        Ok((digest, Err(error))) => Made { digest, result: Err(error) },
        Err(error) => Made::lost(error),
    }
}
