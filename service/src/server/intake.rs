//! What comes in on a connection, cut where a request ends.

use std::mem;

use bytes::{Buf, BytesMut};
use memchr::memchr_iter;
use tokio::io::ReadBuf;

/// Hands on what comes in, no more than one request at a time, so that it is known whether more has
/// come: once hyper has it, nobody can tell.
///
/// Where hyper sees the end of a request elsewhere, nothing is lost: whatever it still reads is
/// handed on, in the order in which it came.
#[derive(Debug, Default)]
pub struct Intake {
    part: Part,
    /// What came with the end of a part: at most what one read brings.
    held: BytesMut,
}

/// What is being handed on.
#[derive(Debug)]
enum Part {
    /// The head, up to the empty line that ends it.
    Head(Head),
    /// The body, and how many of its bytes are to come.
    Body(u64),
    /// A body whose end only hyper knows. It ends the connection, so all that comes may follow.
    Rest,
}

impl Intake {
    /// The head was read, and a body of that length follows; `None`: of a length that only its end
    /// tells.
    pub fn begin_body(&mut self, length: Option<u64>) {
        self.part = length.map_or(Part::Rest, Part::Body);
    }

    /// Hands on what is held of the current part. Gives whether there was any.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let fitting = self.held.get(..buf.remaining()).unwrap_or(&self.held);
        let length = self.part.take(fitting);
        buf.put_slice(fitting.get(..length).unwrap_or_default());
        self.held.advance(length);
        if self.held.is_empty() {
            // Most connections never need it again.
            self.held = BytesMut::new();
        }
        length > 0
    }

    /// Holds back what of a read, all that is filled after `before`, is not of the current part.
    pub fn cut(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = buf.filled().get(before..).unwrap_or_default();
        let length = self.part.take(read);
        self.hold(read.get(length..).unwrap_or_default());
        buf.set_filled(before + length);
    }

    /// Keeps bytes for later, after those that are held.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Whether all of a request has been handed on, and nothing of another.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.part, Part::Body(0))
    }

    /// Whether a request has come, or the beginning of one. Empty lines before it are none (RFC 9112
    /// §2.2): old clients end a body with one.
    pub fn holds_a_request(&self) -> bool {
        self.held.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl Part {
    /// How many of these bytes are of this part: one at least, if there is one.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if matches!(self, Self::Body(0)) && !bytes.is_empty() {
            *self = Self::default();
        }
        match self {
            Self::Head(head) => head.end(bytes).unwrap_or(bytes.len()),
            Self::Body(left) => {
                let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= length as u64;
                length
            }
            Self::Rest => bytes.len(),
        }
    }
}

/// Finds the end of a head, which may come in any number of pieces.
#[derive(Debug, Default)]
struct Head {
    line: Line,
    /// A line with something on it has come: empty ones before it are skipped by hyper too.
    begun: bool,
}

impl Head {
    /// Where the head ends in these bytes. Like hyper it takes a bare LF for the end of a line.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        for feed in memchr_iter(b'\n', bytes) {
            self.line.extend(bytes.get(start..feed).unwrap_or_default());
            start = feed + 1;
            match mem::take(&mut self.line) {
                Line::Text => self.begun = true,
                Line::Empty | Line::Return if self.begun => {
                    self.begun = false;
                    return Some(start);
                }
                Line::Empty | Line::Return => {}
            }
        }
        self.line.extend(bytes.get(start..).unwrap_or_default());
        None
    }
}

/// What has come of a line.
#[derive(Debug, Default, Clone, Copy)]
enum Line {
    #[default]
    Empty,
    /// A CR, which is part of the line's end if an LF comes next.
    Return,
    Text,
}

