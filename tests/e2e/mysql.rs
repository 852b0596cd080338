//! The MySQL store: servers that are away, stalled, read-only, or set up in their own way.
//!
//! Whatever happens to the database, `/livez` answers: every service here is watched.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Builder, Database, Flavour, Reply, Runtime, Service, eventually, wire};
use serde_json::json;

use crate::users;

/// Short, so that what waits for it is quick; long enough for a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(2);

on_every_runtime!(
    a_database_that_is_away_at_the_start_is_used_once_it_is_there,
    a_database_that_goes_away_is_used_again_when_it_is_back,
    a_database_that_stalls_costs_each_request_its_deadline_and_nothing_else,
    connections_that_the_server_closed_are_replaced_and_no_client_notices
);
on_every_server!(
    a_read_only_database_is_read_and_says_so_to_writers,
    rights_to_change_tables_are_needed_only_where_there_are_none,
    of_many_that_start_at_once_on_an_empty_database_all_become_ready,
    a_password_that_is_wrong_is_told_and_never_shown
);
on_server!(
    away_on_mysql, MySql:
    a_database_that_is_away_at_the_start_is_used_once_it_is_there,
    a_database_that_goes_away_is_used_again_when_it_is_back,
    a_database_that_stalls_costs_each_request_its_deadline_and_nothing_else,
    connections_that_the_server_closed_are_replaced_and_no_client_notices
);

/// What runs the service, and whose server it uses.
struct Place {
    runtime: Runtime,
    flavour: Flavour,
}

impl From<Runtime> for Place {
    fn from(runtime: Runtime) -> Self {
        Self { runtime, flavour: Flavour::MariaDb }
    }
}

impl From<Flavour> for Place {
    fn from(flavour: Flavour) -> Self {
        Self { runtime: Runtime::Aot, flavour }
    }
}

impl Place {
    fn database(&self) -> Database {
        Database::start_of(self.flavour)
    }

    fn service(&self, database: &Database) -> Builder {
        with(Service::builder(self.runtime), &database.url())
    }
}

/// A service that keeps users in the database at this URL.
pub fn at(url: &str) -> Builder {
    with(Service::builder(Runtime::Aot), url)
}

fn with(builder: Builder, url: &str) -> Builder {
    let deadline = format!("{}s", DEADLINE.as_secs());
    builder.env("DATABASE_URL", url).env("DATABASE_TIMEOUT", deadline).watched(true)
}

fn on(database: &Database) -> Builder {
    at(&database.url())
}

pub fn post(service: &Service, email: &str) -> Reply {
    service.send_json("POST", "/api/users", &wire::user(email))
}

/// Asserts that a request is answered with 503 and why, in time, while the process stays alive.
pub fn assert_unavailable(service: &Service, why: &str, request: impl FnOnce() -> Reply) {
    let started = Instant::now();
    let reply = request();
    let took = started.elapsed();
    let (kind, detail) = reply.problem(503);
    assert!(kind == "store-unavailable" && detail.contains(why), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(took < DEADLINE * 2, "{took:?}");
    service.assert_alive();
}

pub fn ready(service: &Service) {
    eventually("the service is ready", || (service.get("/readyz").status == 200).then_some(()));
}

/// Lets the service have several connections, which are idle afterwards.
pub fn several_connections(service: &Service) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(service.get("/api/users").status, 200)));
        }
    });
}

fn a_database_that_is_away_at_the_start_is_used_once_it_is_there(place: impl Into<Place>) {
    let place = place.into();
    let mut database = place.database();
    database.stop();
    let service = place.service(&database).start();
    for path in ["/readyz", "/api/users"] {
        assert_unavailable(&service, "unreachable", || service.get(path));
    }
    database.start_again();
    ready(&service);
    assert_eq!(post(&service, "u1@x.org").status, 201);
}

fn a_database_that_goes_away_is_used_again_when_it_is_back(place: impl Into<Place>) {
    let place = place.into();
    let mut database = place.database();
    let service = place.service(&database).start();
    assert_eq!(post(&service, "u1@x.org").status, 201);
    database.stop();
    for _ in 0..3 {
        assert_unavailable(&service, "unreachable", || service.get("/api/users/1"));
        assert_eq!(post(&service, "u2@x.org").problem(503).0, "store-unavailable");
    }
    database.start_again();
    ready(&service);
    assert_eq!(service.get("/api/users/1").status, 200);
    assert_eq!(post(&service, "u2@x.org").status, 201);
}

