//! What the manifests must say. Each rule returns what breaks it, so that each also has a test that it can fail.

use serde_json::{Value, json};

use super::manifests::{Manifests, Object};

/// The service, by the name that its objects have.
const NAME: &str = "usher";

/// Seconds for a program to end after its drain.
const TO_END: u64 = 5;

/// Seconds that a pod that sees no signal may take to end: waiting longer would be for nothing.
const UNSIGNALLED: u64 = 10;

/// Where a container says how much it needs, and how much that is. A module that is interpreted needs more memory, see
/// k8s/README.md.
const RESOURCES: [(&str, &str, &str); 4] = [
    ("/resources/requests/cpu", "100m", "100m"),
    ("/resources/requests/memory", "64Mi", "160Mi"),
    ("/resources/limits/cpu", "200m", "200m"),
    ("/resources/limits/memory", "128Mi", "256Mi"),
];

/// Everything that breaks a rule, in words.
pub fn broken(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for (workload, pod) in manifests.workloads() {
        let offences = restricted(&pod).into_iter().chain(no_more_than_needed(&pod)).chain(no_programs(&pod));
        found.extend(offences.map(|offence| format!("{}: {offence}", workload.title())));
    }
    if let Some(deployment) = manifests.find("Deployment", NAME) {
        let offences = [rolls_out(deployment), ends(manifests, deployment), resources(deployment), wasm(deployment)];
        let title = deployment.title();
        found.extend(offences.into_iter().flatten().map(|offence| format!("{title}: {offence}")));
        found.extend(listens(manifests));
        found.extend(network(manifests));
        found.extend(monitored(manifests, deployment));
    }
    found
}

/// The Pod Security Standard "restricted", and a root file system that nobody writes to.
fn restricted(pod: &Object) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(unless(pod.switch("/spec/securityContext/runAsNonRoot") == Some(true), "runAsNonRoot is missing"));
    let user = pod.number("/spec/securityContext/runAsUser");
    found.extend(unless(user.is_some_and(|user| user > 0), "runAsUser is missing or root"));
    let seccomp = pod.text("/spec/securityContext/seccompProfile/type");
    found.extend(unless(seccomp == Some("RuntimeDefault"), "the seccomp profile is not RuntimeDefault"));
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        found.extend(unless(pod.at(&format!("/spec/{shared}")).is_none(), &format!("{shared} is set")));
    }
    let volumes = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "name",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let allowed = |volume: &Value| {
        volume.as_object().is_some_and(|members| members.keys().all(|member| volumes.contains(&member.as_str())))
    };
    let all = pod.at("/spec/volumes").and_then(Value::as_array).is_none_or(|all| all.iter().all(allowed));
    found.extend(unless(all, "a volume is of a kind that is not allowed, such as hostPath"));
    for container in containers(pod) {
        found.extend(restricted_container(&container));
    }
    found
}

fn restricted_container(container: &Object) -> Vec<String> {
    let security = |member: &str| container.at(&format!("/securityContext/{member}")).cloned().unwrap_or_default();
    let mut found = Vec::new();
    found.extend(unless(security("allowPrivilegeEscalation") == json!(false), "allowPrivilegeEscalation is not false"));
    found.extend(unless(security("readOnlyRootFilesystem") == json!(true), "the root file system is not read-only"));
    found.extend(unless(security("capabilities") == json!({"drop": ["ALL"]}), "capabilities are not all dropped"));
    found.extend(unless(security("privileged") != json!(true), "it is privileged"));
    for member in ["runAsUser", "runAsNonRoot", "seccompProfile"] {
        found.extend(unless(security(member).is_null(), &format!("a container sets {member}, which is the pod's")));
    }
    found
}

fn no_more_than_needed(pod: &Object) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(unless(pod.switch("/spec/enableServiceLinks") == Some(false), "enableServiceLinks is not false"));
    let token = pod.switch("/spec/automountServiceAccountToken");
    found.extend(unless(token == Some(false), "automountServiceAccountToken is not false"));
    for container in containers(pod) {
        let tagged = container.text("/image").and_then(|image| image.rsplit('/').next()?.split_once(':'));
        let pinned = tagged.is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest");
        found.extend(unless(pinned, "an image has no tag, or the tag latest"));
    }
    found
}

