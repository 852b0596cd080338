//! Serving on this machine: starts the module under usher, says how to use it, ends it.

use std::env;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::paths::Paths;
use crate::{files, host, module, plugin};

/// What the command line asks for.
pub struct Options {
    pub listen: SocketAddr,
    pub interpret: bool,
    pub env: Vec<String>,
}

/// Serves until a signal ends it; fails when the service ends by itself.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    // Asked before the minutes that building may take.
    check_free(options.listen)?;
    let module = module::build(paths)?;
    plugin::build(paths)?;
    let usher = host::build(paths)?;
    let (sender, events) = mpsc::channel();
    // Before the start, so that no signal is missed.
    send_signals(sender.clone())?;
    let mut child = serving(paths, options, &usher, &module)?.spawn().context("cannot start usher")?;
    let output = child.stdout.take().context("usher has no output")?;
    send_lines(output, sender);
    follow(&mut child, &events)
}

/// Follows usher until it ends, and asks it to when that is wanted.
fn follow(child: &mut Child, events: &Receiver<Event>) -> Result<()> {
    let (mut talking, mut stopping) = (true, false);
    let mut greeting = Greeting::default();
    loop {
        match events.recv().context("usher's events are lost")? {
            Event::Line(line) => greeting.hear(&line).iter().for_each(|text| println!("{text}")),
            Event::EndOfLines => talking = false,
            Event::Signal(SIGCHLD) => {}
            Event::Signal(_) => {
                stopping = true;
                // By the first usher drains, within a time of its own; by another it ends at once.
                end(child)?;
            }
        }
        // Its end and that of its lines come in any order; all that it wrote is shown first.
        if !talking && let Some(status) = child.try_wait().context("usher is lost")? {
            if stopping {
                println!("stopped");
                return Ok(());
            }
            bail!("usher ended by itself ({status}); its last lines say why");
        }
    }
}

/// Asks usher to end.
fn end(child: &mut Child) -> Result<()> {
    if child.try_wait().context("usher is lost")?.is_some() {
        return Ok(());
    }
    let pid = i32::try_from(child.id()).context("a process id beyond the system's own")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot signal usher")
}

/// What happens while the service runs.
enum Event {
    /// A line on its stdout.
    Line(String),
    /// It closed its stdout.
    EndOfLines,
    /// A signal to us; SIGCHLD when it ended.
    Signal(i32),
}

fn send_signals(events: Sender<Event>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("cannot handle signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn send_lines(output: ChildStdout, events: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if events.send(Event::Line(line)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::EndOfLines);
    });
}

/// The command that serves `module`.
fn serving(paths: &Paths, options: &Options, usher: &Path, module: &Path) -> Result<Command> {
    let mut command = host::command(paths, usher);
    command.arg("serve").arg(module.file_name().context("a module has a name")?);
    command.args(["--listen", &options.listen.to_string(), "--admin", "127.0.0.1:0", "--dir", "."]);
    if options.interpret {
        command.arg("--interpret");
    }
    // Usher hands the service's settings on, but not the folder that one of them may name.
    let inherited = env::var("DATA_DIR").ok().map(|folder| format!("DATA_DIR={folder}"));
    for folder in inherited.iter().chain(&options.env).filter_map(|setting| folder_outside(setting)) {
        files::make_folder(&folder)?;
        command.arg("--dir").arg(folder);
    }
    for setting in &options.env {
        command.arg("--env").arg(setting);
    }
    // Ctrl-C goes to a terminal's whole process group; in its own, usher hears it from us, and once.
    command.process_group(0);
    Ok(command)
}

/// The service sees no folder but those it is given, so data kept elsewhere needs one more.
fn folder_outside(setting: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(setting.strip_prefix("DATA_DIR=")?);
    folder.is_absolute().then_some(folder)
}

/// Fails with what to do when the service could not listen there.
fn check_free(address: SocketAddr) -> Result<()> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    match error.kind() {
        ErrorKind::AddrInUse => bail!(
            "{address} is already in use (address taken): stop the other program or choose \
             another with --listen HOST:PORT"
        ),
        ErrorKind::PermissionDenied => bail!(
            "{address} may not be used without root: choose a port from 1024 on with --listen \
             HOST:PORT"
        ),
        _ => Err(error).with_context(|| format!("cannot listen on {address}: choose another with --listen HOST:PORT")),
    }
}

/// What usher says once it serves, a line after the other, up to the number of workers.
#[derive(Default)]
struct Greeting {
    code: String,
    open: String,
    store: String,
    admin: String,
    models: String,
}

