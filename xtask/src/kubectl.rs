//! kubectl at `.tools/kubectl`, which renders the manifests for the tests: a program of a Debian package, unpacked and
//! not installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::{self, PrivateApt};
use crate::paths::Paths;
use crate::unpacked::{self, rename};
use crate::versions::Release;
use crate::{files, progress, tools};

/// Where it lies in the package, and in the folder that is made.
const PROGRAM: &str = "bin/kubectl";

/// Puts kubectl into `.tools`, which is quick when it is there already, and gives its path.
pub fn provide(paths: &Paths, wanted: &Release) -> Result<PathBuf> {
    tools::provide(paths, &paths.kubectl(), ready, |staging, made| {
        if !apt::available() {
            bail!("kubectl comes from Debian's packages, and this is no Debian-like system");
        }
        eprintln!("unpacking Debian's package kubectl into .tools (nothing is installed on the system)");
        progress::during("fetching kubectl", "fetched", || {
            make(wanted, staging, made).context("kubectl could not be fetched")
        })
    })?;
    Ok(paths.kubectl().join(PROGRAM))
}

fn make(wanted: &Release, staging: &Path, made: &Path) -> Result<()> {
    let unpacked = PrivateApt::unpack_release_alone(wanted, staging)?;
    files::make_folder(&made.join("bin"))?;
    rename(&unpacked.join("usr").join(PROGRAM), &made.join(PROGRAM))
}

/// Whether a folder holds one that runs on this machine.
fn ready(folder: &Path) -> bool {
    unpacked::runs(&folder.join(PROGRAM), &["version", "--client"])
}
