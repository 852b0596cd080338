//! What is done with a connection: the SQL, and rows to users and back.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value, params};

use super::Failure;
use crate::store::{Page, PageQuery};
use crate::user::{Email, Name, NewUser, User, UserId, UserPatch, now};

/// Something to do with a connection. It may be done again from the start, on another one.
pub trait Operation: Send + Sync {
    /// What it gives.
    type Output: Send;

    /// Whether doing it twice is the same as doing it once.
    const REPEATABLE: bool;

    /// Does it; afterwards nothing is left to read and no transaction is open, unless it fails in a
    /// way that ends the connection.
    fn run(&self, connection: &mut Conn) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// See [`crate::store::Store::create`].
pub struct Create(pub NewUser);

impl Operation for Create {
    type Output = User;
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Conn) -> Result<User, Failure> {
        let NewUser { name, email, active } = self.0.clone();
        let now = now();
        let insert = "INSERT INTO users (name, email, email_key, active, created_at, updated_at) \
                      VALUES (:name, :email, :email_key, :active, :now, :now)";
        let row = params! {
            "name" => name.as_str(),
            "email" => email.as_str(),
            "email_key" => email.key().into_bytes(),
            "active" => active,
            "now" => datetime(now),
        };
        connection.exec_drop(insert, row).await?;
        let id = connection.last_insert_id().and_then(UserId::new);
        let id = id.ok_or_else(|| Failure::BadRow("the server gave no id".to_owned()))?;
        Ok(User { id, name, email, active, created_at: now, updated_at: now })
    }
}

/// See [`crate::store::Store::get`].
pub struct Get(pub UserId);

impl Operation for Get {
    type Output = User;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut Conn) -> Result<User, Failure> {
        let select = "SELECT id, name, email, active, created_at, updated_at FROM users WHERE id = ?";
        first(connection, select, (self.0.get(),).into()).await
    }
}

/// See [`crate::store::Store::update`].
pub struct Update(pub UserId, pub UserPatch);

impl Operation for Update {
    type Output = User;
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Conn) -> Result<User, Failure> {
        let result = self.transaction(connection).await;
        match &result {
            // With the connection, the transaction is gone too.
            Err(failure) if !failure.is_of_the_connection() => {
                connection.query_drop("ROLLBACK").await.map_err(Failure::LeftOpen)?;
            }
            _ => {}
        }
        result
    }
}

impl Update {
    async fn transaction(&self, connection: &mut Conn) -> Result<User, Failure> {
        connection.query_drop("START TRANSACTION").await?;
        let user = self.change(connection).await?;
        connection.query_drop("COMMIT").await?;
        Ok(user)
    }

    async fn change(&self, connection: &mut Conn) -> Result<User, Failure> {
        let select = "SELECT id, name, email, active, created_at, updated_at FROM users WHERE id = ? FOR UPDATE";
        let before = first(connection, select, (self.0.get(),).into()).await?;
        let Some(after) = self.1.clone().apply(&before, now()) else { return Ok(before) };
        let update = "UPDATE users SET name = :name, email = :email, email_key = :email_key, active = :active, \
                      updated_at = :updated_at WHERE id = :id";
        let row = params! {
            "name" => after.name.as_str(),
            "email" => after.email.as_str(),
            "email_key" => after.email.key().into_bytes(),
            "active" => after.active,
            "updated_at" => datetime(after.updated_at),
            "id" => after.id.get(),
        };
        connection.exec_drop(update, row).await?;
        Ok(after)
    }
}

/// See [`crate::store::Store::delete`].
pub struct Delete(pub UserId);

impl Operation for Delete {
    type Output = ();
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Conn) -> Result<(), Failure> {
        connection.exec_drop("DELETE FROM users WHERE id = ?", (self.0.get(),)).await?;
        if connection.affected_rows() == 0 { Err(Failure::NotFound) } else { Ok(()) }
    }
}

/// See [`crate::store::Store::page`].
pub struct Fetch(pub PageQuery);

impl Operation for Fetch {
    type Output = Page;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut Conn) -> Result<Page, Failure> {
        let PageQuery { after, limit, active, email } = &self.0;
        let mut select = "SELECT id, name, email, active, created_at, updated_at FROM users WHERE id > ?".to_owned();
        let mut values: Vec<Value> = vec![after.map_or(0, UserId::get).into()];
        if let Some(active) = active {
            select.push_str(" AND active = ?");
            values.push((*active).into());
        }
        if let Some(email) = email {
            select.push_str(" AND email_key = ?");
            values.push(email.key().into_bytes().into());
        }
        select.push_str(" ORDER BY id LIMIT ?");
        // One more than asked for tells whether there are more.
        values.push((*limit as u64).saturating_add(1).into());
        let rows: Vec<Row> = connection.exec(select, Params::Positional(values)).await?;
        let more = rows.len() > *limit;
        let users = rows.into_iter().take(*limit).map(user).collect::<Result<_, _>>()?;
        Ok(Page { users, more })
    }
}

/// See [`crate::store::Store::check`].
pub struct Check;

impl Operation for Check {
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut Conn) -> Result<(), Failure> {
        let read_only: Option<bool> = connection.query_first("SELECT @@read_only").await?;
        if read_only == Some(true) { Err(Failure::ReadOnly) } else { Ok(()) }
    }
}

async fn first(connection: &mut Conn, select: &str, values: Params) -> Result<User, Failure> {
    let row: Option<Row> = connection.exec_first(select, values).await?;
    row.map(user).transpose()?.ok_or(Failure::NotFound)
}

fn user(row: Row) -> Result<User, Failure> {
    let bad = |what: &str| Failure::BadRow(format!("{what} of a user"));
    let columns = mysql_async::from_row_opt::<(u64, String, String, bool, Value, Value)>(row);
    let (id, name, email, active, created, updated) = columns.map_err(|_| bad("a column"))?;
    let time = |value: Value| timestamp(&value).ok_or_else(|| bad("the time"));
    Ok(User {
        id: UserId::new(id).ok_or_else(|| bad("the id"))?,
        name: Name::from_store(&name),
        email: Email::from_store(&email),
        active,
        created_at: time(created)?,
        updated_at: time(updated)?,
    })
}

/// A time as DATETIME(6) in UTC.
fn datetime(time: Timestamp) -> Value {
    let t = time.to_zoned(TimeZone::UTC).datetime();
    let part = |n: i8| n.unsigned_abs();
    let micros = t.subsec_nanosecond().unsigned_abs() / 1000;
    Value::Date(
        t.year().unsigned_abs(),
        part(t.month()),
        part(t.day()),
        part(t.hour()),
        part(t.minute()),
        part(t.second()),
        micros,
    )
}

fn timestamp(value: &Value) -> Option<Timestamp> {
    let &Value::Date(year, month, day, hour, minute, second, micros) = value else { return None };
    let part = |n: u8| i8::try_from(n).ok();
    let nanos = i32::try_from(micros).ok()?.checked_mul(1000)?;
    let year = i16::try_from(year).ok()?;
    let time = DateTime::new(year, part(month)?, part(day)?, part(hour)?, part(minute)?, part(second)?, nanos).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_to_the_database_and_back() {
        for micros in [0, 1, 999_999, 1_764_072_000_123_456, 4_102_444_799_999_999] {
            let time = Timestamp::from_microsecond(micros).unwrap();
            assert_eq!(timestamp(&datetime(time)), Some(time));
        }
        assert_eq!(timestamp(&Value::NULL), None);
        assert_eq!(timestamp(&Value::Date(0, 0, 0, 0, 0, 0, 0)), None);
    }
}
