//! Clients: a real one for what is well-formed, a bare socket for what is not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Service, wire};

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Asserts the status, then gives the body as JSON.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// Asserts a problem document (RFC 9457) of that status, and gives the last part of its type
    /// and its detail.
    pub fn problem(&self, status: u16) -> (String, String) {
        let document = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(document["status"], status, "{self:?}");
        let text = |key: &str| document[key].as_str().unwrap_or_else(|| panic!("{key}: {self:?}")).to_owned();
        let kind = text("type").strip_prefix("urn:usher:problem:").expect("our types").to_owned();
        (kind, text("detail"))
    }

    /// Asserts an error of that status as the protocols for inference have it, and gives what it says.
    pub fn inference_error(&self, status: u16) -> String {
        let document = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let members = document.as_object().unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(members.keys().collect::<Vec<_>>(), ["error"], "{self:?}");
        members["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

/// The status codes of answers that came one after the other.
pub fn statuses(answers: &str) -> Vec<u16> {
    // A body may name the protocol too, but no status after it.
    answers.split("HTTP/1.").skip(1).filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}

impl Service {
    /// Sends a request with a new connection.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
        let url = format!("http://{}{path}", self.address());
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let response = match body {
            Some(body) => agent.run(request.body(body.to_owned()).unwrap()),
            None => agent.run(request.body(()).unwrap()),
        };
        let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let headers = response.headers().iter();
        Reply {
            status: response.status().as_u16(),
            headers: headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None)
    }

    /// A request with a JSON body.
    pub fn send_json(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], Some(body))
    }

    /// Adds a user and gives it.
    pub fn add_user(&self, name: &str, email: &str) -> Value {
        let body = serde_json::json!({"name": name, "email": email}).to_string();
        self.send_json("POST", "/api/users", &body).expect(201)
    }

    /// A bare connection.
    pub fn connect(&self) -> Raw {
        Raw::connect(self.address()).unwrap()
    }

    /// Sends bytes on a new connection and gives all that comes back before it is closed.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.connect();
        raw.send(bytes).unwrap();
        raw.rest().unwrap()
    }

    /// Asserts that what came before did no harm: the process still answers `/livez`.
    pub fn assert_alive(&self) {
        assert!(self.alive().is_some(), "the service no longer answers");
    }

    /// Whether `/livez` answers 200, and how long that took.
    pub fn alive(&self) -> Option<Duration> {
        alive(self.address())
    }
}

/// A request without a body, with a new connection.
pub fn ask(address: SocketAddr, method: &str, target: &str) -> Reply {
    Raw::connect(address).unwrap().request(wire::request(method, target, &[], "")).unwrap()
}

/// See [`Service::alive`].
pub fn alive(address: SocketAddr) -> Option<Duration> {
    let started = Instant::now();
    let reply = Raw::connect(address).ok()?.request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    (reply.status == 200).then(|| started.elapsed())
}

/// A bare connection.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.0
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref())
    }

    /// Ends our side.
    ///
    /// # Errors
    /// What the system says.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// All that comes until the service closes.
    ///
    /// # Errors
    /// What the system says, a reset among it.
    pub fn rest(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a request and reads one answer; the connection stays usable.
    ///
    /// # Errors
    /// What the system says.
    pub fn request(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<Reply> {
        self.send(bytes)?;
        self.reply()
    }

    /// Reads one answer with a `Content-Length`, or none.
    ///
    /// # Errors
    /// What the system says.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let (reply, body) = self.reply_bytes()?;
        Ok(Reply { body: String::from_utf8_lossy(&body).into_owned(), ..reply })
    }

    /// Sends a request and reads one answer, with the body as bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn request_bytes(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<(Reply, Vec<u8>)> {
        self.send(bytes)?;
        self.reply_bytes()
    }

    fn reply_bytes(&mut self) -> io::Result<(Reply, Vec<u8>)> {
        let reply = self.reply_head()?;
        let mut body = vec![0; reply.header("content-length").map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body)?;
        Ok((reply, body))
    }

    /// Reads one answer that has no body, whatever its `Content-Length` says: one to HEAD.
    ///
    /// # Errors
    /// What the system says.
    pub fn reply_head(&mut self) -> io::Result<Reply> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Ok(Reply { status: status.unwrap_or_else(|| panic!("no status: {text}")), headers, body: String::new() })
    }
}
