//! `random_get` from the kernel (getrandom(2)). WasmEdge's own is a generator with 64 bits of state, from
//! which keys and nonces must not come.

use anyhow::Result;
use wasmedge_sdk::ValType::I32;

use super::call::Call;
use super::errno::{Errno, IO, SUCCESS};
use super::replacement::Outcome;
use super::{State, Wasi};

/// Puts it in place of WasmEdge's own.
///
/// # Errors
/// If this WasmEdge does not have it, or does not let it be replaced.
pub fn replace(wasi: &mut Wasi) -> Result<()> {
    wasi.replace("random_get", &[I32, I32], random_get)
}

fn random_get(_: &mut State, call: &mut Call<'_>) -> Outcome {
    Outcome::Done(fill(call).err().unwrap_or(SUCCESS))
}

fn fill(call: &mut Call<'_>) -> Result<(), Errno> {
    let (address, length) = (call.address(0), call.address(1));
    let buffer = call.memory(address, length as usize)?;
    getrandom::fill(buffer).map_err(|_| IO)
}
