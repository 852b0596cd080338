//! Debian packages: installing some on the machine, and unpacking others into a folder without
//! touching the machine at all.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::files;
use crate::process::{capture, find_on_path};
use crate::versions::Release;

/// Checks the signatures of everything that comes from a mirror.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether this machine installs its packages with apt.
pub fn available() -> bool {
    find_on_path("apt-get").is_some() && find_on_path("dpkg-deb").is_some()
}

/// How this user may install packages on the machine.
pub enum Installer {
    /// We are root.
    Root,
    /// `sudo` works without asking.
    Sudo,
}

impl Installer {
    /// The way that works here, if any.
    pub fn find() -> Option<Self> {
        if nix::unistd::geteuid().is_root() {
            return Some(Self::Root);
        }
        find_on_path("sudo")?;
        capture(Command::new("sudo").args(["-n", "true"])).ok()?;
        Some(Self::Sudo)
    }

    /// Installs packages of the machine's own release.
    pub fn install(&self, packages: &[String]) -> Result<()> {
        capture(self.apt_get().arg("update"))?;
        let options = ["install", "-y", "--no-install-recommends"];
        capture(self.apt_get().args(options).args(packages))?;
        Ok(())
    }

    fn apt_get(&self) -> Command {
        // `env` because sudo drops the variable.
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        let words: Vec<&str> = match self {
            Self::Root => quiet.to_vec(),
            Self::Sudo => ["sudo", "-n"].into_iter().chain(quiet).collect(),
        };
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.iter().skip(1));
        command
    }
}