/// There is no shell in an image of ours, nor a way into a wasm container.
fn no_programs(pod: &Object) -> Vec<String> {
    let probes = ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle"];
    let asked = |container: &Object| {
        probes.iter().any(|probe| {
            container.at(&format!("/{probe}")).is_some_and(|probe| Object::from(probe.clone()).mentions("exec"))
        })
    };
    unless(!containers(pod).iter().any(asked), "a probe or hook runs a program (exec)").into_iter().collect()
}

fn rolls_out(deployment: &Object) -> Vec<String> {
    let mut found = Vec::new();
    let unavailable = deployment.number("/spec/strategy/rollingUpdate/maxUnavailable");
    found.extend(unless(unavailable == Some(0), "a rolling update makes pods unavailable (maxUnavailable)"));
    found.extend(unless(deployment.number("/spec/replicas") == Some(3), "there are not 3 replicas"));
    let Some(container) = main_container(deployment) else { return found };
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container.text(&format!("/{probe}/httpGet/path"));
        let right = if probe == "readinessProbe" { "/readyz" } else { "/livez" };
        found.extend(unless(path == Some(right), &format!("{probe} does not ask for {right}")));
        let port = container.text(&format!("/{probe}/httpGet/port"));
        let known = container.list("/ports").iter().any(|known| known.text("/name") == port);
        found.extend(unless(known, &format!("{probe} asks a port that the container does not name")));
    }
    found
}

/// New connections stop coming before the signal, and there is time for what is in flight. A module sees no signal, so it
/// drains nothing and is not waited for.
fn ends(manifests: &Manifests, deployment: &Object) -> Vec<String> {
    let sleep = main_container(deployment).and_then(|container| container.number("/lifecycle/preStop/sleep/seconds"));
    let Some(sleep) = sleep else { return vec!["preStop does not sleep (lifecycle.preStop.sleep)".to_owned()] };
    let grace = deployment.number("/spec/template/spec/terminationGracePeriodSeconds").unwrap_or(30);
    let drain = if is_wasm(deployment) { Some(0) } else { seconds(setting(manifests, "USHER_DRAIN").unwrap_or("10s")) };
    let Some(drain) = drain else { return vec!["USHER_DRAIN is no number of seconds, such as 10s".to_owned()] };
    let mut found = Vec::new();
    let needed = sleep + drain + TO_END;
    let enough = format!("the grace period of {grace} s is less than sleep, drain and end need, {needed} s");
    found.extend(unless(grace >= needed, &enough));
    let long = format!("the grace period of {grace} s is wasted on a module, which sees no signal");
    found.extend(unless(!is_wasm(deployment) || grace <= UNSIGNALLED, &long));
    found
}

fn resources(deployment: &Object) -> Vec<String> {
    let Some(container) = main_container(deployment) else { return vec!["it has no container usher".to_owned()] };
    let wrong = RESOURCES.iter().filter_map(|(place, host, wasm)| {
        let right = if is_wasm(deployment) { wasm } else { host };
        let said = container.text(place).unwrap_or("nothing");
        unless(said == *right, &format!("{place} is {said} and not {right}"))
    });
    wrong.collect()
}

/// Of the two that crun knows, only the smart variant leaves sidecars what they are.
fn wasm(deployment: &Object) -> Vec<String> {
    if !is_wasm(deployment) {
        return Vec::new();
    }
    let variant = deployment.text("/spec/template/metadata/annotations/module.wasm.image~1variant");
    unless(variant == Some("compat-smart"), "module.wasm.image/variant is not compat-smart").into_iter().collect()
}

