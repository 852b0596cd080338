//! What only shows with many users or many requests; larger with `cargo xtask test --long`.

use std::fs;
use std::time::Instant;

use harness::{Raw, Service, long, wire};
use serde_json::json;

fn post(connection: &mut Raw, number: usize) {
    let reply = connection.request(wire::post(wire::user(&format!("user{number}@example.org")))).unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn patch(connection: &mut Raw, id: usize, active: bool) {
    let headers = [("Content-Type", "application/json")];
    let body = json!({ "active": active }).to_string();
    let reply = connection.request(wire::request("PATCH", &format!("/api/users/{id}"), &headers, body)).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_store_with_many_users_opens_after_a_crash_and_does_not_grow_by_updates() {
    let (users, updates) = if long() { (200_000, 100_000) } else { (2_000, 4_000) };
    let service = Service::builder(harness::Runtime::Aot).env("LOG_LEVEL", "warn").start();
    let mut connection = service.connect();
    (1..=users).for_each(|number| post(&mut connection, number));
    let file = service.folder().join("data/users.redb");
    let before = fs::metadata(&file).unwrap().len();
    (0..updates).for_each(|n| patch(&mut connection, n * 7919 % users + 1, n % 2 == 0));
    let after = fs::metadata(&file).unwrap().len();
    assert!(after <= before * 2, "from {before} to {after} bytes by {updates} updates of {users} users");

    let started = Instant::now();
    let service = service.restart();
    let reply = service.get("/readyz");
    assert_eq!(reply.status, 200);
    println!(
        "{users} users: ready {:?} after a crash, {before} bytes, {after} after {updates} updates",
        started.elapsed()
    );
    let last = service.get(&format!("/api/users/{users}"));
    assert_eq!(last.status, 200);
}

#[test]
fn memory_and_descriptors_are_flat_under_load() {
    let rounds = if long() { 200 } else { 4 };
    let service = Service::builder(harness::Runtime::Aot).env("LOG_LEVEL", "warn").start();
    let mut connection = service.connect();
    (1..=100).for_each(|number| post(&mut connection, number));
    let load = || {
        for _ in 0..20 {
            let mut fresh = service.connect();
            for n in 0..100 {
                assert_eq!(fresh.request(wire::get("/api/users?page_size=100")).unwrap().status, 200);
                patch(&mut fresh, n % 100 + 1, n % 3 == 0);
            }
        }
    };
    load();
    let before = service.usage();
    (0..rounds).for_each(|_| load());
    let after = service.usage();
    assert!(after.memory_kib < before.memory_kib + 8 * 1024, "{before:?} {after:?}");
    assert!(after.descriptors <= before.descriptors + 1, "{before:?} {after:?}");
}
