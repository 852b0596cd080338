//! What the kernel keeps a worker from, should a guest ever get out of WasmEdge (landlock(7), seccomp(2)).
//!
//! A worker opens nothing but its guest's folders and what name resolution reads, and starts nothing. So it
//! loses the right to all else, for ever, before its guest begins.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use anyhow::{Context, Result};
use host::protocol::Grant;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The newest rules that are known here; an older kernel enforces those that it has.
const RULES: ABI = ABI::V6;

/// What the system's name resolution reads, as far as it is there: its configuration, which may be
/// replaced at any time, and modules of the C library.
const FOR_NAMES: [&str; 7] =
    ["/etc", "/run/systemd/resolve", "/run/NetworkManager", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// What neither WasmEdge nor a guest of it has a use for: other programs and processes, mounts and
/// namespaces, the kernel itself, other users.
const NEVER_CALLED: [libc::c_long; 59] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_ptrace,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_mknodat,
];

/// Confines the calling thread, and all that it starts.
///
/// # Errors
/// If the kernel has these means and does not let us use them. One that has none confines nobody.
pub fn confine(folders: &[Grant]) -> Result<()> {
    leave_files_but(folders).context("cannot confine a worker to its folders (landlock)")?;
    refuse_calls().context("cannot confine a worker to the system calls that it needs (seccomp)")
}

/// Whether this kernel can confine workers to their folders.
pub fn can_leave_files() -> bool {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    strict.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

fn leave_files_but(folders: &[Grant]) -> Result<()> {
    let mut rules =
        Ruleset::default().handle_access(AccessFs::from_all(RULES))?.scope(Scope::from_all(RULES))?.create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in FOR_NAMES {
        rules = allow(rules, path, read)?;
    }
    for folder in folders {
        let write = AccessFs::from_all(RULES) & !AccessFs::Execute;
        rules = allow(rules, &folder.host, if folder.read_only { read } else { write })?;
    }
    rules.restrict_self()?;
    Ok(())
}

fn allow(rules: RulesetCreated, path: &str, access: BitFlags<AccessFs>) -> Result<RulesetCreated> {
    // What is not there needs no permission.
    let Ok(folder) = PathFd::new(path) else { return Ok(rules) };
    Ok(rules.add_rule(PathBeneath::new(folder, access))?)
}

fn refuse_calls() -> Result<()> {
    let rules: BTreeMap<i64, Vec<_>> = NEVER_CALLED.map(|call| (call, Vec::new())).into();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, ARCH.try_into()?)?;
    Ok(seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn a_confined_thread_has_its_folders_and_starts_nothing() {
        let [own, shown, other] = [0; 3].map(|_| tempfile::tempdir().unwrap());
        fs::write(shown.path().join("file"), "shown").unwrap();
        fs::write(other.path().join("file"), "hidden").unwrap();
        let grant = |folder: &tempfile::TempDir, read_only| {
            let host = folder.path().to_str().unwrap().to_owned();
            Grant { guest: "x".to_owned(), host, read_only }
        };
        let folders = [grant(&own, false), grant(&shown, true)];
        // The kernel confines threads, so that the other tests go on.
        thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine(&folders).unwrap();
                let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
                assert!(refused(Command::new("/bin/true").spawn().map(drop)));
                assert!(refused(nix::unistd::chroot(own.path()).map_err(Into::into)));
                if can_leave_files() {
                    assert!(refused(fs::read(other.path().join("file")).map(drop)));
                    assert!(refused(fs::write(shown.path().join("new"), "")));
                    assert!(refused(File::open("/proc/self/environ").map(drop)));
                }
                fs::write(own.path().join("new"), "written").unwrap();
                fs::rename(own.path().join("new"), own.path().join("newer")).unwrap();
                assert_eq!(fs::read(own.path().join("newer")).unwrap(), b"written");
                assert_eq!(fs::read(shown.path().join("file")).unwrap(), b"shown");
                assert!(File::open("/etc/passwd").is_ok(), "names are resolved by what is there");
            });
            confined.join().unwrap();
        });
    }
}
