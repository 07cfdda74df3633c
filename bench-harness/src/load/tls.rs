//! A stream that may be TLS, by rustls.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use monoio::net::TcpStream;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use super::{Plan, Tls};
use crate::failure::{Context as _, Failure, Result};
use crate::rt::{self, Room};

/// A record and its head.
const RECORD: usize = 17 << 10;

/// A connected stream.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// TLS over TCP.
#[derive(Debug)]
pub(super) struct TlsStream {
    tcp: TcpStream,
    session: ClientConnection,
    incoming: Room,
    outgoing: Vec<u8>,
}

/// The client's side of TLS as the plan asks for it. Sessions are remembered only where they are to be resumed.
pub(super) fn client_config(plan: &Plan) -> Result<Option<Arc<ClientConfig>>> {
    let Some(path) = plan.ca.as_ref().filter(|_| plan.tls != Tls::Off) else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).context(|| format!("cannot read {}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.context(|| format!("{} is not PEM", path.display()))?;
        roots.add(certificate).context(|| format!("{} holds no usable certificate", path.display()))?;
    }
    if roots.is_empty() {
        return Err(Failure::new(format!("{} holds no certificate", path.display())));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(algorithms()))
        .with_safe_default_protocol_versions()
        .context(|| "TLS".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = match plan.tls {
        Tls::Resumed => Resumption::in_memory_sessions(64),
        _ => Resumption::disabled(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// One curve and one cipher, which all contenders have: what is compared is the proxies, not their preferences.
fn algorithms() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

impl Stream {
    /// Makes the handshake; whether it resumed a session.
    pub(super) async fn handshake(tcp: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<(Self, bool)> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        let mut stream = TlsStream { tcp, session, incoming: rt::room(RECORD), outgoing: Vec::new() };
        loop {
            stream.flush().await?;
            if !stream.session.is_handshaking() {
                break;
            }
            if stream.receive().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let resumed = stream.session.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Self::Tls(Box::new(stream)), resumed))
    }

    /// As [`rt::read`].
    pub(super) async fn read(&mut self, mut buffer: Room, at: usize) -> (io::Result<usize>, Room) {
        let tls = match self {
            Self::Plain(tcp) => return rt::read(tcp, buffer, at).await,
            Self::Tls(tls) => tls,
        };
        loop {
            match tls.session.reader().read(&mut buffer[at..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => return (answer, buffer),
            }
            match tls.receive().await {
                // A peer that ends TCP without closing TLS: the HTTP above knows whether anything is missing.
                Ok(0) => return (Ok(0), buffer),
                Ok(_) => {}
                Err(error) => return (Err(error), buffer),
            }
            if let Err(error) = tls.flush().await {
                return (Err(error), buffer);
            }
        }
    }

    /// As [`rt::write_all`].
    pub(super) async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Plain(tcp) => rt::write_all(tcp, buffer, len).await,
            Self::Tls(tls) => {
                let written = match tls.session.writer().write_all(&buffer[..len]) {
                    Ok(()) => tls.flush().await,
                    Err(error) => Err(error),
                };
                (written, buffer)
            }
        }
    }
}

impl TlsStream {
    /// Sends what the session has to send.
    async fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.outgoing.clear();
            while self.session.wants_write() {
                self.session.write_tls(&mut self.outgoing)?;
            }
            let len = self.outgoing.len();
            let (written, outgoing) = rt::write_all(&mut self.tcp, std::mem::take(&mut self.outgoing), len).await;
            self.outgoing = outgoing;
            written?;
        }
        Ok(())
    }

    /// Receives something and gives it to the session; 0 at the end of the stream.
    async fn receive(&mut self) -> io::Result<usize> {
        let (read, incoming) = rt::read(&mut self.tcp, std::mem::take(&mut self.incoming), 0).await;
        self.incoming = incoming;
        let read = read?;
        let mut rest = &self.incoming[..read];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest)?;
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(read)
    }
}
