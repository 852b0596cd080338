//! What a process has used of its processor, from /proc.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Processor time of a process, all threads together, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    pub user: f64,
    pub kernel: f64,
}

impl Cpu {
    /// What a running process has used so far.
    pub fn of(pid: u32) -> Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().context("the system does not tell its clock's rate")?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the service has ended")?;
        Self::in_stat(&stat, ticks as f64).context("/proc/PID/stat has another form than it should have")
    }

    /// What was used since an earlier moment, for each of so many requests.
    pub fn each_since(self, before: Self, requests: u64) -> Self {
        let each = |now: f64, then: f64| (now - then) / requests as f64;
        Self { user: each(self.user, before.user), kernel: each(self.kernel, before.kernel) }
    }

    fn in_stat(stat: &str, ticks_per_second: f64) -> Option<Self> {
        // The name may have anything in it; what follows are the fields from the third on.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || Some(times.next()?.ok()? as f64 * 1e6 / ticks_per_second);
        Some(Self { user: next()?, kernel: next()? })
    }
}

/// Whether a process is there, and not one that has ended and is only still listed.
pub fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{self, Command};

    const STAT: &str = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 250 0 0 20 0 1 0 12345 0 0";

    #[test]
    fn times_are_found_whatever_the_name_has_in_it() {
        assert_eq!(Cpu::in_stat(STAT, 100.0).unwrap(), Cpu { user: 1.5e6, kernel: 2.5e6 });
        assert_eq!(Cpu::in_stat("4711 (a) S 1 2", 100.0), None);
    }

    #[test]
    fn each_request_has_its_part_of_the_difference() {
        let before = Cpu { user: 100.0, kernel: 50.0 };
        let after = Cpu { user: 300.0, kernel: 450.0 };
        assert_eq!(after.each_since(before, 100), Cpu { user: 2.0, kernel: 4.0 });
    }

    #[test]
    fn a_process_runs_until_it_has_ended() {
        assert!(runs(process::id()));
        assert!(Cpu::of(process::id()).is_ok());
        let mut child = Command::new("cat").stdin(process::Stdio::piped()).spawn().unwrap();
        assert!(runs(child.id()));
        child.wait().unwrap();
        assert!(!runs(child.id()));
    }
}
