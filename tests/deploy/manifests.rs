//! Rendered overlays, and what is changed in them for podman, which is no kubelet and has no cluster around it:
//!
//! - It has no controllers: a Deployment or StatefulSet becomes Pods of its template, one for each replica.
//! - Only Pods, ConfigMaps and Secrets are given to it. Of the others the Service is played by `service`; the rest
//!   (HorizontalPodAutoscaler, PodDisruptionBudget, NetworkPolicy, RuntimeClass, Namespace, ServiceAccount) is not played.
//! - Probes are removed: podman would run `curl` in the container, which is in none of our images. The tests ask instead.
//! - A secret's files are readable for all: podman knows no `fsGroup`.
//! - `volumeClaimTemplates` become volumes that vanish with the pod.

use std::path::Path;
use std::process::Command;

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
        let claims = workload["spec"]["volumeClaimTemplates"].as_array();
        for claim in claims.into_iter().flatten() {
            pod["spec"]["volumes"].as_array_mut().unwrap().push(json!({
                "name": claim["metadata"]["name"], "emptyDir": {}
            }));
        }
        for container in containers(&mut pod) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                container.as_object_mut().unwrap().remove(probe);
            }
        }
        let referred = self.0.iter().filter(|object| object["kind"] == "ConfigMap" || object["kind"] == "Secret");
        let mut pod = Pod { pod, referred: referred.cloned().collect() };
        pod.open_secrets();
        pod
    }
}

/// A pod and the configuration that it refers to.
#[derive(Clone)]
pub struct Pod {
    pod: Value,
    referred: Vec<Value>,
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap()
    }

    /// The seconds that it may take to end.
    pub fn grace(&self) -> u64 {
        self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap()
    }

    fn open_secrets(&mut self) {
        let volumes = self.pod["spec"]["volumes"].as_array_mut();
        for volume in volumes.into_iter().flatten().filter(|volume| volume["secret"].is_object()) {
            volume["secret"]["defaultMode"] = json!(0o444);
        }
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
    pub fn database(mut self, url: &str) -> Self {
        self.referred.retain(|object| object["metadata"]["name"] != "usher-database");
        self.referred.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "usher-database"}, "stringData": {"url": url}
        }));
        self
    }

    /// All documents, for `podman kube play`.
    pub fn documents(&self) -> String {
        let documents: Vec<String> = self.referred.iter().chain([&self.pod]).map(Value::to_string).collect();
        documents.join("\n---\n")
    }
}

fn containers(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    pod["spec"]["containers"].as_array_mut().unwrap().iter_mut()
}
