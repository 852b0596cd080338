//! Running cargo from a program that cargo runs.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::paths::Paths;
use crate::process::end_with_us;

/// What the outer cargo tells the program it runs. Inherited, it would end up in the inner
/// builds and make them differ from the same builds started by hand.
const TOLD_BY_CARGO: [&str; 5] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// A cargo command in the repository's root.
pub fn cargo(paths: &Paths, arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(paths.root()).args(arguments);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if TOLD_BY_CARGO.iter().any(|told| text.starts_with(told)) {
            command.env_remove(&name);
        }
    }
    end_with_us(&mut command);
    command
}

/// Runs a cargo command with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "`{}` failed", line(command));
    Ok(())
}

/// Runs a `cargo build` and returns what it made: the executable of the binary `name`, or the library whose file is
/// called so.
pub fn build(paths: &Paths, arguments: &[&str], name: &str) -> Result<PathBuf> {
    let mut command = cargo(paths, &["build"]);
    command.args(arguments);
    // The messages know where the result lies, whatever target folder is configured.
    command.arg("--message-format=json-render-diagnostics");
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let messages = child.stdout.take().context("cargo has no output")?;
    let mut executable: Option<PathBuf> = None;
    for line in BufReader::new(messages).lines() {
        let line = line.context("cannot read cargo's output")?;
        executable = made_in(&line).into_iter().find(|made| is_called(made, name)).or(executable);
    }
    let status = child.wait().context("cargo is lost")?;
    ensure!(status.success(), "`{}` failed", self::line(&command));
    executable.with_context(|| format!("`{}` made no {name}", self::line(&command)))
}

/// The command as a person types it.
fn line(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy());
    let shown = words.filter(|word| !word.starts_with("--message-format"));
    format!("cargo {}", shown.collect::<Vec<_>>().join(" "))
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The executable that a message tells of, and all other files.
fn made_in(message: &str) -> Vec<PathBuf> {
    let message = serde_json::from_str::<Message>(message).ok();
    message.map(|message| message.executable.into_iter().chain(message.filenames).collect()).unwrap_or_default()
}

fn is_called(made: &Path, name: &str) -> bool {
    [made.file_stem(), made.file_name()].contains(&Some(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_found_among_the_messages() {
        let artifact = r#"{"reason":"compiler-artifact","filenames":["/t/x.rlib"],"executable":"/t/service.wasm"}"#;
        assert_eq!(made_in(artifact), [PathBuf::from("/t/service.wasm"), PathBuf::from("/t/x.rlib")]);
        assert!(made_in(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(made_in("not json").is_empty());
        assert!(is_called(Path::new("/t/service.wasm"), "service") && is_called(Path::new("/t/libx.so"), "libx.so"));
        assert!(!is_called(Path::new("/t/libx.rlib"), "libx.so"));
    }

    #[test]
    fn the_inner_cargo_does_not_see_the_outer_ones_variables() {
        // This test runs under cargo, which sets them.
        let command = cargo(&Paths::at(&env::temp_dir()), &["build", "--release"]);
        let removed = command.get_envs().any(|(name, value)| name == "CARGO_MANIFEST_DIR" && value.is_none());
        assert!(removed);
        assert_eq!(line(&command), "cargo build --release");
    }
}
