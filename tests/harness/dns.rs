//! A name server over TCP that answers as a test tells it to.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Message, MessageBuilder, Name, Rtype, TreeCompressor};
use domain::rdata::{A, Aaaa, Cname};

/// Of records in answers: nobody may rely on it.
const TTL_SECS: u32 = 60;

/// What is answered to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer {
    /// The name has these addresses. Those of the family that is not asked for are left out.
    Addresses(Vec<IpAddr>),
    /// The name is an alias of the first of these, that of the second, and so on; the last one has the
    /// addresses. All in one answer, the last record first.
    Aliases(Vec<String>, Vec<IpAddr>),
    /// A response code without any record, such as 2 for SERVFAIL.
    Code(u8),
    /// An answer with another id.
    OtherId,
    /// An answer to another question.
    OtherQuestion,
    /// An answer that says that it is cut off.
    CutOff,
    /// The first half of an answer, then the end.
    Half,
    /// These bytes, as a message.
    Garbage(Vec<u8>),
    /// Nothing until [`Dns::hang_up`], and then the end of the connection.
    Silence,
    /// The end of the connection.
    Close,
}

/// A name server on a free port of the loopback. It knows no name until it is told one, and answers
/// NXDOMAIN then.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, VecDeque<DnsAnswer>>,
    pause: Duration,
    asked: Vec<(String, String)>,
    connections: Vec<TcpStream>,
    hung_up: usize,
    ended: bool,
}

impl Dns {
    /// Starts it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The text of a resolv.conf that names it, in the form that has a port.
    pub fn resolv_conf(&self) -> String {
        format!("nameserver [{}]:{}\n", self.address.ip(), self.address.port())
    }

    /// Gives a name these answers: each is given once, the last one ever after.
    pub fn answer(&self, name: &str, answers: impl IntoIterator<Item = DnsAnswer>) {
        self.shared.state().answers.insert(name.to_owned(), answers.into_iter().collect());
    }

    /// Gives a name these addresses.
    pub fn addresses(&self, name: &str, addresses: &[&str]) {
        self.answer(name, [DnsAnswer::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())]);
    }

    /// Sends every byte of an answer by itself, with a pause before it.
    pub fn split(&self, pause: Duration) {
        self.shared.state().pause = pause;
    }

    /// Ends every silence there is.
    pub fn hang_up(&self) {
        self.shared.state().hung_up += 1;
        self.shared.changed.notify_all();
    }

    /// The questions so far: names and types of record.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.shared.state().asked.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        self.shared.cut();
        drop(TcpStream::connect(self.address));
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn cut(&self) {
        self.state().connections.iter().for_each(|connection| drop(connection.shutdown(Shutdown::Both)));
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let stream = listener.accept().unwrap().0;
            if self.state().ended {
                break;
            }
            self.state().connections.push(stream.try_clone().unwrap());
            let shared = Arc::clone(&self);
            threads.retain(|thread| !thread.is_finished());
            // A client may give up at any time.
            threads.push(thread::spawn(move || drop(shared.serve(stream))));
        }
        self.cut();
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }

    /// Answers the one question of a connection, then closes it.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let query = Message::from_octets(query).map_err(io::Error::other)?;
        let answer = self.next_answer(&query);
        if answer == DnsAnswer::Silence {
            let state = self.state();
            let before = state.hung_up;
            drop(self.changed.wait_while(state, |state| !state.ended && state.hung_up == before).unwrap());
        }
        self.send(&mut stream, &message(&query, &answer))?;
        stream.shutdown(Shutdown::Both)?;
        let peer = stream.peer_addr();
        self.state().connections.retain(|connection| connection.peer_addr().ok() != peer.as_ref().ok().copied());
        Ok(())
    }

    /// Notes a question and gives the answer that is its turn.
    fn next_answer(&self, query: &Message<Vec<u8>>) -> DnsAnswer {
        let question = query.sole_question().unwrap();
        let name = question.qname().to_string().to_lowercase();
        let mut state = self.state();
        state.asked.push((name.clone(), question.qtype().to_string()));
        let Some(answers) = state.answers.get_mut(&name) else { return DnsAnswer::Code(Rcode::NXDOMAIN.to_int()) };
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.unwrap_or(DnsAnswer::Close)
    }

    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let pause = self.state().pause;
        if pause.is_zero() {
            return stream.write_all(bytes);
        }
        for byte in bytes {
            drop(self.changed.wait_timeout_while(self.state(), pause, |state| !state.ended).unwrap());
            stream.write_all(&[*byte])?;
        }
        Ok(())
    }
}

