//! Accepted connections: which protocol, which handler, and the boundary at which a panic ends.

mod http1;
mod proxy_protocol;
mod tcp;
mod tls;
mod udp;

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ringway_core::balance::key::{self, Flow};
use rustix::net::Shutdown;

use crate::buffer::Buf;
use crate::metrics::{AcceptError, DownstreamError};
use crate::rt::{self, Signal, Stream};
use crate::snapshot::{SocketId, SocketKind};
use crate::sys;
use crate::worker::{AtLimit, ConnGuard, Core, Counting, Place};

use self::tls::Secure;

/// Whose connection it is.
#[derive(Debug)]
pub(crate) struct Client {
    /// The client's end.
    source: SocketAddr,
    /// The end that it talks to, once it is asked for.
    destination: OnceCell<SocketAddr>,
    fd: RawFd,
    /// The name that it asked for in a ClientHello that is passed on.
    server_name: Option<Box<str>>,
    /// An identity for PROXY headers, once it is asked for.
    id: OnceCell<u64>,
}

impl Client {
    /// The client's address.
    fn ip(&self) -> IpAddr {
        self.source.ip()
    }

    /// Both ends, while the connection is open.
    fn flow(&self) -> Flow {
        let destination = *self.destination.get_or_init(|| sys::local_address(self.fd));
        Flow { source: self.source, destination, protocol: key::TCP }
    }
}

/// What is known of a connection besides its bytes.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Where it was accepted.
    socket: SocketId,
    /// Who it is.
    client: Client,
    /// Its place among the core's connections. Dropped before the stream is closed.
    guard: ConnGuard,
    /// Its listener, by index on the socket.
    listener: usize,
    /// What TLS has shown of it.
    secure: Option<Box<Secure>>,
    /// Bytes that have been read behind a PROXY header.
    first: Option<Buf>,
}

/// Serves an accepted connection in a task of its own.
pub fn start(core: &Rc<Core>, socket: SocketId, fd: OwnedFd, peer: SocketAddr) {
    let stream = match Stream::new(fd) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, worker = core.settings.id, "cannot use connection");
            return;
        }
    };
    let Ok(place) = place(core, socket) else {
        core.metrics.accept_error(AcceptError::ListenerLimit);
        return stream.reset();
    };
    let guard = core.conns.enter(stream.fd(), socket, place);
    let (destination, fd) = (OnceCell::new(), stream.fd());
    let client = Client { source: peer, destination, fd, server_name: None, id: OnceCell::new() };
    let conn = Conn { socket, client, guard, listener: 0, secure: None, first: None };
    let generation = core.generation();
    let speaks = match generation.socket(socket).map(|found| &found.shared.kind) {
        Some(SocketKind::Http { .. }) => Speaks::Http,
        Some(SocketKind::Tls(_)) => Speaks::Tls,
        Some(SocketKind::Tcp(_)) => Speaks::Tcp,
        // Its listener was removed while it waited in the queue: as if it had come a moment later.
        None | Some(SocketKind::Udp(_)) => return stream.reset(),
    };
    let proxied = generation.socket(socket).is_some_and(|found| found.shared.client.proxy_protocol.is_some());
    drop(generation);
    if proxied {
        let served = proxied_first(Rc::clone(core), conn, stream, speaks);
        rt::spawn(guarded(Rc::clone(core), peer, rt::catch_unwind(Box::pin(served))));
    } else {
        serve(core, conn, stream, speaks);
    }
}

/// A place among the socket's connections, where they are limited; an error when there is none.
fn place(core: &Core, socket: SocketId) -> Result<Option<Place>, ()> {
    let generation = core.generation();
    let Some(found) = generation.socket(socket) else { return Ok(None) };
    let Some(limit) = found.shared.client.limits.connections else { return Ok(None) };
    Place::take(&found.shared.taken, limit).map(Some).ok_or(())
}

/// Reads the PROXY header that the socket's connections begin with, and goes on.
async fn proxied_first(core: Rc<Core>, mut conn: Conn, mut stream: Stream, speaks: Speaks) {
    let generation = core.generation();
    let policy = generation.socket(conn.socket).and_then(|found| found.shared.client.proxy_protocol.as_ref());
    if let Some(policy) = policy
        && !proxy_protocol::read(&core, policy, &mut conn, &mut stream).await
    {
        stream.reset();
        // The registry forgets the descriptor before the stream closes it.
        drop(conn);
        return;
    }
    serve(&core, conn, stream, speaks);
}

