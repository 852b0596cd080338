//! What the end-to-end tests drive.

use std::panic;
use std::path::PathBuf;
use std::thread;

use anyhow::Result;

use crate::aot::Compiler;
use crate::paths::Paths;
use crate::versions::Versions;
use crate::{cargo, mariadb, module, mysql, wasmedge};

/// The service in each of its forms, what runs it, and the databases it can use.
pub struct Artifacts {
    wasm: PathBuf,
    aot: PathBuf,
    wasmedge: PathBuf,
    oldest_aot: PathBuf,
    oldest_wasmedge: PathBuf,
    native: PathBuf,
    mariadb: PathBuf,
    mysql: PathBuf,
}

impl Artifacts {
    /// The variables by which the tests know them.
    pub fn variables(&self) -> [(&'static str, &PathBuf); 8] {
        [
            ("USHER_WASM", &self.wasm),
            ("USHER_AOT", &self.aot),
            ("USHER_WASMEDGE", &self.wasmedge),
            ("USHER_OLDEST_AOT", &self.oldest_aot),
            ("USHER_OLDEST_WASMEDGE", &self.oldest_wasmedge),
            ("USHER_NATIVE", &self.native),
            ("USHER_MARIADB", &self.mariadb),
            ("USHER_MYSQL", &self.mysql),
        ]
    }
}

/// Makes them all, or finds them made.
pub fn prepare(paths: &Paths) -> Result<Artifacts> {
    let versions = Versions::pinned()?;
    mariadb::provide(paths, &versions.mariadb)?;
    mysql::provide(paths, &versions.mysql)?;
    wasmedge::provide_oldest(paths, &versions.oldest_wasmedge)?;
    let wasm = module::build(paths)?;
    // A compiler uses one processor for a minute, and cargo can do with the others.
    let (aot, oldest_aot, native) = thread::scope(|scope| {
        let aot = scope.spawn(|| Compiler::new(paths).compiled(&wasm));
        let oldest_aot = scope.spawn(|| Compiler::oldest(paths).compiled(&wasm));
        let native = cargo::build(paths, &["--release", "--package", "service"]);
        let joined = |result: thread::Result<_>| result.unwrap_or_else(|cause| panic::resume_unwind(cause));
        (joined(aot.join()), joined(oldest_aot.join()), native)
    });
    Ok(Artifacts {
        wasm,
        aot: aot?,
        wasmedge: paths.wasmedge_bin(),
        oldest_aot: oldest_aot?,
        oldest_wasmedge: paths.oldest_wasmedge_bin(),
        native: native?,
        mariadb: paths.mariadb(),
        mysql: paths.mysql(),
    })
}
