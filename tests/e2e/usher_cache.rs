//! Compiled modules, kept: where, and what of them is used again.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{artifacts, can_have_own_mounts, make_module};
use tempfile::TempDir;

/// A small module, and a cache of its own.
struct Place {
    folder: TempDir,
    module: PathBuf,
    cache: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (module, cache) = (make_module("crashes", folder.path()), folder.path().join("cache"));
        Self { folder, module, cache }
    }

    /// `usher compile` of the module, without an environment.
    fn command(&self) -> Command {
        let mut command = Command::new(artifacts::usher());
        command.arg("compile").arg(&self.module).env_clear();
        command
    }

    /// Compiles through the cache: the code's path, and whether it was compiled just now.
    fn compiled(&self, more: &[&str]) -> (PathBuf, bool) {
        let output = self.command().arg("--cache").arg(&self.cache).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (text(&output.stdout).trim().into(), text(&output.stderr).contains("compiling"))
    }

    /// The same with a file system of its own as the cache.
    fn compiled_on(&self, options: &str) -> Output {
        fs::create_dir_all(&self.cache).unwrap();
        let script = format!("mount -t tmpfs -o {options} none \"$0\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(&self.cache).arg(artifacts::usher());
        command.arg("compile").arg(&self.module).arg("--cache").arg(&self.cache).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that compiling failed and that all of that was said.
fn assert_refused(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is missing: {said}"));
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not tried: this needs root");
    }
    root
}

#[test]
fn code_is_kept_for_each_module_and_each_way_to_compile_it() {
    let place = Place::new();
    let (first, compiled) = place.compiled(&[]);
    assert!(compiled && first.starts_with(&place.cache));
    assert_eq!(place.compiled(&[]), (first.clone(), false));
    for option in ["--opt=0", "--generic"] {
        let (other, compiled) = place.compiled(&[option]);
        assert!(compiled && other != first, "{option}");
    }
    let output = place.folder.path().join("crashes.so");
    let (given, compiled) = place.compiled(&["-o", output.to_str().unwrap()]);
    assert_eq!((given.as_path(), compiled), (output.as_path(), false));
    assert_eq!(fs::read(output).unwrap(), fs::read(first).unwrap());
}

#[test]
fn a_module_that_changed_is_compiled_anew() {
    let place = Place::new();
    let (first, _) = place.compiled(&[]);
    fs::copy(make_module("tells_environment", place.folder.path()), &place.module).unwrap();
    let (second, compiled) = place.compiled(&[]);
    assert!(compiled && second != first);
}

#[test]
fn damaged_and_foreign_code_is_made_anew() {
    let place = Place::new();
    let (code, _) = place.compiled(&[]);
    let record = code.with_extension("txt");
    let whole = fs::read_to_string(&record).unwrap();
    fs::write(&code, "damaged").unwrap();
    assert_eq!(place.compiled(&[]), (code.clone(), true));
    fs::remove_file(&record).unwrap();
    assert_eq!(place.compiled(&[]), (code.clone(), true));
    // As if it had been compiled on a machine with another processor.
    let foreign = whole.lines().map(|line| if line.starts_with("cpu ") { "cpu \"another\"" } else { line });
    fs::write(&record, foreign.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_eq!(place.compiled(&[]), (code, true));
    assert_eq!(fs::read_to_string(&record).unwrap(), whole);
}

#[test]
fn the_users_own_folder_is_used_where_none_is_given() {
    let place = Place::new();
    for (variable, inside) in [("XDG_CACHE_HOME", "usher"), ("HOME", ".cache/usher")] {
        let home = place.folder.path().join(variable);
        let output = place.command().env(variable, &home).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(Path::new(text(&output.stdout).trim()).starts_with(home.join(inside)), "{output:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named_with_the_flag() {
    let place = Place::new();
    let output = place.command().args(["--cache", "/proc/no"]).output().unwrap();
    assert_refused(&output, &["/proc/no", "--cache"]);
    let output = place.command().env("HOME", "/proc/nonexistent").output().unwrap();
    assert_refused(&output, &["/proc/nonexistent", "--cache"]);
    fs::write(&place.cache, "a file").unwrap();
    let output = place.command().arg("--cache").arg(&place.cache).output().unwrap();
    assert_refused(&output, &["cache", "--cache"]);
}

#[test]
fn a_user_who_has_no_home_is_told_to_choose_a_folder() {
    if !is_root() {
        return;
    }
    // A number that no user has. It has to reach usher, but that is all.
    let place = Place::new();
    let output = place.command().uid(12345).gid(12345).output();
    match output {
        Ok(output) if !text(&output.stderr).contains("Permission denied") => {
            assert_refused(&output, &["no home folder", "--cache"]);
        }
        _ => println!("not tried: the checkout is not for everybody to read"),
    }
}

#[test]
fn a_file_system_that_is_full_or_runs_no_code_is_told() {
    if !can_have_own_mounts() {
        return;
    }
    let place = Place::new();
    assert_refused(&place.compiled_on("noexec"), &["noexec", "--cache"]);
    assert_refused(&place.compiled_on("size=4k"), &["full", "--cache"]);
    assert_refused(&place.compiled_on("ro"), &["Read-only", "--cache"]);
    assert!(place.compiled_on("size=1m").status.success());
}
