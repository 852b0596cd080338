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
    count(fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim())
}

/// How many there are in a list like "0-3,5" (cpuset(7), "List format").
fn count(list: &str) -> Option<usize> {
    let mut total = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        total += (last + 1).checked_sub(first)?;
    }
    Some(total)
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
    fn lists_of_processors_are_counted() {
        assert_eq!(count("0-1"), Some(2));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-3,5,8-9"), Some(7));
        assert_eq!(count(""), None);
        assert_eq!(count("9-1"), None);
    }
}
