//! How WasmEdge comes to a function of ours.

use std::ffi::c_void;

use wasmedge_sys::ffi;

use super::State;
use super::call::Call;
use super::errno::Errno;

/// What a function of ours does.
pub type Body = fn(&mut State, &mut Call<'_>) -> Outcome;

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest gets this.
    Done(Errno),
    /// WasmEdge's own function does the rest. Only for those that do not touch the guest's memory, which a
    /// nested call does not have.
    Delegate,
}

/// A function of ours, and the one in whose place it is.
#[derive(Debug)]
pub struct Replacement {
    /// Ours.
    pub body: Body,
    /// WasmEdge's own.
    pub original: *mut ffi::WasmEdge_FunctionInstanceContext,
}

/// Where all of them are entered.
///
/// # Safety
/// To be called by WasmEdge only, for a function with one result that was made with a [`Replacement`] and with
/// the guest's [`State`].
pub unsafe extern "C" fn enter(
    replacement: *mut c_void,
    state: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: as the caller promises; a guest has one thread, so that nothing else uses the state.
    let (replacement, state, mut call) = unsafe {
        let replacement = &*replacement.cast::<Replacement>();
        (replacement, &mut *state.cast::<State>(), Call::new(frame, parameters, count))
    };
    match (replacement.body)(state, &mut call) {
        Outcome::Done(errno) => {
            // SAFETY: there is room for one result.
            unsafe { *results = ffi::WasmEdge_ValueGenI32(i32::from(errno)) };
            ffi::WasmEdge_Result { Code: 0 }
        }
        // SAFETY: the frame is of this call; the original takes and gives the same.
        Outcome::Delegate => unsafe {
            let executor = ffi::WasmEdge_CallingFrameGetExecutor(frame);
            ffi::WasmEdge_ExecutorInvoke(executor, replacement.original, parameters, count, results, result_count)
        },
    }
}
