//! Connections to requests, within bounds: the only place that knows hyper.

mod capacity;
mod clock;
mod connection;
mod exchange;
mod front;
mod intake;
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
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use capacity::Bounds;
pub use listener::{ListenError, Listener};
pub use stop::stop_signal;

use crate::{App, Queued, Report};
use front::Front;
use throttle::Throttle;

/// Connections beyond the capacity that are still taken, so that probes get through: anything
/// else on them is told to come back later.
const PROBE_ROOM: usize = 16;

/// Connections at once on the control listener; more wait in the kernel. They are no part of the
/// public capacity, so that control is to be had when that is exhausted.
const CONTROL_CAPACITY: usize = 16;

/// How long nothing must come before the listening socket of a stopping service counts as empty: a
/// connection that the kernel has accepted may be a moment on its way to us.
const QUEUE_QUIET: Duration = Duration::from_millis(20);

/// How long a stopping service goes on accepting at most, however many clients still come.
const QUEUE_TIME: Duration = Duration::from_secs(1);

/// How long a service that has stopped waits for whoever wants its last metrics: below what a host gives a
/// worker beyond its drain time.
const REPORT_TIME: Duration = Duration::from_millis(300);

/// Pause after an accept error that is not the peer's doing, such as no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves, the listener is shut down, or control orders a drain, then finishes
/// what is in flight: every connection gets its answer and is closed, those that stay silent after a
/// second, those that are still there at the drain deadline as they are.
///
/// Control goes on to the end of the process, which it does not put off but for a moment, where a report was
/// asked for.
pub async fn serve(public: Listener, control: Option<Listener>, app: Arc<App>, stop: impl Future<Output = ()>) {
    let control = control.map(|control| tokio::spawn(serve_control(control, Arc::clone(&app))));
    let models = Arc::clone(&app);
    tokio::spawn(async move { models.inference.run().await });
    let order = order(&app, stop);
    let mut server = Server::new(Arc::clone(&app));
    let queued = server.accept(&public, order).await.unwrap_or(Queued::Take);
    app.drain(queued);
    if queued == Queued::Take {
        server.accept_queued(&public).await;
    }
    public.stop();
    server.drain().await;
    if app.finish()
        && let Some(control) = control
        && timeout(REPORT_TIME, control).await.is_err()
    {
        tracing::warn!("the report that was wanted was not fetched in time");
    }
}

/// Ends when the report is given, and with it all connections.
async fn serve_control(listener: Listener, app: Arc<App>) {
    let mut server = Server::new(Arc::clone(&app));
    let given = async {
        app.reached(Report::Given).await;
        Queued::Leave
    };
    if server.accept(&listener, given).await.is_none() {
        tracing::warn!("the control listener was shut down: nobody can ask the service to drain");
        app.reached(Report::Given).await;
    }
    while server.connections.join_next().await.is_some() {}
}

/// What `stop` or control orders, whichever comes first.
async fn order(app: &App, stop: impl Future<Output = ()>) -> Queued {
    tokio::select! {
        biased;
        queued = app.drained() => queued,
        () = stop => Queued::Take,
    }
}

struct Server {
    app: Arc<App>,
    connections: JoinSet<()>,
    crowded: Throttle,
    failing: Throttle,
}

impl Server {
    fn new(app: Arc<App>) -> Self {
        Self { app, connections: JoinSet::new(), crowded: Throttle::default(), failing: Throttle::default() }
    }

    /// Takes connections until `stop` says what to do then, or the listener is shut down: `None`.
    async fn accept(&mut self, listener: &Listener, stop: impl Future<Output = Queued>) -> Option<Queued> {
        let mut stop = pin!(stop);
        loop {
            let has_room = self.connections.len() < listener.room();
            tokio::select! {
                biased;
                queued = &mut stop => return Some(queued),
                Some(_) = self.connections.join_next() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok(stream) => self.start(stream, listener),
                    Err(error) if listener::is_shut_down(&error) => return None,
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    /// Takes what the kernel has already accepted on our behalf; it would be reset otherwise.
    async fn accept_queued(&mut self, listener: &Listener) {
        let end = Instant::now() + QUEUE_TIME;
        while self.has_room(listener, end).await {
            let quiet = end.min(Instant::now() + QUEUE_QUIET);
            match timeout_at(quiet, listener.accept()).await {
                Ok(Ok(stream)) => self.start(stream, listener),
                Ok(Err(error)) if listener::is_shut_down(&error) => return,
                Ok(Err(error)) => self.pause(&error).await,
                Err(_) => return,
            }
        }
    }

    /// Waits until a connection can be taken, or for the end of the time.
    async fn has_room(&mut self, listener: &Listener, end: Instant) -> bool {
        while self.connections.len() >= listener.room() {
            if timeout_at(end, self.connections.join_next()).await.is_err() {
                return false;
            }
        }
        Instant::now() < end
    }

    fn start(&mut self, stream: TcpStream, listener: &Listener) {
        let (app, front, capacity) = (Arc::clone(&self.app), listener.front(), listener.capacity());
        let crowded = front == Front::Public && app.clients.is_full();
        if crowded && self.crowded.permits() {
            tracing::warn!(capacity, "too many connections: all but probes are told to come back later");
        }
        let place = (front == Front::Public).then(|| app.clients.enter());
        self.connections.spawn(async move {
            connection::run(stream, app, front, crowded).await;
            drop(place);
        });
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
