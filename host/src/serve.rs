//! `usher serve`: from the command line to a running supervisor.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use host::protocol::{Guest, Limits, Mode, PAGE_BYTES, Plan, Report};
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, timeout};

use crate::admin::Sources;
use crate::cli::{self, Serve};
use crate::cpus::Share;
use crate::folders::{self, Folder};
use crate::guest::{self, Environment};
use crate::metrics::{Facts, Ledger};
use crate::module::{Kind, Module};
use crate::processes::Engine;
use crate::supervisor::{self, Greeting, Setup, Signals, Slot, Supervisor, Template, Wanted};
use crate::{admin, compile, say, user};

/// How long a new process of the engine may take to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Orders from the admin address that may wait.
const COMMANDS_MAX: usize = 16;

/// Serves until a signal.
pub fn run(options: Box<Serve>) -> Result<ExitCode> {
    let prepared = Prepared::new(*options).map_err(|error| cli::usage(&error))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(prepared.serve());
    // What may still go on is a compilation, which a signal has called off.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// Everything that can be wrong with what was asked for is found out by now.
#[derive(Debug)]
struct Prepared {
    options: Serve,
    module: Module,
    guest: Guest,
    engine: Engine,
    wanted: Wanted,
    slots: Vec<Slot>,
    address: SocketAddr,
    admin: std::net::TcpListener,
}

impl Prepared {
    fn new(options: Serve) -> Result<Self> {
        let module = Module::read(&options.module)?;
        if options.interpret && matches!(module.kind, Kind::Compiled) {
            bail!("--interpret needs the portable module, and {} is compiled", module.path.display());
        }
        let mut environment = environment(&options, &module)?;
        let open_files = open_files(options.open_files)?;
        let folders: Vec<Folder> = options.dir.iter().map(|text| Folder::parse(text)).collect::<Result<_>>()?;
        let user = options.user.as_deref();
        user.map(user::find).transpose()?;
        let engine = Engine::find()?;
        let wanted = match options.workers {
            Some(count) => Wanted::Exactly(count.into()),
            None => Wanted::Share(Share::of_this_process()),
        };
        let slots = Slot::bind_all(options.listen, wanted.most()).context("--listen")?;
        let address = slots.first().context("no slot")?.address()?;
        let admin = bind_admin(options.admin).context("--admin")?;
        user::become_user(user)?;
        // As the user who will use them.
        let folders = preopens(folders)?;
        environment.extend(guest::told(options.drain, open_files, folders.len() as u64));
        let guest = Guest {
            arguments: vec![options.module.display().to_string()],
            environment,
            folders,
            poll: options.poll.into(),
        };
        Ok(Self { options, module, guest, engine, wanted, slots, address, admin })
    }

    async fn serve(self) -> Result<()> {
        let started = SystemTime::now();
        let mut signals = Signals::new().context("cannot handle signals")?;
        // First, as compiled code depends on the version of its WasmEdge.
        let template = Template::start(&self.engine, self.options.real_llvm)?;
        let version = match timeout(HELLO_TIMEOUT, template.report()).await {
            Ok(Ok(Some(Report::Hello { wasmedge }))) => wasmedge,
            _ => {
                template.end();
                // Asked again, it says why.
                self.engine.about()?;
                bail!("the engine does not say that it is there");
            }
        };
        let (mode, code) = tokio::select! {
            code = code(&self.options, &self.module, &self.engine, &version) => code?,
            name = signals.stop() => {
                say::log(format_args!("{name}: stopped before it served"));
                template.end();
                return Ok(());
            }
        };
        let (commands, mut orders) = mpsc::channel(COMMANDS_MAX);
        let admin = TcpListener::from_std(self.admin)?;
        let greeting = Greeting {
            code: greeting(&self.options, mode, &version),
            address: self.address.to_string(),
            admin: admin.local_addr()?.to_string(),
        };
        let ledger = Ledger::default();
        let facts = Facts { wasmedge: version, poll: self.options.poll.name(), started };
        let sources = Sources { commands, ledger: ledger.clone(), facts: Arc::new(facts) };
        tokio::spawn(admin::serve(admin, sources, self.options.drain));
        let limits = Limits {
            memory_pages: u32::try_from(self.options.memory.as_u64() / PAGE_BYTES)?,
            open_files: self.options.open_files,
        };
        let setup = Setup {
            engine: self.engine,
            real_llvm: self.options.real_llvm,
            plan: Plan { code, mode, guest: self.guest, limits },
            wanted: self.wanted,
            slots: self.slots,
            drain: self.options.drain,
            ledger,
            greeting,
        };
        Supervisor::run(setup, template, &mut signals, &mut orders).await
    }
}

/// The guest's environment.
fn environment(options: &Serve, module: &Module) -> Result<Vec<String>> {
    let own = |name: &str| env::var_os(name);
    let mut environment = Environment::default();
    environment.inherit(&module.settings, own)?;
    for (name, flag) in &environment.unused {
        say::log(format_args!("the variable {name} has no effect under usher: use {flag}"));
    }
    if let Some(file) = &options.env_file {
        environment.add_file(file, own)?;
    }
    for text in &options.env {
        environment.add(text, own).context("--env")?;
    }
    Ok(environment.into_lines())
}

/// How many files each worker may have open.
fn open_files(wanted: Option<u64>) -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match wanted {
        Some(wanted) if wanted > hard => {
            bail!("--open-files {wanted}: the system's limit is {hard}; raise it, or ask for less")
        }
        wanted => Ok(wanted.unwrap_or(soft)),
    }
}

fn preopens(folders: Vec<Folder>) -> Result<Vec<String>> {
    if folders.is_empty() {
        let folder = Folder::parse(folders::DEFAULT)?;
        folder.make()?;
        return Ok(vec![folder.preopen()?]);
    }
    folders.iter().map(Folder::preopen).collect()
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener> {
    let listener =
        std::net::TcpListener::bind(address).map_err(|error| anyhow!(supervisor::explain(address, &error)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// How the module is executed, and the file for that.
async fn code(options: &Serve, module: &Module, engine: &Engine, version: &str) -> Result<(Mode, PathBuf)> {
    let path = module.path.clone();
    let digest = match &module.kind {
        Kind::Compiled => return Ok((Mode::Aot, path)),
        Kind::Portable(_) if options.interpret => return Ok((Mode::Interpreter, path)),
        Kind::Portable(digest) => digest.clone(),
    };
    let (engine, version, code) = (engine.clone(), version.to_owned(), options.code.clone());
    // Compiling takes a minute, during which signals are to be heard.
    let compiled = spawn_blocking(move || compile::compiled(&engine, &version, &path, &digest, &code)).await?;
    Ok((Mode::Aot, compiled?))
}

fn greeting(options: &Serve, mode: Mode, version: &str) -> String {
    let how = match mode {
        Mode::Aot => "compiled ahead of time",
        Mode::Interpreter => "interpreted: for trying out only, ten times slower",
    };
    format!("usher {}: {}, {how} (WasmEdge {version})", env!("CARGO_PKG_VERSION"), options.module.display())
}
