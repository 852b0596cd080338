//! `service.wasm`: configuration, store, models, listener, serve.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use service::App;
use service::config::{self, Command, Config, Listen, Stream};
use service::inference::Inference;
use service::server::{self, Bounds, ListenError, Listener, runtime};
use service::store::Store;
use service::telemetry::{log, metrics::Metrics};

/// Exit code where the service cannot start.
const FAILURE: u8 = 1;
/// Exit code for arguments and settings that are wrong.
const USAGE: u8 = 2;

/// The names of the settings as a section of the module, so that a host knows from the module alone
/// which variables are meant for it.
#[cfg(target_os = "wasi")]
#[used]
// SAFETY: a section of plain bytes, whose name nothing else has.
#[unsafe(link_section = "usher.settings")]
static SETTING_NAMES: [u8; config::SETTING_NAMES.len()] = match config::SETTING_NAMES.as_bytes().first_chunk() {
    Some(names) => *names,
    // It has exactly as many.
    None => [0; config::SETTING_NAMES.len()],
};

fn main() -> ExitCode {
    match Command::from_args() {
        Ok(Command::Help) => say(config::help()),
        Ok(Command::Version) => say(config::version()),
        Ok(Command::Serve) => return serve(),
        Err(error) => return fail(USAGE, error),
    }
    ExitCode::SUCCESS
}

fn serve() -> ExitCode {
    match Config::from_env() {
        Err(error) => fail(USAGE, error),
        Ok(config) => {
            log::init(&config);
            match runtime::block_on(run(config)) {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => fail(FAILURE, error),
                Err(error) => fail(FAILURE, error),
            }
        }
    }
}

async fn run(config: Config) -> Result<(), String> {
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let store = Store::open(&config.store, &metrics).await.map_err(|error| error.to_string())?;
    let inference = Inference::open(&config.models, &metrics);
    let (public, control) = listen(&config).map_err(|error| error.to_string())?;
    // Whoever reads that we listen may tell us to stop.
    let stop = server::stop_signal();
    announce(&config, &public, control.as_ref());
    let app = App::new(store, inference, metrics, &config, public.capacity());
    server::serve(public, control, Arc::new(app), stop).await;
    Ok(())
}

fn listen(config: &Config) -> Result<(Listener, Option<Listener>), ListenError> {
    let control = config.control.map(Listener::open_control).transpose()?;
    let others = config.store.descriptors() + control.as_ref().map_or(0, Listener::capacity);
    let bounds = Bounds { connections: config.connections, descriptors: config.descriptors };
    Ok((Listener::open(config.listen, bounds, others)?, control))
}

/// Says where the service listens, unless standard output is one of the places.
fn announce(config: &Config, public: &Listener, control: Option<&Listener>) {
    if config.control == Some(Listen::Stream(Stream::Output)) {
        return;
    }
    say(format_args!("listening on http://{} (store: {})", public.address(), config.store));
    if let Some(control) = control {
        say(format_args!("control on http://{}", control.address()));
    }
}

/// Prints a line, unless nobody reads it: `println!` would panic then.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn fail(code: u8, error: impl Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}
