//! What waits for models: bounded, run in batches, in turn with everything else.
//!
//! There is one thread, and a model that runs keeps it. So whatever takes long (a run, the decoding of a large body)
//! is done by whoever has the turn, and a turn is passed on only after everything else that was ready, the users
//! API included, has been served. A run has as many rows as fit into a few milliseconds, of one request or of
//! several; a request of more rows takes several turns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

use super::InferenceError;
use super::model::Model;
use crate::telemetry::metrics::{InferenceMetrics, Metrics};

/// Requests at once, waiting ones included, at most.
const REQUESTS_MAX: usize = 256;

/// Bytes of their bodies at most.
const BYTES_MAX: usize = 32 << 20;

/// Those who wait, and the turn.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<VecDeque<Job>>,
    /// Told of each that is added.
    added: Notify,
    load: Arc<Load>,
    turn: tokio::sync::Mutex<()>,
}

/// How much there is at once.
#[derive(Debug)]
struct Load {
    used: Mutex<Used>,
    metrics: InferenceMetrics,
}

#[derive(Debug, Default)]
struct Used {
    requests: usize,
    bytes: usize,
}

/// A request's place among those that may be there at once.
#[derive(Debug)]
pub struct Place {
    bytes: usize,
    load: Arc<Load>,
}

impl Place {
    /// Takes room for so many bytes more, as they come: what was only announced keeps nobody out.
    ///
    /// # Errors
    /// If there is no room.
    pub fn grow(&mut self, bytes: usize) -> Result<(), InferenceError> {
        let mut used = lock(&self.load.used);
        if used.bytes + bytes > BYTES_MAX {
            self.load.metrics.refused();
            return Err(InferenceError::Full);
        }
        used.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = lock(&self.load.used);
        used.requests -= 1;
        used.bytes -= self.bytes;
    }
}

/// A request's rows, of which some may have been run.
#[derive(Debug)]
struct Job {
    model: Arc<Model>,
    inputs: Vec<Vec<u8>>,
    rows: usize,
    done: usize,
    outputs: Vec<Vec<u8>>,
    answer: oneshot::Sender<Option<Vec<Vec<u8>>>>,
    since: Instant,
}

impl Job {
    /// The bytes of an input's next rows.
    fn next(&self, input: usize, rows: usize) -> &[u8] {
        let data = self.inputs.get(input).map_or(&[][..], Vec::as_slice);
        let row = data.len() / self.rows;
        data.get(self.done * row..(self.done + rows) * row).unwrap_or_default()
    }
}

/// A job and how many of its rows are to be run.
type Part = (Job, usize);

impl Queue {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            waiting: Mutex::default(),
            added: Notify::new(),
            load: Arc::new(Load { used: Mutex::default(), metrics: metrics.inference() }),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// A place for a request, if there is one.
    pub fn enter(&self) -> Result<Place, InferenceError> {
        let mut used = lock(&self.load.used);
        if used.requests >= REQUESTS_MAX {
            self.load.metrics.refused();
            return Err(InferenceError::Full);
        }
        used.requests += 1;
        Ok(Place { bytes: 0, load: Arc::clone(&self.load) })
    }

