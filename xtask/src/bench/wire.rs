//! As much of an HTTP client as is needed here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long a service may take to answer a single request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is kept.
pub struct Connection(TcpStream);

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        Ok(Self(stream))
    }

    /// Asks, and gives the body of the answer. Fails for another status than one of success.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).with_context(|| format!("cannot send {method} {path}"))?;
        self.answer().with_context(|| format!("no good answer to {method} {path}"))
    }

    fn answer(&mut self) -> Result<String> {
        let mut received = Vec::new();
        let mut part = [0; 4096];
        loop {
            let count = self.0.read(&mut part).context("cannot read it")?;
            ensure!(count > 0, "the connection was closed");
            received.extend(part.iter().take(count));
            if let Some(body) = body_in(&String::from_utf8_lossy(&received))? {
                return Ok(body.to_owned());
            }
        }
    }
}

/// The body of an answer, once it is there. Fails for another status than one of success.
fn body_in(received: &str) -> Result<Option<&str>> {
    let Some((head, body)) = received.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "its status is {status}: {body}");
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.context("it tells no length")?;
    let length: usize = length.trim().parse().context("its length is no number")?;
    Ok((body.len() >= length).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_had_once_all_of_it_is_there() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK";
        assert_eq!(body_in(answer).unwrap(), Some("OK"));
        for end in 0..answer.len() {
            assert_eq!(body_in(&answer[..end]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn another_status_is_an_error_that_tells_it() {
        let error = body_in("HTTP/1.1 503 Unavailable\r\ncontent-length: 4\r\n\r\nfull").unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("full"), "{error}");
        assert!(body_in("HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
