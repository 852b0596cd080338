//! Environment and arguments to a typed configuration: the only place that reads either.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;

use crate::inference::ModelsConfig;
use crate::resolver;
use crate::store::StoreConfig;
use crate::store::mysql::{self, Authorities, CertificateChain, DatabaseUrl, Key, MysqlConfig, TlsConfig};

/// One setting: its variable, what it is where the variable is not set, what it is for, and
/// whether a value will do.
struct Setting {
    name: &'static str,
    default: &'static str,
    help: &'static str,
    check: fn(&str) -> Result<(), String>,
}

macro_rules! settings {
    ($($name:literal $default:literal $parse:ident $help:literal;)*) => {
        /// Every setting there is.
        const SETTINGS: &[Setting] =
            &[$(Setting { name: $name, default: $default, help: $help, check: |text| $parse(text).map(drop) }),*];

        /// The names of all settings, one a line.
        pub const SETTING_NAMES: &str = concat!($($name, "\n"),*);
    };
}

// No name may look like the variables that Kubernetes adds for services (`…_PORT`,
// `…_SERVICE_HOST`): a test holds that.
settings! {
    "LISTEN_ADDR" "127.0.0.1:8080" listen_address "address and port to serve on; port 0 takes a free one";
    "LISTEN_STDIN" "0" switch "1: serve on the listening socket that is standard input, whatever LISTEN_ADDR says";
    "ADMIN_ADDR" "" admin_address "address and port to serve the control routes on; port 0 takes a free one; empty: none";
    "ADMIN_STDOUT" "0" switch "1: serve the control routes on the listening socket that is standard output";
    "DATABASE_URL" "" database_url "keep users in MySQL: mysql://USER:PASSWORD@HOST:PORT/DATABASE, percent-encoded";
    "DATABASE_URL_FILE" "" database_url_file "a file that has the DATABASE_URL, such as a mounted secret";
    "DATABASE_CA_FILE" "" database_ca_file "the only certificate authorities trusted to sign the database's certificate (PEM)";
    "DATABASE_CLIENT_CERT_FILE" "" database_client_cert_file "our certificate for the database (PEM)";
    "DATABASE_CLIENT_KEY_FILE" "" database_client_key_file "the key of that certificate (PEM)";
    "DATABASE_TIMEOUT" "5s" timeout "time for an operation on the database, connecting and waiting for others included";
    "DATABASE_CONNECTIONS" "8" database_connections "connections to the database at most";
    "DNS_SERVER" "" dns_server "IP:PORT of the name server to ask for the database, over TCP; PORT may be left out";
    "DATA_DIR" "./data" folder "folder of the embedded store, where no database is set";
    "MODELS_DIR" "./models" folder "folder of the models, NAME/VERSION/model.tflite";
    "REQUIRE_MODELS" "0" switch "1: ready only when each model has a version that is loaded";
    "LOG_LEVEL" "info" log_level "off, error, warn, info, debug or trace";
    "LOG_FORMAT" "text" log_format "text or json";
    "WORKER" "" worker "number of this process among several, for its log lines";
    "MAX_CONNECTIONS" "auto" connections "connections at once; auto: what the descriptor limit leaves room for, up to 4096";
    "FREE_DESCRIPTORS" "" free_descriptors "descriptors that are free for connections and the store, where the host knows; empty: found by taking them";
    "HEAD_TIMEOUT" "10s" timeout "time to send a request's head";
    "BODY_TIMEOUT" "30s" timeout "time to send a request's body";
    "HANDLE_TIMEOUT" "30s" timeout "time to handle a request";
    "WRITE_TIMEOUT" "30s" timeout "time to take an answer";
    "IDLE_TIMEOUT" "60s" timeout "time a connection may be silent before a request";
    "DRAIN_TIMEOUT" "10s" timeout "time to finish what is in flight when the service stops";
}

/// Most connections at once, whatever the descriptor limit: each may hold a body and two buffers,
/// so that this bounds memory.
pub const CONNECTIONS_MAX: usize = 4096;

/// Most connections to a database: one thread has no use for more.
const DATABASE_CONNECTIONS_MAX: usize = 64;

/// Shortest timeout: zero would refuse everything.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Longest timeout: beyond a day it is a mistake.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve, as configured by the environment.
    Serve,
    /// Print the settings and end.
    Help,
    /// Print the version and end.
    Version,
}

