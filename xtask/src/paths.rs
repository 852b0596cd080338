//! Where things lie in a checkout.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The places in one checkout.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The checkout this program was started from.
    pub fn of_this_checkout() -> Result<Self> {
        // cargo sets the variable at run time too; it is right even when the checkout was moved.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask lies in no folder")?;
        Ok(Self::at(root))
    }

    /// The checkout in folder `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What set-up and the caches own; deleting it is always safe.
    pub fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// WasmEdge in the official installer's shape: `bin include lib plugin`.
    pub fn wasmedge(&self) -> PathBuf {
        self.tools().join("wasmedge")
    }

    /// WasmEdge's command line tool.
    pub fn wasmedge_bin(&self) -> PathBuf {
        self.wasmedge().join("bin/wasmedge")
    }

    /// Where WasmEdge looks for plugins.
    pub fn plugins(&self) -> PathBuf {
        self.wasmedge().join("plugin")
    }

    /// A library that stands in for the LLVM that WasmEdge is linked with, where there is one.
    pub fn standin(&self) -> PathBuf {
        self.wasmedge().join("standin")
    }

    /// The oldest WasmEdge that the module has to run on, for tests; in the same shape.
    pub fn oldest_wasmedge(&self) -> PathBuf {
        self.tools().join("wasmedge-oldest")
    }

    /// Its command line tool.
    pub fn oldest_wasmedge_bin(&self) -> PathBuf {
        self.oldest_wasmedge().join("bin/wasmedge")
    }

    /// TensorFlow Lite, which the plugin is linked with: its C library in `lib`.
    pub fn tensorflow_lite(&self) -> PathBuf {
        self.tools().join("tensorflow-lite")
    }

    /// What makes the module smaller: Debian's package binaryen.
    pub fn binaryen(&self) -> PathBuf {
        self.tools().join("binaryen")
    }

    /// The module that was made with it last, by the digest of what it was made of.
    pub fn optimized(&self) -> PathBuf {
        self.tools().join("optimized")
    }

    /// MariaDB for tests: programs in `bin`, a new data folder in `seed`.
    pub fn mariadb(&self) -> PathBuf {
        self.tools().join("mariadb")
    }

    /// MySQL for tests, in the same shape.
    pub fn mysql(&self) -> PathBuf {
        self.tools().join("mysql")
    }

    /// What checks metrics in tests, and Prometheus: programs in `bin`.
    pub fn promtool(&self) -> PathBuf {
        self.tools().join("promtool")
    }

    /// What checks them.
    pub fn promtool_bin(&self) -> PathBuf {
        self.promtool().join("bin/promtool")
    }

    /// Python with the clients that tests use: a virtual environment.
    pub fn python(&self) -> PathBuf {
        self.tools().join("python")
    }

    /// Its interpreter.
    pub fn python_bin(&self) -> PathBuf {
        self.python().join("bin/python")
    }

    /// The versions and hashes of those clients.
    pub fn requirements(&self) -> PathBuf {
        self.root.join("tests/clients/requirements.txt")
    }

    /// What renders the manifests in tests: a program in `bin`.
    pub fn kubectl(&self) -> PathBuf {
        self.tools().join("kubectl")
    }

    /// What validates them: a virtual environment of Python.
    pub fn kubernetes_validate(&self) -> PathBuf {
        self.tools().join("kubernetes-validate")
    }

    /// What finds common mistakes in them: another one.
    pub fn checkov(&self) -> PathBuf {
        self.tools().join("checkov")
    }

    /// Container engines for tests, and the base of images; see `node`.
    pub fn node(&self) -> PathBuf {
        self.tools().join("node")
    }

    /// What images hold, laid out for the tests: a folder for each.
    pub fn image_files(&self) -> PathBuf {
        self.tools().join("image")
    }

    /// Modules compiled ahead of time for any processor, for images.
    pub fn generic_aot_cache(&self) -> PathBuf {
        self.tools().join("aot-generic")
    }

    /// The manifests for Kubernetes.
    pub fn k8s(&self) -> PathBuf {
        self.root.join("k8s")
    }

    /// Modules compiled ahead of time for the oldest WasmEdge.
    pub fn oldest_aot_cache(&self) -> PathBuf {
        self.tools().join("aot-oldest")
    }

    /// What the benchmarks found.
    pub fn bench_results(&self) -> PathBuf {
        self.root.join("bench/RESULTS.md")
    }

    /// The models that come along.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The portable module.
    pub fn service_wasm(&self) -> PathBuf {
        self.root.join("service.wasm")
    }
}
