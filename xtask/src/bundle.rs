//! A WasmEdge that runs where the distribution has none: Debian packages of a newer suite,
//! unpacked with the libraries they need, libc included, and started through their own loader.

use std::path::Path;

use anyhow::Result;

use crate::apt::PrivateApt;
use crate::files;
use crate::unpacked::{self, link, rename, write_starter};
use crate::versions::Release;

/// Makes the folder `made` from Debian's packages, using `staging` for what is needed meanwhile.
pub fn make(wanted: &Release, staging: &Path, made: &Path) -> Result<()> {
    arrange(&PrivateApt::unpack_release(wanted, staging)?, made)
}

/// Lays the unpacked packages out in the official installer's shape.
fn arrange(unpacked: &Path, made: &Path) -> Result<()> {
    let usr = unpacked.join("usr");
    for folder in ["bin", "include", "lib", "libexec", "link", "plugin"] {
        files::make_folder(&made.join(folder))?;
    }
    unpacked::gather_libraries(unpacked, &made.join("lib"))?;
    rename(&usr.join("bin/wasmedge"), &made.join("libexec/wasmedge"))?;
    rename(&usr.join("include/wasmedge"), &made.join("include/wasmedge"))?;
    write_starter(made, "libexec/wasmedge", "wasmedge")?;
    // For linkers. They put their library folder on rustc's LD_LIBRARY_PATH, where the bundle's
    // libc would break it, so this one holds nothing else.
    link("../lib/libwasmedge.so", &made.join("link/libwasmedge.so"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    fn unpacked() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("usr/lib").join(apt::multiarch());
        let llvm = root.path().join("usr/lib/llvm-21/lib");
        for folder in ["usr/bin", "usr/include/wasmedge", "usr/lib64"] {
            files::make_folder(&root.path().join(folder)).unwrap();
        }
        files::make_folder(&lib.join("gconv")).unwrap();
        files::make_folder(&llvm).unwrap();
        for file in ["libwasmedge.so.0.1.1", "libLLVM.so.21.1", "gconv/UTF-7.so", "crt1.o"] {
            fs::write(lib.join(file), "").unwrap();
        }
        // Stands in for the loader: tells what it was given.
        fs::write(lib.join("ld-linux-test.so.2"), "#!/bin/sh\necho \"$@\"\n").unwrap();
        fs::set_permissions(lib.join("ld-linux-test.so.2"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("libwasmedge.so.0.1.1", lib.join("libwasmedge.so")).unwrap();
        symlink("../../x/libLLVM.so.21.1", llvm.join("libLLVM.so.1")).unwrap();
        symlink("../../x/libLLVM.so.21.1", llvm.join("libLLVM.so.21.1")).unwrap();
        fs::write(root.path().join("usr/bin/wasmedge"), "").unwrap();
        root
    }

    #[test]
    fn libraries_lie_flat_and_links_lead_to_neighbours() {
        let unpacked = unpacked();
        let made = unpacked.path().join("wasmedge");
        arrange(unpacked.path(), &made).unwrap();
        for file in ["libwasmedge.so", "libLLVM.so.1", "libLLVM.so.21.1"] {
            assert!(made.join("lib").join(file).exists(), "{file}");
        }
        assert_eq!(files::entries(&made.join("lib")).unwrap().len(), 5);
        assert!(made.join("link/libwasmedge.so").exists());
    }

    #[test]
    fn the_wrapper_finds_its_folder_through_links_and_keeps_arguments() {
        let unpacked = unpacked();
        let made = unpacked.path().join("with space");
        arrange(unpacked.path(), &made).unwrap();
        let elsewhere = unpacked.path().join("wasmedge-link");
        symlink(made.join("bin/wasmedge"), &elsewhere).unwrap();

        let output = Command::new(&elsewhere).current_dir("/").args(["a b", "c"]).output().unwrap();

        let text = String::from_utf8(output.stdout).unwrap();
        let made = made.canonicalize().unwrap();
        assert!(text.contains(&format!("--library-path {}/lib", made.display())), "{text}");
        assert!(text.ends_with("libexec/wasmedge a b c\n"), "{text}");
    }
}
