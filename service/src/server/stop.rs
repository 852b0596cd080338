//! When to stop.

/// Resolves when the process is told to stop: SIGTERM or SIGINT. They are listened for from the call on, not
/// only from when this is waited for: before, they end the process at once.
#[cfg(not(target_os = "wasi"))]
pub fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async {
        match signals {
            Ok((mut terminate, mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for signals: a signal ends the service without draining");
                std::future::pending().await
            }
        }
    }
}

/// Never resolves: a guest sees no signals. Its host stops it by shutting down the listener.
#[cfg(target_os = "wasi")]
pub fn stop_signal() -> impl Future<Output = ()> {
    std::future::pending()
}
