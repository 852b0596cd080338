//! A file that can be opened for writing without being written: what redb would change stays in
//! memory. A file that was not closed is repaired here first, so that one that turns out not to be
//! usable is refused as it was found.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

/// Unit in which changes are kept, in bytes; redb's own.
const PAGE: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub struct Rehearsal {
    file: FileBackend,
    /// How much of the file there is.
    file_len: u64,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    len: u64,
    /// Whole pages by their number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Rehearsal {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn of(path: &Path) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(File::open(path).map_err(redb::StorageError::Io)?)?;
        let file_len = file.len().map_err(redb::StorageError::Io)?;
        Ok(Self { file, file_len, changes: Mutex::new(Changes { len: file_len, ..Changes::default() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page as the file has it, zeros where the file ends before it.
    fn original(&self, page: u64) -> io::Result<Vec<u8>> {
        let start = page * PAGE;
        let there = self.file_len.saturating_sub(start).min(PAGE) as usize;
        let mut bytes = vec![0; PAGE as usize];
        if let Some(part) = bytes.get_mut(..there).filter(|part| !part.is_empty()) {
            self.file.read(start, part)?;
        }
        Ok(bytes)
    }

    /// Calls `visit` with each page's number, the part of it that is meant, and the part of the
    /// caller's range that this is.
    fn pages(
        offset: u64,
        len: usize,
        mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(len - done);
            visit(at / PAGE, within..within + count, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

fn out_of_range() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

impl StorageBackend for Rehearsal {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.changes().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let changes = self.changes();
        if offset + out.len() as u64 > changes.len {
            return Err(out_of_range());
        }
        Self::pages(offset, out.len(), |page, part, of_out| {
            let original;
            let bytes = match changes.pages.get(&page) {
                Some(bytes) => bytes,
                None => {
                    original = self.original(page)?;
                    &original
                }
            };
            let (from, to) = (bytes.get(part), out.get_mut(of_out));
            from.zip(to).map(|(from, to)| to.copy_from_slice(from)).ok_or_else(out_of_range)
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.changes().len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut changes = self.changes();
        Self::pages(offset, data.len(), |page, part, of_data| {
            let bytes = match changes.pages.entry(page) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.original(page)?),
            };
            bytes
                .get_mut(part)
                .zip(data.get(of_data))
                .map(|(to, from)| to.copy_from_slice(from))
                .ok_or_else(out_of_range)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let rehearsal = Rehearsal::of(&path).unwrap();
        rehearsal.set_len(20_000).unwrap();
        rehearsal.write(4_000, &[255; 9_000]).unwrap();

        let mut read = vec![1; 20_000];
        rehearsal.read(0, &mut read).unwrap();
        let mut expected = content.clone();
        expected.resize(20_000, 0);
        expected[4_000..13_000].fill(255);
        assert!(read == expected);
        assert!(rehearsal.read(19_999, &mut [0; 2]).is_err());
        assert!(std::fs::read(&path).unwrap() == content);
    }
}
