//! The store people run in production: MySQL or MariaDB.

mod admission;
mod migrations;
mod operations;
mod pool;
mod tls;
mod url;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use operations::{Check, Create, Delete, Fetch, Get, Operation, Update};
use pool::Pool;
use tls::Refusal;
pub use tls::{Authorities, CertificateChain, Key, TlsConfig, read_authorities, read_chain, read_key};
pub use url::DatabaseUrl;

use super::{Page, PageQuery, PoolUsage, StoreError};
use crate::resolver::ResolveError;
use crate::user::{NewUser, User, UserId, UserPatch};

/// How often an operation is begun that others, or a closed connection, get in the way of.
const ATTEMPTS: u32 = 3;

/// Which database, and what it may take.
#[derive(Debug, Clone)]
pub struct MysqlConfig {
    /// Where it is.
    pub url: DatabaseUrl,
    /// The name server to ask for its name, whatever the system's files say.
    pub dns_server: Option<SocketAddr>,
    /// How connections are secured; `None`: not at all.
    pub tls: Option<TlsConfig>,
    /// Connections at most.
    pub connections: usize,
    /// Time for an operation, connecting and waiting for others included.
    pub deadline: Duration,
}

impl fmt::Display for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql at {}{}", self.url, if self.tls.is_some() { ", by TLS" } else { "" })
    }
}

/// Why the service must not go on with this database.
#[derive(Debug, Error)]
#[error(
    "the database {url} has schema {found}, written by a later version; this one knows {}: run that version",
    migrations::VERSION
)]
pub struct TooNew {
    url: DatabaseUrl,
    found: u32,
}

