//! What the database servers in `.tools` have in common. They are for tests: unpacked and not installed,
//! with programs in `bin` and, in `seed`, a new data folder for tests to copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::process::capture;
use crate::{apt, progress, tools};

/// A server and where it belongs.
pub struct Server<'a> {
    /// As people call it.
    pub name: &'static str,
    /// What it is made of.
    pub packages: &'a [String],
    /// Its folder.
    pub place: PathBuf,
    /// Its own program in `bin`.
    pub program: &'static str,
}

/// Puts a server into `.tools`; quick when it is there already. `make` is as for [`tools::provide`].
pub fn provide(paths: &Paths, server: &Server, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    let Server { name, packages, place, program } = server;
    tools::provide(
        paths,
        place,
        |folder| ready(folder, program),
        |staging, made| {
            let packages = packages.join(" and ");
            if !apt::available() {
                bail!("the tests start {name} from Debian's packages {packages}, and this is no Debian-like system");
            }
            eprintln!("unpacking Debian's packages {packages} into .tools (nothing is installed on the system)");
            progress::during(&format!("fetching {name}"), "fetched", || {
                make(staging, made).with_context(|| format!("{name}, which the tests use, could not be fetched"))
            })
        },
    )
}

/// Whether a folder holds a server that runs on this machine, and its data folder.
fn ready(folder: &Path, program: &str) -> bool {
    // The seed is made last.
    folder.join("seed/mysql").is_dir()
        && capture(Command::new(folder.join("bin").join(program)).args(["--no-defaults", "--version"])).is_ok()
}

/// The option that names a folder or file below `made`.
pub fn option(name: &str, made: &Path, path: &str) -> String {
    format!("--{name}={}", made.join(path).display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::unpacked::write_script;

    #[test]
    fn what_has_no_data_folder_is_not_ready() {
        let root = tempfile::tempdir().unwrap();
        files::make_folder(&root.path().join("bin")).unwrap();
        write_script(&root.path().join("bin/serverd"), "#!/bin/sh\n").unwrap();
        assert!(!ready(root.path(), "serverd"));
        files::make_folder(&root.path().join("seed/mysql")).unwrap();
        assert!(ready(root.path(), "serverd"));
        assert!(!ready(root.path(), "otherd"));
    }
}
