//! Pods by podman.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::manifests::{Overlay, Pod};
use crate::node::Node;
use crate::running::{PORT, Running};

/// The network that pods share.
const NETWORK: &str = "pods";

/// Pods on a node, which play the part of a cluster's.
pub struct Pods<'n> {
    node: &'n Node,
}

impl<'n> Pods<'n> {
    /// Their network. This thread is then on the node, as far as the network is concerned.
    pub fn on(node: &'n Node) -> Self {
        node.run(&["podman", "network", "create", NETWORK]);
        node.enter_network();
        Self { node }
    }

    /// Starts a pod. It is `known_as` that to the others' resolvers, besides its own name.
    pub fn play(&self, pod: Pod, known_as: &str) -> Running {
        let since = Instant::now();
        let network = format!("--network={NETWORK}:alias={known_as}");
        self.node.run_with_input(&["podman", "kube", "play", &network, "-"], &pod.documents());
        let address = SocketAddr::new(self.address_of(pod.name()), PORT);
        Running { pod, address, since }
    }

    /// Why a pod cannot be started.
    pub fn refuse(&self, pod: &Pod) -> String {
        let network = format!("--network={NETWORK}");
        let output = self.node.try_run_with_input(&["podman", "kube", "play", &network, "-"], &pod.documents());
        assert!(!output.status.success(), "{} was started", pod.name());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Removes a pod at once, with its secrets and volumes.
    pub fn remove(&self, pod: &Pod) {
        self.node.run(&["podman", "pod", "rm", "--force", "--time=0", pod.name()]);
        self.node.run_with_input(&["podman", "kube", "down", "--force", "-"], &pod.documents());
    }

    /// Writes a file of the secret into a pod's volume, which is where a kubelet brings what is changed in a secret.
    pub fn write_secret(&self, pod: &Pod, container: &str, key: &str, value: &str) {
        let mounts = self.inspect(pod.name(), container)["Mounts"].take();
        let secrets = |mount: &&Value| mount["Destination"] == "/run/secrets/usher";
        let mount = mounts.as_array().and_then(|mounts| mounts.iter().find(secrets)).expect("the secret's volume");
        self.node.write(&format!("{}/{key}", mount["Source"].as_str().unwrap()), value);
    }

    /// Runs statements as MySQL's root.
    pub fn sql(&self, mysql: &Running, statements: &str) {
        let container = format!("{}-mysql", mysql.pod.name());
        self.node.run(&[
            "podman",
            "exec",
            &container,
            "/opt/mysql/bin/mysql",
            "--no-defaults",
            "--socket=/tmp/socket",
            "--user=root",
            "--password=throw-away-too",
            "--execute",
            statements,
        ]);
    }

    /// Starts the overlay's MySQL, and waits until it takes connections.
    pub fn play_mysql(&self) -> Running {
        let mysql = self.play(Overlay::render("dev").pod("StatefulSet", "mysql", "mysql-0"), "mysql");
        mysql.wait_for_mysql();
        mysql
    }

    fn address_of(&self, pod: &str) -> IpAddr {
        let infra = self.node.run(&["podman", "pod", "inspect", "--format={{.InfraContainerID}}", pod]);
        let format = format!("--format={{{{(index .NetworkSettings.Networks \"{NETWORK}\").IPAddress}}}}");
        let address = self.node.run(&["podman", "inspect", &format, infra.trim()]);
        address.trim().parse().unwrap_or_else(|_| panic!("no address: {address}"))
    }

    /// What podman knows of a container of a pod.
    pub fn inspect(&self, pod: &str, container: &str) -> Value {
        let text = self.node.run(&["podman", "inspect", &format!("{pod}-{container}")]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    /// All that a container wrote, in that order.
    pub fn log(&self, pod: &str, container: &str) -> String {
        let output = self.node.try_run(&["sh", "-c", &format!("podman logs {pod}-{container} 2>&1")]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Kills a container without a word, as the kernel would.
    pub fn kill(&self, pod: &str, container: &str) {
        // Not by podman, which would take it for somebody's wish and not restart it.
        let pid = self.inspect(pod, container)["State"]["Pid"].to_string();
        self.node.run(&["bash", "-c", &format!("kill -KILL {pid}")]);
    }

    /// Stops a pod as a kubelet would after the sleep: SIGTERM, and the end after the grace period. Gives the time that
    /// it took, and the container's exit code.
    pub fn stop(&self, pod: &Pod, container: &str) -> (Duration, i64) {
        let started = Instant::now();
        let grace = format!("--time={}", pod.grace());
        let container = format!("{}-{container}", pod.name());
        self.node.run(&["podman", "stop", &grace, &container]);
        let took = started.elapsed();
        let code = self.node.run(&["podman", "inspect", "--format={{.State.ExitCode}}", &container]);
        (took, code.trim().parse().unwrap())
    }

    /// A figure of a container's control group: `controller` and `file` of version 1.
    pub fn group(&self, pod: &str, container: &str, controller: &str, file: &str) -> String {
        let pid = self.inspect(pod, container)["State"]["Pid"].to_string();
        self.node.group(&pid, controller, file)
    }
}