impl Command {
    /// Reads the arguments of the process.
    ///
    /// # Errors
    /// The first argument that is not known.
    pub fn from_args() -> Result<Self, String> {
        Self::parse(std::env::args_os().skip(1))
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let command = match arguments.next().as_ref().map(|argument| argument.to_string_lossy()) {
            None => return Ok(Self::Serve),
            Some(Cow::Borrowed("--help" | "-h")) => Self::Help,
            Some(Cow::Borrowed("--version" | "-V")) => Self::Version,
            Some(other) => {
                return Err(format!("unknown argument {other}: settings are environment variables, see --help"));
            }
        };
        Ok(command)
    }
}

/// Where connections come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// An address to bind.
    Address(SocketAddr),
    /// The listening socket that is a standard stream.
    Stream(Stream),
}

/// A standard stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The bounds on what a connection may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// From the head to the end of the body.
    pub body: Duration,
    /// From the whole request to its answer.
    pub handle: Duration,
    /// From the answer to its last byte being taken.
    pub write: Duration,
    /// Silence before a request.
    pub idle: Duration,
    /// From the order to stop to the end.
    pub drain: Duration,
}

/// The service's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve.
    pub listen: Listen,
    /// Where to serve the control routes, if anywhere.
    pub control: Option<Listen>,
    /// Where users are kept.
    pub store: StoreConfig,
    /// Where models are.
    pub models: ModelsConfig,
    /// What is logged.
    pub log_level: LevelFilter,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Our number among several processes, where there are several.
    pub worker: Option<u16>,
    /// Connections at once; `None`: derived from the descriptor limit.
    pub connections: Option<usize>,
    /// Free descriptors, where the host said how many.
    pub descriptors: Option<usize>,
    /// What each connection may take.
    pub limits: Limits,
}

/// Every setting with a wrong value, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// All wrong values at once.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        Self::read(|name| std::env::var_os(name))
    }

    /// What it is with nothing configured.
    #[cfg(test)]
    pub fn unconfigured() -> Self {
        Self::read(|_| None).unwrap()
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigErrors> {
        let mut values = BTreeMap::new();
        let mut errors = Vec::new();
        for setting in SETTINGS {
            let value = match variable(setting.name).map(OsString::into_string) {
                None => Ok(setting.default.to_owned()),
                Some(Ok(text)) => (setting.check)(&text).map(|()| text),
                Some(Err(_)) => Err("is not UTF-8".to_owned()),
            };
            match value {
                Ok(text) => drop(values.insert(setting.name, text)),
                Err(error) => errors.push(format!("{} {error}", setting.name)),
            }
        }
        if errors.is_empty() {
            // Every value passed its check, so that this fails only for a row missing in the table.
            Self::build(&|name| values.get(name).map_or("", String::as_str)).map_err(|error| ConfigErrors(vec![error]))
        } else {
            Err(ConfigErrors(errors))
        }
    }

    fn build<'a>(value: &dyn Fn(&str) -> &'a str) -> Result<Self, String> {
        let listen = match switch(value("LISTEN_STDIN"))? {
            true => Listen::Stream(Stream::Input),
            false => Listen::Address(listen_address(value("LISTEN_ADDR"))?),
        };
        Ok(Self {
            listen,
            control: control(value)?,
            store: store(value)?,
            models: ModelsConfig { folder: folder(value("MODELS_DIR"))?, required: switch(value("REQUIRE_MODELS"))? },
            log_level: log_level(value("LOG_LEVEL"))?,
            log_format: log_format(value("LOG_FORMAT"))?,
            worker: worker(value("WORKER"))?,
            connections: connections(value("MAX_CONNECTIONS"))?,
            descriptors: free_descriptors(value("FREE_DESCRIPTORS"))?,
            limits: Limits {
                head: timeout(value("HEAD_TIMEOUT"))?,
                body: timeout(value("BODY_TIMEOUT"))?,
                handle: timeout(value("HANDLE_TIMEOUT"))?,
                write: timeout(value("WRITE_TIMEOUT"))?,
                idle: timeout(value("IDLE_TIMEOUT"))?,
                drain: timeout(value("DRAIN_TIMEOUT"))?,
            },
        })
    }
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text = format!(
        "{}\n\nA users service. Everything is set by environment variables (wasmedge --env NAME=VALUE):\n\n",
        version()
    );
    for Setting { name, default, help, .. } in SETTINGS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<16} {help} [{default}]");
    }
    text + "\nArguments: --help, --version\n"
}

/// The text of `--version`.
pub fn version() -> String {
    format!("usher service {}", env!("CARGO_PKG_VERSION"))
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("is {text:?}; it must be an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:0")
    })
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() { Ok(None) } else { listen_address(text).map(Some) }
}

