//! usher's own `poll_oneoff`: what a guest waits by.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{
    Builder, Connections, Database, Load, Raw, Runtime, Service, Usage, eventually, long, raise_descriptor_limit, wire,
    within,
};
use rustix::process::{Pid, Signal, kill_process};

fn usher() -> Builder {
    Service::builder(Runtime::Usher).env("LOG_LEVEL", "warn")
}

/// The only worker's process.
fn worker(service: &Service) -> Pid {
    Pid::from_raw(service.ready_workers(1)[0].pid).unwrap()
}

fn usage(worker: Pid) -> Usage {
    Usage::of(u32::try_from(worker.as_raw_nonzero().get()).unwrap())
}

/// Asserts that a process does nothing for half a second.
fn assert_quiet(worker: Pid) {
    let before = usage(worker).cpu;
    let never = within(Duration::from_millis(500), || None::<()>);
    let busy = usage(worker).cpu - before;
    assert!(never.is_none() && busy <= Duration::from_millis(50), "{busy:?} of half a second");
}

fn interrupt(service: &Service, loads: &[Load]) {
    let worker = worker(service);
    for _ in 0..20 {
        kill_process(worker, Signal::STOP).unwrap();
        kill_process(worker, Signal::CONT).unwrap();
        loads.iter().for_each(|load| load.answers(5));
    }
}

#[test]
fn twenty_interruptions_under_load_do_no_harm() {
    let database = Database::start();
    for builder in [usher(), usher().arg("--workers=1").env("DATABASE_URL", database.url())] {
        let service = builder.start();
        let before = service.ready_workers(1);
        let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 8, kind));
        interrupt(&service, &loads);
        for load in loads {
            let tally = load.finish();
            assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
        }
        assert_eq!(service.get("/api/users").status, 200);
        assert_eq!(service.workers(), before);
    }
}

#[test]
fn times_are_kept_by_a_worker_that_is_stopped_and_continued() {
    const LIMIT: Duration = Duration::from_secs(1);
    let service = usher().env("HEAD_TIMEOUT", "1s").start();
    let worker = worker(&service);
    let since = Instant::now();
    let mut connection = service.connect();
    connection.send(b"GET / HTTP/1.1\r\n").unwrap();
    connection.socket().set_nonblocking(true).unwrap();
    let mut stops = 0;
    eventually("it is answered", || {
        kill_process(worker, Signal::STOP).unwrap();
        kill_process(worker, Signal::CONT).unwrap();
        stops += 1;
        connection.socket().peek(&mut [0]).ok()
    });
    let took = since.elapsed();
    connection.socket().set_nonblocking(false).unwrap();
    assert_eq!(connection.reply().unwrap().status, 408);
    assert!(stops >= 20, "{stops}");
    assert!((LIMIT..2 * LIMIT).contains(&took), "{took:?}, stopped {stops} times");
}

#[test]
fn wasmedges_own_poll_can_be_had_instead() {
    let service = usher().arg("--poll=wasmedge").start();
    let load = Load::start(service.address(), 4, Connections::Kept);
    interrupt(&service, &[load]);
    assert_eq!(service.get("/api/users").status, 200);
}

#[test]
fn thousands_of_connections_that_are_reset_leave_nothing_behind() {
    raise_descriptor_limit(6000);
    let service = usher().start();
    let worker = worker(&service);
    let before = usage(worker).descriptors;
    let mut connections: Vec<Raw> = (0..2000).map(|_| service.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.request(wire::get("/api/health")).unwrap().status, 200);
    }
    for connection in &connections {
        rustix::net::sockopt::set_socket_linger(connection.socket(), Some(Duration::ZERO)).unwrap();
    }
    drop(connections);
    eventually("all are closed", || (usage(worker).descriptors <= before).then_some(()));
    assert_quiet(worker);
    service.assert_alive();
}

#[test]
fn connections_that_are_idle_or_not_read_do_not_keep_it_awake() {
    let service = usher().start();
    for number in 0..200 {
        service.add_user(&"n".repeat(200), &format!("{number}@example.org"));
    }
    let mut idle: Vec<Raw> = (0..100).map(|_| service.connect()).collect();
    for connection in &mut idle {
        assert_eq!(connection.request(wire::get("/api/health")).unwrap().status, 200);
    }
    // Pages until nothing more goes through, and a client that has more to say than is read.
    let mut slow: Vec<Raw> = (0..4).map(|_| service.connect()).collect();
    for connection in &mut slow {
        connection.socket().set_nonblocking(true).unwrap();
        let request = wire::get("/api/users?page_size=100").repeat(50);
        within(Duration::from_millis(500), || connection.send(&request).is_err().then_some(()));
    }
    service.assert_alive();
    assert_quiet(worker(&service));
    drop(slow);
    service.assert_alive();
}

#[test]
fn many_short_connections_leave_no_trace() {
    let connections = if long() { 76_000 } else { 4_000 };
    let service = usher().start();
    let worker = worker(&service);
    let load = Load::start(service.address(), 4, Connections::Fresh);
    load.answers(1000);
    let before = usage(worker).memory_kib;
    load.answers(connections);
    assert_eq!(load.finish().failures, [""; 0]);
    let after = usage(worker).memory_kib;
    assert!(after < before + 2048, "{before} KiB before, {after} after");
}

/// Counts the system calls of a process while `work` is done.
fn system_calls(worker: Pid, work: impl FnOnce()) -> usize {
    let summary = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace")
        .args(["-c", "-p", &worker.as_raw_nonzero().to_string(), "-o"])
        .arg(summary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed");
    let traced = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.as_raw_nonzero())).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    };
    eventually("it is traced", traced);
    work();
    kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    strace.wait().unwrap();
    let text = std::fs::read_to_string(summary.path()).unwrap();
    calls_in(&text)
}

/// The column "calls" of the last line.
fn calls_in(summary: &str) -> usize {
    let header = summary.lines().find(|line| line.contains("calls")).unwrap();
    let end = header.find("calls").unwrap() + "calls".len();
    let total = summary.lines().find(|line| line.trim_end().ends_with("total")).unwrap();
    total[..end].split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_request_costs_few_system_calls_however_many_connections_are_idle() {
    const REQUESTS: usize = 4000;
    const PATIENCE: Duration = Duration::from_secs(20);
    raise_descriptor_limit(4000);
    let service = usher().start();
    let worker = worker(&service);
    let mut idle = Vec::new();
    for count in [0, 1000] {
        while idle.len() < count {
            let mut connection = service.connect();
            assert_eq!(connection.request(wire::get("/api/health")).unwrap().status, 200);
            idle.push(connection);
        }
        let load = Load::start(service.address(), 16, Connections::Kept);
        load.answers(200);
        let mut each = f64::INFINITY;
        // Where the clients get no processor for a moment, the worker waits for each request alone, which is a call more.
        let few = within(PATIENCE, || {
            let mut answered = 0;
            let calls = system_calls(worker, || {
                let before = load.answered();
                load.answers(REQUESTS);
                answered = load.answered() - before;
            });
            each = calls as f64 / answered as f64;
            (each <= 2.5).then_some(())
        });
        assert!(few.is_some(), "{each} calls a request with {count} idle connections");
        assert_eq!(load.finish().failures, [""; 0]);
    }
}
