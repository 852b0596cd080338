//! `cargo xtask run`, as a newcomer meets it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::{Raw, ask, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A folder for data. One whose own name begins with a dot, as that of temporary ones does, cannot be
/// granted under that name: WasmEdge mistakes it for its parent.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("usher").tempdir().unwrap()
}

/// `cargo xtask run`, ended with the test, and its service with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(folder: &Path, listen: &str) -> Child {
    Command::new(env!("CARGO"))
        .args(["xtask", "run", "--listen", listen])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("DATA_DIR", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn it_says_where_it_serves_and_what_to_try_and_ends_by_ctrl_c() {
    let folder = folder();
    let mut running = Running(run(folder.path(), "127.0.0.1:0"));
    let child = &mut running.0;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let greeting: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    let after = |label| greeting.iter().find_map(|line| line.split(label).nth(1)).unwrap();
    let address = after("ready:  http://").parse().unwrap();
    let commands = greeting.iter().filter(|line| line.trim_start().starts_with("curl http://"));
    assert_eq!(commands.count(), 3, "{greeting:?}");
    assert!(after("code     ").starts_with("compiled ahead of time"), "{greeting:?}");
    assert_eq!(after("workers  "), "1: only one can use the store");

    let reply = ask(address, "GET", "/readyz");
    assert_eq!(reply.status, 200);
    assert!(folder.path().join("users.redb").exists());
    let admin = after("admin    http://").parse().unwrap();
    let reply = ask(admin, "GET", "/workers");
    assert_eq!(reply.status, 200);

    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    assert!(lines.any(|line| line == "stopped"));
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(Raw::connect(address).is_err(), "the service goes on");
}

#[test]
fn a_port_that_is_taken_is_told_with_the_flag_that_helps() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(folder.path(), &taken.local_addr().unwrap().to_string()).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("already in use") && text.contains("--listen HOST:PORT"), "{text}");
}
