//! Connections, kept for the next operation.
//!
//! Our own and not the driver's: that one resets a connection on its way back, which is two round
//! trips more for each request and an empty statement cache, and reads on from a connection whose
//! request was given up for as long as the server is silent. Here a connection comes back only from
//! an operation that ended well; every other is dropped.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::Admission;
use super::tls::Refusal;
use super::{ATTEMPTS, Failure, MysqlConfig, TlsConfig};
use crate::resolver::Resolver;
use crate::store::PoolUsage;

/// Prepared statements that a connection keeps: more than there are, as one that falls out of the
/// cache costs 44 ms (a message that has no answer, then Nagle's algorithm).
const STATEMENTS: usize = 32;

/// The largest packet and the server's patience with an idle connection. Ours are far smaller, and
/// a connection that was closed is replaced; saying so saves a query for each new connection.
const PACKET_MAX: usize = 16 << 20;
const SERVER_PATIENCE_SECS: usize = 28_800;

/// How often in an operation's time it is judged whether going on to wait for a connection is worth it.
const LOOKS: u32 = 10;

/// What a connection must agree on with us, whatever the server's own defaults are: times in UTC,
/// nothing cut short silently, every statement durable by itself, text in UTF-8, and bounds on what
/// a statement may take of an operation's `deadline`. In the reverse order, as the driver takes them
/// from the end.
///
/// The wait for a lock, in whole seconds, is short enough for every attempt to have its own. The
/// statement is ended by the server a little before we give it up, so that it is not left running:
/// MariaDB ends any, MySQL and what is like it those that only read. Each sees its own comment.
fn session(deadline: Duration) -> Vec<String> {
    let lock = (deadline / ATTEMPTS).as_secs().max(1);
    let statement = (deadline * 9 / 10).as_millis().max(1);
    let (seconds, millis) = (statement / 1000, statement % 1000);
    vec![
        format!(
            "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', autocommit = 1, \
             innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}\
             /*M!100101 , max_statement_time = {seconds}.{millis:03} */\
             /*!50708 , max_execution_time = {statement} */"
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
    tls: Option<TlsConfig>,
    places: Semaphore,
    size: usize,
    /// Time for an operation.
    deadline: Duration,
    admission: Mutex<Admission>,
    /// How many operations got no connection because they would have had to wait for too long.
    timeouts: AtomicU64,
    idle: Mutex<Vec<Conn>>,
}

/// A connection in use, closed when it is dropped; see [`Pool::give_back`].
#[derive(Debug)]
pub struct Lease<'p> {
    /// The connection.
    pub connection: Conn,
    /// Whether it was made for this lease; an older one may have been closed by the server.
    is_new: bool,
    place: Place<'p>,
}

/// The right to one of the connections, until it is dropped.
#[derive(Debug)]
struct Place<'p> {
    pool: &'p Pool,
    /// When the operation began that is measured.
    since: Instant,
    /// Whether that came to its end.
    is_done: bool,
    _permit: SemaphorePermit<'p>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.pool.admission().end(now, now.saturating_duration_since(self.since), self.is_done);
    }
}

/// One who waits for a place, until it is dropped.
struct Waiting<'p>(&'p Pool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.admission().leave();
    }
}

impl Pool {
    /// A pool without connections yet.
    pub fn new(config: &MysqlConfig) -> Self {
        let MysqlConfig { url, dns_server, tls, connections, deadline } = config.clone();
        let options = OptsBuilder::default()
            .tcp_port(url.port)
            .user(Some(url.user))
            .pass(Some(url.password))
            .db_name(Some(url.database))
            .client_found_rows(true)
            .init(session(deadline))
            .max_allowed_packet(Some(PACKET_MAX))
            .wait_timeout(Some(SERVER_PATIENCE_SECS))
            .prefer_socket(Some(false))
            .ssl_opts(tls.is_some().then(SslOpts::default))
            .stmt_cache_size(Some(STATEMENTS));
        Self {
            host: url.host,
            resolver: Resolver::new(dns_server),
            options: options.into(),
            tls,
            places: Semaphore::new(connections),
            size: connections,
            deadline,
            admission: Mutex::new(Admission::new(connections, Instant::now())),
            timeouts: AtomicU64::new(0),
            idle: Mutex::default(),
        }
    }

