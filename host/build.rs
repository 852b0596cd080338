//! How `usher-engine` finds WasmEdge at run time: the same one that it is built with.
#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WASMEDGE_LIB_DIR");
    if let Err(message) = configure() {
        println!("cargo::error={message}: run `cargo xtask setup` first");
    }
}

fn configure() -> Result<(), String> {
    let link = PathBuf::from(env::var_os("WASMEDGE_LIB_DIR").ok_or("WASMEDGE_LIB_DIR is not set")?);
    let library = link.join("libwasmedge.so");
    println!("cargo::rerun-if-changed={}", library.display());
    let real = library.canonicalize().map_err(|error| format!("no {} ({error})", library.display()))?;
    let prefix = link.parent().ok_or("WASMEDGE_LIB_DIR is the root folder")?;
    match first_in(&prefix.join("lib"), "ld-linux") {
        Some(loader) => use_bundle(&loader, &prefix.join("lib")),
        None => pass(&format!("-rpath,{}", real.parent().unwrap_or(&link).display())),
    }
    name_standin(&prefix.join("standin"));
    Ok(())
}

/// The bundle has a libc of its own, newer than this machine's, which only its own loader can load.
fn use_bundle(loader: &Path, lib: &Path) {
    pass(&format!("--dynamic-linker={}", loader.display()));
    pass(&format!("-rpath,{}", lib.display()));
    // As RPATH the folder is searched for what the libraries need too, as RUNPATH it is not.
    pass("--disable-new-dtags");
    // The libraries want more of libc than this machine's has, with which we link.
    pass("--allow-shlib-undefined");
}

/// Tells the program where the library lies that stands in for LLVM; empty when there is none.
fn name_standin(folder: &Path) {
    let standin = first_in(folder, "libLLVM");
    if let Some(file) = &standin {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    println!("cargo::rustc-env=USHER_LLVM_STANDIN={}", standin.unwrap_or_default().display());
}

fn pass(to_linker: &str) {
    println!("cargo::rustc-link-arg-bin=usher-engine=-Wl,{to_linker}");
}

/// The file in `folder` whose name starts like that; there is one at most.
fn first_in(folder: &Path, start: &str) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
}
