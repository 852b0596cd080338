//! What is configured wrongly is told by the last line of the pod's log, and by `/readyz` where anything answers at
//! all; and the pod recovers when the cause is gone.

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Raw, Reply, eventually, wire, within};
use serde_json::{Value, json};

use crate::images::node;
use crate::manifests::{Overlay, Pod};
use crate::podman::Pods;
use crate::running::Running;

/// By the name of MySQL's Service, with the overlay `dev`'s password.
const DATABASE: &str = "mysql://usher:throw-away@mysql/users";

const CONTAINER: &str = "usher";

/// How long a pod may take to say what is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// An overlay, and what differs in it.
struct Variant {
    overlay: &'static str,
    /// The setting of the address that is served.
    listen: &'static str,
    /// Where probes ask.
    probed: u16,
    /// Where the embedded store's folder is.
    data: &'static str,
}

const WASM: Variant = Variant { overlay: "wasm", listen: "LISTEN_ADDR", probed: 8080, data: "/data" };
const HOST: Variant = Variant { overlay: "host", listen: "USHER_LISTEN", probed: 9090, data: "/opt/usher/data" };

impl Variant {
    /// A pod as it should be.
    fn pod(&self, name: &str) -> Pod {
        let name = format!("{}-{name}", self.overlay);
        Overlay::render(self.overlay).pod("Deployment", "usher", &name).database(DATABASE)
    }
}

/// One variant's pods on a node.
struct Trial<'n> {
    pods: &'n Pods<'n>,
    variant: Variant,
}

