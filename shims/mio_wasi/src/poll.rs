//! Polling, and what can be polled.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::abi::Direction;
use crate::events::{Events, Token};
use crate::interest::Interest;
use crate::selector::Selector;
use crate::table::{Key, Table, Writing};
use crate::wasmedge::WasmEdge;

/// Waits for sources.
#[derive(Debug)]
pub struct Poll {
    registry: Registry,
    selector: Selector<WasmEdge>,
}

impl Poll {
    /// Without any source.
    ///
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Self> {
        Ok(Self { registry: Registry::default(), selector: Selector::new(WasmEdge::new()) })
    }

    /// Where the sources are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Waits for events, at most for so long. There may be none, and earlier.
    ///
    /// # Errors
    /// What the host says about the poll as a whole, unless asking again helps.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.selector.select(&mut self.registry.table(), &mut events.0, timeout)
    }
}

/// The sources.
#[derive(Debug, Default)]
pub struct Registry(Arc<Mutex<Table>>);

impl Registry {
    /// The same sources.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(Arc::clone(&self.0)))
    }

    /// Watches a source from now on.
    ///
    /// # Errors
    /// If it is watched already, or there are too many.
    pub fn register<S: Source + ?Sized>(&self, source: &mut S, token: Token, interest: Interest) -> io::Result<()> {
        source.register(self, token, interest)
    }

    /// Forgets a source.
    ///
    /// # Errors
    /// If it was not watched.
    pub fn deregister<S: Source + ?Sized>(&self, source: &mut S) -> io::Result<()> {
        source.deregister(self)
    }

    pub(crate) fn watch(
        &self,
        descriptor: u32,
        token: Token,
        interest: Interest,
        writing: Writing,
    ) -> io::Result<Registration> {
        let key = self.table().add(descriptor, token, interest, writing);
        let key = key.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Registration { registry: self.try_clone()?, key })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A guest has one thread, and ends when that panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can be watched.
pub trait Source {
    /// Watches it from now on.
    ///
    /// # Errors
    /// If it is watched already, or there are too many.
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()>;

    /// Forgets it.
    ///
    /// # Errors
    /// If it was not watched.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;
}

/// That a source is watched: until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Registry,
    key: Key,
}

impl Registration {
    /// The owner will wait for this.
    pub(crate) fn wait(&self, direction: Direction) {
        self.registry.table().wait(self.key, direction);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.table().remove(self.key);
    }
}

/// Would wake a poll from another thread. A guest has none.
#[derive(Debug)]
pub struct Waker;

impl Waker {
    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn new(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Self)
    }

    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}
