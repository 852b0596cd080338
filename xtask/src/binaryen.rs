//! wasm-opt at `.tools/binaryen`, which makes the built module smaller: a program of a Debian package with its
//! library, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use aot_cache::Digest;

use crate::apt::{self, PrivateApt};
use crate::paths::Paths;
use crate::process::{capture, find_on_path};
use crate::versions::Packages;
use crate::{files, progress, tools};

/// Where it lies in the package.
const PROGRAM: &str = "usr/bin/wasm-opt";

/// At its highest level, with what rustc uses of WebAssembly, and nothing more.
const OPTIONS: [&str; 7] = [
    "-O3",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// The module in its best form: the one that was made of it before, or a new one, which takes a minute.
pub fn optimized(paths: &Paths, wanted: &Packages, built: &Path, content: &[u8]) -> Result<Vec<u8>> {
    let wasm_opt = WasmOpt::provide(paths, wanted)?;
    let folder = paths.optimized();
    let options = OPTIONS.join(" ");
    let place = folder.join(format!("{}.wasm", Digest::of(&[content, options.as_bytes()].concat())));
    if let Ok(made) = fs::read(&place) {
        return Ok(made);
    }
    progress::during("optimizing the module", "optimized", || optimize(&wasm_opt, built, &folder, &place))?;
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
}

/// Makes `place` out of `built`, in the folder of all that were made, of which only this one is kept.
fn optimize(wasm_opt: &WasmOpt, built: &Path, folder: &Path, place: &Path) -> Result<()> {
    files::make_folder(folder)?;
    let made = files::staging().tempfile_in(folder).context("cannot make a file for the module")?;
    let mut optimize = wasm_opt.command();
    optimize.args(OPTIONS).arg(built).arg("-o").arg(made.path());
    capture(&mut optimize).context("wasm-opt does not take the module")?;
    for entry in files::entries(folder)? {
        if entry.path() != made.path() {
            files::remove(&entry.path())?;
        }
    }
    made.persist(place).with_context(|| format!("cannot put {} in place", place.display()))?;
    Ok(())
}

/// The program, and where its library lies if that is not installed.
struct WasmOpt {
    program: PathBuf,
    library: Option<PathBuf>,
}

impl WasmOpt {
    /// The one in `.tools`, which is put there if it is missing; an installed one where there are no Debian packages.
    fn provide(paths: &Paths, wanted: &Packages) -> Result<Self> {
        if !apt::available() {
            let program =
                find_on_path("wasm-opt").context("wasm-opt is missing: install binaryen, then run this again")?;
            return Ok(Self { program, library: None });
        }
        let ready = |folder: &Path| capture(Self::unpacked(folder).command().arg("--version")).is_ok();
        tools::provide(paths, &paths.binaryen(), ready, |staging, made| {
            eprintln!("unpacking Debian's package binaryen into .tools (nothing is installed on the system)");
            progress::during("fetching binaryen", "fetched", || {
                make(wanted, staging, made).context("binaryen could not be fetched")
            })
        })?;
        Ok(Self::unpacked(&paths.binaryen()))
    }

    fn unpacked(folder: &Path) -> Self {
        Self { program: folder.join(PROGRAM), library: Some(folder.join("usr/lib").join(apt::multiarch())) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(library) = &self.library {
            command.env("LD_LIBRARY_PATH", library);
        }
        command
    }
}

fn make(wanted: &Packages, staging: &Path, made: &Path) -> Result<()> {
    files::make_folder(made)?;
    let apt = PrivateApt::new(staging.join("apt"))?;
    apt.use_own_suite()?;
    apt.unpack_alone(&wanted.packages, made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpacked::write_script;

    #[test]
    fn a_module_is_optimized_once_and_the_one_before_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let [wasm_opt, folder, built] = ["wasm-opt", "made", "built"].map(|name| root.path().join(name));
        // Called with the options, the module, -o, and the result.
        let script = "#!/bin/sh\nshift $(($# - 3))\n(cat \"$1\"; echo smaller) > \"$3\"\n";
        write_script(&wasm_opt, script).unwrap();
        let wasm_opt = WasmOpt { program: wasm_opt, library: None };
        for content in ["one", "two"] {
            fs::write(&built, content).unwrap();
            let place = folder.join(content);
            optimize(&wasm_opt, &built, &folder, &place).unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), format!("{content}smaller\n"));
        }
        assert_eq!(files::entries(&folder).unwrap().len(), 1);
    }
}
