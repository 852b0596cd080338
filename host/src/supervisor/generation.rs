//! A generation of workers: the same code, the same settings, forked from one template.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aot_cache::Digest;
use host::protocol::{Mode, Plan};
use tokio::task::spawn_blocking;

use super::template::Template;
use crate::source::{Fresh, Prepared, Source};

/// What tells a generation from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 1 at the start; each reload has the next, also one that fails.
    pub number: u64,
    /// The digest of its module's file.
    pub digest: Digest,
}

/// Code, with what its guests are given and the process that its workers are forked from.
#[derive(Debug)]
pub struct Generation {
    pub tag: Tag,
    /// The version of the WasmEdge that it was made for.
    pub wasmedge: String,
    /// Where the plugin lies that runs models, once the template has loaded it.
    pub models: Option<PathBuf>,
    /// `None` only between two of them.
    pub template: Option<Template>,
    /// Templates in a row that ended before one made a worker.
    pub in_vain: u32,
    plan: Plan,
    /// Held open, so that another template loads the same, whatever becomes of the file's path.
    code: File,
}

impl Generation {
    /// Starts a template and gives it what was read, compiled for its WasmEdge; whether it could load that is
    /// its next report.
    ///
    /// # Errors
    /// If the engine does not run, or the module cannot be compiled.
    pub async fn make(source: &Source, number: u64, fresh: Fresh) -> Result<Self> {
        let engine = if number == 1 { source.engine.clone() } else { source.engine.clone().in_background() };
        // First, as compiled code depends on the version of its WasmEdge.
        let template = Template::start(&engine, source.options.loading())?;
        let Some(wasmedge) = template.hello().await else {
            drop(template);
            // Asked again, it says why.
            spawn_blocking(move || engine.about()).await??;
            bail!("the engine does not say that it is there");
        };
        let Prepared { plan, code, digest } = source.prepare(fresh, &wasmedge, engine).await?;
        let tag = Tag { number, digest };
        let generation = Self { tag, wasmedge, models: None, template: Some(template), in_vain: 0, plan, code };
        generation.load()?;
        Ok(generation)
    }

    /// Gives its template the code.
    ///
    /// # Errors
    /// If the template is gone, or the guest's environment is too large.
    pub fn load(&self) -> Result<()> {
        let Some(template) = &self.template else { return Ok(()) };
        template.load(&self.plan, &self.code).context("cannot hand the module and its environment to the template")
    }

    /// The template, once workers can be made.
    pub fn maker(&self) -> Option<&Template> {
        self.template.as_ref().filter(|template| template.loaded)
    }

    /// What it is and how it is executed, for people.
    pub fn described(&self, module: &Path) -> String {
        let how = match self.plan.mode {
            Mode::Aot => "compiled ahead of time",
            Mode::Interpreter => "interpreted: for trying out only, ten times slower",
        };
        format!("{}, {how} (WasmEdge {})", module.display(), self.wasmedge)
    }
}
