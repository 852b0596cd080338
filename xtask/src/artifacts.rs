//! What the end-to-end tests drive, and benchmarks.

use std::panic;
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::versions::Versions;
use crate::{aot, cargo, host, image, kubectl, mariadb, module, mysql, node, plugin, promtool, python, wasmedge};

/// The service in each of its forms, and what runs it.
pub struct Forms {
    pub wasm: PathBuf,
    pub aot: PathBuf,
    /// Where usher finds the compiled form.
    pub cache: PathBuf,
    pub usher: PathBuf,
    pub wasmedge: PathBuf,
    pub native: PathBuf,
    pub plugin: PathBuf,
}

/// Those, the oldest that has to do, the databases that the service can use, what checks its metrics, and what runs
/// clients that are written in Python.
pub struct Artifacts {
    forms: Forms,
    oldest_aot: PathBuf,
    oldest_wasmedge: PathBuf,
    mariadb: PathBuf,
    mysql: PathBuf,
    promtool: PathBuf,
    python: PathBuf,
    plugin_guest: PathBuf,
    deployment: Option<Deployment>,
}

/// What the tests of images and manifests need.
struct Deployment {
    node: PathBuf,
    image_files: PathBuf,
    kubectl: PathBuf,
}

impl Artifacts {
    /// The variables by which the tests know them.
    pub fn variables(&self) -> Vec<(&'static str, &PathBuf)> {
        let forms = &self.forms;
        let mut variables = vec![
            ("USHER_WASM", &forms.wasm),
            ("USHER_AOT", &forms.aot),
            // Usher's own variable, by which each that a test starts finds the compiled form.
            ("USHER_CACHE", &forms.cache),
            ("USHER_HOST", &forms.usher),
            ("USHER_WASMEDGE", &forms.wasmedge),
            ("USHER_OLDEST_AOT", &self.oldest_aot),
            ("USHER_OLDEST_WASMEDGE", &self.oldest_wasmedge),
            ("USHER_NATIVE", &forms.native),
            ("USHER_PLUGIN", &forms.plugin),
            ("USHER_MARIADB", &self.mariadb),
            ("USHER_MYSQL", &self.mysql),
            ("USHER_PROMTOOL", &self.promtool),
            ("USHER_PYTHON", &self.python),
            ("USHER_PLUGIN_GUEST", &self.plugin_guest),
        ];
        if let Some(Deployment { node, image_files, kubectl }) = &self.deployment {
            variables.extend([("USHER_NODE", node), ("USHER_IMAGE_FILES", image_files), ("USHER_KUBECTL", kubectl)]);
        }
        variables
    }
}

/// Makes them all, or finds them made.
pub fn prepare(paths: &Paths) -> Result<Artifacts> {
    let versions = Versions::pinned()?;
    mariadb::provide(paths, &versions.mariadb)?;
    mysql::provide(paths, &versions.mysql)?;
    promtool::provide(paths, &versions.promtool)?;
    python::provide_clients(paths, &versions.python)?;
    wasmedge::provide_oldest(paths, &versions.oldest_wasmedge)?;
    let wasm = module::build(paths)?;
    let plugin_guest = plugin::guest(paths, &versions.rust.target)?;
    let (oldest_aot, forms) = thread::scope(|scope| {
        let oldest_aot = scope.spawn(|| aot::for_oldest(paths, &wasm));
        let forms = forms_of(paths, wasm.clone())?;
        anyhow::Ok((joined(oldest_aot)?, forms))
    })?;
    Ok(Artifacts {
        deployment: deployment(paths, &versions, &forms)?,
        forms,
        oldest_aot,
        oldest_wasmedge: paths.oldest_wasmedge_bin(),
        mariadb: paths.mariadb(),
        mysql: paths.mysql(),
        promtool: paths.promtool_bin(),
        python: paths.python_bin(),
        plugin_guest,
    })
}

/// What deployments are tested with, or nothing, said loudly, where this machine cannot have it.
fn deployment(paths: &Paths, versions: &Versions, forms: &Forms) -> Result<Option<Deployment>> {
    let node = node::provide(paths, &versions.node);
    let kubectl = match node.and_then(|()| kubectl::provide(paths, &versions.kubectl)) {
        Ok(kubectl) => kubectl,
        Err(error) => {
            eprintln!("\nSKIP: images and manifests are not tried on container engines: {error:#}\n");
            return Ok(None);
        }
    };
    let code = aot::for_any(paths, &forms.usher, &forms.wasm)?;
    let image_files = paths.image_files();
    image::lay_out_module(&forms.wasm, &image_files.join("wasm"))?;
    let parts = image::HostParts { usher: &forms.usher, plugin: &forms.plugin, code: &code };
    parts.lay_out(paths, &image_files.join("host"))?;
    Ok(Some(Deployment { node: paths.node(), image_files, kubectl }))
}

/// Makes those of the present, or finds them made.
pub fn forms(paths: &Paths) -> Result<Forms> {
    forms_of(paths, module::build(paths)?)
}

fn forms_of(paths: &Paths, wasm: PathBuf) -> Result<Forms> {
    let plugin = plugin::build(paths)?;
    let usher = host::build(paths)?;
    // A compiler uses one processor for a minute, and cargo can do with the others.
    let (aot, native) = thread::scope(|scope| {
        let aot = scope.spawn(|| host::compiled(paths, &usher, &wasm));
        let native = cargo::build(paths, &["--release", "--package", "service"], "service")?;
        anyhow::Ok((joined(aot)?, native))
    })?;
    Ok(Forms {
        wasm,
        cache: aot.parent().context("the compiled form lies in no folder")?.to_path_buf(),
        aot,
        usher,
        wasmedge: paths.wasmedge_bin(),
        native,
        plugin,
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
}
