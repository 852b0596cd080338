//! The schema: the numbered files of `sql/`, compiled in, applied where they are missing.
//!
//! Each is one DDL statement that can be repeated, and its record. So there is no lock: replicas
//! that start at once, or one that dies between a statement and its record, do no harm.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::Failure;

/// In the order of their numbers, which begin with 1.
const MIGRATIONS: [&str; 2] =
    [include_str!("../../../../sql/0001_schema_migrations.sql"), include_str!("../../../../sql/0002_users.sql")];

/// The newest schema that this version knows.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// What the server says of a table that is not there.
const NO_SUCH_TABLE: u16 = 1146;

/// Brings the schema up to date.
///
/// # Errors
/// `TooNew` where a later version has been at work; what the server says.
pub async fn apply(connection: &mut Conn) -> Result<(), Failure> {
    let found = version(connection).await?;
    if found > VERSION {
        return Err(Failure::TooNew { found });
    }
    for (number, script) in (1..).zip(MIGRATIONS).skip(found as usize) {
        tracing::info!(number, "applying a migration");
        for statement in statements(script) {
            connection.query_drop(statement).await?;
        }
    }
    Ok(())
}

/// The schema's number; 0 where there is none.
async fn version(connection: &mut Conn) -> Result<u32, Failure> {
    match connection.query_first::<Option<u32>, _>("SELECT MAX(version) FROM schema_migrations").await {
        Ok(row) => Ok(row.flatten().unwrap_or(0)),
        Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The statements of a script, which end with a semicolon at the end of a line.
fn statements(script: &str) -> impl Iterator<Item = &str> {
    script.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_is_one_repeatable_statement_and_its_own_record() {
        for (number, script) in (1..).zip(MIGRATIONS) {
            let statements: Vec<_> = statements(script).collect();
            assert_eq!(statements.len(), 2, "{number}");
            assert!(statements[0].contains("CREATE TABLE IF NOT EXISTS"), "{number}");
            assert_eq!(statements[1], format!("INSERT IGNORE INTO schema_migrations (version) VALUES ({number})"));
        }
    }
}
