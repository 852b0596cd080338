//! Names to addresses, without blocking: a guest has one thread, and what WasmEdge offers for this
//! stops it until there is an answer.
//!
//! Name servers are asked over TCP (RFC 7766). UDP would need a random source to tell a true answer
//! from a forged one, which a guest does not have.

mod exchange;
mod host;
mod hosts;
mod lookup;
mod name_servers;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

pub use name_servers::server_address;

use crate::grants;
use lookup::Lookup;
use name_servers::NameServers;

/// Addresses of a name at most: each is tried in turn, within one deadline.
const ADDRESSES_MAX: usize = 8;

/// Of a file, at most so much is read. `/etc/hosts` can be large where it keeps advertisers out.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why there is no address.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum ResolveError {
    #[error("{0} cannot be the name of a host")]
    BadName(String),
    #[error("there is no name {0}")]
    NoSuchName(String),
    #[error("the name {0} has no address")]
    NoAddress(String),
    #[error("{0} has only IPv6 addresses, and WasmEdge's sockets reach IPv4 only")]
    OnlyIpv6(String),
    #[error("{0} is an alias of an alias, and so on without an end in sight")]
    TooManyAliases(String),
    #[error("the name server {server} answers {code} for {name}")]
    Failed { server: SocketAddr, code: String, name: String },
    #[error("the name server {server} gives an answer that is none: {what}")]
    BadAnswer { server: SocketAddr, what: &'static str },
    #[error("the name server {server} is unreachable over TCP: {cause}")]
    Unreachable { server: SocketAddr, cause: io::Error },
    #[error("the name server {server} has an IPv6 address, and WasmEdge's sockets reach IPv4 only")]
    ServerOnIpv6 { server: SocketAddr },
    #[error("the name server {server} does not answer in time")]
    TimedOut { server: SocketAddr },
    #[error("the host's resolver has no address for {name}: {cause}")]
    Host { name: String, cause: io::Error },
    #[error("the host's resolver does not answer in time")]
    HostTimedOut,
}

/// Whether sockets reach an address. In a guest `connect` refuses all but IPv4 (the socket crate,
/// as of 0.5.5).
pub fn is_reachable(address: IpAddr) -> bool {
    address.is_ipv4() || cfg!(not(target_os = "wasi"))
}

/// Finds addresses, from the sources that it is given.
#[derive(Debug)]
pub struct Resolver {
    /// The one name server to ask, whatever the system's files say.
    server: Option<SocketAddr>,
    /// `/etc/hosts`, where it can be read.
    hosts: Option<PathBuf>,
    /// `/etc/resolv.conf`, where it can be read and nobody else reads it for us.
    name_servers: Option<PathBuf>,
}

impl Resolver {
    /// A resolver that asks `server`; without one, the name servers of `/etc/resolv.conf` if a guest
    /// was granted it, else the host's resolver. `/etc/hosts` comes first, if it can be read.
    pub fn new(server: Option<SocketAddr>) -> Self {
        let granted = |path: &str| Some(PathBuf::from(path)).filter(|path| grants::cover(path));
        // The host's resolver blocks nobody natively, and knows more sources than that file.
        let name_servers = if cfg!(target_os = "wasi") { granted("/etc/resolv.conf") } else { None };
        Self { server, hosts: granted("/etc/hosts"), name_servers }
    }

    /// The addresses of a name, the best first, at least one; or the address that it is. Everything
    /// is looked up anew, so that a change anywhere counts at once.
    ///
    /// # Errors
    /// See [`ResolveError`], at `until` at the latest.
    pub async fn resolve(&self, host: &str, until: Instant) -> Result<Vec<IpAddr>, ResolveError> {
        let mut addresses = self.find(host, until).await?;
        addresses.retain(|address| is_reachable(*address));
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() { Err(ResolveError::OnlyIpv6(host.to_owned())) } else { Ok(addresses) }
    }

    async fn find(&self, host: &str, until: Instant) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if is_loopback(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Some(addresses) = self.hosts.as_deref().and_then(|path| hosts::find(&read(path)?, host)) {
            return Ok(addresses);
        }
        match self.name_servers() {
            Some(servers) => Lookup::new(&servers, until).search(host).await,
            None => timeout_at(until, host::resolve(host)).await.unwrap_or(Err(ResolveError::HostTimedOut)),
        }
    }

    fn name_servers(&self) -> Option<NameServers> {
        match (self.server, &self.name_servers) {
            (Some(server), _) => Some(NameServers::only(server)),
            (None, Some(path)) => NameServers::parse(&read(path)?),
            (None, None) => None,
        }
    }
}

/// Whether a name is this machine's own, whatever name servers say (RFC 6761 §6.3).
fn is_loopback(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    last.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// The text of a file; none where there is no such file, or none for us.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
