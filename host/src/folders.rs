//! The folders that the guest may use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use host::protocol::Grant;

/// What the guest is given where nothing is asked for.
pub const DEFAULT: &str = "data:./data";

/// What else it is given then, unless it is missing.
pub const DEFAULT_IF_THERE: &[&str] = &["models:./models:ro"];

/// A folder of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its name there.
    guest: String,
    /// Where it is.
    host: PathBuf,
    /// Whether the guest cannot write there.
    read_only: bool,
}

impl Folder {
    /// Reads `HOST`, `GUEST:HOST`, and either with `:ro`.
    ///
    /// # Errors
    /// If it is none of these, or WasmEdge would give the guest another folder under that name.
    pub fn parse(text: &str) -> Result<Self> {
        let (names, read_only) = match text.strip_suffix(":ro") {
            Some(names) => (names, true),
            None => (text, false),
        };
        let (guest, host) = names.split_once(':').unwrap_or((names, names));
        ensure!(!guest.is_empty() && !host.is_empty(), "--dir {text}: it must be [GUEST:]HOST[:ro]");
        ensure!(
            !host.contains(':'),
            "--dir {text}: a folder with a colon in its name cannot be given to a guest; it must be [GUEST:]HOST[:ro]"
        );
        let guest = guest.strip_prefix("./").unwrap_or(guest).trim_end_matches('/');
        let guest = if guest.is_empty() { "/" } else { guest };
        let last = Path::new(guest).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // WasmEdge takes such a name for its parent.
        if guest != "." && (last.starts_with('.') || guest.ends_with("..")) {
            bail!(
                "--dir {text}: the guest's name for a folder must not begin with a dot; give it another, such as \
                 --dir {}:{host}",
                last.trim_start_matches('.')
            );
        }
        Ok(Self { guest: guest.to_owned(), host: PathBuf::from(host), read_only })
    }

    /// Makes the folder if it is missing, with its parents.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.host).with_context(|| {
            let host = self.host.display();
            format!(
                "cannot make the folder {host}: mount one that can be written, or give another with --dir (USHER_DIR)"
            )
        })
    }

    /// Whether there is such a folder.
    pub fn is_there(&self) -> bool {
        self.host.is_dir()
    }

    /// What the guest is given, once the folder turned out to be there.
    ///
    /// # Errors
    /// If it is missing or not a folder, or may not be used: WasmEdge would go on without it.
    pub fn grant(&self) -> Result<Grant> {
        let host = self.host.display();
        let found = fs::canonicalize(&self.host)
            .with_context(|| format!("--dir: cannot use the folder {host}: make it, or correct its name"))?;
        ensure!(found.is_dir(), "--dir: {host} is not a folder");
        fs::read_dir(&found).with_context(|| format!("--dir: cannot read the folder {host} as this user"))?;
        if !self.read_only {
            nix::unistd::access(&found, nix::unistd::AccessFlags::W_OK).with_context(|| {
                format!(
                    "--dir: cannot write into the folder {host} as this user: change its owner or its mount, or add :ro"
                )
            })?;
        }
        let found = found.to_str().with_context(|| format!("--dir: the name of {host} is not UTF-8"))?;
        Ok(Grant { guest: self.guest.clone(), host: found.to_owned(), read_only: self.read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_same_name_inside_unless_told_otherwise() {
        let folder = |guest: &str, host: &str, read_only| Folder { guest: guest.into(), host: host.into(), read_only };
        for (text, expected) in [
            (".", folder(".", ".", false)),
            ("./data", folder("data", "./data", false)),
            ("data:./data", folder("data", "./data", false)),
            ("/srv/users/", folder("/srv/users", "/srv/users/", false)),
            ("/etc:/etc:ro", folder("/etc", "/etc", true)),
            ("models:ro", folder("models", "models", true)),
            ("visible:/tmp/.hidden", folder("visible", "/tmp/.hidden", false)),
        ] {
            assert_eq!(Folder::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_the_guest_would_not_get_is_refused() {
        for text in ["", ":", "a:", ":b", "a:b:c", "/tmp/.hidden", "..", "a/..:b"] {
            assert!(Folder::parse(text).is_err(), "{text}");
        }
        let error = Folder::parse("/tmp/.hidden").unwrap_err().to_string();
        assert!(error.contains("--dir hidden:/tmp/.hidden"), "{error}");
    }

    #[test]
    fn a_folder_has_to_be_there() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("data");
        let folder = Folder::parse(&format!("data:{}", missing.display())).unwrap();
        let error = format!("{:#}", folder.grant().unwrap_err());
        assert!(error.contains("make it"), "{error}");
        folder.make().unwrap();
        assert!(folder.grant().unwrap().host.ends_with("data"));
        fs::write(parent.path().join("file"), "").unwrap();
        let file = Folder::parse(&format!("data:{}/file", parent.path().display())).unwrap();
        assert!(file.grant().unwrap_err().to_string().contains("not a folder"));
    }
}
