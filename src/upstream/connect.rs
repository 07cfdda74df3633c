//! Getting a connection: which endpoint, a kept connection or a new one, another endpoint where that fails. One
//! implementation for requests and for TCP connections.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringway_core::balance::Maglev;
use ringway_core::model::{EndpointAddress, UpstreamHttp};

use super::multiplexed::{Joined, Opening};
use super::{Balanced, Endpoint, Gate, Kind, Lease, Marks, MultiplexedSlot, Permit, Pooled, Tried};
use rustix::net::Shutdown;

use crate::buffer::{Buf, Class};
use crate::http2::{Client, ClientSettings};
use crate::metrics::{BackendMetrics, UpstreamError};
use crate::rt::{self, HandshakeError, Signal, Stream, Tick};
use crate::sys;
use crate::tls::ClientTls;

/// How long a TLS handshake with an endpoint may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The endpoint, which has the request or connection in flight as long as this lives.
    pub lease: Lease,
    /// The connection, or a place on one.
    pub link: Link,
    /// It has carried an exchange before: its peer may have ended it in the meantime.
    pub reused: bool,
}

/// What a request travels on.
#[derive(Debug)]
pub enum Link {
    /// A connection of its own.
    Stream(Stream),
    /// A place on one of HTTP/2.
    Http2(MultiplexedSlot),
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// No endpoint is ready, or none is left that has not been tried.
    NoEndpoint,
    /// Refused, unreachable, reset.
    Refused,
    /// Not established in time.
    Timeout,
    /// This process has no descriptor or memory left for it.
    NoResources,
    /// The TLS handshake failed, or there is no TLS at the other end.
    TlsHandshake,
    /// The endpoint's certificate is not valid, or not for it.
    TlsCertificate,
    /// The backend's limits are reached, and so is that of those who may wait.
    Overflow,
    /// The backend's limits were reached for as long as one may wait.
    PendingTimeout,
    /// Whoever wanted it has given it up.
    GivenUp,
}

/// What became of all attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectFailure {
    /// The last one's error.
    pub error: ConnectError,
    /// Endpoints that were tried.
    pub attempts: u32,
}

/// Whether a kept connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// No: what comes is no request.
    Never,
    /// Yes.
    Kept,
    /// Yes, once it has been looked at: what is sent must not be sent twice.
    KeptAndLookedAt,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'b> {
    /// The backend.
    pub backend: &'b Balanced,
    /// Its counters.
    pub metrics: &'b BackendMetrics,
    /// The table of its consistent hash.
    pub table: Option<&'b Maglev>,
    /// The hash of what that goes by.
    pub key: Option<u64>,
    /// The endpoint that is wanted before any other.
    pub wanted: Option<u32>,
    /// What makes it its client's; a kept connection has to have the same.
    pub marks: Marks<'b>,
    /// Endpoints that may be tried.
    pub attempts: u32,
    /// Whether a kept connection will do.
    pub reuse: Reuse,
    /// What comes asks for another protocol than HTTP, as HTTP/1.1 does it.
    pub upgrade: bool,
    /// Until when, besides the endpoint's own limit.
    pub by: Tick,
    /// Raised when it is not wanted any more.
    pub gone: Option<&'b Signal>,
    /// Bytes that are relayed, of which as many as can be have been sent when there is a connection in plain.
    pub ahead: Option<&'b RefCell<Option<Buf>>>,
}

impl Dial<'_> {
    /// Bytes that have not been sent.
    fn keep(&self, rest: Option<Buf>) {
        if let (Some(ahead), Some(rest)) = (self.ahead, rest) {
            *ahead.borrow_mut() = Some(rest);
        }
    }
}

/// A connection to one of a backend's endpoints. Where an endpoint cannot be connected to, nothing has been sent, and
/// another one is tried. What is given up has nothing in flight; an attempt that others can use goes on without it.
pub async fn connect(dial: Dial<'_>) -> Result<Connected, ConnectFailure> {
    let mut attempts = pin!(attempts(dial));
    poll_fn(|task| match (attempts.as_mut().poll(task), dial.gone) {
        (Poll::Pending, Some(gone)) => {
            pin!(gone.wait()).poll(task).map(|()| Err(ConnectFailure { error: ConnectError::GivenUp, attempts: 0 }))
        }
        (polled, _) => polled,
    })
    .await
}

