//! The stream, under the path where the driver looks for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::Compat;

/// A secured stream, seen from the client.
#[derive(Debug)]
pub struct TlsStream<S>(pub(crate) Compat<futures_rustls::client::TlsStream<Compat<S>>>);

impl<S> TlsStream<S> {
    /// The stream beneath. The unit stands for what else tokio-rustls has here.
    pub fn get_ref(&self) -> (&S, ()) {
        (self.0.get_ref().get_ref().0.get_ref(), ())
    }

    /// The stream beneath, as [`TlsStream::get_ref`]. To read or write it breaks the connection.
    pub fn get_mut(&mut self) -> (&mut S, ()) {
        (self.0.get_mut().get_mut().0.get_mut(), ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
