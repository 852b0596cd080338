//! WasmEdge at `.tools/wasmedge`: one that is installed already, or a bundle made of Debian
//! packages.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::bundle;
use crate::paths::Paths;
use crate::process::{all_on_path, capture};
use crate::progress;
use crate::versions::Release;
use crate::{apt, links, tools};

/// Whether `.tools/wasmedge` holds the pinned version, and the one asked for by `WASMEDGE_DIR`.
pub fn ready(paths: &Paths, wanted: &Release) -> bool {
    let right_version = version_of(&paths.wasmedge_bin()).is_ok_and(|v| wanted.accepts(&v));
    right_version
        && paths.wasmedge().join("lib/libwasmedge.so").exists()
        && explicit_folder(paths).is_none_or(|folder| links::lead_to(&paths.wasmedge(), &folder))
}

/// The version that a `wasmedge` says it has ("0.17.1").
pub fn version_of(program: &Path) -> Result<String> {
    let output = capture(Command::new(program).arg("--version"))?;
    version_in(&output).with_context(|| format!("{} told no version", program.display()))
}

/// Puts WasmEdge at `.tools/wasmedge`. Only under set-up's lock.
pub fn install(paths: &Paths, wanted: &Release) -> Result<()> {
    tools::put(paths, &paths.wasmedge(), |staging, made| {
        if let Some(prefix) = installed(paths, wanted)? {
            links::make(&prefix, made)?;
            eprintln!("using the WasmEdge in {}", prefix.display());
        } else {
            fetch(wanted, staging, made)?;
        }
        check(wanted, made)
    })
}

/// Puts the oldest WasmEdge that the module has to run on into `.tools`, for tests; quick when it is
/// there already. An installed one is not asked for: the tests are about Debian's.
pub fn provide_oldest(paths: &Paths, wanted: &Release) -> Result<()> {
    let ready = |folder: &Path| version_of(&folder.join("bin/wasmedge")).is_ok_and(|v| wanted.accepts(&v));
    tools::provide(paths, &paths.oldest_wasmedge(), ready, |staging, made| {
        let version = &wanted.version;
        ensure!(apt::available(), "the tests run WasmEdge {version} from Debian, and this is no Debian-like system");
        eprintln!("unpacking Debian's WasmEdge {version} into .tools (nothing is installed on the system)");
        progress::during("fetching it", "fetched", || {
            bundle::make(wanted, staging, made)
                .with_context(|| format!("WasmEdge {version}, which the tests use, could not be fetched"))
        })?;
        check(wanted, made)
    })
}

/// Fails if what was made is not what was wanted.
fn check(wanted: &Release, made: &Path) -> Result<()> {
    let version = version_of(&made.join("bin/wasmedge")).context("the new WasmEdge does not run on this machine")?;
    ensure!(wanted.accepts(&version), "the new WasmEdge is {version} instead of {}", wanted.version);
    Ok(())
}

/// The folder of an installed WasmEdge that can be used.
fn installed(paths: &Paths, wanted: &Release) -> Result<Option<PathBuf>> {
    if let Some(folder) = explicit_folder(paths) {
        return match problem_with(&folder, wanted) {
            None => Ok(Some(folder)),
            Some(problem) => bail!(
                "WASMEDGE_DIR={}: {problem}. {}, or unset WASMEDGE_DIR",
                folder.display(),
                what_to_install(wanted)
            ),
        };
    }
    for folder in usual_folders(paths) {
        match problem_with(&folder, wanted) {
            None => return Ok(Some(folder)),
            Some(problem) => eprintln!("skipping the WasmEdge in {}: {problem}", folder.display()),
        }
    }
    Ok(None)
}

/// The folder that `WASMEDGE_DIR` asks for. Crates want it set to ours, which asks for nothing.
fn explicit_folder(paths: &Paths) -> Option<PathBuf> {
    let folder = env::var_os("WASMEDGE_DIR").filter(|value| !value.is_empty())?;
    let folder = real(PathBuf::from(folder));
    (!folder.starts_with(real(paths.tools()))).then_some(folder)
}

fn real(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

/// Where people have WasmEdge: the official installer's folder, then PATH.
fn usual_folders(paths: &Paths) -> Vec<PathBuf> {
    let ours = real(paths.tools());
    let by_installer = env::home_dir().map(|home| home.join(".wasmedge/bin/wasmedge"));
    let mut folders: Vec<PathBuf> = Vec::new();
    let programs = by_installer.into_iter().chain(all_on_path("wasmedge"));
    for program in programs.filter_map(|program| program.canonicalize().ok()) {
        let folder = program.parent().and_then(Path::parent).map(Path::to_path_buf);
        let Some(folder) = folder else { continue };
        // Ours may be on PATH, and a link to itself would be no WasmEdge.
        if !folder.starts_with(&ours) && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Why the WasmEdge in a folder cannot be used.
fn problem_with(folder: &Path, wanted: &Release) -> Option<String> {
    let version = match version_of(&folder.join("bin/wasmedge")) {
        Ok(version) => version,
        Err(error) => return Some(format!("bin/wasmedge does not run ({error:#})")),
    };
    if !wanted.accepts(&version) {
        return Some(format!("it is version {version}, and {} is needed", wanted.version));
    }
    links::missing_in(folder).map(|missing| format!("it has no {missing}"))
}

fn what_to_install(wanted: &Release) -> String {
    format!(
        "Install WasmEdge {0}.x with its headers (the official installer's `--version {0}.1` puts \
         it into ~/.wasmedge) and set WASMEDGE_DIR to its folder",
        wanted.version
    )
}

fn fetch(wanted: &Release, staging: &Path, made: &Path) -> Result<()> {
    if !apt::available() {
        bail!(
            "no WasmEdge {} on this machine, and this is no Debian-like system to fetch it from. {}",
            wanted.version,
            what_to_install(wanted)
        );
    }
    eprintln!(
        "no WasmEdge {} on this machine: unpacking Debian's packages into .tools/wasmedge \
         (nothing is installed on the system)",
        wanted.version
    );
    progress::during("fetching WasmEdge", "fetched", || {
        bundle::make(wanted, staging, made).map_err(|error| {
            let fix = what_to_install(wanted);
            anyhow!("WasmEdge could not be fetched: {error:#}\n{fix}")
        })
    })
}

fn version_in(output: &str) -> Option<String> {
    let (_, rest) = output.split_once(" version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_whatever_the_program_is_called() {
        let output = "/usr/bin/wasmedge version 0.17.1\n (plugin \"wasi_logging\") version 0.1.0.0\n";
        assert_eq!(version_in(output).unwrap(), "0.17.1");
        assert_eq!(version_in("wasmedge version 0.14.1\n").unwrap(), "0.14.1");
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn the_message_names_the_version_and_the_variable() {
        let wanted = Release { version: "0.17".into(), suites: vec![], packages: vec![] };
        let message = what_to_install(&wanted);
        assert!(message.contains("WasmEdge 0.17.x") && message.contains("WASMEDGE_DIR"));
    }
}
