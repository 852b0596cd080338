//! The plugin: the TensorFlow Lite extension for a WasmEdge that has none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::{cargo, files, module, setup};

/// The package of a guest that calls the plugin.
const GUEST: &str = "plugin-guest";

/// The plugin's package, and what its library is called, as the official plugin's is.
const PACKAGE: &str = "plugin-tensorflow-lite";
const LIBRARY: &str = "libwasmedgePluginWasmEdgeTensorflowLite.so";

/// Builds the plugin, puts it where WasmEdge looks for plugins unless another is there, and returns its path.
pub fn build(paths: &Paths) -> Result<PathBuf> {
    setup::setup(paths)?;
    let built = cargo::build(paths, &["--release", "--package", PACKAGE], LIBRARY)?;
    if let Place::Taken(by) = place(&paths.plugins()) {
        eprintln!(
            "{} is left as it is: {by}; WASMEDGE_PLUGIN_PATH={} takes ours",
            paths.plugins().display(),
            built.display()
        );
    } else {
        install(&built, &paths.plugins().join(LIBRARY))?;
    }
    Ok(built)
}

/// Builds the guest by which the tests try it out.
pub fn guest(paths: &Paths, target: &str) -> Result<PathBuf> {
    cargo::build(paths, &["--release", "--package", GUEST, "--target", target], GUEST)
}

/// Whose the folder is where WasmEdge looks for plugins.
#[derive(Debug, PartialEq)]
enum Place {
    Ours,
    /// Something else is there, namely that.
    Taken(&'static str),
}

fn place(plugins: &Path) -> Place {
    // A folder of links has one of its own, see `links`.
    if plugins.is_symlink() {
        return Place::Taken("it is that of an installed WasmEdge");
    }
    Place::Ours
}

/// Puts a file in place, if it is not there already: a process may be about to load it.
fn install(built: &Path, place: &Path) -> Result<()> {
    let content = module::read(built)?;
    if fs::read(place).ok().as_ref() == Some(&content) {
        return Ok(());
    }
    files::make_folder(place.parent().context("a plugin lies in a folder")?)?;
    files::write_atomically(place, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_installed_wasmedges_folder_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (own, installed) = (root.path().join("plugin"), root.path().join("installed"));
        assert_eq!(place(&own), Place::Ours);
        files::make_folder(&own).unwrap();
        assert_eq!(place(&own), Place::Ours);
        symlink(&own, &installed).unwrap();
        assert!(matches!(place(&installed), Place::Taken(_)));
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let (built, place) = (root.path().join("built"), root.path().join("plugin/made"));
        fs::write(&built, "new").unwrap();
        install(&built, &place).unwrap();
        let first = fs::metadata(&place).unwrap().modified().unwrap();
        install(&built, &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::metadata(&place).unwrap().modified().unwrap(), first);
    }
}
