//! A module that is loaded, ready to be instantiated any number of times.

use anyhow::{Context, Result};
use host::protocol::{Mode, Plan};
use wasmedge_sdk::config::{CommonConfigOptions, Config, ConfigBuilder, RuntimeConfigOptions};
use wasmedge_sdk::{Module, RunMode};

/// A loaded and validated module with the configuration that it is to run under.
#[derive(Debug)]
pub struct Code {
    /// What every instance is made with.
    pub config: Config,
    /// The module.
    pub module: Module,
}

impl Code {
    /// Loads what the plan names.
    ///
    /// # Errors
    /// If WasmEdge does not take it: no module, damaged, or compiled by another version.
    pub fn load(plan: &Plan) -> Result<Self> {
        // Told explicitly: by default 0.17 interprets compiled code, too.
        let mode = match plan.mode {
            Mode::Aot => RunMode::Aot,
            Mode::Interpreter => RunMode::Interpreter,
        };
        let runtime = RuntimeConfigOptions::new().max_memory_pages(plan.limits.memory_pages);
        let config =
            ConfigBuilder::new(CommonConfigOptions::default().run_mode(mode)).with_runtime_config(runtime).build()?;
        let module = Module::from_file(Some(&config), &plan.code)
            .with_context(|| format!("WasmEdge does not take {}", plan.code.display()))?;
        Ok(Self { config, module })
    }
}
