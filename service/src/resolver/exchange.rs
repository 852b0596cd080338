//! One question to one name server over one connection (RFC 1035, RFC 7766).

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};

use domain::base::iana::{Opcode, Rcode};
use domain::base::message::RecordIter;
use domain::base::name::{FlattenInto, ParsedName};
use domain::base::rdata::ParseRecordData;
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name, Rtype, StreamTarget};
use domain::rdata::{A, Aaaa};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ADDRESSES_MAX, ResolveError, is_reachable};

/// A full name.
pub type FullName = Name<Vec<u8>>;

/// A name in an answer.
type Owner<'r> = ParsedName<&'r [u8]>;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

impl Family {
    fn record_type(self) -> Rtype {
        match self {
            Self::Ipv4 => Rtype::A,
            Self::Ipv6 => Rtype::AAAA,
        }
    }
}

/// What a name server says about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// These, at least one.
    Addresses(Vec<IpAddr>),
    /// Another name has them.
    Alias(FullName),
    /// It has none of that family.
    NoAddress,
    /// It does not exist.
    NoSuchName,
}

/// Asks a name server. Takes as long as the server does.
///
/// # Errors
/// What is wrong with the server or its answer.
pub async fn ask(server: SocketAddr, name: &FullName, family: Family) -> Result<Answer, ResolveError> {
    if !is_reachable(server.ip()) {
        return Err(ResolveError::ServerOnIpv6 { server });
    }
    let query = query(name, family).ok_or_else(|| ResolveError::BadName(name.to_string()))?;
    let reply = exchange(server, query.as_stream_slice()).await;
    let reply = reply.map_err(|cause| ResolveError::Unreachable { server, cause })?;
    let reply = Message::from_octets(reply);
    let reply = reply.map_err(|_| ResolveError::BadAnswer { server, what: "it is too short" })?;
    let query = Message::from_slice(query.as_dgram_slice());
    let query = query.map_err(|_| ResolveError::BadName(name.to_string()))?;
    let bad = |what| ResolveError::BadAnswer { server, what };
    let (asked, header) = (query.header(), reply.header());
    if !header.qr() || header.id() != asked.id() || header.opcode() != Opcode::QUERY {
        return Err(bad("it is to another question"));
    }
    match header.rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => read(query, &reply, family).map_err(bad),
        // Not all servers repeat the question here.
        code => Err(ResolveError::Failed { server, code: code.to_string(), name: name.to_string() }),
    }
}

/// A question, with its length before it. The id tells answers apart by chance only; what keeps a
/// stranger from answering is TCP.
fn query(name: &FullName, family: Family) -> Option<StreamTarget<Vec<u8>>> {
    let [high, low, ..] = RandomState::new().hash_one(0).to_le_bytes();
    let mut query = MessageBuilder::new_stream_vec();
    query.header_mut().set_id(u16::from_be_bytes([high, low]));
    query.header_mut().set_rd(true);
    let mut query = query.question();
    query.push((name, family.record_type())).ok()?;
    Some(query.finish())
}

/// Sends a message and reads the answer to its end, in however many pieces it comes.
async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    // At once: a length that comes by itself looks like a whole message to some servers.
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// What an answer without a failure says, if it is one to this question.
fn read(query: &Message<[u8]>, reply: &Message<Vec<u8>>, family: Family) -> Result<Answer, &'static str> {
    if !reply.is_answer(query) {
        return Err("it is to another question");
    }
    if reply.header().tc() {
        return Err("it is cut off");
    }
    if reply.header().rcode() == Rcode::NXDOMAIN {
        return Ok(Answer::NoSuchName);
    }
    let asked = reply.sole_question().map_err(|_| "it has no question")?;
    let owner = reply.canonical_name().ok_or("its aliases lead nowhere")?;
    let addresses = addresses(reply, &owner, family).map_err(|_| "it is malformed")?;
    Ok(match (addresses.is_empty(), owner == *asked.qname()) {
        (false, _) => Answer::Addresses(addresses),
        (true, true) => Answer::NoAddress,
        (true, false) => Answer::Alias(owner.flatten_into()),
    })
}

fn addresses(reply: &Message<Vec<u8>>, owner: &Owner<'_>, family: Family) -> Result<Vec<IpAddr>, ParseError> {
    let section = reply.answer()?;
    match family {
        Family::Ipv4 => owned(section.limit_to_in::<A>(), owner, |record| record.addr().into()),
        Family::Ipv6 => owned(section.limit_to_in::<Aaaa>(), owner, |record| record.addr().into()),
    }
}

/// What the records of a name hold.
fn owned<'r, D: ParseRecordData<'r, Vec<u8>>>(
    records: RecordIter<'r, Vec<u8>, D>,
    owner: &Owner<'_>,
    address: impl Fn(&D) -> IpAddr,
) -> Result<Vec<IpAddr>, ParseError> {
    let records = records.filter(|record| record.as_ref().map_or(true, |record| record.owner() == owner));
    records.take(ADDRESSES_MAX).map(|record| Ok(address(record?.data()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic would end the guest.
    #[test]
    fn no_answer_is_broken_enough_to_cause_a_panic() {
        let name: FullName = "db.test".parse().unwrap();
        let question = query(&name, Family::Ipv4).unwrap();
        let question = Message::from_slice(question.as_dgram_slice()).unwrap();
        let mut reply = MessageBuilder::new_vec().start_answer(question, Rcode::NOERROR).unwrap();
        reply.push((&name, 60, domain::rdata::Cname::new(&name))).unwrap();
        reply.push((&name, 60, A::from_octets(10, 0, 0, 1))).unwrap();
        let good = reply.finish();
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = good.clone();
                bytes[at] = byte;
                for length in [bytes.len(), at + 1] {
                    let Ok(reply) = Message::from_octets(bytes[..length].to_vec()) else { continue };
                    let _ = read(question, &reply, Family::Ipv4);
                }
            }
        }
    }
}
