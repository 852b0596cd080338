//! A start without words of the library's own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::unistd::dup2_stderr;

use crate::native;

/// Makes what the library makes once for a process. It says so on standard error, where others write their logs,
/// and cannot be told not to; so that is put aside for the moment. To be called while nobody else writes there.
pub fn start_quietly() {
    let aside = io::stderr().as_fd().try_clone_to_owned();
    let nowhere = File::options().write(true).open("/dev/null");
    match (aside, nowhere) {
        (Ok(aside), Ok(nowhere)) if dup2_stderr(&nowhere).is_ok() => {
            native::warm_up();
            let _ = dup2_stderr(&aside);
        }
        _ => native::warm_up(),
    }
}
