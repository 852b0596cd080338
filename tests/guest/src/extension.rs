//! The extension's functions, called with any numbers at all.

/// The memory of this module, in bytes.
pub fn memory_bytes() -> u32 {
    u32::try_from(core::arch::wasm32::memory_size(0) << 16).unwrap_or(u32::MAX)
}

pub mod raw {
    #[link(wasm_import_module = "wasmedge_tensorflowlite")]
    unsafe extern "C" {
        pub safe fn create_session(model: u32, length: u32, session: u32) -> u32;
        pub safe fn delete_session(session: u32) -> u32;
        pub safe fn run_session(session: u32) -> u32;
        pub safe fn get_output_tensor(session: u32, name: u32, length: u32, tensor: u32) -> u32;
        pub safe fn get_tensor_len(session: u32, tensor: u32, length: u32) -> u32;
        pub safe fn get_tensor_data(session: u32, tensor: u32, buffer: u32, length: u32, written: u32) -> u32;
        pub safe fn append_input(session: u32, name: u32, name_length: u32, data: u32, length: u32) -> u32;
    }
}

fn address<T>(of: *const T) -> u32 {
    of as usize as u32
}

fn length(of: usize) -> u32 {
    of as u32
}

/// A model's session.
pub fn create(model: &[u8]) -> Result<u32, u32> {
    let session = Box::into_raw(Box::new(u32::MAX));
    let code = raw::create_session(address(model.as_ptr()), length(model.len()), address(session));
    take(code, session)
}

/// The handle of an output.
pub fn output(session: u32, name: &str) -> Result<u32, u32> {
    let tensor = Box::into_raw(Box::new(u32::MAX));
    let code = raw::get_output_tensor(session, address(name.as_ptr()), length(name.len()), address(tensor));
    take(code, tensor)
}

/// How many bytes an output has.
pub fn len(session: u32, tensor: u32) -> Result<u32, u32> {
    let bytes = Box::into_raw(Box::new(u32::MAX));
    take(raw::get_tensor_len(session, tensor, address(bytes)), bytes)
}

/// An output's bytes, into as many as there are.
pub fn data(session: u32, tensor: u32, buffer: &mut [u8]) -> Result<u32, u32> {
    let written = Box::into_raw(Box::new(u32::MAX));
    let code =
        raw::get_tensor_data(session, tensor, address(buffer.as_mut_ptr()), length(buffer.len()), address(written));
    take(code, written)
}

/// Gives an input its bytes.
pub fn append(session: u32, name: &str, data: &[u8]) -> Result<(), u32> {
    let (name_length, data_length) = (length(name.len()), length(data.len()));
    ok(raw::append_input(session, address(name.as_ptr()), name_length, address(data.as_ptr()), data_length))
}

/// Runs a session.
pub fn run(session: u32) -> Result<(), u32> {
    ok(raw::run_session(session))
}

/// Ends a session.
pub fn delete(session: u32) -> Result<(), u32> {
    ok(raw::delete_session(session))
}

fn ok(code: u32) -> Result<(), u32> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// What the extension stored, which the compiler knows nothing of.
fn take(code: u32, stored: *mut u32) -> Result<u32, u32> {
    // SAFETY: made by `Box::into_raw` just before, and freed here only.
    let value = unsafe {
        let value = stored.read_volatile();
        drop(Box::from_raw(stored));
        value
    };
    ok(code).map(|()| value)
}
