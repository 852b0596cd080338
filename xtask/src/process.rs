//! Running other programs and reporting their failures.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// How much of a failed program's output is worth repeating.
const TAIL_LINES: usize = 15;

/// Runs a program to its end and returns what it wrote to stdout.
///
/// When it fails the error holds the end of its output.
pub fn capture(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    end_with_us(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{name}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let tail = tail(&without_hosts(&format!("{stdout}{stderr}")));
        bail!("`{name}` failed ({}):\n{tail}", output.status);
    }
    Ok(stdout)
}

/// Asks the kernel to end the child when this process is gone, however it went.
///
/// To be started from a thread that outlives it: the kernel looks at the thread, not the process.
pub fn end_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
    }
}

/// Where a program lies on PATH.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    all_on_path(program).into_iter().next()
}

/// Every program of that name on PATH, in order.
pub fn all_on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).filter(|file| is_executable(file)).collect()
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The text with the host of every address hidden, wherever else it is named: a mirror's name,
/// which may hold a password, belongs to the machine and not into a log.
fn without_hosts(text: &str) -> String {
    let mut clean = text.to_owned();
    for rest in text.split("://").skip(1) {
        let ends = |c: char| c == '/' || c == '\'' || c.is_whitespace();
        let authority = rest.split(ends).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let name = host.split(':').next().unwrap_or(host);
        for secret in [authority, name].into_iter().filter(|secret| !secret.is_empty()) {
            clean = clean.replace(secret, "<mirror>");
        }
    }
    clean
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_passwords_are_hidden() {
        let text = "Err:1 http://user:secret@mirror.example:80/debian forky\n\
                    Could not connect to mirror.example:80\nhttps://other.example";
        assert_eq!(
            without_hosts(text),
            "Err:1 http://<mirror>/debian forky\nCould not connect to <mirror>:80\nhttps://<mirror>"
        );
        assert_eq!(without_hosts("no address"), "no address");
    }

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo cause >&2; exit 3"]);
        let error = capture(&mut command).unwrap_err().to_string();
        assert!(error.contains("cause") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn only_the_end_of_long_output_is_kept() {
        let long = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(tail(&long).lines().count(), TAIL_LINES);
        assert!(tail(&long).ends_with("99"));
    }
}
