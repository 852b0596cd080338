//! Which name servers to ask, and how: resolv.conf(5).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The port of DNS.
const PORT: u16 = 53;

/// As many as resolv.conf(5) has; more are ignored there, too.
const SERVERS_MAX: usize = 3;
/// As many as Kubernetes allows.
const SEARCH_MAX: usize = 32;

/// Bounds and defaults of the options, as resolv.conf(5) has them.
const NDOTS_MAX: usize = 15;
const ATTEMPTS: usize = 2;
const ATTEMPTS_MAX: usize = 5;
const TIMEOUT_SECS: u64 = 5;
const TIMEOUT_SECS_MAX: u64 = 30;

/// The name servers, and how they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServers {
    /// In the order in which they are asked, at least one.
    pub servers: Vec<SocketAddr>,
    /// What a name may be short of.
    pub search: Vec<String>,
    /// A name with fewer dots is first taken for a short one.
    pub ndots: usize,
    /// How often each is asked.
    pub attempts: usize,
    /// The longest wait for one.
    pub timeout: Duration,
}

impl NameServers {
    /// One name server, which is asked for names as they are.
    pub fn only(server: SocketAddr) -> Self {
        Self {
            servers: vec![server],
            search: Vec::new(),
            ndots: 1,
            attempts: ATTEMPTS,
            timeout: Duration::from_secs(TIMEOUT_SECS),
        }
    }

    /// Reads a resolv.conf; none if it names no server.
    pub fn parse(text: &str) -> Option<Self> {
        let mut servers = Vec::new();
        let mut search = Vec::new();
        let mut options = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(server_address)),
                // The last of these lines counts.
                Some("search") => search = words.take(SEARCH_MAX).map(str::to_owned).collect(),
                Some("domain") => search = words.take(1).map(str::to_owned).collect(),
                Some("options") => options.extend(words),
                _ => {}
            }
        }
        servers.truncate(SERVERS_MAX);
        let mut this = Self { search, ..Self::only(*servers.first()?) };
        this.servers = servers;
        options.into_iter().for_each(|option| this.set(option));
        Some(this)
    }

    fn set(&mut self, option: &str) {
        let Some((name, Ok(value))) = option.split_once(':').map(|(name, value)| (name, value.parse::<usize>())) else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(NDOTS_MAX),
            "attempts" => self.attempts = value.clamp(1, ATTEMPTS_MAX),
            "timeout" => self.timeout = Duration::from_secs((value as u64).clamp(1, TIMEOUT_SECS_MAX)),
            _ => {}
        }
    }

    /// The full names that a name may stand for, in the order in which they are asked for.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let suffixes = self.search.iter().map(|suffix| suffix.trim_matches('.')).filter(|suffix| !suffix.is_empty());
        let mut names: Vec<String> = suffixes.map(|suffix| format!("{host}.{suffix}")).collect();
        let is_full = host.matches('.').count() >= self.ndots;
        names.insert(if is_full { 0 } else { names.len() }, host.to_owned());
        names
    }
}

/// The address of a name server: `ip`, `ip:port`, or `[ip]:port` for IPv4, too, as OpenBSD's
/// resolv.conf has it.
pub fn server_address(text: &str) -> Option<SocketAddr> {
    let bracketed = |text: &str| {
        let (address, port) = text.strip_prefix('[')?.split_once("]:")?;
        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
    };
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)).or_else(|_| text.parse());
    address.ok().or_else(|| bracketed(text)).filter(|address| address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NameServers {
        NameServers::parse(text).unwrap()
    }

    #[test]
    fn a_file_of_kubernetes_is_understood() {
        let text =
            "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let servers = parse(text);
        assert_eq!(servers.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!((servers.ndots, servers.attempts, servers.timeout), (5, 2, Duration::from_secs(5)));
        let full = ["db.ns.svc.cluster.local", "db.svc.cluster.local", "db.cluster.local", "db"];
        assert_eq!(servers.candidates("db"), full);
        assert_eq!(servers.candidates("db.example.org.")[..], ["db.example.org"]);
        assert_eq!(servers.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
    }

    #[test]
    fn what_is_not_understood_is_passed_over_and_everything_has_a_bound() {
        let text = "# nameserver 10.0.0.9\n; comment\nnameserver\nnameserver fe80::1%eth0\nnameserver 10.0.0.1 # first\n\
                    nameserver ::1\nnameserver 10.0.0.3\nnameserver 10.0.0.4\nsearch a b\ndomain c d\n\
                    options edns0 ndots:99 attempts:0 timeout:99 timeout:x\nsortlist 10.0.0.0\n";
        let servers = parse(text);
        let addresses = ["10.0.0.1:53", "[::1]:53", "10.0.0.3:53"].map(|address| address.parse().unwrap());
        assert_eq!(servers.servers, addresses);
        assert_eq!(servers.search, ["c"]);
        assert_eq!((servers.ndots, servers.attempts, servers.timeout), (15, 1, Duration::from_secs(30)));
        assert_eq!(parse(&format!("nameserver ::1\nsearch {}", "x ".repeat(99))).search.len(), SEARCH_MAX);
        assert_eq!(NameServers::parse("search example.org\nnameserver example.org\n"), None);
        assert_eq!(parse("nameserver ::1\nsearch . a.\n").candidates("db"), ["db.a", "db"]);
    }

    #[test]
    fn a_server_may_have_a_port() {
        let address = |text: &str| server_address(text).map(|address| address.to_string());
        assert_eq!(address("10.0.0.1").as_deref(), Some("10.0.0.1:53"));
        assert_eq!(address("10.0.0.1:5353").as_deref(), Some("10.0.0.1:5353"));
        assert_eq!(address("[10.0.0.1]:5353").as_deref(), Some("10.0.0.1:5353"));
        assert_eq!(address("::1").as_deref(), Some("[::1]:53"));
        assert_eq!(address("[::1]:5353").as_deref(), Some("[::1]:5353"));
        for wrong in ["", "dns.example.org", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "[10.0.0.1]", "10.0.0"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
