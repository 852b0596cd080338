//! The cache: a folder of entries, bounded, filled by one process at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::entry::{self, Entry};
use crate::key::Key;
use crate::{files, folder};

/// How many compiled modules are kept.
pub const MAX_ENTRIES: usize = 8;

/// How many bytes of compiled modules are kept, unless a single one has more.
pub const MAX_BYTES: u64 = 512 << 20;

/// A folder with compiled modules.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    fix: &'static str,
    max_bytes: u64,
}

/// A compiled module.
#[derive(Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The file with its code.
    pub code: PathBuf,
    /// Whether it was compiled just now.
    pub fresh: bool,
}

impl Cache {
    /// The cache in `folder`, which is made when there is something to put into it.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder, fix: folder::FIX, max_bytes: MAX_BYTES }
    }

    /// The same cache with other advice than to use `--cache` where its folder cannot be used.
    #[must_use]
    pub fn advising(self, fix: &'static str) -> Self {
        Self { fix, ..self }
    }

    /// The folder for a user who chose none, which is made: `usher` in `$XDG_CACHE_HOME`, or else in
    /// `~/.cache`. Fails, with the advice to use `--cache`, for a user who has no home.
    pub fn folder_for_user() -> Result<PathBuf> {
        folder::for_user()
    }

    /// Fails where compiled modules cannot be kept; the folder is made.
    pub fn check(&self) -> Result<()> {
        self.usable(files::make_folder(&self.folder).and_then(|()| folder::check_runnable(&self.folder)))?;
        self.usable(self.staging_file()).map(drop)
    }

    /// The compiled form of a module when it is there, whole and can be run. Needs no right to write.
    pub fn find(&self, key: &Key) -> Option<PathBuf> {
        let entry = Entry::new(&self.folder, key);
        if folder::check_runnable(&self.folder).is_err() || !entry.is_whole() {
            return None;
        }
        entry.mark_used();
        Some(entry.code().to_path_buf())
    }

    /// The compiled form of a module; what is absent or damaged is made by `compile`, which is given
    /// the file to write. Of many that ask at once one compiles, and the others wait for it after
    /// calling `waiting`.
    ///
    /// Fails when `compile` does, and when the folder cannot be used: the message names the folder, the
    /// cause and what to do.
    pub fn compiled(
        &self,
        key: &Key,
        waiting: impl FnOnce(),
        compile: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Compiled> {
        self.usable(folder::check_runnable(&self.folder))?;
        match self.find(key) {
            Some(code) => Ok(Compiled { code, fresh: false }),
            None => self.fill(key, waiting, compile),
        }
    }

    /// Compiles under the cache's lock: whoever waits for it finds the entry there.
    ///
    /// One lock for all modules, as two compilers at once would only share the processors.
    fn fill(&self, key: &Key, waiting: impl FnOnce(), compile: impl FnOnce(&Path) -> Result<()>) -> Result<Compiled> {
        self.usable(files::make_folder(&self.folder).and_then(|()| folder::check_runnable(&self.folder)))?;
        let _held = self.usable(files::lock(&self.folder.join("lock"), waiting))?;
        if let Some(code) = self.find(key) {
            return Ok(Compiled { code, fresh: false });
        }
        let entry = Entry::new(&self.folder, key);
        let staged = self.usable(self.stage())?;
        if let Err(error) = compile(staged.path()) {
            // A compiler may say anything when it cannot write.
            return match folder::check_space(&self.folder) {
                Ok(()) => Err(error),
                Err(full) => self.usable(Err(error.context(full))),
            };
        }
        self.usable(entry.put(staged.path()))?;
        self.usable(self.prune(entry.code()))?;
        Ok(Compiled { code: entry.code().to_path_buf(), fresh: true })
    }

    /// A file for a compiler to write, in a folder without those of earlier runs.
    fn stage(&self) -> Result<tempfile::NamedTempFile> {
        files::remove_leftovers(&self.folder)?;
        self.staging_file()
    }

    fn staging_file(&self) -> Result<tempfile::NamedTempFile> {
        files::staging()
            .suffix(".so")
            .tempfile_in(&self.folder)
            .with_context(|| format!("cannot write into {}", self.folder.display()))
    }

    /// Removes all but `made` and the entries used last, and records without code. Only under the
    /// cache's lock.
    fn prune(&self, made: &Path) -> Result<()> {
        let mut codes = Vec::new();
        let mut rest = Vec::new();
        for file in files::entries(&self.folder)? {
            let path = file.path();
            match path.extension() {
                _ if !entry::is_ours(&path) => {}
                Some(extension) if extension == entry::CODE => codes.push(Code::at(path)),
                _ => rest.push(path),
            }
        }
        codes.sort_by_key(|code| std::cmp::Reverse((code.path == made, code.used)));
        let mut bytes = 0;
        for (index, code) in codes.iter().enumerate() {
            bytes += code.bytes;
            if index >= MAX_ENTRIES || (index > 0 && bytes > self.max_bytes) {
                files::remove(&code.path)?;
            }
        }
        let mut orphans = rest.iter().filter(|record| !record.with_extension(entry::CODE).exists());
        orphans.try_for_each(|record| files::remove(record))
    }

    fn usable<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("{} cannot be used for compiled modules ({})", self.folder.display(), self.fix))
    }
}

