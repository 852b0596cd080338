//! A pod that was started, by whatever engine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::{Raw, eventually, wire};

use crate::manifests::Pod;

/// Where the service of the overlays listens in its pod.
pub const PORT: u16 = 8080;

/// A pod that was started.
pub struct Running {
    pub pod: Pod,
    pub address: SocketAddr,
    /// When its creation was asked for.
    pub since: Instant,
}

/// Where pods serve.
pub fn addresses(pods: &[Running]) -> Vec<SocketAddr> {
    pods.iter().map(|pod| pod.address).collect()
}

impl Running {
    /// Waits until it says that it is ready, and gives the time since its creation.
    pub fn ready(&self) -> Duration {
        eventually(&format!("{} is ready", self.pod.name()), || (self.status("/readyz")? == 200).then_some(()));
        self.since.elapsed()
    }

    /// Waits until it takes MySQL's connections, as the overlay's probe does.
    pub fn wait_for_mysql(&self) {
        let address = SocketAddr::new(self.address.ip(), 3306);
        eventually("MySQL takes connections", || Raw::connect(address).ok());
    }

    /// The status of what it answers to GET, if it answers.
    pub fn status(&self, path: &str) -> Option<u16> {
        status(self.address, path)
    }
}

/// The status of what is answered to GET there, if anything is.
pub fn status(address: SocketAddr, path: &str) -> Option<u16> {
    Some(Raw::connect(address).ok()?.request(wire::get(path)).ok()?.status)
}
