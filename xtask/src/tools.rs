//! Folders in `.tools` that are made once: whole or absent, by one process at a time.

use std::path::Path;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::{files, setup};

/// Puts a folder at `place` unless one that is `ready` is there, which is quick to tell. `make` is
/// given a folder for what it needs meanwhile, and the place of the folder that it makes.
pub fn provide(
    paths: &Paths,
    place: &Path,
    ready: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<()> {
    if ready(place) {
        return Ok(());
    }
    let _held = setup::lock(paths)?;
    if ready(place) {
        return Ok(());
    }
    put(paths, place, make)
}

/// Puts a folder at `place`, made as for [`provide`]. Only under set-up's lock.
pub fn put(paths: &Paths, place: &Path, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    files::remove_leftovers(&paths.tools())?;
    let staging = files::staging()
        .tempdir_in(paths.tools())
        .with_context(|| format!("cannot write into {}", paths.tools().display()))?;
    let made = staging.path().join("made");
    make(staging.path(), &made)?;
    files::put_in_place(&made, place, staging.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_is_made_once_and_one_that_failed_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::at(root.path());
        let place = paths.tools().join("tool");
        let ready = |folder: &Path| folder.join("done").exists();
        let failed = provide(&paths, &place, ready, |_, made| {
            files::make_folder(made)?;
            anyhow::bail!("no network")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert_eq!(files::entries(&paths.tools()).unwrap().len(), 1, "the lock");

        for made_now in [true, false] {
            let mut ran = false;
            provide(&paths, &place, ready, |staging, made| {
                ran = true;
                assert!(staging.is_dir() && !made.exists());
                files::make_folder(made)?;
                Ok(fs::write(made.join("done"), "")?)
            })
            .unwrap();
            assert_eq!(ran, made_now);
        }
    }
}
