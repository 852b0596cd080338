//! The guest's environment: what it is given, and nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Settings of a service that usher decides, each with the flag that says so instead.
const OURS: [(&str, &str); 7] = [
    ("LISTEN_ADDR", "--listen"),
    ("LISTEN_STDIN", "--listen"),
    ("ADMIN_ADDR", "--admin"),
    ("ADMIN_STDOUT", "--admin"),
    ("DRAIN_TIMEOUT", "--drain"),
    ("FREE_DESCRIPTORS", "--open-files"),
    ("WORKER", "--workers"),
];

/// Descriptors that a worker has before its guest opens any: standard streams, listeners, WasmEdge's poll.
const HELD: u64 = 8;

/// What every worker of a service is told by usher: `open_files` are all that it may have, `folders` of
/// which are its folders'.
pub fn told(drain: Duration, open_files: u64, folders: u64) -> [String; 4] {
    [
        "LISTEN_STDIN=1".to_owned(),
        "ADMIN_STDOUT=1".to_owned(),
        // In milliseconds: a whole number, whatever the unit that was used.
        format!("DRAIN_TIMEOUT={}ms", drain.as_millis()),
        // It would take 20 ms to count them by taking them.
        format!("FREE_DESCRIPTORS={}", open_files.saturating_sub(HELD + folders)),
    ]
}

/// What one worker is told.
pub fn told_one(worker: usize) -> String {
    format!("WORKER={worker}")
}

/// The variables that a guest is given. Those given one by one outweigh a file's, which outweigh our own.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Variables of our own that are settings of the service but not used, and the flag to use instead.
    pub unused: Vec<(&'static str, &'static str)>,
}

impl Environment {
    /// Hands on those of our own variables that are settings of the module.
    ///
    /// # Errors
    /// If one of them is not UTF-8.
    pub fn inherit(&mut self, settings: &[String], own: impl Fn(&str) -> Option<OsString>) -> Result<()> {
        for name in settings {
            let Some(value) = own(name) else { continue };
            if let Some(ours) = OURS.iter().find(|(ours, _)| ours == name) {
                self.unused.push(*ours);
                continue;
            }
            let Ok(value) = value.into_string() else { bail!("the variable {name} is not UTF-8") };
            self.variables.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Adds the lines of a file: `NAME=VALUE`, or `NAME` for a variable of our own; `#` begins a comment.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is neither. The error has no line's text, which may be secret.
    pub fn add_file(&mut self, path: &Path, own: impl Fn(&str) -> Option<OsString>) -> Result<()> {
        let file = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("--env-file: cannot read {file}"))?;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line, &own).with_context(|| format!("--env-file {file}: line {number}"))?;
            }
        }
        Ok(())
    }

    /// Adds `NAME=VALUE`, or `NAME` for a variable of our own.
    ///
    /// # Errors
    /// If it is neither, or a setting that usher decides. The error does not have the value.
    pub fn add(&mut self, text: &str, own: impl Fn(&str) -> Option<OsString>) -> Result<()> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let valid = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        ensure!(valid, "it must be NAME=VALUE, or the NAME of a variable to hand on");
        if let Some((_, flag)) = OURS.iter().find(|(ours, _)| *ours == name) {
            bail!("{name} is for usher to decide: use {flag}");
        }
        let value = match value {
            Some(value) => value,
            None => own(name).and_then(|value| value.into_string().ok()).with_context(|| {
                format!("usher has no variable {name} (in UTF-8) to hand on: set it, or write {name}=VALUE")
            })?,
        };
        ensure!(!value.contains('\0'), "the value of {name} has a NUL byte in it");
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }

    /// Each as NAME=VALUE.
    pub fn into_lines(self) -> Vec<String> {
        self.variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<OsString> {
        let variables = [("HOME", "/root"), ("LOG_LEVEL", "warn"), ("LISTEN_ADDR", "0.0.0.0:1"), ("SECRET", "s3cret")];
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn only_settings_of_the_module_are_handed_on_unasked() {
        let mut environment = Environment::default();
        let settings = ["LOG_LEVEL", "LOG_FORMAT", "LISTEN_ADDR"].map(str::to_owned);
        environment.inherit(&settings, own).unwrap();
        assert_eq!(environment.unused, [("LISTEN_ADDR", "--listen")]);
        assert_eq!(environment.into_lines(), ["LOG_LEVEL=warn"]);
    }

    #[test]
    fn what_is_nearer_outweighs_what_is_farther() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# settings\n\nLOG_LEVEL=info\n  A=1 \nSECRET\nEMPTY=\nURL=a=b\n").unwrap();
        let mut environment = Environment::default();
        environment.inherit(&["LOG_LEVEL".into()], own).unwrap();
        environment.add_file(file.path(), own).unwrap();
        environment.add("A=2", own).unwrap();
        assert_eq!(environment.into_lines(), ["A=2", "EMPTY=", "LOG_LEVEL=info", "SECRET=s3cret", "URL=a=b"]);
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_without_its_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "A=1\nexport PASSWORD=s3cret\n").unwrap();
        let error = format!("{:#}", Environment::default().add_file(file.path(), own).unwrap_err());
        assert!(error.contains("line 2") && error.contains("NAME=VALUE") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn what_usher_decides_is_not_to_be_set() {
        for (name, flag) in OURS {
            let error = Environment::default().add(&format!("{name}=1"), own).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(flag), "{error}");
        }
        let error = Environment::default().add("ABSENT", own).unwrap_err().to_string();
        assert!(error.contains("ABSENT=VALUE"), "{error}");
    }
}
