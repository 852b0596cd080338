//! Connections that are kept and do nothing.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::wire::Connection;

/// Opens so many, each of which has had an answer, so that it is known to be served.
pub fn open(address: SocketAddr, count: usize) -> Result<Vec<Connection>> {
    let opened = |number| {
        let mut connection = Connection::open(address)?;
        connection.ask("GET", "/api/health", "").with_context(|| format!("on idle connection {number}"))?;
        Ok(connection)
    };
    (1..=count).map(opened).collect()
}

/// Lets this process, and what it starts from now on, open so many descriptors.
pub fn raise_descriptor_limit(least: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot tell the limit of descriptors")?;
    ensure!(hard >= least, "this opens {least} descriptors, and the hard limit is {hard}: raise it (`ulimit -Hn`)");
    if soft < least {
        setrlimit(Resource::RLIMIT_NOFILE, least, hard).context("cannot raise the limit of descriptors")?;
    }
    Ok(())
}
