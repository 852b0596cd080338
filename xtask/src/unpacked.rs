//! Debian packages unpacked into a folder, and what is made of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::capture;
use crate::{apt, files};

/// Moves the shared libraries of unpacked packages into one flat folder: libLLVM looks for its own
/// in `$ORIGIN/../lib`.
pub fn gather_libraries(unpacked: &Path, to: &Path) -> Result<()> {
    for folder in library_folders(unpacked)? {
        gather_from(&folder, to)?;
    }
    Ok(())
}

fn library_folders(unpacked: &Path) -> Result<Vec<PathBuf>> {
    let multiarch = apt::multiarch();
    let mut folders = Vec::new();
    for top in [unpacked.to_path_buf(), unpacked.join("usr")] {
        folders.extend([top.join("lib").join(&multiarch), top.join("lib"), top.join("lib64")]);
    }
    for entry in files::entries(&unpacked.join("usr/lib"))? {
        if entry.file_name().to_string_lossy().starts_with("llvm") {
            folders.push(entry.path().join("lib"));
        }
    }
    Ok(folders)
}

fn gather_from(from: &Path, to: &Path) -> Result<()> {
    for entry in files::entries(from)? {
        let name = entry.file_name();
        let place = to.join(&name);
        let text = name.to_string_lossy();
        if !(text.ends_with(".so") || text.contains(".so.")) {
            continue;
        }
        let kind = entry.file_type().context("cannot read a library's type")?;
        if kind.is_file() {
            rename(&entry.path(), &place)?;
        } else if kind.is_symlink() && fs::symlink_metadata(&place).is_err() {
            let target = fs::read_link(entry.path()).context("cannot read a library's link")?;
            // In a flat folder every link leads to its neighbour; one that keeps the name led to
            // the file that has just been moved, or is about to be.
            if let Some(target) = target.file_name().filter(|target| *target != name) {
                link(&target.to_string_lossy(), &place)?;
            }
        }
    }
    Ok(())
}

/// Writes `bin/<name>`, which starts the file `program` of the folder `made`, for packages that need a
/// newer libc than the machine has: through the loader that lies with the libraries in `lib`. The
/// program takes itself for `called`, in which `$here` is the folder.
pub fn write_starter(made: &Path, program: &str, called: &str) -> Result<()> {
    let name = Path::new(program).file_name().context("a program has a name")?;
    let loader = loader(&made.join("lib"))?;
    let script = format!(
        r#"#!/bin/sh
# It needs a newer libc than this machine has: start it through its own loader.
here=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$here/lib/{loader}" --library-path "$here/lib" --argv0 "{called}" "$here/{program}" "$@"
"#
    );
    write_script(&made.join("bin").join(name), &script)
}

/// The loader's file name, which the architecture decides.
pub fn loader(lib: &Path) -> Result<String> {
    files::entries(lib)?
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("ld-linux"))
        .context("the unpacked packages hold no loader (ld-linux*.so)")
}

/// Writes a script that can be run.
pub fn write_script(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// Moves a file or folder that the packages should have.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("the unpacked packages lack {}", from.display()))
}

/// Makes a link.
pub fn link(target: &str, link: &Path) -> Result<()> {
    symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

/// Whether a program runs on this machine, by asking it something harmless.
pub fn runs(program: &Path, arguments: &[&str]) -> bool {
    capture(Command::new(program).args(arguments)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_ends_well_runs() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        assert!(!runs(&program, &[]));
        write_script(&program, "#!/bin/sh\nexit 1\n").unwrap();
        assert!(!runs(&program, &[]));
        write_script(&program, "#!/bin/sh\n").unwrap();
        assert!(runs(&program, &[]));
    }
}