async fn attempts(dial: Dial<'_>) -> Result<Connected, ConnectFailure> {
    let mut tried = Tried::default();
    let mut attempts = 0;
    let mut last = ConnectError::NoEndpoint;
    let mut place = match dial.backend.gate() {
        None => None,
        Some(gate) => match gate.enter(Kind::Request, dial.by, || false).await {
            Ok(place) => place,
            Err(error) => {
                dial.metrics.error(error.into());
                return Err(ConnectFailure { error, attempts });
            }
        },
    };
    while attempts < dial.attempts {
        let wanted = dial.wanted.and_then(|index| dial.backend.give(index as usize, &tried));
        let Some(mut lease) = wanted.or_else(|| dial.backend.pick(dial.key, dial.table, &tried)) else { break };
        attempts += 1;
        dial.metrics.requests.inc();
        match to_endpoint(&mut lease, &dial).await {
            Ok((link, reused)) => {
                lease.request = place.take();
                return Ok(Connected { lease, link, reused });
            }
            Err(ConnectError::GivenUp) => return Err(ConnectFailure { error: ConnectError::GivenUp, attempts }),
            Err(error) => last = error,
        }
        dial.metrics.error(last.into());
        let is_ours = matches!(last, ConnectError::NoResources | ConnectError::Overflow | ConnectError::PendingTimeout);
        if is_ours || rt::now() >= dial.by {
            break;
        }
        tried.add(&lease);
    }
    if attempts == 0 {
        dial.metrics.error(UpstreamError::NoEndpoint);
    }
    Err(ConnectFailure { error: last, attempts })
}

impl From<ConnectError> for UpstreamError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NoEndpoint => Self::NoEndpoint,
            ConnectError::Refused => Self::ConnectRefused,
            ConnectError::Timeout => Self::ConnectTimeout,
            // Which is nobody's error.
            ConnectError::GivenUp | ConnectError::NoResources => Self::NoResources,
            ConnectError::TlsHandshake => Self::TlsHandshake,
            ConnectError::TlsCertificate => Self::TlsCertificate,
            ConnectError::Overflow => Self::Overflow,
            ConnectError::PendingTimeout => Self::PendingTimeout,
        }
    }
}

/// A kept connection, or a new one by `deadline` or the endpoint's connect timeout, whichever is first.
async fn to_endpoint(lease: &mut Lease, dial: &Dial<'_>) -> Result<(Link, bool), ConnectError> {
    let Dial { reuse, by: deadline, .. } = *dial;
    let endpoint = Rc::clone(lease);
    let versions = Versions::wanted(dial, &endpoint);
    let mut opening: Option<Opening> = None;
    loop {
        if versions.http2() {
            // An attempt that has not found a place to connect from is over: others may find what it waits for.
            drop(opening.take());
            match endpoint.multiplexed.join(dial.marks, endpoint.settings.http2.max_streams, deadline).await? {
                Joined::Slot(slot) => return Ok((Link::Http2(slot), true)),
                Joined::Opening => opening = Some(Opening::new(&endpoint)),
                Joined::Unavailable => {}
            }
        }
        if reuse != Reuse::Never
            && versions != Versions::Http2
            && let Some(Pooled(stream, place)) = endpoint.take(reuse == Reuse::KeptAndLookedAt, dial.marks)
        {
            lease.connection = place;
            return Ok((Link::Stream(stream), true));
        }
        let Some(gate) = dial.backend.gate() else { break };
        let kept = || {
            (reuse != Reuse::Never && endpoint.has_kept(dial.marks))
                || (versions.http2() && endpoint.multiplexed.has_room(dial.marks))
        };
        if let Some(place) = connection_place(gate, dial.backend, deadline, kept).await? {
            lease.connection = Some(place);
            break;
        }
    }
    let first = opening_bytes(dial, endpoint.tls.is_some())?;
    let (source, has_header) = (dial.marks.source_ip(), dial.marks.header.is_some());
    let (relayed, by) = (dial.ahead.is_some(), endpoint.connect_by().min(deadline));
    let wanted = Wanted { versions, source, has_header, relayed, by, deadline };
    let mut attempt = Box::pin(open(Rc::clone(&endpoint), wanted, first));
    let given_up = async {
        match dial.gone {
            Some(gone) => gone.wait().await,
            None => std::future::pending().await,
        }
    };
    let Ok((opened, rest)) = rt::race(attempt.as_mut(), given_up).await else {
        if dial.marks.is_empty() && reuse != Reuse::Never {
            go_on(attempt, endpoint, lease.connection.take(), opening);
        }
        return Err(ConnectError::GivenUp);
    };
    if let Some(opening) = &mut opening {
        opening.ended(opened.as_ref().err().copied());
    }
    dial.keep(rest);
    let link = match opened? {
        Opened::Stream(stream) => Link::Stream(stream),
        Opened::Http2(client) => Link::Http2(endpoint.multiplexed.put(client, dial.marks, lease.connection.take())),
    };
    drop(opening);
    Ok((link, false))
}

