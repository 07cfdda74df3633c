//! Accepted connections: which protocol, which handler, and the boundary at which a panic ends.

mod http1;
mod tcp;

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
    let conn = Conn { socket, client, guard };
    let generation = core.generation();
    let is_http = match generation.socket(socket) {
        Some(found) => matches!(found.shared.kind, SocketKind::Http { .. }),
        // Its listener was removed while it waited in the queue: as if it had come a moment later.
        None => return stream.reset(),
    };
    drop(generation);
    let core = Rc::clone(core);
    if is_http {
        let Some(served) = http1::serve(Rc::clone(&core), conn, stream) else { return };
        rt::spawn(guarded(core, peer, rt::catch_unwind(Box::pin(served))));
    } else {
        let served = rt::catch_unwind(Box::pin(tcp::serve(Rc::clone(&core), conn, stream)));
        rt::spawn(guarded(core, peer, served));
    }
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
