//! The store for a service with nothing configured: one redb file in the service's own folder.
//!
//! Every acknowledged write is on the disk before it is acknowledged. Reads and writes do not wait
//! for anything but the disk, so the operations are not async.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, TableHandle,
    WriteTransaction,
};
use thiserror::Error;

use super::claim::{Claim, ClaimError};
use super::rehearsal::Rehearsal;
use super::{Page, PageQuery, StoreError};
use crate::user::{Email, Name, NewUser, User, UserId, UserPatch, now};

/// The store's file in its folder.
const FILE_NAME: &str = "users.redb";

/// The first bytes of every redb file.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Pages kept in memory, in bytes; enough for the inner nodes of a million users.
const CACHE_BYTES: usize = 16 << 20;

/// The layout of the tables below. A file with a larger number comes from a later version.
const SCHEMA: u64 = 1;

/// Name, e-mail address, active, and both times in microseconds since 1970.
type Row<'a> = (&'a str, &'a str, bool, i64, i64);

const USERS: TableDefinition<u64, Row> = TableDefinition::new("users");
/// By [`Email::key`]: what makes addresses unique.
const EMAILS: TableDefinition<&str, u64> = TableDefinition::new("emails");
/// Pages of one kind of users cost no more than pages of all.
const BY_ACTIVE: TableDefinition<(bool, u64), ()> = TableDefinition::new("by_active");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_SCHEMA: &str = "schema";
/// The largest id ever given, so that none is given twice.
const META_LAST_ID: &str = "last_id";

