//! What comes from the system's own packages.

use anyhow::{Context, Result, bail};

use crate::apt::{self, Installer};
use crate::process::find_on_path;
use crate::progress;

/// Installs Debian packages, saying so first, or fails with what a person has to do. `missing`
/// says what is not there, `elsewhere` what to install where there is no apt.
pub fn provide(missing: &str, packages: &[String], elsewhere: &str) -> Result<()> {
    if !apt::available() {
        bail!(without_apt(missing, elsewhere));
    }
    let Some(installer) = Installer::find() else {
        bail!(without_rights(missing, packages));
    };
    let names = packages.join(" and ");
    eprintln!("{missing} is missing: installing from Debian's packages {names} on this machine");
    progress::during(&format!("installing {names}"), "installed", || {
        installer
            .install(packages)
            .with_context(|| format!("{names} could not be installed; try: {}", apt::install_command(packages)))
    })
}

/// Installs packages whose programs are called like them, unless all are there. `used` says by whom
/// they are ("the tests use").
pub fn provide_programs(packages: &[String], used: &str) -> Result<()> {
    if packages.iter().all(|program| find_on_path(program).is_some()) {
        return Ok(());
    }
    let names = packages.join(" or ");
    provide(&format!("{names}, which {used},"), packages, &packages.join(" and "))
}

fn without_apt(missing: &str, elsewhere: &str) -> String {
    format!("{missing} is missing, and this is no Debian-like system: install {elsewhere}, then run this again")
}

fn without_rights(missing: &str, packages: &[String]) -> String {
    format!(
        "{missing} is missing, and only root may install it. Run this, then try again:\n  {}",
        apt::install_command(packages)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clang;

    #[test]
    fn without_rights_the_exact_command_is_shown() {
        let message = without_rights("clang", &["clang".into(), "libclang-dev".into()]);
        assert!(message.ends_with("apt-get install -y --no-install-recommends clang libclang-dev"), "{message}");
    }

    #[test]
    fn without_apt_the_packages_of_others_are_named() {
        assert!(without_apt("clang", clang::ELSEWHERE).contains("dnf install clang"));
    }
}
