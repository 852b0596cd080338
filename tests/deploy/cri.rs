//! The overlays `wasm` and `host` by containerd, asked as a kubelet asks it.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harness::{Raw, Reply, eventually, wire};
use serde_json::json;

use crate::images::{HOST, MYSQL, WASM, node};
use crate::kubelet::{Kubelet, Played};
use crate::manifests::{Overlay, Pod};
use crate::node::Node;
use crate::running::status;

/// A pod of the overlay, with a MySQL in a pod of its own, once it is ready and was seen to serve.
fn deployed(kubelet: &Kubelet, overlay: &str, mebibytes: u64) -> Played {
    let mysql = kubelet.play(Overlay::render("dev").pod("StatefulSet", "mysql", "mysql-0"));
    mysql.running.wait_for_mysql();
    let database = format!("mysql://usher:throw-away@{}/users", mysql.running.address.ip());
    let played = kubelet.play(pod(overlay).database(&database));
    println!("{overlay}: ready {:?} after its creation", played.running.ready());
    assert_serves(&played);
    assert_limits(kubelet, &played, mebibytes);
    assert_logs(&kubelet.log(&played), "listening on http://0.0.0.0:8080");
    played
}

fn pod(overlay: &str) -> Pod {
    Overlay::render(overlay).pod("Deployment", "usher", "usher-0")
}

fn assert_serves(played: &Played) {
    let mut client = Raw::connect(played.running.address).unwrap();
    let made = client.request(wire::post(wire::user("a@example.org"))).unwrap().expect(201);
    let seen = client.request(wire::get(&format!("/api/users/{}", made["id"]))).unwrap().expect(200);
    assert_eq!(seen, made);
}

/// 200m of a processor, as all overlays have it, and so much memory.
fn assert_limits(kubelet: &Kubelet, played: &Played, mebibytes: u64) {
    let figure = |controller: &str, file: &str| kubelet.group(played, controller, file).parse::<u64>().unwrap();
    assert_eq!(figure("memory", "memory.limit_in_bytes") >> 20, mebibytes);
    assert_eq!(figure("cpu", "cpu.cfs_quota_us") * 1000 / figure("cpu", "cpu.cfs_period_us"), 200);
}

/// How many filters of system calls each of a container's processes is subject to (proc_pid_status(5)), in order.
fn filters(node: &Node, kubelet: &Kubelet, played: &Played) -> Vec<u32> {
    let processes = kubelet.group(played, "memory", "cgroup.procs");
    let files: Vec<String> = processes.lines().map(|pid| format!("/proc/{pid}/status")).collect();
    let lines = node.shell(&format!("grep -h ^Seccomp_filters: {}", files.join(" ")));
    let mut counts: Vec<u32> = lines.lines().map(|line| line.rsplit('\t').next().unwrap().parse().unwrap()).collect();
    counts.sort_unstable();
    counts
}

/// Each line with its time, its stream, and whether it is a full one.
fn assert_logs(log: &str, message: &str) {
    for line in log.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        let [time, stream, tag, _] = fields[..] else { panic!("{line}") };
        assert!(time.contains('T') && ["stdout", "stderr"].contains(&stream) && ["F", "P"].contains(&tag), "{line}");
    }
    assert!(log.contains(message), "{log}");
}

/// It sees no signal: the runtime ends it when the grace period is over.
#[test]
fn a_module_serves_and_ends_with_its_grace_period() {
    let Some(node) = node() else { return };
    let kubelet = Kubelet::on(&node, &[WASM, MYSQL]);
    let played = deployed(&kubelet, "wasm", 256);

    let (took, code) = kubelet.stop(&played);
    println!("wasm: stopped after {took:?} with code {code}");
    let grace = Duration::from_secs(played.running.pod.grace());
    assert!(took >= grace && took < grace + Duration::from_secs(5), "{took:?}");
    assert_eq!(code, 137);
    kubelet.remove(&played);
}

#[test]
fn usher_serves_and_answers_what_is_in_flight_at_its_end() {
    let Some(node) = node() else { return };
    let kubelet = Kubelet::on(&node, &[HOST, MYSQL]);
    let played = deployed(&kubelet, "host", 128);
    assert_eq!(filters(&node, &kubelet, &played), [1, 1, 2], "the runtime's for all, and the worker's own");

    let in_flight = InFlight::begin(played.running.address);
    let (took, code) = kubelet.stop(&played);
    println!("host: stopped after {took:?} with code {code}");
    assert!(took < Duration::from_secs(played.running.pod.grace()), "{took:?}");
    assert_eq!(code, 0, "{}", kubelet.log(&played));
    for reply in in_flight.end() {
        reply.expect(201);
        assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
    }
    kubelet.remove(&played);
}

/// Requests whose second half is sent only when the service takes no newcomers any more.
struct InFlight(JoinHandle<Vec<Reply>>);

impl InFlight {
    const CLIENTS: usize = 8;

    fn begin(address: SocketAddr) -> Self {
        let requests: Vec<Vec<u8>> =
            (0..Self::CLIENTS).map(|n| wire::post(wire::user(&format!("{n}@example.org")))).collect();
        let mut clients: Vec<Raw> = requests.iter().map(|_| Raw::connect(address).unwrap()).collect();
        let half = |request: &[u8]| request.len() - 10;
        for (client, request) in clients.iter_mut().zip(&requests) {
            client.send(&request[..half(request)]).unwrap();
        }
        Self(thread::spawn(move || {
            eventually("it drains", || (status(address, "/readyz") != Some(200)).then_some(()));
            let ends = clients.iter_mut().zip(&requests);
            ends.map(|(client, request)| client.request(&request[half(request)..]).unwrap()).collect()
        }))
    }

    fn end(self) -> Vec<Reply> {
        self.0.join().unwrap()
    }
}

/// The runtime's own profile lets a worker confine itself further.
#[test]
fn usher_confines_itself_within_the_runtimes_profile() {
    let Some(node) = node() else { return };
    let kubelet = Kubelet::on(&node, &[HOST]);
    let mut check = pod("host").database("mysql://nobody@127.0.0.1/none");
    check.container()["args"] = json!(["check", "/opt/usher/service.so"]);
    let check = kubelet.play(check);
    let code = kubelet.wait(&check);
    let said = kubelet.log(&check);
    println!("{said}");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("ok     confinement "), "{said}");
}

#[test]
fn the_node_check_tells_the_version_and_ends() {
    let Some(node) = node() else { return };
    let kubelet = Kubelet::on(&node, &[WASM]);
    let check = kubelet.play(Pod::check_node());
    assert_eq!(kubelet.wait(&check), 0, "{}", kubelet.log(&check));
    assert_logs(&kubelet.log(&check), &format!("usher service {}", env!("CARGO_PKG_VERSION")));
}
