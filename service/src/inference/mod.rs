//! TensorFlow models: found in a folder, loaded once, run in turn with everything else.
//!
//! The way of an inference: a handler decodes tensors, [`Inference::infer`] puts them into the queue, and the task
//! [`Inference::run`] runs the models, for a bounded time before it lets everything else go on.

pub mod ext;
pub mod image;
mod manifest;
pub mod model;
mod model_file;
mod queue;
pub mod repository;
pub mod tensor;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::telemetry::metrics::Metrics;
use model::Model;
pub use queue::Place;
use queue::Queue;
use repository::Repository;
use tensor::TensorSpec;

/// Bytes of a body that are worked on without waiting for a turn.
const BYTES_AT_ONCE: usize = 64 << 10;

/// Bytes of all outputs of a request at most.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// Where models are looked for when nobody says where (`MODELS_DIR`).
pub const USUAL_FOLDER: &str = "./models";

/// Where models are, and whether there is a service without them.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The folder of all models, `name/version/`.
    pub folder: PathBuf,
    /// Whether the service is ready only when each model has a version that is loaded.
    pub required: bool,
}

/// Why there is no answer of a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InferenceError {
    /// WasmEdge has no TensorFlow Lite extension.
    #[error(
        "models cannot be run: WasmEdge has no TensorFlow Lite extension here; install its plugin {} into \
         WasmEdge's plugin folder, or name the plugin's folder in WASMEDGE_PLUGIN_PATH",
        ext::NAME
    )]
    NoExtension,
    /// There is no model of that name.
    #[error("there is no model {0:?}; GET /v1/models lists those there are")]
    NoSuchModel(String),
    /// There is no such version of the model, or none that is loaded.
    #[error("{0}")]
    NoSuchVersion(String),
    /// The tensors are not those that the model takes.
    #[error("{0}")]
    Invalid(String),
    /// The model cannot be run on these tensors.
    #[error("the model cannot be run on these inputs")]
    Refused,
    /// As many inferences are waiting as may.
    #[error("too many inferences are waiting; try again later")]
    Full,
}

/// The models and what waits for them.
#[derive(Debug)]
pub struct Inference {
    /// The models.
    pub repository: Repository,
    queue: Queue,
}

impl Inference {
    /// Loads the models that are there.
    pub fn open(config: &ModelsConfig, metrics: &Metrics) -> Self {
        Self { repository: Repository::open(config, metrics), queue: Queue::new(metrics) }
    }

    /// A place for a request, to be held until it is answered.
    ///
    /// # Errors
    /// If there are too many already.
    pub fn enter(&self) -> Result<Place, InferenceError> {
        self.queue.enter()
    }

    /// Does something for a body of so many bytes: at once if they are few, else when it is its turn, so that
    /// everything else goes on in between.
    pub async fn in_turn<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if bytes <= BYTES_AT_ONCE {
            return work();
        }
        self.queue.in_turn(work).await
    }

    /// Runs a model on so many rows of each of its inputs, in the order of its signature. Gives the outputs, in
    /// the same order.
    ///
    /// # Errors
    /// If the model cannot be run on them.
    pub async fn infer(
        &self,
        model: &Arc<Model>,
        inputs: Vec<Vec<u8>>,
        rows: usize,
    ) -> Result<Vec<Vec<u8>>, InferenceError> {
        let row_bytes = model.signature.outputs.iter().map(TensorSpec::row_bytes).sum::<usize>().max(1);
        if rows.saturating_mul(row_bytes) > OUTPUT_BYTES_MAX.max(row_bytes) {
            let most = OUTPUT_BYTES_MAX / row_bytes;
            return Err(InferenceError::Invalid(format!("send at most {most} rows: the outputs would be too large")));
        }
        self.queue.infer(Arc::clone(model), inputs, rows).await.ok_or(InferenceError::Refused)
    }

    /// Runs models as long as the service does.
    pub async fn run(&self) {
        self.queue.run().await;
    }
}
