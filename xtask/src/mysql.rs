//! MySQL at `.tools/mysql` for tests: Debian packages of another release than the machine's, with
//! their own libc.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::PrivateApt;
use crate::database::{self, Server, option};
use crate::files;
use crate::paths::Paths;
use crate::process::capture;
use crate::unpacked::{self, rename, write_starter};
use crate::versions::Release;

/// What is kept besides libraries: the programs that can be started, and what they look for.
const KEPT: [&str; 5] = [
    "sbin/mysqld",
    "bin/mysql",
    "share/mysql/charsets",
    "share/mysql/english",
    "lib/mysql/plugin/component_reference_cache.so",
];

/// Puts MySQL into `.tools`; quick when it is there already.
pub fn provide(paths: &Paths, wanted: &Release) -> Result<()> {
    let server = Server { name: "MySQL", packages: &wanted.packages, place: paths.mysql(), program: "mysqld" };
    database::provide(paths, &server, |staging, made| make(wanted, staging, made))
}

fn make(wanted: &Release, staging: &Path, made: &Path) -> Result<()> {
    arrange(&PrivateApt::unpack_release(wanted, staging)?, made)?;
    make_seed(staging, made)
}

fn arrange(unpacked: &Path, made: &Path) -> Result<()> {
    for folder in ["bin", "lib", "usr/sbin", "usr/bin", "usr/share/mysql", "usr/lib/mysql/plugin"] {
        files::make_folder(&made.join(folder))?;
    }
    unpacked::gather_libraries(unpacked, &made.join("lib"))?;
    for path in KEPT {
        rename(&unpacked.join("usr").join(path), &made.join("usr").join(path))?;
    }
    for program in ["usr/sbin/mysqld", "usr/bin/mysql"] {
        // By its own name it finds what lies beside it.
        write_starter(made, program, &format!("$here/{program}"))?;
    }
    Ok(())
}

/// Makes a new data folder: root without a password, nobody and nothing else.
fn make_seed(staging: &Path, made: &Path) -> Result<()> {
    let whole = staging.join("seed");
    let mut command = Command::new(made.join("bin/mysqld"));
    command.args(["--no-defaults", "--initialize-insecure", "--mysqlx=OFF"]);
    command.arg(option("datadir", staging, "seed"));
    // Small files are copied faster, and a test's server takes them as they are. Nothing need be on
    // the disk before it is whole.
    command.args(["--innodb-redo-log-capacity=8M", "--innodb-doublewrite=OFF", "--innodb-use-native-aio=OFF"]);
    command.arg("--innodb-flush-method=nosync");
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    capture(&mut command).context("MySQL cannot make a data folder")?;
    // Three quarters of it are zeros, which need not be stored, nor copied.
    capture(Command::new("cp").args(["-R", "--sparse=always"]).arg(whole).arg(made.join("seed")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt;
    use crate::unpacked::write_script;
    use std::fs;

    #[test]
    fn programs_find_what_they_need_and_the_rest_is_left() {
        let root = tempfile::tempdir().unwrap();
        let (usr, made) = (root.path().join("unpacked/usr"), root.path().join("with space"));
        let lib = usr.join("lib").join(apt::multiarch());
        let shared = ["share/mysql/charsets", "share/mysql/english", "share/mysql/german"];
        let folders = ["sbin", "bin", "lib/mysql/plugin"].into_iter().chain(shared);
        for folder in folders.map(|folder| usr.join(folder)).chain([lib.clone()]) {
            files::make_folder(&folder).unwrap();
        }
        for file in [KEPT[0], KEPT[1], KEPT[4], "bin/perror"] {
            fs::write(usr.join(file), "").unwrap();
        }
        write_script(&lib.join("ld-linux-test.so.2"), "#!/bin/sh\necho \"$@\"\n").unwrap();

        arrange(&root.path().join("unpacked"), &made).unwrap();

        let told = capture(Command::new(made.join("bin/mysqld")).args(["a b", "c"])).unwrap();
        let here = made.canonicalize().unwrap();
        let program = here.join("usr/sbin/mysqld");
        let (here, program) = (here.display(), program.display());
        assert_eq!(told, format!("--library-path {here}/lib --argv0 {program} {program} a b c\n"));
        assert!(made.join("usr/share/mysql/charsets").is_dir());
        assert!(!made.join("usr/share/mysql/german").exists() && !made.join("usr/bin/perror").exists());
    }
}
