//! MariaDB at `.tools/mariadb` for tests: Debian packages of the machine's own release, unpacked and
//! not installed, and a new data folder for tests to copy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::PrivateApt;
use crate::database::{self, Server, option};
use crate::files;
use crate::paths::Paths;
use crate::process::capture;
use crate::unpacked::{self, rename, write_script};
use crate::versions::Packages;

/// The programs that can be started in `bin`, and where the packages have them.
const PROGRAMS: [&str; 3] = ["sbin/mariadbd", "bin/mariadb", "bin/mariadb-install-db"];

/// The machine's own libc is the one of the packages, and two of them would not work together.
const LIBC: &str = "libc6";

/// Puts MariaDB into `.tools`; quick when it is there already.
pub fn provide(paths: &Paths, wanted: &Packages) -> Result<()> {
    let server = Server { name: "MariaDB", packages: &wanted.packages, place: paths.mariadb(), program: "mariadbd" };
    database::provide(paths, &server, |staging, made| make(wanted, staging, made))
}

fn make(wanted: &Packages, staging: &Path, made: &Path) -> Result<()> {
    let unpacked = staging.join("unpacked");
    files::make_folder(&unpacked)?;
    let apt = PrivateApt::new(staging.join("apt"))?;
    apt.use_own_suite()?;
    apt.unpack(&wanted.packages, &[LIBC], &unpacked)?;
    arrange(&unpacked, made)?;
    make_seed(made)
}

/// Keeps what the programs need: they find their messages and character sets below `usr`, and their
/// libraries in `lib`.
fn arrange(unpacked: &Path, made: &Path) -> Result<()> {
    for folder in ["bin", "lib", "usr"] {
        files::make_folder(&made.join(folder))?;
    }
    unpacked::gather_libraries(unpacked, &made.join("lib"))?;
    for folder in ["bin", "sbin", "share"] {
        rename(&unpacked.join("usr").join(folder), &made.join("usr").join(folder))?;
    }
    for program in PROGRAMS {
        let name = Path::new(program).file_name().context("a program has a name")?;
        write_script(&made.join("bin").join(name), &wrapper(program))?;
    }
    Ok(())
}

fn wrapper(program: &str) -> String {
    format!(
        r#"#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
# Where it takes itself to be installed, and the libraries that came with it.
export MY_BASEDIR_VERSION="$here/usr" LD_LIBRARY_PATH="$here/lib"
exec "$here/usr/{program}" "$@"
"#
    )
}

/// Makes a new data folder: root without a password, nobody and nothing else.
fn make_seed(made: &Path) -> Result<()> {
    let mut command = Command::new(made.join("bin/mariadb-install-db"));
    command.args(["--no-defaults", "--skip-name-resolve", "--skip-test-db"]);
    // Forced, it does not care whether the machine's name can be looked up.
    command.args(["--force", "--auth-root-authentication-method=normal"]);
    command.args([option("basedir", made, "usr"), option("datadir", made, "seed")]);
    // Small files are copied faster, and a test's server takes them as they are.
    command.args(["--innodb-log-file-size=4M", "--skip-innodb-use-native-aio"]);
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    capture(&mut command).context("MariaDB cannot make a data folder")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt;
    use std::fs;

    #[test]
    fn programs_are_started_beside_their_libraries_with_arguments_kept() {
        let root = tempfile::tempdir().unwrap();
        let unpacked = root.path().join("unpacked");
        let lib = unpacked.join("usr/lib").join(apt::multiarch());
        for folder in [&lib, &unpacked.join("usr/bin"), &unpacked.join("usr/sbin"), &unpacked.join("usr/share")] {
            files::make_folder(folder).unwrap();
        }
        fs::write(lib.join("libssl.so.3"), "").unwrap();
        for program in PROGRAMS {
            let tells = "#!/bin/sh\necho \"$MY_BASEDIR_VERSION|$LD_LIBRARY_PATH|$0|$*\"\n";
            write_script(&unpacked.join("usr").join(program), tells).unwrap();
        }
        let made = root.path().join("with space");

        arrange(&unpacked, &made).unwrap();

        assert!(made.join("lib/libssl.so.3").exists());
        let told = capture(Command::new(made.join("bin/mariadbd")).args(["a b", "c"])).unwrap();
        let made = made.canonicalize().unwrap();
        let made = made.display();
        assert_eq!(told, format!("{made}/usr|{made}/lib|{made}/usr/sbin/mariadbd|a b c\n"));
    }
}
