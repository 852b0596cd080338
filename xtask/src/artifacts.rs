//! What the end-to-end tests drive.

use std::panic;
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::versions::Versions;
use crate::{aot, cargo, host, mariadb, module, mysql, wasmedge};

/// The service in each of its forms, what runs it, and the databases it can use.
pub struct Artifacts {
    wasm: PathBuf,
    aot: PathBuf,
    cache: PathBuf,
    usher: PathBuf,
    wasmedge: PathBuf,
    oldest_aot: PathBuf,
    oldest_wasmedge: PathBuf,
    native: PathBuf,
    mariadb: PathBuf,
    mysql: PathBuf,
}

impl Artifacts {
    /// The variables by which the tests know them.
    pub fn variables(&self) -> [(&'static str, &PathBuf); 10] {
        [
            ("USHER_WASM", &self.wasm),
            ("USHER_AOT", &self.aot),
            // Usher's own variable, by which each that a test starts finds the compiled form.
            ("USHER_CACHE", &self.cache),
            ("USHER_HOST", &self.usher),
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
    let (oldest_aot, usher, aot, native) = thread::scope(|scope| {
        let oldest_aot = scope.spawn(|| aot::for_oldest(paths, &wasm));
        let usher = host::build(paths)?;
        let compiler = usher.clone();
        let aot = scope.spawn(|| host::compiled(paths, &{ compiler }, &wasm));
        let native = cargo::build(paths, &["--release", "--package", "service"], "service")?;
        anyhow::Ok((joined(oldest_aot)?, usher, joined(aot)?, native))
    })?;
    Ok(Artifacts {
        wasm,
        cache: aot.parent().context("the compiled form lies in no folder")?.to_path_buf(),
        aot,
        usher,
        wasmedge: paths.wasmedge_bin(),
        oldest_aot,
        oldest_wasmedge: paths.oldest_wasmedge_bin(),
        native,
        mariadb: paths.mariadb(),
        mysql: paths.mysql(),
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
}
