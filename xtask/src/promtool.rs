//! promtool at `.tools/promtool`, which tells the tests what Prometheus thinks of our metrics, and Prometheus itself:
//! programs of a Debian package, unpacked and not installed.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::apt::{self, PrivateApt};
use crate::paths::Paths;
use crate::unpacked::{self, rename};
use crate::versions::Packages;
use crate::{files, progress, tools};

/// Where they lie in the package, and in the folder that is made.
const PROGRAMS: [&str; 2] = ["bin/promtool", "bin/prometheus"];

/// Puts promtool into `.tools`; quick when it is there already.
pub fn provide(paths: &Paths, wanted: &Packages) -> Result<()> {
    tools::provide(paths, &paths.promtool(), ready, |staging, made| {
        let packages = wanted.packages.join(" and ");
        if !apt::available() {
            bail!("the tests use promtool of Debian's {packages}, and this is no Debian-like system");
        }
        eprintln!("unpacking Debian's package {packages} into .tools (nothing is installed on the system)");
        progress::during("fetching promtool", "fetched", || {
            make(wanted, staging, made).context("promtool, which the tests use, could not be fetched")
        })
    })
}

fn make(wanted: &Packages, staging: &Path, made: &Path) -> Result<()> {
    let unpacked = staging.join("unpacked");
    files::make_folder(&unpacked)?;
    let apt = PrivateApt::new(staging.join("apt"))?;
    apt.use_own_suite()?;
    apt.unpack_alone(&wanted.packages, &unpacked)?;
    files::make_folder(&made.join("bin"))?;
    PROGRAMS.iter().try_for_each(|program| rename(&unpacked.join("usr").join(program), &made.join(program)))
}

/// Whether a folder holds some that run on this machine.
fn ready(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| unpacked::runs(&folder.join(program), &["--version"]))
}
