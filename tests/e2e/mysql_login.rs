//! `caching_sha2_password`, MySQL's way to authenticate: whom the server has not seen since it was
//! started has to show the password itself, inside TLS or encrypted with a key that the server gives.

use harness::{Database, Flavour};

use crate::mysql::{at, post, ready};

const DENIED: &str = "denies access";

fn change_password(database: &Database, password: &str) {
    database.sql(&format!("ALTER USER app IDENTIFIED BY '{password}'"));
}

/// A URL with another password, which is percent-encoded.
fn url_with(database: &Database, password: &str) -> String {
    let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
    database.url().replace("app:pw", &format!("app:{encoded}"))
}

#[test]
fn a_password_is_shown_to_a_server_that_does_not_know_it_yet() {
    let mut database = Database::start_of(Flavour::MySql);
    assert!(!database.knows_app());
    let service = at(&database.url()).start();
    assert_eq!(post(&service, "u1@x.org").status, 201);
    assert!(database.knows_app());
    // More connections, which need not show it.
    let others = [at(&database.url()).start(), at(&database.url()).start()];
    others.iter().for_each(|service| assert_eq!(service.get("/api/users/1").status, 200));

    for number in 2..5 {
        if number == 2 {
            database.restart();
        } else {
            database.sql("FLUSH PRIVILEGES");
            database.close_connections();
        }
        assert!(!database.knows_app());
        ready(&service);
        assert_eq!(post(&service, &format!("u{number}@x.org")).status, 201);
        assert!(database.knows_app());
    }
}

#[test]
fn passwords_have_any_characters_and_up_to_213_bytes() {
    let database = Database::start_of(Flavour::MySql);
    for password in ["", &"ä€🦀 %@:/?#".repeat(4), &"p".repeat(213)] {
        change_password(&database, password);
        let service = at(&url_with(&database, password)).start();
        assert_eq!(service.get("/readyz").status, 200, "{password}");
    }
    let failed = at(&url_with(&database, &"p".repeat(214))).run();
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert!(failed.stderr.contains("DATABASE_URL") && failed.stderr.contains("213"), "{failed:?}");
    assert!(!failed.stderr.contains("ppp"), "{failed:?}");
}

#[test]
fn a_password_that_was_changed_is_told_and_used_again_when_it_is_changed_back() {
    let database = Database::start_of(Flavour::MySql);
    let service = at(&database.url()).start();
    assert_eq!(post(&service, "u1@x.org").status, 201);
    change_password(&database, "other");
    database.close_connections();
    for _ in 0..3 {
        assert!(service.get("/api/users/1").problem(503).1.contains(DENIED));
        service.assert_alive();
    }
    change_password(&database, "pw");
    assert_eq!(service.get("/api/users/1").status, 200);
}

#[test]
fn a_server_without_a_key_is_one_that_denies_access() {
    let options = [
        "--caching-sha2-password-auto-generate-rsa-keys=OFF",
        "--caching-sha2-password-private-key-path=none.pem",
        "--caching-sha2-password-public-key-path=none.pem",
    ];
    let server = Database::builder_of(Flavour::MySql);
    let database = options.into_iter().fold(server, |builder, option| builder.option(option)).start();
    let service = at(&database.url()).start();
    for _ in 0..3 {
        assert!(service.get("/readyz").problem(503).1.contains(DENIED));
        service.assert_alive();
    }
    assert!(service.log().contains("Access denied"), "{}", service.log());
}
