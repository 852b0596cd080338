//! Connections to requests, within bounds: the only place that knows hyper.

mod capacity;
mod connection;
mod exchange;
mod listener;
mod phase;
pub mod runtime;
mod stop;
mod stream;
mod throttle;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub use listener::{ListenError, Listener};
pub use stop::stop_signal;

use crate::App;
use throttle::Throttle;

/// Connections beyond the capacity that are still taken, so that probes get through: anything
/// else on them is told to come back later.
const PROBE_ROOM: usize = 16;

/// Pause after an accept error that is not the peer's doing, such as no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves or the listener is shut down, then finishes what is in flight:
/// every connection gets its answer and is closed, those that stay silent after a second, those
/// that are still there at the drain deadline as they are.
pub async fn serve(listener: Listener, app: Arc<App>, stop: impl Future<Output = ()>) {
    let mut server = Server::new(app);
    server.accept(&listener, stop).await;
    server.app.start_draining();
    server.accept_queued(&listener).await;
    listener.stop();
    server.drain().await;
}

struct Server {
    app: Arc<App>,
    connections: JoinSet<()>,
    /// Told once, when connections should end.
    draining: watch::Sender<()>,
    crowded: Throttle,
    failing: Throttle,
}

impl Server {
    fn new(app: Arc<App>) -> Self {
        let (draining, _) = watch::channel(());
        Self { app, connections: JoinSet::new(), draining, crowded: Throttle::default(), failing: Throttle::default() }
    }

    async fn accept(&mut self, listener: &Listener, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let has_room = self.connections.len() < listener.capacity() + PROBE_ROOM;
            tokio::select! {
                biased;
                () = &mut stop => return,
                Some(_) = self.connections.join_next() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok(stream) => self.start(stream, listener.capacity()),
                    Err(error) if listener::is_shut_down(&error) => return,
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    /// Takes what the kernel has already accepted on our behalf; it would be reset otherwise.
    async fn accept_queued(&mut self, listener: &Listener) {
        while self.connections.len() < listener.capacity() {
            match timeout_at(Instant::now(), listener.accept()).await {
                Ok(Ok(stream)) => self.start(stream, listener.capacity()),
                _ => return,
            }
        }
    }

    fn start(&mut self, stream: TcpStream, capacity: usize) {
        let crowded = self.connections.len() >= capacity;
        if crowded && self.crowded.permits() {
            tracing::warn!(capacity, "too many connections: all but probes are told to come back later");
        }
        let connection = connection::run(stream, Arc::clone(&self.app), crowded, self.draining.subscribe());
        self.connections.spawn(connection);
    }

    /// No error of one accept ends the service or makes it spin.
    async fn pause(&mut self, error: &io::Error) {
        if listener::is_of_the_peer(error) {
            return;
        }
        if self.failing.permits() {
            tracing::warn!(%error, "cannot accept a connection, trying again");
        }
        sleep(ACCEPT_PAUSE).await;
    }

    async fn drain(mut self) {
        // An error means that nobody listens, hence that there are no connections.
        let _ = self.draining.send(());
        tracing::info!(connections = self.connections.len(), "draining");
        let deadline = Instant::now() + self.app.limits.drain;
        let ended = timeout_at(deadline, async { while self.connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "drain deadline: closing connections that are not done"
            );
        }
    }
}
