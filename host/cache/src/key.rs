//! What compiled code depends on.

use std::env::consts::ARCH;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Everything that the code of a compiled module depends on.
#[derive(Debug, Clone)]
pub struct Key {
    module: String,
    wasmedge: String,
    options: String,
    cpu: String,
}

impl Key {
    /// The key of what WasmEdge `wasmedge` ("0.17.1") makes of a module's bytes with these options.
    pub fn new(module: &[u8], wasmedge: &str, options: &str, cpu: &Cpu) -> Self {
        Self {
            module: digest(module),
            wasmedge: wasmedge.to_owned(),
            options: options.to_owned(),
            cpu: cpu.to_string(),
        }
    }

    /// A name for files: 64 hexadecimal digits.
    pub(crate) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.module, &self.wasmedge, &self.options, &self.cpu] {
            // Hashed one by one, so that no part can run over into the next.
            hash.update(Sha256::digest(part));
        }
        hex(&hash.finalize())
    }

    /// The parts and the digest of the code, for people and to be compared as a whole: quoted, so that
    /// no part can pass for another.
    pub(crate) fn record(&self, code: &str) -> String {
        let Self { module, wasmedge, options, cpu } = self;
        format!("module {module}\nwasmedge {wasmedge:?}\noptions {options:?}\ncpu {cpu:?}\ncode {code}\n")
    }
}

/// The processors that code is compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cpu {
    /// All of this machine's architecture.
    Generic,
    /// Those of one model with the same features.
    Like(String),
}

impl Cpu {
    /// This machine's: all that a compiler looks at to choose instructions.
    pub fn this() -> Self {
        Self::Like(model_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
    }
}

impl Display for Cpu {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generic => write!(f, "any {ARCH}"),
            Self::Like(model) => write!(f, "{ARCH}\n{model}"),
        }
    }
}

/// The model and the features of the first processor: x86 says "flags", arm "Features".
fn model_in(cpuinfo: &str) -> String {
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let telling = ["model name", "flags", "CPU part", "Features"];
    let lines = first.lines().filter(|line| telling.iter().any(|name| line.starts_with(name)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The digest of bytes, in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digest of a file, read piece by piece: memory for all of it would take as long as the hash.
pub(crate) fn digest_of(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(piece.get(..length).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(model: &str) -> Cpu {
        Cpu::Like(model.to_owned())
    }

    #[test]
    fn every_part_changes_the_name_and_the_record() {
        let base = Key::new(b"module", "0.17.1", "-O3", &like("cpu"));
        let others = [
            Key::new(b"modulf", "0.17.1", "-O3", &like("cpu")),
            Key::new(b"module", "0.17.2", "-O3", &like("cpu")),
            Key::new(b"module", "0.17.1", "", &like("cpu")),
            Key::new(b"module", "0.17.1", "-O3", &like("cpv")),
            Key::new(b"module", "0.17.1", "-O3", &Cpu::Generic),
        ];
        assert_eq!(base.name(), base.clone().name());
        assert_eq!(base.name().len(), 64);
        for other in others {
            assert_ne!(base.name(), other.name(), "{other:?}");
            assert_ne!(base.record("code"), other.record("code"), "{other:?}");
        }
        assert_ne!(base.record("code"), base.record("codf"));
    }

    #[test]
    fn no_part_runs_over_into_the_next() {
        let one = Key::new(b"", "a", "b0", &Cpu::Generic);
        let other = Key::new(b"", "ab", "0", &Cpu::Generic);
        assert_ne!(one.name(), other.name());
        let forged = Key::new(b"", "a\"\noptions \"b", "c", &Cpu::Generic);
        let plain = Key::new(b"", "a", "b", &Cpu::Generic);
        assert!(!forged.record("").starts_with(plain.record("").split("cpu").next().unwrap()));
    }

    #[test]
    fn a_record_reads_well() {
        let key = Key::new(b"", "0.17.1", "-O3", &like("model name\t: X"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let wanted = format!(
            "module {empty}\nwasmedge \"0.17.1\"\noptions \"-O3\"\ncpu \"{ARCH}\\nmodel name\\t: X\"\ncode 00ff\n"
        );
        assert_eq!(key.record("00ff"), wanted);
    }

    #[test]
    fn a_files_digest_is_that_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 1, (256 << 10) - 1, 256 << 10, 700_000] {
            let bytes: Vec<u8> = (0..length).map(|n: usize| n as u8).collect();
            fs::write(file.path(), &bytes).unwrap();
            assert_eq!(digest_of(file.path()).unwrap(), digest(&bytes));
        }
    }

    #[test]
    fn the_cpu_is_its_model_and_features_not_its_speed() {
        let text = "processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: 1.0\nflags\t\t: fpu avx\n\n\
                    processor\t: 1\nmodel name\t: X\n";
        assert_eq!(model_in(text), "model name\t: X\nflags\t\t: fpu avx");
        assert_eq!(model_in(""), "");
    }

    #[test]
    fn the_architecture_is_part_of_both_kinds() {
        assert!(Cpu::Generic.to_string().contains(ARCH));
        assert!(Cpu::this().to_string().contains(ARCH));
        assert_ne!(Cpu::this(), Cpu::Generic);
    }
}
