//! One compiled module on the disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::digest::Digest;
use crate::files;
use crate::key::Key;

/// The extension of an entry's code.
pub const CODE: &str = "so";

/// The extension of the record that tells what the code is of and whether it is still whole.
const RECORD: &str = "txt";

/// A compiled module and its record.
pub struct Entry<'a> {
    key: &'a Key,
    code: PathBuf,
}

impl<'a> Entry<'a> {
    /// The one for `key` in `folder`, which may be absent.
    pub fn new(folder: &Path, key: &'a Key) -> Self {
        Self { key, code: folder.join(format!("{}.{CODE}", key.name())) }
    }

    /// Where its code lies.
    pub fn code(&self) -> &Path {
        &self.code
    }

    /// A damaged entry, or another's, would be run as native code, so it counts as absent.
    pub fn is_whole(&self) -> bool {
        match (fs::read_to_string(self.record()), Digest::of_file(&self.code)) {
            (Ok(record), Ok(code)) => record == self.key.record(&code),
            _ => false,
        }
    }

    /// Takes the file that a compiler wrote over.
    pub fn put(&self, compiled: &Path) -> Result<()> {
        let code = fs::read(compiled).with_context(|| format!("cannot read {}", compiled.display()))?;
        ensure!(!code.is_empty(), "the compiler wrote nothing");
        files::write_atomically(&self.record(), self.key.record(&Digest::of(&code)).as_bytes())?;
        files::write_atomically(&self.code, &code)
    }

    /// The time of the last use decides what is kept; not being able to tell it is no harm.
    pub fn mark_used(&self) {
        if let Ok(file) = File::options().append(true).open(&self.code) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    fn record(&self) -> PathBuf {
        self.code.with_extension(RECORD)
    }
}

/// Whether a file is named like those of an entry, by a key.
pub fn is_ours(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().as_encoded_bytes();
    stem.len() == 64 && stem.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Cpu;

    fn key(cpu: &str) -> Key {
        Key::new(Digest::of(b"module"), "0.17.1", "", &Cpu::Like(cpu.to_owned()))
    }

    fn put(entry: &Entry, code: &str) {
        let compiled = tempfile::NamedTempFile::new().unwrap();
        fs::write(compiled.path(), code).unwrap();
        entry.put(compiled.path()).unwrap();
        assert!(entry.is_whole());
    }

    #[test]
    fn a_damaged_entry_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("a");
        let entry = Entry::new(folder.path(), &key);
        assert!(!entry.is_whole());
        for damaged in ["cod", "codf", "", "code and more"] {
            put(&entry, "code");
            fs::write(&entry.code, damaged).unwrap();
            assert!(!entry.is_whole(), "{damaged}");
        }
        put(&entry, "code");
        fs::write(entry.record(), "code").unwrap();
        assert!(!entry.is_whole());
        put(&entry, "code");
        fs::remove_file(entry.record()).unwrap();
        assert!(!entry.is_whole());
    }

    #[test]
    fn the_entry_of_another_cpu_is_absent_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let (here, elsewhere) = (key("a"), key("b"));
        let (here, elsewhere) = (Entry::new(folder.path(), &here), Entry::new(folder.path(), &elsewhere));
        put(&elsewhere, "code");
        fs::rename(&elsewhere.code, &here.code).unwrap();
        fs::rename(elsewhere.record(), here.record()).unwrap();
        assert!(!here.is_whole());
    }

    #[test]
    fn a_compiler_that_wrote_nothing_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("a");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = Entry::new(folder.path(), &key).put(empty.path()).unwrap_err();
        assert_eq!(error.to_string(), "the compiler wrote nothing");
        assert!(files::entries(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn only_files_named_by_a_key_are_ours() {
        let name = key("a").name();
        assert!(is_ours(Path::new(&format!("/x/{name}.so"))) && is_ours(Path::new(&format!("{name}.txt"))));
        for foreign in ["lock", "lib.so", &format!("{name}0.so"), &format!("{}.so", name.to_uppercase())] {
            assert!(!is_ours(Path::new(foreign)), "{foreign}");
        }
    }
}
