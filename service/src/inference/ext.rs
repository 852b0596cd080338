//! The TensorFlow Lite extension of WasmEdge: the only place that names it.
//!
//! The functions are those of the crate `wasmedge_tensorflow_interface`, whose safe wrappers end the guest at
//! any error, and whose own declarations cannot be named from outside. So they are declared here again, and
//! every error is a value. Natively there is no extension: sessions cannot be had.

use thiserror::Error;

/// The plugin's name, and that of the module that it has.
pub const NAME: &str = "wasmedge_tensorflowlite";

/// What the extension refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExtError {
    /// There is no extension here.
    #[error("there is no TensorFlow Lite extension here")]
    Absent,
    /// An argument is wrong: a name that the model does not have, a size that does not fit, a model that
    /// cannot be used.
    #[error("invalid argument")]
    InvalidArgument,
    /// Text that is no text.
    #[error("invalid encoding")]
    InvalidEncoding,
    /// A place outside of the guest's memory.
    #[error("missing memory")]
    MissingMemory,
    /// It is doing something else.
    #[error("busy")]
    Busy,
    /// The model could not be run.
    #[error("runtime error")]
    Runtime,
    /// A code that the interface does not have.
    #[error("unknown error {0}")]
    Unknown(u32),
}

impl ExtError {
    #[cfg(target_os = "wasi")]
    fn check(code: u32) -> Result<(), Self> {
        Err(match code {
            0 => return Ok(()),
            1 => Self::InvalidArgument,
            2 => Self::InvalidEncoding,
            3 => Self::MissingMemory,
            4 => Self::Busy,
            5 => Self::Runtime,
            other => Self::Unknown(other),
        })
    }
}

#[cfg(target_os = "wasi")]
pub use guest::{ExtSession, is_present};
#[cfg(not(target_os = "wasi"))]
pub use native::{ExtSession, is_present};

#[cfg(target_os = "wasi")]
mod guest {
    use super::ExtError;

    #[link(wasm_import_module = "wasmedge_tensorflowlite")]
    unsafe extern "C" {
        fn create_session(model: *const u8, size: usize, session: *mut u32) -> u32;
        fn delete_session(session: u32) -> u32;
        fn run_session(session: u32) -> u32;
        fn get_output_tensor(session: u32, name: *const u8, name_size: usize, tensor: *mut u32) -> u32;
        fn get_tensor_len(session: u32, tensor: u32, size: *mut u32) -> u32;
        fn get_tensor_data(session: u32, tensor: u32, buffer: *mut u8, size: usize, written: *mut u32) -> u32;
        fn append_input(session: u32, name: *const u8, name_size: usize, data: *const u8, size: usize) -> u32;
    }

    /// Whether there is an extension behind the functions. What WasmEdge's command line puts in the place of a
    /// missing one knows one error only, an argument that is invalid; it complains on standard output, so this
    /// is to be asked once.
    pub fn is_present() -> bool {
        // SAFETY: nothing of ours is at that place, which is outside of memory: it is refused by whoever looks.
        let code = unsafe { create_session(std::ptr::without_provenance(usize::MAX - 7), 8, &mut 0) };
        code != 0 && ExtError::check(code) != Err(ExtError::InvalidArgument)
    }

    /// A model that is loaded.
    #[derive(Debug)]
    pub struct ExtSession {
        handle: u32,
        /// WasmEdge's own extension goes on reading the model where it was.
        _model: Box<[u8]>,
    }

    impl ExtSession {
        /// Loads a model.
        ///
        /// # Errors
        /// A model that the extension cannot use.
        pub fn new(model: Box<[u8]>) -> Result<Self, ExtError> {
            let mut handle = 0;
            // SAFETY: the model is as long as it says, and lives as long as the session.
            ExtError::check(unsafe { create_session(model.as_ptr(), model.len(), &mut handle) })?;
            Ok(Self { handle, _model: model })
        }

        /// Sets an input, by the name of its tensor in the model.
        ///
        /// # Errors
        /// A name or size that the model does not have.
        pub fn set_input(&mut self, tensor: &str, data: &[u8]) -> Result<(), ExtError> {
            // SAFETY: both are as long as they say, and are only read, during the call.
            ExtError::check(unsafe {
                append_input(self.handle, tensor.as_ptr(), tensor.len(), data.as_ptr(), data.len())
            })
        }

        /// Runs the model once.
        ///
        /// # Errors
        /// If it cannot be run on these inputs.
        pub fn run(&mut self) -> Result<(), ExtError> {
            // SAFETY: it has no other argument than the handle.
            ExtError::check(unsafe { run_session(self.handle) })
        }

        /// Appends an output's bytes to `output`; `expected` is how many there must be.
        ///
        /// # Errors
        /// A name that the model does not have, or another size.
        pub fn append_output(&self, tensor: &str, expected: usize, output: &mut Vec<u8>) -> Result<(), ExtError> {
            let (mut handle, mut size, mut written) = (0, 0, 0);
            // SAFETY: the name is as long as it says; the result is written to a place that is there.
            ExtError::check(unsafe { get_output_tensor(self.handle, tensor.as_ptr(), tensor.len(), &mut handle) })?;
            // SAFETY: as above.
            ExtError::check(unsafe { get_tensor_len(self.handle, handle, &mut size) })?;
            if usize::try_from(size) != Ok(expected) {
                return Err(ExtError::Runtime);
            }
            output.reserve(expected);
            let free = output.spare_capacity_mut().as_mut_ptr().cast();
            // SAFETY: there is room for so many bytes at `free`.
            ExtError::check(unsafe { get_tensor_data(self.handle, handle, free, expected, &mut written) })?;
            if usize::try_from(written) != Ok(expected) {
                return Err(ExtError::Runtime);
            }
            // SAFETY: so many bytes were reserved, and have been written.
            unsafe { output.set_len(output.len() + expected) };
            Ok(())
        }
    }

    impl Drop for ExtSession {
        fn drop(&mut self) {
            // SAFETY: it has no other argument than the handle, which nobody uses any more. There is nothing to
            // be done about a refusal.
            let _ = unsafe { delete_session(self.handle) };
        }
    }
}

#[cfg(not(target_os = "wasi"))]
mod native {
    use super::ExtError;

    /// There is none.
    pub fn is_present() -> bool {
        false
    }

    /// A session that cannot be had.
    #[derive(Debug)]
    pub enum ExtSession {}

    #[expect(missing_docs, reason = "they cannot be called; the guest's say what they do")]
    #[expect(clippy::missing_errors_doc, reason = "see above")]
    #[expect(clippy::boxed_local, reason = "the guest's keeps the model")]
    impl ExtSession {
        pub fn new(_model: Box<[u8]>) -> Result<Self, ExtError> {
            Err(ExtError::Absent)
        }

        pub fn set_input(&mut self, _tensor: &str, _data: &[u8]) -> Result<(), ExtError> {
            match *self {}
        }

        pub fn run(&mut self) -> Result<(), ExtError> {
            match *self {}
        }

        pub fn append_output(&self, _tensor: &str, _expected: usize, _output: &mut Vec<u8>) -> Result<(), ExtError> {
            match *self {}
        }
    }
}
