//! A guest whose process is stopped and goes on, or is looked into: both interrupt what WasmEdge waits for.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::{Connections, Load, Runtime, Service, eventually, wire};
use rustix::process::{Pid, Signal, kill_process};

const TIMES: usize = 20;

on_every_runtime!(
    a_service_that_is_stopped_and_continued_under_load_answers_everything,
    a_service_that_is_stopped_and_continued_at_rest_answers_afterwards,
    a_service_that_is_traced_under_load_answers_everything,
    a_service_that_is_traced_at_rest_answers_afterwards,
    a_service_that_is_frozen_under_load_answers_everything,
    a_service_that_is_frozen_at_rest_answers_afterwards,
);

/// What the kernel says about a process.
fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim_start_matches(':').trim().to_owned()
}

fn interrupt(service: &Service) {
    service.signal(Signal::STOP);
    eventually("the process stops", || status(service.pid(), "State").starts_with('T').then_some(()));
    service.signal(Signal::CONT);
    eventually("the process goes on", || (!status(service.pid(), "State").starts_with('T')).then_some(()));
}

/// Clients of both kinds, and one that says nothing until the end.
fn under_load(runtime: Runtime, disturb: impl Fn(&Service)) {
    let mut service = Service::builder(runtime).start();
    let pid = service.pid();
    let mut silent = service.connect();
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 4, kind));
    for _ in 0..TIMES {
        disturb(&service);
        loads.iter().for_each(|load| load.answers(2));
    }
    let failures: Vec<_> = loads.into_iter().flat_map(|load| load.finish().failures).collect();
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(silent.request(wire::get("/api/users")).unwrap().status, 200);
    assert!(service.is_running());
    assert_eq!(service.pid(), pid);
}

/// A guest at rest is always in a poll, and has nothing to hide a broken one behind.
fn at_rest(runtime: Runtime, disturb: impl Fn(&Service)) {
    let mut service = Service::builder(runtime).start();
    let mut silent = service.connect();
    for _ in 0..TIMES {
        disturb(&service);
        assert_eq!(service.get("/livez").status, 200);
        // Twice before anything else happens.
        disturb(&service);
    }
    assert_eq!(silent.request(wire::get("/api/users")).unwrap().status, 200);
    assert!(service.is_running());
}

fn a_service_that_is_stopped_and_continued_under_load_answers_everything(runtime: Runtime) {
    under_load(runtime, interrupt);
}

fn a_service_that_is_stopped_and_continued_at_rest_answers_afterwards(runtime: Runtime) {
    at_rest(runtime, interrupt);
}

fn a_service_that_is_traced_under_load_answers_everything(runtime: Runtime) {
    if traceable() {
        under_load(runtime, look_into);
    }
}

fn a_service_that_is_traced_at_rest_answers_afterwards(runtime: Runtime) {
    if traceable() {
        at_rest(runtime, look_into);
    }
}

fn a_service_that_is_frozen_under_load_answers_everything(runtime: Runtime) {
    if Freezer::exists() {
        under_load(runtime, freeze);
    }
}

fn a_service_that_is_frozen_at_rest_answers_afterwards(runtime: Runtime) {
    if Freezer::exists() {
        at_rest(runtime, freeze);
    }
}

/// Freezes the process by its control group, as container engines pause one, and thaws it.
fn freeze(service: &Service) {
    let freezer = Freezer::around(service.pid());
    freezer.set("FROZEN");
    freezer.set("THAWED");
}

/// A control group (v1) with one process in it, which leaves it with the test.
struct Freezer {
    folder: PathBuf,
    pid: u32,
}

impl Freezer {
    const ROOT: &str = "/sys/fs/cgroup/freezer";

    /// Where there are no such groups, or they may not be made, there is nothing to find out.
    fn exists() -> bool {
        let usable = fs::File::options().write(true).open(format!("{}/cgroup.procs", Self::ROOT)).is_ok();
        if !usable {
            println!("there are no control groups to freeze, or they may not be made");
        }
        usable
    }

    fn around(pid: u32) -> Self {
        let folder = PathBuf::from(format!("{}/usher-{pid}", Self::ROOT));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        Self { folder, pid }
    }

    fn set(&self, state: &str) {
        let file = self.folder.join("freezer.state");
        fs::write(&file, state).unwrap();
        eventually("the group has changed", || (fs::read_to_string(&file).unwrap().trim() == state).then_some(()));
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // Only a group that is thawed lets its processes go.
        let _ = fs::write(self.folder.join("freezer.state"), "THAWED");
        let _ = fs::write(format!("{}/cgroup.procs", Self::ROOT), self.pid.to_string());
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Where there is no strace, or it may not look into other processes, there is nothing to find out.
fn traceable() -> bool {
    let status = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let traceable = status.is_ok_and(|status| status.success());
    if !traceable {
        println!("strace is missing, or not allowed");
    }
    traceable
}

/// Attaches to the process, and leaves it.
fn look_into(service: &Service) {
    let pid = service.pid();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]).stderr(Stdio::null());
    let mut strace = strace.spawn().unwrap();
    eventually("the process is traced, or may not be", || {
        (status(pid, "TracerPid") != "0" || strace.try_wait().unwrap().is_some()).then_some(())
    });
    // It may have ended already.
    let _ = kill_process(Pid::from_child(&strace), Signal::INT);
    strace.wait().unwrap();
    eventually("the process is left alone", || (status(pid, "TracerPid") == "0").then_some(()));
}