/// What decides whether an entry's code is kept.
struct Code {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

impl Code {
    fn at(path: PathBuf) -> Self {
        let meta = fs::metadata(&path);
        let used = meta.as_ref().ok().and_then(|meta| meta.modified().ok());
        let bytes = meta.map_or(0, |meta| meta.len());
        Self { path, used: used.unwrap_or(SystemTime::UNIX_EPOCH), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::key::Cpu;
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
    use tempfile::TempDir;

    fn key(module: &str) -> Key {
        Key::new(Digest::of(module.as_bytes()), "0.17.1", "", &Cpu::Generic)
    }

    fn cache() -> (TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        (folder, cache)
    }

    fn alone() {
        panic!("nobody else compiles")
    }

    fn never(_: &Path) -> Result<()> {
        panic!("it is there already")
    }

    /// Puts the code of a module that was last used so many seconds after the beginning.
    fn put(cache: &Cache, module: &str, code: &str, used: u64) {
        let made = cache.compiled(&key(module), alone, |file| Ok(fs::write(file, code)?)).unwrap();
        assert!(made.fresh);
        let file = File::options().append(true).open(made.code).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
    }

    /// Runs `work` without root's right to do everything. Only this thread changes.
    fn as_nobody(work: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setfsgid(Gid::from_raw(65534));
                setfsuid(Uid::from_raw(65534));
                work();
            });
            thread.join().unwrap();
        });
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_module_is_compiled_once() {
        let (_folder, cache) = cache();
        assert_eq!(cache.find(&key("a")), None);
        let made = cache.compiled(&key("a"), alone, |file| Ok(fs::write(file, "code")?)).unwrap();
        assert!(made.fresh);
        assert_eq!(fs::read_to_string(&made.code).unwrap(), "code");
        assert_eq!(cache.find(&key("a")).unwrap(), made.code);
        let again = cache.compiled(&key("a"), alone, never).unwrap();
        assert_eq!(again, Compiled { code: made.code, fresh: false });
        assert_eq!(cache.find(&key("b")), None);
    }

    #[test]
    fn a_damaged_entry_is_compiled_again() {
        let (_folder, cache) = cache();
        put(&cache, "a", "code", 1);
        let code = cache.find(&key("a")).unwrap();
        fs::write(&code, "cod").unwrap();
        assert_eq!(cache.find(&key("a")), None);
        put(&cache, "a", "code", 1);
        assert_eq!(fs::read_to_string(code).unwrap(), "code");
    }

    #[test]
    fn a_failed_compilation_leaves_nothing_and_tells_its_own_cause() {
        let (folder, cache) = cache();
        let error = cache.compiled(&key("a"), alone, |file| {
            fs::write(file, "half")?;
            anyhow::bail!("no such instruction")
        });
        assert_eq!(error.unwrap_err().to_string(), "no such instruction");
        let left = files::entries(&folder.path().join("cache")).unwrap();
        assert_eq!(left.len(), 1, "the lock");
    }

