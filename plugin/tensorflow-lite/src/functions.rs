//! The seven functions of the extension: what a guest gave, one call, what it gets.

use std::ffi::CStr;

use lite::{Sessions, Wrong};
use plugin_abi::{Call, Errno, Extension, Function, Outcome};

/// The extension, with the sessions of one guest.
#[derive(Debug)]
pub struct TensorFlowLite {
    sessions: Sessions,
}

impl Extension for TensorFlowLite {
    const NAME: &'static CStr = c"wasmedge_tensorflowlite";
    const DESCRIPTION: &'static CStr = c"TensorFlow Lite models for WebAssembly, checked before they are run";
    const FUNCTIONS: &'static [Function<Self>] = &[
        Function { name: "create_session", parameters: 3, body: create_session },
        Function { name: "delete_session", parameters: 1, body: delete_session },
        Function { name: "run_session", parameters: 1, body: run_session },
        Function { name: "get_output_tensor", parameters: 4, body: get_output_tensor },
        Function { name: "get_tensor_len", parameters: 3, body: get_tensor_len },
        Function { name: "get_tensor_data", parameters: 5, body: get_tensor_data },
        Function { name: "append_input", parameters: 5, body: append_input },
    ];

    fn new() -> Self {
        Self { sessions: Sessions::new() }
    }
}

/// `(model, its length, where the handle goes)`
fn create_session(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    call.can_store(2)?;
    let session = this.sessions.create(call.bytes(0)?).map_err(code)?;
    call.store(2, session)
}

/// `(session)`
fn delete_session(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    this.sessions.delete(call.parameter(0)).map_err(code)
}

/// `(session)`
fn run_session(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    this.sessions.get_mut(call.parameter(0)).and_then(|session| session.run()).map_err(code)
}

/// `(session, name, its length, where the handle goes)`
fn get_output_tensor(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    let session = this.sessions.get(call.parameter(0)).map_err(code)?;
    call.can_store(3)?;
    let tensor = session.output_called(call.bytes(1)?).map_err(code)?;
    call.store(3, tensor)
}

/// `(session, tensor, where the length goes)`
fn get_tensor_len(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    let session = this.sessions.get(call.parameter(0)).map_err(code)?;
    let length = session.output_bytes(call.parameter(1)).map_err(code);
    call.can_store(2)?;
    call.store(2, u32::try_from(length?).map_err(|_| Errno::RuntimeError)?)
}

/// `(session, tensor, buffer, its length, where the number of bytes written goes)`. The buffer has to have the
/// tensor's length.
fn get_tensor_data(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    let session = this.sessions.get(call.parameter(0)).map_err(code)?;
    call.can_store(4)?;
    let tensor = call.parameter(1);
    let buffer = call.buffer(2)?;
    let data = session.output(tensor).map_err(code)?;
    if data.len() != buffer.len() {
        call.store(4, 0)?;
        return Err(Errno::InvalidArgument);
    }
    buffer.copy_from_slice(data);
    call.store(4, call.parameter(3))
}

/// `(session, name, its length, data, its length)`
fn append_input(this: &mut TensorFlowLite, call: &mut Call<'_>) -> Outcome {
    let session = this.sessions.get_mut(call.parameter(0)).map_err(code)?;
    let (name, data) = (call.bytes(1)?, call.bytes(3)?);
    let input = session.input_called(name).map_err(code)?;
    session.set_input(input, data).map_err(code)
}

/// The official codes for what can be wrong.
fn code(wrong: Wrong) -> Errno {
    match wrong {
        Wrong::Handle | Wrong::Name | Wrong::Size | Wrong::Model => Errno::InvalidArgument,
        Wrong::Run => Errno::Busy,
        Wrong::Broken => Errno::RuntimeError,
    }
}
