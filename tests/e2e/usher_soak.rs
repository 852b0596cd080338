//! usher with two workers over a long time, idle and under load; larger with `cargo xtask test --long`.

use std::time::{Duration, Instant};

use harness::{
    Connections, Database, Load, Raw, Service, Usage, children, eventually, long, precise_cpu,
    proportional_anonymous_kib, shared, wire, within,
};
use serde_json::json;

const WORKERS: usize = 2;
/// Of each worker to the database.
const CONNECTIONS: usize = 4;

/// usher with its workers ready, and user 1.
fn service(database: &Database) -> Service {
    let service = shared(WORKERS, database).env("DATABASE_CONNECTIONS", CONNECTIONS).start();
    service.ready_workers(WORKERS);
    service.add_user("Ada", "ada@x.org");
    service
}

/// usher, its template and its workers, once there are no others.
fn processes(service: &Service) -> Vec<u32> {
    eventually("only the workers and their template are left", || {
        let children: Vec<_> = children(service.pid()).into_iter().map(|(pid, _)| pid.unsigned_abs()).collect();
        (children.len() == WORKERS + 1).then(|| [vec![service.pid()], children].concat())
    })
}

#[test]
fn with_a_hundred_idle_connections_all_processes_use_less_than_half_a_percent_of_a_core() {
    let database = Database::start();
    let service = service(&database);
    let mut idle: Vec<Raw> = (0..100).map(|_| service.connect()).collect();
    for connection in &mut idle {
        assert_eq!(connection.request(wire::get("/api/users/1")).unwrap().status, 200);
    }
    let processes = processes(&service);
    let used = || processes.iter().map(|pid| precise_cpu(*pid)).sum::<Duration>();
    let (before, started) = (used(), Instant::now());
    assert!(before > Duration::ZERO, "the kernel tells it");
    // Not a wait for anything: it is idle for this long.
    assert_eq!(within(Duration::from_secs(5), || None::<()>), None);
    let (idled, time) = (used() - before, started.elapsed());
    println!("idle: {idled:?} of processor time in {time:?}, {before:?} before");
    assert!(idled < time / 200, "{idled:?} of processor time in {time:?}");
    for connection in &mut idle {
        assert_eq!(connection.request(wire::get("/api/users/1")).unwrap().status, 200);
    }
    assert!(used() > before + idled, "requests cost something");
}

/// What all processes use together.
#[derive(Debug)]
#[expect(dead_code, reason = "the descriptors are shown to whoever runs it")]
struct Resources {
    anonymous_kib: u64,
    descriptors: usize,
}

impl Resources {
    /// Once no client is connected, when there are `most` descriptors.
    fn at_rest(service: &Service, most: usize) -> Self {
        let processes = processes(service);
        let mut descriptors = 0;
        let rests = within(Duration::from_secs(20), || {
            descriptors = processes.iter().map(|pid| Usage::of(*pid).descriptors).sum();
            (descriptors <= most).then_some(())
        });
        assert!(rests.is_some(), "{descriptors} descriptors, {most} at most when nobody is connected");
        Self { anonymous_kib: processes.iter().map(|pid| proportional_anonymous_kib(*pid)).sum(), descriptors }
    }
}

/// Load for so long, and halfway what `event` does. Gives how many requests were answered; none fails.
fn load(service: &Service, time: Duration, event: impl FnOnce()) -> usize {
    let headers = [("Content-Type", "application/json")];
    let patch = |name: &str| {
        let body = json!({ "name": name }).to_string();
        String::from_utf8(wire::request("PATCH", "/api/users/1", &headers, body)).unwrap()
    };
    let get = |path: &str| String::from_utf8(wire::get(path)).unwrap();
    let requests = [get("/api/users"), patch("Ada"), get("/api/users/1"), get("/api/health"), patch("Grace")];
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::of(&requests, service.address(), 8, kind));
    // Not a wait for anything: the load lasts for this long.
    let last = || assert_eq!(within(time / 2, || None::<()>), None);
    last();
    event();
    last();
    let tallies = loads.map(Load::finish);
    let answered = tallies.iter().map(|tally| tally.answered).sum();
    tallies.iter().for_each(|tally| assert_eq!(tally.failures, [""; 0], "of {answered}"));
    assert!(answered > 100, "{answered} requests in {time:?}");
    answered
}

fn replace_or_reload(service: &Service, round: usize) {
    let path = if round.is_multiple_of(2) { "/reload" } else { "/workers/0/replace" };
    service.ask_usher("POST", path).expect(200);
}

/// Ten minutes with `--long`: one half with replaced workers and reloads, one half of the same workers.
#[test]
fn memory_and_descriptors_of_all_processes_are_flat_under_load() {
    let (rounds, time) = if long() { (10, Duration::from_secs(30)) } else { (3, Duration::from_secs(3)) };
    let database = Database::start();
    let service = service(&database);
    let at_start: usize = processes(&service).iter().map(|pid| Usage::of(*pid).descriptors).sum();
    // What is kept beyond that are connections to the database.
    let most = at_start + WORKERS * CONNECTIONS;
    let events: [&dyn Fn(usize); 2] = [&|round| replace_or_reload(&service, round), &|_| ()];
    for event in events {
        let mut answered = 0;
        let mut round = |number| {
            answered += load(&service, time, || event(number));
            Resources::at_rest(&service, most)
        };
        // The first round is for what is made once and kept.
        let before = round(0);
        let after: Vec<Resources> = (1..rounds).map(&mut round).collect();
        println!("{answered} requests; {before:?}, then {after:?}; {at_start} descriptors at the start");
        // Measured: less than 200 KiB. A new generation is made anew, and takes what its first requests need.
        let most = after.iter().map(|after| after.anonymous_kib).max().unwrap();
        assert!(most < before.anonymous_kib + 2048, "{before:?}, then {after:?}");
    }
    assert!(service.workers().iter().all(|worker| worker.restarts == 0));
}
