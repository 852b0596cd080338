//! The TensorFlow Lite extension, as guests meet it: our plugin in every WasmEdge and in usher, and what there is
//! without. What it does with models is tested beside the code (`plugin/lite/tests`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::{Builder, Failed, Runtime, Service, Usage, artifacts};
use tempfile::TempDir;

/// How many cases the guest has.
const CASES: usize = 11;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").canonicalize().unwrap()
}

/// The guest in the WasmEdge CLI with our plugin.
fn guest(runtime: Runtime, folder: &TempDir) -> Command {
    let oldest = matches!(runtime, Runtime::OldestAot | Runtime::OldestInterpreter);
    let wasmedge = if oldest { artifacts::oldest_wasmedge() } else { artifacts::wasmedge() };
    let mut module = artifacts::plugin_guest();
    let mut command = Command::new(&wasmedge);
    if matches!(runtime, Runtime::Aot | Runtime::OldestAot) {
        let compiled = folder.path().join("guest.so");
        let made = Command::new(&wasmedge).arg("compile").arg(&module).arg(&compiled).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        module = compiled;
    }
    if runtime == Runtime::Aot {
        command.args(["--run-mode", "aot"]);
    }
    command.current_dir(models()).args(["--dir", "."]).arg(module);
    command.env("WASMEDGE_PLUGIN_PATH", artifacts::plugin());
    command
}

fn lines_of<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(start)).collect()
}

fn every_function_does_what_is_right_and_refuses_what_is_wrong(runtime: Runtime) {
    let Output { status, stdout, stderr } = guest(runtime, &tempfile::tempdir().unwrap()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(lines_of(&said, "ok ").len(), CASES, "{said}");
    assert!(stdout.is_empty(), "standard output is the guest's: {stdout:?}");
    // Nothing but our own words on why a model was refused.
    let others = said.lines().filter(|line| !line.starts_with("ok ") && !line.starts_with("tensorflow-lite: "));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
}

on_every_runtime!(every_function_does_what_is_right_and_refuses_what_is_wrong);

#[test]
fn sessions_that_come_and_go_leave_nothing_in_the_guests_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = guest(Runtime::Aot, &folder);
    command.arg("leaks").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut guest = command.spawn().unwrap();
    let (mut orders, mut said) = (guest.stdin.take().unwrap(), BufReader::new(guest.stderr.take().unwrap()));
    let mut hundreds = |times: usize| {
        for _ in 0..times {
            orders.write_all(b"\n").unwrap();
            let mut line = String::new();
            while line != "100\n" {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "the guest ended");
            }
        }
        Usage::of(guest.id())
    };
    let before = hundreds(2);
    let after = hundreds(4);
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    // 400 sessions of a model of 53 KB.
    assert!(grown < 2048, "{grown} KiB more");
    assert_eq!(after.descriptors, before.descriptors);
    drop(orders);
    assert!(guest.wait().unwrap().success());
}

/// usher with the guest as its module, which ends with the code by which usher does not try it again.
fn under_usher(change: impl FnOnce(Builder) -> Builder) -> Failed {
    let builder = Service::builder(Runtime::Usher).module(&artifacts::plugin_guest());
    let models = format!("--dir=.:{}:ro", models().display());
    change(builder.arg(&models).arg("--workers=1").arg("--interpret")).run()
}

#[test]
fn a_confined_worker_of_usher_has_the_plugin_and_tries_models_out() {
    let ended = under_usher(|usher| usher.env("WASMEDGE_PLUGIN_PATH", artifacts::plugin().display()));
    assert_eq!(lines_of(&ended.stderr, "ok ").len(), CASES, "{}", ended.stderr);
}

#[test]
fn without_plugins_a_guest_of_usher_starts_and_is_refused() {
    let ended = under_usher(|usher| usher.arg("--no-plugins"));
    assert_eq!(lines_of(&ended.stderr, "there is no plugin").len(), 1, "{}", ended.stderr);
}

#[test]
fn a_plugin_that_cannot_be_loaded_is_told_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("libwasmedgePluginBroken.so");
    fs::write(&broken, "no library").unwrap();
    let check = Command::new(artifacts::usher()).arg("check").env("WASMEDGE_PLUGIN_PATH", &broken).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    let told = |text: &[u8]| String::from_utf8_lossy(text).contains(&broken.display().to_string());
    assert!(told(&check.stderr), "{check:?}");
    let ended = under_usher(|usher| usher.env("WASMEDGE_PLUGIN_PATH", broken.display()));
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
}

#[test]
fn usher_says_what_runs_models() {
    let plugin = fs::canonicalize(artifacts::plugin()).unwrap();
    let check = Command::new(artifacts::usher()).arg("check").env("WASMEDGE_PLUGIN_PATH", &plugin).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains(&format!("by {}", plugin.display())), "{said}");
    let service = Service::builder(Runtime::Usher).env("WASMEDGE_PLUGIN_PATH", plugin.display()).start();
    assert!(service.stdout().contains(&format!("\nmodels by {}\n", plugin.display())), "{}", service.stdout());
    let service = Service::builder(Runtime::Usher).arg("--no-plugins").start();
    assert!(service.stdout().contains("\nmodels cannot be run: "), "{}", service.stdout());
    assert_eq!(service.get("/api/users").status, 200);
}
