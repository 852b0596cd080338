//! What the SDK does around every call of a host function, and a service has no use for.
//!
//! The SDK has signals blocked before each call and let through again after it, for its calls with a
//! time limit: two system calls for each of the guest's own. It has no way to leave that out.

use std::ffi::c_void;
use std::ptr;

use anyhow::Result;
use wasmedge_sdk::{FuncType, WasmValue};
use wasmedge_sys::{Executor, Function, ffi};

/// Puts functions that do nothing in the place of those.
///
/// # Errors
/// If WasmEdge cannot call a function of ours.
pub fn clear(executor: &mut Executor) -> Result<()> {
    let kind = FuncType::new(Vec::new(), Vec::new());
    // SAFETY: `from_inside` has the signature of a wrapper, and uses no data.
    let mut function =
        unsafe { Function::create_with_custom_wrapper(&kind, from_inside, ptr::null_mut(), ptr::null_mut(), 0)? };
    executor.call_func(&mut function, std::iter::empty::<WasmValue>())?;
    Ok(())
}

/// Only a function that is being called is told its executor.
unsafe extern "C" fn from_inside(
    _: *mut c_void,
    _: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    _: *const ffi::WasmEdge_Value,
    _: u32,
    _: *mut ffi::WasmEdge_Value,
    _: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: the frame is that of this call, and its executor lives as long.
    unsafe {
        let executor = ffi::WasmEdge_CallingFrameGetExecutor(frame);
        ffi::WasmEdge_ExecutorExperimentalRegisterPreHostFunction(executor, ptr::null_mut(), Some(nothing));
        ffi::WasmEdge_ExecutorExperimentalRegisterPostHostFunction(executor, ptr::null_mut(), Some(nothing));
    }
    ffi::WasmEdge_Result { Code: 0 }
}

unsafe extern "C" fn nothing(_: *mut c_void) {}
