//! TLS connections of clients: which listener takes them, and what is done with them there.
//!
//! The ClientHello is read first, with nothing decided: its server name chooses the listener, and only then is it known
//! whether the bytes go to the library or on to an endpoint as they came. A hello may take any number of segments and
//! records; it is read until it is whole, too long or too slow.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ringway_core::tls::{ClientHello, HelloError, HelloReader};
use rustix::net::Shutdown;
use rustls::server::UnbufferedServerConnection;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError};

use super::tcp::{self, Split};
use super::{Conn, guarded, http1, linger};
use crate::buffer::{Buf, Class};
use crate::metrics::{DownstreamError, ListenerMetrics};
use crate::rt::{self, HandshakeError, Stream, Tick};
use crate::snapshot::SocketKind;
use crate::snapshot::TlsKind;
use crate::sys;
use crate::tls::{self, ServerTls, Session, Version};
use crate::worker::{Core, Generation};

/// What TLS has shown of a client.
#[derive(Debug)]
pub(super) struct Secure {
    /// The HTTPS listener that the server name chose, by its index among the routing table's.
    pub(super) listener: usize,
    pub(super) version: Version,
    pub(super) cipher: &'static str,
    pub(super) server_name: Option<String>,
    pub(super) alpn: Option<String>,
    pub(super) resumed: bool,
    /// Its certificate, if it has shown one.
    pub(super) client: Option<ClientIdentity>,
}

/// Who a client is by its certificate.
#[derive(Debug)]
pub(super) struct ClientIdentity {
    pub(super) subject: String,
    /// The certificate has been verified against the listener's authorities.
    pub(super) verified: bool,
    /// `X-Forwarded-Client-Cert`; empty unless it is verified.
    pub(super) forwarded: String,
}

/// What a connection is after its first bytes.
enum Next {
    Http(Stream),
    Relay {
        down: Stream,
        /// Bytes that go on as they came.
        first: Option<Buf>,
        /// Index of the stream's route, if one takes the server name.
        stream: Option<usize>,
    },
}

/// Serves a connection to its end.
pub(super) async fn serve(core: Rc<Core>, mut conn: Conn, stream: Stream) {
    let generation = core.generation();
    let Some(socket) = generation.socket(conn.socket) else { return stream.reset() };
    let by = rt::tick_after(socket.shared.client.timeouts.handshake);
    let opened = Box::pin(open(&core, &generation, &mut conn, stream, socket.index, by)).await;
    match opened {
        None => {}
        Some(Next::Http(stream)) => {
            let peer = conn.client.source;
            // A task of its own, as small as that of a plain connection.
            if let Some(served) = http1::serve(Rc::clone(&core), conn, stream) {
                rt::spawn(guarded(core, peer, rt::catch_unwind(Box::pin(served))));
            }
        }
        Some(Next::Relay { mut down, first, stream }) => {
            let SocketKind::Tls(tls) = &socket.shared.kind else { return down.reset() };
            let open = generation.metrics.listeners[socket.index][conn.listener].opened();
            down.count_for(open.listener(), first.as_ref().map_or(0, Buf::len));
            let idle = socket.shared.client.timeouts.stream_idle;
            let split = stream.map(|stream| Split {
                socket: socket.index,
                number: tls.split_number(stream),
                targets: &tls.streams[stream].split,
            });
            let first = RefCell::new(first);
            let up = tcp::connect(&core, &generation, split, &conn, &first).await;
            drop(generation);
            let peer = conn.client.source;
            let (relayed, first) = tcp::relayed(Rc::clone(&core), conn, open, down, up, first.into_inner(), idle);
            // A task of its own, as small as that of a TCP connection.
            rt::spawn(guarded(core, peer, rt::catch_unwind(Box::pin(tcp::carry(relayed, first)))));
        }
    }
}

