//! How many clients are connected, and how many may be.

use crate::tally::{Counted, Tally};

/// Counts the connections of clients against their limit.
#[derive(Debug, Clone)]
pub struct Occupancy {
    capacity: usize,
    open: Tally,
}

impl Occupancy {
    /// Nobody is connected, and so many may be.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, open: Tally::default() }
    }

    /// A connection is open, until what this gives is dropped.
    pub fn enter(&self) -> Counted {
        self.open.enter()
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    /// Whether the next connection would be one too many.
    pub fn is_full(&self) -> bool {
        self.is_full_beside(0)
    }

    /// Whether the next connection would be one too many if so many of the open ones were closed.
    pub fn is_full_beside(&self, own: usize) -> bool {
        self.open().saturating_sub(own) >= self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_when_as_many_are_open_as_may_be() {
        let occupancy = Occupancy::new(2);
        let first = occupancy.enter();
        assert!(!occupancy.is_full());
        let second = occupancy.enter();
        assert!(occupancy.is_full() && !occupancy.is_full_beside(1));
        let beyond = occupancy.enter();
        assert!(occupancy.is_full_beside(1));
        drop((first, beyond));
        assert!(!occupancy.is_full());
        drop(second);
        assert!(!occupancy.is_full_beside(1), "whoever asks need not be counted");
    }
}
