//! The template process, as the supervisor sees it: what workers are forked from.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result};
use host::channel::Channel;
use host::protocol::{Order, Plan, Report};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::processes::Engine;

/// A template process that was started.
#[derive(Debug)]
pub struct Template {
    child: Child,
    channel: AsyncFd<Channel>,
    /// Whether it has the module, so that workers can be made.
    pub loaded: bool,
}

impl Template {
    /// Starts one. From the thread that will see it end: the kernel ends it with that.
    ///
    /// # Errors
    /// If the engine's program cannot be started.
    pub fn start(engine: &Engine, real_llvm: bool) -> Result<Self> {
        let (child, channel) = engine.template(real_llvm)?;
        fcntl(&channel, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot make the channel non-blocking")?;
        // SAFETY: the channel owns its descriptor for as long as it is registered, and hands out no other.
        let channel = unsafe { AsyncFd::register(channel)? };
        Ok(Self { child, channel, loaded: false })
    }

    /// Waits for what it, or a worker of its making, has to say; `None` when they are gone.
    ///
    /// # Errors
    /// If it said nonsense.
    pub async fn report(&self) -> io::Result<Option<Report>> {
        let received = self.channel.async_io(Interest::READABLE, Channel::receive).await?;
        Ok(received.map(|(report, _)| report))
    }

    /// Gives it the module.
    ///
    /// # Errors
    /// If it is gone, or the guest's environment is too large for one packet.
    pub fn load(&self, plan: &Plan) -> io::Result<()> {
        self.channel.get_ref().send(&Order::Load(plan.clone()), &[])
    }

    /// Orders a worker with these listeners.
    ///
    /// # Errors
    /// If it is gone, or does not read its orders.
    pub fn fork(&self, worker: usize, environment: String, sockets: [BorrowedFd<'_>; 2]) -> io::Result<()> {
        self.channel.get_ref().send(&Order::Fork { worker, environment: vec![environment] }, &sockets)
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, and takes what it still had to say. A worker of its making that has not reported
    /// by then ends by itself, as it no longer can.
    pub fn end(mut self) -> Vec<Report> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = shutdown(self.channel.as_raw_fd(), Shutdown::Read);
        let mut reports = Vec::new();
        while let Ok(Some((report, _))) = self.channel.get_ref().receive() {
            reports.push(report);
        }
        reports
    }
}
