//! Start and stop: where the service listens, and how it ends.

use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Builder, Raw, Runtime, Service};
use rustix::process::Signal;

const GET: &str = "GET /api/users HTTP/1.1\r\nHost: x\r\n\r\n";
const POST_HEAD: &str =
    "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n";
const POST_BODY: &str = r#"{"name":"Ada","email":"ada@x.org"}"#;

on_every_runtime!(
    a_stopping_service_answers_what_is_in_flight_and_then_ends,
    a_stopping_service_answers_all_that_had_arrived_on_a_connection,
    a_client_that_never_finishes_does_not_hold_a_stopping_service_past_the_deadline,
    standard_input_that_is_no_listening_socket_is_refused,
    a_listening_socket_that_blocks_is_refused_rather_than_served_badly,
    the_ipv6_loopback_can_be_served,
);
on_every_runtime!(
    native, Native:
    a_stopping_service_answers_what_is_in_flight_and_then_ends,
    a_stopping_service_answers_all_that_had_arrived_on_a_connection,
    a_client_that_never_finishes_does_not_hold_a_stopping_service_past_the_deadline,
    standard_input_that_is_no_listening_socket_is_refused,
);
on_every_runtime!(
    usher, Usher:
    a_stopping_service_answers_what_is_in_flight_and_then_ends,
    a_stopping_service_answers_all_that_had_arrived_on_a_connection,
    the_ipv6_loopback_can_be_served,
);

/// A service that can be told to stop: a guest by the host that owns its listening socket, the
/// native build and usher by a signal.
struct Stoppable {
    service: Service,
    listener: Option<Arc<TcpListener>>,
}

impl Stoppable {
    fn start(runtime: Runtime, configure: impl Fn(Builder) -> Builder) -> Self {
        let builder = configure(Service::builder(runtime));
        if matches!(runtime, Runtime::Native | Runtime::Usher) {
            return Self { service: builder.start(), listener: None };
        }
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        Self { service: builder.listener(&listener).start(), listener: Some(listener) }
    }

    fn connect(&self) -> Raw {
        let address = self.listener.as_ref().map_or(self.service.address(), |socket| socket.local_addr().unwrap());
        Raw::connect(address).unwrap()
    }

    fn stop(&self) {
        match &self.listener {
            Some(listener) => rustix::net::shutdown(listener, rustix::net::Shutdown::Read).unwrap(),
            None => self.service.signal(Signal::TERM),
        }
        harness::eventually("the service drains", || self.service.log().contains("draining").then_some(()));
    }
}

fn a_stopping_service_answers_what_is_in_flight_and_then_ends(runtime: Runtime) {
    let mut this = Stoppable::start(runtime, |builder| builder);
    let (mut idle, mut asking, mut half_sent, mut silent) =
        (this.connect(), this.connect(), this.connect(), this.connect());
    idle.request(GET).unwrap();
    asking.request(GET).unwrap();
    half_sent.send(POST_HEAD).unwrap();
    half_sent.send(&POST_BODY[..10]).unwrap();
    // All of the above has been read once this is answered.
    silent.request(GET).unwrap();

    this.stop();
    let reply = asking.request(GET).unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{runtime:?}");
    half_sent.send(&POST_BODY[10..]).unwrap();
    let reply = half_sent.reply().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")), "{runtime:?}");
    for connection in [&mut asking, &mut half_sent, &mut idle, &mut silent] {
        assert_eq!(connection.rest().unwrap(), "", "{runtime:?}: closed in order");
    }
    drop((asking, half_sent, idle, silent));
    assert_eq!(this.service.ended().code(), Some(0), "{runtime:?}");
}

