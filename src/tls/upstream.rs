//! TLS towards backends: whom to believe, and which names their certificates must have.

use std::sync::{Arc, OnceLock};

use ringway_core::model::{SubjectAltName, TlsParameters, TrustRoots, UpstreamTls};
use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::certified_key;
use super::provider::provider;
use super::server::{TlsError, roots};
use super::{Session, keylog};

/// Sessions kept per backend and core, to be resumed.
const SESSIONS: usize = 64;

/// How connections to a backend are encrypted.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// Out of a policy.
    pub fn new(wanted: &UpstreamTls) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(&TlsParameters::default())?);
        let store = match &wanted.roots {
            TrustRoots::System => system_roots()?,
            TrustRoots::Certificates(certificates) => Arc::new(roots(certificates)?),
        };
        let verifier: Arc<dyn ServerCertVerifier> = if wanted.sans.is_empty() {
            WebPkiServerVerifier::builder_with_provider(store, Arc::clone(&provider)).build().map_err(TlsError::of)?
        } else {
            Arc::new(ByNames::new(store, &provider, &wanted.sans)?)
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::of)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &wanted.client {
            None => builder.with_no_client_auth(),
            Some(chain) => {
                let certified = certified_key(chain).map_err(TlsError::of)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        // Records of established connections are our own (`records`).
        config.enable_secret_extraction = true;
        if let Some(log) = keylog::current() {
            config.key_log = log;
        }
        let name = ServerName::try_from(wanted.hostname.clone()).map_err(TlsError::of)?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// A copy with sessions of its own, for one core.
    #[must_use]
    pub fn for_core(&self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        Self { config: Arc::new(config), name: self.name.clone() }
    }

    /// A new connection's session, in which one of `alpn` may be chosen, preferred first.
    pub fn connect(&self, alpn: &[&[u8]]) -> Result<Session, TlsError> {
        let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let conn = UnbufferedClientConnection::new_with_alpn(Arc::clone(&self.config), self.name.clone(), alpn);
        let conn = conn.map_err(TlsError::of)?;
        Ok(Session::from(conn))
    }
}

/// The machine's authorities, read once.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let store = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        // What cannot be parsed or read is not believed in; that is all.
        let _counts = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if store.is_empty() {
        return Err(TlsError("this machine has no CA certificates; Debian's package is ca-certificates".to_owned()));
    }
    Ok(Arc::clone(store))
}

/// Verifies the chain as usual, and then the names that the policy gives instead of the one that is connected to.
#[derive(Debug)]
struct ByNames {
    roots: Arc<RootCertStore>,
    signatures: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    dns: Vec<ServerName<'static>>,
    uris: Vec<String>,
}

impl ByNames {
    fn new(
        store: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        sans: &[SubjectAltName],
    ) -> Result<Self, TlsError> {
        let signatures = WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(provider));
        let mut found = Self {
            roots: store,
            signatures: signatures.build().map_err(TlsError::of)?,
            provider: Arc::clone(provider),
            dns: Vec::new(),
            uris: Vec::new(),
        };
        for san in sans {
            match san {
                SubjectAltName::Dns(name) => found.dns.push(ServerName::try_from(name.clone()).map_err(TlsError::of)?),
                SubjectAltName::Uri(uri) => found.uris.push(uri.clone()),
            }
        }
        Ok(found)
    }
}

impl ServerCertVerifier for ByNames {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, now, algorithms)?;
        if self.dns.iter().any(|name| verify_server_name(&parsed, name).is_ok()) {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = webpki::EndEntityCert::try_from(leaf)
            .map_err(|_unreadable| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if certificate.valid_uri_names().any(|uri| self.uris.iter().any(|wanted| wanted == uri)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}
