//! WasmEdge's WASI with functions of our own where its own do not fit: the only place that speaks its C
//! interface.

mod call;
mod descriptors;
mod errno;
pub mod hooks;
mod poll;
mod poll_oneoff;
mod random;
mod replacement;
mod transfer;

use std::ffi::{CString, c_char};
use std::os::fd::RawFd;
use std::{mem, ptr};

use anyhow::{Context, Result, anyhow, ensure};
use host::protocol::{Grant, Guest, Poll};
use rustc_hash::FxHashMap;
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sdk::{AsInstance, FuncType, ValType};
use wasmedge_sys::{Function, ffi};

use poll::Poller;
use replacement::{Body, Replacement};

/// The name by which guests import it (WASI preview 1).
pub const MODULE: &str = "wasi_snapshot_preview1";

/// The WASI of one guest.
///
/// Not the SDK's `ImportObject::from_raw`: in 0.17.1 it frees the module's name, which is not its own.
#[derive(Debug)]
pub struct Wasi {
    context: *mut ffi::WasmEdge_ModuleInstanceContext,
    state: Box<State>,
    /// What our functions are made of.
    #[expect(clippy::vec_box, reason = "the module has their addresses")]
    replacements: Vec<Box<Replacement>>,
}

/// What our functions share. Only one of them runs at a time, as a guest has one thread.
#[derive(Debug)]
struct State {
    /// The module, for its table of descriptors.
    context: *mut ffi::WasmEdge_ModuleInstanceContext,
    /// Our polls; none where WasmEdge's are in use.
    poller: Option<Poller>,
    subscriptions: Vec<poll::Subscription>,
    events: Vec<poll::Event>,
    /// The guest's sockets that data went through.
    sockets: FxHashMap<u32, transfer::Socket>,
    /// Buffers of the call that runs.
    buffers: Vec<libc::iovec>,
}

impl Wasi {
    /// For a guest whose standard input and output are two listening sockets.
    ///
    /// # Errors
    /// If an argument or variable holds a NUL byte, or this WasmEdge does not let a function be replaced.
    pub fn new(guest: &Guest, public: RawFd, control: RawFd) -> Result<Self> {
        let arguments = Strings::new(&guest.arguments)?;
        let environment = Strings::new(&guest.environment)?;
        let folders = Strings::new(&guest.folders.iter().map(preopen).collect::<Vec<_>>())?;
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
        let poller = (guest.poll == Poll::Usher).then(Poller::default);
        let state = Box::new(State {
            context,
            poller,
            subscriptions: Vec::new(),
            events: Vec::new(),
            sockets: FxHashMap::default(),
            buffers: Vec::new(),
        });
        let mut wasi = Self { context, state, replacements: Vec::new() };
        descriptors::replace(&mut wasi)?;
        random::replace(&mut wasi)?;
        transfer::replace(&mut wasi)?;
        if guest.poll == Poll::Usher {
            poll_oneoff::replace(&mut wasi).context("use --poll=wasmedge to go on without")?;
        }
        Ok(wasi)
    }

    /// Whether all that we replace can be, in this WasmEdge.
    ///
    /// # Errors
    /// If not.
    pub fn try_out() -> Result<()> {
        let (arguments, environment, folders) = (Vec::new(), Vec::new(), Vec::new());
        let guest = Guest { arguments, environment, folders, poll: Poll::Usher };
        Self::new(&guest, libc::STDIN_FILENO, libc::STDOUT_FILENO).map(drop)
    }

    /// What the guest gave to `proc_exit`; 0 if it just returned, and if it trapped.
    pub fn exit_code(&self) -> i32 {
        // SAFETY: the instance lives as long as `self`.
        let code = unsafe { ffi::WasmEdge_ModuleInstanceWASIGetExitCode(self.context) };
        i32::try_from(code).unwrap_or(host::protocol::TRAPPED)
    }

    /// Puts a function of ours in the place of WasmEdge's own, which gives an errno.
    fn replace(&mut self, name: &str, parameters: &[ValType], body: Body) -> Result<()> {
        let replacement = Box::new(Replacement { body, original: self.find(name)? });
        let kind = FuncType::new(parameters.to_vec(), vec![ValType::I32]);
        let state: *mut State = &raw mut *self.state;
        let key = ptr::from_ref(&*replacement).cast_mut();
        // SAFETY: `enter` has the signature of a wrapper, and is called with these two, which live until the
        // module is deleted; that keeps the original, too.
        let function =
            unsafe { Function::create_with_custom_wrapper(&kind, replacement::enter, key.cast(), state.cast(), 0)? };
        self.replacements.push(replacement);
        // SAFETY: given to the module, which keeps it, and compared.
        let ours = unsafe { function.as_ptr() };
        let bytes = u32::try_from(name.len())?;
        // SAFETY: WasmEdge copies the name and takes the function over, so that it is not dropped here.
        unsafe {
            let name = ffi::WasmEdge_StringWrap(name.as_ptr().cast(), bytes);
            ffi::WasmEdge_ModuleInstanceAddFunction(self.context, name, ours);
        }
        mem::forget(function);
        ensure!(self.find(name)? == ours, "this WasmEdge does not let {name} be replaced");
        Ok(())
    }

    fn find(&mut self, name: &str) -> Result<*mut ffi::WasmEdge_FunctionInstanceContext> {
        let function = self.get_func_mut(name).map_err(|_| anyhow!("this WasmEdge has no {name}"))?;
        // SAFETY: the function is the module's, and lives as long as that.
        Ok(unsafe { function.as_ptr() })
    }
}

impl AsInstance for Wasi {
    unsafe fn as_ptr(&self) -> *const ffi::WasmEdge_ModuleInstanceContext {
        self.context
    }
}

impl SyncInst for Wasi {}

impl Drop for Wasi {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and owned by nobody else.
        unsafe { ffi::WasmEdge_ModuleInstanceDelete(self.context) }
    }
}

/// A folder in the words of WasmEdge.
fn preopen(folder: &Grant) -> String {
    let suffix = if folder.read_only { ":readonly" } else { "" };
    format!("{}:{}{suffix}", folder.guest, folder.host)
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
