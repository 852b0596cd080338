//! checkov at `.tools/checkov`: a virtual environment of Python, for which nothing but Python itself is installed on the
//! machine. A check that does not fit an object is waived by an annotation on it, with the reason.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::paths::Paths;
use crate::process::capture;
use crate::python::Environment;
use crate::versions::Packages;

/// The versions and hashes of all that is in the environment.
const REQUIREMENTS: &str = include_str!("checkov/requirements.txt");

/// How annotations that waive a check begin, as `checkov.io/skip1: CHECK=reason`.
const WAIVER: &str = "checkov.io/skip";

/// What checkov gives as the reason of a waiver without one.
const NO_REASON: &str = "No comment provided";

/// The manifests as they would be applied.
const GIVEN: &str = "given.yaml";

/// The same without their waivers: a check that fails here needs one.
const BARE: &str = "bare.yaml";

/// The program.
pub struct Checkov {
    folder: PathBuf,
}

/// How many checks of some manifests passed, and how many were waived.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    passed: usize,
    waived: usize,
}

impl Checkov {
    /// The one in `.tools`, which is put there if it is missing.
    pub fn provide(paths: &Paths, packages: &Packages) -> Result<Self> {
        let folder = paths.checkov();
        let (module, name) = ("checkov", "the checks of manifests (checkov)");
        Environment { folder: folder.clone(), requirements: REQUIREMENTS, module, name }.provide(paths, packages)?;
        Ok(Self { folder })
    }

    /// Fails unless each check of the manifests in a text passes or is waived, and each waiver is needed and has a
    /// reason.
    pub fn check(&self, text: &str) -> Result<Counts> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let bare = text.replace(WAIVER, "checkov.io/ignored");
        for (name, text) in [(GIVEN, text), (BARE, &bare)] {
            fs::write(folder.path().join(name), text).context("cannot write the rendered manifests")?;
        }
        let report = self.run(folder.path())?;
        report.judge(waivers(text))
    }

    /// What checkov says about both files in a folder, in which it runs.
    fn run(&self, folder: &Path) -> Result<Report> {
        // Not its script, which names the folder that the environment was made in.
        let mut checkov = Command::new(self.folder.join("bin/python"));
        checkov.args(["-m", "checkov.main", "--framework", "kubernetes", "--output", "json"]);
        // A failed check is in the report, so it need not be in the exit code too.
        checkov.args(["--skip-download", "--soft-fail", "--file", GIVEN, BARE]);
        // Nobody's settings, which may leave out checks, or send what was found to the vendor.
        checkov.env_clear().env("HOME", folder).current_dir(folder);
        checkov.env("CKV_SKIP_PACKAGE_UPDATE_CHECK", "true");
        let said = capture(&mut checkov)?;
        serde_json::from_str(&said).with_context(|| format!("checkov checked nothing:\n{said}"))
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checks of checkov passed, {} waived", self.passed, self.waived)
    }
}

/// How many waivers are written in a text.
fn waivers(text: &str) -> usize {
    text.lines().filter(|line| line.trim_start().starts_with(WAIVER)).count()
}

/// What checkov prints, as far as it matters here. Where it finds nothing to check there are no results.
#[derive(Deserialize)]
struct Report {
    results: Results,
}

#[derive(Deserialize)]
struct Results {
    passed_checks: Vec<Record>,
    failed_checks: Vec<Record>,
    skipped_checks: Vec<Record>,
    parsing_errors: Vec<String>,
}

/// One check of one object.
#[derive(Deserialize)]
struct Record {
    check_id: String,
    check_name: String,
    resource: String,
    file_path: String,
    check_result: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    suppress_comment: Option<String>,
}

impl Report {
    /// Judges it, where `written` waivers are in the manifests.
    fn judge(&self, written: usize) -> Result<Counts> {
        let Results { passed_checks, failed_checks, skipped_checks, parsing_errors } = &self.results;
        ensure!(parsing_errors.is_empty(), "checkov cannot read the manifests");
        let passed = of_file(passed_checks, GIVEN).count();
        ensure!(passed > 0, "checkov checked nothing");
        none("checks of checkov failed", of_file(failed_checks, GIVEN))?;
        none("waivers have no reason", of_file(skipped_checks, GIVEN).filter(|record| !record.has_reason()))?;
        let needed: BTreeSet<_> = of_file(failed_checks, BARE).map(Record::key).collect();
        let unneeded = of_file(skipped_checks, GIVEN).filter(|record| !needed.contains(&record.key()));
        none("waived checks would pass", unneeded)?;
        let waived = of_file(skipped_checks, GIVEN).count();
        ensure!(waived == written, "{written} waivers are written, and checkov waived {waived} checks");
        Ok(Counts { passed, waived })
    }
}

impl Record {
    fn key(&self) -> (&str, &str) {
        (&self.resource, &self.check_id)
    }

    fn has_reason(&self) -> bool {
        self.check_result.suppress_comment.as_deref().is_some_and(|reason| !reason.is_empty() && reason != NO_REASON)
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.resource, self.check_name, self.check_id)
    }
}

/// The records of one of the two files.
fn of_file<'a>(records: &'a [Record], name: &str) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| Path::new(&record.file_path).ends_with(name))
}

fn none<'a>(offence: &str, records: impl Iterator<Item = &'a Record>) -> Result<()> {
    let found: Vec<String> = records.map(ToString::to_string).collect();
    ensure!(found.is_empty(), "{offence}:\n{}", found.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests;
