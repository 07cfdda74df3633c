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
use crate::metrics::DownstreamError;
use crate::relay::{self, End};
use crate::rt::{Stream, Tick};
use crate::snapshot::SocketKind;
use crate::upstream::{self, Connected, Dial, Lease, Link, Marks, Reuse};
use crate::worker::{Core, Generation};

/// Serves one connection. Its future is what an idle one costs, so what it needs at its beginning only is boxed; and it
/// is a block, since a function would keep its arguments twice.
#[allow(clippy::manual_async_fn, reason = "the arguments are held once this way")]
pub(super) fn serve(core: Rc<Core>, mut conn: Conn, mut down: Stream) -> impl Future<Output = ()> {
    async move {
        let generation = core.generation();
        let Some(found) = generation.socket(conn.socket) else { return down.reset() };
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
                Err(_broken) => return down.reset(),
            }
        }
        let up = Box::pin(connect_ahead(&core, &generation, split, &mut conn)).await;
        drop(generation);
        pass(&core, &mut down, up, conn.first.take(), idle).await;
        drop(open);
        // The registry forgets the descriptor before the stream closes it.
        drop(conn);
        drop(down);
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
pub(super) enum Upstream {
    Echo,
    /// In a box, since it is handed on: a future holds what it is given and what it makes of that.
    Connected(Box<(Lease, Stream)>),
}

/// Relays between a client and what was chosen for it; `first` holds bytes of the client's that were read already.
/// What has no endpoint is reset: the API asks for an active rejection.
pub(super) async fn pass(core: &Core, down: &mut Stream, up: Option<Upstream>, first: Option<Buf>, idle: Duration) {
    let end = match up {
        Some(Upstream::Echo) => relay::echo(down, first, idle).await,
        Some(Upstream::Connected(mut connected)) => relay::relay(down, &mut connected.1, first, None, idle).await,
        None => {
            down.reset();
            End::Reset
        }
    };
    if end == End::Idle {
        core.metrics.downstream_error(DownstreamError::IdleTimeout);
    }
}

/// The same, with what the connection itself has to send.
async fn connect_ahead(
    core: &Core,
    generation: &Generation,
    split: Option<Split<'_>>,
    conn: &mut Conn,
) -> Option<Upstream> {
    let first = RefCell::new(conn.first.take());
    let up = connect(core, generation, split, conn, &first).await;
    conn.first = first.into_inner();
    up
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
    Some(Upstream::Connected(Box::new((lease, stream))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_connection_is_a_small_task() {
        fn size<F: Future>(_of: fn(Rc<Core>, Conn, Stream) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(serve) <= 1600, "{} bytes", size(serve));
    }
}
