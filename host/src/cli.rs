//! The command line. Every flag but --env has a twin in the environment; none of their names can be one
//! that Kubernetes adds for a Service called `usher` (`USHER_PORT`, `USHER_SERVICE_HOST`, …). A twin that is
//! empty counts as unset.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use host::protocol;

use crate::processes::Loading;

/// Exit code for settings, files and addresses that are wrong; clap's own for arguments.
const USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  stopped in an orderly way, or everything is well
  1  could not go on: a crash loop, a failed compilation, not healthy, no usher to ask, or ended at once by a
     second signal
  2  a wrong argument, setting, file or address";

/// Runs a WebAssembly service: compiles it ahead of time, starts a sandboxed worker per core, and keeps
/// them alive.
#[derive(Debug, Parser)]
#[command(name = "usher", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the arguments and the environment of the process; prints what is wrong with them and ends it.
    pub fn read() -> Self {
        let empty =
            |(name, value): &(OsString, OsString)| value.is_empty() && name.as_encoded_bytes().starts_with(b"USHER_");
        for (name, _) in env::vars_os().filter(empty).collect::<Vec<_>>() {
            // SAFETY: the process has no other thread yet that could read its environment.
            unsafe { env::remove_var(name) }
        }
        Self::parse()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves until SIGTERM or Ctrl-C, then finishes what is in flight; reloads on SIGHUP
    #[command(after_help = EXIT_CODES)]
    Serve(Box<Serve>),
    /// Compiles a module ahead of time
    #[command(after_help = EXIT_CODES)]
    Compile(Compile),
    /// Says what this machine has, and what is wrong
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Asks a running usher whether its service is ready
    #[command(after_help = EXIT_CODES)]
    Health(Health),
    /// Shows how a running usher's workers are doing, until Ctrl-C
    #[command(after_help = EXIT_CODES)]
    Top(Top),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The module, or a compiled form (.so) that `usher compile` made
    #[arg(env = "USHER_MODULE", default_value = "service.wasm")]
    pub module: PathBuf,
    /// Where to serve; port 0 takes a free one
    #[arg(long, env = "USHER_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where to ask about the workers (`GET /workers`, `/livez`, `/readyz`), to replace one (`POST
    /// /workers/0/replace`) and to reload (`POST /reload`); keep it private
    #[arg(long, env = "USHER_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// How many workers [default: the processors that this process may use, rounded down, at least 1; 1
    /// where the module can have only one writer]
    #[arg(long, env = "USHER_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// A folder for the guest: HOST, or GUEST:HOST; with :ro it cannot write there. May be repeated; in the
    /// environment, a list with commas [default: data:./data, which is made, and models:./models:ro, if it is there]
    #[arg(long, env = "USHER_DIR", value_name = "[GUEST:]HOST[:ro]", value_delimiter = ',')]
    pub dir: Vec<String>,
    /// A variable for the guest, or the name of one of usher's own to hand on; may be repeated. The
    /// module's own settings are handed on without it
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// A file of such variables, one NAME=VALUE a line
    #[arg(long, env = "USHER_ENV_FILE", value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// How long to finish what is in flight when stopping
    #[arg(long, env = "USHER_DRAIN", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain: Duration,
    /// Reload when the module's content changes, as on SIGHUP
    #[arg(long, env = "USHER_WATCH", value_parser = BoolishValueParser::new())]
    pub watch: bool,
    /// How long the workers of a reload may take to be ready; later the old ones stay
    #[arg(long, env = "USHER_RELOAD_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub reload_timeout: Duration,
    /// How much memory each worker's guest may take, 4GiB at most
    #[arg(long, env = "USHER_MEMORY", value_name = "SIZE", default_value = "1GiB", value_parser = memory)]
    pub memory: ByteSize,
    /// How many files and connections each worker may have open [default: as many as usher itself]
    #[arg(long, env = "USHER_OPEN_FILES", value_name = "N", value_parser = clap::value_parser!(u64).range(32..))]
    pub open_files: Option<u64>,
    /// The user to become once the address is bound, when started as root
    #[arg(long, env = "USHER_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// Interpret the module instead of compiling it: starts at once, serves ten times slower
    #[arg(long, env = "USHER_INTERPRET", value_parser = BoolishValueParser::new())]
    pub interpret: bool,
    /// Load the real LLVM with WasmEdge, which serving does not need, instead of a stand-in: 40 MB more
    #[arg(long, env = "USHER_REAL_LLVM", value_parser = BoolishValueParser::new())]
    pub real_llvm: bool,
    /// Load no plugin of WasmEdge: the guest starts all the same, and cannot run models
    #[arg(long, env = "USHER_NO_PLUGINS", value_parser = BoolishValueParser::new())]
    pub no_plugins: bool,
    /// Whose poll the guest waits by: WasmEdge's own costs more with every connection
    #[arg(long, env = "USHER_POLL", value_name = "WHOSE", default_value = "usher")]
    pub poll: Poll,
    /// Leave workers the rights that their guests have no use for: to all files, and to all system calls
    #[arg(long, env = "USHER_UNCONFINED", value_parser = BoolishValueParser::new())]
    pub unconfined: bool,
    #[command(flatten)]
    pub code: Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Poll {
    Usher,
    Wasmedge,
}

impl Poll {
    /// As the flag names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usher => "usher",
            Self::Wasmedge => "wasmedge",
        }
    }
}

