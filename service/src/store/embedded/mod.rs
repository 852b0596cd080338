//! The store for a service with nothing configured: one redb file in the service's own folder.
//!
//! Every acknowledged write is on the disk before it is acknowledged. Reads and writes do not wait
//! for anything but the disk, so the operations are not async.

mod claim;
mod file;
mod rehearsal;
mod tables;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase};
use thiserror::Error;

use claim::{Claim, ClaimError};
use tables::Tables;

use super::{Page, PageQuery, StoreError};
use crate::grants;
use crate::user::{NewUser, User, UserId, UserPatch, now};

/// The store's file in its folder.
const FILE_NAME: &str = "users.redb";

/// Why the store could not be opened. The file is as it was.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "cannot use the folder {}: {cause}; grant it to the module (wasmedge --dir), make it writable, \
         or set DATA_DIR to another",
        path.display()
    )]
    Folder { path: PathBuf, cause: io::Error },
    #[error("the folder {0} is not granted to the module; add --dir {0}:{0}, or set DATA_DIR to one that is", path.display())]
    NotGranted { path: PathBuf },
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("{} is not a store of this service ({cause}); move it away or set DATA_DIR to another folder", path.display())]
    NotOurs { path: PathBuf, cause: String },
    #[error(
        "{} is damaged: {cause}; restore it from a backup, or move it away to start with an empty store",
        path.display()
    )]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "{} was written by a later version (its schema is {found}, this version knows {}); \
         run that version or restore an older backup",
        path.display(), tables::SCHEMA
    )]
    TooNew { path: PathBuf, found: u64 },
    #[error("cannot open {}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// A failed operation, before it is told apart by what the client may know.
#[derive(Debug, Error)]
enum Failure {
    #[error("no such user")]
    NotFound,
    #[error("duplicate e-mail address")]
    DuplicateEmail,
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error("a row of the store is not a user: {0}")]
    BadRow(String),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// redb has an error type for each call; all of them end in [`redb::Error`].
macro_rules! failures_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}
failures_from!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// See the module.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// `None` after an I/O error: redb refuses to go on with a file that failed once, so the next
    /// operation opens it again.
    database: Mutex<Option<Database>>,
    _claim: Claim,
}