    #[test]
    fn of_many_starters_one_compiles_and_the_others_wait() {
        const STARTERS: usize = 8;
        let (_folder, cache) = cache();
        let compilations = AtomicUsize::new(0);
        // The one that compiles is not done before all the others wait for it.
        let together = Barrier::new(STARTERS);
        let meet = || {
            together.wait();
        };
        let start = || {
            let compile = |file: &Path| {
                compilations.fetch_add(1, Ordering::SeqCst);
                meet();
                Ok(fs::write(file, "code")?)
            };
            cache.compiled(&key("a"), meet, compile).unwrap()
        };
        let results: Vec<Compiled> = thread::scope(|scope| {
            let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert_eq!(compilations.load(Ordering::SeqCst), 1);
        assert_eq!(results.iter().filter(|result| result.fresh).count(), 1);
        assert!(results.iter().all(|result| fs::read_to_string(&result.code).unwrap() == "code"));
    }

    #[test]
    fn the_entries_used_last_stay() {
        let (folder, cache) = cache();
        let name = |n: usize| n.to_string();
        for n in 0..MAX_ENTRIES {
            put(&cache, &name(n), "code", n as u64);
        }
        assert!(cache.find(&key("0")).is_some(), "and so it is used");
        put(&cache, &name(MAX_ENTRIES), "code", 0);
        put(&cache, &name(MAX_ENTRIES + 1), "code", 0);

        let stayed = |n: usize| cache.find(&key(&name(n))).is_some();
        assert!(stayed(0) && stayed(3) && stayed(MAX_ENTRIES - 1) && stayed(MAX_ENTRIES + 1));
        assert!(!stayed(1) && !stayed(MAX_ENTRIES), "the oldest");
        let files = files::entries(&folder.path().join("cache")).unwrap();
        assert_eq!(files.len(), 2 * MAX_ENTRIES + 1, "code, record, and the lock");
    }

    #[test]
    fn the_bytes_are_bounded_but_the_newest_always_stays() {
        let (_folder, cache) = cache();
        let cache = Cache { max_bytes: 10, ..cache };
        put(&cache, "a", "1234", 1);
        put(&cache, "b", "1234", 2);
        put(&cache, "c", "1234", 3);
        assert!(cache.find(&key("a")).is_none());
        assert!(cache.find(&key("b")).is_some() && cache.find(&key("c")).is_some());
        put(&cache, "d", "larger than all", 0);
        assert!(cache.find(&key("d")).is_some());
        assert!(cache.find(&key("b")).is_none() && cache.find(&key("c")).is_none());
    }

    #[test]
    fn what_killed_runs_left_goes_and_foreign_files_stay() {
        let (_folder, cache) = cache();
        files::make_folder(&cache.folder).unwrap();
        let staged = files::staging().tempfile_in(&cache.folder).unwrap().into_temp_path().keep().unwrap();
        let record = cache.folder.join(format!("{}.txt", key("killed").name()));
        let foreign = [cache.folder.join("notes.txt"), cache.folder.join("lib.so"), cache.folder.join("lock")];
        foreign.iter().chain([&record]).for_each(|file| fs::write(file, "text").unwrap());
        put(&cache, "a", "code", 1);
        assert!(!staged.exists() && !record.exists());
        assert!(foreign.iter().all(|file| fs::read_to_string(file).unwrap() == "text"));
    }

    #[test]
    fn a_cache_that_cannot_be_written_gives_what_it_has() {
        let (folder, cache) = cache();
        put(&cache, "a", "code", 1);
        set_mode(folder.path(), 0o755);
        set_mode(&cache.folder, 0o555);
        as_nobody(|| {
            assert!(!cache.compiled(&key("a"), alone, never).unwrap().fresh);
            let error = format!("{:#}", cache.compiled(&key("b"), alone, never).unwrap_err());
            let shown = cache.folder.display().to_string();
            assert!(error.starts_with(&shown) && error.contains("Permission denied"), "{error}");
            assert!(error.contains("choose another folder with --cache"), "{error}");
        });
        set_mode(&cache.folder, 0o755);
    }

    #[test]
    fn a_folder_that_cannot_be_made_or_written_is_told_with_the_fix() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cases = [(file.path().join("cache"), "Not a directory"), (PathBuf::from("/proc"), "cannot lock")];
        for (folder, cause) in cases {
            let cache = Cache::at(folder.clone());
            let error = format!("{:#}", cache.compiled(&key("a"), alone, never).unwrap_err());
            assert!(error.starts_with(folder.to_str().unwrap()) && error.contains(cause), "{error}");
            assert!(error.contains("--cache"), "{error}");
            let error = cache.advising("move").compiled(&key("a"), alone, never).unwrap_err().to_string();
            assert!(error.contains("(move)") && !error.contains("--cache"), "{error}");
        }
    }
}