/// Reads the hello, chooses the listener, and runs the handshake where it is this side's.
async fn open(
    core: &Core,
    generation: &Rc<Generation>,
    conn: &mut Conn,
    mut stream: Stream,
    socket: usize,
    by: Tick,
) -> Option<Next> {
    let SocketKind::Tls(tls) = &generation.shared.sockets[socket].kind else { return None };
    let (hello, raw) = match read_hello(&mut stream, conn.first.take(), by).await {
        Ok(read) => read,
        Err(refusal) => {
            refuse(core, conn, &mut stream, refusal).await;
            return None;
        }
    };
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (name, alpn) = (hello.server_name.name(), hello.alpn.first().map(|protocol| protocol.escape_ascii()));
        let alpn = alpn.map(|protocol| protocol.to_string());
        tracing::debug!(peer = %conn.client.source, server_name = name, alpn, ja4 = tls::ja4(&hello), "TLS hello");
    }
    let Some(listener) = tls.listener(hello.server_name.name()) else {
        refuse(core, conn, &mut stream, Refusal::NoServerName).await;
        return None;
    };
    conn.listener = listener;
    let metrics = &generation.metrics.listeners[socket][listener];
    let shake = Shake { core, metrics, hello: &hello, by };
    let found = generation.server_tls(socket, listener);
    match &tls.listeners[listener].kind {
        TlsKind::Passthrough { routes } => match route(routes, &hello) {
            Some(route) => {
                conn.client.server_name = hello.server_name.name().map(Box::from);
                Some(Next::Relay { down: stream, first: Some(raw), stream: Some(route) })
            }
            None => {
                refuse(core, conn, &mut stream, Refusal::NoServerName).await;
                None
            }
        },
        TlsKind::Terminate { routes, .. } => {
            let Some(route) = route(routes, &hello) else {
                refuse(core, conn, &mut stream, Refusal::NoServerName).await;
                return None;
            };
            conn.secure = Some(Box::new(shake.run(conn, &mut stream, raw, found, 0).await?));
            Some(Next::Relay { down: stream, first: None, stream: Some(route) })
        }
        TlsKind::Https { listener, .. } => {
            conn.secure = Some(Box::new(shake.run(conn, &mut stream, raw, found, *listener).await?));
            Some(Next::Http(stream))
        }
    }
}

fn route(routes: &ringway_core::route::HostMap<usize>, hello: &ClientHello) -> Option<usize> {
    routes.find(hello.server_name.name().unwrap_or(""), |index| Some(*index))
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It ended or broke.
    Gone,
    Late,
    /// HTTP without TLS.
    PlainHttp,
    NotTls,
    Malformed,
    TooLarge,
    NoServerName,
    /// The listener has no usable TLS.
    Unusable,
}

async fn read_hello(stream: &mut Stream, first: Option<Buf>, by: Tick) -> Result<(ClientHello, Buf), Refusal> {
    let mut reader = HelloReader::new();
    let mut buf = first.unwrap_or_else(|| Buf::new(Class::Head));
    loop {
        if !buf.is_empty() {
            match reader.read(buf.data()) {
                Ok(Some(hello)) => return Ok((hello, buf)),
                Ok(None) => {}
                Err(HelloError::NotTls) if looks_like_http(buf.data()) => return Err(Refusal::PlainHttp),
                Err(HelloError::NotTls) => return Err(Refusal::NotTls),
                Err(HelloError::Malformed) => return Err(Refusal::Malformed),
                Err(HelloError::TooLarge) => return Err(Refusal::TooLarge),
            }
        }
        if buf.room() == 0 {
            buf = larger(buf).ok_or(Refusal::TooLarge)?;
        }
        stream.rd.deadline().arm(by, Shutdown::Read);
        let (read, back) = stream.rd.read(buf).await;
        buf = back;
        if stream.rd.deadline().disarm() {
            return Err(Refusal::Late);
        }
        if !matches!(read, Ok(1..)) {
            return Err(Refusal::Gone);
        }
    }
}

/// The bytes in a larger block, once.
fn larger(buf: Buf) -> Option<Buf> {
    if buf.class() != Class::Head {
        return None;
    }
    let mut larger = Buf::new(Class::Body);
    larger.push(buf.data()).then_some(larger)
}

fn looks_like_http(bytes: &[u8]) -> bool {
    let methods: [&[u8]; 8] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"PRI "];
    methods.iter().any(|method| bytes.starts_with(method))
}

/// Counts and answers what is not taken: by an alert where the peer speaks TLS, by a status where it speaks HTTP.
async fn refuse(core: &Core, conn: &Conn, stream: &mut Stream, refusal: Refusal) {
    let reason = match refusal {
        Refusal::Gone => DownstreamError::Aborted,
        Refusal::Late => DownstreamError::HandshakeTimeout,
        Refusal::PlainHttp | Refusal::NotTls => DownstreamError::NotTls,
        Refusal::Malformed | Refusal::TooLarge => DownstreamError::BadHello,
        Refusal::NoServerName => DownstreamError::NoServerName,
        Refusal::Unusable => DownstreamError::Handshake,
    };
    core.metrics.downstream_error(reason);
    tracing::debug!(peer = %conn.client.source, ?refusal, "TLS connection refused");
    let alert = match refusal {
        Refusal::Gone | Refusal::Late | Refusal::NotTls => return,
        Refusal::PlainHttp => {
            sys::send_now(
                stream.fd(),
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 48\r\n\r\n\
                plain HTTP was sent to a port that speaks HTTPS\n",
            );
            return linger(stream, Buf::new(Class::Head)).await;
        }
        Refusal::Malformed | Refusal::TooLarge => AlertDescription::DecodeError,
        Refusal::NoServerName => AlertDescription::UnrecognisedName,
        Refusal::Unusable => AlertDescription::InternalError,
    };
    // An alert record (RFC 8446 section 6): fatal.
    sys::send_now(stream.fd(), &[21, 3, 3, 0, 2, 2, u8::from(alert)]);
    linger(stream, Buf::new(Class::Head)).await;
}

