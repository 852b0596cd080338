//! What WasmEdge and a plugin of it tell each other, through WasmEdge's C interface: a plugin is an [`Extension`],
//! written without unsafe code. It knows nothing of what the extension does.
//!
//! The interface is declared by hand, with the part that 0.14 and 0.17 have in common: the crate that binds it is
//! for one version and is linked with a library, and a plugin must do with whichever has loaded it.
//!
//! # Safety
//! All unsafe code that has to do with WasmEdge is in this file. It rests on this:
//! - WasmEdge calls `enter` with the pointers that it was given for that function (`Body`, `State`), with as
//!   many parameters as its type says, with room for its one result, and with a frame of the call that runs.
//! - The state is freed by the module's finalizer, after which WasmEdge calls no function of that module.
//! - A guest does not run while it calls, so that its memory is ours until the call returns; and it cannot grow or
//!   go meanwhile. Of one call there is one [`Call`], which lends parts of the memory to read, or one to write.
//! - What WasmEdge gives for an address and a length lies in the guest's memory as a whole, or is null.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::{ptr, slice};

/// The WasmEdge from which on plugins have the interface's version 5 instead of 4: 0.17.
const NEW_INTERFACE_SINCE: u32 = 17;

/// What the extension's functions give to a guest: the official extension's codes, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// A handle, a name or a size that does not fit, or a model that cannot be used.
    InvalidArgument = 1,
    /// Text that is no UTF-8.
    InvalidEncoding = 2,
    /// An address or a length that leads out of the guest's memory.
    MissingMemory = 3,
    /// The model does not run.
    Busy = 4,
    /// Something that must not happen did.
    RuntimeError = 5,
}

/// What a function gives.
pub type Outcome = Result<(), Errno>;

/// A function that guests can import: its parameters are all 32 bit integers, and its result is an [`Errno`] or 0.
#[derive(Debug)]
pub struct Function<S> {
    /// Its name.
    pub name: &'static str,
    /// How many parameters it has.
    pub parameters: u32,
    /// What it does.
    pub body: fn(&mut S, &mut Call<'_>) -> Outcome,
}

/// A plugin with one module of the same name.
pub trait Extension: Sized + Send + 'static {
    /// The name of the plugin, and of the module that guests import from.
    const NAME: &'static CStr;
    /// What it is, for people.
    const DESCRIPTION: &'static CStr;
    /// What guests can import.
    const FUNCTIONS: &'static [Function<Self>];

    /// The state of one module, which one guest imports.
    fn new() -> Self;
}

/// A call that still runs.
#[derive(Debug)]
pub struct Call<'a> {
    frame: *const ffi::CallingFrame,
    memory: Cell<Option<NonNull<ffi::MemoryInstance>>>,
    parameters: &'a [ffi::Value],
}

impl Call<'_> {
    /// A parameter; 0 where there is none.
    pub fn parameter(&self, index: usize) -> u32 {
        self.parameters.get(index).map_or(0, |value| {
            // An `i32` is in the lower half of the first half, whatever is above it.
            let [a, b, c, d, ..] = value.bits;
            u32::from_le_bytes([a, b, c, d])
        })
    }

    /// The part of the guest's memory whose address is one parameter and whose length is the next, to read.
    ///
    /// # Errors
    /// If it is not all there.
    pub fn bytes(&self, index: usize) -> Result<&[u8], Errno> {
        let length = self.parameter(index + 1);
        let start = self.pointer(self.parameter(index), length)?;
        // SAFETY: see the module; as long as this is lent, nothing is lent to be written to.
        Ok(unsafe { slice::from_raw_parts(start, length as usize) })
    }

    /// The same, to write.
    ///
    /// # Errors
    /// If it is not all there.
    pub fn buffer(&mut self, index: usize) -> Result<&mut [u8], Errno> {
        let length = self.parameter(index + 1);
        let start = self.pointer(self.parameter(index), length)?;
        // SAFETY: see the module; as long as this is lent, nothing else is.
        Ok(unsafe { slice::from_raw_parts_mut(start, length as usize) })
    }

    /// Checks that a number can be stored where a parameter says.
    ///
    /// # Errors
    /// If not.
    pub fn can_store(&self, index: usize) -> Outcome {
        self.pointer(self.parameter(index), 4).map(drop)
    }

    /// Stores a number where a parameter says.
    ///
    /// # Errors
    /// If that is not in the guest's memory.
    pub fn store(&mut self, index: usize, number: u32) -> Outcome {
        let place = self.pointer(self.parameter(index), 4)?.cast::<[u8; 4]>();
        // SAFETY: as for `buffer`, and bytes have no alignment.
        unsafe { place.write(number.to_le_bytes()) };
        Ok(())
    }

    /// Where a part of the guest's memory lies; anywhere, if it is empty.
    fn pointer(&self, address: u32, length: u32) -> Result<*mut u8, Errno> {
        if u64::from(address) + u64::from(length) > 1 << 32 {
            return Err(Errno::MissingMemory);
        }
        let memory = self.memory().ok_or(Errno::MissingMemory)?;
        // Of nothing WasmEdge has no pointer, or one past the end.
        if length == 0 {
            return Ok(ptr::dangling_mut());
        }
        // SAFETY: see the module. 0.14 takes the two as 32 bit numbers, in the same registers.
        let start = unsafe { ffi::WasmEdge_MemoryInstanceGetPointer(memory.as_ptr(), address.into(), length.into()) };
        if start.is_null() { Err(Errno::MissingMemory) } else { Ok(start) }
    }

    /// The guest's memory, which is asked for once.
    fn memory(&self) -> Option<NonNull<ffi::MemoryInstance>> {
        if self.memory.get().is_none() {
            // SAFETY: the frame is of this call.
            self.memory.set(NonNull::new(unsafe { ffi::WasmEdge_CallingFrameGetMemoryInstance(self.frame, 0) }));
        }
        self.memory.get()
    }
}

