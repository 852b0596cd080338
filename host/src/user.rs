//! Becoming another user.

use std::env;
use std::ffi::CString;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::prctl;
use nix::unistd::{Uid, User, initgroups, setgid, setuid};

/// Gives up for good what this process does not need: the way to more rights by starting programs, and
/// root's rights if it is to be `name`. The address must be bound, as others may not bind low ports.
///
/// # Errors
/// If there is no such user, or this process may not become it.
pub fn become_user(name: Option<&str>) -> Result<()> {
    prctl::set_no_new_privs().context("PR_SET_NO_NEW_PRIVS")?;
    let Some(name) = name else {
        return Ok(());
    };
    let user = find(name)?;
    if Uid::effective() == user.uid {
        return Ok(());
    }
    ensure!(Uid::effective().is_root(), "only root can become {name}: start usher as root, or leave --user out");
    initgroups(&CString::new(name)?, user.gid).context("cannot take the user's groups")?;
    setgid(user.gid).context("cannot take the user's group")?;
    setuid(user.uid).with_context(|| format!("cannot become {name}"))?;
    // Root's own folders are of no use any more, such as the one for compiled modules.
    // SAFETY: this process has no other thread yet that could read its environment.
    unsafe {
        env::set_var("HOME", &user.dir);
        env::remove_var("XDG_CACHE_HOME");
    }
    Ok(())
}

/// The user of that name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<User> {
    User::from_name(name)?.ok_or_else(|| anyhow!("there is no user {name:?}: choose another with --user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named() {
        let error = find("no-such-user").unwrap_err().to_string();
        assert!(error.contains("no-such-user") && error.contains("--user"), "{error}");
    }
}
