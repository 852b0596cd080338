//! The database by its name: who is asked for it, and what happens while nobody answers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use harness::{Builder, Database, Dns, DnsAnswer, Proxy, eventually};
use serde_json::json;
use tempfile::TempDir;

use crate::mysql::{assert_unavailable, at, post, ready};
use crate::users;

const NAME: &str = "db.usher.test";

/// A service whose database is `host`, on the port of this address.
fn by_name(host: &str, address: SocketAddr) -> Builder {
    at(&format!("mysql://app:pw@{host}:{}/users", address.port()))
}

fn asking(dns: &Dns, database: SocketAddr) -> Builder {
    by_name(NAME, database).env("DNS_SERVER", dns.address())
}

/// A folder to be granted as `/etc`.
fn etc(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
    folder
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_name_server_that_is_set_is_asked_and_its_answer_read_whole() {
    let (database, dns) = (Database::start(), Dns::start());
    dns.answer(NAME, [DnsAnswer::Aliases(vec!["primary.usher.test".into()], vec![])]);
    dns.addresses("primary.usher.test", &["127.0.0.1"]);
    dns.split(Duration::from_millis(1));
    // It outweighs the file.
    let folder = etc(&[("resolv.conf", "nameserver 127.0.0.99\n")]);
    let service = asking(&dns, database.address()).grant("/etc", folder.path()).start();
    users::a_user_lives_and_dies(&service);
    assert_eq!(dns.asked()[0], (NAME.to_owned(), "A".to_owned()));
}

#[test]
fn a_granted_resolv_conf_tells_whom_to_ask_and_for_what() {
    let (database, dns) = (Database::start(), Dns::start());
    dns.addresses("db.ns.svc.test", &["127.0.0.1"]);
    let text = dns.resolv_conf() + "search other.test ns.svc.test\noptions ndots:5\n";
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/resolv.conf"), text).unwrap();
    let names = || dns.asked().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for (name, folder) in [("/etc", root.path().join("etc")), ("/", root.path().to_owned())] {
        let before = names().len();
        ready(&by_name("db", database.address()).grant(name, &folder).start());
        assert_eq!(names()[before..], ["db.other.test", "db.ns.svc.test"], "{name}");
    }
}

#[test]
fn a_granted_hosts_file_comes_before_any_server() {
    let (database, dns) = (Database::start(), Dns::start());
    let hosts = format!("127.0.0.1 localhost {NAME}\n");
    let folder = etc(&[("hosts", &hosts), ("resolv.conf", &dns.resolv_conf())]);
    users::a_user_lives_and_dies(&by_name(NAME, database.address()).grant("/etc", folder.path()).start());
    assert_eq!(dns.asked(), []);
}

#[test]
fn with_nothing_granted_the_hosts_resolver_is_asked() {
    let (database, dns) = (Database::start(), Dns::start());
    // WasmEdge would look `/etc` up below a granted `.`.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    fs::write(folder.path().join("etc/resolv.conf"), dns.resolv_conf()).unwrap();
    // A number that only the system's resolver takes for an address: it needs nobody else for it.
    for host in ["127.1", "localhost"] {
        ready(&by_name(host, database.address()).folder(folder.path()).start());
    }
    assert_eq!(dns.asked(), []);
    let service = by_name("no-such-name.invalid", database.address()).start();
    assert_unavailable(&service, "name is not resolved", || service.get("/readyz"));
    assert!(service.log().contains("no-such-name.invalid"));
}

#[test]
fn addresses_are_tried_in_turn_until_one_has_a_database() {
    let (database, dns) = (Database::start(), Dns::start());
    // The first takes the connection and is silent; nothing listens at the second.
    let silent = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), database.address().port())).unwrap();
    dns.addresses(NAME, &["127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    let service = asking(&dns, database.address()).start();
    users::a_user_lives_and_dies(&service);
    drop(silent);
}

#[test]
fn a_database_that_moved_is_found_by_its_name_without_a_restart() {
    let (first, second, dns) = (Database::start(), Database::start(), Dns::start());
    // Two machines with the same port.
    let old = Proxy::to_database(&first);
    let new = Proxy::on(SocketAddr::from(([127, 0, 0, 2], old.address().port())), second.address());
    dns.addresses(NAME, &["127.0.0.1"]);
    drop(at(&second.url()).start());
    let service = asking(&dns, old.address()).start();
    service.add_user("Ada", "ada@x.org");
    old.cut();
    old.refuse(true);
    assert_unavailable(&service, "unreachable", || service.get("/api/users"));
    dns.addresses(NAME, &["127.0.0.2"]);
    assert_eq!(service.get("/api/users").expect(200)["users"], json!([]));
    assert_eq!(post(&service, "ada@x.org").status, 201);
    assert!(new.accepted() > 0);
}

#[test]
fn while_a_name_is_looked_up_everything_else_goes_on() {
    let (database, dns) = (Database::start(), Dns::start());
    let proxy = Proxy::to_database(&database);
    dns.addresses(NAME, &["127.0.0.1"]);
    // Nothing here is to wait for it.
    let service = asking(&dns, proxy.address()).env("DATABASE_TIMEOUT", "30s").start();
    service.add_user("Ada", "ada@x.org");
    dns.answer(NAME, [DnsAnswer::Silence]);
    proxy.cut();
    let before = dns.asked().len();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| service.get("/api/users/1").status);
        eventually("the name is asked for", || (dns.asked().len() > before).then_some(()));
        for _ in 0..20 {
            service.assert_alive();
            assert_eq!(service.get("/api/users/x").status, 400);
        }
        assert!(!waiting.is_finished());
        dns.addresses(NAME, &["127.0.0.1"]);
        dns.hang_up();
        assert_eq!(waiting.join().unwrap(), 200);
    });
}

