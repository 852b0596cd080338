//! containerd, set up as `k8s/README.md` tells people, and its Container Runtime Interface.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use harness::{client, eventually};
use serde_json::Value;

use crate::images::PAUSE;
use crate::node::Node;

/// The pods' network: all of them on one bridge, which the node is on, too.
const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
    "type": "bridge", "bridge": "pods", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}"#;

/// A containerd that runs on a node.
pub struct Containerd<'n> {
    node: &'n Node,
    client: RefCell<Client>,
}

impl<'n> Containerd<'n> {
    /// Starts one that has these images and what it holds pods by.
    pub fn on(node: &'n Node, images: &[&str]) -> Self {
        node.write("/etc/containerd/config.toml", &configuration());
        node.write("/etc/cni/net.d/10-pods.conflist", NETWORK);
        // It gives pods a copy.
        node.write("/etc/hosts", "127.0.0.1 localhost\n");
        node.shell("containerd >/var/log/containerd.log 2>&1 &");
        eventually("containerd answers", || node.try_run(&["ctr", "version"]).status.success().then_some(()));
        for image in [&[PAUSE], images].concat() {
            node.shell(&format!(
                "podman save --quiet --format oci-archive {image} | ctr --namespace k8s.io images import -"
            ));
        }
        let client = Client::start(&node.file("/run/containerd/containerd.sock"));
        Self { node, client: RefCell::new(client) }
    }

    /// Calls a method, which has to succeed.
    pub fn call(&self, method: &str, request: &Value) -> Value {
        let response = self.client.borrow_mut().call(method, request);
        assert!(response["error"].is_null(), "{method}: {response}\n{}", self.log());
        response
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.node.file("/var/log/containerd.log")).unwrap_or_default()
    }
}

/// The README's sections on runtimes, and what a node without much around it needs.
fn configuration() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/README.md")).unwrap();
    let (_, section) = readme.split_once("\n**containerd + crun.**").unwrap();
    let (_, block) = section.split_once("```toml\n").unwrap();
    let (runtimes, _) = block.split_once("```").unwrap();
    // The root of the machine around the node may not be able to make a process less likely to be killed.
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
{runtimes}"#
    )
}

/// A client of the interface; it is on this machine, as a node has no Python.
struct Client {
    process: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl Client {
    fn start(socket: &Path) -> Self {
        let mut command = client("cri.py");
        let mut process = command.arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, responses) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, requests, responses: BufReader::new(responses) }
    }

    fn call(&mut self, method: &str, request: &Value) -> Value {
        writeln!(self.requests, "{method} {request}").unwrap();
        let mut line = String::new();
        self.responses.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method}: {error}: {line}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
