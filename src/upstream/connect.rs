//! Getting a connection: which endpoint, a kept connection or a new one, another endpoint where that fails. One
//! implementation for requests and for TCP connections.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringway_core::balance::Maglev;
use ringway_core::model::EndpointAddress;

use super::{Balanced, Gate, Kind, Lease, Permit, Pooled, Tried};
use rustix::net::Shutdown;

use crate::buffer::{Buf, Class};
use crate::metrics::{BackendMetrics, UpstreamError};
use crate::rt::{self, HandshakeError, Stream, Tick};
use crate::tls::ClientTls;

/// How long a TLS handshake with an endpoint may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The endpoint, which has the request or connection in flight as long as this lives.
    pub lease: Lease,
    /// The stream.
    pub stream: Stream,
    /// It has carried an exchange before: its peer may have ended it in the meantime.
    pub reused: bool,
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
    /// A PROXY protocol header to be sent ahead of everything else; a kept connection has to have begun with the same.
    pub header: Option<&'b [u8]>,
    /// Endpoints that may be tried.
    pub attempts: u32,
    /// Whether a kept connection will do.
    pub reuse: Reuse,
    /// Until when, besides the endpoint's own limit.
    pub by: Tick,
}

/// A connection to one of a backend's endpoints. Where an endpoint cannot be connected to, nothing has been sent, and
/// another one is tried.
pub async fn connect(dial: Dial<'_>) -> Result<Connected, ConnectFailure> {
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
        let Some(mut lease) = dial.backend.pick(dial.key, dial.table, &tried) else { break };
        attempts += 1;
        dial.metrics.requests.inc();
        match to_endpoint(&mut lease, &dial).await {
            Ok((stream, reused)) => {
                lease.request = place.take();
                return Ok(Connected { lease, stream, reused });
            }
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
            ConnectError::NoResources => Self::NoResources,
            ConnectError::TlsHandshake => Self::TlsHandshake,
            ConnectError::TlsCertificate => Self::TlsCertificate,
            ConnectError::Overflow => Self::Overflow,
            ConnectError::PendingTimeout => Self::PendingTimeout,
        }
    }
}

/// A kept connection, or a new one by `deadline` or the endpoint's connect timeout, whichever is first.
async fn to_endpoint(lease: &mut Lease, dial: &Dial<'_>) -> Result<(Stream, bool), ConnectError> {
    let Dial { header, reuse, by: deadline, .. } = *dial;
    let endpoint = Rc::clone(lease);
    loop {
        if reuse != Reuse::Never
            && let Some(Pooled(stream, place)) = endpoint.take(reuse == Reuse::KeptAndLookedAt, header)
        {
            lease.connection = place;
            return Ok((stream, true));
        }
        let Some(gate) = dial.backend.gate() else { break };
        let kept = || reuse != Reuse::Never && endpoint.has_kept(header);
        if let Some(place) = connection_place(gate, dial.backend, deadline, kept).await? {
            lease.connection = Some(place);
            break;
        }
    }
    let stream = match &endpoint.address {
        EndpointAddress::Tcp(address) => rt::connect_tcp(*address, endpoint.connect_by().min(deadline)).await,
        EndpointAddress::Unix(path) => rt::connect_unix(path),
        EndpointAddress::Echo(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    let mut stream = stream.map_err(|error| classify(&error))?;
    if let Some(header) = header {
        introduce(&mut stream, header, endpoint.connect_by().min(deadline)).await?;
    }
    if let Some(tls) = &endpoint.tls {
        secure(&mut stream, tls, rt::tick_after(HANDSHAKE).min(deadline)).await?;
    }
    Ok((stream, false))
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

/// Sends a header ahead of everything else.
async fn introduce(stream: &mut Stream, header: &[u8], by: Tick) -> Result<(), ConnectError> {
    let mut buf = Buf::new(Class::Head);
    if !buf.push(header) {
        return Err(ConnectError::Refused);
    }
    stream.wr.deadline().arm(by, Shutdown::Both);
    let (sent, _buf) = stream.wr.write_all(buf, header.len()).await;
    let late = stream.wr.deadline().disarm();
    match sent {
        _ if late => Err(ConnectError::Timeout),
        Ok(()) => Ok(()),
        Err(error) => Err(classify(&error)),
    }
}

/// Encrypts a new connection. Nothing has been sent on it, and nothing that came before its end of the handshake has
/// been or will be read as an answer: bytes in plain are no handshake (CVE-2026-1642).
async fn secure(stream: &mut Stream, tls: &ClientTls, by: Tick) -> Result<(), ConnectError> {
    let session = tls.connect().map_err(|error| {
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
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            ConnectError::NoResources
        }
        Some(Errno::TIMEDOUT) => ConnectError::Timeout,
        _ if error.kind() == io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Refused,
    }
}
