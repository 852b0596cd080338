//! One writer per folder, without file locks, which WASI does not have.
//!
//! A folder's claim file names a loopback address, drawn at random once, such as
//! `127.83.12.9:23817`. Whoever binds that address owns the folder: the kernel gives it to one
//! process at a time and takes it back when that process ends, however it ends, so a claim cannot
//! become stale and taking one over is no race.
//!
//! What this does not cover: a folder shared between hosts or network namespaces (two pods on one
//! volume), and a process that ignores the claim.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

// Bound without SO_REUSEADDR, unlike a TCP listener: the second to bind fails.
#[cfg(not(target_os = "wasi"))]
use std::net::UdpSocket;
#[cfg(target_os = "wasi")]
use wasmedge_wasi_socket::UdpSocket;

use thiserror::Error;

/// The claim file in the store's folder.
const FILE_NAME: &str = "claim";

/// Below the range that Linux gives to outgoing connections, so that only somebody who chose the
/// very port can be in the way.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// Why a folder is not ours.
#[derive(Debug, Error)]
pub enum ClaimError {
    #[error(
        "{} is in use by another process, which holds {address}; stop it, or set DATA_DIR to another folder \
         (if the folder is a copy of one in use, delete {FILE_NAME} in the copy)",
        folder.display()
    )]
    Taken { folder: PathBuf, address: SocketAddr },
    #[error("cannot claim the folder of {}: {cause}; is it writable?", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} does not hold a loopback address and port; delete it if no other process uses the folder", path.display())]
    Unreadable { path: PathBuf },
    #[error("cannot hold {address} as the claim of {}: {cause}", folder.display())]
    Socket { folder: PathBuf, address: SocketAddr, cause: io::Error },
}

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub struct Claim {
    _held: UdpSocket,
}

impl Claim {
    /// Claims a folder that exists.
    ///
    /// # Errors
    /// `Taken` if another process has it, the others if the claim cannot be made.
    pub fn take(folder: &Path) -> Result<Self, ClaimError> {
        let path = folder.join(FILE_NAME);
        let address = read_or_create(folder, &path)?;
        match UdpSocket::bind(address) {
            Ok(socket) => Ok(Self { _held: socket }),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                Err(ClaimError::Taken { folder: folder.to_owned(), address })
            }
            Err(cause) => Err(ClaimError::Socket { folder: folder.to_owned(), address, cause }),
        }
    }
}

fn read_or_create(folder: &Path, path: &Path) -> Result<SocketAddr, ClaimError> {
    let file_error = |cause| ClaimError::File { path: path.to_owned(), cause };
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => create(folder, path).map_err(file_error)?,
        Err(cause) => return Err(file_error(cause)),
        Ok(_) => {}
    }
    // Read again also after creating it: another process may have been first.
    let text = fs::read_to_string(path).map_err(file_error)?;
    let address: Option<SocketAddrV4> = text.trim().parse().ok();
    match address {
        Some(address) if address.ip().is_loopback() && address.port() != 0 => Ok(address.into()),
        _ => Err(ClaimError::Unreadable { path: path.to_owned() }),
    }
}

/// Writes a new claim beside its place and links it in: it appears whole or not at all, and never
/// replaces one that is there.
fn create(folder: &Path, path: &Path) -> io::Result<()> {
    let address = random_address();
    let draft = folder.join(format!("{FILE_NAME}.{:x}", random()));
    let mut file = fs::File::create_new(&draft)?;
    writeln!(file, "{address}")?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn random_address() -> SocketAddrV4 {
    let [a, b, c, d, e, ..] = random().to_le_bytes();
    let ports = PORTS.end - PORTS.start;
    let port = PORTS.start + u16::from_le_bytes([d, e]) % ports;
    // 127.x.x.0 and 127.x.x.255 would be addresses like any other; avoiding them costs nothing.
    SocketAddrV4::new(Ipv4Addr::new(127, a, b, c.clamp(1, 254)), port)
}

/// Random, not secret: std seeds its hash maps from the system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::take(folder.path()).unwrap();
        let second = Claim::take(folder.path()).unwrap_err();
        assert!(matches!(second, ClaimError::Taken { .. }), "{second}");
        drop(first);
        Claim::take(folder.path()).unwrap();
    }

    #[test]
    fn folders_do_not_disturb_each_other_and_no_draft_is_left() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _first = Claim::take(one.path()).unwrap();
        let _second = Claim::take(two.path()).unwrap();
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_loopback_address_is_refused_and_kept() {
        for text in ["", "hello", "10.0.0.1:2000", "127.0.0.1:0", "127.0.0.1"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE_NAME);
            fs::write(&path, text).unwrap();
            let error = Claim::take(folder.path()).unwrap_err();
            assert!(matches!(error, ClaimError::Unreadable { .. }), "{text:?}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
