//! Rendered overlays. There are no controllers on a node: a Deployment or StatefulSet becomes Pods of its template, one for
//! each replica, and `volumeClaimTemplates` become volumes that vanish with the pod.
//!
//! What else is changed for podman, which is no kubelet and has no cluster around it:
//!
//! - Only Pods, ConfigMaps and Secrets are given to it. Of the others the Service is played by `service`; the rest
//!   (HorizontalPodAutoscaler, PodDisruptionBudget, NetworkPolicy, RuntimeClass, Namespace, ServiceAccount) is not played.
//! - Probes are removed: podman would run `curl` in the container, which is in none of our images. The tests ask instead.
//! - A secret's files are readable for all: podman knows no `fsGroup`.

use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use harness::artifacts;
use serde_json::{Value, json};

/// A rendered overlay.
pub struct Overlay(Vec<Value>);

impl Overlay {
    /// One below `k8s/overlays`, as `kubectl kustomize` renders it.
    pub fn render(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/overlays").join(name);
        let output = Command::new(artifacts::kubectl()).arg("kustomize").arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap())
    }

    fn find(&self, kind: &str, name: &str) -> &Value {
        let found = self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// How many pods a Deployment asks for.
    pub fn replicas(&self, deployment: &str) -> u16 {
        self.find("Deployment", deployment)["spec"]["replicas"].as_u64().unwrap().try_into().unwrap()
    }

    /// A pod of a Deployment or StatefulSet, under a name of its own, with what it refers to.
    pub fn pod(&self, kind: &str, workload: &str, name: &str) -> Pod {
        let workload = self.find(kind, workload);
        let mut pod = workload["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = workload["metadata"]["namespace"].clone();
        let claims = workload["spec"]["volumeClaimTemplates"].as_array();
        for claim in claims.into_iter().flatten() {
            pod["spec"]["volumes"].as_array_mut().unwrap().push(json!({
                "name": claim["metadata"]["name"], "emptyDir": {}
            }));
        }
        let referred = self.0.iter().filter(|object| object["kind"] == "ConfigMap" || object["kind"] == "Secret");
        Pod { pod, referred: referred.cloned().collect() }
    }
}

/// A pod and the configuration that it refers to.
#[derive(Clone)]
pub struct Pod {
    pod: Value,
    referred: Vec<Value>,
}

impl Pod {
    /// That of `k8s/check-node.yaml`.
    pub fn check_node() -> Self {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/check-node.yaml")).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let pod = documents.into_iter().find(|document| document["kind"] == "Pod").unwrap();
        Self { pod, referred: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap()
    }

    /// What it is, beside its name.
    pub fn metadata(&self) -> &Value {
        &self.pod["metadata"]
    }

    /// What it asks for.
    pub fn spec(&self) -> &Value {
        &self.pod["spec"]
    }

    /// What a ConfigMap or Secret that it refers to holds, by key.
    pub fn data(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let named = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let object = self.referred.iter().find(named).unwrap_or_else(|| panic!("no {kind} {name}"));
        let members = |field: &str| object[field].as_object().cloned().unwrap_or_default().into_iter();
        let text = |value: Value| value.as_str().unwrap().to_owned();
        let plain = members("stringData").map(|(key, value)| (key, text(value)));
        let read = |value| if kind == "Secret" { decoded(&text(value)) } else { text(value) };
        plain.chain(members("data").map(|(key, value)| (key, read(value)))).collect()
    }

    /// The seconds that it may take to end.
    pub fn grace(&self) -> u64 {
        self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap()
    }

    /// The first container.
    pub fn container(&mut self) -> &mut Value {
        &mut self.pod["spec"]["containers"][0]
    }

    /// Publishes the container's first port on the node.
    pub fn publish(mut self, port: u16) -> Self {
        self.container()["ports"][0]["hostPort"] = json!(port);
        self
    }

    /// Another container beside the first.
    pub fn beside(mut self, container: Value) -> Self {
        self.pod["spec"]["containers"].as_array_mut().unwrap().push(container);
        self
    }

    /// The secret that holds the database's URL.
    pub fn database(self, url: &str) -> Self {
        self.secret("url", url)
    }

    /// The secret that should hold the database's URL, with this key alone.
    pub fn secret(self, key: &str, value: &str) -> Self {
        let mut this = self.without_secret();
        this.referred.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "usher-database"}, "stringData": {key: value}
        }));
        this
    }

    /// Without the secret that should hold the database's URL.
    pub fn without_secret(mut self) -> Self {
        self.referred.retain(|object| object["metadata"]["name"] != "usher-database");
        self
    }

    /// Changes a setting in the ConfigMap.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        let map = self.referred.iter_mut().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
        map["data"][name] = json!(value);
        self
    }

    /// Limits the first container's memory, such as `128Mi`.
    pub fn memory(mut self, limit: &str) -> Self {
        self.container()["resources"]["limits"]["memory"] = json!(limit);
        self.container()["resources"]["requests"]["memory"] = json!(limit);
        self
    }

    /// Mounts an empty folder, which can be written, into the first container. In memory, where podman lets everybody
    /// write: it knows no `fsGroup`.
    pub fn mount(mut self, volume: &str, path: &str) -> Self {
        self.container()["volumeMounts"].as_array_mut().unwrap().push(json!({"name": volume, "mountPath": path}));
        self.pod["spec"]["volumes"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": volume, "emptyDir": {"medium": "Memory"}}));
        self
    }

    /// Sets a parameter of the kernel for the pod.
    pub fn sysctl(mut self, name: &str, value: &str) -> Self {
        self.pod["spec"]["securityContext"]["sysctls"] = json!([{"name": name, "value": value}]);
        self
    }

    /// All documents, for `podman kube play`.
    pub fn documents(&self) -> String {
        let mut pod = self.pod.clone();
        remove_probes(&mut pod);
        open_secrets(&mut pod);
        let documents: Vec<String> = self.referred.iter().chain([&pod]).map(Value::to_string).collect();
        documents.join("\n---\n")
    }
}

fn decoded(base64: &str) -> String {
    String::from_utf8(BASE64_STANDARD.decode(base64).unwrap()).unwrap()
}

fn remove_probes(pod: &mut Value) {
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            container.as_object_mut().unwrap().remove(probe);
        }
    }
}

fn open_secrets(pod: &mut Value) {
    let volumes = pod["spec"]["volumes"].as_array_mut();
    for volume in volumes.into_iter().flatten().filter(|volume| volume["secret"].is_object()) {
        volume["secret"]["defaultMode"] = json!(0o444);
    }
}
