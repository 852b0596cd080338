//! clang for C in the guest's crates, libclang for bindgen.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Installer};
use crate::files;
use crate::process::find_on_path;
use crate::progress;
use crate::versions::Clang;

/// Whether both are on this machine.
pub fn present() -> Result<bool> {
    Ok(find_on_path("clang").is_some() && has_libclang()?)
}

/// Installs what is missing, saying so first, or fails with what a person has to do.
pub fn install(clang: &Clang) -> Result<()> {
    let packages = &clang.packages;
    if !apt::available() {
        bail!(without_apt());
    }
    let Some(installer) = Installer::find() else {
        bail!(without_rights(packages));
    };
    let names = packages.join(" and ");
    eprintln!("clang or libclang is missing: installing the Debian packages {names} on this machine");
    progress::during(&format!("installing {names}"), "installed", || {
        installer
            .install(packages)
            .with_context(|| format!("clang could not be installed; try: {}", apt::install_command(packages)))
    })
}

fn without_apt() -> String {
    "clang or libclang is missing, and this is no Debian-like system: install clang and the \
     libclang library (Fedora: `dnf install clang clang-devel`, Arch: `pacman -S clang`), then \
     run this again"
        .to_owned()
}

fn without_rights(packages: &[String]) -> String {
    format!(
        "clang or libclang is missing, and only root may install it. Run this, then try again:\n  {}",
        apt::install_command(packages)
    )
}

fn has_libclang() -> Result<bool> {
    let mut folders = apt::library_folders();
    folders.extend(env::var_os("LIBCLANG_PATH").map(PathBuf::from));
    for entry in files::entries(Path::new("/usr/lib"))? {
        if entry.file_name().to_string_lossy().starts_with("llvm") {
            folders.push(entry.path().join("lib"));
        }
    }
    for folder in folders {
        let found = files::entries(&folder)?.iter().any(|entry| is_libclang(&entry.file_name().to_string_lossy()));
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The names bindgen looks for; libclang-cpp is another library.
fn is_libclang(name: &str) -> bool {
    let numbered = name.starts_with("libclang-") && !name.starts_with("libclang-cpp");
    (name.starts_with("libclang.") || numbered) && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libclang_itself_counts() {
        for good in ["libclang.so", "libclang.so.1", "libclang-14.so.1", "libclang-14.so.14.0.6"] {
            assert!(is_libclang(good), "{good}");
        }
        for bad in ["libclang-cpp.so.14", "libclang.a", "libclangAST.a", "libLLVM-14.so"] {
            assert!(!is_libclang(bad), "{bad}");
        }
    }

    #[test]
    fn without_rights_the_exact_command_is_shown() {
        let message = without_rights(&["clang".into(), "libclang-dev".into()]);
        assert!(message.ends_with("apt-get install -y --no-install-recommends clang libclang-dev"), "{message}");
        assert!(without_apt().contains("dnf install clang"));
    }
}
