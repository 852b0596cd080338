//! `--watch`: sees when there is another module at a path.
//!
//! By looking, not by being told: what a folder's events mean differs between local disks, network ones and
//! layered ones, and between the ways to replace a file. What a path leads to, through whatever links, is
//! the same everywhere.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aot_cache::Digest;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::say;

/// Between one look and the next. Whatever is the same at two in a row is taken to be finished.
const PERIOD: Duration = Duration::from_millis(500);

/// What tells without reading it that a file may have another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The digest of each content that is at the path for a while, the first included; nothing without a path.
///
/// # Errors
/// If there can be no more threads.
pub fn seen(path: Option<&PathBuf>) -> io::Result<Receiver<Digest>> {
    let (sender, receiver) = mpsc::channel(1);
    if let Some(path) = path.cloned() {
        // A look may take as long as a disk takes to answer.
        thread::Builder::new().name("usher: watch".to_owned()).spawn(move || watch(&path, &sender))?;
    }
    Ok(receiver)
}

fn watch(path: &Path, seen: &Sender<Digest>) {
    let mut look = Look::default();
    while !seen.is_closed() {
        match look.again(path) {
            // The receiver lives as long as the supervisor.
            Ok(Some(digest)) => drop(seen.blocking_send(digest)),
            Ok(None) => {}
            Err(error) => say::log(format_args!("cannot read {}: {error}", path.display())),
        }
        thread::sleep(PERIOD);
    }
}

/// What was there at the last look, and what was read last.
#[derive(Debug, Default)]
struct Look {
    before: Option<Stamp>,
    read: Option<Stamp>,
}

impl Look {
    /// The digest of what is there, if it is as it was at the last look and was not read yet.
    ///
    /// # Errors
    /// If it cannot be read; not again for the same.
    fn again(&mut self, path: &Path) -> io::Result<Option<Digest>> {
        // It may be missing for a moment, or for long.
        let now = Stamp::of(path).ok();
        let before = std::mem::replace(&mut self.before, now);
        if now.is_none() || now != before || now == self.read {
            return Ok(None);
        }
        self.read = now;
        let digest = Digest::of_file(path)?;
        if Stamp::of(path).ok() == now {
            return Ok(Some(digest));
        }
        self.read = None;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Looks until nothing new is to be seen; each content that was, by its digest.
    fn looked(look: &mut Look, path: &Path) -> Vec<Digest> {
        (0..3).filter_map(|_| look.again(path).unwrap()).collect()
    }

    #[test]
    fn a_content_is_seen_once_when_it_stays_and_again_when_it_may_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("module");
        let mut look = Look::default();
        assert!(looked(&mut look, &path).is_empty(), "absent");
        fs::write(&path, "a").unwrap();
        assert_eq!(look.again(&path).unwrap(), None, "it may not be finished");
        assert_eq!(looked(&mut look, &path), [Digest::of(b"a")]);
        assert!(looked(&mut look, &path).is_empty());

        fs::write(&path, "b").unwrap();
        look.again(&path).unwrap();
        fs::write(&path, "bc").unwrap();
        assert_eq!(look.again(&path).unwrap(), None, "it grows");
        assert_eq!(looked(&mut look, &path), [Digest::of(b"bc")]);

        fs::remove_file(&path).unwrap();
        look.again(&path).unwrap();
        fs::write(&path, "bc").unwrap();
        assert_eq!(looked(&mut look, &path), [Digest::of(b"bc")], "the same content, in another file");
    }

    #[test]
    fn a_link_on_the_way_that_leads_elsewhere_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("module"), version).unwrap();
        }
        // As a ConfigMap is mounted.
        symlink("one", at("..data")).unwrap();
        symlink("..data/module", at("module")).unwrap();
        let mut look = Look::default();
        assert_eq!(looked(&mut look, &at("module")), [Digest::of(b"one")]);
        symlink("two", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(looked(&mut look, &at("module")), [Digest::of(b"two")]);
    }
}