fn a_database_that_stalls_costs_each_request_its_deadline_and_nothing_else(place: impl Into<Place>) {
    let place = place.into();
    let database = place.database();
    let service = place.service(&database).start();
    assert_eq!(post(&service, "u1@x.org").status, 201);
    several_connections(&service);
    database.pause();
    assert_unavailable(&service, "in time", || service.get("/api/users/1"));
    assert_unavailable(&service, "in time", || post(&service, "u2@x.org"));
    database.resume();
    eventually("the user is there", || (service.get("/api/users/1").status == 200).then_some(()));
    // Nothing that was given up got into the way of another request.
    for number in 3..30 {
        let id = post(&service, &format!("u{number}@x.org")).expect(201)["id"].clone();
        assert_eq!(service.get(&format!("/api/users/{id}")).expect(200)["email"], format!("u{number}@x.org"));
    }
}

fn connections_that_the_server_closed_are_replaced_and_no_client_notices(place: impl Into<Place>) {
    let place = place.into();
    let database = place.database();
    let service = place.service(&database).start();
    assert_eq!(post(&service, "u0@x.org").status, 201);
    for number in 1..6 {
        database.close_connections();
        assert_eq!(service.get("/api/users").status, 200);
        database.close_connections();
        assert_eq!(post(&service, &format!("u{number}@x.org")).status, 201);
    }
}

/// Its connections share the descriptors with those of clients.
#[test]
fn few_descriptors_leave_room_for_the_database() {
    let database = Database::start();
    let service = on(&database).env("DATABASE_CONNECTIONS", 4).shell("ulimit -n 64").watched(false).start();
    let crowd: Vec<_> = (0..200).map(|_| service.connect()).collect();
    eventually("a probe gets through", || service.alive());
    drop(crowd);
    ready(&service);
    let clients: Vec<_> = (1..9).map(|number| post(&service, &format!("u{number}@x.org")).status).collect();
    assert_eq!(clients, [201; 8]);
}

fn a_read_only_database_is_read_and_says_so_to_writers(flavour: Flavour) {
    let database = Database::start_of(flavour);
    let service = on(&database).start();
    assert_eq!(post(&service, "u1@x.org").status, 201);
    database.set_read_only(true);
    assert_eq!(service.get("/api/users/1").status, 200);
    for reply in [post(&service, "u2@x.org"), service.get("/readyz"), service.send("DELETE", "/api/users/1", &[], None)]
    {
        assert!(reply.problem(503).1.contains("read-only"), "{reply:?}");
    }
    database.set_read_only(false);
    assert_eq!(post(&service, "u2@x.org").status, 201);
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn a_schema_of_a_later_version_is_refused() {
    let database = Database::start();
    drop(on(&database).start());
    database.sql("INSERT INTO users.schema_migrations (version) VALUES (99)");
    let failed = on(&database).run();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("schema 99") && failed.stderr.contains("later version"), "{failed:?}");
}

fn rights_to_change_tables_are_needed_only_where_there_are_none(flavour: Flavour) {
    let database = Database::start_of(flavour);
    database.sql("REVOKE ALL ON users.* FROM app; GRANT SELECT, INSERT, UPDATE, DELETE ON users.* TO app");
    let service = on(&database).start();
    assert!(service.get("/readyz").problem(503).1.contains("denies access: check user, password"));
    drop(service);
    database.sql("GRANT CREATE ON users.* TO app");
    drop(on(&database).start());
    database.sql("REVOKE CREATE ON users.* FROM app");
    let service = on(&database).start();
    ready(&service);
    assert_eq!(post(&service, "u1@x.org").status, 201);
}

fn of_many_that_start_at_once_on_an_empty_database_all_become_ready(flavour: Flavour) {
    let database = Database::start_of(flavour);
    let services: Vec<Service> = (0..5).map(|_| on(&database).start()).collect();
    services.iter().for_each(ready);
    let applied = database.sql("SELECT version, COUNT(*) FROM users.schema_migrations GROUP BY version");
    assert_eq!(applied.split_whitespace().collect::<Vec<_>>(), ["1", "1", "2", "1"]);
}

