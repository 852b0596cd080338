//! What to watch a source for.

use std::ops::{BitOr, BitOrAssign};

/// What to watch a source for: one thing at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    readable: bool,
    writable: bool,
}

impl Interest {
    /// That something can be read or accepted.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// That something can be written.
    pub const WRITABLE: Self = Self { readable: false, writable: true };

    /// Both.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the original's name, and constant")]
    pub const fn add(self, other: Self) -> Self {
        Self { readable: self.readable || other.readable, writable: self.writable || other.writable }
    }

    /// Whether [`Interest::READABLE`] is in it.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.readable
    }

    /// Whether [`Interest::WRITABLE`] is in it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.writable
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.add(other)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.add(other);
    }
}
