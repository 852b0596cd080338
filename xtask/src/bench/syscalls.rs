//! How many system calls a request costs, counted by strace.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use super::cpu::runs;
use crate::process::end_with_us;

/// How long strace may take to attach itself.
const ATTACH: Duration = Duration::from_secs(10);

/// How long a process may take to end.
const END: Duration = Duration::from_secs(2);

/// Between one look and the next.
const LOOK: Duration = Duration::from_millis(10);

/// What a tracer found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Syscalls {
    /// So many for each request.
    PerRequest(f64),
    /// The process does not survive a tracer.
    Dies,
}

/// Counts the system calls of a process while `work` is done, which tells the number of its requests.
pub fn count(pid: u32, work: impl FnOnce() -> Result<u64>) -> Result<Syscalls> {
    let summary = NamedTempFile::new().context("cannot make a temporary file")?;
    let mut tracer = Tracer::start(pid, &summary)?;
    if !tracer.attached(pid)? {
        return Ok(Syscalls::Dies);
    }
    let requests = work();
    tracer.finish()?;
    // Without a process to answer them, that requests failed tells nothing more. It closes its sockets
    // before it is gone.
    if !runs(pid) || (requests.is_err() && ends(pid)) {
        return Ok(Syscalls::Dies);
    }
    let text = fs::read_to_string(summary.path()).context("cannot read strace's summary")?;
    let calls = calls_in(&text).with_context(|| format!("strace's summary has no total:\n{text}"))?;
    Ok(Syscalls::PerRequest(calls as f64 / requests? as f64))
}

/// strace, ended with its last owner.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        // With its children: at its start it makes one to try out how it may trace, and that one waits to be killed.
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

impl Tracer {
    fn start(pid: u32, summary: &NamedTempFile) -> Result<Self> {
        let mut strace = Command::new("strace");
        strace.args(["--follow-forks", "--summary-only", "--attach", &pid.to_string(), "--output"]);
        strace.arg(summary.path()).stdin(Stdio::null()).stdout(Stdio::null());
        // What it says of threads is of no interest; why it could not attach itself is, and stays short.
        strace.arg("--quiet=attach,exit").stderr(Stdio::inherit());
        strace.process_group(0);
        end_with_us(&mut strace);
        Ok(Self(strace.spawn().context("cannot start strace")?))
    }

    /// Waits until it traces a process; false when that dies of it.
    fn attached(&mut self, pid: u32) -> Result<bool> {
        let deadline = Instant::now() + ATTACH;
        while !traced(pid) {
            if !runs(pid) {
                return Ok(false);
            }
            if let Some(status) = self.0.try_wait().context("strace is lost")? {
                // The process may have gone between the two looks, and strace with it.
                ensure!(!runs(pid), "strace ended by itself ({status}), and says why above: {}", FIX);
                return Ok(false);
            }
            ensure!(Instant::now() < deadline, "strace does not attach itself to process {pid}");
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Has it write its summary.
    fn finish(&mut self) -> Result<()> {
        if self.0.try_wait().context("strace is lost")?.is_none() {
            let pid = i32::try_from(self.0.id()).context("a process id beyond the system's own")?;
            kill(Pid::from_raw(pid), Signal::SIGINT).context("cannot signal strace")?;
        }
        self.0.wait().context("strace is lost")?;
        Ok(())
    }
}

/// Waits for the end of a process that may be ending; false when it goes on.
fn ends(pid: u32) -> bool {
    let deadline = Instant::now() + END;
    while runs(pid) && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    !runs(pid)
}

/// What to do where one process may not trace another.
const FIX: &str = "where the system forbids it, root may, or anyone after `sysctl kernel.yama.ptrace_scope=0`";

fn traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// The number at the end of the column "calls" in the last line.
fn calls_in(summary: &str) -> Option<u64> {
    let header = summary.lines().find(|line| line.contains("calls"))?;
    let end = header.find("calls")? + "calls".len();
    let total = summary.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.get(..end)?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.76    0.214583           5     40213           write
 38.10    0.132376           3     40260        47 read
  0.14    0.000485           3       128           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.347444           4     80601        47 total
";

    #[test]
    fn the_total_is_the_one_of_calls_with_errors_and_without() {
        assert_eq!(calls_in(SUMMARY).unwrap(), 80601);
        let without = SUMMARY.replace("80601        47 total", "80601           total");
        assert_eq!(calls_in(&without).unwrap(), 80601);
        assert_eq!(calls_in(""), None);
    }

    #[test]
    fn calls_of_a_process_are_counted_and_one_that_has_ended_has_none() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (cat.stdin.take().unwrap(), BufReader::new(cat.stdout.take().unwrap()));
        let mut echo = || {
            let mut line = String::new();
            input.write_all(b"x\n").unwrap();
            output.read_line(&mut line).unwrap();
        };
        let pid = cat.id();
        let counted = count(pid, || {
            (0..100).for_each(|_| echo());
            Ok(100)
        });
        // A read and a write for each. The reads that it waits in when strace comes and goes may be counted or not.
        assert!(matches!(counted, Ok(Syscalls::PerRequest(each)) if (1.98..=2.02).contains(&each)), "{counted:?}");
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert_eq!(count(pid, || panic!("there is nothing to do")).unwrap(), Syscalls::Dies);
    }
}
