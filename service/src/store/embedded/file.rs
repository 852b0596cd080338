//! The file: what is in it is looked at before anything is written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use redb::{Builder, Database, DatabaseError, ReadableDatabase};

use super::rehearsal::Rehearsal;
use super::tables::{self, SCHEMA};
use super::{Failure, OpenError};

/// The first bytes of every redb file.
pub const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Pages kept in memory, in bytes; enough for the inner nodes of a million users.
const CACHE_BYTES: usize = 16 << 20;

/// Refuses what is not a store, without a change to it.
///
/// # Errors
/// See [`OpenError`].
pub fn inspect(path: &Path) -> Result<(), OpenError> {
    let not_ours = |cause: &str| OpenError::NotOurs { path: path.to_owned(), cause: cause.to_owned() };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(OpenError::File { path: path.to_owned(), cause }),
        Ok(file) if !file.is_file() => return Err(not_ours("it is not a file")),
        Ok(file) if file.len() == 0 => return Ok(()),
        Ok(_) => {}
    }
    let mut start = [0; MAGIC.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Err(error) if is_of_the_content(&error) => return Err(not_ours("it is too short")),
        Err(cause) => return Err(OpenError::File { path: path.to_owned(), cause }),
        Ok(()) if start != MAGIC => return Err(not_ours("it does not begin as a redb file does")),
        Ok(()) => {}
    }
    let rehearsal = Rehearsal::of(path).and_then(|file| builder("checked").create_with_backend(file));
    check_schema(&rehearsal.map_err(|error| open_error(path, error))?, path).map(drop)
}

/// Opens the file, repairs it if it was not closed, and makes the tables of an empty one.
///
/// # Errors
/// See [`OpenError`].
pub fn open(path: &Path) -> Result<Database, OpenError> {
    let database = builder("repaired").create(path).map_err(|error| open_error(path, error))?;
    if !check_schema(&database, path)? {
        tables::create(&database).map_err(|error| damaged(path, &error))?;
    }
    Ok(database)
}

/// How redb opens a file; `verb` is what the log says of one that was not closed.
fn builder(verb: &'static str) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |session| {
        let percent = (session.progress() * 100.0).round();
        tracing::info!(percent, "the store was not closed and is being {verb}");
    });
    builder
}

fn damaged(path: &Path, failure: &Failure) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), cause: failure.to_string() }
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::Storage(redb::StorageError::Io(cause)) if !is_of_the_content(&cause) => {
            OpenError::File { path, cause }
        }
        error => OpenError::Damaged { path, cause: error.to_string() },
    }
}

/// Whether an error is about what the file holds, not about reaching it.
fn is_of_the_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Whether there are tables already; refuses those of a later version.
fn check_schema(database: &impl ReadableDatabase, path: &Path) -> Result<bool, OpenError> {
    match tables::schema(database).map_err(|error| damaged(path, &error))? {
        None => Ok(false),
        Some(SCHEMA) => Ok(true),
        Some(found) if found > SCHEMA => Err(OpenError::TooNew { path: path.to_owned(), found }),
        Some(found) => Err(damaged(path, &Failure::BadRow(format!("there is no schema {found}")))),
    }
}