#[test]
fn the_defaults_of_a_server_do_not_matter() {
    let servers: [&[&str]; 5] = [
        &[
            "--sql-mode=PIPES_AS_CONCAT,IGNORE_SPACE,NO_BACKSLASH_ESCAPES",
            "--character-set-server=latin1",
            "--default-time-zone=-11:00",
        ],
        &["--sql-mode=", "--autocommit=0", "--explicit-defaults-for-timestamp=OFF"],
        &["--sql-mode=TRADITIONAL", "--transaction-isolation=SERIALIZABLE"],
        &["--lower-case-table-names=1", "--character-set-server=utf8mb3", "--skip-character-set-client-handshake"],
        &["--max-allowed-packet=16384", "--max-prepared-stmt-count=64"],
    ];
    servers.iter().for_each(|options| serves_as_always(Flavour::MariaDb, options));
}

#[test]
fn the_defaults_of_a_mysql_do_not_matter() {
    let servers: [&[&str]; 4] = [
        &[
            "--sql-mode=ANSI,NO_BACKSLASH_ESCAPES",
            "--character-set-server=latin1",
            "--collation-server=latin1_general_cs",
            "--default-time-zone=-11:00",
            "--sql-require-primary-key=ON",
        ],
        &["--sql-mode=", "--autocommit=0", "--explicit-defaults-for-timestamp=OFF"],
        &["--sql-mode=TRADITIONAL", "--transaction-isolation=SERIALIZABLE", "--max-allowed-packet=16384"],
        &["--lower-case-table-names=1", "--character-set-server=utf8mb3", "--init-connect=SET NAMES latin1"],
    ];
    servers.iter().for_each(|options| serves_as_always(Flavour::MySql, options));
}

fn serves_as_always(flavour: Flavour, options: &[&str]) {
    let server = Database::builder_of(flavour);
    let database = options.iter().fold(server, |builder, option| builder.option(option)).start();
    let service = on(&database).start();
    users::a_user_lives_and_dies(&service);
    let awkward = "🦀".repeat(198) + "\0\\";
    let body = json!({"name": awkward, "email": "\"o'\"@x.org"}).to_string();
    let user = service.send_json("POST", "/api/users", &body).expect(201);
    // What was acknowledged is there for anybody, at once and after a crash.
    let service = service.restart();
    assert_eq!(service.get(&format!("/api/users/{}", user["id"])).expect(200), user, "{options:?}");
    let collations = "SELECT DISTINCT table_collation FROM information_schema.tables WHERE table_schema = 'users'";
    assert_eq!(database.sql(collations), "utf8mb4_bin", "{options:?}");
}

/// MariaDB only: MySQL does not tell.
#[test]
fn a_server_with_ansi_quotes_by_default_is_told_as_such() {
    let database = Database::builder().option("--sql-mode=ANSI").start();
    let service = on(&database).start();
    assert!(service.get("/readyz").problem(503).1.contains("ANSI_QUOTES"));
    database.sql("SET GLOBAL sql_mode = ''");
    ready(&service);
}

fn a_password_that_is_wrong_is_told_and_never_shown(flavour: Flavour) {
    let database = Database::start_of(flavour);
    let url = database.url().replace("app:pw", "app:sEcret%40");
    let service = on(&database).env("DATABASE_URL", url).env("LOG_LEVEL", "trace").start();
    assert!(service.get("/readyz").problem(503).1.contains("denies access"));
    let said = service.log() + &service.stdout();
    assert!(said.contains("Access denied") && !said.contains("sEcret"), "{said}");
}

#[test]
fn a_url_that_is_none_is_refused_by_name_and_never_shown() {
    for url in ["mysql://app:sEcret@h@ost/users", "mysql://app:sEcret@host/users?ssl-mode=REQUIRED", "app:sEcret"] {
        let failed = Service::builder(Runtime::Aot).env("DATABASE_URL", url).run();
        assert_eq!(failed.status.code(), Some(2), "{failed:?}");
        assert!(failed.stderr.contains("DATABASE_URL") && !failed.stderr.contains("sEcret"), "{failed:?}");
    }
}

#[test]
fn the_url_may_be_in_a_file() {
    let database = Database::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), database.url() + "\n").unwrap();
    let builder = || Service::builder(Runtime::Aot).folder(folder.path()).env("DATABASE_URL_FILE", "secret");
    let service = builder().start();
    ready(&service);
    assert!(service.stdout().contains("mysql at 127.0.0.1") && !service.stdout().contains("pw"));
    drop(service);
    let failed = builder().env("DATABASE_URL_FILE", "none").run();
    assert!(failed.status.code() == Some(2) && failed.stderr.contains("DATABASE_URL_FILE"), "{failed:?}");
    let failed = builder().env("DATABASE_URL", database.url()).run();
    assert!(failed.status.code() == Some(2) && failed.stderr.contains("both set"), "{failed:?}");
}
