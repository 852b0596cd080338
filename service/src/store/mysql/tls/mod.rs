//! TLS to the server: whom we trust and who we are. The driver's own settings are not used, see
//! `shims/README.md`.

mod files;
mod refusal;
mod verifier;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use tokio_rustls::Tls;

pub use files::{Authorities, CertificateChain, Key, read_authorities, read_chain, read_key};
pub use refusal::Refusal;
use verifier::Verifier;

/// How a connection is secured, for servers of one name.
#[derive(Debug, Clone)]
pub struct TlsConfig(Tls);

impl TlsConfig {
    /// Trusts `authorities` and nobody else, or the public ones where none are given, and shows
    /// `identity` to a server that asks. `host` is the name or the IP address that the server's
    /// certificate must have.
    ///
    /// # Errors
    /// What is wrong with which setting.
    pub fn new(
        host: &str,
        authorities: Option<Authorities>,
        identity: Option<(CertificateChain, Key)>,
    ) -> Result<Self, String> {
        let server = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("DATABASE_URL has the host {host:?}, which no certificate can be for"))?;
        let provider = Arc::new(ring::default_provider());
        let trusted = Verifier::new(authorities.unwrap_or_else(Authorities::public), provider.clone())?;
        let builder = versions(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(trusted));
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((CertificateChain(chain), Key(key))) => {
                builder.with_client_auth_cert(chain, key).map_err(|cause| {
                    format!("DATABASE_CLIENT_KEY_FILE is not the key of DATABASE_CLIENT_CERT_FILE: {cause}")
                })?
            }
        };
        Ok(Self(Tls { config: Arc::new(config), server }))
    }

    /// Has connections that are opened in a future secured.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        self.0.clone().scope(future)
    }
}

/// TLS 1.2 and 1.3.
fn versions(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().map_err(|cause| cause.to_string())
}
