//! The pinned tool versions, read from `versions.toml`.

use anyhow::{Context, Result};
use serde::Deserialize;

/// What `versions.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    pub wasmedge: Release,
    pub oldest_wasmedge: Release,
    pub rust: Rust,
    pub clang: Packages,
    pub tensorflow_lite: Wheel,
    pub binaryen: Packages,
    pub tests: Packages,
    pub bench: Packages,
    pub mariadb: Packages,
    pub promtool: Packages,
    pub python: Packages,
    pub mysql: Release,
    pub kubectl: Release,
    pub deploy: Packages,
    pub image: Packages,
    pub node: Node,
}

/// What a node for tests is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Container engines and all that they need.
    pub engines: Release,
    /// What is in the image that ours stand on.
    pub base: Release,
}

/// A version of something, and the Debian suites that may carry it. The first package has its version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub version: String,
    pub suites: Vec<String>,
    pub packages: Vec<String>,
}

/// What the Rust toolchain needs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rust {
    pub target: String,
}

/// Debian packages of the machine's own release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    pub packages: Vec<String>,
}

/// A file in a package of PyPI.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    pub name: String,
    pub version: String,
    /// Of the package, for each kind of machine.
    pub sha256: Vec<String>,
    pub file: String,
    /// Debian packages of the machine's own release, with which it is fetched.
    pub packages: Vec<String>,
}

impl Versions {
    /// The versions this checkout pins.
    pub fn pinned() -> Result<Self> {
        toml::from_str(include_str!("../versions.toml")).context("xtask/versions.toml is not valid")
    }
}

impl Release {
    /// Whether `version` ("0.17.1") is the pinned one ("0.17") or a release of it.
    pub fn accepts(&self, version: &str) -> bool {
        match version.strip_prefix(&self.version) {
            Some(rest) => !rest.starts_with(|c: char| c.is_ascii_digit()),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_valid() {
        Versions::pinned().unwrap();
    }

    #[test]
    fn any_patch_release_and_nothing_else_is_accepted() {
        let wasmedge = Release { version: "0.17".into(), suites: vec![], packages: vec![] };
        for good in ["0.17", "0.17.1", "0.17.1-1+b1", "0.17.0-rc.1"] {
            assert!(wasmedge.accepts(good), "{good}");
        }
        for bad in ["0.14.1", "0.170.1", "0.18.0", "1.0.17", ""] {
            assert!(!wasmedge.accepts(bad), "{bad}");
        }
    }
}
