//! The control routes: on a listener of their own, and what their order to drain does.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Builder, Metrics, Raw, Runtime, Service, ask, eventually, wire};
use rustix::process::Signal;
use serde_json::json;

const POST_HEAD: &str =
    "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n";
const POST_BODY: &str = r#"{"name":"Ada","email":"ada@x.org"}"#;

/// How long a drain may take where there is nothing to wait for: less than the second that silent
/// connections and the queue may have.
const AT_ONCE: Duration = Duration::from_millis(800);
/// How long the same may take on a busy machine: less than the timeouts of what must not be waited
/// for.
const GENEROUS: Duration = Duration::from_secs(5);

on_every_runtime!(
    control_says_what_serves_and_whether_it_is_ready,
    an_idle_service_ends_at_once_when_it_is_told_to_drain,
    a_drained_store_can_be_used_at_once_and_was_closed,
    what_is_in_flight_is_answered_by_a_draining_service,
    a_report_has_all_that_was_answered_and_comes_before_the_end,
    a_report_that_nobody_fetches_does_not_put_off_the_end_for_long,
    silent_control_connections_do_not_keep_a_drained_service_alive,
    queued_connections_are_left_to_the_next_process,
    control_can_be_had_on_standard_output,
    control_answers_while_the_public_capacity_is_exhausted
);
on_every_runtime!(
    native, Native:
    control_says_what_serves_and_whether_it_is_ready,
    an_idle_service_ends_at_once_when_it_is_told_to_drain,
    a_drained_store_can_be_used_at_once_and_was_closed,
    what_is_in_flight_is_answered_by_a_draining_service,
    a_report_has_all_that_was_answered_and_comes_before_the_end,
    a_report_that_nobody_fetches_does_not_put_off_the_end_for_long,
    silent_control_connections_do_not_keep_a_drained_service_alive,
    queued_connections_are_left_to_the_next_process,
    control_can_be_had_on_standard_output,
    control_answers_while_the_public_capacity_is_exhausted
);

fn controlled(runtime: Runtime) -> Builder {
    Service::builder(runtime).controlled()
}

/// Orders a drain and gives the moment before.
fn drain(control: SocketAddr, target: &str) -> Instant {
    let ordered = Instant::now();
    assert_eq!(ask(control, "POST", target).expect(202), json!({"draining": true}));
    ordered
}

fn socket() -> Arc<TcpListener> {
    Arc::new(TcpListener::bind("127.0.0.1:0").unwrap())
}

fn control_says_what_serves_and_whether_it_is_ready(runtime: Runtime) {
    let service = controlled(runtime).start();
    let control = service.control();
    assert_ne!(control, service.address());
    let version = env!("CARGO_PKG_VERSION");
    let about = json!({"version": version, "store": "embedded in ./data", "single_writer": true});
    assert_eq!(ask(control, "GET", "/about").expect(200), about);
    for probe in ["/livez", "/readyz"] {
        let reply = ask(control, "GET", probe);
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"), "{probe}");
    }
    assert_eq!(service.get("/about").problem(404).0, "no-such-resource");
    assert_eq!(service.send("POST", "/drain", &[], None).problem(404).0, "no-such-resource");
    assert_eq!(ask(control, "GET", "/api/users").problem(404).0, "no-such-resource");
    service.assert_alive();
}

#[test]
fn a_database_has_many_writers_and_its_password_is_not_told() {
    // It need not be there.
    let url = "mysql://app:hunter2@127.0.0.1:1/users";
    let service = controlled(Runtime::Aot).env("DATABASE_URL", url).start();
    let reply = ask(service.control(), "GET", "/about");
    let about = reply.expect(200);
    assert_eq!(about["single_writer"], false);
    assert!(about["store"].as_str().unwrap().contains("127.0.0.1:1") && !reply.body.contains("hunter2"), "{reply:?}");
    assert_eq!(ask(service.control(), "GET", "/readyz").status, 503);
}

