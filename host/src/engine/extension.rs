//! The extension by which a guest runs TensorFlow Lite models: a plugin of WasmEdge, or functions that refuse.

use std::path::PathBuf;

use anyhow::{Context, Result};
use procfs::process::{MMapPath, Process};
use wasmedge_sdk::error::CoreError;
use wasmedge_sdk::plugin::PluginManager;
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sdk::{CallingFrame, FuncType, ImportObjectBuilder, Instance, ValType, WasmValue};

/// The name of the plugin, and of the module that guests import.
pub const NAME: &str = "wasmedge_tensorflowlite";

/// Where the name of the plugin's file ends, the official one's as well.
const FILE: &str = "PluginWasmEdgeTensorflowLite.so";

/// What a guest can import, and how many parameters each has.
const FUNCTIONS: [(&str, usize); 7] = [
    ("create_session", 3),
    ("delete_session", 1),
    ("run_session", 1),
    ("get_output_tensor", 4),
    ("get_tensor_len", 3),
    ("get_tensor_data", 5),
    ("append_input", 5),
];

/// What the refusing functions give, as those of WasmEdge's CLI do: the code for an argument that is wrong.
const REFUSED: i32 = 1;

/// Loads the plugins that WasmEdge finds; in a process that has one thread, before it makes others. Gives where the
/// extension's lies, if there is one that works.
///
/// # Errors
/// If WasmEdge cannot be told to.
pub fn load() -> Result<Option<PathBuf>> {
    PluginManager::load(None).context("WasmEdge cannot load its plugins")?;
    Ok(plugin().map(drop).map(|()| place().unwrap_or_default()))
}

/// The module that a guest imports; its sessions are its own.
///
/// # Errors
/// If WasmEdge cannot make one.
pub fn module() -> Result<Box<dyn SyncInst>> {
    match plugin() {
        Some(module) => Ok(Box::new(module)),
        None => refusing(),
    }
}

/// The plugin's module, if the plugin is loaded and can make one.
fn plugin() -> Option<Instance> {
    if !PluginManager::names().iter().any(|name| name == NAME) {
        return None;
    }
    PluginManager::create_plugin_instance(NAME, NAME).ok()
}

/// Without them a guest that imports them could not be started at all.
fn refusing() -> Result<Box<dyn SyncInst>> {
    let mut module = ImportObjectBuilder::new(NAME, ())?;
    for (name, parameters) in FUNCTIONS {
        let kind = FuncType::new(vec![ValType::I32; parameters], vec![ValType::I32]);
        module.with_func_by_type(name, kind, refuse)?;
    }
    Ok(Box::new(module.build()))
}

fn refuse(_: &mut (), _: &mut Instance, _: &mut CallingFrame, _: Vec<WasmValue>) -> Result<Vec<WasmValue>, CoreError> {
    Ok(vec![WasmValue::from_i32(REFUSED)])
}

/// Where the plugin's file lies. WasmEdge does not tell, and the kernel does.
fn place() -> Option<PathBuf> {
    let maps = Process::myself().and_then(|process| process.maps()).ok()?;
    maps.into_iter().find_map(|map| match map.pathname {
        MMapPath::Path(path) if path.to_string_lossy().ends_with(FILE) => Some(path),
        _ => None,
    })
}
