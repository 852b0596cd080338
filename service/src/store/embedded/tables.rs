//! The tables of the file, kept in step with each other.

use jiff::Timestamp;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction,
};

use super::Failure;
use crate::store::{Page, PageQuery};
use crate::user::{Email, Name, User, UserId};

/// The layout of the tables below. A file with a larger number comes from a later version.
pub const SCHEMA: u64 = 1;

/// Name, e-mail address, active, and both times in microseconds since 1970.
pub type Row<'a> = (&'a str, &'a str, bool, i64, i64);

/// Users by id.
pub const USERS: TableDefinition<u64, Row> = TableDefinition::new("users");
/// By [`Email::key`]: what makes addresses unique.
const EMAILS: TableDefinition<&str, u64> = TableDefinition::new("emails");
/// Pages of one kind of users cost no more than pages of all.
const BY_ACTIVE: TableDefinition<(bool, u64), ()> = TableDefinition::new("by_active");
/// Numbers about the store itself.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The number in [`META`] that says how the tables are laid out.
pub const META_SCHEMA: &str = "schema";
/// The largest id ever given, so that none is given twice.
const META_LAST_ID: &str = "last_id";

/// The schema's number, or `None` where there are no tables at all.
pub fn schema(database: &impl ReadableDatabase) -> Result<Option<u64>, Failure> {
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

/// Makes the tables of an empty file.
pub fn create(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        tables.meta.insert(META_SCHEMA, SCHEMA)?;
        tables.meta.insert(META_LAST_ID, 0)?;
    }
    Ok(transaction.commit()?)
}

/// The tables of one write, kept in step with each other.
pub struct Tables<'t> {
    /// Users by id.
    pub users: Table<'t, u64, Row<'static>>,
    emails: Table<'t, &'static str, u64>,
    by_active: Table<'t, (bool, u64), ()>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    /// Opens them, making those that are missing.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            users: transaction.open_table(USERS)?,
            emails: transaction.open_table(EMAILS)?,
            by_active: transaction.open_table(BY_ACTIVE)?,
            meta: transaction.open_table(META)?,
        })
    }

    /// An id that was never given before.
    pub fn next_id(&mut self) -> Result<UserId, Failure> {
        let last = self.meta.get(META_LAST_ID)?.map_or(0, |id| id.value());
        let next = last.checked_add(1).and_then(UserId::new);
        let id = next.ok_or_else(|| Failure::BadRow(format!("no id is left after {last}")))?;
        self.meta.insert(META_LAST_ID, id.get())?;
        Ok(id)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// `DuplicateEmail`; the transaction must not be committed then.
    pub fn put(&mut self, user: &User) -> Result<(), Failure> {
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

    /// Removes a user that is there.
    pub fn remove(&mut self, user: &User) -> Result<(), Failure> {
        self.emails.remove(user.email.key().as_str())?;
        self.by_active.remove((user.active, user.id.get()))?;
        self.users.remove(user.id.get())?;
        Ok(())
    }
}

/// The user with this id.
pub fn find(users: &impl ReadableTable<u64, Row<'static>>, id: UserId) -> Result<Option<User>, Failure> {
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

/// See [`crate::store::Store::page`].
pub fn read_page(transaction: &ReadTransaction, query: &PageQuery) -> Result<Page, Failure> {
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
