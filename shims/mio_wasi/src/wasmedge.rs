//! The host: WasmEdge.

use std::time::{Duration, Instant};

use crate::abi::{Answer, Errno, Host, Subscription};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn poll_oneoff(subscriptions: *const Subscription, answers: *mut Answer, count: usize, answered: *mut usize)
    -> i32;
}

/// WasmEdge, and when it was first asked for the time.
#[derive(Debug)]
pub(crate) struct WasmEdge(Instant);

impl WasmEdge {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Host for WasmEdge {
    fn poll(&mut self, subscriptions: &[Subscription], answers: &mut [Answer]) -> Result<usize, Errno> {
        let (count, mut answered) = (subscriptions.len().min(answers.len()), 0);
        // SAFETY: both point to `count` items at least, laid out as WASI has them; the host reads the
        // former, writes the latter and keeps neither.
        let error = unsafe { poll_oneoff(subscriptions.as_ptr(), answers.as_mut_ptr(), count, &raw mut answered) };
        match Errno::try_from(error).unwrap_or(Errno::MAX) {
            0 => Ok(answered.min(count)),
            error => Err(error),
        }
    }

    fn now(&mut self) -> Duration {
        self.0.elapsed()
    }
}
