//! The folder for compiled modules: which one, and whether it can be used.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Uid, User};
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use crate::files;

/// What to do about a folder that cannot be used, where the caller says nothing else.
pub const FIX: &str = "choose another folder with --cache";

/// A disk with less than this left, in bytes, is why a compiler failed.
const NEARLY_FULL: u64 = 32 << 20;

/// The user's own folder by the environment's `XDG_CACHE_HOME` and `HOME`, or else by the user
/// database. It is made.
pub fn for_user() -> Result<PathBuf> {
    let folder = choose(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"), home_of_user)
        .with_context(|| format!("the user has no home folder to keep compiled modules in: {FIX}"))?;
    files::make_folder(&folder)
        .with_context(|| format!("{} cannot be used for compiled modules ({FIX})", folder.display()))?;
    Ok(folder)
}

/// A relative folder would be another one in each working directory, so it counts as unset.
fn choose(
    cache_home: Option<OsString>,
    home: Option<OsString>,
    home_of_user: impl FnOnce() -> Option<PathBuf>,
) -> Option<PathBuf> {
    let absolute = |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute(cache_home).or_else(|| Some(absolute(home).or_else(home_of_user)?.join(".cache")))?;
    Some(caches.join("usher"))
}

fn home_of_user() -> Option<PathBuf> {
    let user = User::from_uid(Uid::effective()).ok()??;
    Some(user.dir).filter(|home| home.is_absolute())
}

/// Fails where code cannot be run from; quick. A folder that is missing has yet to be made.
pub fn check_runnable(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    check_flags(about(folder)?.f_flag)
}

fn check_flags(mounted: StatVfsMountFlags) -> Result<()> {
    let refused = mounted.contains(StatVfsMountFlags::NOEXEC);
    ensure!(!refused, "it is mounted `noexec`, so that no code can be run from it");
    Ok(())
}

/// Whether the disk is so full that what should have been written there was not.
pub fn check_space(folder: &Path) -> Result<()> {
    let about = about(folder)?;
    let left = about.f_bavail.saturating_mul(about.f_frsize);
    ensure!(left >= NEARLY_FULL, "its disk is full: {} MB are left", left >> 20);
    Ok(())
}

fn about(folder: &Path) -> Result<StatVfs> {
    statvfs(folder).with_context(|| format!("cannot look at the disk of {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn chosen(cache_home: &str, home: &str, of_user: Option<&str>) -> Option<String> {
        let set = |value: &str| (value != "unset").then(|| OsString::from(value));
        let folder = choose(set(cache_home), set(home), || of_user.map(PathBuf::from))?;
        Some(folder.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_environment_outweighs_the_user_database() {
        assert_eq!(chosen("/c", "/h", Some("/u")).unwrap(), "/c/usher");
        for unset in ["unset", "", "relative"] {
            assert_eq!(chosen(unset, "/h", Some("/u")).unwrap(), "/h/.cache/usher");
            assert_eq!(chosen(unset, unset, Some("/u")).unwrap(), "/u/.cache/usher");
            assert_eq!(chosen(unset, unset, None), None);
        }
    }

    #[test]
    fn a_folder_mounted_noexec_is_refused() {
        let noexec = StatVfsMountFlags::NOEXEC;
        assert!(check_flags(noexec).unwrap_err().to_string().contains("noexec"));
        assert!(check_flags(noexec | StatVfsMountFlags::RDONLY).is_err());
        check_flags(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NODEV).unwrap();
    }

    #[test]
    fn the_kernels_flags_are_understood() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields: Vec<Vec<&str>> = mounts.lines().map(|mount| mount.split(' ').collect()).collect();
        // Not the root folder, which is no mount of its own where only a part of a disk is seen.
        let proc = fields.iter().rfind(|fields| fields[1] == "/proc").unwrap();
        let noexec = proc[3].split(',').any(|option| option == "noexec");
        assert_eq!(check_runnable(Path::new("/proc")).is_err(), noexec);
    }

    #[test]
    fn a_folder_that_is_missing_is_not_refused() {
        check_runnable(Path::new("/nonexistent/usher")).unwrap();
    }

    #[test]
    fn a_disk_without_space_is_told() {
        // A file system that has none.
        let error = check_space(Path::new("/proc")).unwrap_err().to_string();
        assert_eq!(error, "its disk is full: 0 MB are left");
        check_space(&env::temp_dir()).unwrap();
    }
}
