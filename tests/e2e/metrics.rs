//! What a service counts: by itself, and all workers together under usher.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use harness::{
    Connections, Database, Load, Metrics, Raw, Runtime, Service, ask, assert_well_formed, eventually, two_workers, wire,
};
use rustix::process::{Pid, Signal, kill_process};

on_every_runtime!(requests_and_operations_are_counted);

/// A number of requests, each of which is counted apart.
fn some_requests(service: &Service) {
    let email = format!("ada{}@example.org", service.get("/api/users?page_size=100").body.matches("\"id\"").count());
    let user = format!("/api/users/{}", service.add_user("Ada", &email)["id"]);
    (0..2).for_each(|_| assert_eq!(service.get("/api/users").status, 200));
    assert_eq!(service.get(&user).status, 200);
    assert_eq!(service.get("/api/users/999").status, 404);
    assert_eq!(service.send("HEAD", &user, &[], None).status, 200);
    for path in ["/", "/nothing", "/api/users/1/2"] {
        assert_eq!(service.get(path).status, 404);
    }
    for method in ["BREW", "STEEP"] {
        assert_eq!(service.send(method, "/api/users", &[], None).status, 405);
    }
    assert_eq!(service.get("/api/health").status, 200);
}

fn assert_counted(metrics: &Metrics, times: f64, system: &str) {
    for (method, route, status, count) in [
        ("POST", "/api/users", 201, 1.0),
        ("GET", "/api/users", 200, 3.0),
        ("GET", "/api/users/{id}", 200, 1.0),
        ("GET", "/api/users/{id}", 404, 1.0),
        ("HEAD", "/api/users/{id}", 200, 1.0),
        ("GET", "unknown", 404, 3.0),
        ("_OTHER", "/api/users", 405, 2.0),
        ("GET", "/api/health", 200, 1.0),
    ] {
        assert_eq!(metrics.requests(method, route, status), count * times, "{method} {route} {status} {metrics:#?}");
    }
    for (operation, count) in [("create", 1.0), ("page", 3.0), ("get", 3.0), ("update", 0.0), ("delete", 0.0)] {
        assert_eq!(metrics.operations(operation, system), count * times, "{operation}");
    }
}

