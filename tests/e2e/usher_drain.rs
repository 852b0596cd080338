//! How usher stops: nothing that was accepted is lost, and nothing holds it past its deadline.

use std::time::{Duration, Instant};

use harness::{Connections, Database, Load, Proxy, Raw, Runtime, Service, eventually, statuses, wire};
use rustix::process::Signal;

fn two_workers(url: &str) -> Service {
    Service::builder(Runtime::Usher).arg("--workers=2").env("DATABASE_URL", url).env("LOG_LEVEL", "info").start()
}

fn draining(service: &Service) {
    eventually("it drains", || service.log().contains("draining").then_some(()));
}

#[test]
fn nothing_that_was_accepted_is_lost_under_load() {
    let database = Database::start();
    for _ in 0..3 {
        let mut service = two_workers(&database.url());
        service.ready_workers(2);
        let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 16, kind));
        loads.iter().for_each(|load| load.answers(200));
        service.signal(Signal::TERM);
        assert_eq!(service.ended().code(), Some(0), "{}", service.log());
        for load in loads {
            let tally = load.finish();
            assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
        }
    }
}

#[test]
fn a_slow_query_and_pipelined_requests_are_answered() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let mut service = two_workers(&proxy.url(&database));
    assert_eq!(service.get("/api/users").status, 200);
    let before = proxy.commands().len();
    proxy.stall(true);
    let mut slow = service.connect();
    slow.send(wire::get("/api/users")).unwrap();
    let mut pipelined = service.connect();
    pipelined.send(wire::get("/api/users?page_size=3").repeat(4)).unwrap();
    eventually("the database is asked", || (proxy.commands().len() > before).then_some(()));

    service.signal(Signal::TERM);
    draining(&service);
    proxy.stall(false);
    let reply = slow.reply().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    let answers = pipelined.rest().unwrap();
    assert_eq!(statuses(&answers), [200; 4], "{answers}");
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn a_drain_closes_silent_connections_and_tells_the_others_to_go() {
    let database = Database::start();
    let mut service = two_workers(&database.url());
    let mut silent: Vec<Raw> = (0..50).map(|_| service.connect()).collect();
    let mut idle: Vec<Raw> = (0..50).map(|_| service.connect()).collect();
    for connection in &mut idle {
        assert_eq!(connection.request(wire::get("/api/health")).unwrap().status, 200);
    }
    let mut half_sent = service.connect();
    half_sent.send(&wire::post(r#"{"name":"Ada","email":"ada@x.org"}"#)[..40]).unwrap();
    service.assert_alive();

    let asked = Instant::now();
    service.signal(Signal::TERM);
    draining(&service);
    // Half of the idle ones go on asking.
    for connection in &mut idle[..25] {
        let reply = connection.request(wire::get("/api/health")).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    }
    for connection in silent.iter_mut().chain(&mut idle) {
        assert_eq!(connection.rest().unwrap(), "", "closed in order");
    }
    half_sent.send(&wire::post(r#"{"name":"Ada","email":"ada@x.org"}"#)[40..]).unwrap();
    let reply = half_sent.reply().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
    drop((silent, idle, half_sent));
    assert_eq!(service.ended().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[test]
fn a_client_that_never_finishes_does_not_hold_it_past_the_deadline() {
    let mut service = Service::builder(Runtime::Usher).arg("--drain=2s").start();
    let mut stuck = service.connect();
    stuck.send("POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").unwrap();
    service.assert_alive();
    let asked = Instant::now();
    service.signal(Signal::TERM);
    assert_eq!(service.ended().code(), Some(0));
    let took = asked.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut service = Service::builder(Runtime::Usher).arg("--drain=1h").start();
    let mut stuck = service.connect();
    stuck.send("POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").unwrap();
    service.assert_alive();
    service.signal(Signal::TERM);
    draining(&service);
    service.signal(Signal::INT);
    assert_eq!(service.ended().code(), Some(1));
    assert!(service.log().contains("second signal"), "{}", service.log());
}

#[test]
fn a_signal_before_it_serves_ends_it() {
    let mut service = Service::builder(Runtime::Usher).launch();
    eventually("it listens to signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 1 << (Signal::TERM.as_raw() - 1) != 0).then_some(())
    });
    service.signal(Signal::TERM);
    assert_eq!(service.ended().code(), Some(0), "{}", service.log());
}
