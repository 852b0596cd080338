//! How the plugin finds TensorFlow Lite at run time, without LD_LIBRARY_PATH.
#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=USHER_TENSORFLOW_LITE_LIB");
    // Beside it, as in an image; from where it is installed in `.tools`; and wherever the build found it.
    pass("$ORIGIN");
    pass("$ORIGIN/../../tensorflow-lite/lib");
    if let Some(folder) = env::var_os("USHER_TENSORFLOW_LITE_LIB").map(PathBuf::from)
        && let Ok(real) = folder.canonicalize()
    {
        pass(&real.display().to_string());
    }
}

fn pass(folder: &str) {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,{folder}");
}
