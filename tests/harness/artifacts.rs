//! Where the built things are: told by `cargo xtask test`, or asked of `cargo xtask artifacts`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

static ARTIFACTS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    if std::env::var_os("USHER_WASM").is_some() {
        return std::env::vars().filter(|(name, _)| name.starts_with("USHER_")).collect();
    }
    let output = Command::new(env!("CARGO"))
        .args(["xtask", "artifacts"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo xtask artifacts: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    lines.lines().filter_map(|line| line.split_once('=')).map(|(name, path)| (name.into(), path.into())).collect()
});

fn artifact(name: &str) -> PathBuf {
    ARTIFACTS.get(name).unwrap_or_else(|| panic!("{name} is not among the artifacts")).into()
}

/// The portable module.
pub fn module() -> PathBuf {
    artifact("USHER_WASM")
}

/// The module compiled ahead of time.
pub fn compiled() -> PathBuf {
    artifact("USHER_AOT")
}

/// The folder that the compiled module is kept in, where usher finds it.
pub fn cache() -> PathBuf {
    artifact("USHER_CACHE")
}

/// The host; its engine lies beside it.
pub fn usher() -> PathBuf {
    artifact("USHER_HOST")
}

/// The WasmEdge CLI.
pub fn wasmedge() -> PathBuf {
    artifact("USHER_WASMEDGE")
}

/// The module compiled ahead of time by the oldest WasmEdge.
pub fn oldest_compiled() -> PathBuf {
    artifact("USHER_OLDEST_AOT")
}

/// The CLI of the oldest WasmEdge that has to do.
pub fn oldest_wasmedge() -> PathBuf {
    artifact("USHER_OLDEST_WASMEDGE")
}

/// The service's native build.
pub fn native() -> PathBuf {
    artifact("USHER_NATIVE")
}

/// What tells whether metrics are as Prometheus wants them.
pub fn promtool() -> PathBuf {
    artifact("USHER_PROMTOOL")
}

/// A folder with Prometheus in `bin`.
pub fn prometheus() -> PathBuf {
    promtool().ancestors().nth(2).expect("it lies in bin").to_path_buf()
}

/// A Python that has what the scripts in `tests/clients` import.
pub fn python() -> PathBuf {
    artifact("USHER_PYTHON")
}

/// The plugin by which guests run models.
pub fn plugin() -> PathBuf {
    artifact("USHER_PLUGIN")
}

/// A guest that calls all that the plugin has.
pub fn plugin_guest() -> PathBuf {
    artifact("USHER_PLUGIN_GUEST")
}

/// Container engines; nothing where this machine can have none.
pub fn node() -> Option<PathBuf> {
    ARTIFACTS.get("USHER_NODE").map(PathBuf::from)
}

/// What images hold, a folder for each.
pub fn image_files() -> PathBuf {
    artifact("USHER_IMAGE_FILES")
}

/// What renders manifests.
pub fn kubectl() -> PathBuf {
    artifact("USHER_KUBECTL")
}

/// MariaDB: programs in `bin`, a new data folder in `seed`.
pub fn mariadb() -> PathBuf {
    artifact("USHER_MARIADB")
}

/// MySQL, in the same shape.
pub fn mysql() -> PathBuf {
    artifact("USHER_MYSQL")
}
