//! TCP routes: a connection is given to an endpoint and relayed.

use std::rc::Rc;
use std::sync::Arc;

use ringway_core::balance::key;
use ringway_core::model::{EndpointAddress, Target};

use super::{Client, Conn};
use crate::metrics::DownstreamError;
use crate::relay::{self, End, Moved};
use crate::rt::{Stream, Tick};
use crate::snapshot::SocketKind;
use crate::upstream::{self, Connected, Lease, Reuse};
use crate::worker::{Core, Generation};

/// Serves one connection. What has no endpoint is reset: the API asks for an active rejection.
pub(super) async fn serve(core: Rc<Core>, conn: Conn, mut down: Stream) {
    let Conn { socket, client, guard } = conn;
    let generation = core.generation();
    let Some(found) = generation.socket(socket) else { return down.reset() };
    let metrics = Arc::clone(&generation.metrics.listeners[found.index][0]);
    let idle = found.shared.client.timeouts.stream_idle;
    metrics.opened();
    let moved = Moved::default();
    let end = match choose(&core, &generation, found.index, &client).await {
        Some(Chosen::Echo) => {
            drop(generation);
            relay::echo(&mut down, idle, &moved).await
        }
        Some(Chosen::Connected(lease, mut up)) => {
            drop(generation);
            let end = relay::relay(&mut down, &mut up, None, None, idle, &moved).await;
            drop(lease);
            end
        }
        None => {
            down.reset();
            End::Reset
        }
    };
    if end == End::Idle {
        core.metrics.downstream_error(DownstreamError::IdleTimeout);
    }
    metrics.moved(moved.up.get(), moved.down.get());
    metrics.closed();
    // The registry forgets the descriptor before the stream closes it.
    drop(guard);
    drop(down);
}

enum Chosen {
    Echo,
    Connected(Lease, Stream),
}

async fn choose(core: &Core, generation: &Generation, socket: usize, client: &Client) -> Option<Chosen> {
    let SocketKind::Tcp(listener) = &generation.shared.sockets[socket].kind else { return None };
    let Some((_, split)) = &listener.route else {
        core.metrics.downstream_error(DownstreamError::NoRoute);
        return None;
    };
    let Some(Target::Backend(id)) = generation.pick(socket, 0, split) else {
        core.metrics.downstream_error(DownstreamError::InvalidBackend);
        return None;
    };
    if let Some(EndpointAddress::Echo(_)) = generation.backend(id).first_address() {
        generation.metrics.backends[id.0 as usize].requests.inc();
        return Some(Chosen::Echo);
    }
    let key = generation.shared.hash_key(id).and_then(|wanted| key::of_flow(wanted, &client.flow()));
    let connected = upstream::connect(generation.dial(id, key, Reuse::Never, Tick::MAX)).await.ok()?;
    let Connected { mut lease, stream, .. } = connected;
    lease.answered();
    Some(Chosen::Connected(lease, stream))
}
