//! What compiled code depends on.

use std::env::consts::ARCH;
use std::fmt::{self, Display, Formatter};
use std::fs;

use blake3::Hasher;

use crate::digest::Digest;

/// Everything that the code of a compiled module depends on.
#[derive(Debug, Clone)]
pub struct Key {
    module: Digest,
    wasmedge: String,
    options: String,
    cpu: String,
}

impl Key {
    /// The key of what WasmEdge `wasmedge` ("0.17.1") makes of a module with these options.
    pub fn new(module: Digest, wasmedge: &str, options: &str, cpu: &Cpu) -> Self {
        Self { module, wasmedge: wasmedge.to_owned(), options: options.to_owned(), cpu: cpu.to_string() }
    }

    /// A name for files: 64 hexadecimal digits.
    pub(crate) fn name(&self) -> String {
        let mut hasher = Hasher::new();
        for part in [self.module.as_str(), &self.wasmedge, &self.options, &self.cpu] {
            // Hashed one by one, so that no part can run over into the next.
            hasher.update(blake3::hash(part.as_bytes()).as_bytes());
        }
        hasher.finalize().to_string()
    }

    /// The parts and the digest of the code, for people and to be compared as a whole: quoted, so that
    /// no part can pass for another.
    pub(crate) fn record(&self, code: &Digest) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(module: &str, wasmedge: &str, options: &str, cpu: &Cpu) -> Key {
        Key::new(Digest::of(module.as_bytes()), wasmedge, options, cpu)
    }

    fn like(model: &str) -> Cpu {
        Cpu::Like(model.to_owned())
    }

    #[test]
    fn every_part_changes_the_name_and_the_record() {
        let base = key("module", "0.17.1", "-O3", &like("cpu"));
        let others = [
            key("modulf", "0.17.1", "-O3", &like("cpu")),
            key("module", "0.17.2", "-O3", &like("cpu")),
            key("module", "0.17.1", "", &like("cpu")),
            key("module", "0.17.1", "-O3", &like("cpv")),
            key("module", "0.17.1", "-O3", &Cpu::Generic),
        ];
        assert_eq!(base.name(), base.clone().name());
        assert_eq!(base.name().len(), 64);
        for other in others {
            assert_ne!(base.name(), other.name(), "{other:?}");
            assert_ne!(base.record(&Digest::of(b"code")), other.record(&Digest::of(b"code")), "{other:?}");
        }
        assert_ne!(base.record(&Digest::of(b"code")), base.record(&Digest::of(b"codf")));
    }

    #[test]
    fn no_part_runs_over_into_the_next() {
        let one = key("", "a", "b0", &Cpu::Generic);
        let other = key("", "ab", "0", &Cpu::Generic);
        assert_ne!(one.name(), other.name());
        let forged = key("", "a\"\noptions \"b", "c", &Cpu::Generic);
        let plain = key("", "a", "b", &Cpu::Generic);
        assert!(
            !forged.record(&Digest::of(b"")).starts_with(plain.record(&Digest::of(b"")).split("cpu").next().unwrap())
        );
    }

    #[test]
    fn a_record_reads_well() {
        let key = key("", "0.17.1", "-O3", &like("model name\t: X"));
        let empty = Digest::of(b"");
        let wanted = format!(
            "module {empty}\nwasmedge \"0.17.1\"\noptions \"-O3\"\ncpu \"{ARCH}\\nmodel name\\t: X\"\ncode {empty}\n"
        );
        assert_eq!(key.record(&empty), wanted);
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
