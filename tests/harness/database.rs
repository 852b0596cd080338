//! A private database server: a process with a data folder and a port of its own, on the loopback only.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually;
use crate::flavour::Flavour;
use crate::lines::Lines;

/// Makes the database and the user that a service is given.
const SET_UP: &str = "CREATE DATABASE users; CREATE USER app IDENTIFIED BY 'pw'; GRANT ALL ON users.* TO app;";

/// A database about to be started.
#[derive(Debug, Clone)]
pub struct DatabaseBuilder {
    flavour: Flavour,
    options: Vec<String>,
}

impl DatabaseBuilder {
    /// Gives the server an option, such as `--sql-mode=ANSI`. The last one of a name counts.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Starts the server and waits until it serves.
    pub fn start(self) -> Database {
        let folder = tempfile::tempdir().unwrap();
        self.flavour.make_data(&folder.path().join("data"), &self.options);
        // It cannot be told to take a free port, and somebody may take it first.
        let (address, server) = eventually("the database starts on a port that nobody took meanwhile", || {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            match Server::start(self.flavour, folder.path(), address, &self.options) {
                Ok(server) => Some((address, Some(server))),
                Err(log) if log.contains("Bind on TCP/IP port") => None,
                Err(log) => panic!("the database ended:\n{log}"),
            }
        });
        let database = Database { flavour: self.flavour, server, address, folder, options: self.options };
        database.sql(SET_UP);
        database
    }
}

/// A server with the database `users` and the user `app`, password `pw`, who has rights on
/// `users.*` only.
#[derive(Debug)]
pub struct Database {
    flavour: Flavour,
    /// None while it is stopped. Goes before its folder does.
    server: Option<Server>,
    address: SocketAddr,
    folder: TempDir,
    options: Vec<String>,
}

impl Database {
    /// A MariaDB with options of its own.
    pub fn builder() -> DatabaseBuilder {
        Self::builder_of(Flavour::MariaDb)
    }

    /// A server with options of its own.
    pub fn builder_of(flavour: Flavour) -> DatabaseBuilder {
        DatabaseBuilder { flavour, options: Vec::new() }
    }

    /// A MariaDB with its defaults.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with its defaults.
    pub fn start_of(flavour: Flavour) -> Self {
        Self::builder_of(flavour).start()
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that a service is given.
    pub fn url(&self) -> String {
        self.url_through(self.address)
    }

    /// The URL that leads to it by another address.
    pub fn url_through(&self, address: SocketAddr) -> String {
        format!("mysql://app:pw@{address}/users")
    }

    /// Its process.
    ///
    /// # Panics
    /// If it is stopped.
    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        self.running().log.text()
    }

    /// Runs statements as root and gives the rows: a line each, columns between tabs.
    ///
    /// # Panics
    /// If one fails.
    pub fn sql(&self, statements: &str) -> String {
        let output = self.root().arg("-e").arg(statements).output().unwrap();
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A session as root that stays, to hold locks and transactions.
    pub fn session(&self) -> Session {
        Session::start(self.root())
    }

    /// MariaDB's client as the user `app` on an address: the database's, or one that leads to it.
    pub fn client(address: SocketAddr) -> Command {
        Self::client_of(Flavour::MariaDb, address)
    }

    fn client_of(flavour: Flavour, address: SocketAddr) -> Command {
        let mut command = flavour.client();
        command.args(flavour.plainly());
        command.args(["--protocol=tcp", "--user=app", "--password=pw", "--database=users"]);
        command.arg(format!("--host={}", address.ip())).arg(format!("--port={}", address.port()));
        command
    }

    /// Runs statements as the user `app`.
    pub fn as_app(&self, statements: &str) -> Output {
        Self::client_of(self.flavour, self.address).arg("-e").arg(statements).output().unwrap()
    }

    /// Closes all connections of `app`.
    pub fn close_connections(&self) {
        for id in self.sql("SELECT id FROM information_schema.processlist WHERE user = 'app'").split_whitespace() {
            self.sql(&format!("KILL {id}"));
        }
    }

    /// Whether MySQL lets `app` in without seeing the password: somebody has shown it since the server
    /// was started.
    ///
    /// # Panics
    /// If it does not for another reason.
    pub fn knows_app(&self) -> bool {
        let mut client = self.flavour.client();
        client.args(["--ssl-mode=DISABLED", "--protocol=tcp", "--user=app", "--password=pw", "--execute=DO 0"]);
        client.arg("--host=127.0.0.1").arg(format!("--port={}", self.address.port()));
        let output = client.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("requires secure connection"), "{error}");
        output.status.success()
    }

