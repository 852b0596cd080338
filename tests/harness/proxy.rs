//! A TCP proxy between a service and its database that makes faults. It knows where MySQL's packets
//! begin and end: 3 bytes of length, 1 of sequence, then the payload. The first byte of a client's
//! packet with sequence 0 is a command.
//!
//! Once a connection turns to TLS its bytes are passed as they come, and nothing about packets or
//! commands holds for it. Compressed connections are not understood.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::{Database, eventually};

/// How long connecting to the target may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The commands that tests name.
#[allow(missing_docs, reason = "as the protocol calls them")]
pub mod command {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const PING: u8 = 0x0e;
    pub const CHANGE_USER: u8 = 0x11;
    pub const PREPARE: u8 = 0x16;
    pub const EXECUTE: u8 = 0x17;
    pub const CLOSE_STATEMENT: u8 = 0x19;
    pub const RESET_STATEMENT: u8 = 0x1a;
    pub const RESET_CONNECTION: u8 = 0x1f;
}

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The server gets it.
    Pass,
    /// The connection is cut, and the server gets nothing of it.
    Cut,
    /// The client gets this packet as the answer, and the server gets nothing. See [`error_packet`].
    Answer(Vec<u8>),
}

/// The payload of a server's packet that reports an error, such as 1213, "40001", "Deadlock found".
pub fn error_packet(code: u16, state: &str, message: &str) -> Vec<u8> {
    assert_eq!(state.len(), 5, "an SQLSTATE has five characters");
    [&[0xff][..], &code.to_le_bytes(), b"#", state.as_bytes(), message.as_bytes()].concat()
}

/// The payload of a server's packet that says that all went well: no rows, autocommit on.
pub fn ok_packet() -> Vec<u8> {
    vec![0, 0, 0, 2, 0, 0, 0]
}

type Judge = dyn Fn(&[u8], &str) -> Verdict + Send + Sync;

/// A proxy that passes everything until it is told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    targets: Vec<SocketAddr>,
    delay: Duration,
    stalled: bool,
    refusing: bool,
    listening: bool,
    ended: bool,
    judge: Option<Arc<Judge>>,
    version: Option<String>,
    fault: Option<Fault>,
    commands: Vec<(u8, String)>,
    accepted: usize,
    links: Vec<Arc<Link>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// What becomes of an OK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtOk {
    /// It is passed on, and then the connection is cut.
    CutAfter,
    /// The connection is cut instead.
    CutInstead,
    /// It stays here, see [`Proxy::stall`].
    Stall,
}

/// A fault that is still to be made.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// How many OKs until then, this one included.
    left: usize,
    kind: AtOk,
}

impl Proxy {
    /// A proxy to an address, on a free port of the loopback.
    pub fn to(target: SocketAddr) -> Self {
        Self::on(([127, 0, 0, 1], 0).into(), target)
    }

