//! Modules compiled ahead of time, cached by everything their code depends on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::files;
use crate::module;
use crate::paths::Paths;
use crate::process::capture;
use crate::{progress, setup, wasmedge};

/// How many compiled modules are kept; each is some megabytes.
const KEPT: usize = 8;

/// Options of `wasmedge compile`. None: its defaults are the highest level, for this CPU.
const OPTIONS: [&str; 0] = [];

/// The compiled form of `module` as it is, or of a fresh ./service.wasm.
pub fn of(paths: &Paths, module: Option<PathBuf>) -> Result<PathBuf> {
    let module = match module {
        Some(module) => {
            setup::setup(paths)?;
            module
        }
        None => module::build(paths)?,
    };
    Compiler::new(paths).compiled(&module)
}

/// A WasmEdge and the folder where what it compiled is kept.
pub struct Compiler {
    program: PathBuf,
    cache: PathBuf,
}

impl Compiler {
    /// The one that set-up installs.
    pub fn new(paths: &Paths) -> Self {
        Self { program: paths.wasmedge_bin(), cache: paths.aot_cache() }
    }

    /// The oldest one, for tests. Its cache is its own, so both may compile at once.
    pub fn oldest(paths: &Paths) -> Self {
        Self { program: paths.oldest_wasmedge_bin(), cache: paths.oldest_aot_cache() }
    }

    /// The compiled form of `module`.
    pub fn compiled(&self, module: &Path) -> Result<PathBuf> {
        let version = wasmedge::version_of(&self.program)?;
        let key = key(&module::read(module)?, &version, &OPTIONS, &cpu());
        let entry = Entry::new(&self.cache, &key);
        if !entry.is_whole() {
            self.fill(module, &version, &entry)?;
        }
        entry.mark_used();
        Ok(entry.code)
    }

    /// Compiles under the cache's lock: whoever waits for it finds the entry there.
    ///
    /// One lock for all modules, as two compilers at once would only share the processors.
    fn fill(&self, module: &Path, version: &str, entry: &Entry) -> Result<()> {
        files::make_folder(&self.cache)?;
        let _held = files::lock(&self.cache.join("lock"), "another compilation is running, waiting …")?;
        if entry.is_whole() {
            return Ok(());
        }
        files::remove_leftovers(&self.cache)?;
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let doing = format!("compiling {name} ahead of time for WasmEdge {version} (about a minute)");
        progress::during(&doing, &format!("compiled for WasmEdge {version}"), || {
            let result = files::staging().suffix(".so").tempfile_in(&self.cache)?;
            let mut compiler = Command::new(&self.program);
            compiler.arg("compile").args(OPTIONS).arg(module).arg(result.path());
            capture(&mut compiler).with_context(|| format!("WasmEdge cannot compile {}", module.display()))?;
            entry.put(result.path())
        })?;
        prune(&self.cache)
    }
}

/// The name of an entry: what its code depends on.
fn key(module: &[u8], wasmedge: &str, options: &[&str], cpu: &str) -> String {
    let mut hash = Sha256::new();
    let options = options.join(" ");
    for part in [module, wasmedge.as_bytes(), options.as_bytes(), cpu.as_bytes()] {
        // Hashed one by one, so that no part can run over into the next.
        hash.update(Sha256::digest(part));
    }
    hex(&hash.finalize())
}

