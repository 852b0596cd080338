//! A model that is loaded.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ext::{ExtError, ExtSession};
use super::tensor::{Signature, TensorSpec};
use crate::telemetry::metrics::ModelMetrics;

/// How long a run should take at most: everything else waits for so long.
const RUN_TIME: Duration = Duration::from_millis(5);

/// Rows in a run at most: as many as our plugin takes.
const RUN_ROWS_MAX: usize = 255;

/// Bytes of a run's inputs at most.
const RUN_BYTES_MAX: usize = 4 << 20;

/// A model that is loaded.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What it takes and gives.
    pub signature: Signature,
    /// How often and how long it runs.
    pub metrics: ModelMetrics,
    /// Whether one run may have several rows.
    batches: bool,
    session: Mutex<Session>,
}

#[derive(Debug)]
struct Session {
    ext: ExtSession,
    /// How long a row takes, by the last runs.
    row_time: Duration,
}

impl Model {
    /// Loads a model, and runs it on zeros to see that it gives what its signature says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(
        name: &str,
        version: u64,
        signature: Signature,
        file: Vec<u8>,
        metrics: ModelMetrics,
    ) -> Result<Self, String> {
        let mut ext = ExtSession::new(file.into()).map_err(|error| {
            format!(
                "the extension refuses it ({error}): it is damaged, or has an operation that TensorFlow Lite does \
                 not have"
            )
        })?;
        let started = Instant::now();
        let zeros = |rows: usize| signature.inputs.iter().map(|input| vec![0; input.row_bytes() * rows]).collect();
        let try_run = |ext: &mut ExtSession, rows: usize| {
            let inputs: Vec<Vec<u8>> = zeros(rows);
            let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            run(ext, &signature, &inputs, rows, &mut vec![Vec::new(); signature.outputs.len()])
        };
        try_run(&mut ext, 1).map_err(|error| format!("it does not run as its signature says ({error})"))?;
        let row_time = started.elapsed();
        let batches = signature.has_rows() && try_run(&mut ext, 2).is_ok();
        let session = Mutex::new(Session { ext, row_time });
        Ok(Self { name: name.to_owned(), version, signature, metrics, batches, session })
    }

    /// Whether one run may have several rows.
    pub fn batches(&self) -> bool {
        self.batches
    }

    /// How many rows a run should have at most.
    pub fn rows_per_run(&self) -> usize {
        if !self.batches {
            return 1;
        }
        let row_bytes: usize = self.signature.inputs.iter().map(TensorSpec::row_bytes).sum();
        let row_nanos = self.lock().row_time.as_nanos().max(1);
        let rows = usize::try_from(RUN_TIME.as_nanos() / row_nanos).unwrap_or(RUN_ROWS_MAX);
        rows.min(RUN_BYTES_MAX / row_bytes.max(1)).clamp(1, RUN_ROWS_MAX)
    }

    /// Runs it on so many rows of each input, and appends the outputs' bytes to `outputs`. Both are in the order of
    /// the signature.
    ///
    /// # Errors
    /// If it cannot be run on them; `outputs` is as it was, then.
    pub fn run(&self, inputs: &[&[u8]], rows: usize, outputs: &mut [Vec<u8>]) -> Result<(), ExtError> {
        let mut session = self.lock();
        let started = Instant::now();
        let result = run(&mut session.ext, &self.signature, inputs, rows, outputs);
        let took = started.elapsed();
        self.metrics.ran(rows, took);
        let row = took / u32::try_from(rows).unwrap_or(u32::MAX).max(1);
        // One run in four: a moment's hitch changes little, and what is so for long is learnt soon.
        session.row_time = (session.row_time * 3 + row) / 4;
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(
    ext: &mut ExtSession,
    signature: &Signature,
    inputs: &[&[u8]],
    rows: usize,
    outputs: &mut [Vec<u8>],
) -> Result<(), ExtError> {
    for (spec, data) in signature.inputs.iter().zip(inputs) {
        ext.set_input(&spec.tensor, data)?;
    }
    ext.run()?;
    let before: Vec<usize> = outputs.iter().map(Vec::len).collect();
    let mut specs = signature.outputs.iter().zip(outputs.iter_mut());
    let result = specs.try_for_each(|(spec, output)| ext.append_output(&spec.tensor, spec.row_bytes() * rows, output));
    if result.is_err() {
        outputs.iter_mut().zip(before).for_each(|(output, size)| output.truncate(size));
    }
    result
}