impl Line {
    fn extend(&mut self, bytes: &[u8]) {
        *self = match (*self, bytes) {
            (line, []) => line,
            (Self::Empty, b"\r") => Self::Return,
            _ => Self::Text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    const OLD_GET: &[u8] = b"GET /a HTTP/1.0\n\n";
    const MIXED_GET: &[u8] = b"\r\n\nGET /b\rc HTTP/1.1\nHost: x\r\r\n\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n\r\n\r\nGET ";
    const HEAD_OF_POST: usize = POST.len() - 8;

    /// What hyper gets, request by request, and whether another had come when it had all of one.
    /// The bytes come in reads of at most `read`, hyper has room for `room`.
    fn requests(mut bytes: &[u8], read: usize, room: usize) -> Vec<(Vec<u8>, bool)> {
        let (mut intake, mut request, mut all) = (Intake::default(), Vec::new(), Vec::new());
        loop {
            let mut room = vec![0; room];
            let mut buf = ReadBuf::new(&mut room);
            if !intake.give(&mut buf) {
                let (now, later) = bytes.split_at(bytes.len().min(read).min(buf.remaining()));
                buf.put_slice(now);
                intake.cut(&mut buf, 0);
                bytes = later;
            }
            if buf.filled().is_empty() {
                assert!(request.is_empty(), "{}", request.escape_ascii());
                return all;
            }
            request.extend_from_slice(buf.filled());
            match request.as_slice() {
                head if head == &POST[..HEAD_OF_POST] => intake.begin_body(Some(8)),
                GET | OLD_GET | MIXED_GET => intake.begin_body(Some(0)),
                _ => {}
            }
            if intake.is_between_requests() {
                all.push((mem::take(&mut request), intake.holds_a_request()));
            }
        }
    }

    #[test]
    fn one_request_at_a_time_is_handed_on_however_they_come() {
        let sent = [GET, POST, GET, OLD_GET, POST, POST, MIXED_GET, GET];
        let whole = sent.concat();
        for read in 1..=whole.len() {
            for room in [1, 7, whole.len()] {
                let got = requests(&whole, read, room);
                assert!(got.iter().map(|(request, _)| request.as_slice()).eq(sent), "{read} {room}");
            }
        }
    }

    #[test]
    fn a_head_is_found_wherever_it_is_split_and_more_is_known_of_as_soon_as_it_came() {
        for first in [GET, OLD_GET, MIXED_GET, POST] {
            let whole = [first, GET].concat();
            for read in 1..=whole.len() {
                let more = read > first.len() || !first.len().is_multiple_of(read);
                let got = requests(&whole, read, whole.len());
                assert_eq!(got, [(first.to_vec(), more), (GET.to_vec(), false)], "{read} {}", first.escape_ascii());
            }
        }
    }

    #[test]
    fn an_empty_line_after_a_request_is_not_another() {
        let mut bytes = [POST, b"\r\n"].concat();
        let mut intake = Intake::default();
        let mut buf = ReadBuf::new(&mut bytes);
        buf.set_filled(POST.len() + 2);
        intake.cut(&mut buf, 0);
        assert_eq!(buf.filled(), &POST[..HEAD_OF_POST]);
        intake.begin_body(Some(8));
        assert!(intake.holds_a_request(), "the body");
        buf.clear();
        assert!(intake.give(&mut buf));
        assert!(intake.is_between_requests() && !intake.holds_a_request());
        intake.hold(b"\nG");
        assert!(intake.holds_a_request());
        buf.clear();
        assert!(intake.give(&mut buf));
        assert_eq!(buf.filled(), b"\r\n\nG");
    }

    #[test]
    fn nothing_is_kept_from_whoever_still_reads() {
        // After a head that hyper does not take for one, and after one with a chunked body.
        let mut intake = Intake::default();
        intake.hold(&[GET, GET, b"5\r\nhello\r\n0\r\n\r\n", GET].concat());
        let mut bytes = [0; 200];
        let mut buf = ReadBuf::new(&mut bytes);
        assert!(intake.give(&mut buf) && intake.give(&mut buf));
        assert_eq!(buf.filled(), [GET, GET].concat());
        intake.begin_body(None);
        assert!(intake.give(&mut buf) && !intake.give(&mut buf));
        assert!(buf.filled().ends_with(GET));
        assert!(!intake.is_between_requests());
    }
}