impl Greeting {
    /// Takes a line of usher's and gives what is to be shown for it.
    fn hear(&mut self, line: &str) -> Option<String> {
        if let Some((_, code)) = line.strip_prefix("usher ").and_then(|said| said.split_once(", ")) {
            code.clone_into(&mut self.code);
        } else if let Some(said) = line.strip_prefix("listening on http://") {
            let (address, about) = said.split_once(' ').unwrap_or((said, ""));
            self.open = to_open(address);
            about.trim_matches(['(', ')']).trim_start_matches("store: ").clone_into(&mut self.store);
        } else if let Some(address) = line.strip_prefix("admin on ") {
            address.clone_into(&mut self.admin);
        } else if let Some(models) = line.strip_prefix("models ") {
            models.clone_into(&mut self.models);
        } else if let Some((count, reason)) = workers(line) {
            return Some(self.text(count, reason));
        } else {
            return Some(line.to_owned());
        }
        None
    }

    /// What a newcomer needs to know.
    fn text(&self, workers: &str, reason: &str) -> String {
        let Self { code, open, store, admin, models } = self;
        format!(
            r#"
  The users service is ready:  {open}

  store    {store}
  code     {code}
  workers  {workers}: {reason}
  admin    {admin}
  models   {models}

  Try:
    curl {open}/api/users -H 'Content-Type: application/json' -d '{{"name":"Ada Lovelace","email":"ada@example.org"}}'
    curl {open}/api/users
    curl {open}/api/users/1

  Ctrl-C stops it.
"#
        )
    }
}

/// "Any address" is one to listen on, not one to open.
fn to_open(address: &str) -> String {
    let port = |any: &str| address.strip_prefix(any);
    match (port("0.0.0.0:"), port("[::]:")) {
        (Some(port), _) => format!("http://127.0.0.1:{port}"),
        (_, Some(port)) => format!("http://[::1]:{port}"),
        _ => format!("http://{address}"),
    }
}

/// How many workers there are, and why, where `line` says so.
fn workers(line: &str) -> Option<(&str, &str)> {
    let (count, reason) = line.split_once(" workers: ").or_else(|| line.split_once(" worker: "))?;
    count.parse::<u16>().is_ok().then_some((count, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "usher 0.1.0: service.wasm, compiled ahead of time (WasmEdge 0.17.1)";
    const LISTENING: &str = "listening on http://0.0.0.0:8080 (store: embedded in ./data)";
    const ADMIN: &str = "admin on http://127.0.0.1:9090";
    const MODELS: &str = "models by /x/plugin.so";

    #[test]
    fn the_greeting_has_all_that_usher_says_and_three_things_to_try() {
        let mut greeting = Greeting::default();
        for line in [CODE, LISTENING, ADMIN, MODELS] {
            assert_eq!(greeting.hear(line), None);
        }
        let text = greeting.hear("1 worker: only one can use the store").unwrap();
        for expected in [
            "ready:  http://127.0.0.1:8080\n",
            "store    embedded in ./data\n",
            "code     compiled ahead of time (WasmEdge 0.17.1)\n",
            "workers  1: only one can use the store\n",
            "admin    http://127.0.0.1:9090\n",
            "models   by /x/plugin.so\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(text.matches("curl http://127.0.0.1:8080/api/users").count(), 3);
        let text = greeting.hear("2 workers: one for each processor").unwrap();
        assert!(text.contains("workers  2: one for each processor\n"), "{text}");
    }

    #[test]
    fn other_lines_are_shown_as_they_are() {
        let mut greeting = Greeting::default();
        for line in ["hello", "listening on nothing", "two workers: gone"] {
            assert_eq!(greeting.hear(line).unwrap(), line);
        }
    }

    #[test]
    fn any_address_is_made_one_to_open() {
        assert_eq!(to_open("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(to_open("[::]:80"), "http://[::1]:80");
        assert_eq!(to_open("10.0.0.0:80"), "http://10.0.0.0:80");
    }

    #[test]
    fn a_taken_port_names_the_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = check_free(address).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()), "{message}");
        assert!(message.contains("--listen HOST:PORT"), "{message}");
    }

    #[test]
    fn data_elsewhere_is_given_to_the_service() {
        assert_eq!(folder_outside("DATA_DIR=/srv/x").unwrap(), PathBuf::from("/srv/x"));
        assert_eq!(folder_outside("DATA_DIR=./data"), None);
        assert_eq!(folder_outside("LOG_LEVEL=/srv"), None);
    }
}
