//! The harness's own database and proxy: that they do what other tests rely on.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Database, Proxy, Verdict, command, error_packet, eventually};

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1);";

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn run(address: SocketAddr, statements: &str) -> (String, String) {
    text(&Database::client(address).arg("-e").arg(statements).output().unwrap())
}

/// A client that runs statements until it is dropped.
struct Running(Child);

impl Running {
    fn start(address: SocketAddr, statements: &str) -> Self {
        let mut client: Command = Database::client(address);
        client.arg("-e").arg(statements).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(client.spawn().unwrap())
    }

    fn still_runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn finished(mut self) -> (String, String) {
        eventually("the client ends", || self.0.try_wait().unwrap());
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (out.trim_end().to_owned(), err.trim_end().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a server greets within a time.
fn greets(connection: &mut TcpStream, within: Duration) -> bool {
    connection.set_read_timeout(Some(within)).unwrap();
    match connection.read(&mut [0; 512]) {
        Ok(read) => read > 0,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            false
        }
    }
}

#[test]
fn the_app_can_use_its_database_and_nothing_else() {
    let database = Database::start();
    assert_eq!(database.url(), format!("mysql://app:pw@{}/users", database.address()));
    let created = text(&database.as_app(&format!("{TABLE} SELECT id, DATABASE() FROM t")));
    assert_eq!(created, ("1\tusers".into(), String::new()));
    for statement in ["CREATE DATABASE other", "SELECT * FROM mysql.user", "SET GLOBAL read_only = 1"] {
        let (_, error) = text(&database.as_app(statement));
        assert!(error.contains("denied"), "{statement}: {error}");
    }
}

#[test]
fn options_are_the_servers() {
    let database = Database::builder().option("--sql-mode=ANSI").option("--autocommit=0").start();
    let (modes, _) = text(&database.as_app("SELECT @@sql_mode, @@autocommit"));
    assert!(modes.contains("ANSI") && modes.ends_with("\t0"), "{modes}");
}

#[test]
fn data_and_port_outlive_stops_and_crashes() {
    let mut database = Database::start();
    let address = database.address();
    database.as_app(TABLE);
    database.restart();
    database.as_app("INSERT INTO t VALUES (2)");
    database.kill();
    assert!(TcpStream::connect(address).is_err());
    database.start_again();
    assert_eq!(database.address(), address);
    assert_eq!(database.sql("SELECT id FROM users.t ORDER BY id"), "1\n2");
}

#[test]
fn a_paused_database_takes_connections_and_says_nothing() {
    let database = Database::start();
    database.pause();
    let mut connection = TcpStream::connect(database.address()).unwrap();
    assert!(!greets(&mut connection, Duration::from_millis(300)));
    database.resume();
    assert!(greets(&mut connection, Duration::from_secs(20)));
    database.pause();
}

#[test]
fn a_read_only_database_refuses_changes_until_it_is_not() {
    let database = Database::start();
    database.as_app(TABLE);
    database.set_read_only(true);
    let (_, error) = text(&database.as_app("INSERT INTO t VALUES (2)"));
    assert!(error.contains("1290"), "{error}");
    database.set_read_only(false);
    assert_eq!(text(&database.as_app("INSERT INTO t VALUES (2)")).1, "");
}

#[test]
fn a_session_holds_its_locks() {
    let database = Database::start();
    database.as_app(TABLE);
    let mut session = database.session();
    assert_eq!(session.run("BEGIN; SELECT id FROM users.t FOR UPDATE;"), "1");
    let locked = "SET innodb_lock_wait_timeout = 0; UPDATE t SET id = 2";
    assert!(text(&database.as_app(locked)).1.contains("1205"));
    session.run("COMMIT;");
    assert_eq!(text(&database.as_app(locked)).1, "");
}

#[test]
fn the_proxy_passes_and_tells_what_was_asked() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    assert_eq!(proxy.url(&database), format!("mysql://app:pw@{}/users", proxy.address()));
    let statements = "PREPARE s FROM 'SELECT 7'; EXECUTE s";
    assert_eq!(run(proxy.address(), statements), ("7".into(), String::new()));
    let queries: Vec<_> = proxy.take_commands().into_iter().filter(|(kind, _)| *kind == command::QUERY).collect();
    let texts: Vec<&str> = queries.iter().map(|(_, text)| text.as_str()).collect();
    assert!(texts.ends_with(&["PREPARE s FROM 'SELECT 7'", "EXECUTE s"]), "{texts:?}");
    assert_eq!((proxy.accepted(), proxy.count(command::QUERY)), (1, 0));
    eventually("the connection ends", || (proxy.open() == 0).then_some(()));
}

#[test]
fn the_proxy_delays_each_packet() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    proxy.delay(Duration::from_millis(100));
    let started = Instant::now();
    assert_eq!(run(proxy.address(), "SELECT 1").0, "1");
    // Greeting, log-in, and a column, its definition, a row and the end at least.
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
}

