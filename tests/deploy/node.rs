//! A machine of its own, with container engines on it.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use harness::artifacts;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// A node. All that runs on it ends with it.
pub struct Node {
    outer: Child,
    /// Its first process, as this machine numbers it.
    first: i32,
    state: TempDir,
}

impl Node {
    /// Starts one; nothing where this machine can have none, which `cargo xtask test` has said.
    pub fn start() -> Option<Self> {
        let Some(node) = artifacts::node() else {
            println!("not tried: there are no container engines");
            return None;
        };
        let state = tempfile::Builder::new().prefix("usher-node-").tempdir().unwrap();
        // It ends with its input, which only we hold: also when this process is killed.
        let first = ["sh", "-c", "echo started; exec cat"];
        let mut outer = Command::new(node.join("start"));
        outer.arg(state.path()).args(first).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut outer = outer.spawn().unwrap();
        let mut said = [0; 8];
        outer.stdout.as_mut().unwrap().read_exact(&mut said).expect("the node starts");
        let (first, _) = harness::children(outer.id()).pop().expect("its first process");
        Some(Self { outer, first, state })
    }

    /// Moves this thread, and those that it starts from now on, into the node's network.
    pub fn enter_network(&self) {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.first)).unwrap();
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// A command on the node.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin", "HOME=/root", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command on the node to its end.
    pub fn try_run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command on the node, which has to succeed, and gives its output.
    pub fn run(&self, words: &[&str]) -> String {
        succeeded(&words.join(" "), &self.try_run(words))
    }

    /// Runs a script of bash's on the node, all of which has to succeed, and gives its output.
    pub fn shell(&self, script: &str) -> String {
        self.run(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Runs a command that has an input, and has to succeed, and gives its output.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> String {
        succeeded(&words.join(" "), &self.try_run_with_input(words, input))
    }

    /// Runs a command that has an input to its end.
    pub fn try_run_with_input(&self, words: &[&str], input: &str) -> Output {
        let file = self.state.path().join("input");
        fs::write(&file, input).unwrap();
        let input = fs::File::open(file).unwrap();
        self.command(words).stdin(input).output().unwrap()
    }

    /// Writes a file on the node.
    pub fn write(&self, path: &str, content: &str) {
        let words = ["sh", "-c", "mkdir -p \"$(dirname \"$0\")\"; cat > \"$0\"", path];
        self.run_with_input(&words, content);
    }

    /// A figure of a process' control group: `controller` and `file` of version 1. The node numbers the process.
    pub fn group(&self, pid: &str, controller: &str, file: &str) -> String {
        let script = format!(
            "group=$(grep -E '[:,]{controller}[,:]' /proc/{pid}/cgroup | cut -d: -f3); cat /sys/fs/cgroup/{controller}$group/{file}"
        );
        self.run(&["sh", "-c", &script]).trim().to_owned()
    }

    /// Where a file of the node is for this machine.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }

    /// The folder in which the engines keep images and containers.
    pub fn containers(&self) -> PathBuf {
        self.state.path().join("containers")
    }
}

/// How the node sees a folder of this machine.
pub fn outside(path: &Path) -> String {
    format!("/outside{}", path.display())
}

fn succeeded(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    said
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.outer.stdin.take());
        let _ = self.outer.wait();
        remove_groups();
    }
}

/// Removes the control groups that engines left and nothing runs in any more, as they would after their containers.
fn remove_groups() {
    let made = ["libpod_parent", "machine.slice", "k8s.io", "kubepods"];
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for hierarchy in hierarchies {
        for name in made {
            remove_group(&hierarchy.path().join(name));
        }
    }
}

fn remove_group(group: &Path) {
    let folders = fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    folders.for_each(|entry| remove_group(&entry.path()));
    // Another test's node may be using it.
    let _ = fs::remove_dir(group);
}
