//! The service as a process.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::lines::Lines;
use crate::wait::within;
use crate::watch::Watch;
use crate::{Usage, artifacts, eventually};

/// What runs the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The WasmEdge CLI with the module compiled ahead of time.
    Aot,
    /// The WasmEdge CLI with the portable module.
    Interpreter,
    /// The CLI of the oldest WasmEdge that has to do, with the module compiled ahead of time by it.
    OldestAot,
    /// The CLI of the oldest WasmEdge, with the portable module.
    OldestInterpreter,
    /// The native build.
    Native,
    /// Workers under `usher serve`, with the module compiled ahead of time.
    Usher,
}

/// A service about to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    runtime: Runtime,
    folder: Option<PathBuf>,
    mount: &'static str,
    grants: Vec<String>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    shell: Vec<String>,
    listener: Option<Arc<TcpListener>>,
    control_listener: Option<Arc<TcpListener>>,
    watched: bool,
    module: Option<PathBuf>,
    program: Option<PathBuf>,
    models: Option<PathBuf>,
    plugins: Option<PathBuf>,
    wasmedge: Option<PathBuf>,
}

impl Builder {
    /// Is served by another copy of usher, which has its engine beside it.
    pub fn program(mut self, usher: &Path) -> Self {
        self.program = Some(usher.into());
        self
    }

    /// Serves another module; under usher only.
    pub fn module(mut self, module: &Path) -> Self {
        self.module = Some(module.into());
        self
    }

    /// Asks the service for `/livez` all the time, from when it listens until it is ended, and fails the
    /// test then if one probe was not answered.
    pub fn watched(mut self, watched: bool) -> Self {
        self.watched = watched;
        self
    }

    /// Hands the service a listening socket as its standard input.
    pub fn listener(mut self, listener: &Arc<TcpListener>) -> Self {
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(Arc::clone(listener));
        self.env("LISTEN_STDIN", 1)
    }

    /// Has the control routes served too, on a free port: see [`Service::control`].
    pub fn controlled(self) -> Self {
        self.env("ADMIN_ADDR", "127.0.0.1:0")
    }

    /// Hands the service a listening socket for the control routes as its standard output. It cannot
    /// say where it listens then: see [`Builder::launch`].
    pub fn control_listener(mut self, listener: &Arc<TcpListener>) -> Self {
        listener.set_nonblocking(true).unwrap();
        self.control_listener = Some(Arc::clone(listener));
        self.env("ADMIN_STDOUT", 1)
    }