impl Trial<'_> {
    fn play(&self, pod: Pod) -> Running {
        self.pods.play(pod, "usher")
    }

    /// What the last line of a pod's log says, but for lines about requests.
    fn last_line(&self, pod: &Running) -> String {
        let log = self.pods.log(pod.pod.name(), CONTAINER);
        let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty() && !is_of_a_request(line));
        lines.next_back().unwrap_or_default().to_owned()
    }

    /// Waits until the last line of the log has all these words.
    fn says(&self, pod: &Running, words: &[&str]) {
        let mut line = String::new();
        let told = within(PATIENCE, || {
            line = self.last_line(pod);
            words.iter().all(|word| line.contains(word)).then_some(())
        });
        assert!(told.is_some(), "{}: no {words:?} in its last line: {line}", pod.pod.name());
        println!("{}: {line}", pod.pod.name());
    }

    /// What a probe for readiness is answered, if it is.
    fn probe(&self, pod: &Running) -> Option<Reply> {
        let address = SocketAddr::new(pod.address.ip(), self.variant.probed);
        Raw::connect(address).ok()?.request(wire::get("/readyz")).ok()
    }

    /// Waits until `/readyz` says that it is not ready, in these words.
    fn is_unready(&self, pod: &Running, words: &str) {
        eventually(&format!("{}: /readyz says {words:?}", pod.pod.name()), || {
            let reply = self.probe(pod)?;
            (reply.status == 503 && reply.json()["detail"].as_str()?.contains(words)).then_some(())
        });
    }

    /// Waits until it is ready, and removes it.
    fn recovers(&self, pod: &Running) {
        eventually(&format!("{} is ready", pod.pod.name()), || (self.probe(pod)?.status == 200).then_some(()));
        self.pods.remove(&pod.pod);
    }

    /// Takes a pod's place, as a Deployment does when its template is changed.
    fn replace(&self, pod: &Running, by: Pod) {
        self.pods.remove(&pod.pod);
        self.recovers(&self.play(by));
    }

    /// The name of the database is not known before it is there.
    fn database_that_is_not_there_yet(&self) -> Running {
        let pod = self.play(self.variant.pod("early"));
        self.is_unready(&pod, "the database's name is not resolved: check the host in DATABASE_URL");
        self.says(&pod, &["the database's name is not resolved", "DATABASE_URL"]);
        let mysql = self.pods.play_mysql();
        self.recovers(&pod);
        mysql
    }

    /// A kubelet waits for a secret, podman does not.
    fn secret_that_is_missing(&self) {
        let refused = self.pods.refuse(&self.variant.pod("secretless").without_secret());
        assert!(refused.contains("usher-database") && refused.contains("no such secret"), "{refused}");
    }

    fn key_that_is_missing_in_the_secret(&self) {
        let pod = self.play(self.variant.pod("keyless").secret("password", "throw-away"));
        self.says(&pod, &["DATABASE_URL_FILE", "cannot be read", "No such file or directory"]);
        // As a kubelet does, some time after the secret was corrected.
        self.pods.write_secret(&pod.pod, CONTAINER, "url", DATABASE);
        self.recovers(&pod);
    }

    fn wrong_password(&self, mysql: &Running) {
        let right = DATABASE.replace("throw-away", "right");
        let pod = self.play(self.variant.pod("denied").database(&right));
        self.is_unready(&pod, "the database denies access: check user, password and database in DATABASE_URL");
        self.says(&pod, &["the database denies access", "DATABASE_URL", "Access denied for user 'usher'"]);
        self.pods.sql(mysql, "ALTER USER usher IDENTIFIED BY 'right'");
        self.recovers(&pod);
        self.pods.sql(mysql, "ALTER USER usher IDENTIFIED BY 'throw-away'");
    }

    fn port_without_the_right_to_it(&self) {
        let pod = self.variant.pod("low").setting(self.variant.listen, "0.0.0.0:80");
        // podman leaves all ports to everybody; a kubelet does not.
        let pod = self.play(pod.sysctl("net.ipv4.ip_unprivileged_port_start", "1024"));
        self.says(&pod, &["0.0.0.0:80", self.variant.listen, "port"]);
        self.replace(&pod, self.variant.pod("high"));
    }

    /// What goes the same way with both variants; leaves a database.
    fn database_secret_and_port(&self) {
        let mysql = self.database_that_is_not_there_yet();
        self.secret_that_is_missing();
        self.key_that_is_missing_in_the_secret();
        self.wrong_password(&mysql);
        self.port_without_the_right_to_it();
    }

    /// Nobody set a database, so that users are kept in a file.
    fn folder_that_cannot_be_written(&self, words: &[&str]) {
        let embedded = |name| self.variant.pod(name).setting("DATABASE_URL_FILE", "").setting("USHER_DIR", "");
        let pod = self.play(embedded("embedded"));
        self.says(&pod, words);
        self.replace(&pod, embedded("writable").mount("data", self.variant.data));
    }

    /// The module is to keep users in a file, and usher is not told of a folder for it.
    fn folder_that_is_not_granted(&self) {
        let pod = self.play(self.variant.pod("ungranted").setting("DATABASE_URL_FILE", ""));
        self.says(&pod, &["cannot use the folder ./data", "DATA_DIR"]);
        self.replace(&pod, self.variant.pod("stateless"));
    }

    /// Nothing can say a word that is killed at its start, but the engine can.
    fn killed_for_want_of_memory(&self, limit: &str) {
        let pod = self.play(self.variant.pod("small").memory(limit));
        eventually("the engine says that it was killed for want of memory", || {
            let state: Value = self.pods.inspect(pod.pod.name(), CONTAINER)["State"].take();
            (state["OOMKilled"] == json!(true) && state["ExitCode"] == json!(137)).then_some(())
        });
        self.replace(&pod, self.variant.pod("large"));
    }
}

fn is_of_a_request(line: &str) -> bool {
    line.contains(r#""message":"request""#)
}

#[test]
fn the_module_says_what_is_wrong_and_recovers() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    let trial = Trial { pods: &pods, variant: WASM };
    trial.database_secret_and_port();
    trial.folder_that_cannot_be_written(&["./data", "Read-only file system", "DATA_DIR"]);
    trial.killed_for_want_of_memory("96Mi");
}

#[test]
fn usher_says_what_is_wrong_and_recovers() {
    let Some(node) = node() else { return };
    let pods = Pods::on(&node);
    let trial = Trial { pods: &pods, variant: HOST };
    trial.database_secret_and_port();
    trial.folder_that_cannot_be_written(&["./data", "Read-only file system", "USHER_DIR"]);
    trial.folder_that_is_not_granted();
    trial.killed_for_want_of_memory("8Mi");
}
