//! `random_get` from the kernel (getrandom(2)). WasmEdge's own is a generator with 64 bits of state, from
//! which keys and nonces must not come.

use std::ffi::c_void;

use anyhow::Result;
use wasmedge_sdk::ValType::I32;
use wasmedge_sys::ffi;

use super::Wasi;
use super::errno::{Errno, IO, SUCCESS};
use super::memory::{Call, answer};

/// Puts it in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have it, or does not let it be replaced.
pub fn replace(wasi: &mut Wasi) -> Result<()> {
    wasi.replace("random_get", &[I32, I32], random_get)
}

unsafe extern "C" fn random_get(
    _: *mut c_void,
    _: *mut c_void,
    frame: *const ffi::WasmEdge_CallingFrameContext,
    parameters: *const ffi::WasmEdge_Value,
    count: u32,
    results: *mut ffi::WasmEdge_Value,
    _: u32,
) -> ffi::WasmEdge_Result {
    // SAFETY: called by WasmEdge.
    unsafe {
        let mut call = Call::new(frame, parameters, count);
        answer(results, fill(&mut call).err().unwrap_or(SUCCESS))
    }
}

fn fill(call: &mut Call<'_>) -> Result<(), Errno> {
    let (address, length) = (call.address(0), call.address(1));
    let buffer = call.memory(address, length as usize)?;
    getrandom::fill(buffer).map_err(|_| IO)
}
