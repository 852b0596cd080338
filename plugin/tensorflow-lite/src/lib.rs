//! The TensorFlow Lite extension as a plugin of WasmEdge: the official one's names and functions
//! (`wasmedge_tensorflowlite`), for machines where that is not installed. What it does beyond the official one is in
//! ARCHITECTURE.md.
#![allow(non_snake_case, reason = "the official plugin's file and functions are called like that")]

mod functions;

use std::sync::OnceLock;

use plugin_abi::Descriptor;

use functions::TensorFlowLite;

static DESCRIPTOR: OnceLock<Descriptor> = OnceLock::new();

/// Where WasmEdge begins.
// SAFETY: it is the name and the signature that WasmEdge looks for in plugins, and only there.
#[unsafe(no_mangle)]
pub extern "C" fn WasmEdge_Plugin_GetDescriptor() -> &'static Descriptor {
    lite::start_quietly();
    DESCRIPTOR.get_or_init(|| Descriptor::of::<TensorFlowLite>([0, 1, 0]))
}
