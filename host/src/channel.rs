//! A connection between two processes of ours: one JSON value a packet, with descriptors beside it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest packet in bytes: a guest's whole environment has to fit, and the kernel's own limit is not far
/// beyond.
pub const PACKET_MAX: usize = 128 << 10;

/// Most descriptors beside a packet.
const DESCRIPTORS_MAX: usize = 4;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two ends of one connection, neither of them inherited by programs that are started.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, the descriptors with it.
    ///
    /// # Errors
    /// If the message is larger than [`PACKET_MAX`], or the other end is gone (broken pipe).
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        if packet.len() > PACKET_MAX {
            let text = format!("{} bytes, and {PACKET_MAX} are the most", packet.len());
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [IoSlice::new(&packet)];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for a message and the descriptors that come with it; `None` when the other end is gone.
    ///
    /// # Errors
    /// If what came is no such message, or (a non-blocking end) nothing came yet.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut packet = vec![0; PACKET_MAX];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut parts = [IoSliceMut::new(&mut packet)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other?,
            }
        };
        let length = received.bytes;
        let descriptors = owned(received.cmsgs()?);
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(packet.get(..length).unwrap_or_default())?;
        Ok(Some((message, descriptors)))
    }
}

fn owned(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let raw = messages.flat_map(|message| match message {
        ControlMessageOwned::ScmRights(raw) => raw,
        _ => Vec::new(),
    });
    // SAFETY: the kernel just made these descriptors for us, and nobody else knows them.
    raw.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()
}

impl From<OwnedFd> for Channel {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (here, there) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        here.send(&("first", 1), &[file.as_fd()]).unwrap();
        here.send(&("second", 2), &[]).unwrap();

        let (message, descriptors) = there.receive::<(String, u8)>().unwrap().unwrap();
        assert_eq!(message, ("first".into(), 1));
        assert_eq!(descriptors.len(), 1);
        File::from(descriptors.into_iter().next().unwrap()).write_all(b"shared").unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");

        let (message, descriptors) = there.receive::<(String, u8)>().unwrap().unwrap();
        assert_eq!((message.1, descriptors.len()), (2, 0));
    }

    #[test]
    fn the_end_of_the_other_side_is_no_error_to_a_reader_and_one_to_a_writer() {
        let (here, there) = Channel::pair().unwrap();
        drop(here);
        assert!(there.receive::<String>().unwrap().is_none());
        assert_eq!(there.send(&1, &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_sent() {
        let (here, _there) = Channel::pair().unwrap();
        here.send(&"x".repeat(PACKET_MAX - 2), &[]).unwrap();
        assert_eq!(here.send(&"x".repeat(PACKET_MAX), &[]).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