fn an_idle_service_ends_at_once_when_it_is_told_to_drain(runtime: Runtime) {
    for target in ["/drain", "/drain?queued=take", "/drain?queued=leave"] {
        let took = || {
            let mut service = controlled(runtime).start();
            let ordered = drain(service.control(), target);
            assert_eq!(service.ended().code(), Some(0), "{target}");
            ordered.elapsed()
        };
        // A busy machine may hold up one, not all.
        assert!((0..3).any(|_| took() < AT_ONCE), "{target}: not at once");
    }
}

fn a_drained_store_can_be_used_at_once_and_was_closed(runtime: Runtime) {
    let mut first = controlled(runtime).start();
    first.add_user("Ada", "ada@x.org");
    drain(first.control(), "/drain");
    assert_eq!(first.ended().code(), Some(0));
    let second = Service::builder(runtime).folder(first.folder()).start();
    assert_eq!(second.get("/api/users/1").expect(200)["name"], "Ada");
    assert!(!second.log().contains("was not closed"), "{}", second.log());
}

fn what_is_in_flight_is_answered_by_a_draining_service(runtime: Runtime) {
    let mut service = controlled(runtime).start();
    let control = service.control();
    let mut half_sent = service.connect();
    half_sent.send(POST_HEAD).unwrap();
    half_sent.send(&POST_BODY[..10]).unwrap();
    let mut asking = service.connect();
    // What the other sent has been read once this is answered.
    asking.request(wire::get("/livez")).unwrap();

    drain(control, "/drain");
    let reply = asking.request(wire::get("/readyz")).unwrap();
    assert_eq!((reply.problem(503).0.as_str(), reply.header("connection")), ("not-ready", Some("close")));
    // Control goes on, and so does the order.
    assert_eq!(ask(control, "GET", "/readyz").problem(503).0, "not-ready");
    assert_eq!(ask(control, "GET", "/livez").status, 200);
    drain(control, "/drain?queued=leave");
    half_sent.send(&POST_BODY[10..]).unwrap();
    let reply = half_sent.reply().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
    assert_eq!(half_sent.rest().unwrap(), "", "closed in order");
    drop((half_sent, asking));
    assert_eq!(service.ended().code(), Some(0));
}

