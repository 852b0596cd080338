//! Clients that ask all the time, and note every request that was not answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::{Raw, eventually};

const GET: &str = "GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n";

/// How clients use connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// A new one for each request.
    Fresh,
    /// The same one, until the service says that it closes it.
    Kept,
}

/// Clients that are asking.
#[derive(Debug)]
pub struct Load {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Asked>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    /// Requests that were answered with 200.
    pub answered: usize,
    /// What happened to the others. A connection that was never made is not among them.
    pub failures: Vec<String>,
    /// How many clients could not connect at some time, and asked nothing more.
    pub gave_up: usize,
}

/// What came of one client.
struct Asked {
    failures: Vec<String>,
    gave_up: bool,
}

impl Load {
    /// Starts so many clients, who ask for `/api/health`.
    pub fn start(address: SocketAddr, clients: usize, connections: Connections) -> Self {
        Self::of(&[GET.to_owned()], address, clients, connections)
    }

    /// Starts so many clients, who send these requests in turn, each of which is answered with 200.
    pub fn of(requests: &[String], address: SocketAddr, clients: usize, connections: Connections) -> Self {
        let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (ended, answered, requests) = (Arc::clone(&ended), Arc::clone(&answered), requests.to_vec());
            thread::spawn(move || {
                ask_on(
                    address,
                    connections,
                    requests.iter().cycle().take_while(|_| !ended.load(Ordering::Relaxed)),
                    &answered,
                )
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { ended, answered, clients }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub fn answers(&self, more: usize) {
        let before = self.answered();
        eventually("requests are answered", || (self.answered() >= before + more).then_some(()));
    }

    /// Ends it.
    pub fn finish(self) -> Tally {
        self.ended.store(true, Ordering::Relaxed);
        let clients: Vec<Asked> = self.clients.into_iter().map(|client| client.join().unwrap()).collect();
        let gave_up = clients.iter().filter(|client| client.gave_up).count();
        let failures = clients.into_iter().flat_map(|client| client.failures).collect();
        Tally { answered: self.answered.load(Ordering::Relaxed), failures, gave_up }
    }
}

/// Ends, too, when nobody takes connections any more.
fn ask_on<'r>(
    address: SocketAddr,
    connections: Connections,
    requests: impl Iterator<Item = &'r String>,
    answered: &AtomicUsize,
) -> Asked {
    let mut asked = Asked { failures: Vec::new(), gave_up: false };
    let mut kept: Option<Raw> = None;
    for request in requests {
        let mut connection = match kept.take().map_or_else(|| Raw::connect(address), Ok) {
            Ok(connection) => connection,
            Err(_) => {
                asked.gave_up = true;
                break;
            }
        };
        match ask(&mut connection, request) {
            Ok(goes_on) => {
                answered.fetch_add(1, Ordering::Relaxed);
                kept = Some(connection).filter(|_| goes_on && connections == Connections::Kept);
            }
            Err(failure) => asked.failures.push(failure),
        }
    }
    asked
}

/// Whether the connection can be used again.
fn ask(connection: &mut Raw, request: &str) -> Result<bool, String> {
    let reply = connection.request(request).map_err(|error: io::Error| format!("{error:?}"))?;
    if reply.status != 200 {
        return Err(format!("status {}", reply.status));
    }
    Ok(reply.header("connection") != Some("close"))
}
