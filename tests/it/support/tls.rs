//! Certificates made on the spot, and TLS clients that are picky about how connections end.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::client::Client;

/// A certificate authority of the test's own.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf and its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    pub chain: String,
    pub key: String,
}

/// What a leaf is made with.
#[derive(Clone, Default)]
pub struct Wanted<'a> {
    pub common_name: &'a str,
    pub dns: &'a [&'a str],
    pub uris: &'a [&'a str],
    pub rsa: bool,
    pub expired: bool,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A leaf for these DNS names.
    pub fn leaf(&self, dns: &[&str]) -> Leaf {
        self.issue(&Wanted { common_name: dns[0], dns, ..Wanted::default() })
    }

    pub fn issue(&self, wanted: &Wanted<'_>) -> Leaf {
        let names: Vec<String> = wanted.dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        for uri in wanted.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if wanted.expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let algorithm = if wanted.rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// A ConfigMap with this authority.
    pub fn config_map(&self, name: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n{}",
            indent(&self.pem())
        )
    }
}

impl Leaf {
    /// A Secret with this certificate.
    pub fn secret(&self, name: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
            indent(&self.chain),
            indent(&self.key)
        )
    }

    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// How a client connects.
#[derive(Clone)]
pub struct Connector {
    pub config: Arc<ClientConfig>,
    ocsp: Arc<Mutex<Vec<u8>>>,
}

/// How a client is made.
#[derive(Clone, Default)]
pub struct ClientOptions {
    pub versions: Option<&'static [&'static SupportedProtocolVersion]>,
    pub alpn: &'static [&'static str],
    pub identity: Option<Leaf>,
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Connector {
    pub fn new(authority: &Authority) -> Self {
        Self::with(authority, ClientOptions::default())
    }

    pub fn with(authority: &Authority, options: ClientOptions) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let ocsp = Arc::<Mutex<Vec<u8>>>::default();
        let verifier = Arc::new(Noting { inner, ocsp: Arc::clone(&ocsp) });
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(options.versions.unwrap_or(rustls::DEFAULT_VERSIONS))
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match options.identity {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(leaf.certificates(), leaf.private_key()).unwrap(),
        };
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)));
        config.alpn_protocols = options.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), ocsp }
    }

    /// Connects; the handshake runs with the first read or write.
    pub fn open(&self, address: &str, name: &str) -> std::io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(StreamOwned::new(ClientConnection::new(Arc::clone(&self.config), name).unwrap(), stream))
    }

    /// Connects and runs the handshake.
    pub fn connect(&self, address: &str, name: &str) -> Result<Client<TlsStream>, String> {
        let mut stream = self.open(address, name).map_err(|error| error.to_string())?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        Ok(Client::over(stream))
    }

    /// The same where nothing can go wrong.
    pub fn client(&self, address: &str, name: &str) -> Client<TlsStream> {
        self.connect(address, name).unwrap_or_else(|error| panic!("no handshake with {address} for {name}: {error}"))
    }

    /// The OCSP response of the last handshake.
    pub fn ocsp(&self) -> Vec<u8> {
        self.ocsp.lock().unwrap().clone()
    }
}

impl Client<TlsStream> {
    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn version(&self) -> ProtocolVersion {
        self.stream.conn.protocol_version().unwrap()
    }

    /// The leaf that the server showed.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().unwrap()[0].clone()
    }
}

/// Verifies as usual and notes what was stapled.
#[derive(Debug)]
struct Noting {
    inner: Arc<WebPkiServerVerifier>,
    ocsp: Arc<Mutex<Vec<u8>>>,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.ocsp.lock().unwrap() = ocsp.to_vec();
        self.inner.verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// An origin that speaks TLS; every connection is served by the script once its handshake is done.
pub struct TlsOrigin {
    pub address: String,
    /// What the handshakes showed.
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

/// A handshake as an origin saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub server_name: Option<String>,
    pub resumed: bool,
    pub client_certificate: bool,
}

pub type ServedStream = StreamOwned<ServerConnection, TcpStream>;

impl TlsOrigin {
    pub fn new(leaf: &Leaf, script: impl Fn(ServedStream) + Send + Sync + 'static) -> Self {
        Self::asking(leaf, None, script)
    }

    /// One that asks for certificates of `clients`.
    pub fn asking(
        leaf: &Leaf,
        clients: Option<&Authority>,
        script: impl Fn(ServedStream) + Send + Sync + 'static,
    ) -> Self {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let config = Arc::new(builder.with_single_cert(leaf.certificates(), leaf.private_key()).unwrap());
        let listener = TcpListener::bind(format!("{}:0", super::address())).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (note, script) = (Arc::clone(&seen), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, note, script) = (Arc::clone(&config), Arc::clone(&note), Arc::clone(&script));
                std::thread::spawn(move || {
                    let mut sock = stream.unwrap();
                    sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    let mut conn = ServerConnection::new(config).unwrap();
                    while conn.is_handshaking() {
                        if conn.complete_io(&mut sock).is_err() {
                            return;
                        }
                    }
                    note.lock().unwrap().push(Seen {
                        server_name: conn.server_name().map(str::to_owned),
                        resumed: conn.handshake_kind() == Some(HandshakeKind::Resumed),
                        client_certificate: conn.peer_certificates().is_some(),
                    });
                    script(StreamOwned::new(conn, sock));
                });
            }
        });
        Self { address, seen }
    }

    /// One that answers every request with its first line, `per_connection` times.
    pub fn answering(leaf: &Leaf, per_connection: usize) -> Self {
        Self::new(leaf, move |stream| answer(stream, per_connection))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers requests without bodies with their first lines, then ends the connection in order.
pub fn answer(mut stream: ServedStream, count: usize) {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let end = loop {
            if let Some(at) = super::client::find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            }
        };
        let head: Vec<u8> = bytes.drain(..end).collect();
        let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
        if stream.write_all(reply.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
    stream.conn.send_close_notify();
    let _last = stream.flush();
}
