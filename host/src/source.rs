//! Where code and environment come from: read for the start, and anew for each reload.

use std::env;
use std::fs::File;

use anyhow::{Context, Result, anyhow, bail};
use aot_cache::Digest;
use host::protocol::{Grant, Guest, Limits, Mode, Plan};
use tokio::task::spawn_blocking;

use crate::cli::Serve;
use crate::guest::Environment;
use crate::module::{Content, Kind, Module};
use crate::processes::Engine;
use crate::{compile, say};

/// A module and an environment for it, as they were when they were read.
#[derive(Debug)]
pub struct Fresh {
    module: Module,
    environment: Vec<String>,
}

impl Fresh {
    /// Reads the module and the environment that the options name. Tells the digest of the module's file, too,
    /// if that could be read.
    ///
    /// # Errors
    /// If one of them is not there or cannot be used.
    pub fn read(options: &Serve) -> (Option<Digest>, Result<Self>) {
        match Content::read(&options.module) {
            Ok(content) => (Some(content.digest.clone()), Self::of(content, options)),
            Err(error) => (None, Err(error)),
        }
    }

    fn of(content: Content, options: &Serve) -> Result<Self> {
        let module = content.module()?;
        if options.interpret && module.kind == Kind::Compiled {
            bail!("--interpret needs the portable module, and {} is compiled", module.path.display());
        }
        let environment = environment(options, &module)?;
        Ok(Self { module, environment })
    }
}

/// Code, and what its guests are given.
#[derive(Debug)]
pub struct Prepared {
    pub plan: Plan,
    pub code: File,
    /// Of the module's file.
    pub digest: Digest,
}

/// What stays the same for as long as usher runs.
#[derive(Debug)]
pub struct Source {
    pub options: Serve,
    pub engine: Engine,
    /// The variables of the guest that usher decides, each as NAME=VALUE.
    pub told: Vec<String>,
    /// The folders of the guest.
    pub folders: Vec<Grant>,
    pub limits: Limits,
}

impl Source {
    /// Has code made of what was read, which takes a while unless it is in the cache.
    ///
    /// # Errors
    /// If it cannot be compiled.
    pub async fn prepare(&self, fresh: Fresh, wasmedge: &str, engine: Engine) -> Result<Prepared> {
        let Fresh { module, mut environment } = fresh;
        environment.extend(self.told.iter().cloned());
        let guest = Guest {
            arguments: vec![self.options.module.display().to_string()],
            environment,
            folders: self.folders.clone(),
            poll: self.options.poll.into(),
        };
        let (path, digest) = (module.path.clone(), module.digest.clone());
        let (mode, code, file) = match module.kind {
            Kind::Compiled => (Mode::Aot, path, module.file),
            Kind::Portable if self.options.interpret => (Mode::Interpreter, path, module.file),
            Kind::Portable => {
                let (wasmedge, options) = (wasmedge.to_owned(), self.options.code.clone());
                // Compiling takes a minute, during which signals are to be heard.
                let compiling = spawn_blocking(move || compile::compiled(&engine, &wasmedge, &module, &options));
                let path = compiling.await.map_err(|error| anyhow!(error))??;
                let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                (Mode::Aot, path, file)
            }
        };
        Ok(Prepared { plan: Plan { code, mode, guest, limits: self.limits }, code: file, digest })
    }
}

/// The guest's environment.
fn environment(options: &Serve, module: &Module) -> Result<Vec<String>> {
    let own = |name: &str| env::var_os(name);
    let mut environment = Environment::default();
    environment.inherit(&module.settings, own)?;
    for (name, flag) in &environment.unused {
        say::log(format_args!("the variable {name} has no effect under usher: use {flag}"));
    }
    if let Some(file) = &options.env_file {
        environment.add_file(file, own)?;
    }
    for text in &options.env {
        environment.add(text, own).context("--env")?;
    }
    Ok(environment.into_lines())
}
