//! Files that are whole or absent, and locks between processes.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// The start of every temporary name, so that leftovers of a killed run can be recognised.
const STAGING_PREFIX: &str = ".usher-staging-";

/// Writes a file so that a reader sees the old content or the new, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file lies in no folder")?;
    let mut file = staging()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    file.write_all(content).with_context(|| format!("cannot write {} (is the disk full?)", path.display()))?;
    file.persist(path).with_context(|| format!("cannot put {} in place", path.display()))?;
    Ok(())
}

/// A builder for temporary files and folders that [`remove_leftovers`] knows.
pub fn staging<'a>() -> tempfile::Builder<'a, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(STAGING_PREFIX);
    builder
}

/// Removes what interrupted runs left in `folder`. Only under the folder's lock.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in entries(folder)? {
        if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, a link or a folder with all in it; absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// Puts the folder `made` at `place`; what was there goes into the folder `staging`, and with it.
pub fn put_in_place(made: &Path, place: &Path, staging: &Path) -> Result<()> {
    if fs::symlink_metadata(place).is_ok() {
        put(place, &staging.join("old"))?;
    }
    put(made, place)
}

fn put(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// Makes a folder and its parents.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// The entries of a folder; a missing folder has none.
pub fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder).and_then(Iterator::collect).with_context(|| format!("cannot list {}", folder.display()))
}

/// Takes the lock file at `path`, calling `waiting` when another process has it.
///
/// The kernel gives the lock back when the returned file is dropped, or with the process.
pub fn lock(path: &Path, waiting: impl FnOnce()) -> Result<File> {
    let context = || format!("cannot lock {}", path.display());
    // Not truncated: in a folder that somebody chose, the file may be somebody else's.
    let file = File::options().write(true).create(true).truncate(false).open(path).with_context(context)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            waiting();
            file.lock().with_context(context)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_everything_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        write_atomically(&kept, b"whole").unwrap();
        let _ = staging().tempdir_in(&folder).unwrap().keep();
        staging().tempfile_in(&folder).unwrap().keep().unwrap();

        remove_leftovers(folder.path()).unwrap();

        let left = entries(folder.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(fs::read(kept).unwrap(), b"whole");
    }

    #[test]
    fn a_new_folder_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("place");
        for content in ["first", "second"] {
            let staging = staging().tempdir_in(&folder).unwrap();
            let made = staging.path().join("made");
            make_folder(&made).unwrap();
            fs::write(made.join("file"), content).unwrap();
            put_in_place(&made, &place, staging.path()).unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), content);
        }
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_lock_excludes_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path, || panic!("nobody has it")).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(held);
        assert!(File::open(&path).unwrap().try_lock().is_ok());
    }
}
