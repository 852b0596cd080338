//! How many workers there are without `--workers`: as many as this process may keep busy.

use std::fs;

use harness::{Builder, Runtime, Service, can_have_own_mounts, eventually};

/// Nobody is there, which is no matter here: a database can have many writers.
const DATABASE: &str = "mysql://app:pw@127.0.0.1:1/users";

fn usher() -> Builder {
    Service::builder(Runtime::Usher).env("DATABASE_URL", DATABASE)
}

fn assert_workers(builder: Builder, count: usize, reason: &str) {
    let service = builder.start();
    service.ready_workers(count);
    let plural = if count == 1 { "" } else { "s" };
    let line = format!("{count} worker{plural}: {reason}");
    eventually("it says how many and why", || service.stdout().contains(&line).then_some(()));
}

fn processors() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn one_for_each_processor_where_nothing_bounds_it() {
    assert_workers(usher(), processors(), "one for each processor");
}

#[test]
fn only_those_that_it_may_run_on() {
    assert_workers(usher().shell("taskset -pc 0 $$ > /dev/null"), 1, "the processors that it is allowed to run on");
}

#[test]
fn the_flag_outweighs_everything() {
    let builder = usher().shell("taskset -pc 0 $$ > /dev/null").arg("--workers=3");
    assert_workers(builder, 3, "as --workers says");
}

/// A control group of its own (v1), with a quota in thousandths of a processor; gone with the test.
struct Group(String);

impl Group {
    fn new(name: &str, quota: u32) -> Self {
        let path = format!("/sys/fs/cgroup/cpu/usher-{name}-{}", std::process::id());
        fs::create_dir(&path).unwrap();
        fs::write(format!("{path}/cpu.cfs_period_us"), "100000").unwrap();
        fs::write(format!("{path}/cpu.cfs_quota_us"), (quota * 100).to_string()).unwrap();
        Self(path)
    }

    fn joined(&self, builder: Builder) -> Builder {
        builder.shell(&format!("echo $$ > {}/cgroup.procs", self.0))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be busy with the processes that have just ended in it.
        eventually("the group is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_quota_is_rounded_down_but_to_one_at_least() {
    if fs::File::options().write(true).open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").is_err() {
        println!("not tried: there is no control group of version 1 that this user may change");
        return;
    }
    for (name, quota) in [("tiny", 200), ("one-and-a-half", 1500)] {
        let group = Group::new(name, quota);
        assert_workers(group.joined(usher()), 1, "the CPU quota of its control group, rounded down");
    }
    let group = Group::new("ample", 64_000);
    assert_workers(group.joined(usher()), processors(), "one for each processor");
}

/// In a view of its own of what the kernel tells: a machine whose control groups are of version 2.
fn with_quota_of_version_2(quota: &str) -> Builder {
    let view = format!(
        "mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && echo cpu > cgroup.controllers \
         && echo {quota} 100000 > cpu.max && echo 0::/ > ours \
         && mount --bind ours /proc/$$/cgroup && cd - > /dev/null"
    );
    // What comes after has the same process number, so that it sees the same.
    usher().shell(&format!("exec unshare --mount sh -c '{view} && exec \"$@\"' service \"$@\""))
}

#[test]
fn a_quota_of_version_2_counts_as_well() {
    if !can_have_own_mounts() {
        return;
    }
    assert_workers(with_quota_of_version_2("150000"), 1, "the CPU quota of its control group, rounded down");
    assert_workers(with_quota_of_version_2("max"), processors(), "one for each processor");
}
