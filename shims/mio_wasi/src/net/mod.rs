//! WasmEdge's sockets, watched.

mod listener;
mod stream;

pub use listener::TcpListener;
pub use stream::TcpStream;