#[test]
fn a_name_server_that_is_silent_costs_the_deadline_until_it_speaks() {
    let (database, dns) = (Database::start(), Dns::start());
    dns.answer(NAME, [DnsAnswer::Silence]);
    let service = asking(&dns, database.address()).start();
    for path in ["/readyz", "/api/users"] {
        assert_unavailable(&service, "name is not resolved", || service.get(path));
    }
    assert!(service.log().contains("does not answer in time"));
    dns.addresses(NAME, &["127.0.0.1"]);
    ready(&service);
    assert_eq!(post(&service, "ada@x.org").status, 201);
}

#[test]
fn what_is_wrong_with_a_name_is_told_apart() {
    let (database, dns) = (Database::start(), Dns::start());
    let service = asking(&dns, database.address()).start();
    let faults = [
        (DnsAnswer::Code(3), "not resolved", "there is no name db.usher.test"),
        (DnsAnswer::Addresses(vec![]), "not resolved", "the name db.usher.test has no address"),
        (DnsAnswer::Code(2), "not resolved", "answers SERVFAIL"),
        (DnsAnswer::Garbage(vec![0x80; 500]), "not resolved", "gives an answer that is none"),
        (DnsAnswer::Half, "not resolved", "unreachable over TCP"),
        (DnsAnswer::Addresses(vec![ip("::1")]), "reach IPv4 only", "db.usher.test has only IPv6 addresses"),
    ];
    for (answer, reason, cause) in faults {
        dns.answer(NAME, [answer]);
        assert_unavailable(&service, reason, || service.get("/readyz"));
        eventually("the log says why", || service.log().contains(cause).then_some(()));
    }
    dns.answer(NAME, [DnsAnswer::Code(2), DnsAnswer::Addresses(vec![ip("127.0.0.1")])]);
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn what_wasmedge_cannot_reach_is_refused_by_name() {
    let failed = at("mysql://app:pw@db/users").env("DNS_SERVER", "[::1]:53").run();
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert!(failed.stderr.contains("DNS_SERVER") && failed.stderr.contains("IPv4 only"), "{failed:?}");
    let service = at("mysql://app:pw@[::1]:1/users").start();
    assert_unavailable(&service, "reach IPv4 only", || service.get("/readyz"));
    let folder = etc(&[("resolv.conf", "nameserver ::1\n")]);
    let service = at("mysql://app:pw@db:1/users").grant("/etc", folder.path()).start();
    assert_unavailable(&service, "name is not resolved", || service.get("/readyz"));
    assert!(service.log().contains("the name server [::1]:53 has an IPv6 address"));
}
