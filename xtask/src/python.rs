//! Virtual environments of Python in `.tools`, for which nothing but Python itself is installed on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::process::{all_on_path, capture};
use crate::versions::Packages;
use crate::{progress, system, tools};

/// What to install where there is no apt.
const ELSEWHERE: &str = "Python 3.11 or later with its modules venv and ensurepip";

/// Ends well in a Python that can make a virtual environment with pip, and is no older than the packages need.
const CHECK: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";

/// What an environment was made of is kept in it under this name.
const STAMP: &str = "requirements.txt";

/// An environment, by what is in it.
#[derive(Debug)]
pub struct Environment<'a> {
    /// Where it is.
    pub folder: PathBuf,
    /// The versions and hashes of all that is in it, as pip reads them.
    pub requirements: &'a str,
    /// A module that can be imported when all is there.
    pub module: &'a str,
    /// What it is called in messages.
    pub name: &'a str,
}

impl Environment<'_> {
    /// Puts it into `.tools`; quick when it is there already.
    pub fn provide(&self, paths: &Paths, packages: &Packages) -> Result<()> {
        tools::provide(
            paths,
            &self.folder,
            |folder| self.is_ready(folder),
            |staging, made| {
                let python = interpreter(&packages.packages)?;
                eprintln!("fetching {} into .tools (nothing is installed on the system)", self.name);
                progress::during(&format!("fetching {}", self.name), "fetched", || {
                    self.make(&python, staging, made).with_context(|| format!("{} could not be fetched", self.name))
                })
            },
        )
    }

    fn make(&self, python: &Path, staging: &Path, made: &Path) -> Result<()> {
        let requirements = staging.join(STAMP);
        fs::write(&requirements, self.requirements).context("cannot write what pip is to fetch")?;
        capture(Command::new(python).args(["-m", "venv"]).arg(made))?;
        // Wheels only: a source package would run code of its own, and need a compiler.
        let options = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
        let mut install = Command::new(made.join("bin/python"));
        install.args(options).args(["--only-binary=:all:", "--require-hashes", "--requirement"]).arg(&requirements);
        capture(&mut install)?;
        fs::copy(&requirements, made.join(STAMP)).context("cannot note what was installed")?;
        Ok(())
    }

    /// Whether a folder holds this environment, and its Python is still the one that it was made with.
    fn is_ready(&self, folder: &Path) -> bool {
        fs::read_to_string(folder.join(STAMP)).is_ok_and(|made_of| made_of == self.requirements)
            && capture(Command::new(folder.join("bin/python")).args(["-c", &format!("import {}", self.module)])).is_ok()
    }
}

/// Puts the clients that tests drive the service with into `.tools`.
pub fn provide_clients(paths: &Paths, packages: &Packages) -> Result<()> {
    let wanted = paths.requirements();
    let requirements = fs::read_to_string(&wanted).with_context(|| format!("{} cannot be read", wanted.display()))?;
    let (folder, name) = (paths.python(), "the Python clients that tests use");
    Environment { folder, requirements: &requirements, module: "tritonclient", name }.provide(paths, packages)
}

/// The machine's Python, which is installed if there is none that will do.
fn interpreter(packages: &[String]) -> Result<PathBuf> {
    if let Some(python) = find() {
        return Ok(python);
    }
    system::provide("Python with venv, which the tests use,", packages, ELSEWHERE)?;
    let Some(python) = find() else {
        bail!("the Python of {} will not do: the tests need {ELSEWHERE}", packages.join(" and "));
    };
    Ok(python)
}

fn find() -> Option<PathBuf> {
    all_on_path("python3").into_iter().find(|python| capture(Command::new(python).args(["-c", CHECK])).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::unpacked::write_script;

    #[test]
    fn an_environment_of_other_requirements_or_without_its_python_is_not_ready() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let ready = |requirements| {
            Environment { folder: folder.to_owned(), requirements, module: "numpy", name: "" }.is_ready(folder)
        };
        files::make_folder(&folder.join("bin")).unwrap();
        fs::write(folder.join(STAMP), "numpy==2\n").unwrap();
        assert!(!ready("numpy==2\n"), "no Python");
        write_script(&folder.join("bin/python"), "#!/bin/sh\n").unwrap();
        assert!(ready("numpy==2\n"));
        assert!(!ready("numpy==3\n"));
        write_script(&folder.join("bin/python"), "#!/bin/sh\nexit 1\n").unwrap();
        assert!(!ready("numpy==2\n"));
    }
}
