//! `fd_close`, `fd_renumber` and `sock_shutdown` that leave the listeners alone, and tell our polls what goes.
//!
//! A listener outlives its worker: the supervisor holds it, and the next worker serves what is queued in
//! it. A guest that drops one would shut it down for all of them; and WasmEdge's own next poll would abort.

use std::ffi::c_void;

use anyhow::Result;
use wasmedge_sdk::ValType::I32;
use wasmedge_sys::ffi;

use super::errno::{BADF, SUCCESS};
use super::memory::{Call, answer};
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

unsafe extern "C" fn close(
    original: *mut c_void,
    state: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: called by WasmEdge, with what `replace` gave it.
    unsafe {
        let descriptor = Call::new(frame, parameters, count).parameter(0);
        forget(state, descriptor);
        if LISTENERS.contains(&descriptor) {
            return answer(results, SUCCESS);
        }
        delegate(original, frame, parameters, count, results, result_count)
    }
}

unsafe extern "C" fn renumber(
    original: *mut c_void,
    state: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: called by WasmEdge, with what `replace` gave it.
    unsafe {
        let call = Call::new(frame, parameters, count);
        let (from, to) = (call.parameter(0), call.parameter(1));
        if LISTENERS.contains(&from) || LISTENERS.contains(&to) {
            return answer(results, BADF);
        }
        forget(state, from);
        forget(state, to);
        delegate(original, frame, parameters, count, results, result_count)
    }
}

unsafe extern "C" fn shutdown(
    original: *mut c_void,
    _: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: called by WasmEdge, with what `replace` gave it.
    unsafe {
        if LISTENERS.contains(&Call::new(frame, parameters, count).parameter(0)) {
            return answer(results, SUCCESS);
        }
        delegate(original, frame, parameters, count, results, result_count)
    }
}

/// Has our polls forget a descriptor, before it is closed.
///
/// # Safety
/// `state` must be the guest's.
unsafe fn forget(state: *mut c_void, descriptor: i32) {
    // SAFETY: as the caller promises; nothing else uses it while a function of ours runs.
    let state = unsafe { &mut *state.cast::<State>() };
    if let Some(poller) = &mut state.poller {
        poller.forget(descriptor.cast_unsigned());
    }
}

/// Does what WasmEdge's own function does.
///
/// # Safety
/// The pointers must be those that WasmEdge gave to a function of ours. `original` must not touch the guest's
/// memory, which a nested call does not have.
unsafe fn delegate(
    original: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: as the caller promises.
    unsafe {
        let executor = ffi::WasmEdge_CallingFrameGetExecutor(frame);
        ffi::WasmEdge_ExecutorInvoke(executor, original.cast(), parameters, count, results, result_count)
    }
}
