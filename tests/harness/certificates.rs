//! A certificate authority of the test's own, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey, date_time_ymd};
use x509_cert::der::asn1::BitString;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{DecodePem, Encode, EncodePem};
use x509_cert::{Certificate, Version};

/// An authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub certificate: String,
}

/// A certificate and its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate alone.
    pub certificate: String,
    /// The key, as PKCS#8.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub enum Validity {
    /// Now, and for long.
    Now,
    /// Until the end of 1999.
    Over,
    /// From the year 3000 on.
    ToCome,
}

impl Authority {
    /// A new one. Two never sign for each other, whatever their names.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for hosts, by their names or IP addresses; with none, it has a common name and
    /// no subjectAltName.
    pub fn sign(&self, hosts: &[&str]) -> Identity {
        self.sign_for(hosts, Validity::Now)
    }

    /// As [`sign`](Self::sign), for a certain time.
    pub fn sign_for(&self, hosts: &[&str], validity: Validity) -> Identity {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(3000, 1, 1)),
            Validity::Over => (date_time_ymd(1999, 1, 1), date_time_ymd(1999, 12, 31)),
            Validity::ToCome => (date_time_ymd(3000, 1, 1), date_time_ymd(3000, 12, 31)),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate of X.509 version 1, as MariaDB 11.4.0 made them for itself.
    pub fn sign_version_1(&self) -> Identity {
        let Identity { certificate, key } = self.sign(&[]);
        let mut certificate = Certificate::from_pem(&certificate).unwrap();
        certificate.tbs_certificate.version = Version::V1;
        certificate.tbs_certificate.extensions = None;
        let signature = self.issuer.key().sign(&certificate.tbs_certificate.to_der().unwrap()).unwrap();
        certificate.signature = BitString::from_bytes(&signature).unwrap();
        Identity { certificate: certificate.to_pem(LineEnding::LF).unwrap(), key }
    }

    /// The authority's own certificate and key, for a server that should not have them.
    pub fn own(&self) -> Identity {
        Identity { certificate: self.certificate.clone(), key: self.issuer.key().serialize_pem() }
    }
}
