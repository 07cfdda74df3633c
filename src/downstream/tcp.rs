//! TCP routes: a connection is given to an endpoint and relayed.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringway_core::balance::key;
use ringway_core::model::{EndpointAddress, L4Listener, Target, WeightedTarget};

use super::Conn;
use crate::buffer::{Buf, Class};
use crate::metrics::{DownstreamError, Open};
use crate::relay::{self, End, First};
use crate::rt::{Stream, Tick};
use crate::snapshot::SocketKind;
use crate::upstream::{self, Connected, Dial, Lease, Link, Marks, Reuse};
use crate::worker::{ConnGuard, Core, Generation};

/// A client's connection and what it was given: all that it is made of while it is relayed. The fields are dropped in
/// this order: the registry forgets the descriptor before the stream closes it.
pub(super) struct Relayed {
    up: Option<Upstream>,
    _open: Open,
    _guard: ConnGuard,
    down: Stream,
    core: Rc<Core>,
    /// Milliseconds without a byte after which it is over.
    idle: u32,
}

/// Serves one connection. Its future is what an idle one costs, so what it needs at its beginning only is boxed; and it
/// is a block, since a function would keep its arguments twice.
pub(super) fn serve(core: Rc<Core>, conn: Conn, down: Stream) -> impl Future<Output = ()> {
    let opened = Box::pin(open(core, conn, down));
    async move {
        if let Some((relayed, first)) = opened.await {
            carry(relayed, first).await;
        }
    }
}

async fn open(core: Rc<Core>, mut conn: Conn, mut down: Stream) -> Option<(Box<Relayed>, First)> {
    let generation = core.generation();
    let Some(found) = generation.socket(conn.socket) else {
        down.reset();
        return None;
    };
    let open = generation.metrics.listeners[found.index][0].opened();
    let idle = found.shared.client.timeouts.stream_idle;
    down.count_for(open.listener(), conn.first.as_ref().map_or(0, Buf::len));
    let split = match &found.shared.kind {
        SocketKind::Tcp(L4Listener { route: Some((_, split)), .. }) => {
            Some(Split { socket: found.index, number: 0, targets: split })
        }
        _ => None,
    };
    if conn.first.is_none() {
        match ahead(&mut down) {
            Ok(first) => conn.first = first,
            // A client that has broken off already needs no endpoint.
            Err(_broken) => {
                down.reset();
                return None;
            }
        }
    }
    let first = RefCell::new(conn.first.take());
    let up = connect(&core, &generation, split, &conn, &first).await;
    drop(generation);
    Some(relayed(core, conn, open, down, up, first.into_inner(), idle))
}

/// Puts together what [`carry`] needs, and gives up the rest; `first` holds bytes of the client's that were read already.
pub(super) fn relayed(
    core: Rc<Core>,
    conn: Conn,
    open: Open,
    down: Stream,
    up: Option<Upstream>,
    first: Option<Buf>,
    idle: Duration,
) -> (Box<Relayed>, First) {
    let first = first.map(|first| Box::new([Some(first), None]));
    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    (Box::new(Relayed { up, _open: open, _guard: conn.guard, down, idle, core }), first)
}

/// Relays between a client and what was chosen for it. What has no endpoint is reset: the API asks for an active
/// rejection.
#[allow(clippy::manual_async_fn, reason = "the arguments are held once this way")]
pub(super) fn carry(mut relayed: Box<Relayed>, mut first: First) -> impl Future<Output = ()> {
    async move {
        let idle = Duration::from_millis(relayed.idle.into());
        let Relayed { up, down, .. } = &mut *relayed;
        let end = match up {
            Some(Upstream::Echo) => {
                let first = first.take().and_then(|mut first| first[0].take());
                Box::pin(relay::echo(down, first, idle)).await
            }
            Some(Upstream::Connected(lease, up)) => {
                relay::relay(down, up, first.take(), idle, Some(&lease.settings.keepalive)).await
            }
            None => {
                down.reset();
                End::Reset
            }
        };
        if end == End::Idle {
            relayed.core.metrics.downstream_error(DownstreamError::IdleTimeout);
        }
    }
}

/// What a client has sent by the time it was accepted: it leaves with the connection to the endpoint, which then needs no
/// other operation to find out that it is there.
fn ahead(down: &mut Stream) -> io::Result<Option<Buf>> {
    let mut buf = Buf::new(Class::Head);
    let read = down.rd.read_now(&mut buf)?;
    Ok(read.is_some_and(|n| n > 0).then_some(buf))
}

/// A split of a generation, and its number there.
pub(super) struct Split<'g> {
    pub(super) socket: usize,
    pub(super) number: usize,
    pub(super) targets: &'g [WeightedTarget],
}

/// Where a connection goes.
#[derive(Debug)]
pub(super) enum Upstream {
    Echo,
    Connected(Lease, Stream),
}

/// Chooses an endpoint and connects to it. Of `first`, bytes of the client's that were read already, what has been sent
/// to the endpoint is taken.
pub(super) async fn connect(
    core: &Core,
    generation: &Generation,
    split: Option<Split<'_>>,
    conn: &Conn,
    first: &RefCell<Option<Buf>>,
) -> Option<Upstream> {
    let Some(split) = split else {
        core.metrics.downstream_error(DownstreamError::NoRoute);
        return None;
    };
    let Some(Target::Backend(id)) = generation.pick(split.socket, split.number, split.targets) else {
        core.metrics.downstream_error(DownstreamError::InvalidBackend);
        return None;
    };
    if let Some(EndpointAddress::Echo(_)) = generation.backend(id).first_address() {
        generation.metrics.backends[id.0 as usize].requests.inc();
        return Some(Upstream::Echo);
    }
    let key = generation.shared.hash_key(id).and_then(|wanted| key::of_flow(wanted, &conn.client.flow()));
    let header = generation.shared.proxy_header(id).map(|wanted| conn.header(wanted, || core.random()));
    let source = generation.shared.is_transparent(id).then_some(&conn.client.source);
    let marks = Marks { header: header.as_deref(), source };
    let dial = generation.dial(id, key, marks, Reuse::Never, false, Tick::MAX);
    let connected = upstream::connect(Dial { ahead: Some(first), ..dial }).await.ok()?;
    let Connected { mut lease, link: Link::Stream(stream), .. } = connected else { return None };
    lease.answered();
    Some(Upstream::Connected(lease, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_connection_is_a_small_task() {
        fn size<F: Future>(_of: fn(Rc<Core>, Conn, Stream) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(serve) <= 168, "{} bytes", size(serve));
        assert!(size_of::<Relayed>() <= 256, "{} bytes", size_of::<Relayed>());
    }
}
