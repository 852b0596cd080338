//! `fd_close`, `fd_renumber` and `sock_shutdown` that leave the listeners alone, and have what we know forgotten.
//!
//! A listener outlives its worker: the supervisor holds it, and the next worker serves what is queued in
//! it. A guest that drops one would shut it down for all of them; and WasmEdge's own next poll would abort.

use std::os::fd::RawFd;

use anyhow::Result;
use wasmedge_sdk::ValType::I32;
use wasmedge_sys::ffi;

use super::call::Call;
use super::errno::{BADF, SUCCESS};
use super::replacement::Outcome;
use super::{State, Wasi};

/// The guest's descriptors that are listeners of ours: standard input and output.
const LISTENERS: [i32; 2] = [0, 1];

/// Puts them in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have one of them, or does not let it be replaced.
pub fn replace(wasi: &mut Wasi) -> Result<()> {
    wasi.replace("fd_close", &[I32], close)?;
    wasi.replace("fd_renumber", &[I32, I32], renumber)?;
    wasi.replace("sock_shutdown", &[I32, I32], shutdown)
}

/// The native descriptor of a guest's, by WasmEdge's table.
pub fn native(context: *mut ffi::WasmEdge_ModuleInstanceContext, guest: u32) -> Option<RawFd> {
    let mut native = 0;
    // SAFETY: the module lives as long as the guest that calls; the pointer leads to a number.
    let found =
        unsafe { ffi::WasmEdge_ModuleInstanceWASIGetNativeHandler(context, guest.cast_signed(), &raw mut native) };
    RawFd::try_from(native).ok().filter(|_| found == 0)
}

fn close(state: &mut State, call: &mut Call<'_>) -> Outcome {
    let descriptor = call.parameter(0);
    state.forget(descriptor);
    if LISTENERS.contains(&descriptor) { Outcome::Done(SUCCESS) } else { Outcome::Delegate }
}

fn renumber(state: &mut State, call: &mut Call<'_>) -> Outcome {
    let both = [call.parameter(0), call.parameter(1)];
    if both.iter().any(|descriptor| LISTENERS.contains(descriptor)) {
        return Outcome::Done(BADF);
    }
    both.into_iter().for_each(|descriptor| state.forget(descriptor));
    Outcome::Delegate
}

fn shutdown(_: &mut State, call: &mut Call<'_>) -> Outcome {
    if LISTENERS.contains(&call.parameter(0)) { Outcome::Done(SUCCESS) } else { Outcome::Delegate }
}

impl State {
    /// Forgets a descriptor before it is closed.
    fn forget(&mut self, descriptor: i32) {
        let descriptor = descriptor.cast_unsigned();
        self.sockets.remove(&descriptor);
        if let Some(poller) = &mut self.poller {
            poller.forget(descriptor);
        }
    }
}