    /// Whether every change is refused, by MariaDB to all but root.
    pub fn set_read_only(&self, read_only: bool) {
        self.sql(self.flavour.read_only(read_only));
    }

    /// Ends it in order, as an administrator would. Its data and its port stay.
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        eventually("the database ends", || server.child.try_wait().unwrap());
    }

    /// Ends it at once, as a crash would. Its data and its port stay.
    pub fn kill(&mut self) {
        drop(self.server.take().expect("it runs"));
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port.
    ///
    /// # Panics
    /// If it runs, or if somebody has taken its port.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let started = Server::start(self.flavour, self.folder.path(), self.address, &self.options);
        self.server = Some(started.unwrap_or_else(|log| panic!("the database ended:\n{log}")));
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Lets it do nothing more, with its connections open, until [`resume`](Self::resume). The kernel
    /// goes on taking connections for it.
    pub fn pause(&self) {
        self.running().signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        eventually("the database is paused", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
        });
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// The client as root.
    fn root(&self) -> Command {
        let mut command = self.flavour.client();
        // Whatever the server's defaults, what root does is done.
        command.args(["--protocol=socket", "--user=root", "--init-command=SET autocommit=1"]);
        command.arg(format!("--socket={}", socket(self.folder.path())));
        command
    }
}

fn socket(folder: &Path) -> String {
    folder.join("socket").display().to_string()
}

/// A running server.
#[derive(Debug)]
struct Server {
    child: Child,
    log: Lines,
    guard: Child,
}

impl Server {
    /// Starts it and waits until it serves; gives its log if it ends before that.
    fn start(flavour: Flavour, folder: &Path, address: SocketAddr, options: &[String]) -> Result<Self, String> {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = flavour.server(&folder.join("data"));
        command.args([format!("--tmpdir={}", path("")), format!("--pid-file={}", path("pid"))]);
        command.args([format!("--socket={}", socket(folder)), format!("--port={}", address.port())]);
        command.args(options);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::follow(child.stderr.take().unwrap());
        let guard = guard(child.id());
        let mut server = Self { child, log, guard };
        let serves = eventually("the database serves", || {
            let ended = server.child.try_wait().unwrap().is_some();
            let serves = server.log.text().contains("ready for connections");
            (ended || serves).then_some(!ended)
        });
        if serves { Ok(server) } else { Err(server.log.finished()) }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// Ends the server when this process is gone without having done so: unlike the service, the
/// server takes no notice of Ctrl-C. It waits for the end of its input, which only we hold.
fn guard(pid: u32) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' INT TERM; read -r _; kill -9 \"$0\"", &pid.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard first: later the process's number may be another one's.
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- log of the database\n{}", self.log.finished());
        }
    }
}

/// A session on the server that stays until it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Child,
    input: ChildStdin,
    output: Lines,
    errors: Lines,
    /// How many statements have been run.
    done: usize,
}

impl Session {
    fn start(mut client: Command) -> Self {
        client.args(["--unbuffered", "--force"]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = client.stdin.take().unwrap();
        let output = Lines::follow(client.stdout.take().unwrap());
        let errors = Lines::follow(client.stderr.take().unwrap());
        Self { client, input, output, errors, done: 0 }
    }

    /// Runs statements, each ended by a semicolon, and gives the rows once they are all done.
    ///
    /// # Panics
    /// If one fails.
    pub fn run(&mut self, statements: &str) -> String {
        let before = self.output.text().len();
        self.done += 1;
        let mark = format!("-- done {}", self.done);
        writeln!(self.input, "{statements}\nSELECT '{mark}';").unwrap();
        let rows = eventually("the session's statements are done", || {
            let text = self.output.text();
            Some(text[before..].strip_suffix('\n')?.strip_suffix(&mark)?.trim_end().to_owned())
        });
        assert_eq!(self.errors.text(), "", "{statements}");
        rows
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
