//! The files of the images: laid out here for the Dockerfile, which copies them, and for the tests, which build the same
//! images from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::library::Library;
use crate::paths::Paths;
use crate::process::capture;
use crate::versions::Versions;
use crate::{aot, files, host, module, plugin, system, unpacked};

/// Where the host's files lie in its image. The engine is told it, as its loader is no part of the base image's libc.
const PREFIX: &str = "/opt/usher";

/// An image, by its stage in the Dockerfile.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Image {
    /// The module and nothing else
    Wasm,
    /// usher, compiled code, plugin and models
    Host,
}

impl Image {
    /// Builds what it holds, lays that out in a folder, and tells the size of each part.
    pub fn make(self, paths: &Paths, folder: &Path) -> Result<()> {
        let wasm = module::build(paths)?;
        match self {
            Self::Wasm => lay_out_module(&wasm, folder)?,
            Self::Host => {
                let (plugin, usher) = (plugin::build(paths)?, host::build(paths)?);
                let code = aot::for_any(paths, &usher, &wasm)?;
                HostParts { usher: &usher, plugin: &plugin, code: &code }.lay_out(paths, folder)?;
            }
        }
        for entry in files::entries(folder)? {
            let size = size_of(&entry.path())?;
            eprintln!("{:>6.1} MB  {}", size as f64 / 1e6, entry.file_name().to_string_lossy());
        }
        Ok(())
    }
}

/// Puts the module where its image has it, below a folder that is made anew.
pub fn lay_out_module(wasm: &Path, folder: &Path) -> Result<()> {
    files::remove(folder)?;
    copy(wasm, &folder.join("service.wasm"))?;
    same_times(folder)
}

/// What the host's image is made of.
pub struct HostParts<'a> {
    pub usher: &'a Path,
    pub plugin: &'a Path,
    /// The module, compiled for any processor of this architecture.
    pub code: &'a Path,
}

impl HostParts<'_> {
    /// Puts them where the host's image has them, below a folder that is made anew.
    pub fn lay_out(&self, paths: &Paths, folder: &Path) -> Result<()> {
        let packages = Versions::pinned()?.image.packages;
        system::provide_programs(&packages, "tells the engine where its libraries are in an image")?;
        files::remove(folder)?;
        let engine = self.usher.with_file_name("usher-engine");
        let lite = paths.tensorflow_lite().join("lib/libtensorflowlite_c.so");
        copy_into(&folder.join("bin"), &[self.usher, &engine])?;
        copy_into(&folder.join("plugin"), &[self.plugin, &lite])?;
        copy_models(&paths.models(), &folder.join("models"))?;
        copy(self.code, &folder.join("service.so"))?;
        for library in libraries(paths, &[engine, self.plugin.to_path_buf(), lite])? {
            copy_into(&folder.join("lib"), &[&library])?;
        }
        settle(folder)?;
        same_times(folder)
    }
}

/// Gives all files and folders the same time, so that the same content makes the same layers.
fn same_times(path: &Path) -> Result<()> {
    for entry in files::entries(path)? {
        if entry.path().is_dir() {
            same_times(&entry.path())?;
        } else {
            set_time(&entry.path())?;
        }
    }
    set_time(path)
}

fn set_time(path: &Path) -> Result<()> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.set_modified(SystemTime::UNIX_EPOCH).with_context(|| format!("cannot date {}", path.display()))
}

fn size_of(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    files::entries(path)?.iter().map(|entry| size_of(&entry.path())).sum()
}

/// All libraries that some files need, and those need in turn, each as the file that it is.
fn libraries(paths: &Paths, of: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut open = of.to_vec();
    while let Some(file) = open.pop() {
        for name in Library::read(&file)?.needed {
            let beside = of.iter().any(|file| file.ends_with(&name));
            if beside || found.contains_key(&name) {
                continue;
            }
            let library = find(paths, &name).with_context(|| format!("{} needs {name}", file.display()))?;
            open.push(library.clone());
            found.insert(name, library);
        }
    }
    Ok(found.into_values().collect())
}

