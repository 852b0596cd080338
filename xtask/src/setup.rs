//! Everything the other commands need on this machine, in order, once.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::process::{capture, find_on_path};
use crate::versions::Versions;
use crate::{clang, files, progress, standin, system, tensorflow_lite, wasmedge};

/// Brings the machine to where it can build and run the service; quick when it is there already.
pub fn setup(paths: &Paths) -> Result<()> {
    let versions = Versions::pinned()?;
    if complete(paths, &versions)? {
        return Ok(());
    }
    let _held = lock(paths)?;
    if !has_target(&versions.rust.target)? {
        add_target(&versions.rust.target)?;
    }
    if !clang::present()? {
        system::provide("clang or libclang", &versions.clang.packages, clang::ELSEWHERE)?;
    }
    if !wasmedge::ready(paths, &versions.wasmedge) {
        wasmedge::install(paths, &versions.wasmedge)?;
    }
    if !standin::ready(paths) {
        standin::make(paths)?;
    }
    if !tensorflow_lite::ready(paths, &versions.tensorflow_lite) {
        tensorflow_lite::install(paths, &versions.tensorflow_lite)?;
    }
    Ok(())
}

/// Takes set-up's lock, under which `.tools` is changed. Whoever comes second finds all done and has
/// nothing left to do.
pub fn lock(paths: &Paths) -> Result<File> {
    files::make_folder(&paths.tools())?;
    files::lock(&paths.tools().join("lock"), || eprintln!("another set-up is running, waiting …"))
}

fn complete(paths: &Paths, versions: &Versions) -> Result<bool> {
    Ok(has_target(&versions.rust.target)?
        && clang::present()?
        && wasmedge::ready(paths, &versions.wasmedge)
        && standin::ready(paths)
        && tensorflow_lite::ready(paths, &versions.tensorflow_lite))
}

fn has_target(target: &str) -> Result<bool> {
    let sysroot =
        capture(Command::new("rustc").args(["--print", "sysroot"])).context("rustc does not run: install Rust")?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
    Ok(libraries.join("lib").is_dir())
}

fn add_target(target: &str) -> Result<()> {
    if find_on_path("rustup").is_none() {
        bail!(
            "the Rust target {target} is missing and there is no rustup to add it: install your \
             distribution's package for it (Debian: libstd-rust-dev-wasm32), or Rust by rustup"
        );
    }
    progress::during(&format!("adding the Rust target {target}"), "added", || {
        capture(Command::new("rustup").args(["target", "add", target]))
            .with_context(|| format!("`rustup target add {target}` has to work by hand first"))?;
        if !has_target(target)? {
            bail!("rustup takes {target} for installed, but its libraries are gone: reinstall the toolchain");
        }
        Ok(())
    })
}
