//! The manifests in `k8s/`, checked without a cluster: rendered by kubectl, validated against the schemas of each
//! version of Kubernetes that is supported, and held against checkov's rules and rules of our own.

mod checkov;
mod manifests;
mod rules;
mod validator;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::kubectl;
use crate::paths::Paths;
use crate::process::capture;
use crate::versions::Versions;
use checkov::Checkov;
use manifests::Manifests;
use validator::Validator;

/// The oldest Kubernetes that the manifests are for: the first that sleeps before it stops a container without being
/// told to by a feature gate.
const OLDEST: &str = "1.30";

/// What people apply, below `k8s/overlays`.
const OVERLAYS: [&str; 3] = ["wasm", "host", "dev"];

/// Checks all manifests, or says why they cannot be checked on this machine.
pub fn test(paths: &Paths) -> Result<()> {
    match Tools::provide(paths) {
        Ok(tools) => tools.check_all(paths),
        Err(error) => {
            eprintln!("\nSKIP: the manifests were not checked: {error:#}\n");
            Ok(())
        }
    }
}

struct Tools {
    kubectl: PathBuf,
    validator: Validator,
    versions: Vec<String>,
    checkov: Checkov,
}

impl Tools {
    fn provide(paths: &Paths) -> Result<Self> {
        let pinned = Versions::pinned()?;
        let kubectl = kubectl::provide(paths, &pinned.kubectl)?;
        let validator = Validator::provide(paths, &pinned.deploy)?;
        let versions = validator.versions_from(OLDEST)?;
        let checkov = Checkov::provide(paths, &pinned.deploy)?;
        Ok(Self { kubectl, validator, versions, checkov })
    }

    fn check_all(&self, paths: &Paths) -> Result<()> {
        for overlay in OVERLAYS {
            let rendered = self.render(&paths.k8s().join("overlays").join(overlay))?;
            self.check(&format!("k8s/overlays/{overlay}"), &rendered)?;
        }
        let pod = paths.k8s().join("check-node.yaml");
        let pod = fs::read_to_string(&pod).with_context(|| format!("cannot read {}", pod.display()))?;
        self.check("k8s/check-node.yaml", &pod)?;
        self.check("k8s/components/scale-by-requests", &self.render_with(paths, "scale-by-requests")?)?;
        // The operator's kinds are none of Kubernetes' own, hence neither the validator's matter nor checkov's.
        let monitored = Manifests::parse(&self.render_with(paths, "service-monitor")?)?;
        refuse(&rules::broken(&monitored)).context("k8s/components/service-monitor")?;
        eprintln!("k8s/components/service-monitor: renders, and finds what it scrapes");
        Ok(())
    }

    fn check(&self, name: &str, text: &str) -> Result<()> {
        self.validate(text).with_context(|| name.to_owned())?;
        eprintln!("{name}: {}", self.passed());
        let counts = self.checkov.check(text).with_context(|| name.to_owned())?;
        eprintln!("{name}: {counts}");
        Ok(())
    }

    fn passed(&self) -> String {
        let ends = self.versions.first().zip(self.versions.last());
        let range = ends.map(|(oldest, newest)| format!("{oldest} to {newest}")).unwrap_or_default();
        format!("valid for Kubernetes {range}, and by our rules")
    }

    fn render(&self, folder: &Path) -> Result<String> {
        capture(Command::new(&self.kubectl).arg("kustomize").arg(folder))
    }

    /// Renders `host` with a component, as somebody's own overlay would have it.
    fn render_with(&self, paths: &Paths, component: &str) -> Result<String> {
        let folder = tempfile::tempdir_in(paths.tools()).context("cannot make a folder for an overlay")?;
        let overlay = format!("resources: [../../k8s/overlays/host]\ncomponents: [../../k8s/components/{component}]\n");
        fs::write(folder.path().join("kustomization.yaml"), overlay).context("cannot write an overlay")?;
        self.render(folder.path())
    }

    fn validate(&self, text: &str) -> Result<()> {
        let manifests = Manifests::parse(text)?;
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().context("cannot make a temporary file")?;
        fs::write(file.path(), text).context("cannot write the rendered manifests")?;
        for version in &self.versions {
            self.validator.validate(file.path(), version, manifests.len())?;
        }
        refuse(&rules::broken(&manifests))
    }
}

fn refuse(broken: &[String]) -> Result<()> {
    ensure!(broken.is_empty(), "rules are broken:\n{}", broken.join("\n"));
    Ok(())
}
