//! The process that workers are forked from: it has loaded WasmEdge and the module once for all.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process;

use anyhow::{Context, Result, bail};
use host::channel::Channel;
use host::protocol::{Order, Plan, Report, TRAPPED};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, dup2_stdout, getppid};
use wasmedge_sdk::utils::CoreVersion;

use crate::code::Code;
use crate::extension;
use crate::trim;
use crate::worker::{self, Sockets, Task};

/// Makes workers by order of the supervisor, which is connected to standard input, until it is gone.
pub fn run(supervisor: i32, plugins: bool) -> Result<()> {
    let supervisor = Pid::from_raw(supervisor);
    end_with(supervisor)?;
    set_title("usher: template")?;
    // What WasmEdge has to say goes where the guest's log goes; standard output is the supervisor's.
    dup2_stdout(io::stderr())?;
    let channel = Channel::from(io::stdin().as_fd().try_clone_to_owned()?);
    channel.send(&Report::Hello { wasmedge: CoreVersion::version_string() }, &[])?;
    // While the supervisor reads the module.
    let models = if plugins { extension::load()? } else { None };
    let Some((Order::Load(plan), files)) = channel.receive()? else {
        bail!("the supervisor gave no module");
    };
    let file = files.into_iter().next().map(File::from).context("no code came with the module")?;
    let code = match Code::load(&plan, &file) {
        Ok(code) => code,
        Err(error) => return Ok(channel.send(&Report::Refused { error: format!("{error:#}") }, &[])?),
    };
    drop(file);
    channel.send(&Report::Loaded { models }, &[])?;
    trim::file_pages()?;
    while let Some((order, descriptors)) = channel.receive()? {
        match order {
            Order::Fork { worker, environment } => {
                let task = Task { worker, environment, sockets: Sockets::try_from(descriptors)? };
                make(task, &channel, &code, &plan, supervisor)?;
            }
            Order::Load(_) => bail!("a template loads one module only"),
        }
    }
    Ok(())
}

/// Makes one worker. Returns in the template only.
fn make(task: Task, channel: &Channel, code: &Code, plan: &Plan, supervisor: Pid) -> Result<()> {
    match fork_sibling() {
        Err(error) => channel.send(&Report::NotStarted { worker: task.worker, error: error.to_string() }, &[])?,
        Ok(Forked::Template) => {}
        Ok(Forked::Worker) => {
            let code = worker::run(task, channel, code, plan, supervisor).unwrap_or_else(|error| {
                let _ = writeln!(io::stderr(), "error: {error:#}");
                TRAPPED
            });
            // SAFETY: ends the process; what it shares with the template (buffers, exit handlers) is not
            // touched, which is the point.
            unsafe { libc::_exit(code) }
        }
    }
    Ok(())
}

enum Forked {
    Template,
    Worker,
}

/// Forks a child that is the supervisor's, as this process is: it is told of its end, and the kernel
/// ends it with the supervisor.
fn fork_sibling() -> io::Result<Forked> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork(2), and this process has one thread, so that the child finds every lock free. No
    // pointer is given.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Worker),
        _ => Ok(Forked::Template),
    }
}

/// Asks the kernel to kill this process when the supervisor is gone, however it went.
pub fn end_with(supervisor: Pid) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    // It may have gone before the kernel was asked.
    if getppid() != supervisor {
        process::exit(0);
    }
    Ok(())
}

/// What `ps -o comm` and `top` show; the kernel keeps 15 bytes of it.
pub fn set_title(title: &str) -> Result<()> {
    let title = std::ffi::CString::new(title)?;
    prctl::set_name(&title).context("PR_SET_NAME")
}
