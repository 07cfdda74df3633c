//! Accepted connections: which protocol, which handler, and the boundary at which a panic ends.

mod http1;
mod tcp;
mod tls;

use std::cell::OnceCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use ringway_core::balance::key::{self, Flow};

use crate::rt::{self, Stream};
use crate::snapshot::{SocketId, SocketKind};
use crate::sys;
use crate::worker::{ConnGuard, Core};

use self::tls::Secure;

/// Whose connection it is.
#[derive(Debug)]
pub(crate) struct Client {
    /// The client's end.
    source: SocketAddr,
    /// The end that it talks to, once it is asked for.
    destination: OnceCell<SocketAddr>,
    fd: RawFd,
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
    let guard = core.conns.enter(stream.fd(), socket);
    let client = Client { source: peer, destination: OnceCell::new(), fd: stream.fd() };
    let conn = Conn { socket, client, guard, listener: 0, secure: None };
    let generation = core.generation();
    let speaks = match generation.socket(socket).map(|found| &found.shared.kind) {
        Some(SocketKind::Http { .. }) => Speaks::Http,
        Some(SocketKind::Tls(_)) => Speaks::Tls,
        Some(SocketKind::Tcp(_)) => Speaks::Tcp,
        // Its listener was removed while it waited in the queue: as if it had come a moment later.
        None => return stream.reset(),
    };
    drop(generation);
    let core = Rc::clone(core);
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

enum Speaks {
    Http,
    Tls,
    Tcp,
}

/// A panic in one connection's task closes that connection only.
async fn guarded<E>(core: Rc<Core>, peer: SocketAddr, served: impl Future<Output = Result<(), E>>) {
    if served.await.is_err() {
        panicked(&core, peer);
    }
}

fn panicked(core: &Core, peer: SocketAddr) {
    core.metrics.panics.inc();
    tracing::error!(worker = core.settings.id, %peer, "panic in a connection's task; the connection is closed");
}
