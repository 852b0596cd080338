//! The way to the end: of those that were replaced, and of all.

use anyhow::Result;
use tokio::time::{Duration, Instant};

use super::control::{self, Queued};
use super::seat::{State, Worker};
use super::{NewsKind, Supervisor};
use crate::say;

/// What a worker may take beyond its own drain deadline before it is ended.
const GRACE: Duration = Duration::from_millis(500);

/// Why nothing is replaced any more.
pub(super) const STOPPING: &str = "the service is stopping";

impl Supervisor {
    /// Tells those who are leaving to drain.
    pub(super) fn retire(&mut self, index: usize, queued: Queued) {
        let kill_at = self.drained_by();
        let Some(seat) = self.seats.get_mut(index) else { return };
        let mut told = Vec::new();
        for worker in seat.leaving.iter_mut().filter(|worker| worker.state != State::Draining) {
            worker.state = State::Draining;
            worker.kill_at = Some(kill_at);
            told.push((worker.life, worker.control));
        }
        for (life, control) in told {
            self.ask(index, life, async move { NewsKind::Draining(control::drain(control, queued).await) });
        }
    }

    /// When a worker that starts to drain now is ended if it is not done.
    pub(super) fn drained_by(&self) -> Instant {
        Instant::now() + self.setup.drain + GRACE
    }

    /// Takes back the workers of a generation that is not to serve after all.
    pub(super) fn withdraw(&mut self, index: usize, generation: u64) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let of_it = |worker: &mut Worker| worker.tag.number == generation;
        let workers = seat.current.take_if(of_it).into_iter().chain(seat.next.take_if(of_it)).collect();
        self.dismiss(index, workers);
    }

    /// Has new workers, which are not needed after all, finish what they may have begun.
    pub(super) fn dismiss(&mut self, index: usize, mut workers: Vec<Worker>) {
        // One that no process was made for has nobody to drain.
        workers.retain(|worker| worker.pid.is_some());
        let starting: Vec<u64> = workers.iter().filter(|it| it.state == State::Starting).map(|it| it.life).collect();
        let Some(seat) = self.seats.get_mut(index) else { return };
        seat.leaving.extend(workers);
        self.retire(index, Queued::Leave);
        // One that may never serve has to answer first.
        let Some(seat) = self.seats.get_mut(index) else { return };
        for worker in seat.leaving.iter_mut().filter(|worker| starting.contains(&worker.life)) {
            worker.kill_at = Some(Instant::now() + GRACE);
        }
    }

    /// Lets nobody in any more and tells everybody to drain. Ends with `result` when they have.
    pub(super) fn stop(&mut self, result: Result<()>) -> Result<()> {
        self.stop = Some(result);
        self.cancel_reload()?;
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { continue };
            if let Err(error) = seat.slot.close_to_newcomers() {
                say::log(format_args!("cannot keep newcomers out of slot {index}: {error}"));
            }
            seat.due = None;
            seat.answer(&Err(STOPPING.to_owned()));
            let all = seat.current.take().into_iter().chain(seat.next.take());
            // One that no process was made for has nobody to drain.
            seat.leaving.extend(all.filter(|worker| worker.ordered.is_some()));
            self.retire(index, Queued::Take);
        }
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_some() && self.seats.iter().all(|seat| seat.workers().next().is_none())
    }
}
