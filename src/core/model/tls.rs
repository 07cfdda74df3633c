//! TLS: listeners that end it or pass it on, certificates, and how backends are verified.
//!
//! What stands here has been checked by whoever built it: chains parse, keys belong to their chains, names of suites
//! are known.

use std::fmt;
use std::sync::Arc;

use super::{HostPattern, HttpRoute, ResponseRules, RouteId, WeightedTarget};

/// A Gateway API listener of protocol HTTPS or TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsListener {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// Server names this listener takes; the most specific listener of a socket wins.
    pub hostname: HostPattern,
    /// What is done with a connection.
    pub serves: TlsServes,
}

/// What is done with a TLS connection.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsServes {
    /// Ended here, HTTP inside.
    Https {
        /// How it is ended.
        tls: TlsSettings,
        /// In precedence order.
        routes: Vec<HttpRoute>,
        /// What is done to answers for which there is no rule.
        responses: Option<Arc<ResponseRules>>,
    },
    /// Ended here, anything inside.
    Terminate {
        /// How it is ended.
        tls: TlsSettings,
        /// In precedence order.
        routes: Vec<TlsRoute>,
    },
    /// Passed on untouched.
    Passthrough {
        /// In precedence order.
        routes: Vec<TlsRoute>,
    },
}

/// A TLSRoute as attached to one listener.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRoute {
    /// Its name and metrics.
    pub id: RouteId,
    /// The intersections of its hostnames with the listener's; never empty.
    pub hostnames: Vec<HostPattern>,
    /// Where connections go.
    pub split: Vec<WeightedTarget>,
}

/// How a listener ends TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsSettings {
    /// Never empty. The first is the default.
    pub certificates: Vec<Arc<CertificateChain>>,
    /// Versions and algorithms.
    pub parameters: TlsParameters,
    /// Application protocols offered, preferred first.
    pub alpn: Vec<String>,
    /// Certificates asked of clients.
    pub client_auth: Option<Arc<ClientAuth>>,
}

/// Versions and algorithms: ClientPolicy `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsParameters {
    /// The lowest version taken.
    pub min: Option<TlsVersion>,
    /// The highest version taken.
    pub max: Option<TlsVersion>,
    /// Names of cipher suites as the library has them; empty: all that it has.
    pub cipher_suites: Vec<&'static str>,
    /// Names of key exchange groups as the library has them, preferred first; empty: all, X25519MLKEM768 first.
    pub groups: Vec<&'static str>,
}

/// A version that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// Certificates asked of clients: Gateway `tls.frontend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// DER; never empty.
    pub roots: Vec<Vec<u8>>,
    /// `AllowValidOnly`; otherwise connections go on with no or an invalid certificate.
    pub required: bool,
}

/// A certificate with its chain and key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateChain {
    /// `Secret/namespace/name` or `Certificate/namespace/name`.
    pub name: String,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER: PKCS #8, PKCS #1 or SEC 1.
    pub key: Vec<u8>,
    /// A DER OCSP response that is stapled.
    pub ocsp: Option<Vec<u8>>,
    /// What the leaf says.
    pub facts: CertificateFacts,
}

impl fmt::Debug for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateChain").field("name", &self.name).field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// What a leaf certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFacts {
    /// Its distinguished name (RFC 4514).
    pub subject: String,
    /// DNS names, in lower case, `*.` in front of wildcards.
    pub dns_names: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: i64,
    /// Its SHA-256, in lower case hexadecimal.
    pub fingerprint: String,
}

/// TLS towards a backend: BackendTLSPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Sent as SNI, and the name that is verified unless `sans` are given.
    pub hostname: String,
    /// Who is believed.
    pub roots: TrustRoots,
    /// Any one of these has to be in the certificate.
    pub sans: Vec<SubjectAltName>,
    /// Shown to backends that ask: Gateway `tls.backend.clientCertificateRef`.
    pub client: Option<Arc<CertificateChain>>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustRoots {
    /// The machine's.
    System,
    /// These, DER; never empty.
    Certificates(Vec<Vec<u8>>),
}

/// A name that a backend's certificate has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}
