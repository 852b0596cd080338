//! clang for C in the guest's crates, libclang for bindgen.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::apt;
use crate::files;
use crate::process::find_on_path;

/// Whether both are on this machine.
pub fn present() -> Result<bool> {
    Ok(find_on_path("clang").is_some() && has_libclang()?)
}

/// What to install where there is no apt.
pub const ELSEWHERE: &str =
    "clang and the libclang library (Fedora: `dnf install clang clang-devel`, Arch: `pacman -S clang`)";

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
}
