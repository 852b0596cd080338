//! A worker: one process, one instance of the module.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use host::channel::Channel;
use host::protocol::{Guest, Limits, PAGE_BYTES, Plan, Report};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Pid, dup2_stdin, getpid};
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sdk::{Store, Vm, WasmValue};

use crate::code::Code;
use crate::confine::confine;
use crate::extension;
use crate::locks;
use crate::template::{end_with, set_title};
use crate::wasi;

/// One worker to be made.
#[derive(Debug)]
pub struct Task {
    /// Its number.
    pub worker: usize,
    /// What is in its environment alone.
    pub environment: Vec<String>,
    /// Its listeners.
    pub sockets: Sockets,
}

/// The listeners of a worker.
#[derive(Debug)]
pub struct Sockets {
    /// Where clients come from.
    pub public: OwnedFd,
    /// Where the supervisor comes from.
    pub control: OwnedFd,
}

impl TryFrom<Vec<OwnedFd>> for Sockets {
    type Error = anyhow::Error;

    fn try_from(descriptors: Vec<OwnedFd>) -> Result<Self> {
        let [public, control] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|descriptors| anyhow!("a worker needs 2 descriptors, and {} came", descriptors.len()))?;
        Ok(Self { public, control })
    }
}

/// Runs the guest to its end, in a process that was just forked, and returns its exit code.
///
/// # Errors
/// If the guest cannot be started, or trapped.
pub fn run(task: Task, channel: &Channel, code: &Code, plan: &Plan, supervisor: Pid) -> Result<i32> {
    end_with(supervisor)?;
    set_title(&format!("usher: worker {}", task.worker))?;
    channel.send(&Report::Started { worker: task.worker, pid: getpid().as_raw() }, &[])?;
    // The way to the supervisor is the template's.
    dup2_stdin(File::open("/dev/null").context("cannot open /dev/null")?)?;
    if let Some(most) = plan.limits.open_files {
        limit_open_files(most)?;
    }
    if plan.limits.confined {
        confine(&plan.guest.folders)?;
    }
    // SAFETY: no lock is held: nothing of WasmEdge runs now, or when one of its plugins would start a thread.
    unsafe { locks::leave_out() };
    let mut given = plan.guest.clone();
    given.environment.extend(task.environment);
    guest(&given, &task.sockets, code, plan.limits)
}

fn limit_open_files(most: u64) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot limit open files")
}

fn guest(given: &Guest, sockets: &Sockets, code: &Code, limits: Limits) -> Result<i32> {
    let (public, control) = (sockets.public.as_raw_fd(), sockets.control.as_raw_fd());
    let mut wasi = wasi::Wasi::new(given, public, control)?;
    let mut extension = extension::module()?;
    let instances: HashMap<String, &mut dyn SyncInst> =
        [(wasi::MODULE.to_owned(), &mut wasi as &mut dyn SyncInst), (extension::NAME.to_owned(), &mut *extension)]
            .into();
    let mut store = Store::new(Some(&code.config), instances)?;
    wasi::hooks::clear(store.executor())?;
    let mut vm = Vm::new(store);
    vm.register_module(None, code.module.clone()).with_context(|| {
        let bytes = u64::from(limits.memory_pages) * PAGE_BYTES;
        format!("the module cannot be instantiated; it may take {bytes} bytes of memory (--memory, USHER_MEMORY)")
    })?;
    let ended = vm.run_func(None, "_start", std::iter::empty::<WasmValue>());
    drop(vm);
    // WasmEdge reports `proc_exit` as a success, too.
    ended.context("the guest trapped")?;
    Ok(wasi.exit_code())
}
