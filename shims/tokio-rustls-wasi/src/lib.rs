//! The part of tokio-rustls 0.24 that the MySQL driver uses, over a rustls that is maintained.
//!
//! The driver fixes rustls 0.21, one string as address and as TLS name, and trust in public roots
//! beside a CA of one's own. Here whoever opens the connection says by whom and as whom the server
//! must be known, and the driver's own configuration is not looked at: without [`Tls::scope`] there
//! is no connection.

use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_rustls::TlsConnector as Connector;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

pub mod client;

tokio::task_local! {
    static TLS: Tls;
}

/// How connections are secured.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Whom to trust, and who we are. Sessions are resumed between connections that share it.
    pub config: Arc<ClientConfig>,
    /// Whose certificate the server must have.
    pub server: ServerName<'static>,
}

impl Tls {
    /// Has every connection that is opened in a future secured by this.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        TLS.scope(self, future)
    }
}

/// Opens TLS connections as the [`Tls`] around it says.
#[derive(Debug, Clone, Copy)]
pub struct TlsConnector;

impl From<Arc<rustls_0_21::ClientConfig>> for TlsConnector {
    fn from(_: Arc<rustls_0_21::ClientConfig>) -> Self {
        Self
    }
}

impl TlsConnector {
    /// Secures a stream. The name is not looked at, [`Tls::server`] is.
    ///
    /// # Errors
    /// Those of the stream; `InvalidData` with a `rustls::Error` in it when TLS fails; `Other`
    /// outside of [`Tls::scope`].
    pub async fn connect<S>(&self, _: rustls_0_21::ServerName, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = TLS.try_with(Tls::clone).map_err(io::Error::other)?;
        let stream = Connector::from(tls.config).connect(tls.server, stream.compat()).await?;
        Ok(client::TlsStream(stream.compat()))
    }
}
