//! The pinned tool versions, read from `versions.toml`.

use anyhow::{Context, Result};
use serde::Deserialize;

/// What `versions.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    pub wasmedge: WasmEdge,
    pub oldest_wasmedge: WasmEdge,
    pub rust: Rust,
    pub clang: Packages,
    pub tests: Packages,
    pub mariadb: Packages,
}

/// A WasmEdge to use, and the Debian suites that carry it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WasmEdge {
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

impl Versions {
    /// The versions this checkout pins.
    pub fn pinned() -> Result<Self> {
        toml::from_str(include_str!("../versions.toml")).context("xtask/versions.toml is not valid")
    }
}

impl WasmEdge {
    /// Whether `version` ("0.17.1") is a patch release of the pinned one.
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
        let wasmedge = WasmEdge { version: "0.17".into(), suites: vec![], packages: vec![] };
        for good in ["0.17", "0.17.1", "0.17.1-1+b1", "0.17.0-rc.1"] {
            assert!(wasmedge.accepts(good), "{good}");
        }
        for bad in ["0.14.1", "0.170.1", "0.18.0", "1.0.17", ""] {
            assert!(!wasmedge.accepts(bad), "{bad}");
        }
    }
}
