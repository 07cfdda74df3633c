//! How listeners end TLS: the library's configuration out of the model's, and the choice of certificates.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_core::model::{ClientAuth, TlsParameters, TlsSettings, TlsVersion};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme,
    SupportedProtocolVersion, version,
};

use super::certificate::certified_key;
use super::provider::provider;
use super::tickets::{Context, Ticketer};
use super::{keylog, sha256};

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

impl TlsError {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A listener's TLS, ready to be used by any core.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For connections.
    pub config: Arc<ServerConfig>,
    /// Judges certificates that the handshake let pass unjudged (`AllowInsecureFallback`).
    pub judge: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// Out of settings.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(&settings.parameters)?);
        let (verifier, judge) = match &settings.client_auth {
            None => (WebPkiClientVerifier::no_client_auth(), None),
            Some(auth) => {
                let strict = client_verifier(auth, &provider)?;
                if auth.required {
                    (strict, None)
                } else {
                    (Arc::new(Lenient(Arc::clone(&strict))) as Arc<dyn ClientCertVerifier>, Some(strict))
                }
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&settings.parameters))
            .map_err(TlsError::of)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Certificates::new(settings)?));
        config.alpn_protocols = settings.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.ignore_client_order = true;
        // Records of established connections are our own (`records`).
        config.enable_secret_extraction = true;
        // Resumption is by tickets alone: a table of sessions would be shared by all cores, or useless on most.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer { context: context(settings.client_auth.as_deref()) });
        if let Some(log) = keylog::current() {
            config.key_log = log;
        }
        Ok(Self { config: Arc::new(config), judge })
    }

    /// A copy whose reference count is this thread's alone: one per core, so that handshakes do not contend for it.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self { config: Arc::new((*self.config).clone()), judge: self.judge.clone() }
    }
}

/// Tickets made under one trust are worth nothing under another.
fn context(auth: Option<&ClientAuth>) -> Context {
    let mut bytes = Vec::new();
    if let Some(auth) = auth {
        bytes.push(u8::from(auth.required) + 1);
        auth.roots.iter().for_each(|root| bytes.extend_from_slice(&sha256(root)));
    }
    Context(sha256(&bytes))
}

fn versions(parameters: &TlsParameters) -> Vec<&'static SupportedProtocolVersion> {
    let (min, max) = (parameters.min.unwrap_or(TlsVersion::V12), parameters.max.unwrap_or(TlsVersion::V13));
    [(TlsVersion::V13, &version::TLS13), (TlsVersion::V12, &version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, supported)| supported)
        .collect()
}

fn client_verifier(auth: &ClientAuth, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = roots(&auth.roots)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().map_err(TlsError::of)
}

/// A store of authorities, all of which have to be usable; an empty one would be no store.
pub(super) fn roots(certificates: &[Vec<u8>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(CertificateDer::from(certificate.as_slice())).map_err(TlsError::of)?;
    }
    if store.is_empty() { Err(TlsError("there is no CA certificate".to_owned())) } else { Ok(store) }
}

/// The certificates of a listener, by the names they have.
#[derive(Debug)]
struct Certificates {
    /// By DNS name, wildcards without their star; the best key first.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// In order of configuration.
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut found = Self { by_name: HashMap::new(), all: Vec::new() };
        for chain in &settings.certificates {
            let certified = Arc::new(certified_key(chain).map_err(TlsError::of)?);
            for name in &chain.facts.dns_names {
                let name = name.strip_prefix('*').unwrap_or(name);
                found.by_name.entry(name.to_owned()).or_default().push(Arc::clone(&certified));
            }
            found.all.push(certified);
        }
        if found.all.is_empty() {
            return Err(TlsError("there is no certificate".to_owned()));
        }
        // Clients that take both get the elliptic curve: it costs a quarter of RSA.
        let by_cost = |list: &mut Vec<Arc<CertifiedKey>>| {
            list.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        };
        found.by_name.values_mut().for_each(by_cost);
        by_cost(&mut found.all);
        Ok(found)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |list: &[Arc<CertifiedKey>]| list.iter().find(|key| fits(key, &hello)).map(Arc::clone);
        let named = hello.server_name().and_then(|name| {
            // A certificate's wildcard stands for one label (RFC 9525 section 6.3).
            let wildcard = name.find('.').map(|at| &name[at..]);
            [Some(name), wildcard].into_iter().flatten().find_map(|name| usable(self.by_name.get(name)?))
        });
        // With nothing that the client can verify the handshake fails, and says that and not that access is denied.
        named.or_else(|| usable(&self.all)).or_else(|| self.all.first().map(Arc::clone))
    }
}

/// Whether the client can verify a key's signatures.
fn fits(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    key.key.choose_scheme(hello.signature_schemes()).is_some()
        && hello.cipher_suites().iter().any(|suite| {
            let name = suite.as_str().unwrap_or("");
            // In TLS 1.2 the suite names the kind of key; in 1.3 it does not.
            match key.key.algorithm() {
                _ if name.starts_with("TLS13_") => true,
                SignatureAlgorithm::RSA => name.contains("_RSA_"),
                _ => name.contains("_ECDSA_"),
            }
        })
}

/// Lets every certificate pass: the connection goes on, and what it showed is judged afterwards.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