#[test]
fn the_proxy_cuts_connections_and_takes_new_ones() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let waiting = Running::start(proxy.address(), "SELECT SLEEP(60)");
    eventually("the query runs", || (proxy.count(command::QUERY) > 0).then_some(()));
    proxy.cut();
    let (_, error) = waiting.finished();
    assert!(error.contains("2013"), "{error}");
    assert_eq!(run(proxy.address(), "SELECT 1").0, "1");
}

#[test]
fn the_proxy_stalls_without_closing() {
    let database = Database::start();
    database.as_app(TABLE);
    let proxy = Proxy::to_database(&database);
    let mut session = database.session();
    session.run("BEGIN; SELECT id FROM users.t FOR UPDATE;");
    let mut client = Running::start(proxy.address(), "SELECT id FROM t FOR UPDATE");
    let asked = || proxy.commands().iter().any(|(_, text)| text.ends_with("FOR UPDATE"));
    eventually("the client asks", || asked().then_some(()));

    proxy.stall(true);
    session.run("COMMIT;");
    let done = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app' AND command = 'Sleep'";
    eventually("the server has answered", || (database.sql(done) == "1").then_some(()));
    let mut connection = TcpStream::connect(proxy.address()).unwrap();
    assert!(!greets(&mut connection, Duration::from_millis(300)));
    assert!(client.still_runs());

    proxy.stall(false);
    assert_eq!(client.finished(), ("1".into(), String::new()));
    assert!(greets(&mut connection, Duration::from_secs(20)));
}

#[test]
fn the_proxy_refuses_and_listens_again_on_the_same_port() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    for _ in 0..3 {
        proxy.refuse(true);
        let error = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        proxy.refuse(false);
        assert_eq!(run(proxy.address(), "SELECT 1").0, "1");
    }
    proxy.refuse(true);
}

#[test]
fn the_proxy_answers_and_cuts_single_commands() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    proxy.on_command(|payload| match &payload[1..] {
        b"SELECT 1" => Verdict::Answer(error_packet(1213, "40001", "Deadlock found")),
        b"SELECT 2" => Verdict::Cut,
        _ => Verdict::Pass,
    });
    let (_, error) = run(proxy.address(), "SELECT 1");
    assert!(error.contains("ERROR 1213 (40001)") && error.contains("Deadlock found"), "{error}");
    let (_, error) = run(proxy.address(), "SELECT 2");
    assert!(error.contains("2013"), "{error}");
    assert_eq!(run(proxy.address(), "SELECT 3").0, "3");
}

#[test]
fn the_proxy_cuts_after_or_instead_of_a_counted_ok() {
    let database = Database::start();
    database.as_app(TABLE);
    let proxy = Proxy::to_database(&database);
    let inserts = |first: u32| {
        let values = (first..first + 3).map(|id| format!("INSERT INTO t VALUES ({id});"));
        values.collect::<String>()
    };
    proxy.cut_after_ok(2);
    run(proxy.address(), &inserts(10));
    assert!(proxy.has_struck());
    let ids = database.sql("SELECT id FROM users.t WHERE id >= 10 ORDER BY id");
    assert_eq!(ids, "10\n11");

    proxy.take_commands();
    proxy.cut_instead_of_ok(2);
    run(proxy.address(), &inserts(20));
    assert_eq!(proxy.take_commands().iter().filter(|(_, text)| text.starts_with("INSERT")).count(), 2);
    assert_eq!(database.sql("SELECT id FROM users.t WHERE id >= 20 ORDER BY id"), "20\n21");
    assert_eq!(run(proxy.address(), "INSERT INTO t VALUES (30)").1, "");
}

#[test]
fn the_proxy_leads_elsewhere_and_claims_other_versions() {
    let (one, two) = (Database::start(), Database::start());
    let proxy = Proxy::to_database(&one);
    let port = || run(proxy.address(), "SELECT @@port").0;
    let ports = [one.address().port().to_string(), two.address().port().to_string()];
    assert_eq!([port(), port()], [ports[0].clone(), ports[0].clone()]);
    proxy.redirect(&[one.address(), two.address()]);
    assert_eq!([port(), port()].map(|port| ports.contains(&port)), [true, true]);
    proxy.redirect(&[two.address()]);
    assert_eq!(port(), ports[1]);
    proxy.claim_version("8.0.30-Vitess");
    let mut greeting = [0; 64];
    TcpStream::connect(proxy.address()).unwrap().read_exact(&mut greeting).unwrap();
    assert!(String::from_utf8_lossy(&greeting).contains("8.0.30-Vitess"));
    assert_eq!(port(), ports[1]);
}
