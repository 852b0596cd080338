//! Writing to the terminal, or whatever is in its place. That it is closed is no reason to end: the
//! standard macros would.

use std::fmt::Display;
use std::io::{self, Write};

/// A line that was asked for, on standard output.
pub fn out(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A line about what happens, on standard error.
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "usher: {line}");
}