fn control<'a>(value: &dyn Fn(&str) -> &'a str) -> Result<Option<Listen>, String> {
    match (admin_address(value("ADMIN_ADDR"))?, switch(value("ADMIN_STDOUT"))?) {
        (Some(_), true) => Err("ADMIN_ADDR and ADMIN_STDOUT are both set; set one".to_owned()),
        (Some(address), false) => Ok(Some(Listen::Address(address))),
        (None, true) => Ok(Some(Listen::Stream(Stream::Output))),
        (None, false) => Ok(None),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(format!("is {text:?}; it must be 1 or 0")),
    }
}

fn store<'a>(value: &dyn Fn(&str) -> &'a str) -> Result<StoreConfig, String> {
    let url = match (database_url(value("DATABASE_URL"))?, database_url_file(value("DATABASE_URL_FILE"))?) {
        (Some(_), Some(_)) => return Err("DATABASE_URL and DATABASE_URL_FILE are both set; set one".to_owned()),
        (Some(url), None) | (None, Some(url)) => url,
        (None, None) => return Ok(StoreConfig::Embedded(folder(value("DATA_DIR"))?)),
    };
    Ok(StoreConfig::Mysql(MysqlConfig {
        tls: database_tls(&url, value)?,
        url,
        dns_server: dns_server(value("DNS_SERVER"))?,
        connections: database_connections(value("DATABASE_CONNECTIONS"))?,
        deadline: timeout(value("DATABASE_TIMEOUT"))?,
    }))
}

/// A file about certificates is given by those who want them checked.
fn database_tls<'a>(url: &DatabaseUrl, value: &dyn Fn(&str) -> &'a str) -> Result<Option<TlsConfig>, String> {
    let authorities = database_ca_file(value("DATABASE_CA_FILE"))?;
    let chain = database_client_cert_file(value("DATABASE_CLIENT_CERT_FILE"))?;
    let key = database_client_key_file(value("DATABASE_CLIENT_KEY_FILE"))?;
    let files = authorities.is_some() || chain.is_some() || key.is_some();
    match (url.require_ssl, files) {
        (Some(false), true) => {
            return Err(
                "DATABASE_URL has require_ssl=false, but files for TLS are set; drop one or the other".to_owned()
            );
        }
        (None | Some(false), false) => return Ok(None),
        _ => {}
    }
    let identity = match (chain, key) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => None,
        _ => return Err("DATABASE_CLIENT_CERT_FILE and DATABASE_CLIENT_KEY_FILE need each other; set both".to_owned()),
    };
    TlsConfig::new(&url.host, authorities, identity).map(Some)
}

fn database_ca_file(path: &str) -> Result<Option<Authorities>, String> {
    file(path)?.as_deref().map(mysql::read_authorities).transpose()
}

fn database_client_cert_file(path: &str) -> Result<Option<CertificateChain>, String> {
    file(path)?.as_deref().map(mysql::read_chain).transpose()
}

fn database_client_key_file(path: &str) -> Result<Option<Key>, String> {
    file(path)?.as_deref().map(mysql::read_key).transpose()
}

/// What a file has in it, unless none is named.
fn file(path: &str) -> Result<Option<Vec<u8>>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let hint = "is its folder granted (wasmedge --dir)?";
    let bytes =
        std::fs::read(path).map_err(|error| format!("names a file that cannot be read: {path}: {error}; {hint}"))?;
    Ok(Some(bytes))
}

fn database_url(text: &str) -> Result<Option<DatabaseUrl>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    DatabaseUrl::parse(text).map(Some).map_err(|error| format!("is no URL of a database: {error}"))
}

fn database_url_file(path: &str) -> Result<Option<DatabaseUrl>, String> {
    let Some(bytes) = file(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| "names a file that is not UTF-8".to_owned())?;
    let url = DatabaseUrl::parse(&text).map_err(|error| format!("names a file without a database's URL: {error}"))?;
    Ok(Some(url))
}

fn dns_server(text: &str) -> Result<Option<SocketAddr>, String> {
    const SHAPE: &str =
        "it must be an IP address, with a port where that is not 53, such as 10.96.0.10 or 127.0.0.1:5353";
    match resolver::server_address(text) {
        None if text.is_empty() => Ok(None),
        None => Err(format!("is {text:?}; {SHAPE}")),
        Some(address) if resolver::is_reachable(address.ip()) => Ok(Some(address)),
        Some(_) => Err(format!("is {text:?}; WasmEdge's sockets reach IPv4 only, so {SHAPE}")),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty; it must be a folder".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    Ok(match text {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => {
            return Err(format!("is {text:?}; it must be off, error, warn, info, debug or trace"));
        }
    })
}

