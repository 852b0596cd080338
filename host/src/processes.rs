//! Starting the engine's processes: the other program of this package, which has WasmEdge in it.

use std::env;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use host::channel::Channel;
use host::protocol::About;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::cli::Level;
use crate::module::Module;

/// The engine's program, which lies beside ours.
const PROGRAM: &str = "usher-engine";

/// Niceness of a compiler in the background: workers get three times as much of a processor (sched(7)), and it
/// still comes to an end where they want all that there is.
const BACKGROUND: libc::c_int = 5;

/// The library that stands in for LLVM where code is only run; empty where there is none.
const STANDIN: &str = env!("USHER_LLVM_STANDIN");

/// What it mostly means that a process was killed and not by us.
pub const WANT_OF_MEMORY: &str =
    "probably by the kernel for want of memory: raise the container's memory limit, or have fewer workers";

/// What a template loads besides the module and WasmEdge.
#[derive(Debug, Clone, Copy)]
pub struct Loading {
    /// LLVM, not what stands in for it.
    pub real_llvm: bool,
    /// The plugins that WasmEdge finds.
    pub plugins: bool,
}

/// The engine: knows how to start each of its processes.
#[derive(Debug, Clone)]
pub struct Engine {
    program: PathBuf,
    background: bool,
}

impl Engine {
    /// The one that lies beside this program.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        let ours = env::current_exe().context("cannot find out where usher lies")?;
        let program = ours.with_file_name(PROGRAM);
        ensure!(
            program.is_file(),
            "{} is missing: it belongs beside usher; build or install both together",
            program.display()
        );
        Ok(Self { program, background: false })
    }

    /// What it is, and what it finds.
    ///
    /// # Errors
    /// If it does not run, such as when there is no WasmEdge, or another one than it was built with.
    pub fn about(&self) -> Result<About> {
        let output = self.command(&["about"]).output().with_context(|| self.lost())?;
        if !output.status.success() {
            bail!(self.broken(output.status, &String::from_utf8_lossy(&output.stderr)));
        }
        // Such as of a plugin that WasmEdge cannot load.
        let _ = io::stderr().write_all(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("{} said nonsense", self.program.display()))
    }

    /// The same, whose compiler leaves the processors to those who serve meanwhile.
    #[must_use]
    pub fn in_background(self) -> Self {
        Self { background: true, ..self }
    }

    /// Compiles a module; what goes wrong is in the error.
    pub fn compile(&self, module: &Module, compiled: &Path, level: Level, generic: bool) -> Result<()> {
        let target = if generic { "generic" } else { "native" };
        let mut command = self.command(&["compile"]);
        // What was read, not what is at the path by now.
        command.arg("/dev/stdin").stdin(module.file.try_clone()?);
        command.arg(compiled).args([level.to_string(), target.to_owned()]);
        end_with_us(&mut command);
        if self.background {
            give_way(&mut command);
        }
        let output = command.output().with_context(|| self.lost())?;
        if !output.status.success() {
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("cannot compile {} ({}):\n{}", module.path.display(), output.status, said.trim_end());
        }
        Ok(())
    }

    /// Starts a template, connected to the channel returned.
    pub fn template(&self, loading: Loading) -> Result<(Child, Channel)> {
        let (ours, theirs) = Channel::pair().context("cannot make a channel")?;
        let mut command = self.command(&["template"]);
        if loading.plugins {
            command.arg("--plugins");
        }
        command.arg(std::process::id().to_string()).stdin(Stdio::from(OwnedFd::from(theirs)));
        if !loading.real_llvm
            && let Some(standin) = standin()
        {
            // Preloaded it is taken for the library that it is called after, wherever that is found.
            command.env("LD_PRELOAD", standin);
        }
        // A group of its own: Ctrl-C in a terminal is for the supervisor alone, which then drains.
        command.process_group(0);
        Ok((command.spawn().with_context(|| self.lost())?, ours))
    }

    /// Why a process of the engine that ended before it said anything did so.
    fn broken(&self, status: ExitStatus, said: &str) -> String {
        if status.signal().is_some() {
            return format!("{} ended: {}", self.program.display(), describe(status));
        }
        format!(
            "{} does not run: {}\nit needs the libwasmedge that it was built with (0.17); build it anew after \
             `cargo xtask setup`, or install that WasmEdge",
            self.program.display(),
            said.trim_end()
        )
    }

    fn lost(&self) -> String {
        format!("cannot start {}", self.program.display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }
}

/// How a process ended, with what a kill mostly means.
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGKILL) => format!("{status}, {WANT_OF_MEMORY}"),
        _ => status.to_string(),
    }
}

/// The library that stands in for LLVM, where there is one.
pub fn standin() -> Option<&'static Path> {
    Some(Path::new(STANDIN)).filter(|path| path.is_file())
}

/// Asks the kernel to end the child with the thread that starts it.
fn end_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

fn give_way(command: &mut Command) {
    // SAFETY: between fork and exec only setpriority(2) is called, a plain system call. That it fails does no
    // harm: a lower priority is always allowed.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_hints_at_memory() {
        let said = |raw| describe(ExitStatus::from_raw(raw));
        assert!(said(libc::SIGKILL).starts_with("signal: 9 (SIGKILL), probably"), "{}", said(libc::SIGKILL));
        for other in [0, 1 << 8, libc::SIGSEGV] {
            assert!(!said(other).contains("memory"), "{}", said(other));
        }
    }
}