impl From<Poll> for protocol::Poll {
    fn from(poll: Poll) -> Self {
        match poll {
            Poll::Usher => Self::Usher,
            Poll::Wasmedge => Self::Wasmedge,
        }
    }
}

/// How code is made, and where it is kept.
#[derive(Debug, Clone, Args)]
pub struct Code {
    /// How much the compiler optimises
    #[arg(long, env = "USHER_OPT", value_name = "LEVEL", default_value = "3")]
    pub opt: Level,
    /// Compile for any CPU of this architecture, not for this very one
    #[arg(long, env = "USHER_GENERIC", value_parser = BoolishValueParser::new())]
    pub generic: bool,
    /// Where compiled modules are kept [default: the user's cache folder]
    #[arg(long, env = "USHER_CACHE", value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    #[value(name = "0")]
    O0,
    #[value(name = "1")]
    O1,
    #[value(name = "2")]
    O2,
    #[value(name = "3")]
    O3,
    #[value(name = "s")]
    Os,
    #[value(name = "z")]
    Oz,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::O0 => "0",
            Self::O1 => "1",
            Self::O2 => "2",
            Self::O3 => "3",
            Self::Os => "s",
            Self::Oz => "z",
        })
    }
}

#[derive(Debug, Args)]
pub struct Compile {
    /// The module
    pub module: PathBuf,
    /// Where to put the result; without it, it is kept in the cache, where `usher serve` finds it
    #[arg(short, long, value_name = "FILE.so")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub code: Code,
}

#[derive(Debug, Args)]
pub struct Check {
    /// A module to look at, too
    #[arg(env = "USHER_MODULE")]
    pub module: Option<PathBuf>,
    /// Where compiled modules are kept [default: the user's cache folder]
    #[arg(long, env = "USHER_CACHE", value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Health {
    /// The admin address of the running usher
    #[arg(long, env = "USHER_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// How long to wait for its answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Top {
    /// The admin address of the running usher
    #[arg(long, env = "USHER_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// How often to look, and over which time rates and latencies are; from 100ms on
    #[arg(long, env = "USHER_TOP_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// How many intervals to show before it ends [default: no end]
    #[arg(long, env = "USHER_TOP_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// What the caller has to set right: ends with the exit code for that.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Why it ends was said already, by the service: what is said last is what people find.
#[derive(Debug)]
pub struct AlreadySaid {
    /// Whether the caller has to set something right.
    pub usage: bool,
}

impl fmt::Display for AlreadySaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the service says why")
    }
}

impl std::error::Error for AlreadySaid {}

/// Makes an error one that the caller has to set right.
pub fn usage(error: &anyhow::Error) -> anyhow::Error {
    UsageError(format!("{error:#}")).into()
}

/// The exit code that an error ends with.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let usage = error.is::<UsageError>() || error.downcast_ref().is_some_and(|AlreadySaid { usage }| *usage);
    if usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// Longest duration that makes sense: beyond a day it is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; such as 10s or 1m 30s"))?;
    if duration.is_zero() || duration > DURATION_MAX {
        return Err("it must be more than 0s and no more than a day".to_owned());
    }
    Ok(duration)
}

/// Shortest interval that makes sense: each look asks all workers.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN {
        return Err("it must be 100ms at least".to_owned());
    }
    Ok(interval)
}

fn memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|_| "it must be a size, such as 512MiB".to_owned())?;
    if size < ByteSize::mib(1) || size > ByteSize::gib(4) {
        return Err("it must be from 1MiB to 4GiB".to_owned());
    }
    Ok(size)
}

impl Serve {
    /// What the templates are to load.
    pub fn loading(&self) -> Loading {
        Loading { real_llvm: self.real_llvm, plugins: !self.no_plugins }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_twin_can_be_set_by_a_kubernetes_service() {
        for command in Cli::command().get_subcommands() {
            for name in command.get_arguments().filter_map(clap::Arg::get_env) {
                let name = name.to_str().unwrap();
                let injected = name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_");
                assert!(name.starts_with("USHER_") && !injected, "{name}");
            }
        }
    }

    #[test]
    fn every_flag_of_serve_has_a_twin_but_env() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let alone = serve.get_arguments().filter(|argument| argument.get_env().is_none());
        let alone: Vec<&str> = alone.map(|argument| argument.get_id().as_str()).collect();
        assert_eq!(alone, ["env"]);
    }

    #[test]
    fn sizes_and_times_have_bounds() {
        assert_eq!(memory("512MiB").unwrap(), ByteSize::mib(512));
        assert_eq!(duration("1m 30s").unwrap(), Duration::from_secs(90));
        for text in ["", "0", "8GiB", "many"] {
            assert!(memory(text).is_err(), "{text}");
        }
        assert_eq!(interval("100ms").unwrap(), Duration::from_millis(100));
        assert!(interval("99ms").is_err());
        for text in ["", "10", "0s", "25h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
