//! The MySQL store when something goes wrong between it and the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Database, Proxy, Service, Verdict, command, error_packet, eventually};
use serde_json::json;

use crate::mysql::{DEADLINE, assert_unavailable, at, post};
use crate::users;

/// A database, a proxy to it, and a service that has used both, with user 1.
pub fn through_a_proxy() -> (Database, Proxy, Service) {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let service = at(&proxy.url(&database)).start();
    service.add_user("Ada", "ada@x.org");
    (database, proxy, service)
}

#[test]
fn each_route_takes_as_few_round_trips_as_it_can() {
    let (_database, proxy, service) = through_a_proxy();
    const READ: &[u8] = &[command::EXECUTE];
    const WRITE: &[u8] = &[command::PING, command::EXECUTE];
    const TRANSACTION: &[u8] = &[command::PING, command::QUERY, command::EXECUTE, command::EXECUTE, command::QUERY];
    let requests = [
        ("GET", "/api/users/1", "", READ),
        ("GET", "/api/users", "", READ),
        ("POST", "/api/users", r#"{"name":"Bob","email":"bob@x.org"}"#, WRITE),
        ("PATCH", "/api/users/1", r#"{"name":"Grace"}"#, TRANSACTION),
        ("DELETE", "/api/users/2", "", WRITE),
    ];
    for (method, path, body, expected) in requests {
        let what = format!("{method} {path}");
        let body = Some(body).filter(|body| !body.is_empty());
        proxy.take_commands();
        assert!(service.send(method, path, &[("content-type", "application/json")], body).status < 300, "{what}");
        let commands: Vec<u8> = proxy.take_commands().into_iter().map(|(command, _)| command).collect();
        // The first time, its statements are prepared; later ones find them.
        let commands: Vec<u8> = commands.into_iter().filter(|command| *command != command::PREPARE).collect();
        assert_eq!(commands, expected, "{what}");
    }
    proxy.take_commands();
    assert_eq!(service.get("/api/users/1").status, 200);
    assert_eq!(proxy.count(command::PREPARE), 0, "a statement is prepared once a connection");
    assert_eq!(proxy.accepted(), 1, "one client needs one connection");
}

#[test]
fn a_read_that_is_cut_off_is_repeated_and_a_write_is_told_to_the_client() {
    let (_database, proxy, service) = through_a_proxy();
    let cut_one = || {
        let done = AtomicUsize::new(0);
        proxy.on_command(move |packet| {
            let is_first = packet.first() == Some(&command::EXECUTE) && done.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first { Verdict::Cut } else { Verdict::Pass }
        });
    };
    assert_eq!(service.get("/api/users/1").status, 200);
    cut_one();
    assert_eq!(service.get("/api/users/1").status, 200);
    cut_one();
    assert_unavailable(&service, "database", || post(&service, "b@x.org"));
    // It was not done, so it can be asked for again.
    assert_eq!(post(&service, "b@x.org").status, 201);
    // This one is done, and nobody can tell: the client learns it by asking again.
    proxy.cut_instead_of_ok(2);
    assert_unavailable(&service, "database", || post(&service, "c@x.org"));
    assert_eq!(post(&service, "c@x.org").status, 409);
}

#[test]
fn a_slow_network_costs_the_deadline_and_is_forgotten_when_it_is_over() {
    let (_database, proxy, service) = through_a_proxy();
    proxy.delay(DEADLINE * 2);
    assert_unavailable(&service, "database", || service.get("/api/users/1"));
    assert_unavailable(&service, "database", || post(&service, "b@x.org"));
    service.assert_alive();
    proxy.delay(Duration::ZERO);
    eventually("normal service", || (service.get("/api/users/1").status == 200).then_some(()));
}

#[test]
fn a_server_in_another_place_is_found_when_the_first_is_gone() {
    let (_first, proxy, service) = through_a_proxy();
    let second = Database::start();
    drop(at(&second.url()).start());
    proxy.redirect(&[second.address()]);
    proxy.cut();
    assert_eq!(service.get("/api/users").expect(200)["users"], json!([]));
    assert_eq!(post(&service, "ada@x.org").status, 201);
}

#[test]
fn servers_that_only_speak_like_mysql_are_taken_as_they_are() {
    for version in ["5.7.25-TiDB-v7.5.0", "8.0.30-Vitess"] {
        let database = Database::start();
        let proxy = Proxy::to_database(&database);
        proxy.claim_version(version);
        users::a_user_lives_and_dies(&at(&proxy.url(&database)).start());
    }
}

#[test]
fn what_only_some_servers_know_is_not_asked_for() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let service = at(&proxy.url(&database)).start();
    proxy.on_command(|payload| match payload.first() {
        Some(&(command::RESET_CONNECTION | command::CHANGE_USER)) => {
            Verdict::Answer(error_packet(1047, "08S01", "Unknown command"))
        }
        _ if payload.windows(9).any(|text| text.eq_ignore_ascii_case(b"GET_LOCK(")) => {
            Verdict::Answer(error_packet(1235, "42000", "not supported"))
        }
        _ => Verdict::Pass,
    });
    users::a_user_lives_and_dies(&service);
    for number in 0..50 {
        assert_eq!(post(&service, &format!("u{number}@x.org")).status, 201);
        assert_eq!(service.get("/api/users?page_size=100").status, 200);
    }
    assert_eq!(proxy.accepted(), 1, "one client needs one connection, however many requests it has");
}

#[test]
fn faults_leave_neither_memory_nor_descriptors_behind() {
    let (_database, proxy, service) = through_a_proxy();
    let cycle = || {
        proxy.cut();
        assert_eq!(service.get("/api/users/1").status, 200);
        proxy.refuse(true);
        proxy.cut();
        assert_unavailable(&service, "unreachable", || service.get("/api/users/1"));
        proxy.refuse(false);
        assert_eq!(service.get("/api/users/1").status, 200);
    };
    (0..10).for_each(|_| cycle());
    let before = service.at_rest();
    (0..30).for_each(|_| cycle());
    let after = service.at_rest();
    assert!(after.memory_kib < before.memory_kib + 2 * 1024, "{before:?} {after:?}");
}
