//! The overlay `wasm` under podman, crun and WasmEdge 0.14.1.

use std::time::Duration;

use harness::{Connections, Load, Raw, eventually, wire};
use serde_json::json;

use crate::images::{BASE, node};
use crate::manifests::{Overlay, Pod};
use crate::node::Node;
use crate::podman::Pods;
use crate::running::{Running, addresses};
use crate::service::Service;

/// By the name of MySQL's Service.
const DATABASE: &str = "mysql://usher:throw-away@mysql/users";

const CONTAINER: &str = "usher";

/// Where the pods are published on the node, from this port on.
const PUBLISHED: u16 = 18080;

/// As many pods as the overlay asks for, started at once with a database that has no tables yet.
fn deployed(pods: &Pods) -> Vec<Running> {
    let overlay = Overlay::render("wasm");
    let pod = |n| {
        let pod = overlay.pod("Deployment", "usher", &format!("usher-{n}")).database(DATABASE);
        pods.play(pod.publish(PUBLISHED + n), "usher")
    };
    let running: Vec<Running> = (0..overlay.replicas("usher")).map(pod).collect();
    for pod in &running {
        println!("{}: ready {:?} after its creation", pod.pod.name(), pod.ready());
    }
    running
}

#[test]
fn three_pods_serve_the_same_users_and_one_may_die() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    pods.play_mysql();
    let mut running = deployed(&pods);
    assert_eq!(running.len(), 3);

    for (n, pod) in running.iter().enumerate() {
        let published = format!("127.0.0.1:{}", PUBLISHED + n as u16).parse().unwrap();
        lives_and_dies(published, &format!("published-{n}@example.org"), pod.address);
    }

    let service = Service::on(&node);
    service.lead_to(&addresses(&running));
    for n in 0..30 {
        let mut client = Raw::connect(service.address()).unwrap();
        client.request(wire::post(wire::user(&format!("{n}@example.org")))).unwrap().expect(201);
    }
    for pod in &running {
        let page =
            Raw::connect(pod.address).unwrap().request(wire::get("/api/users?page_size=100")).unwrap().expect(200);
        assert_eq!(page["users"].as_array().unwrap().len(), 30, "{page}");
    }

    pods.kill(running[0].pod.name(), CONTAINER);
    let dead = running.remove(0);
    service.lead_to(&addresses(&running));
    let load = Load::start(service.address(), 4, Connections::Fresh);
    load.answers(400);
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    // podman restarts it, as a kubelet would.
    eventually("the killed one is back", || (dead.status("/readyz")? == 200).then_some(()));
}

/// A user from its making to its end, by one way in, and seen by another.
fn lives_and_dies(by: std::net::SocketAddr, email: &str, seen_by: std::net::SocketAddr) {
    let mut client = Raw::connect(by).unwrap();
    let made = client.request(wire::post(wire::user(email))).unwrap().expect(201);
    let path = format!("/api/users/{}", made["id"]);
    let patch = json!({"name": "changed"}).to_string();
    let headers = [("Content-Type", "application/merge-patch+json")];
    client.request(wire::request("PATCH", &path, &headers, patch)).unwrap().expect(200);
    let seen = Raw::connect(seen_by).unwrap().request(wire::get(&path)).unwrap().expect(200);
    assert_eq!((&seen["name"], &seen["email"]), (&json!("changed"), &json!(email)));
    assert_eq!(client.request(wire::request("DELETE", &path, &[], "")).unwrap().status, 204);
    assert_eq!(client.request(wire::get(&path)).unwrap().status, 404);
}

#[test]
fn limits_are_enforced_and_the_pod_lives_within_them() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    pods.play_mysql();
    let pod = Overlay::render("wasm").pod("Deployment", "usher", "usher-0").database(DATABASE);
    let running = pods.play(pod, "usher");
    running.ready();
    let figure = |controller: &str, file: &str| pods.group("usher-0", CONTAINER, controller, file);
    let mebibytes = |file: &str| figure("memory", file).parse::<u64>().unwrap() >> 20;
    assert_eq!(mebibytes("memory.limit_in_bytes"), 256);
    let idle = mebibytes("memory.usage_in_bytes");

    let load = Load::start(running.address, 32, Connections::Kept);
    let throttled = || {
        let stat = figure("cpu", "cpu.stat");
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok()).unwrap()
    };
    eventually("the processor's limit is felt", || (throttled() > 10).then_some(()));
    load.answers(200);
    let loaded = mebibytes("memory.usage_in_bytes");
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    println!(
        "memory of 256 MiB: {idle} MiB at rest, {loaded} MiB with 32 connections, {} at most",
        mebibytes("memory.max_usage_in_bytes")
    );

    assert!(
        node.run(&["podman", "inspect", "--format={{.HostConfig.ReadonlyRootfs}}", "usher-0-usher"]).contains("true")
    );
    let capabilities = pods.inspect("usher-0", CONTAINER)["EffectiveCaps"].clone();
    assert!(capabilities.as_array().is_none_or(Vec::is_empty), "{capabilities}");
}

#[test]
fn an_ordinary_container_runs_beside_the_module() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    pods.play_mysql();
    // What a sidecar does: it asks the service by the loopback that they share.
    let ask = "for ((;;)); do \
               if exec 3<>/dev/tcp/127.0.0.1/8080; then printf 'GET /livez HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3; fi; \
               sleep 0.2; done";
    let sidecar = json!({"name": "sidecar", "image": BASE, "command": ["bash", "-c", ask]});
    let pod = Overlay::render("wasm").pod("Deployment", "usher", "usher-0").database(DATABASE).beside(sidecar);
    pods.play(pod, "usher").ready();
    eventually("the sidecar is answered", || pods.log("usher-0", "sidecar").contains("200 OK").then_some(()));
}

/// It sees no signal: the kubelet ends it when the grace period is over.
#[test]
fn a_pod_ends_with_its_grace_period() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    let pod = Overlay::render("wasm").pod("Deployment", "usher", "usher-0").database(DATABASE);
    let running = pods.play(pod, "usher");
    eventually("it lives", || (running.status("/livez")? == 200).then_some(()));
    let (took, code) = pods.stop(&running.pod, CONTAINER);
    println!("stopped after {took:?} with code {code}");
    let grace = Duration::from_secs(running.pod.grace());
    assert!(took >= grace && took < grace + Duration::from_secs(5), "{took:?}");
    assert_eq!(code, 137);
}

#[test]
fn the_node_check_tells_the_version_and_ends() {
    let Some(node) = node() else { return };
    let version = check_node(&node);
    assert_eq!(version.trim(), format!("usher service {}", env!("CARGO_PKG_VERSION")));
}

/// What `k8s/check-node.yaml` prints.
fn check_node(node: &Node) -> String {
    let pod = Pod::check_node();
    node.run_with_input(&["podman", "kube", "play", "--network=none", "-"], &pod.documents());
    let container = format!("{}-usher", pod.name());
    assert_eq!(node.run(&["podman", "wait", &container]).trim(), "0");
    node.run(&["podman", "logs", &container])
}
