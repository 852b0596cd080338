//! Sessions of TensorFlow Lite models, for callers that are not trusted: what they hold are handles, and whatever
//! they do wrong is an error.
//!
//! A model is copied, checked (`model`), tried out in a process of its own (`rehearsal`), and loaded (`native`, which
//! has all the unsafe code). That is no proof that it does no harm; see SECURITY.md.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails"))]

mod flatbuffer;
mod model;
#[allow(unsafe_code, reason = "its safety arguments are in it")]
mod native;
mod quiet;
mod rehearsal;
mod session;

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};

pub use model::{MAX_MODEL_BYTES, MAX_OUTPUTS, MAX_TENSOR_BYTES, Model, Refusal, Tensor};
pub use quiet::start_quietly;
pub use session::{MAX_ROWS, Session};

/// The variable that says how many threads a model may run on.
const THREADS: &str = "TENSORFLOW_LITE_THREADS";

/// Most threads.
const MAX_THREADS: u16 = 64;

/// What a caller did wrong, or a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A handle of nothing, or of something that is gone.
    Handle,
    /// No tensor has that name.
    Name,
    /// Data is too short or too long.
    Size,
    /// The model cannot be used.
    Model,
    /// The model failed.
    Run,
    /// The model failed before, and cannot be run any more.
    Broken,
}

/// The sessions of one guest.
#[derive(Debug)]
pub struct Sessions {
    sessions: BTreeMap<u32, Session>,
    /// The handle given last. Handles are not used again until there are no others.
    last: u32,
    threads: u16,
}

/// Most sessions that have a handle of their own: a tensor's handle has room for that many.
const MAX_HANDLE: u32 = (1 << 24) - 1;

impl Sessions {
    /// None yet, with as many threads for each as the environment says.
    pub fn new() -> Self {
        Self { sessions: BTreeMap::new(), last: 0, threads: threads_wanted() }
    }

    /// Makes a session of a model, and gives its handle. Why a model cannot be used is said on standard error.
    ///
    /// # Errors
    /// If it cannot.
    pub fn create(&mut self, file: &[u8]) -> Result<u32, Wrong> {
        let refuse = |why: &dyn std::fmt::Display| {
            say(format_args!("a model of {} bytes cannot be used: {why}", file.len()));
            Wrong::Model
        };
        let model = Model::parse(file).map_err(|refusal| refuse(&refusal))?;
        let handle = self.next_handle().ok_or(Wrong::Broken)?;
        let session = Session::new(file.to_vec(), model, self.threads, handle)
            .map_err(|_| refuse(&"TensorFlow Lite cannot load it, or it failed when it was tried out"))?;
        self.sessions.insert(handle, session);
        self.last = handle;
        Ok(handle)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete(&mut self, handle: u32) -> Result<(), Wrong> {
        self.sessions.remove(&handle).map(drop).ok_or(Wrong::Handle)
    }

    /// A session, to look at.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, handle: u32) -> Result<&Session, Wrong> {
        self.sessions.get(&handle).ok_or(Wrong::Handle)
    }

    /// A session, to use.
    ///
    /// # Errors
    /// If there is none.
    pub fn get_mut(&mut self, handle: u32) -> Result<&mut Session, Wrong> {
        self.sessions.get_mut(&handle).ok_or(Wrong::Handle)
    }

    fn next_handle(&self) -> Option<u32> {
        let later = (self.last + 1)..=MAX_HANDLE;
        later.chain(1..=self.last).find(|handle| !self.sessions.contains_key(handle))
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// One thread, unless the environment says another number that makes sense.
fn threads_wanted() -> u16 {
    let Some(text) = env::var_os(THREADS) else { return 1 };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| (1..=MAX_THREADS).contains(number));
    number.unwrap_or_else(|| {
        say(format_args!("{THREADS} is no number from 1 to {MAX_THREADS}: models run on one thread"));
        1
    })
}

/// Tells people, if standard error is there.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "tensorflow-lite: {text}");
}
