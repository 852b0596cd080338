//! Connections, kept for the next operation.
//!
//! Our own and not the driver's: that one resets a connection on its way back, which is two round
//! trips more for each request and an empty statement cache, and reads on from a connection whose
//! request was given up for as long as the server is silent. Here a connection comes back only from
//! an operation that ended well; every other is dropped.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::Failure;
use super::url::DatabaseUrl;
use crate::resolver::Resolver;

/// Prepared statements that a connection keeps: more than there are, as one that falls out of the
/// cache costs 44 ms (a message that has no answer, then Nagle's algorithm).
const STATEMENTS: usize = 32;

/// The largest packet and the server's patience with an idle connection. Ours are far smaller, and
/// a connection that was closed is replaced; saying so saves a query for each new connection.
const PACKET_MAX: usize = 16 << 20;
const SERVER_PATIENCE_SECS: usize = 28_800;

/// What a connection must agree on with us, whatever the server's own defaults are: times in UTC,
/// nothing cut short silently, every statement durable by itself, text in UTF-8, and no wait for a
/// lock beyond `patience`. In the reverse order, as the driver takes them from the end.
fn session(patience: Duration) -> Vec<String> {
    let seconds = patience.as_secs().max(1);
    vec![
        format!(
            "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', autocommit = 1, \
             innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}"
        ),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
        "SET NAMES utf8mb4".to_owned(),
    ]
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    /// A name or an address.
    host: String,
    resolver: Resolver,
    options: Opts,
    patience: Duration,
    places: Semaphore,
    idle: Mutex<Vec<Conn>>,
}

/// A connection in use, closed when it is dropped; see [`Pool::give_back`].
#[derive(Debug)]
pub struct Lease<'p> {
    /// The connection.
    pub connection: Conn,
    /// Whether it was made for this lease; an older one may have been closed by the server.
    is_new: bool,
    _place: SemaphorePermit<'p>,
}

impl Pool {
    /// A pool without connections yet, and with `size` at most. Connecting, and waiting for a
    /// place, may each take `patience`.
    pub fn new(url: &DatabaseUrl, resolver: Resolver, size: usize, patience: Duration) -> Self {
        let options = OptsBuilder::default()
            .tcp_port(url.port)
            .user(Some(url.user.clone()))
            .pass(Some(url.password.clone()))
            .db_name(Some(url.database.clone()))
            .client_found_rows(true)
            .init(session(patience))
            .max_allowed_packet(Some(PACKET_MAX))
            .wait_timeout(Some(SERVER_PATIENCE_SECS))
            .prefer_socket(Some(false))
            .stmt_cache_size(Some(STATEMENTS));
        Self {
            host: url.host.clone(),
            resolver,
            options: options.into(),
            patience,
            places: Semaphore::new(size),
            idle: Mutex::default(),
        }
    }

    /// A connection, perhaps one that the server has closed meanwhile.
    ///
    /// # Errors
    /// `Busy` or `Slow` when it takes too long, `Unresolved`; what the server says.
    pub async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let place = timeout(self.patience, self.places.acquire()).await;
        let place = place.ok().and_then(Result::ok).ok_or(Failure::Busy)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let is_new = idle.is_none();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { connection, is_new, _place: place })
    }

    /// A connection that answers.
    ///
    /// # Errors
    /// As [`Pool::lease`].
    pub async fn lease_checked(&self) -> Result<Lease<'_>, Failure> {
        let mut lease = self.lease().await?;
        if !lease.is_new && !matches!(timeout(self.patience, lease.connection.ping()).await, Ok(Ok(()))) {
            lease.connection = self.connect().await?;
        }
        Ok(lease)
    }

    /// Takes a connection back whose last answer was read to its end.
    pub fn give_back(&self, lease: Lease<'_>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lease.connection);
    }

    /// Closes all connections that are not in use.
    pub fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A connection to the first of the host's addresses that gives one. They are looked up each time:
    /// after a failover the name has another address. Every attempt has an equal share of what time
    /// is left, so that one to an address where nobody answers leaves some for the next.
    async fn connect(&self) -> Result<Conn, Failure> {
        let deadline = Instant::now() + self.patience;
        let addresses = self.resolver.resolve(&self.host).await?;
        let mut failure = Failure::Slow;
        for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout(share, self.connect_to(*address)).await.unwrap_or(Err(Failure::Slow)) {
                Ok(connection) => return Ok(connection),
                // What a server says is worth more than that another one is away.
                Err(error) if failure.ends_the_connection() => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, address: IpAddr) -> Result<Conn, Failure> {
        let options = OptsBuilder::from_opts(self.options.clone()).ip_or_hostname(address.to_string());
        Ok(Conn::new(options).await?)
    }
}
