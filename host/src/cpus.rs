//! How many workers this process may keep busy, and why.

use std::fs;
use std::num::NonZero;
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The processors that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many, rounded down, at least 1.
    pub count: usize,
    /// What bounds it.
    pub reason: &'static str,
}

impl Share {
    /// By affinity and by the quota of the control groups (v1 and v2) that this process is in.
    pub fn of_this_process() -> Self {
        let allowed = affinity().unwrap_or(usize::MAX);
        let usable = thread::available_parallelism().map_or(1, NonZero::get);
        Self::between(usable, allowed, online().unwrap_or(allowed))
    }

    /// `usable` is the least of quota and affinity.
    fn between(usable: usize, allowed: usize, online: usize) -> Self {
        let reason = if usable < allowed {
            "the CPU quota of its control group, rounded down"
        } else if usable < online {
            "the processors that it is allowed to run on"
        } else {
            "one for each processor"
        };
        Self { count: usable, reason }
    }
}

fn affinity() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    Some((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).count())
}

/// The processors of the machine, whoever may use them.
fn online() -> Option<usize> {
    Some(count(&fs::read_to_string("/proc/stat").ok()?)).filter(|count| *count > 0)
}

/// The lines about single processors, such as "cpu0 …" (proc(5)).
fn count(stat: &str) -> usize {
    let numbers = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    numbers.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_bounds_it() {
        assert!(Share::between(1, 8, 8).reason.contains("quota"));
        assert!(Share::between(2, 2, 8).reason.contains("allowed"));
        assert!(Share::between(8, 8, 8).reason.contains("each processor"));
    }

    #[test]
    fn processors_are_counted_and_their_sum_is_not() {
        assert_eq!(count("cpu  1 2 3\ncpu0 1 2 3\ncpu1 0 0 0\nintr 7\ncpu_of_the_future 1\n"), 2);
        assert_eq!(count(""), 0);
        assert!(online().unwrap() >= 1);
    }
}
