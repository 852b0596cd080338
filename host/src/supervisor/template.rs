//! The template process, as the supervisor sees it: what workers are forked from.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result};
use host::channel::Channel;
use host::protocol::{Order, Plan, Report};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Duration, timeout};

use crate::processes::{self, Engine, Loading};

/// How long one may take to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A template process that was started. Ends with its owner.
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
    pub fn start(engine: &Engine, loading: Loading) -> Result<Self> {
        let (child, channel) = engine.template(loading)?;
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

    /// The version of its WasmEdge, which is the first that it says; `None` if it does not.
    pub async fn hello(&self) -> Option<String> {
        match timeout(HELLO_TIMEOUT, self.report()).await {
            Ok(Ok(Some(Report::Hello { wasmedge }))) => Some(wasmedge),
            _ => None,
        }
    }

    /// Gives it the code.
    ///
    /// # Errors
    /// If it is gone, or the guest's environment is too large for one packet.
    pub fn load(&self, plan: &Plan, code: &File) -> io::Result<()> {
        self.channel.get_ref().send(&Order::Load(plan.clone()), &[code.as_fd()])
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

    /// Ends it if it is not about to end by itself, and says how it did.
    pub fn finish(&mut self) -> String {
        let _ = self.child.kill();
        self.child.wait().map_or_else(|_| "ended".to_owned(), |status| self.describe(status))
    }

    /// How it ended, for people.
    pub fn describe(&self, status: ExitStatus) -> String {
        format!("(pid {}) ended: {}", self.child.id(), processes::describe(status))
    }

    /// Ends it at once, and takes what it still had to say. A worker of its making that has not reported
    /// by then ends by itself, as it no longer can.
    pub fn end(mut self) -> Vec<Report> {
        self.kill();
        let _ = shutdown(self.channel.as_raw_fd(), Shutdown::Read);
        let mut reports = Vec::new();
        while let Ok(Some((report, _))) = self.channel.get_ref().receive() {
            reports.push(report);
        }
        reports
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.kill();
    }
}
