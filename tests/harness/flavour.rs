//! What differs between the servers that the service can use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::artifacts;

/// Small and quick, before what a test asks for. A commit outlives a crash of the process, though not
/// one of the machine.
const OPTIONS: [&str; 6] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=2",
    "--skip-innodb-doublewrite",
    "--key-buffer-size=1M",
];
const MARIADB: [&str; 3] = [
    // As the seed was made.
    "--innodb-log-file-size=4M",
    "--skip-innodb-use-native-aio",
    "--innodb-temp-data-file-path=ibtmp1:5M:autoextend",
];
const MYSQL: [&str; 7] = [
    // As the seed was made.
    "--innodb-redo-log-capacity=8M",
    "--skip-innodb-use-native-aio",
    "--innodb-flush-method=nosync",
    "--skip-mysqlx",
    "--skip-log-bin",
    "--skip-performance-schema",
    // The folder that Debian compiled in is not there.
    "--secure-file-priv=NULL",
];
/// The option that counts when data is made, and never again.
const AT_INITIALIZATION: &str = "--lower-case-table-names=";

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB.
    MariaDb,
    /// MySQL: authenticates by `caching_sha2_password`, and has TLS with certificates of its own making.
    MySql,
}

impl Flavour {
    fn program(self, mariadb: &str, mysql: &str) -> Command {
        Command::new(match self {
            Self::MariaDb => artifacts::mariadb().join("bin").join(mariadb),
            Self::MySql => artifacts::mysql().join("bin").join(mysql),
        })
    }

    /// The server with its data in this folder, and options for a test.
    pub(crate) fn server(self, data: &Path) -> Command {
        let mut server = self.program("mariadbd", "mysqld");
        server.args(["--no-defaults".into(), format!("--datadir={}", data.display())]).args(OPTIONS);
        match self {
            Self::MariaDb => server.args(MARIADB),
            Self::MySql => server.args(MYSQL),
        };
        if geteuid().is_root() {
            server.arg("--user=root");
        }
        server
    }

    /// Makes a data folder for a server with these options.
    pub(crate) fn make_data(self, data: &Path, options: &[String]) {
        let seed: PathBuf = match self {
            Self::MariaDb => artifacts::mariadb().join("seed"),
            Self::MySql => artifacts::mysql().join("seed"),
        };
        let other = options.iter().find(|option| self == Self::MySql && option.starts_with(AT_INITIALIZATION));
        let output = match other {
            // `cp` keeps the holes in it.
            None => Command::new("cp").arg("-R").args([&seed, data]).output().unwrap(),
            Some(option) => {
                fs::create_dir(data).unwrap();
                let mut server = self.server(data);
                server.args(["--initialize-insecure", option]).output().unwrap()
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The client, giving rows without headings.
    pub(crate) fn client(self) -> Command {
        let mut client = self.program("mariadb", "mysql");
        client.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        client.stdin(Stdio::null());
        client
    }

    /// What makes the client speak without TLS, to whatever account.
    pub(crate) fn plainly(self) -> &'static [&'static str] {
        match self {
            Self::MariaDb => &["--skip-ssl"],
            Self::MySql => &["--ssl-mode=DISABLED", "--get-server-public-key"],
        }
    }

    /// The statement that makes every change be refused, or no longer.
    pub(crate) fn read_only(self, read_only: bool) -> &'static str {
        match (self, read_only) {
            (Self::MySql, true) => "SET GLOBAL super_read_only = 1",
            (_, true) => "SET GLOBAL read_only = 1",
            // It ends the other one too.
            (_, false) => "SET GLOBAL read_only = 0",
        }
    }
}
