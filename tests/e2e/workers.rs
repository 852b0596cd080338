//! Workers under usher: how connections are spread, and what happens when processes die.

use std::fs;
use std::time::{Duration, Instant};

use harness::{
    Builder, Connections, Database, Load, Raw, Runtime, Service, Usage, children, eventually, proportional_kib, shared,
    wire, within,
};
use rustix::process::{Pid, Signal, kill_process};

/// A service with two workers; the database ends after it.
struct Two {
    service: Service,
    _database: Database,
}

impl Two {
    fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    /// With more settings.
    fn start_with(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let database = Database::start();
        let service = settings(shared(2, &database)).start();
        service.ready_workers(2);
        Self { service, _database: database }
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether a process is there and not a zombie.
fn lives(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// The template, found by its title among the children of usher.
fn template(service: &Service) -> Option<i32> {
    children(service.pid()).into_iter().find(|(_, title)| title == "usher: template").map(|(pid, _)| pid)
}

#[test]
fn connections_are_spread_evenly() {
    let two = Two::start();
    let workers = two.service.workers();
    let open = |pid: i32| Usage::of(u32::try_from(pid).unwrap()).descriptors;
    let before: Vec<usize> = workers.iter().map(|worker| open(worker.pid)).collect();
    let mut connections: Vec<Raw> = (0..64).map(|_| two.service.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.request(wire::get("/api/health")).unwrap().status, 200);
    }
    let shares: Vec<usize> = workers.iter().zip(before).map(|(worker, before)| open(worker.pid) - before).collect();
    assert_eq!(shares.iter().sum::<usize>(), 64, "{shares:?}");
    assert!(shares.iter().all(|share| *share >= 16), "{shares:?}");
}

#[test]
fn usher_is_ready_until_all_workers_have_as_many_connections_as_they_can_take() {
    const LIMIT: usize = 4;
    let two = Two::start_with(|builder| builder.env("MAX_CONNECTIONS", LIMIT));
    let readiness = || two.service.ask_usher("GET", "/readyz");
    let mut held = Vec::new();
    while held.len() < 2 * LIMIT {
        assert_eq!(readiness().status, 200, "{} are held", held.len());
        held.push(eventually("a worker takes one more", || {
            let mut connection = two.service.connect();
            (connection.request(wire::get("/api/users")).unwrap().status == 200).then_some(connection)
        }));
    }
    let reply = readiness();
    assert_eq!(reply.expect(503)["detail"], "the server has as many connections as it can take");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(two.service.ask_usher("GET", "/livez").status, 200);
    two.service.assert_alive();
    drop(held);
    eventually("it is ready again", || (readiness().status == 200).then_some(()));
}

#[test]
fn a_reload_is_not_held_up_by_clients_who_fill_the_new_workers() {
    let two = Two::start_with(|builder| builder.env("MAX_CONNECTIONS", 2).arg("--reload-timeout=5s"));
    // What they are refused is not of interest here.
    let load = Load::start(two.service.address(), 32, Connections::Fresh);
    for _ in 0..3 {
        load.answers(10);
        two.service.ask_usher("POST", "/reload").expect(200);
    }
    load.finish();
}

#[test]
fn processes_say_what_they_are_and_log_lines_which_worker_wrote_them() {
    let two = Two::start();
    assert!(template(&two.service).is_some());
    for worker in two.service.workers() {
        let title = fs::read_to_string(format!("/proc/{}/comm", worker.pid)).unwrap();
        assert_eq!(title.trim(), format!("usher: worker {}", worker.number));
    }
    let database = Database::start();
    for (format, sign) in [("text", "worker{number=1}"), ("json", r#""span":{"number":1,"name":"worker"}"#)] {
        let service = Service::builder(Runtime::Usher)
            .arg("--workers=2")
            .env("DATABASE_URL", database.url())
            .env("LOG_FORMAT", format)
            .start();
        eventually("the worker's number is in its lines", || service.log().contains(sign).then_some(()));
    }
}

#[test]
fn two_workers_and_all_that_they_need_fit_into_25_megabytes() {
    let two = Two::start();
    for _ in 0..20 {
        assert_eq!(two.service.get("/api/users").status, 200);
    }
    let usher = i32::try_from(two.service.pid()).unwrap();
    let all =
        two.service.workers().into_iter().map(|worker| worker.pid).chain([usher, template(&two.service).unwrap()]);
    let shares: Vec<u64> = all.map(|pid| proportional_kib(pid.unsigned_abs())).collect();
    assert!(shares.iter().sum::<u64>() < 25_000_000 / 1024, "KiB: {shares:?}");
}

#[test]
fn a_killed_worker_is_replaced_at_once_and_costs_only_what_it_had_in_flight() {
    const CLIENTS: usize = 4;
    let two = Two::start();
    let loads =
        [Connections::Kept, Connections::Fresh].map(|kind| Load::start(two.service.address(), CLIENTS / 2, kind));
    let mut replaced = Vec::new();
    for victim in [0, 1, 0, 1] {
        loads.iter().for_each(|load| load.answers(50));
        let pid = two.service.ready_workers(2)[victim].pid;
        signal(pid, Signal::KILL);
        let killed = Instant::now();
        eventually("another one is ready", || {
            let workers = two.service.workers();
            (workers.len() == 2 && workers.iter().all(|w| w.state == "ready" && w.pid != pid)).then_some(())
        });
        replaced.push(killed.elapsed());
        loads.iter().for_each(|load| load.answers(50));
    }
    let failures: Vec<String> = loads.into_iter().flat_map(|load| load.finish().failures).collect();
    // One request at most of each client was in flight each time.
    assert!(failures.len() <= 4 * CLIENTS, "{failures:?}");
    // The machine may be busy for a moment, but no pause of ours is in all of them.
    assert!(replaced.iter().any(|time| *time < Duration::from_millis(100)), "{replaced:?}");
    let restarts: Vec<u64> = two.service.workers().iter().map(|worker| worker.restarts).collect();
    assert_eq!(restarts, [2, 2]);
    let told =
        "was ended by SIGKILL (signal 9), probably by the kernel for want of memory: raise the container's memory";
    assert_eq!(two.service.log().matches(told).count(), 4, "{}", two.service.log());
}

#[test]
fn what_waits_in_the_slot_of_a_killed_worker_is_answered_by_the_next() {
    let two = Two::start();
    let workers = two.service.workers();
    workers.iter().for_each(|worker| signal(worker.pid, Signal::STOP));
    let mut queued: Vec<Raw> = (0..20).map(|_| two.service.connect()).collect();
    for connection in &mut queued {
        connection.send(wire::get("/api/health")).unwrap();
    }
    workers.iter().for_each(|worker| signal(worker.pid, Signal::KILL));
    for connection in &mut queued {
        assert_eq!(connection.reply().unwrap().status, 200);
    }
}

#[test]
fn workers_are_replaced_under_load_without_a_failed_request() {
    let two = Two::start();
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(two.service.address(), 24, kind));
    for round in 0..10 {
        let worker = round % 2;
        let before = two.service.ready_workers(2)[worker].pid;
        let reply = two.service.ask_usher("POST", &format!("/workers/{worker}/replace"));
        assert_eq!(reply.status, 200, "{reply:?}");
        let after = two.service.ready_workers(2);
        assert_ne!(after[worker].pid, before);
        assert!(!lives(before), "round {round}");
        loads.iter().for_each(|load| load.answers(20));
    }
    for load in loads {
        let tally = load.finish();
        assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
    }
    assert!(two.service.workers().iter().all(|worker| worker.restarts == 0));
}

#[test]
fn a_single_writer_hands_over_while_connections_wait() {
    let service = Service::builder(Runtime::Usher).start();
    service.add_user("Ada", "ada@example.org");
    let load = Load::start(service.address(), 8, Connections::Fresh);
    for _ in 0..3 {
        load.answers(20);
        let before = service.ready_workers(1)[0].pid;
        assert_eq!(service.ask_usher("POST", "/workers/0/replace").status, 200);
        assert_ne!(service.ready_workers(1)[0].pid, before);
    }
    let tally = load.finish();
    assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");
}

#[test]
fn nothing_dies_of_stopped_processes_and_storms_of_signals() {
    let two = Two::start();
    let load = Load::start(two.service.address(), 8, Connections::Kept);
    let (usher, template) = (i32::try_from(two.service.pid()).unwrap(), template(&two.service).unwrap());
    let before = two.service.workers();
    for _ in 0..5 {
        for pid in [usher, template] {
            signal(pid, Signal::STOP);
            load.answers(20);
            signal(pid, Signal::CONT);
        }
        (0..200).for_each(|_| signal(usher, Signal::CHILD));
    }
    assert_eq!(two.service.workers(), before);
    assert_eq!(load.finish().failures, [""; 0]);
}

#[test]
fn workers_end_with_a_killed_usher_and_the_next_one_serves_at_once() {
    let mut two = Two::start();
    let workers = two.service.workers();
    let template = template(&two.service).unwrap();
    let address = two.service.address();
    two.service.kill();
    for pid in workers.iter().map(|worker| worker.pid).chain([template]) {
        eventually("it ends by itself", || (!lives(pid)).then_some(()));
    }
    let next = Service::builder(Runtime::Usher).env("LISTEN_ADDR", address).start();
    assert_eq!(next.address(), address);
    next.assert_alive();
}

#[test]
fn workers_serve_on_without_the_template_and_it_comes_back() {
    let two = Two::start();
    let load = Load::start(two.service.address(), 8, Connections::Kept);
    let (first, workers) = (template(&two.service).unwrap(), two.service.workers());
    signal(first, Signal::KILL);
    let second = eventually("another template", || template(&two.service).filter(|pid| *pid != first));
    load.answers(20);
    assert_eq!(two.service.workers(), workers);
    assert_eq!(load.finish().failures, [""; 0]);

    // It is of use: a worker that dies now is replaced, also one that dies with the template.
    signal(workers[0].pid, Signal::KILL);
    eventually("the worker is replaced", || {
        let now = two.service.ready_workers(2);
        (now[0].pid != workers[0].pid).then_some(())
    });
    signal(workers[1].pid, Signal::KILL);
    signal(second, Signal::KILL);
    eventually("both are replaced", || {
        let now = two.service.ready_workers(2);
        (now[1].pid != workers[1].pid).then_some(())
    });
    two.service.assert_alive();
}

#[test]
fn a_template_that_does_not_answer_is_replaced() {
    let two = Two::start();
    let (stuck, worker) = (template(&two.service).unwrap(), two.service.workers()[0].pid);
    signal(stuck, Signal::STOP);
    signal(worker, Signal::KILL);
    let replaced = within(Duration::from_secs(25), || {
        let now = two.service.workers();
        (now.len() == 2 && now.iter().all(|w| w.state == "ready" && w.pid != worker)).then_some(())
    });
    assert!(replaced.is_some(), "{}", two.service.log());
    assert!(!lives(stuck));
}
