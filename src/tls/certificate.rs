//! Certificates and keys: from PEM to what is served, and what they say.

use ringway_core::model::{CertificateChain, CertificateFacts};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM, or something else in it.
    #[error("{what} is not PEM: {why}")]
    Pem {
        /// Chain, key or CA.
        what: &'static str,
        /// In the reader's words.
        why: String,
    },
    /// PEM without what is wanted.
    #[error("there is no {0} in it")]
    Missing(&'static str),
    /// A certificate that cannot be read.
    #[error("a certificate cannot be read: {0}")]
    Unreadable(String),
    /// A key of a kind that is not known.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// A key of another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// A chain with its key, checked against each other.
pub fn chain(
    name: String,
    certificates: &[u8],
    key: &[u8],
    ocsp: Option<Vec<u8>>,
) -> Result<CertificateChain, CertificateError> {
    let chain = authorities(certificates)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => CertificateError::Missing("private key"),
        other => CertificateError::Pem { what: "the private key", why: other.to_string() },
    })?;
    let facts = facts(&chain[0])?;
    let found = CertificateChain { name, chain, key: key.secret_der().to_vec(), ocsp, facts };
    certified_key(&found).map(|_| found)
}

/// The certificates of a PEM file; at least one.
pub fn authorities(pem: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| CertificateError::Pem { what: "the certificate", why: error.to_string() })?;
        parse(&certificate)?;
        found.push(certificate.to_vec());
    }
    if found.is_empty() { Err(CertificateError::Missing("certificate")) } else { Ok(found) }
}

/// A chain as the library takes it.
pub(super) fn certified_key(chain: &CertificateChain) -> Result<CertifiedKey, CertificateError> {
    let key = PrivateKeyDer::try_from(chain.key.clone()).map_err(|why| CertificateError::Key(why.to_owned()))?;
    let key = any_supported_type(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
    let certificates = chain.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let mut certified = CertifiedKey::new(certificates, key);
    certified.ocsp.clone_from(&chain.ocsp);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch),
        Err(error) => Err(CertificateError::Unreadable(error.to_string())),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    X509Certificate::from_der(der)
        .map(|(_, found)| found)
        .map_err(|error| CertificateError::Unreadable(error.to_string()))
}

/// What a certificate says.
pub fn facts(der: &[u8]) -> Result<CertificateFacts, CertificateError> {
    let found = parse(der)?;
    let mut facts = CertificateFacts {
        subject: found.subject().to_string(),
        not_after: found.validity().not_after.timestamp(),
        fingerprint: super::sha256(der).iter().map(|byte| format!("{byte:02x}")).collect(),
        ..CertificateFacts::default()
    };
    if let Ok(Some(names)) = found.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => facts.dns_names.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
    }
    Ok(facts)
}
