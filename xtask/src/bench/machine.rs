//! What is measured on, and with.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::process::{capture, find_on_path};
use crate::wasmedge;

/// The two processors that are used: one serves, one asks.
#[derive(Debug, PartialEq)]
pub struct Processors {
    serving: u16,
    load: u16,
}

impl Processors {
    /// The first two that we may use. Fails where there is one only.
    pub fn of_this_machine() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self::first_of(list.unwrap_or_default().trim()).context(
            "a benchmark needs two processors, one that serves and one that asks, and this process may use fewer: \
             what would be measured is how they share it",
        )
    }

    /// The first two of a list in the kernel's words ("0-3,8").
    fn first_of(list: &str) -> Option<Self> {
        let numbers = list.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
        });
        let mut numbers = numbers.flatten();
        Some(Self { serving: numbers.next()?, load: numbers.next()? })
    }

    /// A command of a program that serves.
    pub fn for_serving(&self, program: &Path) -> Result<Command> {
        // Its environment may be cleared, and the path to look it up in with that.
        let taskset = find_on_path("taskset").context("taskset is missing: install util-linux")?;
        Ok(pinned(Command::new(taskset), self.serving, program))
    }

    /// A command of a program that asks.
    pub fn for_load(&self, program: &str) -> Command {
        pinned(Command::new("taskset"), self.load, Path::new(program))
    }
}

fn pinned(mut taskset: Command, processor: u16, program: &Path) -> Command {
    taskset.args(["--cpu-list", &processor.to_string()]).arg(program);
    taskset
}

/// What a reader has to know of the machine and the versions, to judge the numbers.
pub struct Machine {
    /// In UTC.
    pub date: String,
    pub cpu: String,
    pub processors: usize,
    /// Which of them were used.
    pub used: String,
    pub kernel: String,
    /// How busy the machine was before: its load average of a minute.
    pub busy: String,
    pub rustc: String,
    pub wasmedge: String,
    pub commit: String,
}

impl Machine {
    /// Asks the machine, before it is loaded.
    pub fn describe(paths: &Paths, used: &Processors) -> Result<Self> {
        let cpus = read("/proc/cpuinfo")?;
        Ok(Self {
            date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?,
            cpu: model_in(&cpus).unwrap_or_else(|| format!("unknown, {}", env::consts::ARCH)),
            processors: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            used: format!("{} serves, {} asks", used.serving, used.load),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            busy: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
            rustc: said_by(Command::new("rustc").arg("--version"))?,
            wasmedge: wasmedge::version_of(&paths.wasmedge_bin())?,
            commit: commit(paths).unwrap_or_else(|_| "unknown: this is no git checkout".to_owned()),
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn said_by(command: &mut Command) -> Result<String> {
    Ok(capture(command)?.trim().to_owned())
}

/// Not every architecture has it.
fn model_in(cpus: &str) -> Option<String> {
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit that was measured, and whether something differs from it.
fn commit(paths: &Paths) -> Result<String> {
    let git = |words: &[&str]| said_by(Command::new("git").arg("-C").arg(paths.root()).args(words));
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changes.is_empty() { commit } else { format!("{commit}, with changes") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_processors_of_any_list_are_used() {
        let first = |list| Processors::first_of(list).map(|used| (used.serving, used.load));
        for (list, expected) in [("0-3", (0, 1)), ("0,1", (0, 1)), ("2,5-7", (2, 5)), ("4-5,9", (4, 5))] {
            assert_eq!(first(list), Some(expected), "{list}");
        }
        for list in ["", "0", "3-3", "x"] {
            assert_eq!(first(list), None, "{list}");
        }
    }

    #[test]
    fn a_pinned_program_runs_there() {
        let mut command = pinned(Command::new("taskset"), 0, Path::new("cat"));
        let status = capture(command.arg("/proc/self/status")).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }

    #[test]
    fn the_model_is_read_where_there_is_one() {
        assert_eq!(model_in("processor\t: 0\nmodel name\t: Fast: 3000\n").unwrap(), "Fast: 3000");
        assert_eq!(model_in("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }
}
