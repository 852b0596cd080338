//! A socket that can be watched, and what its operations mean for that.

use std::io;
use std::os::fd::AsRawFd;

use crate::abi::Direction;
use crate::events::Token;
use crate::interest::Interest;
use crate::poll::{Registration, Registry};
use crate::table::{Writing, moved_less};

/// A socket that can be watched.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    // The first to be dropped: a closed descriptor must not be watched.
    registration: Option<Registration>,
    writing: Writing,
    pub(crate) socket: T,
}

impl<T: AsRawFd> Watched<T> {
    pub(crate) fn new(socket: T, writing: Writing) -> Self {
        Self { registration: None, writing, socket }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        if self.registration.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let descriptor = self.socket.as_raw_fd().cast_unsigned();
        self.registration = Some(registry.watch(descriptor, token, interest, self.writing)?);
        Ok(())
    }

    pub(crate) fn deregister(&mut self) -> io::Result<()> {
        self.registration.take().map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads or writes up to so many bytes.
    pub(crate) fn transfer(
        &self,
        direction: Direction,
        length: usize,
        operation: impl FnOnce(&T) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = operation(&self.socket);
        if moved_less(&result, length) {
            self.wait(&[direction]);
        }
        result
    }

    /// Does something else that may need the socket to be ready for one of these.
    pub(crate) fn attempt<R>(
        &self,
        directions: &[Direction],
        operation: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let result = operation(&self.socket);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.wait(directions);
        }
        result
    }

    fn wait(&self, directions: &[Direction]) {
        if let Some(registration) = &self.registration {
            directions.iter().for_each(|direction| registration.wait(*direction));
        }
    }
}