fn free_descriptors(text: &str) -> Result<Option<usize>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("is {text:?}; it must be a whole number"))
}

fn worker(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("is {text:?}; it must be a whole number up to {}", u16::MAX))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("is {text:?}; it must be text or json")),
    }
}

fn database_connections(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=DATABASE_CONNECTIONS_MAX).contains(count));
    count.ok_or_else(|| format!("is {text:?}; it must be an integer from 1 to {DATABASE_CONNECTIONS_MAX}"))
}

fn connections(text: &str) -> Result<Option<usize>, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(None),
        (_, Ok(count @ 1..=CONNECTIONS_MAX)) => Ok(Some(count)),
        _ => Err(format!("is {text:?}; it must be auto or an integer from 1 to {CONNECTIONS_MAX}")),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<SignedDuration>().ok().and_then(|duration| duration.try_into().ok());
    duration
        .filter(|duration| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(duration))
        .ok_or_else(|| format!("is {text:?}; it must be a time from 1ms to 24h, such as 500ms, 10s or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::read(|name| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen, Listen::Address("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(config.limits.idle, Duration::from_secs(60));
        assert_eq!(config.connections, None);
        assert_eq!(config.models.folder, std::path::Path::new(crate::inference::USUAL_FOLDER));
    }

    #[test]
    fn every_setting_is_in_use() {
        for setting in SETTINGS {
            let error = read(&[(setting.name, "\0")]).err().map(|error| error.to_string());
            let free_text = ["DATA_DIR", "MODELS_DIR"].contains(&setting.name);
            assert!(free_text || error.is_some_and(|error| error.contains(setting.name)), "{}", setting.name);
        }
    }

    #[test]
    fn all_wrong_values_are_named_at_once() {
        let error = read(&[("LISTEN_ADDR", "localhost"), ("IDLE_TIMEOUT", "-1s"), ("LOG_LEVEL", "loud")]).unwrap_err();
        let text = error.to_string();
        for name in ["LISTEN_ADDR is \"localhost\"", "IDLE_TIMEOUT", "LOG_LEVEL"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(timeout("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(timeout("500ms").unwrap(), Duration::from_millis(500));
        for text in ["", "10", "0s", "25h", "1 fortnight", "-5s"] {
            assert!(timeout(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn control_routes_are_served_where_they_are_asked_for_and_in_one_place() {
        assert_eq!(read(&[]).unwrap().control, None);
        let address = "127.0.0.1:0".parse().unwrap();
        assert_eq!(read(&[("ADMIN_ADDR", "127.0.0.1:0")]).unwrap().control, Some(Listen::Address(address)));
        assert_eq!(read(&[("ADMIN_STDOUT", "1")]).unwrap().control, Some(Listen::Stream(Stream::Output)));
        let error = read(&[("ADMIN_ADDR", "127.0.0.1:0"), ("ADMIN_STDOUT", "1")]).unwrap_err().to_string();
        assert!(error.contains("ADMIN_ADDR") && error.contains("ADMIN_STDOUT"), "{error}");
    }

    #[test]
    fn the_names_of_the_settings_are_lines() {
        let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(SETTING_NAMES.lines().collect::<Vec<_>>(), names);
        assert!(SETTING_NAMES.ends_with('\n'));
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_likely_reason() {
        let error = database_ca_file("/no/such/ca.pem").err().unwrap();
        assert!(error.contains("cannot be read") && error.contains("--dir"), "{error}");
    }

    #[test]
    fn a_name_server_is_an_address() {
        assert_eq!(dns_server("").unwrap(), None);
        assert_eq!(dns_server("10.96.0.10").unwrap(), Some("10.96.0.10:53".parse().unwrap()));
        assert!(dns_server("dns.example.org").unwrap_err().contains("IP address"));
    }

    #[test]
    fn no_setting_can_be_set_by_a_kubernetes_service() {
        for Setting { name, .. } in SETTINGS {
            let injected = name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_");
            assert!(!injected, "{name}");
        }
    }

    #[test]
    fn arguments_are_few() {
        let parse = |text: &str| Command::parse(text.split_whitespace().map(OsString::from));
        assert_eq!(parse(""), Ok(Command::Serve));
        assert_eq!(parse("--help"), Ok(Command::Help));
        assert_eq!(parse("-V"), Ok(Command::Version));
        assert!(parse("--port 80").unwrap_err().contains("--port"));
    }

    #[test]
    fn help_names_every_setting_with_its_default() {
        let help = help();
        assert!(SETTINGS.iter().all(|s| help.contains(s.name) && help.contains(&format!("[{}]", s.default))));
    }
}
