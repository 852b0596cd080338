//! Signals as events.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What signals tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// To stop, and the signal's name.
    Stop(&'static str),
    /// To read everything again (SIGHUP).
    Reload,
    /// Some child ended, or several.
    ChildEnded,
}

/// The signals that are handled.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    child: Signal,
}

impl Signals {
    /// Handles them from now on. They would end the process otherwise, or, as the first process of a
    /// container, do nothing.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Event::Stop("SIGINT"),
            _ = self.hangup.recv() => Event::Reload,
            _ = self.child.recv() => Event::ChildEnded,
        }
    }

    /// Waits for one that says to stop. What others said meanwhile is kept for [`next`](Self::next).
    pub async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