fn a_stopping_service_answers_all_that_had_arrived_on_a_connection(runtime: Runtime) {
    let mut this = Stoppable::start(runtime, |builder| builder);
    // What comes behind the three requests: nothing, an empty line, the beginning of a fourth.
    let behind = ["", "\r\n", "GET /api/users HTTP/1.1\r\nHo"];
    let mut connections: Vec<Raw> = behind.iter().map(|_| this.connect()).collect();
    for connection in &mut connections {
        connection.send(POST_HEAD).unwrap();
        connection.send(&POST_BODY[..10]).unwrap();
    }
    // All of the above has been read once this is answered.
    this.connect().request(GET).unwrap();

    this.stop();
    for (connection, behind) in connections.iter_mut().zip(behind) {
        connection.send([&POST_BODY[10..], &GET.repeat(3), behind].concat()).unwrap();
    }
    for (connection, behind) in connections.iter_mut().zip(behind) {
        let mut last_says = |closing| {
            let reply = connection.reply().unwrap();
            assert_eq!(reply.header("connection"), closing, "{runtime:?} {behind:?} {reply:?}");
            reply.status
        };
        assert!([201, 409].contains(&last_says(None)), "{runtime:?}");
        assert_eq!([last_says(None), last_says(None)], [200; 2], "{runtime:?}");
        let begun = behind.starts_with("GET");
        assert_eq!(last_says((!begun).then_some("close")), 200, "{runtime:?}");
        if begun {
            connection.send("st: x\r\n\r\n").unwrap();
            let reply = connection.reply().unwrap();
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{runtime:?}");
        }
        assert_eq!(connection.rest().unwrap(), "", "{runtime:?}: closed in order");
    }
    drop(connections);
    assert_eq!(this.service.ended().code(), Some(0), "{runtime:?}");
}

fn a_client_that_never_finishes_does_not_hold_a_stopping_service_past_the_deadline(runtime: Runtime) {
    let mut this = Stoppable::start(runtime, |builder| builder.env("DRAIN_TIMEOUT", "2s"));
    let mut stuck = this.connect();
    stuck.send(POST_HEAD).unwrap();
    this.connect().request(GET).unwrap();
    let started = Instant::now();
    this.stop();
    assert_eq!(this.service.ended().code(), Some(0), "{runtime:?}");
    let took = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "{runtime:?}: {took:?}");
    assert!(this.service.log().contains("drain deadline"), "{runtime:?}");
}

#[test]
fn connections_already_queued_are_answered_by_a_stopping_service() {
    let mut service = Service::builder(Runtime::Native).start();
    // Nothing is accepted while the process is stopped; all of these wait in the kernel.
    service.signal(Signal::STOP);
    let mut queued: Vec<Raw> = (0..20).map(|_| service.connect()).collect();
    for connection in &mut queued {
        connection.send(GET).unwrap();
    }
    service.signal(Signal::TERM);
    service.signal(Signal::CONT);
    for connection in &mut queued {
        assert_eq!(connection.reply().unwrap().status, 200);
    }
    drop(queued);
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let first = Service::start();
    let second = Service::builder(Runtime::Aot).env("LISTEN_ADDR", first.address()).run();
    assert_eq!(second.status.code(), Some(1));
    let address = first.address().to_string();
    assert!(second.stderr.contains(&address) && second.stderr.contains("LISTEN_ADDR"), "{second:?}");
}

fn standard_input_that_is_no_listening_socket_is_refused(runtime: Runtime) {
    let failed = Service::builder(runtime).env("LISTEN_STDIN", 1).run();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("LISTEN_STDIN"), "{failed:?}");
}

fn a_listening_socket_that_blocks_is_refused_rather_than_served_badly(runtime: Runtime) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let builder = Service::builder(runtime).listener(&listener);
    listener.set_nonblocking(false).unwrap();
    let failed = builder.run();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("does not block"), "{failed:?}");
}

fn the_ipv6_loopback_can_be_served(runtime: Runtime) {
    let service = Service::builder(runtime).env("LISTEN_ADDR", "[::1]:0").start();
    assert!(service.address().is_ipv6());
    assert_eq!(service.get("/api/health").body, "OK");
}

#[test]
fn a_client_that_shuts_down_both_ways_after_its_request_does_no_harm() {
    let service = Service::start();
    for _ in 0..50 {
        let mut connection = service.connect();
        connection.send(GET).unwrap();
        connection.socket().shutdown(Shutdown::Both).unwrap();
    }
    assert!(service.alive().is_some());
}