/// Counts a connection for its client, where those of each are limited. Who it is stands in the PROXY header, where there
/// is one.
fn count_for_client(core: &Core, conn: &mut Conn) -> Result<(), AtLimit> {
    let generation = core.generation();
    let Some(socket) = generation.socket(conn.socket) else { return Ok(()) };
    match generation.hold_connection(socket, conn.client.ip())? {
        Counting::Unlimited => {}
        Counting::Counted(held) => conn.guard.count_for_client(held),
        Counting::Full => core.metrics.downstream_error(DownstreamError::LimitFull),
    }
    Ok(())
}

/// Serves a connection in a task of its own, as small as its protocol allows.
fn serve(core: &Rc<Core>, mut conn: Conn, stream: Stream, speaks: Speaks) {
    if count_for_client(core, &mut conn) == Err(AtLimit) {
        core.metrics.accept_error(AcceptError::ClientLimit);
        stream.reset();
        // The registry forgets the descriptor before the stream closes it.
        return drop(conn);
    }
    let core = Rc::clone(core);
    let peer = conn.client.source;
    match speaks {
        Speaks::Http => {
            let Some(served) = http1::serve(Rc::clone(&core), conn, stream) else { return };
            rt::spawn(guarded(core, peer, rt::catch_unwind(Box::pin(served))));
        }
        Speaks::Tls => {
            let served = rt::catch_unwind(Box::pin(tls::serve(Rc::clone(&core), conn, stream)));
            rt::spawn(guarded(core, peer, served));
        }
        Speaks::Tcp => {
            let served = rt::catch_unwind(Box::pin(tcp::serve(Rc::clone(&core), conn, stream)));
            rt::spawn(guarded(core, peer, served));
        }
    }
}

/// Serves a bound UDP socket until told to stop.
pub fn start_udp(core: &Rc<Core>, socket: SocketId, fd: OwnedFd, stop: Rc<Signal>) {
    if let Err(error) = udp::start(core, socket, fd, stop) {
        tracing::error!(%error, worker = core.settings.id, "cannot serve UDP listener");
    }
}

#[derive(Debug, Clone, Copy)]
enum Speaks {
    Http,
    Tls,
    Tcp,
}

/// Says that nothing more will come and throws away what the client still sends, within bounds, so that the answer is
/// not lost to the reset that closing with unread bytes causes (RFC 9112 section 9.6).
async fn linger(stream: &mut Stream, mut buf: Buf) {
    const LIMIT: usize = 1 << 20;
    const PATIENCE: Duration = Duration::from_secs(2);
    stream.wr.finish().await;
    stream.rd.deadline().arm(rt::tick_after(PATIENCE), Shutdown::Both);
    let mut thrown = 0;
    while thrown < LIMIT {
        buf.clear();
        let (read, back) = stream.rd.read(buf).await;
        buf = back;
        match read {
            Ok(0) | Err(_) => break,
            Ok(n) => thrown += n,
        }
    }
    stream.rd.deadline().disarm();
}

/// A panic in one connection's task closes that connection only.
fn guarded<E>(
    core: Rc<Core>,
    peer: SocketAddr,
    mut served: impl Future<Output = Result<(), E>> + Unpin,
) -> impl Future<Output = ()> {
    // Not an async function, which would hold its arguments twice; and of the address what a message needs, which is half.
    let (ip, port) = (peer.ip(), peer.port());
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    poll_fn(move |cx| {
        Pin::new(&mut served).poll(cx).map(|ended| {
            if ended.is_err() {
                panicked(&core, SocketAddr::new(ip.to_canonical(), port));
            }
        })
    })
}

/// Gives memory back that requests have used, a part of it.
pub fn trim() {
    http1::trim();
}

fn panicked(core: &Core, peer: SocketAddr) {
    core.metrics.panics.inc();
    tracing::error!(worker = core.settings.id, %peer, "panic in a connection's task; the connection is closed");
}
