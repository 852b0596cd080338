//! TensorFlow Lite at `.tools/tensorflow-lite`: its C library, out of a package of PyPI. Why that one is in
//! ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::library::Library;
use crate::paths::Paths;
use crate::process::capture;
use crate::unpacked::rename;
use crate::versions::Wheel;
use crate::{files, progress, system, tools};

/// What makes a library the one that is wanted.
const SYMBOL: &str = "TfLiteInterpreterCreate";

/// What to install where there is no apt.
const ELSEWHERE: &str = "Python 3 with pip (dnf install python3-pip, pacman -S python-pip, …)";

/// Whether it is there, in the pinned version.
pub fn ready(paths: &Paths, wanted: &Wheel) -> bool {
    fs::read_to_string(stamp(&paths.tensorflow_lite())).is_ok_and(|said| said == stamped(wanted))
}

/// Puts it into `.tools`. Only under set-up's lock.
pub fn install(paths: &Paths, wanted: &Wheel) -> Result<()> {
    if !has_pip() {
        system::provide("pip, which fetches TensorFlow Lite,", &wanted.packages, ELSEWHERE)?;
        ensure!(has_pip(), "`python3 -m pip` still does not run; it has to work by hand first");
    }
    eprintln!("unpacking TensorFlow Lite of PyPI's {} into .tools (nothing is installed on the system)", wanted.name);
    tools::put(paths, &paths.tensorflow_lite(), |staging, made| {
        progress::during("fetching TensorFlow Lite", "fetched", || {
            make(wanted, staging, made).context("TensorFlow Lite, which runs models, could not be fetched")
        })
    })
}

fn make(wanted: &Wheel, staging: &Path, made: &Path) -> Result<()> {
    let unpacked = staging.join("unpacked");
    unpack(&download(wanted, staging)?, &unpacked)?;
    let library = Path::new(&wanted.file).file_name().context("the library's file has no name")?;
    files::make_folder(&made.join("lib"))?;
    rename(&unpacked.join(&wanted.file), &made.join("lib").join(library))?;
    check(&made.join("lib").join(library))?;
    fs::write(stamp(made), stamped(wanted)).context("cannot note which TensorFlow Lite it is")
}

/// Downloads the package from where the machine's pip finds packages; its hash is checked.
fn download(wanted: &Wheel, staging: &Path) -> Result<PathBuf> {
    let (requirements, folder) = (staging.join("requirements.txt"), staging.join("wheel"));
    fs::write(&requirements, requirement(wanted)).context("cannot write what pip is to fetch")?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes", "--requirement"]).arg(&requirements);
    pip.arg("--dest").arg(&folder);
    capture(&mut pip)?;
    match files::entries(&folder)?.as_slice() {
        [wheel] => Ok(wheel.path()),
        _ => bail!("pip fetched something else than one package"),
    }
}

/// A line of pip's: the version, and the hash of its file for each kind of machine.
fn requirement(wanted: &Wheel) -> String {
    let hashes: String = wanted.sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    format!("{}=={}{hashes}\n", wanted.name, wanted.version)
}

fn unpack(wheel: &Path, into: &Path) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-m", "zipfile", "-e"]).arg(wheel).arg(into);
    capture(&mut python).map(drop)
}

fn check(library: &Path) -> Result<()> {
    let symbols = Library::read(library)?.symbols;
    ensure!(symbols.iter().any(|symbol| symbol.name == SYMBOL), "the package's library lacks {SYMBOL}");
    Ok(())
}

fn has_pip() -> bool {
    capture(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
}

/// The file that says what lies in a folder of ours.
fn stamp(folder: &Path) -> PathBuf {
    folder.join("version")
}

fn stamped(wanted: &Wheel) -> String {
    format!("{} {}\n", wanted.name, wanted.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wheel {
        let [name, version, file] = ["some-package", "1.2", "some_package/lib/libx.so"].map(String::from);
        Wheel { name, version, file, sha256: vec!["aa".to_owned(), "bb".to_owned()], packages: vec![] }
    }

    #[test]
    fn pip_is_told_the_version_and_every_hash() {
        assert_eq!(requirement(&wanted()), "some-package==1.2 --hash=sha256:aa --hash=sha256:bb\n");
    }

    #[test]
    fn another_version_is_not_ready() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::at(root.path());
        assert!(!ready(&paths, &wanted()));
        files::make_folder(&paths.tensorflow_lite()).unwrap();
        fs::write(stamp(&paths.tensorflow_lite()), stamped(&wanted())).unwrap();
        assert!(ready(&paths, &wanted()));
        assert!(!ready(&paths, &Wheel { version: "1.3".to_owned(), ..wanted() }));
    }

    #[test]
    fn what_is_no_tensorflow_lite_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(check(file.path()).is_err());
    }
}