    /// A connection, perhaps one that the server has closed meanwhile.
    ///
    /// # Errors
    /// `Busy` when it would take too long, at once if that can be foreseen; `Slow`, `Unresolved`, `Tls`; what
    /// the server says.
    pub async fn lease(&self, until: Instant) -> Result<Lease<'_>, Failure> {
        let Some(mut place) = self.place(until).await else {
            self.timeouts.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Busy);
        };
        let idle = self.idle().pop();
        let is_new = idle.is_none();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect(until).await?,
        };
        if is_new {
            // Most operations find a connection, so what it costs says nothing about the next.
            place.since = Instant::now();
        }
        Ok(Lease { connection, is_new, place })
    }

    /// A connection that answers.
    ///
    /// # Errors
    /// As [`Pool::lease`].
    pub async fn lease_checked(&self, until: Instant) -> Result<Lease<'_>, Failure> {
        let mut lease = self.lease(until).await?;
        if !lease.is_new && !answers(&mut lease.connection, until).await {
            self.forget_idle();
            lease.connection = self.connect(until).await?;
        }
        Ok(lease)
    }

    /// Takes a connection back whose last answer was read to its end.
    pub fn give_back(&self, lease: Lease<'_>) {
        let Lease { connection, mut place, .. } = lease;
        place.is_done = true;
        self.idle().push(connection);
    }

    /// Closes all connections that are not in use.
    pub fn forget_idle(&self) {
        self.idle().clear();
    }

    /// How it is used at the moment.
    pub fn usage(&self) -> PoolUsage {
        PoolUsage {
            used: self.size.saturating_sub(self.places.available_permits()),
            idle: self.idle().len(),
            waiting: self.admission().waiting(),
            timeouts: self.timeouts.load(Ordering::Relaxed),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, once there is one; `None` if waiting for it is not worth it, or no longer.
    async fn place(&self, until: Instant) -> Option<Place<'_>> {
        let permit = match self.places.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait(until).await?,
        };
        let now = Instant::now();
        self.admission().grant(now);
        Some(Place { pool: self, since: now, is_done: false, _permit: permit })
    }

    async fn wait(&self, until: Instant) -> Option<SemaphorePermit<'_>> {
        let mut now = Instant::now();
        let ticket = self.admission().join(now, until.saturating_duration_since(now))?;
        let _waiting = Waiting(self);
        let mut permit = pin!(self.places.acquire());
        loop {
            let look = until.min(now + self.deadline / LOOKS);
            if let Ok(permit) = timeout_at(look, &mut permit).await {
                return permit.ok();
            }
            now = Instant::now();
            if !self.admission().is_worth_it(ticket, now, until.saturating_duration_since(now)) {
                return None;
            }
        }
    }

    /// A connection to the first of the host's addresses that gives one. They are looked up each time:
    /// after a failover the name has another address. Every attempt has an equal share of what time
    /// is left, so that one to an address where nobody answers leaves some for the next.
    async fn connect(&self, until: Instant) -> Result<Conn, Failure> {
        let addresses = self.resolver.resolve(&self.host, until).await?;
        let mut failure = Failure::Slow;
        for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
            let share = until.saturating_duration_since(Instant::now()) / left;
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
        let connected = match &self.tls {
            Some(tls) => tls.scope(Conn::new(options)).await,
            None => Conn::new(options).await,
        };
        connected.map_err(|error| Refusal::of(&error).map_or_else(|| error.into(), Failure::Tls))
    }
}

/// Whether there is still somebody at the other end, who may have gone without a word: half of the
/// time left is for a connection in its place.
async fn answers(connection: &mut Conn, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    matches!(timeout(left / 2, connection.ping()).await, Ok(Ok(())))
}