/// What is sent as an answer, its length first.
fn message(query: &Message<Vec<u8>>, answer: &DnsAnswer) -> Vec<u8> {
    let mut bytes = match answer {
        DnsAnswer::Addresses(addresses) => records(query, &[], addresses),
        DnsAnswer::Aliases(names, addresses) => records(query, names, addresses),
        DnsAnswer::Code(code) => empty(query, Rcode::masked_from_int(*code)),
        DnsAnswer::OtherId | DnsAnswer::CutOff | DnsAnswer::Half => records(query, &[], &[[127, 0, 0, 9].into()]),
        DnsAnswer::OtherQuestion => {
            let other: Name<Vec<u8>> = "other.test".parse().unwrap();
            let mut builder = MessageBuilder::new_vec().question();
            builder.header_mut().set_id(query.header().id());
            builder.push((other, Rtype::A)).unwrap();
            records(&builder.into_message(), &[], &[[127, 0, 0, 9].into()])
        }
        DnsAnswer::Garbage(bytes) => bytes.clone(),
        DnsAnswer::Silence | DnsAnswer::Close => return Vec::new(),
    };
    match answer {
        DnsAnswer::OtherId => bytes[0] ^= 0x55,
        // The flag TC (RFC 1035 §4.1.1).
        DnsAnswer::CutOff => bytes[2] |= 2,
        _ => {}
    }
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    if *answer == DnsAnswer::Half {
        bytes.truncate(bytes.len() / 2);
    }
    [&length[..], &bytes].concat()
}

fn empty(query: &Message<Vec<u8>>, code: Rcode) -> Vec<u8> {
    MessageBuilder::new_vec().start_answer(query, code).unwrap().finish()
}

/// The chain of aliases and the addresses at its end, with names compressed as servers do.
fn records(query: &Message<Vec<u8>>, aliases: &[String], addresses: &[IpAddr]) -> Vec<u8> {
    let question = query.sole_question().unwrap();
    let mut names: Vec<Name<Vec<u8>>> = vec![question.qname().to_string().parse().unwrap()];
    names.extend(aliases.iter().map(|name| name.parse::<Name<Vec<u8>>>().unwrap()));
    let target = TreeCompressor::new(Vec::new());
    let mut builder = MessageBuilder::from_target(target).unwrap().start_answer(query, Rcode::NOERROR).unwrap();
    let last = names.last().unwrap();
    addresses.iter().for_each(|address| push(&mut builder, last, *address, question.qtype()));
    for pair in names.windows(2).rev() {
        builder.push((&pair[0], TTL_SECS, Cname::new(&pair[1]))).unwrap();
    }
    builder.finish().into_target()
}

fn push(builder: &mut AnswerBuilder<TreeCompressor<Vec<u8>>>, owner: &Name<Vec<u8>>, address: IpAddr, asked: Rtype) {
    match address {
        IpAddr::V4(address) if asked == Rtype::A => builder.push((owner, TTL_SECS, A::new(address))).unwrap(),
        IpAddr::V6(address) if asked == Rtype::AAAA => builder.push((owner, TTL_SECS, Aaaa::new(address))).unwrap(),
        _ => {}
    }
}
