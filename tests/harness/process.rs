//! What a process uses, from /proc.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process uses at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Open descriptors, without the timers and such that a runtime makes when it first needs them.
    pub descriptors: usize,
    /// Processor time so far.
    pub cpu: Duration,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        // Fields after the command, which ends with the last parenthesis; utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Self {
            memory_kib: resident.trim().trim_end_matches(" kB").parse().expect("a number"),
            descriptors: descriptors(pid),
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
        }
    }
}

fn descriptors(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| !target.to_string_lossy().starts_with("anon_inode:")).count()
}

/// A process's share of the memory that is in use (PSS), in KiB. The more processes have the same files, of
/// other tests too, the less it is.
pub fn proportional_kib(pid: u32) -> u64 {
    share_kib(pid, "Pss:")
}

/// The part of that which is in no file, in KiB: shared only with the processes that it was forked from or that
/// were forked from it.
pub fn proportional_anonymous_kib(pid: u32) -> u64 {
    share_kib(pid, "Pss_Anon:")
}

fn share_kib(pid: u32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let share = rollup.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells it");
    share.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Processor time of a process's threads so far, to the nanosecond, where [`Usage`] has clock ticks.
pub fn precise_cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    // A thread may have ended meanwhile. The first number is the time that it ran.
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("schedstat")).ok();
    let stats = threads.filter_map(|thread| of(thread.ok()?));
    let ran = |stat: String| stat.split(' ').next().and_then(|ran| ran.parse().ok()).expect("nanoseconds");
    stats.map(|stat| Duration::from_nanos(ran(stat))).sum()
}

/// Lets this process, and what it starts from now on, open so many descriptors.
pub fn raise_descriptor_limit(least: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < least) {
        let raised = Rlimit { current: Some(least), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap_or_else(|error| {
            panic!("this test opens {least} descriptors, the hard limit is {:?}: {error}", limit.maximum)
        });
    }
}

/// Whether a process may have a view of the mounts of its own: only root's, and not where the root folder is
/// no mount itself, as in a chroot. Says so where not.
pub fn can_have_own_mounts() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        println!("not tried: no process may have mounts of its own here");
    }
    can
}

/// The processes that a process started and that have not ended, each with its title.
pub fn children(pid: u32) -> Vec<(i32, String)> {
    // Each thread has those that it started.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default());
    let lists: Vec<String> = lists.collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap());
    pids.filter_map(|pid: i32| Some((pid, title(pid)?))).collect()
}

/// The title of a process that is there and no zombie.
fn title(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned());
    field("Name:").filter(|_| field("State:").is_some_and(|state| !state.starts_with('Z')))
}