/// Why an operation failed, before it is told apart by what the client may know.
#[derive(Debug, Error)]
enum Failure {
    #[error("no such user")]
    NotFound,
    #[error("a row of the database is not as we write them: {0}")]
    BadRow(String),
    #[error("no connection becomes free in time")]
    Busy,
    #[error("no answer in time")]
    Slow,
    #[error("a transaction was left open: {0}")]
    LeftOpen(mysql_async::Error),
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    #[error("the server is read-only")]
    ReadOnly,
    #[error("the schema is {found}, a later one than we know")]
    TooNew { found: u32 },
    #[error(transparent)]
    Tls(Refusal),
    #[error(transparent)]
    Server(#[from] mysql_async::Error),
}

impl Failure {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Server(mysql_async::Error::Server(error)) => Some(error.code),
            _ => None,
        }
    }

    /// Others were in the way, and nothing is done: a deadlock, or a lock that was not to be had.
    fn is_of_a_lock(&self) -> bool {
        matches!(self.code(), Some(1205 | 1213))
    }

    /// The connection is gone.
    fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_fatal())
    }

    /// MariaDB says in its greeting that ANSI_QUOTES is on, by a flag (0x8000) that mysql_common
    /// 0.31 does not know and takes for a broken packet.
    fn is_of_ansi_quotes(&self) -> bool {
        self.is_of_the_connection() && self.to_string().contains("in the raw value of StatusFlags (raw=1")
    }

    /// The connection is gone, or something is left on it: an answer or a transaction.
    fn ends_the_connection(&self) -> bool {
        matches!(self, Self::Slow | Self::LeftOpen(_)) || self.is_of_the_connection()
    }

    /// What a client and `/readyz` may know. Codes are the same in MySQL and MariaDB.
    fn reason(&self) -> &'static str {
        match (self, self.code()) {
            (Self::Tls(refusal), _) => refusal.reason,
            (Self::TooNew { .. }, _) => "the database's schema is newer than this version of the service",
            (Self::Unresolved(ResolveError::OnlyIpv6(_)), _) => {
                "the database has only IPv6 addresses, and WasmEdge's sockets reach IPv4 only"
            }
            (Self::Unresolved(_), _) => "the database's name is not resolved",
            (Self::ReadOnly, _) | (_, Some(1290 | 1792 | 1836)) => "the database is read-only",
            _ if self.is_denied() => "the database denies access",
            // Galera's word for it is the one that MySQL has for a command that is not known.
            (_, Some(1047)) => "the database's node has not joined its cluster",
            (Self::Busy, _) => "more requests wait for the database than it can serve in time",
            (_, Some(1040 | 1203 | 1226 | 1461)) => "the database has no room for more connections",
            (_, Some(1205 | 1213)) => "the database was held up by other changes",
            (Self::Slow, _) | (_, Some(1317 | 1969 | 3024)) => "the database does not answer in time",
            _ if self.is_of_ansi_quotes() => {
                "the server's default sql_mode has ANSI_QUOTES, which the driver does not know; take it out there"
            }
            _ if self.is_of_the_connection() => "the database is unreachable",
            _ => "the database failed",
        }
    }

    /// What whoever runs the service needs to know beside the reason.
    fn advice(&self) -> Option<&str> {
        match self {
            Self::Tls(refusal) => Some(&refusal.advice),
            Self::Unresolved(ResolveError::OnlyIpv6(_)) => None,
            Self::Unresolved(_) => {
                Some("check the host in DATABASE_URL, and the name server (DNS_SERVER, or a granted /etc/resolv.conf)")
            }
            _ if self.is_denied() => Some("check user, password and database in DATABASE_URL, and the user's rights"),
            _ if self.is_of_ansi_quotes() => None,
            _ if self.is_of_the_connection() && self.code().is_none() => {
                Some("check host and port in DATABASE_URL, and that nothing in between keeps us from it")
            }
            _ => None,
        }
    }

    fn is_denied(&self) -> bool {
        matches!(self.code(), Some(1044 | 1045 | 1049 | 1142 | 1698))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match (&failure, failure.code()) {
            (Failure::NotFound, _) => Self::NotFound,
            // The only unique key beside the id, which the server gives.
            (_, Some(1062)) => Self::DuplicateEmail,
            _ => Self::Unavailable {
                reason: failure.reason().into(),
                advice: failure.advice().map(str::to_owned),
                cause: failure.into(),
            },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Mysql {
    pool: Pool,
    /// Time for an operation and all that it needs: a connection, the schema, further attempts.
    deadline: Duration,
    /// Set once the schema is up to date, which it stays.
    schema: OnceCell<()>,
}

impl Mysql {
    /// Begins with a database, which may be away for now: it is asked again by whatever needs it.
    ///
    /// # Errors
    /// If the database is there and its schema is not for us.
    pub async fn open(config: &MysqlConfig) -> Result<Self, TooNew> {
        let this = Self { pool: Pool::new(config), deadline: config.deadline, schema: OnceCell::new() };
        match this.prepare(this.until()).await {
            Err(Failure::TooNew { found }) => Err(TooNew { url: config.url.clone(), found }),
            Err(error) => {
                tracing::warn!(cause = %error, "{}; trying again when it is needed", error.reason());
                Ok(this)
            }
            Ok(()) => Ok(this),
        }
    }

    /// See [`super::Store::create`].
    pub async fn create(&self, user: NewUser) -> Result<User, StoreError> {
        self.run(Create(user)).await
    }

    /// See [`super::Store::get`].
    pub async fn get(&self, id: UserId) -> Result<User, StoreError> {
        self.run(Get(id)).await
    }

    /// See [`super::Store::update`].
    pub async fn update(&self, id: UserId, patch: UserPatch) -> Result<User, StoreError> {
        self.run(Update(id, patch)).await
    }

    /// See [`super::Store::delete`].
    pub async fn delete(&self, id: UserId) -> Result<(), StoreError> {
        self.run(Delete(id)).await
    }

    /// See [`super::Store::page`].
    pub async fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        self.run(Fetch(query.clone())).await
    }

    /// See [`super::Store::check`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.run(Check).await
    }

    /// See [`super::Store::pool`].
    pub fn pool(&self) -> PoolUsage {
        self.pool.usage()
    }

    /// When an operation that begins now is given up.
    fn until(&self) -> Instant {
        Instant::now() + self.deadline
    }

    async fn prepare(&self, until: Instant) -> Result<(), Failure> {
        let schema = self.schema.get_or_try_init(|| self.migrate(until));
        // Others may be at it, with deadlines of their own.
        timeout_at(until, schema).await.map_err(|_| Failure::Slow)?.copied()
    }

    async fn migrate(&self, until: Instant) -> Result<(), Failure> {
        let mut lease = self.pool.lease(until).await?;
        timeout_at(until, migrations::apply(&mut lease.connection)).await.map_err(|_| Failure::Slow)??;
        self.pool.give_back(lease);
        Ok(())
    }

    /// In a box, as every request would otherwise have to be as large as one that waits for a database.
    async fn run<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        Box::pin(self.attempts(operation)).await
    }

    async fn attempts<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        let until = self.until();
        self.prepare(until).await?;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(&operation, until).await {
                Ok(output) => return Ok(output),
                Err(failure) => failure,
            };
            let again = failure.is_of_a_lock() || (O::REPEATABLE && failure.is_of_the_connection());
            if !again || attempt == ATTEMPTS {
                return Err(failure.into());
            }
            attempt += 1;
        }
    }

    /// Once. What cannot be repeated goes to a connection that was seen to be there.
    async fn attempt<O: Operation>(&self, operation: &O, until: Instant) -> Result<O::Output, Failure> {
        let lease = if O::REPEATABLE { self.pool.lease(until).await } else { self.pool.lease_checked(until).await };
        let mut lease = lease?;
        let result = timeout_at(until, operation.run(&mut lease.connection)).await;
        let result = result.unwrap_or(Err(Failure::Slow));
        match &result {
            // The others are from before the same event, such as a restart of the server.
            Err(failure) if failure.ends_the_connection() => self.pool.forget_idle(),
            _ => self.pool.give_back(lease),
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness::{Database, Flavour};

    use super::{DatabaseUrl, MysqlConfig};
    use crate::store::{Store, StoreConfig};
    use crate::telemetry::metrics::Metrics;

    /// A store in a new database, which ends with the second of the pair.
    async fn store(flavour: Flavour) -> (Store, Database) {
        let database = Database::start_of(flavour);
        let url = DatabaseUrl::parse(&database.url()).unwrap();
        let config =
            MysqlConfig { url, dns_server: None, tls: None, connections: 2, deadline: Duration::from_secs(20) };
        (Store::open(&StoreConfig::Mysql(config), &Metrics::new().unwrap()).await.unwrap(), database)
    }

    mod on_mariadb {
        use crate::store::suite::store_suite;

        store_suite!(super::store(harness::Flavour::MariaDb).await);
    }

    mod on_mysql {
        use crate::store::suite::store_suite;

        store_suite!(super::store(harness::Flavour::MySql).await);
    }
}
