//! The MySQL store when others hold what it needs, and when a statement takes too long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Database, Flavour, Proxy, Reply, Service, Verdict, command, error_packet, eventually, within};
use serde_json::json;

use crate::mysql::{DEADLINE, assert_unavailable, at, post};
use crate::mysql_faults::through_a_proxy;

on_every_server!(
    a_row_that_others_hold_keeps_only_its_own_writers_waiting,
    a_table_that_others_hold_makes_each_request_wait_its_deadline
);

fn put(service: &Service, name: &str) -> Reply {
    let body = json!({"name": name, "email": "ada@x.org", "active": true}).to_string();
    service.send_json("PUT", "/api/users/1", &body)
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
        assert!(started.elapsed() < DEADLINE * 2);
    }
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
    let running = "SELECT info FROM information_schema.processlist WHERE user = 'app' AND command <> 'Sleep'";
    let ended = within(Duration::from_secs(2), || database.sql(running).is_empty().then_some(()));
    assert!(ended.is_some(), "{}", database.sql(running));
}

#[test]
fn a_row_that_is_free_in_time_is_written_after_all() {
    // It is the session that decides, not the server's default.
    let database = Database::builder().option("--innodb-lock-wait-timeout=1").start();
    let proxy = Proxy::to_database(&database);
    let service = at(&proxy.url(&database)).env("DATABASE_TIMEOUT", "6s").start();
    service.add_user("Ada", "ada@x.org");
    let mut other = database.session();
    other.run("BEGIN; SELECT id FROM users.users WHERE id = 1 FOR UPDATE;");
    thread::scope(|scope| {
        let writer = scope.spawn(|| put(&service, "Grace"));
        let gave_up = || proxy.commands().iter().any(|(_, text)| text == "ROLLBACK");
        eventually("an attempt gives up", || gave_up().then_some(()));
        other.run("ROLLBACK;");
        assert_eq!(writer.join().unwrap().expect(200)["name"], "Grace");
    });
}

#[test]
fn no_transaction_stays_open_whatever_fails() {
    let (database, proxy, service) = through_a_proxy();
    let cases: [(&[&str], u16); 9] = [
        (&["START"], 1105),
        (&["SELECT"], 1205),
        (&["UPDATE"], 1205),
        (&["UPDATE"], 1213),
        (&["UPDATE"], 1969),
        (&["COMMIT"], 1213),
        (&["COMMIT"], 1290),
        (&["UPDATE", "ROLLBACK"], 1205),
        (&["COMMIT", "ROLLBACK"], 1047),
    ];
    for (failing, code) in cases {
        proxy.on_statement(move |text| match failing.iter().any(|start| text.starts_with(start)) {
            true => Verdict::Answer(error_packet(code, "HY000", "no")),
            false => Verdict::Pass,
        });
        assert_unavailable(&service, "database", || put(&service, "Grace"));
        proxy.on_statement(|_| Verdict::Pass);
        let open = || database.sql("SELECT COUNT(*) FROM information_schema.innodb_trx") != "0";
        eventually(&format!("no transaction is open after {failing:?}"), || (!open()).then_some(()));
        assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada", "{failing:?} {code}");
        assert_eq!(put(&service, "Ada").status, 200);
    }
}

#[test]
fn a_statement_that_takes_too_long_is_ended_on_the_server() {
    let database = Database::start();
    let service = at(&database.url()).start();
    service.add_user("Ada", "ada@x.org");
    database.sql("CREATE TRIGGER users.slow BEFORE UPDATE ON users.users FOR EACH ROW DO SLEEP(60)");
    assert_unavailable(&service, "in time", || put(&service, "Grace"));
    no_statement_runs(&database);
    let slow = "CREATE VIEW users.users AS SELECT * FROM users.kept WHERE SLEEP(60) = 0";
    database.sql(&format!("DROP TRIGGER users.slow; RENAME TABLE users.users TO users.kept; {slow}"));
    for path in ["/api/users/1", "/api/users"] {
        assert_unavailable(&service, "in time", || service.get(path));
        no_statement_runs(&database);
    }
    database.sql("DROP VIEW users.users; RENAME TABLE users.kept TO users.users");
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");
}
