//! A guest's call of a function of ours: what it gave, and its memory.

use std::{ptr, slice};

use wasmedge_sys::ffi;

use super::errno::{Errno, FAULT};

/// A call that still runs.
pub struct Call<'a> {
    frame: *const ffi::WasmEdge_CallingFrameContext,
    /// The guest's; null until it is needed.
    memory: *mut ffi::WasmEdge_MemoryInstanceContext,
    parameters: &'a [ffi::WasmEdge_Value],
}

impl<'a> Call<'a> {
    /// A call as WasmEdge passes it.
    ///
    /// # Safety
    /// The pointers must be those that WasmEdge gave to a function, which must still run.
    pub unsafe fn new(
        frame: *const ffi::WasmEdge_CallingFrameContext,
        parameters: *const ffi::WasmEdge_Value,
        count: u32,
    ) -> Self {
        // SAFETY: as the caller promises.
        let parameters = unsafe { slice::from_raw_parts(parameters, count as usize) };
        Self { frame, memory: ptr::null_mut(), parameters }
    }

    /// A parameter; -1 if there is none.
    pub fn parameter(&self, index: usize) -> i32 {
        // SAFETY: no pointers.
        self.parameters.get(index).map_or(-1, |value| unsafe { ffi::WasmEdge_ValueGetI32(*value) })
    }

    /// A parameter that is an address or a size.
    pub fn address(&self, index: usize) -> u32 {
        self.parameter(index).cast_unsigned()
    }

    /// A part of the guest's memory.
    ///
    /// # Errors
    /// If it is not all there.
    pub fn memory(&mut self, address: u32, length: usize) -> Result<&mut [u8], Errno> {
        if length == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the frame is of a call that still runs; WasmEdge checks the bounds, and gives nothing beyond
        // them. The guest does not run meanwhile, and `self` is borrowed.
        unsafe {
            if self.memory.is_null() {
                self.memory = ffi::WasmEdge_CallingFrameGetMemoryInstance(self.frame, 0);
            }
            let start = ffi::WasmEdge_MemoryInstanceGetPointer(self.memory, address.into(), length as u64);
            if start.is_null() { Err(FAULT) } else { Ok(slice::from_raw_parts_mut(start, length)) }
        }
    }

    /// A number in the guest's memory.
    ///
    /// # Errors
    /// If it is not all there.
    pub fn word(&mut self, address: u32) -> Result<u32, Errno> {
        let mut word = [0; 4];
        word.copy_from_slice(self.memory(address, 4)?);
        Ok(u32::from_le_bytes(word))
    }
}
