//! `usher serve`: from the command line to a running supervisor.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use host::protocol::{Grant, Limits, PAGE_BYTES};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::admin::Sources;
use crate::cli::{self, Serve};
use crate::cpus::Share;
use crate::folders::{self, Folder};
use crate::metrics::{Facts, Ledger};
use crate::processes::Engine;
use crate::source::{Fresh, Source};
use crate::supervisor::{self, Generation, Greeting, Inputs, Setup, Signals, Slot, Supervisor, Wanted};
use crate::{admin, guest, say, user, watch};

/// Orders from the admin address that may wait.
const COMMANDS_MAX: usize = 16;

/// Serves until a signal.
pub fn run(options: Box<Serve>) -> Result<ExitCode> {
    give_memory_back();
    // Until it is handled: it would end us, and everything is about to be read in any case.
    // SAFETY: no handler is set, and none was before.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.context("cannot ignore SIGHUP")?;
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
    source: Source,
    fresh: Fresh,
    wanted: Wanted,
    slots: Vec<Slot>,
    address: SocketAddr,
    admin: std::net::TcpListener,
}

impl Prepared {
    fn new(options: Serve) -> Result<Self> {
        let fresh = Fresh::read(&options).1?;
        let open_files = open_files(options.open_files)?;
        let folders: Vec<Folder> = options.dir.iter().map(|text| Folder::parse(text)).collect::<Result<_>>()?;
        let user = options.user.as_deref();
        user.map(user::find).transpose()?;
        let engine = Engine::find()?;
        let wanted = match options.workers {
            Some(count) => Wanted::Exactly(count.into()),
            None => Wanted::Share(Share::of_this_process()),
        };
        let slots = Slot::bind_all(options.listen, wanted.most()).context("--listen (USHER_LISTEN)")?;
        let address = slots.first().context("no slot")?.address()?;
        let admin = bind_admin(options.admin).context("--admin (USHER_ADMIN)")?;
        user::become_user(user)?;
        // As the user who will use them.
        let folders = grants(folders)?;
        let told = guest::told(options.drain, open_files, folders.len() as u64).to_vec();
        let limits = Limits {
            memory_pages: u32::try_from(options.memory.as_u64() / PAGE_BYTES)?,
            open_files: options.open_files,
            confined: !options.unconfined,
        };
        let source = Source { options, engine, told, folders, limits };
        Ok(Self { source, fresh, wanted, slots, address, admin })
    }

    async fn serve(self) -> Result<()> {
        let started = SystemTime::now();
        let mut signals = Signals::new().context("cannot handle signals")?;
        let first = tokio::select! {
            first = Generation::make(&self.source, 1, self.fresh) => first?,
            name = signals.stop() => {
                say::log(format_args!("{name}: stopped before it served"));
                return Ok(());
            }
        };
        let options = &self.source.options;
        let (orders, commands) = mpsc::channel(COMMANDS_MAX);
        let admin = TcpListener::from_std(self.admin)?;
        let greeting = Greeting {
            version: format!("usher {}", env!("CARGO_PKG_VERSION")),
            address: self.address.to_string(),
            admin: admin.local_addr()?.to_string(),
        };
        let ledger = Ledger::default();
        let facts = Facts {
            wasmedge: first.wasmedge.clone(),
            poll: options.poll.name(),
            address: greeting.address.clone(),
            started,
        };
        let sources = Sources { commands: orders, ledger: ledger.clone(), facts: Arc::new(facts) };
        tokio::spawn(admin::serve(admin, sources, options.drain));
        let inputs = Inputs { signals, commands, seen: watch::seen(options.watch.then_some(&options.module))? };
        let setup = Setup {
            wanted: self.wanted,
            slots: self.slots,
            drain: options.drain,
            reload_timeout: options.reload_timeout,
            ledger,
            greeting,
            source: Arc::new(self.source),
        };
        Supervisor::run(setup, first, inputs).await
    }
}

/// Has large allocations given back to the system as soon as they are freed: each reload reads a module, and glibc
/// would keep the memory for that from the second one on.
fn give_memory_back() {
    // SAFETY: changes a number of the allocator's (mallopt(3)), before there are other threads.
    #[cfg(target_env = "gnu")]
    unsafe {
        const LARGE_BYTES: libc::c_int = 256 << 10;
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
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

fn grants(folders: Vec<Folder>) -> Result<Vec<Grant>> {
    if folders.is_empty() {
        let folder = Folder::parse(folders::DEFAULT)?;
        folder.make()?;
        let others = folders::DEFAULT_IF_THERE.iter().map(|text| Folder::parse(text)).collect::<Result<Vec<_>>>()?;
        return [folder].iter().chain(others.iter().filter(|folder| folder.is_there())).map(Folder::grant).collect();
    }
    folders.iter().map(Folder::grant).collect()
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener> {
    let listener =
        std::net::TcpListener::bind(address).map_err(|error| anyhow!(supervisor::explain(address, &error)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
