//! compose.yaml, by Docker's own Compose on podman's API.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use harness::{Raw, eventually, wire};

use crate::images::node;
use crate::node::{Node, outside};

const SOCKET: &str = "/run/podman.sock";

/// Compose on a node, for compose.yaml.
struct Compose<'n> {
    node: &'n Node,
    /// What answers Docker's API.
    api: Child,
}

impl<'n> Compose<'n> {
    fn on(node: &'n Node) -> Self {
        let api = ["podman", "system", "service", "--time=0", &format!("unix://{SOCKET}")];
        let api = node.command(&api).stderr(Stdio::null()).spawn().unwrap();
        eventually("podman answers", || node.try_run(&["test", "-S", SOCKET]).status.success().then_some(()));
        Self { node, api }
    }

    fn command(&self, words: &[&str]) -> Command {
        let file =
            outside(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose.yaml").canonicalize().unwrap());
        let host = format!("DOCKER_HOST=unix://{SOCKET}");
        let mut all = vec!["env", &host, "docker-compose", "--file", &file];
        all.extend(words);
        self.node.command(&all)
    }

    fn run(&self, words: &[&str]) {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether a container finds itself healthy. podman leaves it to systemd to ask, which is not there.
    fn is_healthy(&self, container: &str) -> bool {
        self.node.try_run(&["podman", "healthcheck", "run", container]).status.success()
    }
}

impl Drop for Compose<'_> {
    fn drop(&mut self) {
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

#[test]
fn up_is_the_whole_instruction() {
    let Some(node) = node() else { return };
    let compose = Compose::on(&node);
    // With nothing to build: the image is there.
    let mut up = compose.command(&["up", "--detach", "--no-build"]).stderr(Stdio::null()).spawn().unwrap();
    // The service is started when the database is healthy, and not before.
    eventually("MySQL is healthy", || compose.is_healthy("usher-mysql-1").then_some(()));
    let ended = eventually("everything is up", || up.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    eventually("the service is healthy", || compose.is_healthy("usher-usher-1").then_some(()));

    node.enter_network();
    let service: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let mut client = Raw::connect(service).unwrap();
    client.request(wire::post(wire::user("a@example.org"))).unwrap().expect(201);
    let prometheus: SocketAddr = "127.0.0.1:9091".parse().unwrap();
    let query = wire::get("/api/v1/query?query=up%7Bjob%3D%22usher%22%7D");
    eventually("Prometheus has scraped the service", || {
        let reply = Raw::connect(prometheus).ok()?.request(&query).ok()?;
        (reply.json()["data"]["result"][0]["value"][1] == "1").then_some(())
    });

    compose.run(&["stop", "usher"]);
    let code = node.run(&["podman", "inspect", "--format={{.State.ExitCode}}", "usher-usher-1"]);
    assert_eq!(code.trim(), "0", "it drained");
    compose.run(&["down", "--volumes"]);
    assert_eq!(node.run(&["podman", "ps", "--all", "--quiet"]), "");
}