/// A library of the engine's: in LLVM's place its stand-in, as an image only serves.
fn find(paths: &Paths, name: &str) -> Result<PathBuf> {
    let folders = [paths.standin(), paths.wasmedge().join("lib")];
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.exists());
    found.with_context(|| {
        format!(
            "there is no {name} in {}: images are made with Debian's WasmEdge, not an installed one",
            paths.wasmedge().display()
        )
    })
}

/// Tells the engine and the plugin where their libraries lie in the image.
fn settle(folder: &Path) -> Result<()> {
    let loader = unpacked::loader(&folder.join("lib"))?;
    let lib = format!("{PREFIX}/lib");
    let mut engine = Command::new("patchelf");
    // As RPATH the folder is searched for what the libraries need too, as RUNPATH it is not.
    engine.args(["--set-interpreter", &format!("{lib}/{loader}"), "--force-rpath", "--set-rpath", &lib]);
    capture(engine.arg(folder.join("bin/usher-engine")))?;
    for entry in files::entries(&folder.join("plugin"))? {
        capture(Command::new("patchelf").args(["--set-rpath", "$ORIGIN"]).arg(entry.path()))?;
    }
    Ok(())
}

/// The models without what they were made with.
fn copy_models(from: &Path, to: &Path) -> Result<()> {
    for entry in files::entries(from)? {
        if entry.path().is_dir() && entry.file_name() != "__pycache__" {
            copy_folder(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    files::make_folder(to)?;
    for entry in files::entries(from)? {
        let place = to.join(entry.file_name());
        if entry.path().is_dir() { copy_folder(&entry.path(), &place)? } else { copy(&entry.path(), &place)? }
    }
    Ok(())
}

fn copy_into(folder: &Path, files: &[&Path]) -> Result<()> {
    for file in files {
        copy(file, &folder.join(file.file_name().context("a file has a name")?))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    files::make_folder(to.parent().context("a file lies in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_files_are_made_anew_with_times_that_do_not_change() {
        let root = tempfile::tempdir().unwrap();
        let (wasm, folder) = (root.path().join("built.wasm"), root.path().join("image"));
        fs::write(&wasm, "module").unwrap();
        files::make_folder(&folder).unwrap();
        fs::write(folder.join("old"), "").unwrap();
        lay_out_module(&wasm, &folder).unwrap();
        let names: Vec<_> = files::entries(&folder).unwrap().iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(names, ["service.wasm"]);
        for path in [folder.join("service.wasm"), folder] {
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH, "{}", path.display());
        }
    }

    #[test]
    fn models_come_without_what_they_were_made_with() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("models"), root.path().join("image"));
        for file in ["digits/1/model.tflite", "__pycache__/train.pyc", "train.py"] {
            files::make_folder(from.join(file).parent().unwrap()).unwrap();
            fs::write(from.join(file), file).unwrap();
        }
        copy_models(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("digits/1/model.tflite")).unwrap(), b"digits/1/model.tflite");
        assert_eq!(files::entries(&to).unwrap().len(), 1);
    }

    #[test]
    fn llvms_stand_in_is_taken_before_llvm() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::at(root.path());
        for folder in [paths.standin(), paths.wasmedge().join("lib")] {
            files::make_folder(&folder).unwrap();
            fs::write(folder.join("libLLVM.so.1"), "").unwrap();
        }
        fs::write(paths.wasmedge().join("lib/libz.so.1"), "").unwrap();
        assert_eq!(find(&paths, "libLLVM.so.1").unwrap(), paths.standin().join("libLLVM.so.1"));
        assert_eq!(find(&paths, "libz.so.1").unwrap(), paths.wasmedge().join("lib/libz.so.1"));
        assert!(find(&paths, "libm.so.6").unwrap_err().to_string().contains("libm.so.6"));
    }
}
