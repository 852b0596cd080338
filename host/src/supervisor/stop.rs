//! The way to the end: of those that were replaced, and of all.

use anyhow::Result;
use tokio::time::{Duration, Instant};

use super::control::{self, Queued};
use super::seat::State;
use super::{NewsKind, Supervisor};
use crate::{metrics, say};

/// What a worker may take beyond its own drain deadline before it is ended.
const GRACE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Tells those who are leaving to drain.
    pub(super) fn retire(&mut self, index: usize, queued: Queued) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let kill_at = Instant::now() + self.setup.drain + GRACE;
        let mut told = Vec::new();
        for worker in seat.leaving.iter_mut().filter(|worker| worker.state != State::Draining) {
            worker.state = State::Draining;
            worker.kill_at = Some(kill_at);
            told.push((worker.life, worker.control));
        }
        for (life, control) in told {
            let ledger = self.setup.ledger.clone();
            self.ask(index, life, async move {
                // It may be ended before it gives its report.
                let _ = metrics::ask(&ledger, life, control).await;
                let told = control::drain(control, queued).await;
                tokio::spawn(async move { metrics::ask_for_report(&ledger, life, control).await });
                NewsKind::Draining(told)
            });
        }
    }

    /// Lets nobody in any more and tells everybody to drain. Ends with `result` when they have.
    pub(super) fn stop(&mut self, result: Result<()>) {
        self.stop = Some(result);
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            if let Err(error) = seat.slot.close_to_newcomers() {
                say::log(format_args!("cannot keep newcomers out of slot {index}: {error}"));
            }
            seat.due = None;
            seat.answer(&Err("the service is stopping".to_owned()));
            let all = seat.current.take().into_iter().chain(seat.next.take());
            // One that no process was made for has nobody to drain.
            seat.leaving.extend(all.filter(|worker| worker.ordered.is_some()));
            self.retire(index, Queued::Take);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_some() && self.seats.iter().all(|seat| seat.workers().next().is_none())
    }
}
