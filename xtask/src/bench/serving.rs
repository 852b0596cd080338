//! The service in the forms that are compared, each on one processor.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use tempfile::TempDir;

use super::machine::Processors;
use super::wire::Connection;
use crate::artifacts::Forms;
use crate::process::end_with_us;

/// How long a service may take to start.
const START: Duration = Duration::from_secs(30);

/// The settings that all have. Idle connections have to outlive a case.
const SETTINGS: [(&str, &str); 2] = [("LOG_LEVEL", "warn"), ("IDLE_TIMEOUT", "1h")];

/// Where to listen: a free port of the loopback.
const FREE_PORT: &str = "127.0.0.1:0";

/// How the service is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a native program: the yardstick.
    Native,
    /// By WasmEdge's command line tool, with the module compiled ahead of time.
    Plain,
    /// By a worker of usher's that waits by WasmEdge's poll.
    UsherWasmedgePoll,
    /// By a worker of usher's.
    Usher,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Native, Self::Plain, Self::UsherWasmedgePoll, Self::Usher];

    /// Its name for readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Plain => "`wasmedge`",
            Self::UsherWasmedgePoll => "`usher --poll=wasmedge`",
            Self::Usher => "`usher`",
        }
    }

    /// Whether it goes on when it is interrupted, as by a tracer. WasmEdge's poll does not.
    pub fn bears_interruptions(self) -> bool {
        matches!(self, Self::Native | Self::Usher)
    }

    fn command(self, forms: &Forms, processors: &Processors) -> Result<Command> {
        match self {
            Self::Native => native(forms, processors),
            Self::Plain => plain(forms, processors),
            Self::UsherWasmedgePoll => usher(forms, processors, &["--poll", "wasmedge"]),
            Self::Usher => usher(forms, processors, &[]),
        }
    }

    fn is_under_usher(self) -> bool {
        matches!(self, Self::UsherWasmedgePoll | Self::Usher)
    }
}

fn native(forms: &Forms, processors: &Processors) -> Result<Command> {
    let mut command = processors.for_serving(&forms.native)?;
    command.env_clear().envs(SETTINGS).env("LISTEN_ADDR", FREE_PORT);
    Ok(command)
}

fn plain(forms: &Forms, processors: &Processors) -> Result<Command> {
    let mut command = processors.for_serving(&forms.wasmedge)?;
    command.args(["--run-mode", "aot", "--dir", "."]);
    for (name, value) in SETTINGS.into_iter().chain([("LISTEN_ADDR", FREE_PORT)]) {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.arg(&forms.aot);
    Ok(command)
}

fn usher(forms: &Forms, processors: &Processors, options: &[&str]) -> Result<Command> {
    let mut command = processors.for_serving(&forms.usher)?;
    command.arg("serve").arg(&forms.wasm).args(options).arg("--cache").arg(&forms.cache);
    command.args(["--workers", "1", "--listen", FREE_PORT, "--admin", FREE_PORT]);
    // The settings of the service are handed on.
    command.env_clear().envs(SETTINGS);
    Ok(command)
}

/// A service that serves, ended with its last owner.
pub struct Serving {
    /// Where it serves.
    pub address: SocketAddr,
    /// The process that does: usher's worker, not usher.
    pub pid: u32,
    _started: Started,
}

impl Serving {
    /// Starts it in a folder of its own, and waits until it serves.
    pub fn start(way: Way, forms: &Forms, processors: &Processors) -> Result<Self> {
        Self::by(way, way.command(forms, processors)?)
    }

    /// The same by a worker of usher's, which may read the models.
    pub fn with_models(forms: &Forms, processors: &Processors, models: &Path) -> Result<Self> {
        let models = format!("models:{}:ro", models.display());
        Self::by(Way::Usher, usher(forms, processors, &["--dir", ".", "--dir", &models])?)
    }

    fn by(way: Way, command: Command) -> Result<Self> {
        let mut started = Started::by(command)?;
        let lines = Lines::of(started.child.stdout.take().context("a service has no output")?);
        let address = lines.address_after("listening on http://")?;
        let pid = match way.is_under_usher() {
            true => worker(lines.address_after("admin on http://")?)?,
            false => started.child.id(),
        };
        Ok(Self { address, pid, _started: started })
    }
}

/// What was started, and its folder.
struct Started {
    child: Child,
    _folder: TempDir,
}

impl Started {
    fn by(mut command: Command) -> Result<Self> {
        // WasmEdge mistakes a folder whose name begins with a dot for its parent.
        let folder = tempfile::Builder::new().prefix("usher-bench-").tempdir().context("cannot make a folder")?;
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        end_with_us(&mut command);
        Ok(Self { child: command.spawn().context("cannot start it")?, _folder: folder })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The kernel ends what usher has started with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a service says, read to its end so that it can go on saying it.
struct Lines(Receiver<String>);

impl Lines {
    fn of(output: ChildStdout) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _ = sender.send(line);
            }
        });
        Self(lines)
    }

    /// Waits for the line that begins with `label`, and gives the address in it.
    fn address_after(&self, label: &str) -> Result<SocketAddr> {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.0.recv_timeout(left).with_context(|| format!("it did not say `{label}…`"))?;
            if let Some(said) = line.strip_prefix(label) {
                let address = said.split(' ').next().unwrap_or_default();
                return address.parse().with_context(|| format!("`{address}` is no address"));
            }
        }
    }
}

#[derive(Deserialize)]
struct Worker {
    pid: u32,
}

/// The process of usher's only worker.
fn worker(admin: SocketAddr) -> Result<u32> {
    let body = Connection::open(admin)?.ask("GET", "/workers", "")?;
    only_worker_in(&body).with_context(|| format!("usher has other workers than one: {body}"))
}

fn only_worker_in(workers: &str) -> Result<u32> {
    let [Worker { pid }] = serde_json::from_str(workers)?;
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(text: &str) -> Lines {
        let mut printf = Command::new("printf").args(["%b", text]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of(printf.stdout.take().unwrap());
        printf.wait().unwrap();
        lines
    }

    #[test]
    fn addresses_are_found_among_other_lines() {
        let lines =
            saying("usher 0.1.0\\nlistening on http://127.0.0.1:81 (store: x)\\nadmin on http://127.0.0.1:82\\n");
        assert_eq!(lines.address_after("listening on http://").unwrap(), "127.0.0.1:81".parse().unwrap());
        assert_eq!(lines.address_after("admin on http://").unwrap(), "127.0.0.1:82".parse().unwrap());
    }

    #[test]
    fn a_service_that_ends_without_a_word_is_an_error() {
        let error = saying("").address_after("listening on http://").unwrap_err().to_string();
        assert!(error.contains("listening on"), "{error}");
    }

    #[test]
    fn only_one_worker_will_do() {
        let row = |pid| format!(r#"{{"worker":0,"pid":{pid},"state":"ready","restarts":0}}"#);
        assert_eq!(only_worker_in(&format!("[{}]", row(4711))).unwrap(), 4711);
        for wrong in ["[]".to_owned(), format!("[{},{}]", row(1), row(2)), "OK".to_owned()] {
            assert!(only_worker_in(&wrong).is_err(), "{wrong}");
        }
    }
}
