//! A kubelet's part: a pod as calls of the Container Runtime Interface. What a kubelet does and this does not:
//!
//! - Names: there is no name server, so tests give addresses to pods that look for each other.
//! - Probes, restarts, and the sleep before the end: tests ask for what they need.
//! - Control groups for the quality of service, and the order in which a lack of memory kills.
//! - Paths of `/proc` and `/sys` that are masked, the pod's own `/etc/hosts`, a file for last words, tokens.
//! - Admission: the RuntimeClass' handler has its name, and no policies are enforced.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::eventually;
use serde_json::{Value, json};

use crate::containerd::Containerd;
use crate::manifests::Pod;
use crate::node::Node;
use crate::running::{PORT, Running};

/// Microseconds in which a quota of processor time is given anew.
const PERIOD: u64 = 100_000;

/// What runs pods on a node.
pub struct Kubelet<'n> {
    node: &'n Node,
    containerd: Containerd<'n>,
}

/// A pod that was started, and how the runtime calls its parts.
pub struct Played {
    pub running: Running,
    sandbox: String,
    container: String,
}

impl<'n> Kubelet<'n> {
    /// One for a node that has these images. This thread is then on the node, as far as the network is concerned.
    pub fn on(node: &'n Node, images: &[&str]) -> Self {
        let containerd = Containerd::on(node, images);
        node.enter_network();
        Self { node, containerd }
    }

    /// Starts a pod with one container.
    pub fn play(&self, pod: Pod) -> Played {
        let since = Instant::now();
        let config = sandbox(&pod);
        let handler = &pod.spec()["runtimeClassName"];
        let made = self.call("RunPodSandbox", &json!({"config": config, "runtime_handler": handler}));
        let sandbox = text(&made["podSandboxId"]);
        let status = self.call("PodSandboxStatus", &json!({"pod_sandbox_id": sandbox}));
        let ip = text(&status["status"]["network"]["ip"]).parse().unwrap();

        let container = container(&pod, self.mounts(&pod));
        let request = json!({"pod_sandbox_id": sandbox, "config": container, "sandbox_config": config});
        let container = text(&self.call("CreateContainer", &request)["containerId"]);
        self.call("StartContainer", &json!({"container_id": container}));
        Played { running: Running { pod, address: SocketAddr::new(ip, PORT), since }, sandbox, container }
    }

    /// Ends a container as a kubelet does after the sleep: with the whole grace period. Gives the time that it took, and
    /// the exit code.
    pub fn stop(&self, played: &Played) -> (Duration, i64) {
        let started = Instant::now();
        let grace = played.running.pod.grace();
        self.call("StopContainer", &json!({"container_id": played.container, "timeout": grace}));
        (started.elapsed(), self.code(played).expect("it has ended"))
    }

    /// Waits until a container ends by itself, and gives the exit code.
    pub fn wait(&self, played: &Played) -> i64 {
        eventually("the container ends", || self.code(played))
    }

    fn code(&self, played: &Played) -> Option<i64> {
        let status = self.status(played);
        (status["state"] == "CONTAINER_EXITED").then(|| status["exitCode"].as_i64().unwrap())
    }

    /// Removes all that was made for a pod.
    pub fn remove(&self, played: &Played) {
        let sandbox = json!({"pod_sandbox_id": played.sandbox});
        self.call("StopPodSandbox", &sandbox);
        self.call("RemovePodSandbox", &sandbox);
    }

    fn status(&self, played: &Played) -> Value {
        self.call("ContainerStatus", &json!({"container_id": played.container}))["status"].take()
    }

    /// All that a container wrote, in the interface's format.
    pub fn log(&self, played: &Played) -> String {
        let pod = &played.running.pod;
        let file = format!("{}/{}", log_folder(pod), log_file(&pod.spec()["containers"][0]));
        std::fs::read_to_string(self.node.file(&file)).unwrap()
    }

    /// A figure of a container's control group: `controller` and `file` of version 1.
    pub fn group(&self, played: &Played, controller: &str, file: &str) -> String {
        let status = self.call("ContainerStatus", &json!({"container_id": played.container, "verbose": true}));
        let info: Value = serde_json::from_str(&text(&status["info"]["info"])).unwrap();
        self.node.group(&info["pid"].to_string(), controller, file)
    }

    fn call(&self, method: &str, request: &Value) -> Value {
        self.containerd.call(method, request)
    }

    /// Makes the pod's volumes on the node, and gives the container's mounts of them.
    fn mounts(&self, pod: &Pod) -> Vec<Value> {
        let volumes = list(&pod.spec()["volumes"]);
        volumes.for_each(|volume| self.make_volume(pod, volume));
        let mounts = list(&pod.spec()["containers"][0]["volumeMounts"]);
        let mount = |mount: &Value| {
            json!({
                "container_path": mount["mountPath"],
                "host_path": folder(pod, &text(&mount["name"])),
                "readonly": mount["readOnly"],
            })
        };
        mounts.map(mount).collect()
    }

