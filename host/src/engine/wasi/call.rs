//! A guest's call of a function of ours: what it gave, and its memory.

use std::slice;

use host::protocol::PAGE_BYTES;
use wasmedge_sys::ffi;

use super::errno::{Errno, FAULT};

/// A call that still runs.
pub struct Call<'a> {
    frame: *const ffi::WasmEdge_CallingFrameContext,
    /// The guest's, all of it, once it was needed.
    memory: Option<&'a mut [u8]>,
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
        Self { frame, memory: None, parameters }
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
        let frame = self.frame;
        // SAFETY: the frame is of a call that still runs.
        let memory = self.memory.get_or_insert_with(|| unsafe { memory_of(frame) });
        let start = address as usize;
        memory.get_mut(start..start.saturating_add(length)).ok_or(FAULT)
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

/// All of a guest's memory; nothing if it has none.
///
/// # Safety
/// The frame must be of a call that runs as long as this is used: the guest does not run meanwhile, so that
/// nobody else uses its memory, and it does not grow.
unsafe fn memory_of<'a>(frame: *const ffi::WasmEdge_CallingFrameContext) -> &'a mut [u8] {
    // SAFETY: as the caller promises; WasmEdge checks the bounds, and gives nothing beyond them.
    unsafe {
        let memory = ffi::WasmEdge_CallingFrameGetMemoryInstance(frame, 0);
        if memory.is_null() {
            return &mut [];
        }
        let length = ffi::WasmEdge_MemoryInstanceGetPageSize(memory).saturating_mul(PAGE_BYTES);
        let start = ffi::WasmEdge_MemoryInstanceGetPointer(memory, 0, length);
        if start.is_null() { &mut [] } else { slice::from_raw_parts_mut(start, length as usize) }
    }
}
