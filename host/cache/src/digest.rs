//! What tells whether bytes are the same: BLAKE3, of which a start has to read some megabytes.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io;
use std::path::Path;

use blake3::Hasher;

/// The digest of a file's content, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_string())
    }

    /// Of a file, read piece by piece: memory for all of it would take as long as the hash.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Ok(Self(Hasher::new().update_reader(File::open(path)?)?.finalize().to_string()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 digits: enough for people to tell one module from another.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_files_digest_is_that_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 1, (64 << 10) - 1, 64 << 10, 700_000] {
            let bytes: Vec<u8> = (0..length).map(|n: usize| n as u8).collect();
            fs::write(file.path(), &bytes).unwrap();
            assert_eq!(Digest::of_file(file.path()).unwrap(), Digest::of(&bytes));
        }
        assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
    }
}