/// On an address that others reach; the module's own default is none.
fn listens(manifests: &Manifests) -> Vec<String> {
    let wasm = manifests.find("Deployment", NAME).is_some_and(is_wasm);
    let names: &[&str] = if wasm { &["LISTEN_ADDR"] } else { &["USHER_LISTEN", "USHER_ADMIN"] };
    let wrong = names.iter().filter_map(|name| {
        let address = setting(manifests, name).unwrap_or("nothing");
        unless(address.starts_with("0.0.0.0:"), &format!("{name} is {address}, which nobody reaches"))
    });
    wrong.collect()
}

/// The guest asks for names over TCP, the host's resolver over UDP, and the database has to be reached.
fn network(manifests: &Manifests) -> Vec<String> {
    let Some(policy) = manifests.find("NetworkPolicy", NAME) else {
        return vec!["there is no NetworkPolicy".to_owned()];
    };
    let open = |direction: &str, port: u64, protocol: &str| {
        let rules = policy.list(&format!("/spec/{direction}"));
        rules
            .iter()
            .flat_map(|rule| rule.list("/ports"))
            .any(|listed| listed.number("/port") == Some(port) && listed.text("/protocol").unwrap_or("TCP") == protocol)
    };
    let needed = [("egress", 53, "UDP"), ("egress", 53, "TCP"), ("egress", 3306, "TCP"), ("ingress", 8080, "TCP")];
    let mut found: Vec<String> = needed
        .iter()
        .filter_map(|(direction, port, protocol)| {
            let missing = format!("the NetworkPolicy lacks {direction} to port {port} by {protocol}");
            unless(open(direction, *port, protocol), &missing)
        })
        .collect();
    let anybody = policy.list("/spec/ingress").iter().any(|rule| {
        rule.at("/from").is_none() && rule.list("/ports").iter().any(|port| port.number("/port") != Some(8080))
    });
    found.extend(unless(!anybody, "the NetworkPolicy lets anybody reach more than port 8080"));
    found
}

/// What a ServiceMonitor scrapes is there: its service, and the container's port behind that.
fn monitored(manifests: &Manifests, deployment: &Object) -> Vec<String> {
    let monitors = manifests.of_kind("ServiceMonitor");
    let blind = monitors.filter(|monitor| {
        let Some(labels) = monitor.at("/spec/selector/matchLabels").and_then(Value::as_object) else { return true };
        let service = manifests.of_kind("Service").find(|service| {
            labels
                .iter()
                .all(|(name, value)| service.at("/metadata/labels").and_then(|labels| labels.get(name)) == Some(value))
        });
        let asked = monitor.text("/spec/endpoints/0/port");
        let ports = service.map(|service| service.list("/spec/ports")).unwrap_or_default();
        let target = ports.iter().find(|port| port.text("/name") == asked).and_then(|port| port.text("/targetPort"));
        let container = main_container(deployment).map(|container| container.list("/ports")).unwrap_or_default();
        !container.iter().any(|port| port.text("/name").is_some() && port.text("/name") == target)
    });
    blind.map(|monitor| format!("{}: there is nothing that it scrapes", monitor.title())).collect()
}

fn unless(right: bool, offence: &str) -> Option<String> {
    (!right).then(|| offence.to_owned())
}

fn containers(pod: &Object) -> Vec<Object> {
    ["/spec/initContainers", "/spec/containers"].iter().flat_map(|place| pod.list(place)).collect()
}

fn main_container(deployment: &Object) -> Option<Object> {
    let mut containers = deployment.list("/spec/template/spec/containers").into_iter();
    containers.find(|container| container.text("/name") == Some(NAME))
}

fn is_wasm(deployment: &Object) -> bool {
    deployment.text("/spec/template/spec/runtimeClassName") == Some("wasmedge")
}

/// A setting in the config map that the deployment takes its environment from.
fn setting<'a>(manifests: &'a Manifests, name: &str) -> Option<&'a str> {
    let deployment = manifests.find("Deployment", NAME)?;
    let map = deployment.text("/spec/template/spec/containers/0/envFrom/0/configMapRef/name")?;
    manifests.find("ConfigMap", map)?.text(&format!("/data/{name}"))
}

fn seconds(text: &str) -> Option<u64> {
    text.strip_suffix('s')?.parse().ok()
}

#[cfg(test)]
mod tests;