    /// A folder for the pod's group: with a secret's files, or empty.
    fn make_volume(&self, pod: &Pod, volume: &Value) {
        let folder = folder(pod, &text(&volume["name"]));
        let group = &pod.spec()["securityContext"]["fsGroup"];
        self.node.shell(&format!("mkdir -p {folder}; chgrp {group} {folder}; chmod 2777 {folder}"));
        if let Some(secret) = volume["secret"]["secretName"].as_str() {
            let mode = volume["secret"]["defaultMode"].as_u64().unwrap();
            for (key, value) in pod.data("Secret", secret) {
                let file = format!("{folder}/{key}");
                self.node.write(&file, &value);
                self.node.shell(&format!("chmod {mode:o} {file}"));
            }
        }
    }
}

fn sandbox(pod: &Pod) -> Value {
    let security = &pod.spec()["securityContext"];
    json!({
        "metadata": {"name": pod.name(), "uid": pod.name(), "namespace": pod.metadata()["namespace"]},
        "hostname": pod.name(),
        "log_directory": log_folder(pod),
        "annotations": pod.metadata()["annotations"],
        "linux": {"cgroup_parent": format!("/kubepods/{}", pod.name()), "security_context": user(security)},
    })
}

fn container(pod: &Pod, mounts: Vec<Value>) -> Value {
    let container = &pod.spec()["containers"][0];
    json!({
        "metadata": {"name": container["name"]},
        "image": {"image": container["image"]},
        "command": container["command"],
        "args": container["args"],
        "envs": environment(pod, container),
        "mounts": mounts,
        "log_path": log_file(container),
        "linux": {"resources": resources(&container["resources"]), "security_context": confinement(pod, container)},
    })
}

/// Who runs, and in which namespaces: what a pod's sandbox and its containers have in common.
fn user(security: &Value) -> Value {
    json!({
        "namespace_options": {"network": "POD", "pid": "CONTAINER", "ipc": "POD"},
        "run_as_user": {"value": number(&security["runAsUser"])},
        "run_as_group": {"value": number(&security["runAsGroup"])},
        "supplemental_groups": security["fsGroup"].as_u64().into_iter().collect::<Vec<u64>>(),
        "seccomp": {"profile_type": text(&security["seccompProfile"]["type"])},
    })
}

fn confinement(pod: &Pod, container: &Value) -> Value {
    let security = &container["securityContext"];
    let mut confinement = user(&pod.spec()["securityContext"]);
    confinement["readonly_rootfs"] = security["readOnlyRootFilesystem"].clone();
    confinement["no_new_privs"] = json!(security["allowPrivilegeEscalation"] == false);
    confinement["capabilities"] = json!({"drop_capabilities": security["capabilities"]["drop"]});
    confinement
}

fn environment(pod: &Pod, container: &Value) -> Vec<Value> {
    let from = |source: &Value| match source["configMapRef"]["name"].as_str() {
        Some(name) => pod.data("ConfigMap", name),
        None => pod.data("Secret", &text(&source["secretRef"]["name"])),
    };
    let all = list(&container["envFrom"]).flat_map(from);
    all.map(|(key, value)| json!({"key": key, "value": value})).collect()
}

fn resources(of: &Value) -> Value {
    json!({
        "cpu_period": PERIOD,
        "cpu_quota": thousandths(&of["limits"]["cpu"]) * PERIOD / 1000,
        "cpu_shares": thousandths(&of["requests"]["cpu"]) * 1024 / 1000,
        "memory_limit_in_bytes": bytes(&of["limits"]["memory"]),
    })
}

/// Of a processor.
fn thousandths(quantity: &Value) -> u64 {
    let quantity = text(quantity);
    match quantity.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap(),
        None => quantity.parse::<u64>().unwrap() * 1000,
    }
}

fn bytes(quantity: &Value) -> u64 {
    let quantity = text(quantity);
    let (number, unit) = quantity.split_at(quantity.len() - 2);
    let shift = ["Ki", "Mi", "Gi"].iter().zip([10, 20, 30]).find(|(name, _)| **name == unit).unwrap().1;
    number.parse::<u64>().unwrap() << shift
}

fn log_folder(pod: &Pod) -> String {
    format!("/var/log/pods/{}", pod.name())
}

fn log_file(container: &Value) -> String {
    format!("{}/0.log", text(&container["name"]))
}

/// Where a volume is on the node.
fn folder(pod: &Pod, volume: &str) -> String {
    format!("/var/lib/kubelet/pods/{}/volumes/{volume}", pod.name())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
