//! The runtime: one thread, as a guest has no more.

use std::io;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::clock;

/// Runs a future to its end.
///
/// The future runs as a task. In tokio_wasi nothing wakes a sleeping runtime from inside it: a
/// future given to `block_on` itself would miss what other tasks tell it until the next event from
/// outside. A task does not, and the yield after the end makes the runtime look once more.
///
/// # Errors
/// If the runtime cannot be made, or the future panicked (natively; a guest ends there).
pub fn block_on<F>(future: F) -> io::Result<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().on_thread_unpark(|| _ = clock::now()).build()?;
    runtime.block_on(async {
        let (done, result) = oneshot::channel();
        tokio::spawn(async move {
            // The receiver waits below until this is sent.
            let _ = done.send(future.await);
            yield_now().await;
        });
        result.await.map_err(io::Error::other)
    })
}