/// Attempts of an endpoint's on one core that go on without the request that began them. Clients that give up sooner than
/// a connection is there would never get one otherwise; those beyond are ended.
const GOING_ON: u32 = 16;

/// Has an attempt go on, and its connection kept.
fn go_on(
    attempt: Pin<Box<impl Future<Output = (Result<Opened, ConnectError>, Option<Buf>)> + 'static>>,
    endpoint: Rc<Endpoint>,
    place: Option<Permit>,
    mut opening: Option<Opening>,
) {
    if endpoint.going_on.get() >= GOING_ON {
        return;
    }
    endpoint.going_on.set(endpoint.going_on.get() + 1);
    rt::spawn(async move {
        let (opened, _nothing) = attempt.await;
        endpoint.going_on.set(endpoint.going_on.get() - 1);
        if let Some(opening) = &mut opening {
            opening.ended(opened.as_ref().err().copied());
        }
        let gate = place.as_ref().map(Permit::gate);
        match opened {
            Ok(Opened::Stream(stream)) => endpoint.put(stream, Marks::default(), place),
            Ok(Opened::Http2(client)) => drop(endpoint.multiplexed.put(client, Marks::default(), place)),
            Err(_nobody_waits) => drop(place),
        }
        drop(opening);
        if let Some(gate) = gate {
            gate.wake(Kind::Connection);
        }
    });
}

/// Which versions of HTTP a connection may turn out to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// None: it is no request's.
    Raw,
    Http1,
    Http2,
    /// What the endpoint chooses in its handshake.
    Either,
}

impl Versions {
    fn wanted(dial: &Dial<'_>, endpoint: &Endpoint) -> Self {
        match endpoint.settings.http {
            _ if dial.reuse == Reuse::Never => Self::Raw,
            UpstreamHttp::Http2 => Self::Http2,
            UpstreamHttp::Negotiated if !dial.upgrade && endpoint.tls.is_some() => Self::Either,
            UpstreamHttp::Negotiated | UpstreamHttp::Http1 => Self::Http1,
        }
    }

    fn http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Either)
    }

    /// What is offered in a handshake (RFC 7301).
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Raw => &[],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Either => &[b"h2", b"http/1.1"],
        }
    }
}

/// How a connection is to be made.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    versions: Versions,
    /// Where it leaves from.
    source: Option<IpAddr>,
    /// What it begins with is a header, which has to leave.
    has_header: bool,
    /// It is for a connection that is relayed as bytes.
    relayed: bool,
    by: Tick,
    deadline: Tick,
}

/// What has been made.
enum Opened {
    Stream(Stream),
    Http2(Rc<Client>),
}

/// A new connection that begins with `first`, and what could not be sent of that. It needs nothing of the request that it
/// is for.
async fn open(
    endpoint: Rc<Endpoint>,
    wanted: Wanted,
    first: Option<Buf>,
) -> (Result<Opened, ConnectError>, Option<Buf>) {
    let Wanted { versions, has_header, by, deadline, .. } = wanted;
    let (stream, rest) = match &endpoint.address {
        EndpointAddress::Tcp(address) => match socket_to(*address, &endpoint, &wanted) {
            Ok(socket) => rt::connect_tcp(socket, by, first).await,
            Err(error) => (Err(error), first),
        },
        EndpointAddress::Unix(path) => (rt::connect_unix(path), first),
        EndpointAddress::Echo(_) => (Err(io::ErrorKind::Unsupported.into()), first),
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return (Err(classify(&error)), rest.filter(|_| !has_header)),
    };
    let rest = match rest {
        Some(rest) if has_header => match send(&mut stream, rest, by).await {
            Ok(()) => None,
            Err(error) => return (Err(error), None),
        },
        rest => rest,
    };
    let mut chosen = versions == Versions::Http2;
    if let Some(tls) = &endpoint.tls {
        let secured = secure(&mut stream, tls, versions.alpn(), rt::tick_after(HANDSHAKE).min(deadline)).await;
        if let Err(error) = secured {
            return (Err(error), rest);
        }
        if versions == Versions::Either {
            chosen = stream.tls().is_some_and(|session| session.borrow().alpn() == Some(b"h2"));
            endpoint.multiplexed.chosen(chosen);
        }
    }
    if !chosen {
        return (Ok(Opened::Stream(stream)), rest);
    }
    let http2 = endpoint.settings.http2;
    let settings = ClientSettings {
        max_streams: http2.max_streams,
        ping_interval: http2.ping_interval,
        ping_timeout: http2.ping_timeout,
        scheme: if endpoint.tls.is_some() { "https" } else { "http" },
    };
    (Ok(Opened::Http2(Client::start(stream, settings))), rest)
}