fn requests_and_operations_are_counted(runtime: Runtime) {
    let service = Service::builder(runtime).start();
    some_requests(&service);
    let metrics = service.metrics();
    assert_counted(&metrics, 1.0, "redb");
    // Series are few whatever clients send: a scrape has been counted by the next one only.
    assert_eq!(metrics.all("http_server_request_duration_seconds_count").len(), 8);
    assert_eq!(service.metrics().requests("GET", "/metrics", 200), 1.0);

    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(metrics.value(&format!("usher_service_build_info{{version=\"{version}\"}}")), 1.0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - metrics.value("process_start_time_seconds");
    assert!((-1.0..600.0).contains(&age), "{age}");
    assert!(metrics.all("db_client_connections").is_empty(), "the embedded store has no connections");
    assert_well_formed(&service.get("/metrics").body);
}

#[test]
fn durations_are_those_of_the_requests() {
    let service = Service::start();
    let mut slow = service.connect();
    let body = wire::user("slow@example.org");
    let head = format!(
        "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let sent = Instant::now();
    slow.send(&head).unwrap();
    // The request is in flight as soon as its head is there; so is each of ours that asks.
    eventually("it is counted as active", || (active(&service) == 2.0).then_some(()));
    let counted = Instant::now();
    eventually("a while has passed", || (counted.elapsed() > Duration::from_millis(300)).then_some(()));
    slow.send(&body).unwrap();
    assert_eq!(slow.reply().unwrap().status, 201);
    let metrics = service.metrics();
    assert_eq!(metrics.value("http_server_active_requests"), 1.0);
    let kind = r#"http_request_method="POST",http_response_status_code="201",http_route="/api/users""#;
    let of =
        |part: &str, more: &str| metrics.value(&format!("http_server_request_duration_seconds_{part}{{{kind}{more}}}"));
    assert!(of("sum", "") >= 0.3 && of("sum", "") <= sent.elapsed().as_secs_f64());
    assert_eq!((of("bucket", r#",le="0.25""#), of("bucket", r#",le="+Inf""#), of("count", "")), (0.0, 1.0, 1.0));
}

fn active(service: &Service) -> f64 {
    service.metrics().value("http_server_active_requests")
}

#[test]
fn a_request_that_is_given_up_and_a_connection_that_ends_count_no_more() {
    let service = Service::start();
    let open = || service.metrics().value("http_server_open_connections");
    let mut silent: Vec<Raw> = (0..3).map(|_| service.connect()).collect();
    silent[0].send("POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx").unwrap();
    eventually("all are open, and the one that asks", || (open() == 4.0).then_some(()));
    eventually("one has a request", || (active(&service) == 2.0).then_some(()));
    silent.clear();
    eventually("none is open but the one that asks", || (open() == 1.0 && active(&service) == 1.0).then_some(()));
}

#[test]
fn with_a_control_listener_metrics_are_there_and_only_there() {
    let service = Service::builder(Runtime::Aot).controlled().start();
    assert_eq!(service.get("/metrics").status, 404);
    assert_eq!(ask(service.control(), "GET", "/livez").status, 200);
    let reply = ask(service.control(), "GET", "/metrics");
    let metrics = Metrics::of(&reply);
    assert_eq!(metrics.requests("GET", "/metrics", 404), 1.0);
    // What is asked of control is no client's request.
    assert_eq!(metrics.all("http_server_request_duration_seconds_count").len(), 1, "{metrics:#?}");
    assert_eq!(metrics.value("http_server_active_requests"), 0.0);
    assert_well_formed(&reply.body);

    // Wherever it is.
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let service = Service::builder(Runtime::Aot).control_listener(&listener).start_blind();
    assert_eq!(service.get("/metrics").status, 404);
    assert_eq!(ask(listener.local_addr().unwrap(), "GET", "/metrics").status, 200);
}

#[test]
fn a_full_service_still_tells_what_it_counts() {
    let service = Service::builder(Runtime::Aot).env("MAX_CONNECTIONS", 1).start();
    let mut held = service.connect();
    assert_eq!(held.request(wire::get("/api/users")).unwrap().status, 200);
    assert_eq!(service.get("/api/users").status, 503);
    let metrics = service.metrics();
    assert_eq!(metrics.requests("GET", "/api/users", 503), 1.0);
    assert!(metrics.value("http_server_open_connections") >= 2.0);
}

on_every_server!(connections_to_the_database_are_told_by_what_they_do);

fn connections_to_the_database_are_told_by_what_they_do(flavour: harness::Flavour) {
    let database = Database::start_of(flavour);
    let service = Service::builder(Runtime::Aot)
        .env("DATABASE_URL", database.url())
        .env("DATABASE_CONNECTIONS", 1)
        .env("DATABASE_TIMEOUT", "20s")
        .start();
    service.add_user("Ada", "ada@example.org");
    let pool = |service: &Service| {
        let metrics = service.metrics();
        let state =
            |state: &str| metrics.value(&format!("db_client_connections{{db_client_connection_state=\"{state}\"}}"));
        (state("used"), state("idle"), metrics.value("db_client_connection_pending_requests"))
    };
    assert_eq!(pool(&service), (0.0, 1.0, 0.0));
    let mut other = database.session();
    other.run("BEGIN; SELECT id FROM users.users WHERE id = 1 FOR UPDATE;");
    let mut writer = service.connect();
    let headers = [("Content-Type", "application/json")];
    writer.send(wire::request("PATCH", "/api/users/1", &headers, r#"{"name":"Grace"}"#)).unwrap();
    let mut readers: Vec<Raw> = (0..2).map(|_| service.connect()).collect();
    readers.iter_mut().for_each(|reader| reader.send(wire::get("/api/users/1")).unwrap());
    eventually("one works and two wait", || (pool(&service) == (1.0, 0.0, 2.0)).then_some(()));
    other.run("ROLLBACK;");
    assert_eq!(writer.reply().unwrap().status, 200);
    readers.iter_mut().for_each(|reader| assert_eq!(reader.reply().unwrap().status, 200));
    assert_eq!(pool(&service), (0.0, 1.0, 0.0));
    let metrics = service.metrics();
    assert_eq!((metrics.operations("update", "mysql"), metrics.operations("get", "mysql")), (1.0, 2.0));
    assert_well_formed(&service.get("/metrics").body);
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn usher_adds_up_what_its_workers_count() {
    let (service, _database) = two_workers();
    some_requests(&service);
    let mut connections: Vec<Raw> = (0..20).map(|_| service.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.request(wire::get("/livez")).unwrap().status, 200);
    }
    let metrics = service.ushers_metrics();
    assert_counted(&metrics, 1.0, "mysql");
    assert_eq!(metrics.requests("GET", "/livez", 200), 20.0);
    let open = metrics.all("http_server_open_connections");
    assert_eq!(open.len(), 2, "{open:?}");
    assert!(open.iter().all(|(series, count)| series.contains("{worker=\"") && *count > 0.0), "{open:?}");
    eventually("those of single requests are gone", || {
        let metrics = service.ushers_metrics();
        let open = metrics.all("http_server_open_connections").iter().map(|(_, count)| count).sum::<f64>();
        (open == 20.0).then_some(())
    });
    // A worker's own numbers are for usher alone.
    assert_eq!(service.get("/metrics").status, 404);
    assert_well_formed(&service.ask_usher("GET", "/metrics").body);
    assert_eq!(service.ask_usher("POST", "/metrics").status, 405);
}

#[test]
fn usher_tells_of_itself_and_of_its_workers_processes() {
    let (service, _database) = two_workers();
    let metrics = service.ushers_metrics();
    let [(build, one)] = metrics.all("usher_build_info")[..] else { panic!("{metrics:?}") };
    let version = env!("CARGO_PKG_VERSION");
    assert!(build.starts_with(&format!("usher_build_info{{version=\"{version}\",wasmedge=\"0.17")), "{build}");
    let state = |state: &str| metrics.value(&format!("usher_workers{{state=\"{state}\"}}"));
    assert_eq!(
        (one, state("ready"), state("starting"), state("draining"), state("waiting")),
        (1.0, 2.0, 0.0, 0.0, 0.0)
    );
    assert_eq!(metrics.value("usher_poll_info{poll=\"usher\"}"), 1.0);
    assert_eq!(metrics.value("usher_draining"), 0.0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((-1.0..600.0).contains(&(now - metrics.value("usher_start_time_seconds"))));
    for worker in 0..2 {
        assert_eq!(metrics.value(&format!("usher_worker_up{{worker=\"{worker}\"}}")), 1.0);
        assert_eq!(metrics.value(&format!("usher_worker_restarts_total{{worker=\"{worker}\"}}")), 0.0);
        let memory = metrics.value(&format!("usher_worker_resident_memory_bytes{{worker=\"{worker}\"}}"));
        assert!((100e3..100e6).contains(&memory), "{memory}");
    }
    let service = Service::builder(Runtime::Usher).arg("--poll=wasmedge").start();
    assert_eq!(service.ushers_metrics().value("usher_poll_info{poll=\"wasmedge\"}"), 1.0);
}

#[test]
fn totals_stay_when_workers_are_replaced_and_when_they_die() {
    let (service, _database) = two_workers();
    some_requests(&service);
    // What a worker counted is asked of it before it goes, if nobody asked before.
    for worker in 0..2 {
        assert_eq!(service.ask_usher("POST", &format!("/workers/{worker}/replace")).status, 200);
    }
    service.ready_workers(2);
    assert_counted(&service.ushers_metrics(), 1.0, "mysql");

    some_requests(&service);
    assert_counted(&service.ushers_metrics(), 2.0, "mysql");
    let victims = service.workers();
    victims.iter().for_each(|worker| signal(worker.pid, Signal::KILL));
    let now = eventually("both are replaced", || {
        let workers = service.ready_workers(2);
        workers.iter().zip(&victims).all(|(now, before)| now.pid != before.pid).then_some(workers)
    });
    let metrics = service.ushers_metrics();
    let counted =
        |metrics: &Metrics| (metrics.requests("GET", "/api/users", 200), metrics.requests("POST", "/api/users", 201));
    assert_eq!(counted(&metrics), (6.0, 2.0));
    for worker in now {
        let restarts = metrics.value(&format!("usher_worker_restarts_total{{worker=\"{}\"}}", worker.number));
        assert_eq!(restarts, worker.restarts as f64);
    }
    // The new ones count on, and the gauges are theirs.
    assert_eq!(service.get("/api/users").status, 200);
    let metrics = service.ushers_metrics();
    assert_eq!(counted(&metrics), (7.0, 2.0));
    assert_eq!(metrics.all("process_start_time_seconds").len(), 2);
}

#[test]
fn no_total_gets_less_while_workers_come_and_go_under_load() {
    let (service, _database) = two_workers();
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 4, kind));
    let mut before = service.ushers_metrics();
    let mut look = || {
        let now = service.ushers_metrics();
        assert_eq!(before.shrunk(&now), [""; 0]);
        before = now;
    };
    for round in 0..6 {
        loads.iter().for_each(|load| load.answers(50));
        look();
        let worker = round % 2;
        let old = service.ready_workers(2)[worker].pid;
        match round {
            0..4 => assert_eq!(service.ask_usher("POST", &format!("/workers/{worker}/replace")).status, 200),
            _ => signal(old, Signal::KILL),
        }
        eventually("another one is ready", || {
            look();
            let workers = service.workers();
            (workers.len() == 2 && workers.iter().all(|w| w.state == "ready" && w.pid != old)).then_some(())
        });
    }
    loads.into_iter().for_each(|load| drop(load.finish()));
    look();
}

#[test]
fn no_request_is_missed_when_workers_are_replaced_under_load() {
    let (service, _database) = two_workers();
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 4, kind));
    for round in 0..10 {
        loads.iter().for_each(|load| load.answers(50));
        assert_eq!(service.ask_usher("POST", &format!("/workers/{}/replace", round % 2)).status, 200);
        service.ready_workers(2);
    }
    let tallies = loads.map(Load::finish);
    assert!(tallies.iter().all(|tally| tally.failures.is_empty()), "{tallies:?}");
    let answered: usize = tallies.iter().map(|tally| tally.answered).sum();
    assert_eq!(service.ushers_metrics().requests("GET", "/api/health", 200), answered as f64);
}

#[test]
fn a_worker_that_does_not_answer_holds_up_nobody_for_long_and_what_it_said_counts() {
    let (service, _database) = two_workers();
    some_requests(&service);
    assert_counted(&service.ushers_metrics(), 1.0, "mysql");
    let stopped = service.workers()[0].pid;
    signal(stopped, Signal::STOP);
    let metrics = service.ushers_metrics();
    assert_counted(&metrics, 1.0, "mysql");
    assert_eq!(metrics.value("usher_worker_up{worker=\"0\"}"), 0.0);
    assert_eq!(metrics.value("usher_worker_up{worker=\"1\"}"), 1.0);
    assert_eq!(metrics.all("http_server_open_connections").len(), 1);
    let says = "worker 0 does not say what it counted: no answer in time";
    eventually("the log says so", || service.log().contains(says).then_some(()));
    signal(stopped, Signal::CONT);
    eventually("it answers again", || {
        (service.ushers_metrics().value("usher_worker_up{worker=\"0\"}") == 1.0).then_some(())
    });
}
