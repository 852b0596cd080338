//! A name's way from what people write to addresses: the search list, aliases, and several name
//! servers, of which any may be away.

use std::net::IpAddr;

use domain::base::Name;
use tokio::time::{Instant, timeout};

use super::ResolveError;
use super::exchange::{Answer, Family, FullName, ask};
use super::name_servers::NameServers;

/// Aliases that are followed by a further question each; those within an answer do not count.
const ALIASES_MAX: usize = 8;

/// A lookup, from its first question to its deadline.
#[derive(Debug)]
pub struct Lookup<'s> {
    servers: &'s NameServers,
    until: Instant,
}

impl<'s> Lookup<'s> {
    /// A lookup that ends at `until` at the latest.
    pub fn new(servers: &'s NameServers, until: Instant) -> Self {
        Self { servers, until }
    }

    /// The addresses of the first of a host's candidates that has any, see resolv.conf(5).
    pub async fn search(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        full_name(host)?;
        let mut failure = ResolveError::NoSuchName(host.to_owned());
        for candidate in self.servers.candidates(host) {
            match self.addresses(&candidate).await {
                Err(ResolveError::NoSuchName(_) | ResolveError::BadName(_)) => {}
                // A server may know nothing of one domain and yet have the name in another one.
                Err(error @ (ResolveError::NoAddress(_) | ResolveError::Failed { .. })) => failure = error,
                found_or_over => return found_or_over,
            }
        }
        Err(failure)
    }

    /// IPv4 first: it is what all our builds can reach.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let full = full_name(name)?;
        for family in [Family::Ipv4, Family::Ipv6] {
            let addresses = self.follow(full.clone(), family).await?;
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(ResolveError::NoAddress(name.to_owned()))
    }

    /// The addresses of a name or of what it is an alias of; empty if there are none.
    async fn follow(&self, mut name: FullName, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
        for _ in 0..=ALIASES_MAX {
            match self.ask(&name, family).await? {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::NoAddress => return Ok(Vec::new()),
                Answer::NoSuchName => return Err(ResolveError::NoSuchName(name.to_string())),
                Answer::Alias(target) => name = target,
            }
        }
        Err(ResolveError::TooManyAliases(name.to_string()))
    }

    /// Asks one server after the other, all of them as often as is configured. Each has an equal
    /// share of what time is left, so that one that is silent leaves some for the next.
    async fn ask(&self, name: &FullName, family: Family) -> Result<Answer, ResolveError> {
        let servers = &self.servers.servers;
        let tries = servers.len() * self.servers.attempts;
        let mut failure = ResolveError::BadName(name.to_string());
        for (server, left) in servers.iter().cycle().zip((1..=tries as u32).rev()) {
            let share = self.until.saturating_duration_since(Instant::now()) / left;
            if share.is_zero() {
                return Err(ResolveError::TimedOut { server: *server });
            }
            let answer = timeout(share.min(self.servers.timeout), ask(*server, name, family)).await;
            match answer.unwrap_or(Err(ResolveError::TimedOut { server: *server })) {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn full_name(text: &str) -> Result<FullName, ResolveError> {
    let name = Name::vec_from_str(text).ok().filter(|name| !name.is_root());
    name.ok_or_else(|| ResolveError::BadName(text.to_owned()))
}