/// A socket that is connecting. One of a relayed connection is looked after when it turns out to last
/// ([`crate::relay::relay`]).
fn socket_to(address: SocketAddr, endpoint: &Endpoint, wanted: &Wanted) -> io::Result<OwnedFd> {
    let socket = sys::connect_tcp(address, wanted.source, endpoint.settings.congestion.as_deref())?;
    if !wanted.relayed {
        sys::look_after(socket.as_raw_fd(), endpoint.settings.keepalive)?;
    }
    Ok(socket)
}

/// A place for a new connection; `None` where a kept one has come back in the meantime.
async fn connection_place(
    gate: &Rc<Gate>,
    backend: &Balanced,
    by: Tick,
    kept: impl Fn() -> bool,
) -> Result<Option<Permit>, ConnectError> {
    if let Some(place) = gate.try_enter(Kind::Connection) {
        return Ok(Some(place));
    }
    // Connections of this core that nobody uses are in the way of one that is needed.
    if !kept() {
        backend.endpoints().iter().for_each(|endpoint| endpoint.clear());
    }
    gate.enter(Kind::Connection, by, kept).await
}

/// What a connection begins with, as far as it is known: a header, or bytes that are relayed.
fn opening_bytes(dial: &Dial<'_>, encrypted: bool) -> Result<Option<Buf>, ConnectError> {
    match (dial.marks.header, dial.ahead) {
        (Some(header), _) => {
            let mut buf = Buf::new(Class::Head);
            if buf.push(header) { Ok(Some(buf)) } else { Err(ConnectError::Refused) }
        }
        (None, Some(ahead)) if !encrypted => Ok(ahead.borrow_mut().take().filter(|first| !first.is_empty())),
        (None, _) => Ok(None),
    }
}

/// Sends what is left of a header, ahead of everything else.
async fn send(stream: &mut Stream, rest: Buf, by: Tick) -> Result<(), ConnectError> {
    stream.wr.deadline().arm(by, Shutdown::Both);
    let len = rest.len();
    let (sent, _buf) = stream.wr.write_all(rest, len).await;
    let late = stream.wr.deadline().disarm();
    match sent {
        _ if late => Err(ConnectError::Timeout),
        Ok(()) => Ok(()),
        Err(error) => Err(classify(&error)),
    }
}

/// Encrypts a new connection. Nothing has been sent on it, and nothing that came before its end of the handshake has
/// been or will be read as an answer: bytes in plain are no handshake (CVE-2026-1642).
async fn secure(stream: &mut Stream, tls: &ClientTls, alpn: &[&[u8]], by: Tick) -> Result<(), ConnectError> {
    let session = tls.connect(alpn).map_err(|error| {
        tracing::error!(%error, "no TLS session can be made for an endpoint");
        ConnectError::TlsHandshake
    })?;
    Box::pin(stream.handshake(session, by)).await.map_err(|error| {
        tracing::debug!(%error, "TLS handshake with an endpoint failed");
        match error {
            HandshakeError::Late => ConnectError::Timeout,
            HandshakeError::Protocol(rustls::Error::InvalidCertificate(_)) => ConnectError::TlsCertificate,
            HandshakeError::Protocol(_) | HandshakeError::Transport(_) => ConnectError::TlsHandshake,
        }
    })
}

fn classify(error: &io::Error) -> ConnectError {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::ADDRNOTAVAIL
            | Errno::PERM
            | Errno::ACCESS,
        ) => ConnectError::NoResources,
        Some(Errno::TIMEDOUT) => ConnectError::Timeout,
        _ if error.kind() == io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Refused,
    }
}
