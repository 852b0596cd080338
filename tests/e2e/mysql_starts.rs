//! The MySQL store's tables: starts that are cut short, and several at once.

use harness::{Database, Proxy, Service, eventually, long};

use crate::mysql::{at, ready};

/// Asserts that a service is ready and that each migration is recorded once.
fn complete(database: &Database, service: &Service, when: &str) {
    assert_eq!(service.get("/readyz").status, 200, "{when}: {}", service.log());
    let versions = database.sql("SELECT version FROM users.schema_migrations ORDER BY version");
    assert_eq!(versions.split_whitespace().collect::<Vec<_>>(), ["1", "2"], "{when}");
}

fn empty(database: &Database) {
    database.sql("DROP DATABASE users; CREATE DATABASE users");
}

#[test]
fn a_start_that_is_cut_anywhere_in_the_migrations_is_completed_by_the_next() {
    let database = Database::start();
    for learned in [false, true] {
        for count in 1.. {
            empty(&database);
            let proxy = Proxy::to_database(&database);
            if learned {
                proxy.cut_after_ok(count)
            } else {
                proxy.cut_instead_of_ok(count)
            }
            let first = at(&proxy.url(&database)).start();
            if !proxy.has_struck() {
                assert!(count > 4, "the cuts came before the migrations");
                break;
            }
            drop(first);
            complete(&database, &at(&database.url()).start(), &format!("cut at {count}"));
        }
    }
}

#[test]
fn a_start_that_is_killed_anywhere_in_the_migrations_is_completed_by_the_next() {
    let database = Database::start();
    for count in 1.. {
        empty(&database);
        let proxy = Proxy::to_database(&database);
        proxy.stall_at_ok(count);
        let mut first = at(&proxy.url(&database)).launch();
        let ended = eventually("it is held up, or done", || {
            let listens = first.stdout().contains("listening on");
            (listens || proxy.has_struck()).then_some(listens)
        });
        first.kill();
        if ended {
            assert!(count > 4, "the stalls came before the migrations");
            break;
        }
        drop(proxy);
        complete(&database, &at(&database.url()).start(), &format!("killed at {count}"));
    }
}

#[test]
fn of_many_that_start_at_once_on_an_empty_database_all_that_live_become_ready() {
    let database = Database::start();
    let rounds = if long() { 20 } else { 5 };
    for round in 0..rounds {
        empty(&database);
        let proxy = Proxy::to_database(&database);
        let mut starting: Vec<Service> = (0..5).map(|_| at(&proxy.url(&database)).launch()).collect();
        // Anywhere from before the first connection to the last migrations.
        let commands = round * 7 % 20;
        eventually("they are at it", || (proxy.commands().len() >= commands).then_some(()));
        starting.swap_remove(round % 5).kill();
        let started: Vec<Service> = starting.into_iter().map(Service::listening).collect();
        started.iter().for_each(|service| complete(&database, service, &format!("round {round}")));
    }
}

#[test]
fn many_that_wait_for_their_database_become_ready_when_it_is() {
    let mut database = Database::start();
    database.stop();
    let services: Vec<Service> = (0..5).map(|_| at(&database.url()).start()).collect();
    for service in &services {
        assert!(service.get("/readyz").problem(503).1.contains("unreachable"));
    }
    database.start_again();
    services.iter().for_each(ready);
    services.iter().for_each(|service| complete(&database, service, "the database came late"));
}

/// There is no lock that one server would have and the other not.
#[test]
fn replicas_that_reach_different_servers_bring_each_up_to_date() {
    let (one, two) = (Database::start(), Database::start());
    let proxy = Proxy::to_database(&one);
    proxy.redirect(&[one.address(), two.address()]);
    let services = [(); 2].map(|()| at(&proxy.url(&one)).start());
    for (database, service) in [&one, &two].into_iter().zip(&services) {
        complete(database, service, "behind one address");
    }
}