/// What a plugin tells of itself.
#[derive(Debug)]
#[repr(transparent)]
pub struct Descriptor(ffi::PluginDescriptor);

// SAFETY: its pointers lead to what is never changed and never freed.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// Of the extension `E`, with its version.
    pub fn of<E: Extension>(version: [u32; 3]) -> Self {
        let module =
            ffi::ModuleDescriptor { name: E::NAME.as_ptr(), description: E::DESCRIPTION.as_ptr(), create: create::<E> };
        let [major, minor, patch] = version;
        // SAFETY: a function without arguments; WasmEdge, which has loaded us, has it.
        let new = unsafe { ffi::WasmEdge_VersionGetMinor() } >= NEW_INTERFACE_SINCE;
        Self(ffi::PluginDescriptor {
            name: E::NAME.as_ptr(),
            description: E::DESCRIPTION.as_ptr(),
            api_version: if new { 5 } else { 4 },
            version: ffi::PluginVersion { major, minor, patch, build: 0 },
            module_count: 1,
            option_count: 0,
            // As long as the process, as is the plugin.
            modules: Box::leak(Box::new(module)),
            options: ptr::null_mut(),
        })
    }
}

type State<E> = Mutex<E>;

/// Makes a module with functions that share a state.
extern "C" fn create<E: Extension>(_: *const ffi::ModuleDescriptor) -> *mut ffi::ModuleInstance {
    let Ok(state) = catch_unwind(|| Box::into_raw(Box::new(State::new(E::new())))) else {
        return ptr::null_mut();
    };
    // SAFETY: see the module; the name is copied, and the finalizer frees what the pointer leads to.
    unsafe {
        let module =
            ffi::WasmEdge_ModuleInstanceCreateWithData(ffi::string(E::NAME.to_bytes()), state.cast(), Some(free::<E>));
        if module.is_null() {
            free::<E>(state.cast());
            return module;
        }
        for function in E::FUNCTIONS {
            add(module, function, state);
        }
        module
    }
}

/// # Safety
/// The module must live, and the state as long as it.
unsafe fn add<E: Extension>(module: *mut ffi::ModuleInstance, function: &'static Function<E>, state: *mut State<E>) {
    // SAFETY: the types are copied, the module takes the function over, and `enter` gets the pointers that it
    // expects.
    unsafe {
        let number = ffi::WasmEdge_ValTypeGenI32();
        let parameters = vec![number; function.parameters as usize];
        let kind = ffi::WasmEdge_FunctionTypeCreate(parameters.as_ptr(), function.parameters, &raw const number, 1);
        let body = ptr::from_ref(function).cast_mut().cast();
        let made = ffi::WasmEdge_FunctionInstanceCreateBinding(kind, enter::<E>, body, state.cast(), 0);
        ffi::WasmEdge_FunctionTypeDelete(kind);
        if !made.is_null() {
            ffi::WasmEdge_ModuleInstanceAddFunction(module, ffi::string(function.name.as_bytes()), made);
        }
    }
}

