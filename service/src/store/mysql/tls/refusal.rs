//! Why a connection could not be secured, in words for whoever can mend it.

use std::fmt::Write;

use jiff::Timestamp;
use mysql_async::{DriverError, IoError};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}: {advice}")]
pub struct Refusal {
    /// What is wrong, for anybody: it names nothing.
    pub reason: &'static str,
    /// Which certificate and which name it is about, and what to do: for the log and `/readyz`.
    pub advice: String,
}

impl Refusal {
    /// Why the driver could not secure a connection; `None` if that is not what went wrong.
    pub fn of(error: &mysql_async::Error) -> Option<Self> {
        match error {
            mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => Some(Self {
                reason: "the database offers no TLS, which is required",
                advice: "turn it on there (ssl_cert, ssl_key), or set require_ssl=false and no certificate files"
                    .into(),
            }),
            mysql_async::Error::Io(IoError::Io(error)) => {
                error.get_ref()?.downcast_ref::<Error>().map(Self::of_handshake)
            }
            _ => None,
        }
    }

    fn of_handshake(error: &Error) -> Self {
        let refused_by_us = match error {
            Error::InvalidCertificate(CertificateError::Other(cause)) => cause.0.downcast_ref::<Self>(),
            _ => None,
        };
        match (refused_by_us, error) {
            (Some(refusal), _) => refusal.clone(),
            (None, Error::AlertReceived(_)) => Self {
                reason: "the database does not accept our side of TLS",
                advice: format!(
                    "{error}; if it asks for a client certificate, set DATABASE_CLIENT_CERT_FILE and _KEY_FILE"
                ),
            },
            (None, Error::PeerIncompatible(_)) => Self {
                reason: "the database and we have no version or cipher of TLS in common",
                advice: format!("{error}; we take TLS 1.2 and 1.3 (tls_version there)"),
            },
            (None, _) => Self { reason: "TLS with the database failed", advice: error.to_string() },
        }
    }

    /// Why a server's certificate is refused.
    pub fn of_certificate(certificate: &CertificateDer<'_>, server: &ServerName<'_>, error: &CertificateError) -> Self {
        let (reason, advice) = explain(&server.to_str(), error);
        let fingerprint = fingerprint(certificate);
        Self { reason, advice: format!("{advice} (the certificate's SHA-256 fingerprint is {fingerprint})") }
    }
}

fn explain(server: &str, error: &CertificateError) -> (&'static str, String) {
    use CertificateError as E;
    match error {
        E::ExpiredContext { not_after, .. } => {
            ("the database's certificate has expired", format!("it ended {}; renew it", date(*not_after)))
        }
        E::NotValidYetContext { not_before, .. } => (
            "the database's certificate is not valid yet",
            format!("it begins {}; is the clock of one of the two machines wrong?", date(*not_before)),
        ),
        E::NotValidForNameContext { presented, .. } if presented.is_empty() => (
            "the database's certificate names no host",
            format!("it has no subjectAltName, and a common name does not count; issue one for {server}"),
        ),
        E::NotValidForNameContext { presented, .. } => (
            "the database's certificate is for another host",
            format!(
                "DATABASE_URL says {server}, it is for {}; use one of its names there or issue one for {server}",
                presented.join(", ")
            ),
        ),
        E::UnknownIssuer | E::BadSignature => (
            "the database's certificate is signed by nobody we trust",
            "set DATABASE_CA_FILE to the certificate of the CA that signed it".to_owned(),
        ),
        E::Other(cause) => match cause.0.downcast_ref() {
            Some(webpki::Error::UnsupportedCertVersion) => (
                "the database's certificate is of X.509 version 1",
                format!("it cannot have a subjectAltName; issue one of version 3 for {server}"),
            ),
            Some(webpki::Error::CaUsedAsEndEntity) => (
                "the database's certificate is that of a CA",
                format!("let that CA sign one for {server} that is no CA's (basicConstraints CA:FALSE)"),
            ),
            _ => ("the database's certificate is not accepted", cause.to_string()),
        },
        _ => ("the database's certificate is not accepted", error.to_string()),
    }
}

/// A day and time as RFC 3339.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| "long ago or far ahead".to_owned(), |time| time.to_string())
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().enumerate().fold(String::new(), |mut text, (at, byte)| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{byte:02X}", if at == 0 { "" } else { ":" });
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_as_openssl_prints_it() {
        let text = fingerprint(&CertificateDer::from(b"abc".to_vec()));
        assert!(text.starts_with("BA:78:16:BF:") && text.ends_with(":15:AD") && text.len() == 95, "{text}");
    }
}
