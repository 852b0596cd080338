//! Serving on this machine: starts the module under WasmEdge, says how to use it, ends it.

use std::env;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::paths::Paths;
use crate::process::end_with_us;
use crate::{aot, files, module};

/// Settings of the service that it gets from our environment: it sees none but those it is given.
/// Where it listens is said by --listen, and control is for hosts.
const FORWARDED: [&str; 18] = [
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "DATABASE_CA_FILE",
    "DATABASE_CLIENT_CERT_FILE",
    "DATABASE_CLIENT_KEY_FILE",
    "DATABASE_TIMEOUT",
    "DATABASE_CONNECTIONS",
    "DNS_SERVER",
    "DATA_DIR",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "MAX_CONNECTIONS",
    "HEAD_TIMEOUT",
    "BODY_TIMEOUT",
    "HANDLE_TIMEOUT",
    "WRITE_TIMEOUT",
    "IDLE_TIMEOUT",
    "DRAIN_TIMEOUT",
];

/// How the service's line begins by which it says that it serves.
const LISTENING: &str = "listening on ";

/// How long the service may take to end; it drains for 10 s at most.
const END_WITHIN: Duration = Duration::from_secs(15);

/// What the command line asks for.
pub struct Options {
    pub listen: SocketAddr,
    pub interpret: bool,
    pub env: Vec<String>,
}

/// Serves until a signal ends it; fails when the service ends by itself.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    // Asked before the minute that building may take.
    check_free(options.listen)?;
    let code = if options.interpret { module::build(paths)? } else { aot::of(paths, None)? };
    let (sender, events) = mpsc::channel();
    // Before the start, so that no signal is missed.
    send_signals(sender.clone())?;
    let mut child = wasmedge(paths, options, &code)?.spawn().context("cannot start WasmEdge")?;
    let output = child.stdout.take().context("the service has no output")?;
    send_lines(output, sender);
    serve(&mut child, &events, options)
}

/// Follows the service until it ends or is to end.
fn serve(child: &mut Child, events: &Receiver<Event>, options: &Options) -> Result<()> {
    let mut talking = true;
    loop {
        match events.recv().context("the service's events are lost")? {
            Event::Line(line) => show(&line, options),
            Event::EndOfLines => talking = false,
            Event::Signal(SIGCHLD) => {}
            Event::Signal(_) => {
                end(child, events)?;
                println!("stopped");
                return Ok(());
            }
        }
        // Its end and that of its lines come in any order; all that it wrote is shown first.
        if !talking && let Some(status) = child.try_wait().context("the service is lost")? {
            bail!("the service ended by itself ({status}); its last lines say why");
        }
    }
}

/// Ends the service: politely, then, by a second signal or when it takes too long, at once.
fn end(child: &mut Child, events: &Receiver<Event>) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).context("a process id beyond the system's own")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot signal the service")?;
    let deadline = Instant::now() + END_WITHIN;
    loop {
        if let Some(status) = child.try_wait().context("the service is lost")? {
            return Ok(status);
        }
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Signal(SIGCHLD) | Event::Line(_) | Event::EndOfLines) => {}
            Ok(Event::Signal(_)) | Err(_) => {
                child.kill().context("cannot end the service")?;
                return child.wait().context("the service is lost");
            }
        }
    }
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

/// The command that serves `code`.
fn wasmedge(paths: &Paths, options: &Options, code: &Path) -> Result<Command> {
    let mut command = Command::new(paths.wasmedge_bin());
    command.current_dir(paths.root());
    // 0.17 interprets even compiled code unless told.
    let mode = if options.interpret { "interpreter" } else { "aot" };
    command.args(["--run-mode", mode, "--dir", ".:."]);
    let own = FORWARDED.iter().filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
    let settings: Vec<String> = own.chain(options.env.iter().cloned()).collect();
    for folder in settings.iter().filter_map(|setting| folder_outside(setting)) {
        // WasmEdge goes on without a folder that is missing, and the data would land elsewhere.
        files::make_folder(&folder)?;
        command.arg("--dir").arg(format!("{0}:{0}", folder.display()));
    }
    command.arg("--env").arg(format!("LISTEN_ADDR={}", options.listen));
    for setting in &settings {
        command.arg("--env").arg(setting);
    }
    command.arg(code);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // Ctrl-C goes to a terminal's whole process group; in its own, the service hears it from us.
    command.process_group(0);
    end_with_us(&mut command);
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

fn show(line: &str, options: &Options) {
    match greeting(line, options.interpret) {
        Some(greeting) => println!("{greeting}"),
        None => println!("{line}"),
    }
}

/// What a newcomer needs to know, when `line` says that the service listens.
fn greeting(line: &str, interpret: bool) -> Option<String> {
    let said = line.strip_prefix(LISTENING)?;
    let (url, about) = said.split_once(' ').unwrap_or((said, ""));
    if !url.starts_with("http://") {
        return None;
    }
    let store = about.trim_matches(['(', ')']).trim_start_matches("store: ");
    let code =
        if interpret { "interpreted: for trying out only, ten times slower" } else { "compiled ahead of time (AOT)" };
    // "Any address" is one to listen on, not one to open.
    let open = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
    Some(format!(
        r#"
  The users service is ready:  {open}

  store    {store}
  code     {code}

  Try:
    curl {open}/api/users -H 'Content-Type: application/json' -d '{{"name":"Ada Lovelace","email":"ada@example.org"}}'
    curl {open}/api/users
    curl {open}/api/users/1

  Ctrl-C stops it.
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_has_address_store_and_three_things_to_try() {
        let line = "listening on http://127.0.0.1:8080 (store: embedded in ./data)";
        let text = greeting(line, false).unwrap();
        assert!(text.contains("ready:  http://127.0.0.1:8080\n"), "{text}");
        assert!(text.contains("embedded in ./data\n") && text.contains("AOT"), "{text}");
        assert_eq!(text.matches("curl http://127.0.0.1:8080/api/users").count(), 3);
        assert!(greeting(line, true).unwrap().contains("interpreted"));
    }

    #[test]
    fn other_lines_are_no_greeting_and_any_address_is_made_one_to_open() {
        assert_eq!(greeting("hello", false), None);
        assert_eq!(greeting("listening on nothing", false), None);
        let text = greeting("listening on http://0.0.0.0:80", false).unwrap();
        assert!(text.contains("http://127.0.0.1:80/api/users"), "{text}");
    }

    #[test]
    fn every_setting_but_where_to_listen_and_control_is_forwarded() {
        let config = include_str!("../../service/src/config.rs");
        let table = config.split("settings! {\n").nth(1).unwrap().split("\n}").next().unwrap();
        let names = table.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
        let names: Vec<&str> =
            names.filter(|name| !["LISTEN_", "ADMIN_"].iter().any(|own| name.starts_with(own))).collect();
        assert_eq!(names, FORWARDED);
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
