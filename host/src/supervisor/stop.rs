//! The way to the end: of those that were replaced, and of all.

use anyhow::Result;
use tokio::time::{Duration, Instant};

use super::control::{self, Queued};
use super::seat::{State, Worker};
use super::{NewsKind, Supervisor};
use crate::{metrics, say};

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
            (worker.kill_at, worker.drained_by) = (Some(kill_at), Some(kill_at));
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

    /// When a worker that starts to drain now is ended if it is not done.
    fn drained_by(&self) -> Instant {
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
            let stopping: Vec<Worker> = all.filter(|worker| worker.ordered.is_some()).collect();
            let taken = !stopping.is_empty();
            seat.leaving.extend(stopping);
            self.retire(index, Queued::Take);
            if !taken {
                self.owe_queue(index)?;
            }
        }
        Ok(())
    }

    /// Notes that connections may wait in a slot for a worker that was to come, such as by a hand-over.
    fn owe_queue(&mut self, index: usize) -> Result<()> {
        let queue_by = Some(self.drained_by()).filter(|_| self.about.is_some() && matches!(self.stop, Some(Ok(()))));
        if let Some(seat) = self.seats.get_mut(index) {
            seat.queue_by = queue_by;
        }
        self.take_queue(index)
    }

    /// Has a last worker made for what waits in a slot, once there is no other and if there is time left.
    pub(super) fn take_queue(&mut self, index: usize) -> Result<()> {
        let tag = self.serving.tag.clone();
        let Some(seat) = self.seats.get_mut(index).filter(|seat| seat.leaving.is_empty()) else { return Ok(()) };
        let Some(by) = seat.queue_by.take().filter(|by| *by > Instant::now()) else { return Ok(()) };
        let worker = self.new_worker(index, tag)?;
        if let Some(seat) = self.seats.get_mut(index) {
            seat.leaving.push(worker);
        }
        self.order()?;
        self.retire(index, Queued::Take);
        let Some(seat) = self.seats.get_mut(index) else { return Ok(()) };
        seat.leaving.iter_mut().for_each(|worker| (worker.kill_at, worker.drained_by) = (Some(by), Some(by)));
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_some() && self.seats.iter().all(|seat| seat.workers().next().is_none())
    }
}
