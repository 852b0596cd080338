//! A prober beside a test.

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::client::alive;

/// Between one probe and the next.
const PERIOD: Duration = Duration::from_millis(50);

/// How long an answer may take. It is no measure of speed: a service that lets its probes wait for
/// something else would take as long as that.
const BOUND: Duration = Duration::from_secs(2);

/// Asks a service for `/livez` all the time, until it is told to stop.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    prober: JoinHandle<Vec<String>>,
}

impl Watch {
    /// Begins.
    pub fn over(address: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel();
        let prober = thread::spawn(move || {
            let mut faults = Vec::new();
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                match alive(address) {
                    Some(took) if took < BOUND => {}
                    Some(took) => faults.push(format!("took {took:?}")),
                    None => faults.push("no answer".to_owned()),
                }
            }
            faults
        });
        Self { stop, prober }
    }

    /// Ends it, and gives what was wrong.
    pub fn faults(self) -> Vec<String> {
        drop(self.stop);
        self.prober.join().unwrap()
    }
}