fn a_report_has_all_that_was_answered_and_comes_before_the_end(runtime: Runtime) {
    let mut service = controlled(runtime).start();
    let control = service.control();
    let mut half_sent = service.connect();
    half_sent.send(POST_HEAD).unwrap();
    half_sent.send(&POST_BODY[..10]).unwrap();
    // What it sent has been read once this is answered.
    assert_eq!(service.get("/livez").status, 200);
    drain(control, "/drain?report=true");
    let mut waiting = Raw::connect(control).unwrap();
    waiting.send("GET /report HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    half_sent.send(&POST_BODY[10..]).unwrap();
    assert_eq!(half_sent.reply().unwrap().status, 201);
    drop(half_sent);
    let report = Metrics::of(&waiting.reply().unwrap());
    let counted = |method, route, status| report.requests(method, route, status);
    assert_eq!((counted("POST", "/api/users", 201), counted("GET", "/livez", 200)), (1.0, 1.0));
    assert_eq!(report.value("http_server_open_connections"), 0.0);
    drop(waiting);
    assert_eq!(service.ended().code(), Some(0));
}

fn a_report_that_nobody_fetches_does_not_put_off_the_end_for_long(runtime: Runtime) {
    let mut service = controlled(runtime).start();
    let control = service.control();
    assert_eq!(ask(control, "GET", "/report").problem(404).0, "no-such-resource");
    let ordered = drain(control, "/drain?report=true");
    assert_eq!(service.ended().code(), Some(0));
    assert!(ordered.elapsed() < GENEROUS, "{:?}", ordered.elapsed());
}

fn silent_control_connections_do_not_keep_a_drained_service_alive(runtime: Runtime) {
    let mut service = controlled(runtime).start();
    let control = service.control();
    let _silent = Raw::connect(control).unwrap();
    let mut half_sent = Raw::connect(control).unwrap();
    half_sent.send("GET /about HT").unwrap();
    let mut kept = Raw::connect(control).unwrap();
    let ordered = Instant::now();
    // The whole answer comes although the process ends right after it.
    assert_eq!(kept.request(wire::request("POST", "/drain", &[], "")).unwrap().status, 202);
    assert_eq!(service.ended().code(), Some(0));
    assert!(ordered.elapsed() < GENEROUS, "{:?}", ordered.elapsed());
    assert_eq!(kept.rest().unwrap(), "", "closed in order");
}

fn queued_connections_are_left_to_the_next_process(runtime: Runtime) {
    let listener = socket();
    let public = listener.local_addr().unwrap();
    let mut first = controlled(runtime).listener(&listener).start();
    let control = first.control();
    // Something in flight, so that the first process is there while others come.
    let mut held = Raw::connect(public).unwrap();
    held.send(POST_HEAD).unwrap();
    assert_eq!(ask(public, "GET", "/livez").status, 200);

    drain(control, "/drain?queued=leave");
    let mut queued: Vec<Raw> = (0..20).map(|_| Raw::connect(public).unwrap()).collect();
    for connection in &mut queued {
        connection.send(wire::get("/api/users/1")).unwrap();
    }
    // It has turned to them often enough to have taken one, had it been about to.
    assert_eq!(ask(control, "GET", "/readyz").status, 503);
    held.send(POST_BODY).unwrap();
    assert_eq!(held.reply().unwrap().status, 201);
    drop(held);
    assert_eq!(first.ended().code(), Some(0));
    for connection in &mut queued {
        connection.socket().set_nonblocking(true).unwrap();
        let error = connection.socket().read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "it waits");
        connection.socket().set_nonblocking(false).unwrap();
    }

    let _second = Service::builder(runtime).folder(first.folder()).listener(&listener).start();
    for connection in &mut queued {
        assert_eq!(connection.reply().unwrap().expect(200)["name"], "Ada");
    }
}

fn control_can_be_had_on_standard_output(runtime: Runtime) {
    let (public, control) = (socket(), socket());
    let mut service = Service::builder(runtime).listener(&public).control_listener(&control).launch();
    let (public, control) = (public.local_addr().unwrap(), control.local_addr().unwrap());
    assert_eq!(ask(control, "GET", "/about").expect(200)["single_writer"], true);
    assert_eq!(ask(public, "GET", "/about").status, 404);
    assert_eq!(ask(public, "GET", "/api/users").status, 200);
    drain(control, "/drain");
    assert_eq!(service.ended().code(), Some(0));
    // Both sockets are still the test's own: others can be handed them.
    assert!(Raw::connect(public).is_ok() && Raw::connect(control).is_ok());
}

fn control_answers_while_the_public_capacity_is_exhausted(runtime: Runtime) {
    let service = controlled(runtime).env("MAX_CONNECTIONS", 1).start();
    let control = service.control();
    let mut held = service.connect();
    held.request(wire::get("/livez")).unwrap();
    // As many as are taken beyond the capacity, and some that wait.
    let _crowd: Vec<Raw> = (0..40).map(|_| service.connect()).collect();
    for _ in 0..3 {
        assert_eq!(ask(control, "GET", "/about").status, 200);
        assert_eq!(ask(control, "GET", "/livez").status, 200);
        assert_eq!(ask(control, "GET", "/readyz").problem(503).0, "overloaded");
    }
    assert_eq!(held.request(wire::get("/livez")).unwrap().status, 200);
}

