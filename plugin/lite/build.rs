//! Compiles the shim, and links with the TensorFlow Lite that set-up provides.
#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::path::PathBuf;

/// The library's name for a linker.
const LIBRARY: &str = "tensorflowlite_c";

fn main() {
    for changed in ["build.rs", "src/shim.cpp"] {
        println!("cargo::rerun-if-changed={changed}");
    }
    println!("cargo::rerun-if-env-changed=USHER_TENSORFLOW_LITE_LIB");
    if let Err(message) = build() {
        println!("cargo::error={message}: run `cargo xtask setup` first");
    }
}

fn build() -> Result<(), String> {
    let folder = env::var_os("USHER_TENSORFLOW_LITE_LIB").ok_or("USHER_TENSORFLOW_LITE_LIB is not set")?;
    let folder = PathBuf::from(folder).canonicalize().map_err(|error| format!("no TensorFlow Lite ({error})"))?;
    let library = folder.join(format!("lib{LIBRARY}.so"));
    if !library.is_file() {
        return Err(format!("no {}", library.display()));
    }
    // clang is there in any case, for the guest's C; a C++ compiler of gcc may not be.
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++17").file("src/shim.cpp").warnings(true);
    if env::var_os("CXX").is_none() {
        shim.compiler("clang++");
    }
    shim.try_compile("lite_shim").map_err(|error| format!("the shim does not compile ({error})"))?;
    println!("cargo::rerun-if-changed={}", library.display());
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=dylib={LIBRARY}");
    // For this crate's own tests.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    println!("cargo::metadata=lib={}", folder.display());
    Ok(())
}