    /// Sets a variable of the service.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.to_string()));
        self
    }

    /// Gives the service an argument.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Serves from a folder that exists and stays, instead of one of its own.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// How the folder is granted to the guest (`wasmedge --dir`).
    pub fn mount(mut self, mount: &'static str) -> Self {
        self.mount = mount;
        self
    }

    /// Grants the guest another folder by another name, such as `/etc`; it cannot write there.
    pub fn grant(mut self, name: &str, folder: &Path) -> Self {
        self.grants.push(format!("{name}:{}:readonly", folder.display()));
        self
    }

    /// Grants the guest a folder of models, and gives it the plugin that runs them.
    pub fn models(mut self, folder: &Path) -> Self {
        self.models = Some(folder.into());
        self.plugins(&artifacts::plugin())
    }

    /// Has WasmEdge look for its plugins there.
    pub fn plugins(mut self, place: &Path) -> Self {
        self.plugins = Some(place.into());
        self
    }

    /// Has a WasmEdge that has no plugins, which is made in a folder: from 0.17 on it looks beside itself for them,
    /// wherever else it is told to look.
    pub fn without_plugins(mut self, folder: &Path) -> Self {
        let installed = match self.runtime {
            Runtime::Usher => return self.arg("--no-plugins"),
            Runtime::OldestAot | Runtime::OldestInterpreter => artifacts::oldest_wasmedge(),
            _ => artifacts::wasmedge(),
        };
        self.wasmedge = Some(copy_without_plugins(&installed, folder));
        self.plugins(&folder.join("plugin"))
    }

    /// Runs a shell command in the process before it becomes the service, such as `ulimit -n 64`.
    pub fn shell(mut self, command: &str) -> Self {
        self.shell.push(command.into());
        self
    }

    fn spawn(&self, folder: &Path) -> Child {
        let socket = |listener: &Arc<TcpListener>| OwnedFd::from(listener.try_clone().unwrap()).into();
        let stdin = self.listener.as_ref().map_or_else(Stdio::null, socket);
        let stdout = self.control_listener.as_ref().map_or_else(Stdio::piped, socket);
        if self.runtime == Runtime::Usher {
            self.link_models(folder);
        }
        self.command(folder).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Puts the models where usher finds them without being told; they are there already after a restart.
    fn link_models(&self, folder: &Path) {
        let place = folder.join("models");
        if let Some(models) = self.models.as_ref().filter(|_| !place.exists()) {
            symlink(models, place).unwrap();
        }
    }

    /// The command that becomes the service, with its folder as the working directory.
    pub fn command(&self, folder: &Path) -> Command {
        let mut line = match self.runtime {
            Runtime::Native => vec![artifacts::native().display().to_string()],
            Runtime::Aot => self.guest(&artifacts::wasmedge(), &["--run-mode", "aot"], &artifacts::compiled()),
            Runtime::Interpreter => self.guest(&artifacts::wasmedge(), &[], &artifacts::module()),
            // It uses compiled code without being told to.
            Runtime::OldestAot => self.guest(&artifacts::oldest_wasmedge(), &[], &artifacts::oldest_compiled()),
            Runtime::OldestInterpreter => self.guest(&artifacts::oldest_wasmedge(), &[], &artifacts::module()),
            Runtime::Usher => self.usher(),
        };
        line.extend(self.arguments.iter().cloned());
        let mut script = self.shell.join("\n");
        script.push_str("\nexec \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "service"]).args(line).current_dir(folder);
        match self.runtime {
            Runtime::Native => drop(command.env_clear().envs(self.environment.iter().cloned())),
            Runtime::Usher => drop(command.env_clear().envs(self.ushers_environment())),
            _ => {}
        }
        if let Some(place) = &self.plugins {
            command.env("WASMEDGE_PLUGIN_PATH", place);
        }
        command
    }

    fn guest(&self, wasmedge: &Path, options: &[&str], module: &Path) -> Vec<String> {
        let mut line = vec![self.wasmedge.as_deref().unwrap_or(wasmedge).display().to_string()];
        line.extend(options.iter().map(ToString::to_string));
        let models = self.models.iter().map(|folder| format!("models:{}:readonly", folder.display()));
        for folder in std::iter::once(self.mount.to_owned()).chain(self.grants.iter().cloned()).chain(models) {
            line.extend(["--dir".into(), folder]);
        }
        for (name, value) in &self.environment {
            line.extend(["--env".into(), format!("{name}={value}")]);
        }
        line.push(module.display().to_string());
        line
    }

    /// Its flags by their twins in the environment, so that a test can give others.
    fn usher(&self) -> Vec<String> {
        let module = self.module.clone().unwrap_or_else(artifacts::module);
        let program = self.program.clone().unwrap_or_else(artifacts::usher);
        vec![program.display().to_string(), "serve".into(), module.display().to_string()]
    }

    /// The service's settings are usher's to hand on, but for where to listen.
    fn ushers_environment(&self) -> Vec<(String, String)> {
        let named = |(name, value): &(String, String)| match name.as_str() {
            "LISTEN_ADDR" => ("USHER_LISTEN".to_owned(), value.clone()),
            _ => (name.clone(), value.clone()),
        };
        let mut variables: Vec<(String, String)> = self.environment.iter().map(named).collect();
        variables.push(("USHER_ADMIN".into(), "127.0.0.1:0".into()));
        variables.push(("USHER_CACHE".into(), artifacts::cache().display().to_string()));
        variables
    }

    /// Starts the service and waits until it listens.
    pub fn start(self) -> Service {
        self.launch().listening()
    }

    /// Starts a service that cannot say where it listens, on a port that was free a moment ago, and
    /// waits until it answers there.
    pub fn start_blind(self) -> Service {
        eventually("the service starts on a port that nobody took meanwhile", || {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut service = self.clone().env("LISTEN_ADDR", address).launch();
            service.address = address;
            eventually("the service answers or ends", || {
                (service.alive().is_some() || !service.is_running()).then_some(())
            });
            service.is_running().then_some(service)
        })
    }

    /// Starts the service and waits for nothing; see [`Service::listening`].
    pub fn launch(self) -> Service {
        let own = self.folder.is_none().then(|| tempfile::tempdir().unwrap());
        let folder = self.folder.clone().unwrap_or_else(|| own.as_ref().unwrap().path().to_owned());
        let mut child = self.spawn(&folder);
        let output = Output::of(&mut child);
        let address = ([127, 0, 0, 1], 0).into();
        Service { child, address, descriptors: usize::MAX, builder: self, folder, own, output, watch: None }
    }

    /// Runs a service that is expected to end by itself.
    pub fn run(self) -> Failed {
        let own = self.folder.is_none().then(|| tempfile::tempdir().unwrap());
        let folder = self.folder.clone().unwrap_or_else(|| own.as_ref().unwrap().path().to_owned());
        let mut child = self.spawn(&folder);
        let Output { out, log } = Output::of(&mut child);
        let status = within(Duration::from_secs(30), || child.try_wait().unwrap()).unwrap_or_else(|| {
            let _ = child.kill();
            panic!("the service went on: {}{}", out.text(), log.text())
        });
        Failed { status, stdout: out.finished(), stderr: log.finished() }
    }
}

/// Makes an installed WasmEdge anew, of links to its files, and gives its program.
fn copy_without_plugins(program: &Path, folder: &Path) -> PathBuf {
    let prefix = program.parent().and_then(Path::parent).unwrap();
    fs::create_dir_all(folder.join("plugin")).unwrap();
    for part in ["lib", "libexec"] {
        fs::create_dir_all(folder.join(part)).unwrap();
        for file in fs::read_dir(prefix.join(part)).into_iter().flatten() {
            let file = file.unwrap();
            symlink(file.path(), folder.join(part).join(file.file_name())).unwrap();
        }
    }
    fs::create_dir_all(folder.join("bin")).unwrap();
    let made = folder.join("bin/wasmedge");
    // It finds the rest from where it is itself.
    fs::copy(program, &made).unwrap();
    made
}

/// A service that ended by itself.
#[derive(Debug)]
pub struct Failed {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    child: Child,
    address: SocketAddr,
    /// Those that were open at its start.
    descriptors: usize,
    builder: Builder,
    folder: PathBuf,
    own: Option<TempDir>,
    output: Output,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Output {
    out: Lines,
    log: Lines,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        // There is none where standard output is a listening socket.
        let out = child.stdout.take().map_or_else(|| Lines::follow(io::empty()), Lines::follow);
        Self { out, log: Lines::follow(child.stderr.take().unwrap()) }
    }
}

impl Service {
    /// A service on a free port, in a folder of its own.
    pub fn builder(runtime: Runtime) -> Builder {
        Builder {
            runtime,
            folder: None,
            mount: ".",
            grants: Vec::new(),
            environment: vec![("LISTEN_ADDR".into(), "127.0.0.1:0".into())],
            arguments: Vec::new(),
            shell: Vec::new(),
            listener: None,
            control_listener: None,
            watched: false,
            module: None,
            program: None,
            models: None,
            plugins: None,
            wasmedge: None,
        }
    }

    /// A service with nothing configured, compiled ahead of time.
    pub fn start() -> Self {
        Self::builder(Runtime::Aot).start()
    }

    /// Waits until it listens, after [`Builder::launch`].
    pub fn listening(mut self) -> Self {
        self.address = self.wait_for_address();
        self.descriptors = self.usage().descriptors;
        self.watch = self.builder.watched.then(|| Watch::over(self.address));
        self
    }

    fn wait_for_address(&mut self) -> SocketAddr {
        eventually("the service listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended: {status}\n{}", self.output.log.finished());
            }
            let text = self.output.out.text();
            let line = text.lines().find_map(|line| line.strip_prefix("listening on http://"))?;
            line.split_whitespace().next()?.parse().ok()
        })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves the control routes: it says so after where it serves.
    pub fn control(&self) -> SocketAddr {
        eventually("the service says where control is", || {
            let text = self.output.out.text();
            text.lines().find_map(|line| line.strip_prefix("control on http://"))?.parse().ok()
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its process uses.
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Waits until every connection is closed: its descriptors are as few as at its start. Gives what
    /// it uses then.
    pub fn at_rest(&self) -> Usage {
        let mut last = self.usage();
        let rests = within(Duration::from_secs(20), || {
            last = self.usage();
            (last.descriptors <= self.descriptors).then_some(last)
        });
        rests.unwrap_or_else(|| panic!("{} descriptors, {} at the start", last.descriptors, self.descriptors))
    }

    /// The folder that is its world.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has printed.
    pub fn stdout(&self) -> String {
        self.output.out.text()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.output.log.text()
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let faults = self.end_watch();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert_eq!(faults, [""; 0], "probes were not answered");
    }

    fn end_watch(&mut self) -> Vec<String> {
        self.watch.take().map(Watch::faults).unwrap_or_default()
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the service ends", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it as a crash would and starts it again in the same folder.
    pub fn restart(mut self) -> Self {
        self.kill();
        let own = self.own.take();
        let mut next = self.builder.clone().folder(&self.folder).start();
        next.own = own;
        next
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let faults = self.end_watch();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() || !faults.is_empty() {
            eprintln!("--- log of the service\n{}{}", self.output.out.finished(), self.output.log.finished());
        }
        if self.own.is_some() {
            // A test may have made the folder read-only.
            let _ = fs::remove_dir_all(&self.folder);
        }
        assert!(faults.is_empty() || thread::panicking(), "probes were not answered: {faults:?}");
    }
}