    /// A proxy to an address, on another one.
    ///
    /// # Panics
    /// If that is taken.
    pub fn on(address: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { targets: vec![target], listening: true, ..State::default() };
        let shared = Arc::new(Shared { state: state.into(), changed: Condvar::new() });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(listener)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// A proxy to a database.
    pub fn to_database(database: &Database) -> Self {
        Self::to(database.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a database through this proxy.
    pub fn url(&self, database: &Database) -> String {
        database.url_through(self.address)
    }

    /// Sends new connections to other addresses, to each in turn.
    pub fn redirect(&self, targets: &[SocketAddr]) {
        assert!(!targets.is_empty(), "connections must go somewhere");
        self.change(|state| state.targets = targets.to_vec());
    }

    /// Delays each packet of the server by so much.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Whether what the server sends stays here, with all connections open. What is held back is
    /// passed on when this ends.
    pub fn stall(&self, stalled: bool) {
        self.change(|state| state.stalled = stalled);
    }

    /// Closes all connections, on both sides.
    pub fn cut(&self) {
        self.shared.state().links.iter().for_each(|link| link.cut());
    }

    /// Whether new connections are refused, as by a machine where nothing listens.
    pub fn refuse(&self, refusing: bool) {
        self.change(|state| state.refusing = refusing);
        if refusing {
            self.wake();
        }
        let state = self.shared.state();
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.listening == refusing);
        assert!(!waited.unwrap().1.timed_out(), "the proxy cannot listen again");
    }

    /// Lets a function decide on every command. It sees the whole payload: the command and what
    /// follows it.
    pub fn on_command(&self, judge: impl Fn(&[u8]) -> Verdict + Send + Sync + 'static) {
        self.change(|state| state.judge = Some(Arc::new(move |payload, _| judge(payload))));
    }

    /// As [`on_command`](Self::on_command), but the function sees the text that [`commands`](Self::commands)
    /// would give.
    pub fn on_statement(&self, judge: impl Fn(&str) -> Verdict + Send + Sync + 'static) {
        self.change(|state| state.judge = Some(Arc::new(move |_, text| judge(text))));
    }

    /// Lets the server say that it is of another version, such as `8.0.30-Vitess`, to new connections.
    pub fn claim_version(&self, version: &str) {
        self.change(|state| state.version = Some(version.to_owned()));
    }

    /// Cuts the connection on which the `count`th OK from now on is sent, once, after the client has
    /// got it. An OK is the answer to a command that gives no rows, other than preparing.
    pub fn cut_after_ok(&self, count: usize) {
        self.at_ok(count, AtOk::CutAfter);
    }

    /// As [`cut_after_ok`](Self::cut_after_ok), but the client does not get that OK: the statement is
    /// done and nobody knows.
    pub fn cut_instead_of_ok(&self, count: usize) {
        self.at_ok(count, AtOk::CutInstead);
    }

    /// Stalls from the `count`th OK from now on, which the client does not get before [`stall`](Self::stall)
    /// ends it.
    pub fn stall_at_ok(&self, count: usize) {
        self.at_ok(count, AtOk::Stall);
    }

    fn at_ok(&self, count: usize, kind: AtOk) {
        self.change(|state| state.fault = Some(Fault { left: count, kind }));
    }

    /// Whether the cut or the stall that was asked for has been made.
    pub fn has_struck(&self) -> bool {
        self.shared.state().fault.is_none()
    }

    /// The commands so far, with their text: the statement, also where the command is about a prepared
    /// one; else what follows the command. Answered and cut ones are among them.
    pub fn commands(&self) -> Vec<(u8, String)> {
        self.shared.state().commands.clone()
    }

    /// Gives the commands so far and forgets them.
    pub fn take_commands(&self) -> Vec<(u8, String)> {
        std::mem::take(&mut self.shared.state().commands)
    }

    /// How many commands of a kind there were.
    pub fn count(&self, command: u8) -> usize {
        self.shared.state().commands.iter().filter(|(kind, _)| *kind == command).count()
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.shared.state().links.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }

    /// Lets the acceptor look at the state.
    fn wake(&self) {
        drop(TcpStream::connect(self.address));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
        self.wake();
        self.cut();
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Takes connections until the proxy ends, and then waits for them to end.
    fn accept(self: Arc<Self>, listener: TcpListener) {
        let address = listener.local_addr().unwrap();
        let mut listener = Some(listener);
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let client = listener.as_ref().map(|listener| listener.accept().unwrap().0);
            let refusing = {
                let state = self.state();
                if state.ended {
                    break;
                }
                state.refusing
            };
            if refusing {
                drop((client, listener.take()));
                let held = hold(address);
                if !self.wait_until_listening() {
                    break;
                }
                listener = Some(listen(held));
                self.set_listening(true);
            } else if let Some(link) = client.and_then(|client| self.link(client)) {
                threads.retain(|thread| !thread.is_finished());
                threads.extend(self.forward(&link));
            }
        }
        drop(listener);
        // One may have come after the others were cut.
        self.state().links.iter().for_each(|link| link.cut());
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }

    fn set_listening(&self, listening: bool) {
        self.state().listening = listening;
        self.changed.notify_all();
    }

    /// Says that nothing is listened to, until it should be; false if the proxy ends.
    fn wait_until_listening(&self) -> bool {
        self.set_listening(false);
        let state = self.changed.wait_while(self.state(), |state| state.refusing && !state.ended);
        !state.unwrap().ended
    }

    /// Joins a client to the next target; without one the client's connection is closed.
    fn link(&self, client: TcpStream) -> Option<Arc<Link>> {
        let target = {
            let mut state = self.state();
            state.accepted += 1;
            state.targets[(state.accepted - 1) % state.targets.len()]
        };
        let server = TcpStream::connect_timeout(&target, PATIENCE).ok()?;
        client.set_nodelay(true).ok()?;
        server.set_nodelay(true).ok()?;
        let link = Arc::new(Link {
            to_client: client.try_clone().ok()?.into(),
            client,
            server,
            raw: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        self.state().links.push(Arc::clone(&link));
        Some(link)
    }

    fn forward(self: &Arc<Self>, link: &Arc<Link>) -> [JoinHandle<()>; 2] {
        let (up, down) = ((Arc::clone(self), Arc::clone(link)), (Arc::clone(self), Arc::clone(link)));
        [
            thread::spawn(move || {
                let ended = up.0.client_to_server(&up.1);
                up.1.ended(ended, &up.1.server);
            }),
            thread::spawn(move || {
                let ended = down.0.server_to_client(&down.1);
                down.1.ended(ended, &down.1.client);
                // The server is done with it, so it is no connection any more.
                down.1.cut();
                down.0.state().links.retain(|link| !Arc::ptr_eq(link, &down.1));
            }),
        ]
    }

    fn client_to_server(&self, link: &Link) -> io::Result<()> {
        let mut from = BufReader::new(&link.client);
        let mut server = &link.server;
        while !link.raw.load(Ordering::SeqCst) {
            let Some(packet) = Packet::read(&mut from)? else { return Ok(()) };
            if packet.asks_for_tls() {
                link.raw.store(true, Ordering::SeqCst);
            }
            if packet.sequence != 0 {
                server.write_all(&packet.bytes())?;
                continue;
            }
            match self.judge(link, &packet.payload) {
                Verdict::Pass => server.write_all(&packet.bytes())?,
                Verdict::Cut => link.cut(),
                Verdict::Answer(payload) => self.send(link, &Packet { sequence: 1, payload }.bytes())?,
            }
        }
        io::copy(&mut from, &mut server).map(drop)
    }

    /// Notes a command and decides on it.
    fn judge(&self, link: &Link, payload: &[u8]) -> Verdict {
        let kind = payload.first().copied().unwrap_or_default();
        let text = link.asked.lock().unwrap().ask(kind, payload.get(1..).unwrap_or_default());
        let judge = {
            let mut state = self.state();
            state.commands.push((kind, text.clone()));
            state.judge.clone()
        };
        // Without the lock: it may take its time.
        judge.map_or(Verdict::Pass, |judge| judge(payload, &text))
    }

    fn server_to_client(&self, link: &Link) -> io::Result<()> {
        let mut from = BufReader::new(&link.server);
        while let Some(mut packet) = Packet::read_unless(&mut from, &link.raw)? {
            let Some(packet) = &mut packet else { return self.pass_on(link, from) };
            if packet.sequence == 0
                && let Some(version) = &self.state().version
            {
                packet.replace_version(version);
            }
            let is_ok = link.asked.lock().unwrap().answer(packet);
            let fault = if is_ok { self.fault_at_this_ok() } else { None };
            let cuts = matches!(fault, Some(AtOk::CutAfter | AtOk::CutInstead));
            if cuts {
                // Whatever the client sends next finds nobody.
                let _ = link.server.shutdown(Shutdown::Both);
            }
            if fault != Some(AtOk::CutInstead) {
                self.send(link, &packet.bytes())?;
            }
            if cuts {
                link.cut();
            }
        }
        Ok(())
    }

    /// Counts an OK; what becomes of it, if it is the one.
    fn fault_at_this_ok(&self) -> Option<AtOk> {
        let mut state = self.state();
        let mut fault = state.fault.take()?;
        fault.left = fault.left.saturating_sub(1);
        if fault.left > 0 {
            state.fault = Some(fault);
            return None;
        }
        state.stalled |= fault.kind == AtOk::Stall;
        Some(fault.kind)
    }

    /// Passes on what is no packets.
    fn pass_on(&self, link: &Link, mut from: impl Read) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.send(link, &buffer[..read])?;
        }
    }

    /// Sends something to the client, when delay and stalling allow it.
    fn send(&self, link: &Link, bytes: &[u8]) -> io::Result<()> {
        let mut client = link.to_client.lock().unwrap();
        let state = self.state();
        let delay = state.delay;
        let waited = self.changed.wait_timeout_while(state, delay, |state| !state.ended).unwrap().0;
        drop(self.changed.wait_while(waited, |state| state.stalled && !state.ended).unwrap());
        client.write_all(bytes)
    }
}

/// Takes a port without listening, so that nobody else gets it.
fn hold(address: SocketAddr) -> OwnedFd {
    let held = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    net::sockopt::set_socket_reuseaddr(&held, true).unwrap();
    eventually("the proxy has its port back", || net::bind(&held, &address).ok());
    held
}

fn listen(held: OwnedFd) -> TcpListener {
    net::listen(&held, 128).unwrap();
    held.into()
}

/// A client's connection and its server's.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// The same client, for one packet at a time.
    to_client: Mutex<TcpStream>,
    /// No packets any more: TLS.
    raw: AtomicBool,
    asked: Mutex<Asked>,
}

impl Link {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Tells the one side that the other has ended, in order or not.
    fn ended(&self, how: io::Result<()>, to: &TcpStream) {
        match how {
            Ok(()) => drop(to.shutdown(Shutdown::Write)),
            Err(_) => self.cut(),
        }
    }
}

/// What was asked on a connection, to know what an answer means.
#[derive(Debug, Default)]
struct Asked {
    /// The command whose answer has not begun.
    pending: Option<u8>,
    preparing: String,
    prepared: HashMap<[u8; 4], String>,
}

impl Asked {
    /// Notes a command and gives its text.
    fn ask(&mut self, kind: u8, rest: &[u8]) -> String {
        self.pending = Some(kind);
        let statement = rest.first_chunk().and_then(|id| self.prepared.get(id)).cloned();
        let text = || String::from_utf8_lossy(rest).into_owned();
        match kind {
            command::EXECUTE | command::CLOSE_STATEMENT | command::RESET_STATEMENT => statement.unwrap_or_else(text),
            command::PREPARE => {
                self.preparing = text();
                text()
            }
            _ => text(),
        }
    }

