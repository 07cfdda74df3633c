//! A stream that may be TLS, by rustls.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use monoio::net::TcpStream;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore};

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
    /// Where in `incoming` there are records that the session has not been given.
    rest: Range<usize>,
    outgoing: Vec<u8>,
}

/// Tickets of the one server that is asked, each used once and the newest first. The library's own store keeps eight,
/// which is fewer than connections that may begin at the same moment: what was meant to resume would not.
#[derive(Debug, Default)]
struct Tickets(Mutex<VecDeque<Tls13ClientSessionValue>>);

impl Tickets {
    const MOST: usize = 4096;

    fn locked(&self) -> std::sync::MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut all = self.locked();
        all.truncate(Self::MOST - 1);
        all.push_front(ticket);
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.locked().pop_front()
    }
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
        Tls::Resumed => Resumption::store(Arc::new(Tickets::default())),
        _ => Resumption::disabled(),
    };
    let name: &[u8] = if plan.protocol.is_http2() { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![name.to_vec()];
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

/// The ClientHello that asks for a name, as these clients send it.
pub(super) fn hello(name: &str) -> Result<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(Arc::new(algorithms()))
        .with_safe_default_protocol_versions()
        .context(|| "TLS".to_owned())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).context(|| format!("{name} is no server name"))?;
    let mut session = ClientConnection::new(Arc::new(config), server).context(|| "TLS".to_owned())?;
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).context(|| "TLS".to_owned())?;
    Ok(bytes)
}

impl Stream {
    /// Makes the handshake; whether it resumed a session.
    pub(super) async fn handshake(tcp: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<(Self, bool)> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        let mut stream = TlsStream { tcp, session, incoming: rt::room(RECORD), rest: 0..0, outgoing: Vec::new() };
        loop {
            stream.flush().await?;
            if !stream.session.is_handshaking() {
                break;
            }
            if !stream.receive().await? {
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
                Ok(false) => return (Ok(0), buffer),
                Ok(true) => {}
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
    /// Its parts, and what has been received and not been given to the session; for who drives it otherwise.
    pub(super) fn into_parts(self) -> (TcpStream, ClientConnection, Vec<u8>) {
        let rest = self.incoming[self.rest].to_vec();
        (self.tcp, self.session, rest)
    }

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

    /// Gives the session what has come, up to its next plaintext, for it takes no more before that is read; receives
    /// where nothing is left. `false` at the end of the stream.
    async fn receive(&mut self) -> io::Result<bool> {
        if self.rest.is_empty() {
            let (read, incoming) = rt::read(&mut self.tcp, std::mem::take(&mut self.incoming), 0).await;
            self.incoming = incoming;
            self.rest = 0..read?;
            if self.rest.is_empty() {
                return Ok(false);
            }
        }
        while !self.rest.is_empty() {
            let taken = self.session.read_tls(&mut &self.incoming[self.rest.clone()])?;
            if taken == 0 {
                // The peer has closed; what is behind that means nothing.
                self.rest = 0..0;
            }
            self.rest.start += taken;
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        Ok(true)
    }
}
