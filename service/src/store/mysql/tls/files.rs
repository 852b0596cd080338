//! Certificates and keys as PEM files (RFC 7468) to values. Errors never show what a file has in it.

use std::path::Path;

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
/// If the file cannot be read, has none, or has one that cannot be used.
pub fn read_authorities(path: &Path) -> Result<Authorities, String> {
    let mut authorities = RootCertStore::empty();
    for (number, certificate) in (1..).zip(read_certificates(path)?) {
        authorities
            .add(certificate)
            .map_err(|cause| format!("names a file whose certificate number {number} cannot be used: {cause}"))?;
    }
    Ok(Authorities(authorities))
}

/// Reads a certificate and what it was signed by.
///
/// # Errors
/// If the file cannot be read or has none.
pub fn read_chain(path: &Path) -> Result<CertificateChain, String> {
    read_certificates(path).map(CertificateChain)
}

/// Reads the first private key.
///
/// # Errors
/// If the file cannot be read or has none that is not encrypted.
pub fn read_key(path: &Path) -> Result<Key, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map(Key).map_err(|error| describe(&error, "private key"))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(describe(&pem::Error::NoItemsFound, "certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(describe(&error, "certificate")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let hint = "is its folder granted (wasmedge --dir)?";
    std::fs::read(path).map_err(|error| format!("names a file that cannot be read: {error}; {hint}"))
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

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_file_without_what_it_should_have_is_told_from_a_damaged_one() {
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        for text in ["", "sEcret", key] {
            let error = read_authorities(file(text).path()).unwrap_err();
            assert_eq!(error, "names a file without a certificate in PEM form", "{text}");
        }
        assert!(read_key(file("").path()).unwrap_err().contains("without a private key"));
        for text in
            ["-----BEGIN PRIVATE KEY-----\nsEcret", "-----BEGIN PRIVATE KEY-----\ns%Ecret\n-----END PRIVATE KEY-----"]
        {
            let error = read_key(file(text).path()).unwrap_err();
            assert!(error.contains("damaged") && !error.contains("Ecret"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_likely_reason() {
        let error = read_authorities(Path::new("/no/such/ca.pem")).err().unwrap();
        assert!(error.contains("cannot be read") && error.contains("--dir"), "{error}");
    }

    #[test]
    fn a_certificate_that_is_none_is_refused_by_its_place() {
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(read_authorities(file(text).path()).unwrap_err().contains("number 1"));
    }
}
