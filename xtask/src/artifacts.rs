//! What the end-to-end tests drive.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths::Paths;
use crate::versions::Versions;
use crate::{aot, cargo, mariadb};

/// The service in each of its forms, what runs it, and the database it can use.
pub struct Artifacts {
    wasm: PathBuf,
    aot: PathBuf,
    wasmedge: PathBuf,
    native: PathBuf,
    mariadb: PathBuf,
}

impl Artifacts {
    /// The variables by which the tests know them.
    pub fn variables(&self) -> [(&'static str, &PathBuf); 5] {
        [
            ("USHER_WASM", &self.wasm),
            ("USHER_AOT", &self.aot),
            ("USHER_WASMEDGE", &self.wasmedge),
            ("USHER_NATIVE", &self.native),
            ("USHER_MARIADB", &self.mariadb),
        ]
    }
}

/// Makes them all, or finds them made.
pub fn prepare(paths: &Paths) -> Result<Artifacts> {
    mariadb::provide(paths, &Versions::pinned()?.mariadb)?;
    Ok(Artifacts {
        aot: aot::of(paths, None)?,
        wasm: paths.service_wasm(),
        wasmedge: paths.wasmedge_bin(),
        native: cargo::build(paths, &["--release", "--package", "service"])?,
        mariadb: paths.mariadb(),
    })
}