    /// Does something that takes long when it is its turn.
    pub async fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let turn = self.turn.lock().await;
        let result = work();
        pass(turn).await;
        result
    }

    /// The outputs, or nothing if the model cannot be run on these inputs.
    pub async fn infer(&self, model: Arc<Model>, inputs: Vec<Vec<u8>>, rows: usize) -> Option<Vec<Vec<u8>>> {
        let _waiting = self.load.metrics.waiting();
        let (answer, outputs) = oneshot::channel();
        let empty = vec![Vec::new(); model.signature.outputs.len()];
        let job = Job { model, inputs, rows: rows.max(1), done: 0, outputs: empty, answer, since: Instant::now() };
        lock(&self.waiting).push_back(job);
        self.added.notify_one();
        outputs.await.ok().flatten()
    }

    pub async fn run(&self) {
        loop {
            let turn = self.turn.lock().await;
            let batch = self.next_batch();
            if batch.is_empty() {
                drop(turn);
                self.added.notified().await;
            } else {
                let begun = batch.iter().filter(|(job, _)| job.done == 0);
                begun.for_each(|(job, _)| self.load.metrics.waited(job.since.elapsed()));
                self.run_batch(batch);
                pass(turn).await;
            }
        }
    }

    /// The rows that come next: of the first job, and of others for the same model as far as there is room.
    fn next_batch(&self) -> Vec<Part> {
        let mut waiting = lock(&self.waiting);
        // Nobody waits for these any more.
        waiting.retain(|job| !job.answer.is_closed());
        let Some(first) = waiting.pop_front() else { return Vec::new() };
        let model = Arc::clone(&first.model);
        let mut room = model.rows_per_run();
        let mut batch = Vec::new();
        add(&mut batch, first, &mut room);
        let mut others = VecDeque::with_capacity(waiting.len());
        for job in waiting.drain(..) {
            if room > 0 && model.batches() && Arc::ptr_eq(&job.model, &model) {
                add(&mut batch, job, &mut room);
            } else {
                others.push_back(job);
            }
        }
        *waiting = others;
        batch
    }

    fn run_batch(&self, batch: Vec<Part>) {
        match run_together(&batch) {
            Some(outputs) => self.hand_out(batch, &outputs),
            // One of them is the reason: each alone, so that the others get their answers.
            None if batch.len() > 1 => batch.into_iter().for_each(|part| self.run_batch(vec![part])),
            None => batch.into_iter().for_each(|(job, _)| drop(job.answer.send(None))),
        }
    }

    /// Gives each job its rows of the outputs. A job that has more to run waits again, behind the others.
    fn hand_out(&self, batch: Vec<Part>, outputs: &[Vec<u8>]) {
        let mut from = 0;
        for (mut job, rows) in batch {
            let specs = job.model.signature.outputs.iter();
            for ((spec, of_job), of_all) in specs.zip(&mut job.outputs).zip(outputs) {
                let row = spec.row_bytes();
                of_job.extend_from_slice(of_all.get(from * row..(from + rows) * row).unwrap_or_default());
            }
            from += rows;
            job.done += rows;
            if job.done == job.rows {
                // Whoever asked may be gone by now.
                let _ = job.answer.send(Some(job.outputs));
            } else {
                lock(&self.waiting).push_back(job);
            }
        }
    }
}

fn add(batch: &mut Vec<Part>, job: Job, room: &mut usize) {
    let rows = (job.rows - job.done).min(*room);
    *room -= rows;
    batch.push((job, rows));
}

/// Runs rows of several jobs as one.
fn run_together(batch: &[Part]) -> Option<Vec<Vec<u8>>> {
    let model = &batch.first()?.0.model;
    let rows = batch.iter().map(|(_, rows)| rows).sum();
    let mut outputs = vec![Vec::new(); model.signature.outputs.len()];
    let gathered: Vec<Vec<u8>>;
    let inputs: Vec<&[u8]> = match batch {
        [(job, rows)] => (0..job.inputs.len()).map(|input| job.next(input, *rows)).collect(),
        parts => {
            let of = |input| parts.iter().flat_map(|(job, rows)| job.next(input, *rows)).copied().collect();
            gathered = (0..model.signature.inputs.len()).map(of).collect();
            gathered.iter().map(Vec::as_slice).collect()
        }
    };
    match model.run(&inputs, rows, &mut outputs) {
        Ok(()) => Some(outputs),
        Err(error) => {
            tracing::debug!(model = model.name, version = model.version, rows, %error, "a model did not run");
            None
        }
    }
}

/// Lets everything else go on, and then the next have the turn.
async fn pass(turn: tokio::sync::MutexGuard<'_, ()>) {
    yield_now().await;
    drop(turn);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
