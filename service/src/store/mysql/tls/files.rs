//! The text of PEM files (RFC 7468) to certificates and keys. Errors never show what a file has in it,
//! and go on from the name of the setting that names the file.

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Who may sign a server's certificate.
#[derive(Debug)]
pub struct Authorities(pub(super) RootCertStore);

impl Authorities {
    /// Those that browsers trust.
    pub fn public() -> Self {
        Self(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }
}

/// Our certificate first, then those that lead to an authority.
#[derive(Debug)]
pub struct CertificateChain(pub(super) Vec<CertificateDer<'static>>);

/// Our private key: PKCS#8, PKCS#1 or SEC1. Its `Debug` is rustls's, which shows nothing.
#[derive(Debug)]
pub struct Key(pub(super) PrivateKeyDer<'static>);

/// Reads the certificates of authorities, one or more.
///
/// # Errors
/// If it has none, or one that cannot be used.
pub fn read_authorities(pem: &[u8]) -> Result<Authorities, String> {
    let mut authorities = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(pem)?) {
        authorities
            .add(certificate)
            .map_err(|cause| format!("names a file whose certificate number {number} cannot be used: {cause}"))?;
    }
    Ok(Authorities(authorities))
}

/// Reads a certificate and what it was signed by.
///
/// # Errors
/// If it has none.
pub fn read_chain(pem: &[u8]) -> Result<CertificateChain, String> {
    certificates(pem).map(CertificateChain)
}

/// Reads the first private key.
///
/// # Errors
/// If it has none that is not encrypted.
pub fn read_key(pem: &[u8]) -> Result<Key, String> {
    PrivateKeyDer::from_pem_slice(pem).map(Key).map_err(|error| describe(&error, "private key"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(describe(&pem::Error::NoItemsFound, "certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(describe(&error, "certificate")),
    }
}

/// Not by the error's own words, which may have a line of the file in them.
fn describe(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("names a file without a {what} in PEM form"),
        _ => format!("names a file that is damaged: not PEM from its first line to its last, a {what} was expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_what_it_should_have_is_told_from_a_damaged_one() {
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        for text in ["", "sEcret", key] {
            let error = read_authorities(text.as_bytes()).unwrap_err();
            assert_eq!(error, "names a file without a certificate in PEM form", "{text}");
        }
        assert!(read_key("".as_bytes()).unwrap_err().contains("without a private key"));
        for text in
            ["-----BEGIN PRIVATE KEY-----\nsEcret", "-----BEGIN PRIVATE KEY-----\ns%Ecret\n-----END PRIVATE KEY-----"]
        {
            let error = read_key(text.as_bytes()).unwrap_err();
            assert!(error.contains("damaged") && !error.contains("Ecret"), "{error}");
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_refused_by_its_place() {
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(read_authorities(text.as_bytes()).unwrap_err().contains("number 1"));
    }
}
