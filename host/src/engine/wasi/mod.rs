//! WasmEdge's WASI with functions of our own where its own do not fit: the only place that speaks its C
//! interface.

pub mod hooks;
mod listeners;

use std::ffi::{CString, c_char};
use std::os::fd::RawFd;
use std::ptr;

use anyhow::{Context, Result, ensure};
use host::protocol::Guest;
use wasmedge_sdk::AsInstance;
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sys::ffi;

/// The name by which guests import it (WASI preview 1).
pub const MODULE: &str = "wasi_snapshot_preview1";

/// The guest's descriptors that are listeners of ours: standard input and output.
const LISTENERS: [i32; 2] = [0, 1];

/// The WASI of one guest.
///
/// Not the SDK's `ImportObject::from_raw`: in 0.17.1 it frees the module's name, which is not its own.
#[derive(Debug)]
pub struct Wasi(*mut ffi::WasmEdge_ModuleInstanceContext);

impl Wasi {
    /// For a guest whose standard input and output are two listening sockets.
    ///
    /// # Errors
    /// If an argument or variable holds a NUL byte, or WasmEdge cannot make it.
    pub fn new(guest: &Guest, public: RawFd, control: RawFd) -> Result<Self> {
        let arguments = Strings::new(&guest.arguments)?;
        let environment = Strings::new(&guest.environment)?;
        let folders = Strings::new(&guest.folders)?;
        // The SDK has no way to choose the descriptors.
        // SAFETY: the pointers lead to that many NUL-terminated strings, which WasmEdge copies.
        let context = unsafe {
            ffi::WasmEdge_ModuleInstanceCreateWASIWithFds(
                arguments.as_ptr(),
                arguments.len(),
                environment.as_ptr(),
                environment.len(),
                folders.as_ptr(),
                folders.len(),
                public,
                control,
                libc::STDERR_FILENO,
            )
        };
        ensure!(!context.is_null(), "WasmEdge cannot make a WASI module");
        let mut wasi = Self(context);
        listeners::protect(&mut wasi)?;
        Ok(wasi)
    }

    /// What the guest gave to `proc_exit`; 0 if it just returned, and if it trapped.
    pub fn exit_code(&self) -> i32 {
        // SAFETY: the instance lives as long as `self`.
        let code = unsafe { ffi::WasmEdge_ModuleInstanceWASIGetExitCode(self.0) };
        i32::try_from(code).unwrap_or(host::protocol::TRAPPED)
    }
}

impl AsInstance for Wasi {
    unsafe fn as_ptr(&self) -> *const ffi::WasmEdge_ModuleInstanceContext {
        self.0
    }
}

impl SyncInst for Wasi {}

impl Drop for Wasi {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and owned by nobody else.
        unsafe { ffi::WasmEdge_ModuleInstanceDelete(self.0) }
    }
}

/// Strings as C has them.
struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers lead to.
    _owned: Vec<CString>,
}

impl Strings {
    fn new(texts: &[String]) -> Result<Self> {
        let owned: Vec<CString> = texts
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<_, _>>()
            .context("an argument, a variable or a folder has a NUL byte in it")?;
        let pointers = owned.iter().map(|text| text.as_ptr()).collect();
        Ok(Self { pointers, _owned: owned })
    }

    fn as_ptr(&self) -> *const *const c_char {
        if self.pointers.is_empty() { ptr::null() } else { self.pointers.as_ptr() }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.pointers.len()).unwrap_or(u32::MAX)
    }
}
