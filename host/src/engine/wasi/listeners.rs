//! `fd_close` and `sock_shutdown` that leave the listeners alone.
//!
//! A listener outlives its worker: the supervisor holds it, and the next worker serves what is queued in
//! it. A guest that drops one would shut it down for all of them; and WasmEdge's next poll would abort.

use std::ffi::c_void;
use std::{mem, ptr, slice};

use anyhow::{Result, anyhow, ensure};
use wasmedge_sdk::{AsInstance, FuncType, ValType};
use wasmedge_sys::{Function, ffi};

use super::{LISTENERS, Wasi};

/// errno of WASI: success.
const SUCCESS: i32 = 0;

/// Puts the protecting functions in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have one of them, or does not let it be replaced.
pub fn protect(wasi: &mut Wasi) -> Result<()> {
    replace(wasi, "fd_close", 1)?;
    replace(wasi, "sock_shutdown", 2)
}

/// Replaces a function whose first parameter is a descriptor and which gives an errno.
fn replace(wasi: &mut Wasi, name: &str, parameters: usize) -> Result<()> {
    let original = find(wasi, name)?;
    let kind = FuncType::new(vec![ValType::I32; parameters], vec![ValType::I32]);
    // SAFETY: `guarded` has the signature of a wrapper, and gets the original as its data, which the module
    // keeps.
    let function =
        unsafe { Function::create_with_custom_wrapper(&kind, guarded, ptr::null_mut(), original.cast(), 0)? };
    // SAFETY: only compared, and given to the module that keeps it.
    let ours = unsafe { function.as_ptr() };
    let bytes = u32::try_from(name.len())?;
    // SAFETY: WasmEdge copies the name and takes the function over, so that it is not dropped here.
    unsafe {
        let name = ffi::WasmEdge_StringWrap(name.as_ptr().cast(), bytes);
        ffi::WasmEdge_ModuleInstanceAddFunction(wasi.0, name, ours);
    }
    mem::forget(function);
    ensure!(find(wasi, name)? == ours, "this WasmEdge does not let {name} be replaced");
    Ok(())
}

fn find(wasi: &mut Wasi, name: &str) -> Result<*mut ffi::WasmEdge_FunctionInstanceContext> {
    let function = wasi.get_func_mut(name).map_err(|_| anyhow!("this WasmEdge has no {name}"))?;
    // SAFETY: the function is the module's, and lives as long as that.
    Ok(unsafe { function.as_ptr() })
}

/// Does nothing for a listener, and what the original does for any other descriptor.
unsafe extern "C" fn guarded(
    _: *mut c_void,
    original: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    parameter_count: u32,
    results: *mut ffi::WasmEdge_Value,
    result_count: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: WasmEdge passes as many values as the function type has: one descriptor at least, and one
    // result; `original` is the function that was replaced. It does not touch the guest's memory, which
    // a nested call would not have.
    unsafe {
        let values = slice::from_raw_parts(parameters, parameter_count as usize);
        let descriptor = values.first().map_or(-1, |value| ffi::WasmEdge_ValueGetI32(*value));
        if LISTENERS.contains(&descriptor) {
            *results = ffi::WasmEdge_ValueGenI32(SUCCESS);
            return ffi::WasmEdge_Result { Code: 0 };
        }
        let executor = ffi::WasmEdge_CallingFrameGetExecutor(frame);
        ffi::WasmEdge_ExecutorInvoke(executor, original.cast(), parameters, parameter_count, results, result_count)
    }
}