/// A handshake of this side's.
struct Shake<'a> {
    core: &'a Core,
    metrics: &'a ListenerMetrics,
    hello: &'a ClientHello,
    by: Tick,
}

impl Shake<'_> {
    async fn run(
        &self,
        conn: &Conn,
        stream: &mut Stream,
        raw: Buf,
        tls: Option<&ServerTls>,
        listener: usize,
    ) -> Option<Secure> {
        let session = tls.and_then(|tls| UnbufferedServerConnection::new(Arc::clone(&tls.config)).ok());
        let (Some(tls), Some(connection)) = (tls, session) else {
            refuse(self.core, conn, stream, Refusal::Unusable).await;
            return None;
        };
        let mut session = Session::from(connection);
        session.feed(raw);
        if let Err(error) = stream.handshake(session, self.by).await {
            self.failed(conn, &error);
            if matches!(error, HandshakeError::Protocol(_)) {
                linger(stream, Buf::new(Class::Head)).await;
            }
            return None;
        }
        let mut session = stream.tls()?.borrow_mut();
        let version = session.version()?;
        let resumed = session.is_resumed();
        self.metrics.handshake(version, resumed);
        Some(Secure {
            listener,
            version,
            cipher: session.cipher_suite().unwrap_or("unknown"),
            server_name: self.hello.server_name.name().map(str::to_owned),
            alpn: session.alpn().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
            resumed,
            client: identity(&mut session, tls.judge.as_deref()),
        })
    }

    fn failed(&self, conn: &Conn, error: &HandshakeError) {
        use rustls::Error as E;
        let reason = match error {
            HandshakeError::Late => DownstreamError::HandshakeTimeout,
            HandshakeError::Transport(_) => DownstreamError::Aborted,
            HandshakeError::Protocol(E::NoCertificatesPresented | E::InvalidCertificate(_)) => {
                DownstreamError::ClientCertificate
            }
            HandshakeError::Protocol(_) => DownstreamError::Handshake,
        };
        self.core.metrics.downstream_error(reason);
        let expired = matches!(error, HandshakeError::Protocol(E::InvalidCertificate(CertificateError::Expired)));
        tracing::debug!(peer = %conn.client.source, %error, expired, "TLS handshake failed");
    }
}

/// Who the client is, by the certificate that it has shown.
fn identity(session: &mut Session, judge: Option<&dyn ClientCertVerifier>) -> Option<ClientIdentity> {
    let chain = session.take_certificates()?;
    let (leaf, rest) = chain.split_first()?;
    let facts = tls::facts(leaf).ok()?;
    // Without a judge the handshake has verified it.
    let now = rustls::pki_types::UnixTime::now();
    let verified = judge.is_none_or(|judge| judge.verify_client_cert(leaf, rest, now).is_ok());
    let forwarded = if verified { forwarded(&facts) } else { String::new() };
    Some(ClientIdentity { subject: facts.subject, verified, forwarded })
}

/// As Envoy writes it: `Hash=...;Subject="...";URI=...;DNS=...`.
fn forwarded(facts: &ringway_core::model::CertificateFacts) -> String {
    // Values stand in a header field: nothing but visible ASCII and spaces, and quotes are escaped.
    let clean = |text: &str| -> String {
        text.chars()
            .filter(|c| matches!(c, ' '..='~'))
            .flat_map(|c| (matches!(c, '"' | '\\')).then_some('\\').into_iter().chain([c]))
            .collect()
    };
    let plain =
        |text: &str| !text.contains([',', ';', '"', '\\', '=']) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let mut out = format!("Hash={};Subject=\"{}\"", facts.fingerprint, clean(&facts.subject));
    for (key, values) in [("URI", &facts.uris), ("DNS", &facts.dns_names)] {
        for value in values {
            if plain(value) {
                out.push_str(&format!(";{key}={value}"));
            } else {
                out.push_str(&format!(";{key}=\"{}\"", clean(value)));
            }
        }
    }
    out
}
