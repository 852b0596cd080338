//! An HTTP client that refuses every request: builds use the WasmEdge that set-up provides.

use std::fmt;

/// Why nothing is downloaded.
#[derive(Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("builds download nothing: `cargo xtask setup` provides WasmEdge")
    }
}

impl std::error::Error for Error {}

/// A proxy that no request goes through.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Any proxy will do.
    ///
    /// # Errors
    /// None.
    pub fn all(_url: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self)
    }

    /// Any user will do.
    #[must_use]
    pub fn basic_auth(self, _user: &str, _password: &str) -> Self {
        self
    }
}

/// The client that waits for its answers.
pub mod blocking {
    use std::io::{self, Read};
    use std::time::Duration;

    use super::{Error, Proxy};

    /// A client.
    #[derive(Debug)]
    pub struct Client;

    impl Client {
        /// To configure one.
        pub fn builder() -> ClientBuilder {
            ClientBuilder
        }

        /// A request that will be refused.
        pub fn get(&self, _url: impl AsRef<str>) -> RequestBuilder {
            RequestBuilder
        }
    }

    /// A client about to be made.
    #[derive(Debug)]
    pub struct ClientBuilder;

    impl ClientBuilder {
        /// Any proxy will do.
        #[must_use]
        pub fn proxy(self, _proxy: Proxy) -> Self {
            self
        }

        /// Makes it.
        ///
        /// # Errors
        /// None.
        pub fn build(self) -> Result<Client, Error> {
            Ok(Client)
        }
    }

    /// A request about to be sent.
    #[derive(Debug)]
    pub struct RequestBuilder;

    impl RequestBuilder {
        /// Any time will do.
        #[must_use]
        pub fn timeout(self, _time: Duration) -> Self {
            self
        }

        /// Refuses.
        ///
        /// # Errors
        /// Always.
        pub fn send(self) -> Result<Response, Error> {
            Err(Error)
        }
    }

    /// An answer, which there never is.
    #[derive(Debug)]
    pub enum Response {}

    impl Read for Response {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            match *self {}
        }
    }
}
