//! kubernetes-validate at `.tools/kubernetes-validate`: a virtual environment of Python, for which nothing but Python
//! itself is installed on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths::Paths;
use crate::process::capture;
use crate::python::Environment;
use crate::versions::Packages;

/// The versions and hashes of all that is in the environment.
const REQUIREMENTS: &str = include_str!("validator/requirements.txt");

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
        let folder = paths.kubernetes_validate();
        let (module, name) = ("kubernetes_validate", "the validator of manifests");
        Environment { folder: folder.clone(), requirements: REQUIREMENTS, module, name }.provide(paths, packages)?;
        Ok(Self { folder })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::unpacked::write_script;

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
