//! The resolver of whatever runs us.

use std::net::IpAddr;

use super::ResolveError;

/// Asks the system's resolver, in a thread of its own.
#[cfg(not(target_os = "wasi"))]
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let found = tokio::net::lookup_host((host, 0)).await;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map_err(|cause| ResolveError::Host { name: host.to_owned(), cause })? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() { Err(ResolveError::NoAddress(host.to_owned())) } else { Ok(addresses) }
}

/// Asks WasmEdge, for IPv4 addresses. Nothing else happens meanwhile, and no deadline can end it.
#[cfg(target_os = "wasi")]
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    use std::io;

    // No service: any text there has to be known to the host.
    let found = wasmedge_wasi_socket::nslookup_with_host(host, "");
    // The code is not one of those that the standard library has texts for.
    let cause = |error: io::Error| match error.raw_os_error() {
        Some(code) => io::Error::other(format!("WasmEdge gives code {code}")),
        None => error,
    };
    let found = found.map_err(|error| ResolveError::Host { name: host.to_owned(), cause: cause(error) })?;
    if found.is_empty() {
        return Err(ResolveError::NoAddress(host.to_owned()));
    }
    Ok(found.into_iter().map(|address| address.ip()).collect())
}
