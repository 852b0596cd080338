//! The resolver against a name server that does as it is told.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use harness::{Dns, DnsAnswer};
use tempfile::TempDir;

use super::*;

/// Longer than anything here takes, so that only what is to wait for it does.
const DEADLINE: Duration = Duration::from_secs(30);
/// Short enough to be waited for; half of it is enough for an answer on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

fn asking(server: SocketAddr) -> Resolver {
    Resolver { server: Some(server), hosts: None, name_servers: None }
}

/// A resolver that reads these files, which last as long as the folder.
fn reading(hosts: &str, resolv_conf: &str) -> (Resolver, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    let (hosts, name_servers) = (path("hosts", hosts), path("resolv.conf", resolv_conf));
    (Resolver { server: None, hosts, name_servers }, folder)
}

async fn resolve(resolver: &Resolver, host: &str) -> Vec<String> {
    resolver.resolve(host, Instant::now() + DEADLINE).await.unwrap().iter().map(IpAddr::to_string).collect()
}

async fn failure(resolver: &Resolver, host: &str) -> String {
    resolver.resolve(host, Instant::now() + DEADLINE).await.unwrap_err().to_string()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn found() -> DnsAnswer {
    DnsAnswer::Addresses(vec![ip("10.0.0.1")])
}

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_needs_no_question_is_not_asked() {
    let resolver = asking(nobody());
    assert_eq!(resolve(&resolver, "10.1.2.3").await, ["10.1.2.3"]);
    assert_eq!(resolve(&resolver, "::1").await, ["::1"]);
    for name in ["localhost", "LOCALHOST.", "db.localhost"] {
        assert_eq!(resolve(&resolver, name).await, ["127.0.0.1", "::1"], "{name}");
    }
    assert!(failure(&resolver, "localhost.example").await.contains("unreachable over TCP"));
}

#[tokio::test]
async fn all_addresses_are_found_however_the_answer_comes() {
    let dns = Dns::start();
    dns.addresses("db.test", &["10.0.0.1", "10.0.0.2"]);
    let resolver = asking(dns.address());
    assert_eq!(resolve(&resolver, "db.test").await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(resolve(&resolver, "DB.test.").await, ["10.0.0.1", "10.0.0.2"]);
    dns.split(Duration::from_millis(1));
    assert_eq!(resolve(&resolver, "db.test").await, ["10.0.0.1", "10.0.0.2"]);
    dns.split(Duration::ZERO);
    let many = (1..=200).map(|last| ip(&format!("10.0.0.{last}"))).collect();
    dns.answer("many.test", [DnsAnswer::Addresses(many)]);
    assert_eq!(resolve(&resolver, "many.test").await.len(), ADDRESSES_MAX);
}

#[tokio::test]
async fn aliases_are_followed_within_an_answer_and_from_one_to_the_next() {
    let dns = Dns::start();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    dns.answer("whole.test", [DnsAnswer::Aliases(names(&["a.test", "b.test"]), vec![ip("10.0.0.1")])]);
    dns.answer("part.test", [DnsAnswer::Aliases(names(&["c.test", "d.test"]), vec![])]);
    dns.answer("d.test", [DnsAnswer::Aliases(names(&["e.test"]), vec![])]);
    dns.addresses("e.test", &["10.0.0.2"]);
    dns.answer("dangling.test", [DnsAnswer::Aliases(names(&["nowhere.test"]), vec![])]);
    dns.answer("ring.test", [DnsAnswer::Aliases(names(&["gnir.test"]), vec![])]);
    dns.answer("gnir.test", [DnsAnswer::Aliases(names(&["ring.test"]), vec![])]);
    dns.answer("self.test", [DnsAnswer::Aliases(names(&["self.test"]), vec![])]);
    let resolver = asking(dns.address());
    assert_eq!(resolve(&resolver, "whole.test").await, ["10.0.0.1"]);
    assert_eq!(resolve(&resolver, "part.test").await, ["10.0.0.2"]);
    assert_eq!(failure(&resolver, "dangling.test").await, "there is no name dangling.test");
    assert!(failure(&resolver, "ring.test").await.contains("alias of an alias"));
    assert!(failure(&resolver, "self.test").await.contains("aliases lead nowhere"));
}

#[tokio::test]
async fn a_question_that_is_not_answered_well_is_asked_again() {
    let dns = Dns::start();
    let resolver = asking(dns.address());
    let bad = [
        (DnsAnswer::Code(2), "answers SERVFAIL for db.test"),
        (DnsAnswer::Code(5), "answers REFUSED for db.test"),
        (DnsAnswer::OtherId, "it is to another question"),
        (DnsAnswer::OtherQuestion, "it is to another question"),
        (DnsAnswer::CutOff, "it is cut off"),
        (DnsAnswer::Half, "unreachable over TCP"),
        (DnsAnswer::Close, "unreachable over TCP"),
        (DnsAnswer::Garbage(vec![]), "it is too short"),
        (DnsAnswer::Garbage(vec![0xff; 12]), "it is to another question"),
        (DnsAnswer::Garbage(vec![0x80; 500]), "it is to another question"),
    ];
    for (answer, why) in bad {
        dns.answer("db.test", [answer.clone(), found()]);
        assert_eq!(resolve(&resolver, "db.test").await, ["10.0.0.1"], "{answer:?}");
        dns.answer("db.test", [answer.clone()]);
        let error = failure(&resolver, "db.test").await;
        assert!(error.contains(why) && error.contains(&dns.address().to_string()), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_leaves_time_for_another_try() {
    let dns = Dns::start();
    let resolver = asking(dns.address());
    dns.answer("db.test", [DnsAnswer::Silence, found()]);
    assert_eq!(resolver.resolve("db.test", Instant::now() + SHORT).await.unwrap(), [ip("10.0.0.1")]);
    dns.answer("db.test", [DnsAnswer::Silence]);
    let error = resolver.resolve("db.test", Instant::now() + SHORT).await.unwrap_err();
    assert!(error.to_string().ends_with("does not answer in time"), "{error}");
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_of_no_use() {
    let (silent, failing, good) = (Dns::start(), Dns::start(), Dns::start());
    silent.answer("db.test", [DnsAnswer::Silence]);
    failing.answer("db.test", [DnsAnswer::Code(2)]);
    good.answer("db.test", [found()]);
    let servers = silent.resolv_conf() + &failing.resolv_conf() + &good.resolv_conf() + "options timeout:1\n";
    let (resolver, _folder) = reading("", &servers);
    assert_eq!(resolve(&resolver, "db.test").await, ["10.0.0.1"]);
    assert!(!failing.asked().is_empty());
}

#[tokio::test]
async fn short_names_are_looked_for_below_each_domain_of_the_search_list() {
    let dns = Dns::start();
    let (resolver, folder) =
        reading("", &(dns.resolv_conf() + "search one.test two.test three.test\noptions ndots:2\n"));
    dns.answer("db.one.test", [DnsAnswer::Code(2)]);
    dns.answer("db.two.test", [DnsAnswer::Addresses(vec![])]);
    let error = failure(&resolver, "db").await;
    assert_eq!(error, "the name db.two.test has no address");
    dns.answer("db.three.test", [found()]);
    assert_eq!(resolve(&resolver, "db").await, ["10.0.0.1"]);
    assert_eq!(failure(&resolver, "other").await, "there is no name other");
    assert_eq!(failure(&resolver, "db.").await, "there is no name db.");
    let before = dns.asked().len();
    dns.answer("long.name.test", [found()]);
    assert_eq!(resolve(&resolver, "long.name.test").await, ["10.0.0.1"]);
    assert_eq!(dns.asked()[before..], [("long.name.test".to_owned(), "A".to_owned())]);
    // The files are read each time.
    fs::write(folder.path().join("resolv.conf"), dns.resolv_conf()).unwrap();
    assert_eq!(failure(&resolver, "db").await, "there is no name db");
}

#[tokio::test]
async fn a_name_with_ipv6_addresses_only_is_one_without_ipv4() {
    let dns = Dns::start();
    dns.addresses("six.test", &["::1"]);
    dns.addresses("none.test", &[]);
    let resolver = asking(dns.address());
    assert_eq!(resolve(&resolver, "six.test").await, ["::1"]);
    assert_eq!(failure(&resolver, "none.test").await, "the name none.test has no address");
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_the_systems_resolver_last() {
    let dns = Dns::start();
    dns.answer("db.test", [found()]);
    let (resolver, _folder) = reading("10.0.0.9 near\n", &dns.resolv_conf());
    assert_eq!(resolve(&resolver, "near").await, ["10.0.0.9"]);
    assert_eq!(resolve(&resolver, "db.test").await, ["10.0.0.1"]);
    let (mut resolver, _folder) = reading("", "# no servers\n");
    // A number that only the system takes for an address.
    assert_eq!(resolve(&resolver, "127.1").await, ["127.0.0.1"]);
    resolver.server = Some(nobody());
    assert!(failure(&resolver, "127.1").await.contains("unreachable"));
}

#[tokio::test]
async fn what_cannot_be_a_name_is_told_as_such() {
    let resolver = asking(nobody());
    for name in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
        assert!(failure(&resolver, name).await.ends_with("cannot be the name of a host"), "{name}");
    }
}
