//! What the end-to-end tests drive.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths::Paths;
use crate::{aot, cargo};

/// The service in each of its forms, and what runs it.
pub struct Artifacts {
    wasm: PathBuf,
    aot: PathBuf,
    wasmedge: PathBuf,
    native: PathBuf,
}

impl Artifacts {
    /// The variables by which the tests know them.
    pub fn variables(&self) -> [(&'static str, &PathBuf); 4] {
        [
            ("USHER_WASM", &self.wasm),
            ("USHER_AOT", &self.aot),
            ("USHER_WASMEDGE", &self.wasmedge),
            ("USHER_NATIVE", &self.native),
        ]
    }
}

/// Makes them all, or finds them made.
pub fn prepare(paths: &Paths) -> Result<Artifacts> {
    Ok(Artifacts {
        aot: aot::of(paths, None)?,
        wasm: paths.service_wasm(),
        wasmedge: paths.wasmedge_bin(),
        native: cargo::build(paths, &["--release", "--package", "service"])?,
    })
}