/// Why the store could not be opened. The file is as it was.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error(
        "cannot use the folder {}: {cause}; make it, make it writable, \
         grant it to the module (wasmedge --dir), or set DATA_DIR to another",
        path.display()
    )]
    Folder { path: PathBuf, cause: io::Error },
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
        "{} was written by a later version (its schema is {found}, this version knows {SCHEMA}); \
         run that version or restore an older backup",
        path.display()
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
        let folder_error = |cause| OpenError::Folder { path: folder.to_owned(), cause };
        fs::create_dir_all(folder).map_err(folder_error)?;
        let path = folder.join(FILE_NAME);
        inspect(&path)?;
        let claim = Claim::take(folder)?;
        let database = open_database(&path)?;
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
                    name: user.name.clone(),
                    email: user.email.clone(),
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
            let users = database.begin_read()?.open_table(USERS)?;
            find(&users, id)?.ok_or(Failure::NotFound)
        })
    }

    /// See [`super::Store::update`].
    pub fn update(&self, id: UserId, patch: UserPatch) -> Result<User, StoreError> {
        self.run(|database| {
            let transaction = database.begin_write()?;
            let user = {
                let mut tables = Tables::open(&transaction)?;
                let before = find(&tables.users, id)?.ok_or(Failure::NotFound)?;
                let Some(after) = patch.clone().apply(&before, now()) else {
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
                let user = find(&tables.users, id)?.ok_or(Failure::NotFound)?;
                tables.remove(&user)?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// See [`super::Store::page`].
    pub fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        self.run(|database| read_page(database, query))
    }

    /// See [`super::Store::check`].
    pub fn check(&self) -> Result<(), StoreError> {
        self.run(|database| {
            database.begin_read()?.open_table(META)?.get(META_SCHEMA)?;
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
                StoreError::Unavailable { reason: reason(&failure).into(), cause: failure.into() }
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
        None => Ok(slot.insert(open_database(path)?)),
    }
}

/// Refuses what is not a store before anything is written.
fn inspect(path: &Path) -> Result<(), OpenError> {
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
    let rehearsal = Rehearsal::of(path).and_then(|file| builder().create_with_backend(file));
    check_schema(&rehearsal.map_err(|error| open_error(path, error))?, path).map(drop)
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let database = builder().create(path).map_err(|error| open_error(path, error))?;
    if !check_schema(&database, path)? {
        create_tables(&database).map_err(|error| damaged(path, &error))?;
    }
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(|session| {
        let percent = (session.progress() * 100.0).round();
        tracing::info!(percent, "the store was not closed; repairing it");
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
    match schema(database).map_err(|error| damaged(path, &error))? {
        None => Ok(false),
        Some(SCHEMA) => Ok(true),
        Some(found) if found > SCHEMA => Err(OpenError::TooNew { path: path.to_owned(), found }),
        Some(found) => Err(damaged(path, &Failure::BadRow(format!("there is no schema {found}")))),
    }
}

/// The schema's number, or `None` where there are no tables at all.
fn schema(database: &impl ReadableDatabase) -> Result<Option<u64>, Failure> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => {
            let number = meta.get(META_SCHEMA)?.map(|number| number.value());
            number.map(Some).ok_or_else(|| Failure::BadRow("it has no schema number".to_owned()))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => match transaction.list_tables()?.next() {
            None => Ok(None),
            Some(table) => Err(Failure::BadRow(format!("it has a table {}", table.name()))),
        },
        Err(error) => Err(error.into()),
    }
}

fn create_tables(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        tables.meta.insert(META_SCHEMA, SCHEMA)?;
        tables.meta.insert(META_LAST_ID, 0)?;
    }
    Ok(transaction.commit()?)
}

/// The tables of one write, kept in step with each other.
struct Tables<'t> {
    users: Table<'t, u64, Row<'static>>,
    emails: Table<'t, &'static str, u64>,
    by_active: Table<'t, (bool, u64), ()>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            users: transaction.open_table(USERS)?,
            emails: transaction.open_table(EMAILS)?,
            by_active: transaction.open_table(BY_ACTIVE)?,
            meta: transaction.open_table(META)?,
        })
    }

    fn next_id(&mut self) -> Result<UserId, Failure> {
        let last = self.meta.get(META_LAST_ID)?.map_or(0, |id| id.value());
        let next = last.checked_add(1).and_then(UserId::new);
        let id = next.ok_or_else(|| Failure::BadRow(format!("no id is left after {last}")))?;
        self.meta.insert(META_LAST_ID, id.get())?;
        Ok(id)
    }

    fn put(&mut self, user: &User) -> Result<(), Failure> {
        let id = user.id.get();
        let taken = self.emails.insert(user.email.key().as_str(), id)?.is_some();
        if taken {
            return Err(Failure::DuplicateEmail);
        }
        let times = (user.created_at.as_microsecond(), user.updated_at.as_microsecond());
        self.users.insert(id, (user.name.as_str(), user.email.as_str(), user.active, times.0, times.1))?;
        self.by_active.insert((user.active, id), ())?;
        Ok(())
    }

    fn remove(&mut self, user: &User) -> Result<(), Failure> {
        self.emails.remove(user.email.key().as_str())?;
        self.by_active.remove((user.active, user.id.get()))?;
        self.users.remove(user.id.get())?;
        Ok(())
    }
}

fn find(users: &impl ReadableTable<u64, Row<'static>>, id: UserId) -> Result<Option<User>, Failure> {
    users.get(id.get())?.map(|row| user(id.get(), row.value())).transpose()
}

fn user(id: u64, (name, email, active, created, updated): Row<'_>) -> Result<User, Failure> {
    let bad = |what: &str| Failure::BadRow(format!("{what} of user {id}"));
    let time = |micros| Timestamp::from_microsecond(micros).map_err(|_| bad("the time"));
    Ok(User {
        id: UserId::new(id).ok_or_else(|| bad("the id"))?,
        name: Name::from_store(name),
        email: Email::from_store(email),
        active,
        created_at: time(created)?,
        updated_at: time(updated)?,
    })
}

fn read_page(database: &Database, query: &PageQuery) -> Result<Page, Failure> {
    let transaction = database.begin_read()?;
    let users = transaction.open_table(USERS)?;
    let first = query.after.map_or(1, |id| id.get() + 1);
    // One more than asked for tells whether there are more.
    let wanted = query.limit.saturating_add(1);
    let mut found: Vec<User> = match (&query.email, query.active) {
        (Some(email), active) => {
            let id = transaction.open_table(EMAILS)?.get(email.key().as_str())?.map(|id| id.value());
            let id = id.filter(|id| *id >= first).and_then(UserId::new);
            let user = id.map(|id| find(&users, id)).transpose()?.flatten();
            user.into_iter().filter(|user| active.is_none_or(|active| user.active == active)).collect()
        }
        (None, Some(active)) => {
            let index = transaction.open_table(BY_ACTIVE)?;
            let ids = index.range((active, first)..=(active, UserId::MAX))?;
            ids.take(wanted)
                .map(|entry| {
                    let (_, id) = entry?.0.value();
                    let row = users.get(id)?.ok_or_else(|| Failure::BadRow(format!("the index names user {id}")))?;
                    user(id, row.value())
                })
                .collect::<Result<_, Failure>>()?
        }
        (None, None) => users
            .range(first..=UserId::MAX)?
            .take(wanted)
            .map(|entry| {
                let (id, row) = entry?;
                user(id.value(), row.value())
            })
            .collect::<Result<_, Failure>>()?,
    };
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    Ok(Page { users: found, more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    mod suite {
        use crate::store::Store;
        use crate::store::suite::store_suite;

        store_suite!({
            let folder = tempfile::tempdir().unwrap();
            (Store::open_embedded(folder.path()).unwrap(), folder)
        });
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open_embedded(folder.path()).unwrap();
        let second = Store::open_embedded(folder.path());
        assert!(matches!(second, Err(OpenError::Claim(ClaimError::Taken { .. }))));
        drop(first);
        Store::open_embedded(folder.path()).unwrap();
    }

    #[test]
    fn what_is_not_a_store_is_refused_and_unharmed() {
        for content in [&b"hello, I am your shopping list"[..], b"x", &MAGIC] {
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
            let database = open_database(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert(META_SCHEMA, SCHEMA + 1).unwrap();
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
