//! A module that is loaded, ready to be instantiated any number of times.

use std::fs::File;
use std::os::fd::AsRawFd;

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
    /// Loads the file, as the plan says; what is at the path in the plan may be something else by now.
    ///
    /// # Errors
    /// If WasmEdge does not take it: no module, damaged, or compiled by another version.
    pub fn load(plan: &Plan, file: &File) -> Result<Self> {
        // Told explicitly: by default 0.17 interprets compiled code, too.
        let mode = match plan.mode {
            Mode::Aot => RunMode::Aot,
            Mode::Interpreter => RunMode::Interpreter,
        };
        let runtime = RuntimeConfigOptions::new().max_memory_pages(plan.limits.memory_pages);
        let config =
            ConfigBuilder::new(CommonConfigOptions::default().run_mode(mode)).with_runtime_config(runtime).build()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let module = Module::from_file(Some(&config), path)
            .with_context(|| format!("WasmEdge does not take {}", plan.code.display()))?;
        Ok(Self { config, module })
    }
}