#[test]
fn control_connections_have_a_bound_of_their_own_and_harm_nobody_else() {
    let service = controlled(Runtime::Aot).shell("ulimit -n 128").env("IDLE_TIMEOUT", "1s").start();
    let control = service.control();
    let crowd: Vec<Raw> = (0..100).map(|_| Raw::connect(control).unwrap()).collect();
    service.assert_alive();
    assert_eq!(service.get("/api/users").status, 200);
    // Those that wait have their turn when silent ones are closed.
    assert_eq!(ask(control, "GET", "/livez").status, 200);
    drop(crowd);
    service.at_rest();
}

#[test]
fn connections_already_queued_are_answered_by_a_service_that_is_told_to_take_them() {
    let mut service = controlled(Runtime::Native).start();
    let control = service.control();
    let mut order = Raw::connect(control).unwrap();
    assert_eq!(order.request(wire::get("/livez")).unwrap().status, 200);
    // Nothing is accepted while the process is stopped; all of these wait in the kernel.
    service.signal(Signal::STOP);
    order.send(wire::request("POST", "/drain", &[], "")).unwrap();
    let mut queued: Vec<Raw> = (0..20).map(|_| service.connect()).collect();
    for connection in &mut queued {
        connection.send(wire::get("/api/users")).unwrap();
    }
    service.signal(Signal::CONT);
    assert_eq!(order.reply().unwrap().status, 202);
    for connection in &mut queued {
        assert_eq!(connection.reply().unwrap().status, 200);
    }
    drop((queued, order));
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn clients_that_go_on_coming_do_not_put_off_the_end_of_accepting() {
    let mut service = controlled(Runtime::Aot).start();
    let (address, ordered) = (service.address(), drain(service.control(), "/drain"));
    let mut came = 0;
    let status = eventually("it ends although clients come all the time", || {
        came += usize::from(Raw::connect(address).is_ok());
        (!service.is_running()).then(|| service.ended())
    });
    assert_eq!(status.code(), Some(0));
    // A second of accepting, and one until the last of the silent connections are closed.
    assert!(came > 0 && ordered.elapsed() < GENEROUS, "{came} came, {:?}", ordered.elapsed());
}

#[test]
fn what_control_does_not_have_is_refused_and_orders_nothing() {
    let service = controlled(Runtime::Aot).start();
    let control = service.control();
    let reply = ask(control, "GET", "/drain");
    assert_eq!((reply.problem(405).0.as_str(), reply.header("allow")), ("method-not-allowed", Some("POST")));
    let reply = ask(control, "DELETE", "/about");
    assert_eq!((reply.problem(405).0.as_str(), reply.header("allow")), ("method-not-allowed", Some("GET, HEAD")));
    for (target, says) in [("/drain?queued=drop", "take or leave"), ("/drain?wait=1", "known are queued")] {
        let (kind, detail) = ask(control, "POST", target).problem(400);
        assert_eq!(kind, "invalid-parameter");
        assert!(detail.contains(says), "{detail}");
    }
    assert_eq!(ask(control, "GET", "/readyz").status, 200);
}

#[test]
fn a_control_port_that_is_taken_is_named_with_the_way_out() {
    let taken = socket();
    let address = taken.local_addr().unwrap();
    let failed = Service::builder(Runtime::Aot).env("ADMIN_ADDR", address).run();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let names = failed.stderr.contains(&address.to_string()) && failed.stderr.contains("set ADMIN_ADDR");
    assert!(names && !failed.stdout.contains("listening"), "{failed:?}");
}

#[test]
fn control_is_asked_for_in_one_way_only() {
    let failed = controlled(Runtime::Aot).env("ADMIN_STDOUT", 1).run();
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert!(failed.stderr.contains("ADMIN_ADDR and ADMIN_STDOUT"), "{failed:?}");
}

#[test]
fn standard_output_that_is_no_listening_socket_is_refused() {
    for runtime in [Runtime::Aot, Runtime::OldestAot, Runtime::Native] {
        let failed = Service::builder(runtime).env("ADMIN_STDOUT", 1).run();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(failed.stderr.contains("ADMIN_STDOUT") && failed.stdout.is_empty(), "{failed:?}");
    }
}
