//! That each rule can fail.

use super::*;

/// What is right for a module; the differences of the host variant are in [`host`].
const GOOD: &str = "
kind: Deployment
metadata: {name: usher}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 0}}
  template:
    metadata: {annotations: {module.wasm.image/variant: compat-smart}}
    spec:
      runtimeClassName: wasmedge
      terminationGracePeriodSeconds: 10
      enableServiceLinks: false
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: usher
          image: registry.example:5000/usher:1.2
          ports: [{name: http, containerPort: 8080}]
          envFrom: [{configMapRef: {name: settings}}]
          resources: {requests: {cpu: 100m, memory: 160Mi}, limits: {cpu: 200m, memory: 256Mi}}
          startupProbe: {httpGet: {path: /livez, port: http}}
          livenessProbe: {httpGet: {path: /livez, port: http}}
          readinessProbe: {httpGet: {path: /readyz, port: http}}
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          securityContext:
            {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumes: [{name: database, secret: {secretName: usher-database}}]
---
kind: ConfigMap
metadata: {name: settings}
data: {LISTEN_ADDR: '0.0.0.0:8080', USHER_LISTEN: '0.0.0.0:8080', USHER_ADMIN: '0.0.0.0:9090', USHER_DRAIN: 10s}
---
kind: NetworkPolicy
metadata: {name: usher}
spec:
  ingress:
    - ports: [{port: 8080}]
    - {from: [{namespaceSelector: {}}], ports: [{port: 9090}]}
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
    - ports: [{port: 3306, protocol: TCP}]
---
kind: Service
metadata: {name: metrics, labels: {of: metrics}}
spec: {ports: [{name: admin, targetPort: http}]}
---
kind: ServiceMonitor
metadata: {name: usher}
spec: {selector: {matchLabels: {of: metrics}}, endpoints: [{port: admin}]}
";

fn host() -> String {
    let mut text = GOOD.replace("      runtimeClassName: wasmedge\n", "");
    for (module, host) in [("GracePeriodSeconds: 10", "GracePeriodSeconds: 20"), ("160Mi", "64Mi"), ("256Mi", "128Mi")]
    {
        text = text.replace(module, host);
    }
    text
}

fn found(text: &str) -> Vec<String> {
    broken(&Manifests::parse(text).unwrap())
}

/// Each change breaks the rule whose offence has those words, and no other.
fn each_breaks_one(good: &str, cases: &[(&str, &str, &str)]) {
    assert_eq!(found(good), [""; 0]);
    for (right, wrong, words) in cases {
        assert!(good.contains(right), "{right}");
        let found = found(&good.replacen(right, wrong, 1));
        assert!(matches!(found.as_slice(), [one] if one.contains(words)), "{right} -> {wrong}: {found:?}");
    }
}

#[test]
fn a_pod_is_restricted() {
    each_breaks_one(
        GOOD,
        &[
            ("runAsNonRoot: true, ", "", "runAsNonRoot"),
            ("runAsUser: 65532", "runAsUser: 0", "root"),
            ("type: RuntimeDefault", "type: Unconfined", "seccomp"),
            ("enableServiceLinks: false", "enableServiceLinks: false\n      hostNetwork: true", "hostNetwork"),
            ("secret: {secretName: usher-database}", "hostPath: {path: /}", "hostPath"),
            ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"),
            ("readOnlyRootFilesystem: true, ", "", "root file system"),
            ("drop: [ALL]", "drop: [ALL], add: [NET_BIND_SERVICE]", "capabilities"),
            ("{allowPrivilegeEscalation", "{privileged: true, allowPrivilegeEscalation", "privileged"),
            ("{allowPrivilegeEscalation", "{runAsUser: 0, allowPrivilegeEscalation", "a container sets runAsUser"),
        ],
    );
}

#[test]
fn a_pod_has_no_more_than_it_needs() {
    each_breaks_one(
        GOOD,
        &[
            ("enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"),
            ("      automountServiceAccountToken: false\n", "", "automountServiceAccountToken"),
            (":1.2", "", "no tag"),
            (":1.2", ":latest", "latest"),
        ],
    );
}

#[test]
fn no_program_is_run_in_a_container() {
    let (probe, hook) = ("livenessProbe: {httpGet", "preStop: {sleep: {seconds: 5}}");
    let cases = [
        (probe, "livenessProbe: {exec: {command: [sh]}, httpGet", "exec"),
        (hook, "preStop: {sleep: {seconds: 5}}, postStart: {exec: {command: [sh]}}", "exec"),
    ];
    each_breaks_one(GOOD, &cases);
    each_breaks_one(&host(), &cases);
}

#[test]
fn nothing_is_unavailable_while_it_rolls_out() {
    each_breaks_one(
        GOOD,
        &[
            ("maxUnavailable: 0", "maxUnavailable: 1", "maxUnavailable"),
            ("replicas: 3", "replicas: 1", "3 replicas"),
            ("readinessProbe: {httpGet: {path: /readyz", "readinessProbe: {httpGet: {path: /livez", "/readyz"),
            ("startupProbe: {httpGet: {path: /livez", "startupProbe: {httpGet: {path: /readyz", "/livez"),
            ("/readyz, port: http", "/readyz, port: admin", "does not name"),
        ],
    );
}

#[test]
fn there_is_time_to_end_and_a_module_wastes_none() {
    each_breaks_one(
        GOOD,
        &[
            ("{sleep: {seconds: 5}}", "{}", "preStop does not sleep"),
            ("{seconds: 5}", "{seconds: 6}", "less than"),
            ("GracePeriodSeconds: 10", "GracePeriodSeconds: 30", "wasted"),
            ("      terminationGracePeriodSeconds: 10\n", "", "wasted"),
        ],
    );
    each_breaks_one(
        &host(),
        &[
            ("GracePeriodSeconds: 20", "GracePeriodSeconds: 19", "less than sleep, drain and end need, 20 s"),
            ("USHER_DRAIN: 10s", "USHER_DRAIN: 11s", "less than"),
            ("USHER_DRAIN: 10s", "USHER_DRAIN: soon", "USHER_DRAIN"),
        ],
    );
}

#[test]
fn resources_are_those_that_were_measured() {
    each_breaks_one(GOOD, &[("memory: 256Mi", "memory: 128Mi", "/resources/limits/memory is 128Mi and not 256Mi")]);
    each_breaks_one(
        &host(),
        &[
            ("memory: 64Mi", "memory: 65Mi", "requests/memory"),
            ("cpu: 200m, ", "", "limits/cpu is nothing and not 200m"),
        ],
    );
}

#[test]
fn a_module_is_marked_so_that_a_sidecar_is_not() {
    each_breaks_one(
        GOOD,
        &[
            ("variant: compat-smart", "variant: compat", "compat-smart"),
            ("metadata: {annotations: {module.wasm.image/variant: compat-smart}}", "metadata: {}", "compat-smart"),
        ],
    );
}

#[test]
fn others_reach_the_address() {
    each_breaks_one(
        GOOD,
        &[
            ("LISTEN_ADDR: '0.0.0.0:8080'", "LISTEN_ADDR: '127.0.0.1:8080'", "127.0.0.1"),
            ("LISTEN_ADDR: '0.0.0.0:8080', ", "", "LISTEN_ADDR is nothing"),
        ],
    );
    each_breaks_one(
        &host(),
        &[
            ("USHER_ADMIN: '0.0.0.0:9090'", "USHER_ADMIN: 'localhost:9090'", "USHER_ADMIN"),
            ("USHER_LISTEN: '0.0.0.0:8080', ", "", "USHER_LISTEN"),
        ],
    );
}

#[test]
fn names_and_the_database_are_reached_and_the_admin_port_is_not() {
    each_breaks_one(
        GOOD,
        &[
            (", {port: 53, protocol: TCP}", "", "egress to port 53 by TCP"),
            ("{port: 53, protocol: UDP}, ", "", "egress to port 53 by UDP"),
            ("port: 3306", "port: 3307", "egress to port 3306"),
            ("from: [{namespaceSelector: {}}], ", "", "anybody"),
            ("kind: NetworkPolicy", "kind: Policy", "no NetworkPolicy"),
        ],
    );
}

#[test]
fn a_monitor_has_something_to_scrape() {
    each_breaks_one(
        GOOD,
        &[
            ("matchLabels: {of: metrics}", "matchLabels: {of: nothing}", "nothing that it scrapes"),
            ("targetPort: http", "targetPort: https", "nothing that it scrapes"),
            ("endpoints: [{port: admin}]", "endpoints: [{port: http}]", "nothing that it scrapes"),
        ],
    );
}
