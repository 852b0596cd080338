//! The MySQL store when something goes wrong between it and the server, or with other sessions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Database, Flavour, Proxy, Reply, Service, Verdict, command, error_packet, eventually};
use serde_json::json;

use crate::mysql::{DEADLINE, assert_unavailable, at, post};
use crate::users;

on_every_server!(
    a_row_that_others_hold_keeps_only_its_own_writers_waiting,
    a_table_that_others_hold_makes_each_request_wait_its_deadline
);

/// A database, a proxy to it, and a service that has used both, with user 1.
fn through_a_proxy() -> (Database, Proxy, Service) {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let service = at(&proxy.url(&database)).start();
    service.add_user("Ada", "ada@x.org");
    (database, proxy, service)
}

fn put(service: &Service, name: &str) -> Reply {
    let body = json!({"name": name, "email": "ada@x.org", "active": true}).to_string();
    service.send_json("PUT", "/api/users/1", &body)
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
fn a_start_that_is_cut_anywhere_in_the_migrations_is_completed_by_the_next() {
    for learned in [false, true] {
        for count in 1.. {
            let database = Database::start();
            let proxy = Proxy::to_database(&database);
            if learned {
                proxy.cut_after_ok(count)
            } else {
                proxy.cut_instead_of_ok(count)
            }
            let first = at(&proxy.url(&database)).start();
            if !proxy.has_cut() {
                assert!(count > 4, "the cuts came before the migrations");
                break;
            }
            drop(first);
            let second = at(&database.url()).start();
            assert_eq!(second.get("/readyz").status, 200, "cut at {count}: {}", second.log());
            let versions = database.sql("SELECT version FROM users.schema_migrations ORDER BY version");
            assert_eq!(versions.split_whitespace().collect::<Vec<_>>(), ["1", "2"], "cut at {count}");
        }
    }
}

#[test]
fn a_deadlock_is_tried_again_a_few_times() {
    for (deadlocks, status) in [(1, 200), (2, 200), (usize::MAX, 503)] {
        let (_database, proxy, service) = through_a_proxy();
        let met = AtomicUsize::new(0);
        proxy.on_command(move |packet| {
            let is_commit = packet.first() == Some(&command::QUERY) && packet.ends_with(b"COMMIT");
            if is_commit && met.fetch_add(1, Ordering::Relaxed) < deadlocks {
                return Verdict::Answer(error_packet(1213, "40001", "Deadlock found"));
            }
            Verdict::Pass
        });
        let started = Instant::now();
        assert_eq!(put(&service, "Grace").status, status, "{deadlocks} deadlocks");
        assert!(started.elapsed() < DEADLINE * 3);
    }
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

fn a_row_that_others_hold_keeps_only_its_own_writers_waiting(flavour: Flavour) {
    let database = Database::start_of(flavour);
    let service = at(&database.url()).start();
    service.add_user("Ada", "ada@x.org");
    service.add_user("Bob", "bob@x.org");
    let mut other = database.session();
    other.run("BEGIN; SELECT id FROM users.users WHERE id = 1 FOR UPDATE;");
    thread::scope(|scope| {
        let writer = scope.spawn(|| assert_unavailable(&service, "database", || put(&service, "Grace")));
        while !writer.is_finished() {
            assert_eq!(service.get("/api/users/2").status, 200);
            assert_eq!(service.get("/api/users").status, 200);
            service.assert_alive();
        }
        writer.join().unwrap();
    });
    no_statement_runs(&database);
    other.run("ROLLBACK;");
    assert_eq!(put(&service, "Grace").status, 200);
}

fn a_table_that_others_hold_makes_each_request_wait_its_deadline(flavour: Flavour) {
    let database = Database::start_of(flavour);
    let service = at(&database.url()).start();
    service.add_user("Ada", "ada@x.org");
    let mut other = database.session();
    other.run("LOCK TABLES users.users WRITE;");
    assert_unavailable(&service, "database", || service.get("/api/users/1"));
    assert_unavailable(&service, "database", || post(&service, "b@x.org"));
    service.assert_alive();
    no_statement_runs(&database);
    other.run("UNLOCK TABLES;");
    eventually("normal service", || (service.get("/api/users/1").status == 200).then_some(()));
    assert_eq!(post(&service, "c@x.org").status, 201);
}

/// What a deadline gave up is not left running on the server.
fn no_statement_runs(database: &Database) {
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app' AND command <> 'Sleep'";
    eventually("no statement runs", || (database.sql(running) == "0").then_some(()));
}

#[test]
fn a_server_with_few_connections_is_shared_or_says_that_it_is_full() {
    let database = Database::start();
    database.sql("GRANT USAGE ON *.* TO app WITH MAX_USER_CONNECTIONS 2");
    let service = at(&database.url()).start();
    service.add_user("Ada", "ada@x.org");
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let reply = service.get("/api/users/1");
                    assert!(reply.status == 200 || reply.problem(503).0 == "store-unavailable", "{reply:?}");
                }
            });
        }
    });
    assert_eq!(service.get("/api/users/1").status, 200);
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
