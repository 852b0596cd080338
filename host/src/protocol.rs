//! The messages between the supervisor and the engine's processes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Exit code of a worker whose guest trapped or could not be started: the host's, not the guest's own
/// (sysexits.h calls it an internal software error).
pub const TRAPPED: i32 = 70;

/// Size of a page of a guest's memory in bytes (WebAssembly core specification §4.2.8).
pub const PAGE_BYTES: u64 = 64 << 10;

/// What to do where models cannot be run.
pub const NO_MODELS: &str = "WasmEdge finds no plugin wasmedge_tensorflowlite; `cargo xtask build` makes one, and \
                             WASMEDGE_PLUGIN_PATH says where it lies";

/// How a module is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// As native code, compiled ahead of time.
    Aot,
    /// Instruction by instruction.
    Interpreter,
}

/// What a guest is given. It sees nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its arguments, its own name first.
    pub arguments: Vec<String>,
    /// Its environment, each as NAME=VALUE.
    pub environment: Vec<String>,
    /// Its folders.
    pub folders: Vec<Grant>,
    /// Whose `poll_oneoff` it gets.
    pub poll: Poll,
}

/// A folder that a guest is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name there.
    pub guest: String,
    /// Where it is, without links.
    pub host: String,
    /// Whether the guest cannot write there.
    pub read_only: bool,
}

/// Whose `poll_oneoff` a guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Poll {
    /// Ours, on an epoll that lives as long as the guest.
    Usher,
    /// WasmEdge's own.
    Wasmedge,
}

/// What a worker may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Pages of memory at most, of [`PAGE_BYTES`] each.
    pub memory_pages: u32,
    /// Descriptors at most; `None`: as many as the host itself.
    pub open_files: Option<u64>,
    /// Whether it loses the rights that its guest has no use for.
    pub confined: bool,
}

/// Everything that a template needs to make workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the module, or its compiled form, as `mode` says, was found.
    pub code: PathBuf,
    /// How it is executed.
    pub mode: Mode,
    /// What it is given.
    pub guest: Guest,
    /// What each worker may take.
    pub limits: Limits,
}

/// From the supervisor to a template.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first one: load this. The code comes along as a file.
    Load(Plan),
    /// Make a worker. Its public listener and its control listener come along, in this order.
    Fork {
        /// The worker's number.
        worker: usize,
        /// What is in its environment alone, each as NAME=VALUE.
        environment: Vec<String>,
    },
}

/// From a template, or a worker that it just made, to the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The first one: a template is there.
    Hello {
        /// The version of its WasmEdge ("0.17.1").
        wasmedge: String,
    },
    /// The module is loaded.
    Loaded {
        /// Where the plugin lies that runs models; `None`: there is none.
        models: Option<PathBuf>,
    },
    /// The module cannot be loaded; the template ends.
    Refused {
        /// Why.
        error: String,
    },
    /// A worker lives.
    Started {
        /// Its number.
        worker: usize,
        /// Its process.
        pid: i32,
    },
    /// A worker could not be made.
    NotStarted {
        /// Its number.
        worker: usize,
        /// Why.
        error: String,
    },
}

/// What an engine is, as `usher-engine about` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of its WasmEdge ("0.17.1").
    pub wasmedge: String,
    /// The names of the WasmEdge plugins that it finds.
    pub plugins: Vec<String>,
    /// Where the one lies that runs models.
    pub models: Option<PathBuf>,
    /// Why functions of WASI cannot be replaced by ours.
    pub wasi: Option<String>,
    /// Whether it can compile modules.
    pub compiles: bool,
    /// Whether this kernel can confine workers to their folders.
    pub landlock: bool,
}