/// The command a person types to install packages.
pub fn install_command(packages: &[String]) -> String {
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// An apt of our own, for packages of another suite than the machine's: its state, cache and
/// sources lie in one folder, nothing is installed, and any user may run it.
pub struct PrivateApt {
    folder: PathBuf,
    archive: Archive,
}

/// Where this machine gets Debian from.
#[derive(Debug, PartialEq)]
struct Archive {
    /// The machine's own release, by the name that its sources use ("bookworm", "stable").
    suite: String,
    mirror: String,
}

impl PrivateApt {
    /// Makes it in an empty folder, with the machine's own mirror.
    pub fn new(folder: PathBuf) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, so packages cannot be verified: install debian-archive-keyring"
        );
        let archive = machines_archive()?;
        for needed in ["state/lists/partial", "cache/archives/partial", "empty"] {
            files::make_folder(&folder.join(needed))?;
        }
        let apt = Self { folder, archive };
        apt.write("status", "")?;
        apt.write("apt.conf", &configuration(&apt.folder, &architecture()?))?;
        Ok(apt)
    }

    /// Reads the lists of the machine's own release.
    pub fn use_own_suite(&self) -> Result<()> {
        self.use_suite(&self.archive.suite)
    }

    /// Reads the lists of a suite; the mirror may be slow, this is the first time it is asked.
    fn use_suite(&self, suite: &str) -> Result<()> {
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", self.archive.mirror);
        self.write("sources.list", &line)?;
        capture(self.command("apt-get").arg("update"))
            .with_context(|| format!("cannot read the package lists of Debian {suite}"))?;
        Ok(())
    }

    /// Unpacks a release of something, dependencies included, from the first suite that has it, and
    /// gives the folder: below `staging`, as is all that this needs.
    pub fn unpack_release(wanted: &Release, staging: &Path) -> Result<PathBuf> {
        let (apt, unpacked) = Self::with_release(wanted, staging)?;
        apt.unpack(&wanted.packages, &[], &unpacked)?;
        Ok(unpacked)
    }

    /// The same without what it depends on.
    pub fn unpack_release_alone(wanted: &Release, staging: &Path) -> Result<PathBuf> {
        let (apt, unpacked) = Self::with_release(wanted, staging)?;
        apt.unpack_alone(&wanted.packages, &unpacked)?;
        Ok(unpacked)
    }

    /// One that knows the first suite that has what is wanted, and an empty folder to unpack into.
    fn with_release(wanted: &Release, staging: &Path) -> Result<(Self, PathBuf)> {
        let unpacked = staging.join("unpacked");
        files::make_folder(&unpacked)?;
        let apt = Self::new(staging.join("apt"))?;
        apt.use_suite_with(wanted)?;
        Ok((apt, unpacked))
    }

    /// Reads the lists of the first suite that has what is wanted.
    fn use_suite_with(&self, wanted: &Release) -> Result<()> {
        let package = wanted.packages.first().context("no package is wanted")?;
        let mut seen = Vec::new();
        for suite in &wanted.suites {
            if let Err(error) = self.use_suite(suite) {
                seen.push(format!("{error:#}"));
                continue;
            }
            match self.candidate(package)? {
                Some(version) if wanted.accepts(&version) => return Ok(()),
                Some(version) => seen.push(format!("Debian {suite} has {package} {version}")),
                None => seen.push(format!("Debian {suite} has no {package}")),
            }
        }
        bail!("{}", seen.join("\n"))
    }

    /// The version of a package that the suite has.
    fn candidate(&self, package: &str) -> Result<Option<String>> {
        let policy = capture(self.command("apt-cache").args(["policy", package]))?;
        Ok(candidate_in(&policy))
    }

    /// Downloads packages with all they depend on and unpacks them into a folder, except those in
    /// `without`.
    pub fn unpack(&self, packages: &[String], without: &[&str], into: &Path) -> Result<()> {
        let options = ["install", "-y", "--download-only"];
        capture(self.command("apt-get").args(options).args(packages))?;
        for entry in files::entries(&self.folder.join("cache/archives"))? {
            let file = entry.file_name();
            if package_in(&file.to_string_lossy()).is_some_and(|package| !without.contains(&package)) {
                capture(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(into))?;
            }
        }
        Ok(())
    }

    /// Downloads packages without what they depend on, and unpacks them into a folder.
    pub fn unpack_alone(&self, packages: &[String], into: &Path) -> Result<()> {
        let archives = self.folder.join("cache/archives");
        capture(self.command("apt-get").arg("download").args(packages).current_dir(&archives))?;
        for entry in files::entries(&archives)? {
            if package_in(&entry.file_name().to_string_lossy()).is_some() {
                capture(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(into))?;
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf"));
        command.env("LC_ALL", "C");
        command
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The machine's architecture in Debian's words ("amd64").
fn architecture() -> Result<String> {
    let name = capture(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

/// What makes an apt private. It is read after the machine's own configuration, so proxies stay
/// in force, and all that could reach out of the folder is taken back.
fn configuration(folder: &Path, architecture: &str) -> String {
    let folder = folder.display();
    format!(
        r#"#clear APT::Architectures;
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
Dir::State "{folder}/state";
Dir::State::lists "{folder}/state/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/empty";
Dir::Etc::preferences "{folder}/preferences";
Dir::Etc::preferencesparts "{folder}/empty";
Dir::Log "{folder}";
// A mirror's copy of a suite in development may be stale; it is signed all the same.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
// Without lists there are no packages, so a failed update is an error, not a warning.
APT::Update::Error-Mode "any";
APT::Keep-Downloaded-Packages "true";
// The user _apt, whom root's apt becomes for downloads, may not be able to read our folder.
APT::Sandbox::User "root";
// Locks are for root, and the folder is ours alone.
Debug::NoLocking "true";
"#
    )
}

/// The package that a downloaded file holds.
fn package_in(file: &str) -> Option<&str> {
    let (package, _) = file.strip_suffix(".deb")?.split_once('_')?;
    Some(package)
}

/// The archive that this machine gets Debian from.
fn machines_archive() -> Result<Archive> {
    let mut command = Command::new("apt-get");
    // Without release information the sources alone are enough: no `apt-get update` ran here yet.
    command.args(["indextargets", "--no-release-info", "--format"]);
    command.args(["$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
    let targets = capture(&mut command)?;
    let codename = fs::read_to_string("/etc/os-release").ok().and_then(|text| os_release(&text, "VERSION_CODENAME"));
    main_archive(&targets, codename.as_deref())
        .context("apt has no Debian archive configured: add one to /etc/apt/sources.list")
}

/// Picks the main archive among lines of "RELEASE URI": the machine's own release first, then
/// any that is neither updates nor security.
fn main_archive(targets: &str, codename: Option<&str>) -> Option<Archive> {
    let archives: Vec<(&str, &str)> = targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, uri)| !uri.starts_with("cdrom:") && !uri.contains("-security"))
        .collect();
    let own = archives.iter().find(|(suite, _)| Some(*suite) == codename);
    let main = || archives.iter().find(|(suite, _)| !suite.contains(['-', '/']));
    own.or_else(main).map(|(suite, mirror)| Archive { suite: (*suite).to_owned(), mirror: (*mirror).to_owned() })
}

/// The value of a key in /etc/os-release.
pub fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Debian's name for a folder of one architecture's libraries ("x86_64-linux-gnu").
pub fn multiarch() -> String {
    format!("{}-linux-gnu", env::consts::ARCH)
}

/// Where a library may lie on this machine.
pub fn library_folders() -> Vec<PathBuf> {
    let multiarch = OsString::from(multiarch());
    ["/usr/lib", "/usr/local/lib", "/lib"]
        .iter()
        .flat_map(|lib| [PathBuf::from(lib), Path::new(lib).join(&multiarch)])
        .chain(["/usr/lib64", "/usr/local/lib64"].map(PathBuf::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "bookworm-updates http://mirror.example/debian/\n\
        bookworm-security http://mirror.example/debian-security/\n\
        bookworm cdrom:[Debian 12]/\n\
        extra http://vendor.example/apt/\n\
        bookworm http://mirror.example/debian/\n";

    #[test]
    fn the_mirror_is_the_main_archive_of_the_own_release() {
        let archive = main_archive(TARGETS, Some("bookworm")).unwrap();
        assert_eq!((&*archive.suite, &*archive.mirror), ("bookworm", "http://mirror.example/debian/"));
    }

    #[test]
    fn a_release_by_another_name_still_finds_a_mirror() {
        let targets = "stable-updates http://m.example/debian/\nstable http://m.example/debian/";
        let archive = main_archive(targets, Some("bookworm")).unwrap();
        assert_eq!((&*archive.suite, &*archive.mirror), ("stable", "http://m.example/debian/"));
    }

    #[test]
    fn no_sources_no_mirror() {
        assert_eq!(main_archive("", None), None);
        let security = "bookworm-security http://m.example/debian-security/";
        assert_eq!(main_archive(security, Some("bookworm")), None);
    }

    #[test]
    fn a_downloaded_file_tells_its_package() {
        assert_eq!(package_in("libc6_2.36-9+deb12u14_amd64.deb").unwrap(), "libc6");
        assert_eq!(package_in("mariadb-server-core_1%3a10.11.18-0_amd64.deb").unwrap(), "mariadb-server-core");
        assert_eq!(package_in("partial"), None);
    }

    #[test]
    fn a_candidate_is_read_from_apts_policy() {
        let policy = "wasmedge:\n  Installed: (none)\n  Candidate: 0.17.1-1+b1\n";
        assert_eq!(candidate_in(policy).unwrap(), "0.17.1-1+b1");
        assert_eq!(candidate_in("wasmedge:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(os_release(text, "NAME").unwrap(), "Debian GNU/Linux");
        assert_eq!(os_release(text, "VERSION_CODENAME").unwrap(), "bookworm");
        assert_eq!(os_release(text, "VERSION"), None);
    }

    #[test]
    fn the_private_configuration_leaves_its_folder_nowhere() {
        let text = configuration(Path::new("/x"), "amd64");
        for line in text.lines().filter(|line| line.starts_with("Dir::")) {
            assert!(line.contains(" \"/x"), "{line}");
        }
    }
}