impl Embedded {
    /// Opens the store in `folder`, which is made if it is missing; an empty or missing file
    /// becomes an empty store.
    ///
    /// # Errors
    /// See [`OpenError`]; among them that another process has it open.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        if folder.is_absolute() && !grants::cover(folder) {
            return Err(OpenError::NotGranted { path: folder.to_owned() });
        }
        let folder_error = |cause| OpenError::Folder { path: folder.to_owned(), cause };
        let known = grants::known_name(folder);
        fs::create_dir_all(known).map_err(folder_error)?;
        let path = known.join(FILE_NAME);
        // First of all: a file that another process writes looks damaged.
        let claim = Claim::take(known)?;
        file::inspect(&path)?;
        let database = file::open(&path)?;
        Ok(Self { path, database: Mutex::new(Some(database)), _claim: claim })
    }

    /// See [`super::Store::create`].
    pub fn create(&self, user: NewUser) -> Result<User, StoreError> {
        self.run(|database| {
            let now = now();
            let transaction = database.begin_write()?;
            let user = {
                let mut tables = Tables::open(&transaction)?;
                let user = User {
                    id: tables.next_id()?,
                    name: user.name,
                    email: user.email,
                    active: user.active,
                    created_at: now,
                    updated_at: now,
                };
                tables.put(&user)?;
                user
            };
            transaction.commit()?;
            Ok(user)
        })
    }

    /// See [`super::Store::get`].
    pub fn get(&self, id: UserId) -> Result<User, StoreError> {
        self.run(|database| {
            let users = database.begin_read()?.open_table(tables::USERS)?;
            tables::find(&users, id)?.ok_or(Failure::NotFound)
        })
    }

    /// See [`super::Store::update`].
    pub fn update(&self, id: UserId, patch: UserPatch) -> Result<User, StoreError> {
        self.run(|database| {
            let transaction = database.begin_write()?;
            let user = {
                let mut tables = Tables::open(&transaction)?;
                let before = tables::find(&tables.users, id)?.ok_or(Failure::NotFound)?;
                let Some(after) = patch.apply(&before, now()) else {
                    return Ok(before);
                };
                tables.remove(&before)?;
                tables.put(&after)?;
                after
            };
            transaction.commit()?;
            Ok(user)
        })
    }

    /// See [`super::Store::delete`].
    pub fn delete(&self, id: UserId) -> Result<(), StoreError> {
        self.run(|database| {
            let transaction = database.begin_write()?;
            {
                let mut tables = Tables::open(&transaction)?;
                let user = tables::find(&tables.users, id)?.ok_or(Failure::NotFound)?;
                tables.remove(&user)?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// See [`super::Store::page`].
    pub fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        self.run(|database| tables::read_page(&database.begin_read()?, query))
    }

    /// See [`super::Store::check`].
    pub fn check(&self) -> Result<(), StoreError> {
        self.run(|database| {
            database.begin_read()?.open_table(tables::META)?.get(tables::META_SCHEMA)?;
            Ok(())
        })
    }

    /// Runs an operation on the open database, which is opened anew after an I/O error.
    fn run<T>(&self, operation: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let mut slot = self.lock();
        let result = match reopened(&mut slot, &self.path) {
            Ok(database) => operation(database),
            Err(error) => Err(error.into()),
        };
        result.map_err(|failure| match failure {
            Failure::NotFound => StoreError::NotFound,
            Failure::DuplicateEmail => StoreError::DuplicateEmail,
            failure => {
                *slot = None;
                StoreError::Unavailable { reason: reason(&failure).into(), advice: None, cause: failure.into() }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        // A panic under the lock left at worst an unfinished transaction, which redb rolls back.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client may know of a failure.
fn reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::Redb(redb::Error::Io(e)) if is_full(e) => "the store has no room to write; reading still works",
        Failure::Redb(redb::Error::Corrupted(_)) | Failure::BadRow(_) => "the store is damaged",
        _ => "the store cannot be read or written",
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn reopened<'a>(slot: &'a mut Option<Database>, path: &Path) -> Result<&'a Database, OpenError> {
    match slot {
        Some(database) => Ok(database),
        None => Ok(slot.insert(file::open(path)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::{Email, Name};

    mod suite {
        use crate::store::Store;
        use crate::store::suite::store_suite;
        use crate::telemetry::metrics::Metrics;

        store_suite!({
            let folder = tempfile::tempdir().unwrap();
            (Store::open_embedded(folder.path(), &Metrics::new().unwrap()).unwrap(), folder)
        });
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Embedded::open(folder.path()).unwrap();
        let second = Embedded::open(folder.path());
        assert!(matches!(second, Err(OpenError::Claim(ClaimError::Taken { .. }))));
        drop(first);
        Embedded::open(folder.path()).unwrap();
    }

    #[test]
    fn what_is_not_a_store_is_refused_and_unharmed() {
        for content in [&b"hello, I am your shopping list"[..], b"x", &file::MAGIC] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE_NAME);
            fs::write(&path, content).unwrap();
            let error = Embedded::open(folder.path()).unwrap_err();
            assert!(matches!(error, OpenError::NotOurs { .. } | OpenError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn an_empty_file_becomes_an_empty_store() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), "").unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        assert!(store.page(&PageQuery { limit: 1, ..PageQuery::default() }).unwrap().users.is_empty());
    }

    #[test]
    fn a_later_schema_is_refused_and_unharmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        {
            let database = file::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(tables::META).unwrap().insert(tables::META_SCHEMA, tables::SCHEMA + 1).unwrap();
            transaction.commit().unwrap();
        }
        let before = fs::read(&path).unwrap();
        let error = Embedded::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::TooNew { found: 2, .. }), "{error}");
        assert!(fs::read(&path).unwrap() == before, "the file changed");
    }

    #[test]
    fn a_cut_file_is_refused_and_unharmed_wherever_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let store = filled(folder.path());
        let not_closed = fs::read(&path).unwrap();
        drop(store);
        let closed = fs::read(&path).unwrap();
        for (whole, what) in [(closed, "closed"), (not_closed, "not closed")] {
            for percent in [1, 10, 40, 60, 90, 99] {
                let cut = &whole[..whole.len() * percent / 100];
                fs::write(&path, cut).unwrap();
                let error = Embedded::open(folder.path()).unwrap_err();
                assert!(matches!(error, OpenError::Damaged { .. } | OpenError::NotOurs { .. }), "{percent} %: {error}");
                assert!(fs::read(&path).unwrap() == cut, "{what}, cut at {percent} %: the file changed");
            }
        }
    }

    fn filled(folder: &Path) -> Embedded {
        let store = Embedded::open(folder).unwrap();
        for n in 0..200 {
            let email = Email::parse(&format!("u{n}@x.org")).unwrap();
            store.create(NewUser { name: Name::parse("n").unwrap(), email, active: true }).unwrap();
        }
        store
    }
}