    /// Looks at a packet of the server; whether it is an OK.
    fn answer(&mut self, packet: &Packet) -> bool {
        let Some(kind) = self.pending.take_if(|_| packet.sequence == 1) else { return false };
        if packet.payload.first() != Some(&0) {
            return false;
        }
        if kind == command::PREPARE {
            if let Some(id) = packet.payload[1..].first_chunk() {
                self.prepared.insert(*id, std::mem::take(&mut self.preparing));
            }
            return false;
        }
        true
    }
}

/// A packet of the protocol.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    sequence: u8,
    payload: Vec<u8>,
}

impl Packet {
    /// Reads one; none at the end.
    fn read(from: &mut BufReader<impl Read>) -> io::Result<Option<Self>> {
        Ok(Self::read_unless(from, &AtomicBool::new(false))?.flatten())
    }

    /// Reads one, unless there are no packets any more by the time that it comes, which gives
    /// `Some(None)`.
    fn read_unless(from: &mut BufReader<impl Read>, raw: &AtomicBool) -> io::Result<Option<Option<Self>>> {
        use std::io::BufRead;
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        if raw.load(Ordering::SeqCst) {
            return Ok(Some(None));
        }
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let [a, b, c, sequence] = head;
        let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
        from.read_exact(&mut payload)?;
        Ok(Some(Some(Self { sequence, payload })))
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_le_bytes();
        [&length[..3], &[self.sequence], &self.payload].concat()
    }

