//! Many processes with one cache, some of which are killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, process};

use aot_cache::{Cache, Cpu, Digest, Key};

/// Tells a test process which folder to use.
const FOLDER: &str = "USHER_TEST_FOLDER";

/// Tells a test process not to survive its compilation.
const ABORT: &str = "USHER_TEST_ABORT";

fn starter(folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_starter", "--ignored"]).env(FOLDER, folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn key() -> Key {
    Key::new(Digest::of(b"module"), "0.17.1", "", &Cpu::this())
}

#[test]
#[ignore = "the other tests start it as a process"]
fn a_starter() {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let compile = |file: &Path| {
        let mut log = File::options().append(true).create(true).open(folder.join("log"))?;
        log.write_all(b"compiled\n")?;
        fs::write(file, "half")?;
        if env::var_os(ABORT).is_some() {
            process::abort();
        }
        Ok(fs::write(file, "all of it")?)
    };
    let compiled = Cache::at(folder.join("cache")).compiled(&key(), || {}, compile).unwrap();
    assert_eq!(fs::read_to_string(compiled.code).unwrap(), "all of it");
}

#[test]
fn of_many_processes_one_compiles() {
    let folder = tempfile::tempdir().unwrap();
    let starters: Vec<Child> = (0..6).map(|_| starter(folder.path()).spawn().unwrap()).collect();
    for mut starter in starters {
        assert!(starter.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "compiled\n");
}

#[test]
fn after_one_that_died_the_next_compiles_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    assert!(!starter(folder.path()).env(ABORT, "1").status().unwrap().success());
    let files = || fs::read_dir(&cache).unwrap().count();
    assert_eq!(files(), 2, "the lock and half of the code");
    assert_eq!(Cache::at(cache.clone()).find(&key()), None);

    assert!(starter(folder.path()).status().unwrap().success());
    assert_eq!(files(), 3, "the lock, the code and its record");
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "compiled\ncompiled\n");
}
