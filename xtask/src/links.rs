//! An installed WasmEdge as a folder of links in the official installer's shape.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt;
use crate::files;

/// Makes the folder `made` from the WasmEdge under `prefix` (which may be /usr).
///
/// `lib` holds nothing but libwasmedge: a linker gets this folder, and a whole /usr/lib before
/// its own would mislead it.
pub fn make(prefix: &Path, made: &Path) -> Result<()> {
    for folder in ["bin", "include", "lib", "link"] {
        files::make_folder(&made.join(folder))?;
    }
    link(&prefix.join("bin/wasmedge"), &made.join("bin/wasmedge"))?;
    link(&prefix.join("include/wasmedge"), &made.join("include/wasmedge"))?;
    let lib = library_folder(prefix).context("libwasmedge.so has gone")?;
    for entry in files::entries(&lib)? {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("libwasmedge.so") {
            link(&entry.path(), &made.join("lib").join(&name))?;
        }
    }
    link(Path::new("../lib/libwasmedge.so"), &made.join("link/libwasmedge.so"))?;
    match plugin_folder(prefix, &lib) {
        Some(plugins) => link(&plugins, &made.join("plugin")),
        None => files::make_folder(&made.join("plugin")),
    }
}

/// The part that a WasmEdge under `prefix` lacks to be of use.
pub fn missing_in(prefix: &Path) -> Option<&'static str> {
    if library_folder(prefix).is_none() {
        return Some("lib/libwasmedge.so (Debian: package libwasmedge-dev)");
    }
    if !prefix.join("include/wasmedge/wasmedge.h").exists() {
        return Some("include/wasmedge/wasmedge.h (Debian: package libwasmedge-dev)");
    }
    None
}

/// Whether the folder `made` is one of links into `prefix`.
pub fn lead_to(made: &Path, prefix: &Path) -> bool {
    let (Ok(link), Ok(real)) = (made.join("bin/wasmedge").canonicalize(), prefix.join("bin/wasmedge").canonicalize())
    else {
        return false;
    };
    link == real
}

fn library_folder(prefix: &Path) -> Option<PathBuf> {
    let lib = prefix.join("lib");
    [lib.join(apt::multiarch()), prefix.join("lib64"), lib]
        .into_iter()
        .find(|folder| folder.join("libwasmedge.so").exists())
}

/// The official installer has plugins beside `lib`, a distribution below it.
fn plugin_folder(prefix: &Path, lib: &Path) -> Option<PathBuf> {
    [prefix.join("plugin"), lib.join("wasmedge")].into_iter().find(|folder| folder.is_dir())
}

fn link(target: &Path, link: &Path) -> Result<()> {
    symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn prefix_like_usr() -> tempfile::TempDir {
        let prefix = tempfile::tempdir().unwrap();
        let lib = prefix.path().join("lib").join(apt::multiarch());
        for folder in [prefix.path().join("bin"), prefix.path().join("include/wasmedge"), lib.clone()] {
            files::make_folder(&folder).unwrap();
        }
        for file in ["bin/wasmedge", "include/wasmedge/wasmedge.h"] {
            fs::write(prefix.path().join(file), "").unwrap();
        }
        fs::write(lib.join("libwasmedge.so"), "").unwrap();
        fs::write(lib.join("libc.so.6"), "").unwrap();
        prefix
    }

    #[test]
    fn a_system_wide_one_gets_the_official_shape() {
        let prefix = prefix_like_usr();
        let made = tempfile::tempdir().unwrap();
        let made = made.path().join("wasmedge");

        assert_eq!(missing_in(prefix.path()), None);
        make(prefix.path(), &made).unwrap();

        for path in ["bin/wasmedge", "include/wasmedge/wasmedge.h", "link/libwasmedge.so", "plugin"] {
            assert!(made.join(path).exists(), "{path}");
        }
        let libraries = files::entries(&made.join("lib")).unwrap();
        assert_eq!(libraries.len(), 1, "only libwasmedge");
        assert!(lead_to(&made, prefix.path()));
        assert!(!lead_to(&made, Path::new("/nowhere")));
    }

    #[test]
    fn missing_headers_are_named() {
        let prefix = prefix_like_usr();
        fs::remove_dir_all(prefix.path().join("include")).unwrap();
        assert!(missing_in(prefix.path()).unwrap().contains("wasmedge.h"));
    }
}