/// What the compiler looks at to choose instructions.
fn cpu() -> String {
    cpu_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The model and the features of the first processor: x86 says "flags", arm "Features".
fn cpu_in(cpuinfo: &str) -> String {
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let telling = ["model name", "flags", "CPU part", "Features"];
    let lines = first.lines().filter(|line| telling.iter().any(|name| line.starts_with(name)));
    lines.collect::<Vec<_>>().join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One compiled module and the checksum that tells whether it is still whole.
struct Entry {
    code: PathBuf,
    checksum: PathBuf,
}

impl Entry {
    fn new(cache: &Path, key: &str) -> Self {
        Self { code: cache.join(format!("{key}.so")), checksum: cache.join(format!("{key}.sha256")) }
    }

    /// A damaged entry would be run as native code, so it counts as absent.
    fn is_whole(&self) -> bool {
        match (fs::read(&self.code), fs::read_to_string(&self.checksum)) {
            (Ok(code), Ok(checksum)) => hex(&Sha256::digest(code)) == checksum,
            _ => false,
        }
    }

    /// Takes a compiled module over.
    fn put(&self, compiled: &Path) -> Result<()> {
        let code = module::read(compiled)?;
        files::write_atomically(&self.checksum, hex(&Sha256::digest(&code)).as_bytes())?;
        files::write_atomically(&self.code, &code)
    }

    /// The time of the last use decides what is kept; not being able to tell it is no harm.
    fn mark_used(&self) {
        if let Ok(file) = File::options().append(true).open(&self.code) {
            let _ = file.set_modified(SystemTime::now());
        }
    }
}

/// Removes all but the entries used last. Only under the cache's lock.
fn prune(cache: &Path) -> Result<()> {
    let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
    for file in files::entries(cache)? {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            let used = file.metadata().and_then(|meta| meta.modified());
            entries.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.0));
    for (_, code) in entries.iter().skip(KEPT) {
        files::remove(code)?;
        files::remove(&code.with_extension("sha256"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_part_changes_the_key() {
        let base = key(b"module", "0.17.1", &["-O3"], "cpu");
        assert_eq!(base, key(b"module", "0.17.1", &["-O3"], "cpu"));
        assert_eq!(base.len(), 64);
        assert_ne!(base, key(b"modulf", "0.17.1", &["-O3"], "cpu"));
        assert_ne!(base, key(b"module", "0.17.2", &["-O3"], "cpu"));
        assert_ne!(base, key(b"module", "0.17.1", &[], "cpu"));
        assert_ne!(base, key(b"module", "0.17.1", &["-O3"], "cpv"));
        assert_ne!(key(b"a", "b0", &[], ""), key(b"ab", "0", &[], ""));
    }

    #[test]
    fn the_cpu_is_its_model_and_features_not_its_speed() {
        let text = "processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: 1.0\nflags\t\t: fpu avx\n\n\
                    processor\t: 1\nmodel name\t: X\n";
        assert_eq!(cpu_in(text), "model name\t: X\nflags\t\t: fpu avx");
        assert_eq!(cpu_in(""), "");
    }

    #[test]
    fn a_damaged_entry_is_absent() {
        let cache = tempfile::tempdir().unwrap();
        let compiled = cache.path().join("compiled");
        fs::write(&compiled, "code").unwrap();
        let entry = Entry::new(cache.path(), "key");
        assert!(!entry.is_whole());
        entry.put(&compiled).unwrap();
        assert!(entry.is_whole());
        fs::write(&entry.code, "cod").unwrap();
        assert!(!entry.is_whole());
        entry.put(&compiled).unwrap();
        fs::remove_file(&entry.checksum).unwrap();
        assert!(!entry.is_whole());
    }

    #[test]
    fn the_entries_used_last_stay() {
        let cache = tempfile::tempdir().unwrap();
        let compiled = cache.path().join("compiled");
        fs::write(&compiled, "code").unwrap();
        for n in 0..KEPT as u64 + 2 {
            let entry = Entry::new(cache.path(), &n.to_string());
            entry.put(&compiled).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(n);
            let file = File::options().append(true).open(&entry.code).unwrap();
            file.set_modified(used).unwrap();
        }
        Entry::new(cache.path(), "0").mark_used();
        prune(cache.path()).unwrap();
        let left = |key: &str| Entry::new(cache.path(), key).is_whole();
        assert!(left("0") && left("3") && left("9"));
        assert!(!left("1") && !left("2"));
        assert_eq!(files::entries(cache.path()).unwrap().len(), 2 * KEPT + 1);
    }
}