unsafe extern "C" fn free<E: Extension>(state: *mut c_void) {
    // SAFETY: made by `create`, and freed once, when the module is.
    let state = unsafe { Box::from_raw(state.cast::<State<E>>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
}

/// Where every function is entered. A panic ends here.
unsafe extern "C" fn enter<E: Extension>(
    function: *mut c_void,
    state: *mut c_void,
    frame: *const ffi::CallingFrame,
    parameters: *const ffi::Value,
    count: u32,
    results: *mut ffi::Value,
    _: u32,
) -> ffi::Outcome {
    // SAFETY: see the module.
    let (function, state, parameters) = unsafe {
        (
            &*function.cast::<Function<E>>(),
            &*state.cast::<State<E>>(),
            slice::from_raw_parts(parameters, count as usize),
        )
    };
    let mut call = Call { frame, memory: Cell::new(None), parameters };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // A state that a panic was in the middle of is not used again.
        let mut state = state.lock().map_err(|_| Errno::RuntimeError)?;
        (function.body)(&mut state, &mut call)
    }));
    let code = match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(errno)) => errno as u32,
        Err(_) => Errno::RuntimeError as u32,
    };
    // SAFETY: there is room for one result.
    unsafe { *results = ffi::WasmEdge_ValueGenI32(code.cast_signed()) };
    ffi::Outcome { code: 0 }
}

/// The interface, as WasmEdge's headers have it.
mod ffi {
    use super::{PhantomData, c_char, c_void};

    /// What is only known by its address.
    macro_rules! opaque {
        ($($name:ident)*) => {
            $(#[derive(Debug)] #[repr(C)] pub struct $name(PhantomData<*mut u8>, [u8; 0]);)*
        };
    }
    opaque!(CallingFrame FunctionInstance FunctionType MemoryInstance ModuleInstance);

    #[derive(Debug, Clone, Copy)]
    #[repr(C)]
    pub struct ValType(pub [u8; 8]);

    /// Aligned as the 128 bit number is that C has for the bits.
    #[derive(Debug, Clone, Copy)]
    #[repr(C, align(16))]
    pub struct Value {
        pub bits: [u8; 16],
        pub kind: ValType,
    }

    #[derive(Debug)]
    #[repr(C)]
    pub struct String {
        length: u32,
        start: *const c_char,
    }

    /// The text must live as long as what is made of it.
    pub fn string(text: &'static [u8]) -> String {
        String { length: u32::try_from(text.len()).unwrap_or(0), start: text.as_ptr().cast() }
    }

    #[derive(Debug)]
    #[repr(C)]
    pub struct Outcome {
        pub code: u32,
    }

    #[derive(Debug)]
    #[repr(C)]
    pub struct ModuleDescriptor {
        pub name: *const c_char,
        pub description: *const c_char,
        pub create: extern "C" fn(*const ModuleDescriptor) -> *mut ModuleInstance,
    }

    #[derive(Debug)]
    #[repr(C)]
    pub struct PluginVersion {
        pub major: u32,
        pub minor: u32,
        pub patch: u32,
        pub build: u32,
    }

    #[derive(Debug)]
    #[repr(C)]
    pub struct PluginDescriptor {
        pub name: *const c_char,
        pub description: *const c_char,
        pub api_version: u32,
        pub version: PluginVersion,
        pub module_count: u32,
        pub option_count: u32,
        pub modules: *mut ModuleDescriptor,
        pub options: *mut c_void,
    }

    type Wrapper = unsafe extern "C" fn(
        *mut c_void,
        *mut c_void,
        *const CallingFrame,
        *const Value,
        u32,
        *mut Value,
        u32,
    ) -> Outcome;

    // In C these names are types of their own, and the functions are as they are there.
    unsafe extern "C" {
        pub fn WasmEdge_VersionGetMinor() -> u32;
        pub fn WasmEdge_ValTypeGenI32() -> ValType;
        pub fn WasmEdge_ValueGenI32(number: i32) -> Value;
        pub fn WasmEdge_FunctionTypeCreate(
            parameters: *const ValType,
            count: u32,
            results: *const ValType,
            result_count: u32,
        ) -> *mut FunctionType;
        pub fn WasmEdge_FunctionTypeDelete(kind: *mut FunctionType);
        pub fn WasmEdge_FunctionInstanceCreateBinding(
            kind: *const FunctionType,
            wrapper: Wrapper,
            binding: *mut c_void,
            data: *mut c_void,
            cost: u64,
        ) -> *mut FunctionInstance;
        pub fn WasmEdge_ModuleInstanceCreateWithData(
            name: String,
            data: *mut c_void,
            finalizer: Option<unsafe extern "C" fn(*mut c_void)>,
        ) -> *mut ModuleInstance;
        pub fn WasmEdge_ModuleInstanceAddFunction(
            module: *mut ModuleInstance,
            name: String,
            function: *mut FunctionInstance,
        );
        pub fn WasmEdge_CallingFrameGetMemoryInstance(frame: *const CallingFrame, index: u32) -> *mut MemoryInstance;
        pub fn WasmEdge_MemoryInstanceGetPointer(memory: *mut MemoryInstance, address: u64, length: u64) -> *mut u8;
    }
}
