//! The MySQL store on servers that have little room.

use std::thread;

use harness::{Database, Service, eventually};
use serde_json::json;

use crate::mysql::{at, post, several_connections};

#[test]
fn a_server_with_few_connections_is_shared_or_says_that_it_is_full() {
    let database = Database::start();
    database.sql("GRANT USAGE ON *.* TO app WITH MAX_USER_CONNECTIONS 2");
    let service = at(&database.url()).start();
    service.add_user("Ada", "ada@x.org");
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let reply = service.get("/api/users/1");
                    let is_told =
                        || reply.problem(503).0 == "store-unavailable" && reply.header("retry-after").is_some();
                    assert!(reply.status == 200 || is_told(), "{reply:?}");
                }
            });
        }
    });
    assert_eq!(service.get("/api/users/1").status, 200);
}

/// A request of every kind, each of which has a statement of its own.
fn mixed(service: &Service, number: usize) {
    let user = post(service, &format!("u{number}@x.org")).expect(201);
    let path = format!("/api/users/{}", user["id"]);
    assert_eq!(service.get(&path).status, 200);
    let body = json!({"name": format!("Ada {number}")}).to_string();
    assert_eq!(service.send_json("PATCH", &path, &body).status, 200);
    for query in ["", "?active=true", "?email=u1@x.org", "?email=u1@x.org&active=true"] {
        assert_eq!(service.get(&format!("/api/users{query}")).status, 200);
    }
    assert_eq!(service.send("DELETE", &path, &[], None).status, 204);
}

#[test]
fn prepared_statements_are_as_few_as_connections_times_statements() {
    const CONNECTIONS: usize = 4;
    /// One for each kind of request, and another for a change.
    const STATEMENTS: usize = 9;
    let database = Database::builder().option("--max-prepared-stmt-count=64").start();
    let service = at(&database.url()).env("DATABASE_CONNECTIONS", CONNECTIONS).start();
    for round in 0..8 {
        thread::scope(|scope| {
            for client in 0..CONNECTIONS {
                let service = &service;
                scope.spawn(move || (0..8).for_each(|n| mixed(service, (round * CONNECTIONS + client) * 8 + n)));
            }
        });
        let prepared = database.sql("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'");
        let prepared: usize = prepared.split_whitespace().last().unwrap().parse().unwrap();
        assert!((STATEMENTS..=CONNECTIONS * STATEMENTS).contains(&prepared), "{prepared} in round {round}");
        database.close_connections();
    }
}

#[test]
fn a_silence_in_which_the_server_closes_all_connections_is_not_noticed() {
    let database = Database::builder().option("--wait-timeout=2").start();
    let service = at(&database.url()).start();
    for round in 0..2 {
        several_connections(&service);
        let open = || database.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'");
        eventually("the server closes them", || (open() == "0").then_some(()));
        for number in 0..20 {
            match round {
                0 => assert_eq!(service.get("/api/users").status, 200),
                _ => assert_eq!(post(&service, &format!("u{number}@x.org")).status, 201),
            }
        }
    }
}

#[test]
fn the_largest_users_and_pages_pass_a_server_that_takes_small_packets() {
    let database = Database::builder().option("--max-allowed-packet=16384").start();
    let service = at(&database.url()).start();
    let name = "🦀".repeat(200);
    for number in 0..100 {
        let email = format!("{}{number:03}@{}.org", "a".repeat(61), "b".repeat(60));
        service.add_user(&name, &email);
    }
    let page = service.get("/api/users?page_size=100").expect(200);
    let users = page["users"].as_array().unwrap();
    assert!(users.len() == 100 && users.iter().all(|user| user["name"] == name.as_str()));
}
