//! A Kubernetes node's programs at `.tools/node`, for tests: a Debian with container engines, unpacked into a folder and
//! run from there as a machine of its own, and the base image that our images stand on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, PrivateApt};
use crate::paths::Paths;
use crate::process::capture;
use crate::unpacked::write_script;
use crate::versions::{Node, Release};
use crate::{files, progress, tools};

/// Makes a machine of its own out of the folder; see its first lines.
const START: &str = include_str!("node/start.sh");

/// How podman and buildah work there.
const CONTAINERS: &str = include_str!("node/containers.conf");

/// Where the tests find what a container may take, and takes.
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// What a node was made of is kept in it under this name.
const STAMP: &str = "made-of";

/// What docker's slim images of Debian leave out.
const NOT_SLIM: [&str; 4] = ["doc", "man", "locale", "info"];

/// Puts the node into `.tools`, which is quick when it is there already, and makes sure that it starts here.
///
/// # Errors
/// Why this machine can have none: it takes root, Debian's packages, control groups of version 1, and a kernel
/// with namespaces and overlays.
pub fn provide(paths: &Paths, wanted: &Node) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "container engines run as root only");
    ensure!(Path::new(GROUPS).is_dir(), "the tests look into control groups of version 1, and there is no {GROUPS}");
    tools::provide(
        paths,
        &paths.node(),
        |folder| fs::read_to_string(folder.join(STAMP)).is_ok_and(|made_of| made_of == stamp(wanted)),
        |staging, made| {
            ensure!(
                apt::available(),
                "container engines come from Debian's packages, and this is no Debian-like system"
            );
            eprintln!("unpacking Debian's container engines into .tools (nothing is installed on the system)");
            progress::during("fetching them", "fetched", || {
                make(wanted, staging, made).context("container engines could not be fetched")
            })
        },
    )?;
    try_out(&paths.node())
}

fn make(wanted: &Node, staging: &Path, made: &Path) -> Result<()> {
    unpack(&wanted.engines, &staging.join("engines"), &made.join("root"))?;
    unpack(&wanted.base, &staging.join("base"), &made.join("base"))?;
    for folder in NOT_SLIM {
        files::remove(&made.join("base/usr/share").join(folder))?;
    }
    let configuration = made.join("root/etc/containers/containers.conf");
    fs::write(&configuration, CONTAINERS).with_context(|| format!("cannot write {}", configuration.display()))?;
    write_script(&made.join("start"), START)?;
    fs::write(made.join(STAMP), stamp(wanted)).context("cannot note what a node is made of")
}

/// What a node is made of.
fn stamp(wanted: &Node) -> String {
    format!("{wanted:?}\n{START}\n{CONTAINERS}")
}

/// Unpacks a Debian, and does what its packages would do when they are installed, as far as it is needed.
fn unpack(release: &Release, staging: &Path, root: &Path) -> Result<()> {
    files::make_folder(staging)?;
    files::make_folder(root.parent().context("a root lies in a folder")?)?;
    fs::rename(PrivateApt::unpack_release(release, staging)?, root).context("cannot keep what was unpacked")?;
    for file in ["passwd", "group"] {
        let from = root.join("usr/share/base-passwd").join(format!("{file}.master"));
        fs::copy(&from, root.join("etc").join(file)).with_context(|| format!("no {}", from.display()))?;
    }
    let temporary = root.join("var/tmp");
    files::make_folder(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).context("cannot open a folder for all")?;
    capture(Command::new("chroot").arg(root).arg("ldconfig"))?;
    Ok(())
}

/// Fails with the reason where a node cannot be started.
fn try_out(node: &Path) -> Result<()> {
    let state = tempfile::tempdir().context("cannot make a folder for a node's state")?;
    let mut start = Command::new(node.join("start"));
    start.arg(state.path()).args(["podman", "info", "--format", "{{.Host.OCIRuntime.Version}}"]);
    let said = capture(&mut start).context("a machine of its own for container engines cannot be started here")?;
    ensure!(said.contains("+WASM:wasmedge"), "its crun runs no modules: {said}");
    Ok(())
}
