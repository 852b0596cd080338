//! Everything that CI runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::progress::seconds;
use crate::versions::Versions;
use crate::{artifacts, cargo, deploy, setup, system};

/// Makes the long tests run too.
const LONG: &str = "USHER_LONG";

/// Runs all steps, the quick ones first, up to the first that fails.
pub fn test(paths: &Paths, long: bool, filter: &[String]) -> Result<()> {
    let versions = Versions::pinned()?;
    let target = versions.rust.target;
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        cargo::run(&mut cargo::cargo(paths, &words))
    };
    let mut steps = Steps::default();
    steps.step("set-up", || {
        setup::setup(paths)?;
        system::provide_programs(&versions.tests.packages, "the tests use")
    })?;
    steps.step("formatting", || run("fmt --all --check").context("run `cargo fmt --all`"))?;
    steps.step("clippy", || run("clippy --workspace --all-targets --locked -- -D warnings"))?;
    steps.step("clippy for the guest", || {
        run(&format!("clippy -p service -p plugin-guest --target {target} --locked -- -D warnings"))
    })?;
    steps.step("manifests", || deploy::test(paths))?;
    let made = steps.step("build and compile", || artifacts::prepare(paths))?;
    steps.step("tests", || {
        let mut tests = cargo::cargo(paths, &["test", "--workspace", "--locked", "--"]);
        tests.args(filter).envs(made.variables());
        if long {
            tests.env(LONG, "1");
        }
        cargo::run(&mut tests)
    })?;
    eprintln!("\nall passed: {}", steps.summary());
    Ok(())
}

/// Runs the steps that are about images and manifests.
pub fn deployment(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    steps.step("set-up", || setup::setup(paths))?;
    steps.step("manifests", || deploy::test(paths))?;
    let made = steps.step("build and compile", || artifacts::prepare(paths))?;
    steps.step("tests", || {
        let words = ["test", "--package", "tests", "--test", "deploy", "--locked", "--", "--nocapture"];
        cargo::run(cargo::cargo(paths, &words).envs(made.variables()))
    })?;
    eprintln!("\nall passed: {}", steps.summary());
    Ok(())
}

/// What was done, with the time it took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = work().with_context(|| format!("{name} failed"))?;
        let took = start.elapsed();
        eprintln!("== {name}: {}", seconds(took));
        self.0.push((name, took));
        Ok(result)
    }

    fn summary(&self) -> String {
        let total: Duration = self.0.iter().map(|(_, took)| *took).sum();
        let each = self.0.iter().map(|(name, took)| format!("{name} {}", seconds(*took)));
        let each: Vec<String> = each.collect();
        format!("{} (together {})", each.join(", "), seconds(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_every_step_and_the_total() {
        let steps = Steps(vec![("clippy", Duration::from_secs(20)), ("tests", Duration::from_secs(40))]);
        assert_eq!(steps.summary(), "clippy 20 s, tests 40 s (together 60 s)");
    }

    #[test]
    fn a_failure_names_its_step() {
        let mut steps = Steps::default();
        let failed: Result<()> = steps.step("clippy", || anyhow::bail!("cause"));
        assert_eq!(format!("{:#}", failed.unwrap_err()), "clippy failed: cause");
    }
}
