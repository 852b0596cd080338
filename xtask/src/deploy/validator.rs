//! kubernetes-validate at `.tools/kubernetes-validate`: a virtual environment of Python, for which nothing but Python
//! itself is installed on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths::Paths;
use crate::process::{all_on_path, capture};
use crate::versions::Packages;
use crate::{progress, system, tools};

/// The versions and hashes of all that is in the environment.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// What an environment was made of is kept in it under this name.
const STAMP: &str = "requirements.txt";

/// What to install where there is no apt.
const ELSEWHERE: &str = "Python 3.11 or later with its modules venv and ensurepip";

/// Ends well in a Python that can make a virtual environment with pip, and is no older than the validator needs.
const CHECK: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";

/// Prints a line for each version of Kubernetes, the oldest first, as "1.30".
const LIST: &str = "from kubernetes_validate import utils\n\
                    for version in utils.all_versions(): print(utils.major_minor(version))";

/// The validator.
pub struct Validator {
    folder: PathBuf,
}

impl Validator {
    /// The one in `.tools`, which is put there if it is missing.
    pub fn provide(paths: &Paths, packages: &Packages) -> Result<Self> {
        tools::provide(paths, &paths.kubernetes_validate(), ready, |staging, made| {
            let python = interpreter(packages)?;
            eprintln!(
                "fetching the Python package kubernetes-validate into .tools (nothing is installed on the system)"
            );
            progress::during("fetching kubernetes-validate", "fetched", || {
                make(&python, staging, made).context("kubernetes-validate could not be fetched")
            })
        })?;
        Ok(Self { folder: paths.kubernetes_validate() })
    }

    /// The versions of Kubernetes that it knows, from `oldest` on.
    pub fn versions_from(&self, oldest: &str) -> Result<Vec<String>> {
        let listed = capture(Command::new(self.folder.join("bin/python")).args(["-c", LIST]))?;
        let mut versions: Vec<String> =
            listed.lines().skip_while(|version| *version != oldest).map(ToOwned::to_owned).collect();
        // There are schemas of two kinds for each.
        versions.dedup();
        ensure!(!versions.is_empty(), "kubernetes-validate does not know Kubernetes {oldest}");
        Ok(versions)
    }

    /// Fails unless all manifests in a file, of which there are `count`, are valid for a version of Kubernetes.
    pub fn validate(&self, manifests: &Path, version: &str, count: usize) -> Result<()> {
        // Not its script, which names the folder that the environment was made in.
        let mut validate = Command::new(self.folder.join("bin/python"));
        validate.args(["-m", "kubernetes_validate", "--strict", "--kubernetes-version", version]).arg(manifests);
        let said = capture(&mut validate).with_context(|| format!("not valid for Kubernetes {version}"))?;
        let passed = said.lines().filter(|line| line.starts_with("INFO ") && line.contains(" passed ")).count();
        // A kind that it does not know is no error to it.
        ensure!(passed == count, "{passed} of {count} were validated for Kubernetes {version}:\n{said}");
        Ok(())
    }
}

/// The machine's Python, which is installed if there is none that will do.
fn interpreter(packages: &Packages) -> Result<PathBuf> {
    if let Some(python) = find() {
        return Ok(python);
    }
    system::provide("Python with venv, in which manifests are validated,", &packages.packages, ELSEWHERE)?;
    find()
        .with_context(|| format!("the Python of {} will not do: install {ELSEWHERE}", packages.packages.join(" and ")))
}

fn find() -> Option<PathBuf> {
    all_on_path("python3").into_iter().find(|python| capture(Command::new(python).args(["-c", CHECK])).is_ok())
}

fn make(python: &Path, staging: &Path, made: &Path) -> Result<()> {
    let requirements = staging.join(STAMP);
    fs::write(&requirements, REQUIREMENTS).context("cannot write what pip is to fetch")?;
    capture(Command::new(python).args(["-m", "venv"]).arg(made))?;
    // Wheels only: a source package would run code of its own, and need a compiler.
    let options = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    let mut install = Command::new(made.join("bin/python"));
    install.args(options).args(["--only-binary=:all:", "--require-hashes", "--requirement"]).arg(&requirements);
    capture(&mut install)?;
    fs::copy(&requirements, made.join(STAMP)).context("cannot note what was installed")?;
    Ok(())
}

/// Whether a folder holds an environment of these requirements whose Python is still the one that it was made with.
fn ready(folder: &Path) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|made_of| made_of == REQUIREMENTS)
        && capture(Command::new(folder.join("bin/python")).args(["-c", "import kubernetes_validate"])).is_ok()
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
        files::make_folder(&folder.join("bin")).unwrap();
        fs::write(folder.join(STAMP), REQUIREMENTS).unwrap();
        assert!(!ready(folder), "no Python");
        write_script(&folder.join("bin/python"), "#!/bin/sh\n").unwrap();
        assert!(ready(folder));
        fs::write(folder.join(STAMP), "kubernetes-validate==1\n").unwrap();
        assert!(!ready(folder), "other requirements");
    }

    #[test]
    fn versions_begin_with_the_oldest_that_is_supported() {
        let root = tempfile::tempdir().unwrap();
        files::make_folder(&root.path().join("bin")).unwrap();
        write_script(&root.path().join("bin/python"), "#!/bin/sh\nprintf '1.29\\n1.30\\n1.30\\n1.31\\n'\n").unwrap();
        let validator = Validator { folder: root.path().to_path_buf() };
        assert_eq!(validator.versions_from("1.30").unwrap(), ["1.30", "1.31"]);
        assert!(validator.versions_from("1.3").is_err());
    }

    #[test]
    fn what_was_not_validated_does_not_pass() {
        let root = tempfile::tempdir().unwrap();
        files::make_folder(&root.path().join("bin")).unwrap();
        let validator = Validator { folder: root.path().to_path_buf() };
        let program = root.path().join("bin/python");
        write_script(&program, "#!/bin/sh\necho 'INFO x passed for resource a'\necho 'WARN x no schema'\n").unwrap();
        validator.validate(Path::new("x"), "1.30", 1).unwrap();
        assert!(validator.validate(Path::new("x"), "1.30", 2).unwrap_err().to_string().contains("1 of 2"));
        write_script(&program, "#!/bin/sh\nexit 1\n").unwrap();
        assert!(validator.validate(Path::new("x"), "1.30", 0).is_err());
    }
}