    /// Whether it is the client's wish to go on in TLS: its capabilities and nothing after them.
    fn asks_for_tls(&self) -> bool {
        const CLIENT_SSL: u8 = 0x08;
        self.sequence == 1 && self.payload.len() == 32 && self.payload[1] & CLIENT_SSL != 0
    }

    /// Makes a greeting name another version.
    fn replace_version(&mut self, version: &str) {
        let Some((&10, rest)) = self.payload.split_first() else { return };
        let Some(end) = rest.iter().position(|byte| *byte == 0) else { return };
        self.payload = [&[10], version.as_bytes(), &rest[end..]].concat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<Packet>> {
        Packet::read(&mut BufReader::new(bytes))
    }

    #[test]
    fn packets_are_read_and_written_alike() {
        let bytes = b"\x05\x00\x00\x02hello";
        let packet = read(bytes).unwrap().unwrap();
        assert_eq!(packet, Packet { sequence: 2, payload: b"hello".to_vec() });
        assert_eq!(packet.bytes(), bytes);
        assert_eq!(read(b"").unwrap(), None);
        assert!(read(&bytes[..7]).is_err());
    }

    #[test]
    fn a_greeting_gets_another_version() {
        let mut packet = Packet { sequence: 0, payload: b"\x0a10.11.18\0rest\0".to_vec() };
        packet.replace_version("8.0.30-Vitess");
        assert_eq!(packet.payload, b"\x0a8.0.30-Vitess\0rest\0");
        let mut refusal = Packet { sequence: 0, payload: error_packet(1040, "08004", "Too many connections") };
        let before = refusal.payload.clone();
        refusal.replace_version("8");
        assert_eq!(refusal.payload, before);
    }

    #[test]
    fn an_ok_answers_a_command_and_is_neither_a_row_nor_a_prepared_statement() {
        let mut asked = Asked::default();
        let packet = |sequence, payload: &[u8]| Packet { sequence, payload: payload.to_vec() };
        assert!(!asked.answer(&packet(2, &ok_packet())), "of the log-in");
        asked.ask(command::PREPARE, b"DO 1");
        assert!(!asked.answer(&packet(1, &[0, 7, 0, 0, 0, 1])));
        assert_eq!(asked.ask(command::EXECUTE, &[7, 0, 0, 0, 1, 2]), "DO 1");
        assert!(!asked.answer(&packet(1, &[2])), "rows of two columns");
        assert!(!asked.answer(&packet(5, &[0, 0, 1])), "a row");
        assert_eq!(asked.ask(command::QUERY, b"COMMIT"), "COMMIT");
        assert!(asked.answer(&packet(1, &ok_packet())));
        asked.ask(command::QUERY, b"x");
        assert!(!asked.answer(&packet(1, &error_packet(1064, "42000", "no"))));
    }
}
