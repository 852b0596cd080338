//! The overlay `host` under podman and crun.

use std::net::SocketAddr;
use std::time::Instant;

use harness::{Connections, Load, Raw, Tally, eventually, wire};
use serde_json::json;

use crate::images::node;
use crate::manifests::Overlay;
use crate::podman::Pods;
use crate::running::{Running, addresses};
use crate::service::Service;

const CONTAINER: &str = "usher";

/// `dev` is `host` with a MySQL and a secret.
fn play(pods: &Pods, overlay: &Overlay, name: &str) -> Running {
    pods.play(overlay.pod("Deployment", "usher", name), "usher")
}

#[test]
fn pods_are_replaced_under_load_without_a_lost_request() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    pods.play_mysql();
    let overlay = Overlay::render("dev");
    let replicas = overlay.replicas("usher");
    let mut running: Vec<Running> = (0..replicas).map(|n| play(&pods, &overlay, &format!("old-{n}"))).collect();
    for pod in &running {
        println!("{}: ready {:?} after its creation", pod.pod.name(), pod.ready());
    }
    let service = Service::on(&node);
    service.lead_to(&addresses(&running));
    let made = Raw::connect(service.address()).unwrap().request(wire::post(wire::user("a@example.org")));
    let user = format!("GET /api/users/{} HTTP/1.1\r\nHost: x\r\n\r\n", made.unwrap().expect(201)["id"]);

    let kept = Load::of(std::slice::from_ref(&user), service.address(), 8, Connections::Kept);
    let fresh = Load::of(std::slice::from_ref(&user), service.address(), 2, Connections::Fresh);
    for n in 0..replicas {
        // As the Deployment has it: one more at most, none less.
        let new = play(&pods, &overlay, &format!("new-{n}"));
        println!("{}: ready {:?} after its creation, under load", new.pod.name(), new.ready());
        let old = running.remove(0);
        running.push(new);
        service.lead_to(&addresses(&running));
        let (took, code) = pods.stop(&old.pod, CONTAINER);
        println!("{}: stopped after {took:?} with code {code}", old.pod.name());
        assert_eq!(code, 0, "{}", pods.log(old.pod.name(), CONTAINER));
        for load in [&kept, &fresh] {
            load.answers(20);
        }
    }
    for (which, load) in [("kept", kept), ("fresh", fresh)] {
        let Tally { answered, failures, gave_up } = load.finish();
        println!("{which} connections: {answered} answered, {} lost", failures.len() + gave_up);
        assert!(failures.is_empty() && gave_up == 0, "{which}: {gave_up} gave up, {failures:?}");
    }
}

#[test]
fn a_pod_serves_models_and_metrics_within_its_limits() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    pods.play_mysql();
    let running = play(&pods, &Overlay::render("dev"), "usher-0");
    running.ready();
    let admin = SocketAddr::new(running.address.ip(), 9090);
    for (address, path, holds) in [
        (admin, "/livez", "OK"),
        (admin, "/metrics", "usher_workers"),
        (running.address, "/v1/models/digits", "AVAILABLE"),
    ] {
        let reply = Raw::connect(address).unwrap().request(wire::get(path)).unwrap();
        assert!(reply.status == 200 && reply.body.contains(holds), "{path}: {reply:?}");
    }

    let mebibytes = |file: &str| pods.group("usher-0", CONTAINER, "memory", file).parse::<u64>().unwrap() >> 20;
    assert_eq!(mebibytes("memory.limit_in_bytes"), 128);
    let idle = mebibytes("memory.usage_in_bytes");
    let instances = json!({"instances": [{"person": [0, 0, 0, 0], "serum": [0, 0, 0, 0, 0, 0]}]}).to_string();
    let predict =
        wire::request("POST", "/v1/models/diabetes:predict", &[("Content-Type", "application/json")], instances);
    let requests = [String::from_utf8(predict).unwrap(), String::from_utf8(wire::get("/api/users")).unwrap()];
    for request in &requests {
        let reply = Raw::connect(running.address).unwrap().request(request).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let load = Load::of(&requests, running.address, 32, Connections::Kept);
    let started = Instant::now();
    load.answers(2000);
    println!("requests per second at the processor's limit: {:.0}", 2000.0 / started.elapsed().as_secs_f64());
    let loaded = mebibytes("memory.usage_in_bytes");
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    println!(
        "memory of 128 MiB: {idle} MiB at rest, {loaded} MiB under load, {} at most",
        mebibytes("memory.max_usage_in_bytes")
    );
    // One for 200m of a processor.
    eventually("it says how many workers it has", || {
        pods.log("usher-0", CONTAINER).contains("1 worker: the CPU quota").then_some(())
    });
}
