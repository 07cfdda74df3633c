//! TCP routes: a connection is given to an endpoint and relayed.

use std::rc::Rc;
use std::sync::Arc;

use ringway_core::model::{EndpointAddress, Target};

use super::Conn;
use crate::metrics::{DownstreamError, UpstreamError};
use crate::relay::{self, End, Moved};
use crate::rt::{Stream, Tick};
use crate::snapshot::SocketKind;
use crate::upstream::{self, ConnectError, Endpoint};
use crate::worker::{Core, Generation};

/// Endpoints tried for one connection, no byte of which has been sent yet.
const ATTEMPTS: usize = 3;

/// Serves one connection. What has no endpoint is reset: the API asks for an active rejection.
pub(super) async fn serve(core: Rc<Core>, conn: Conn, mut down: Stream) {
    let Conn { socket, guard, .. } = conn;
    let generation = core.generation();
    let Some(found) = generation.socket(socket) else { return down.reset() };
    let metrics = Arc::clone(&generation.metrics.listeners[found.index][0]);
    let idle = found.shared.client.timeouts.stream_idle;
    metrics.opened();
    let moved = Moved::default();
    let end = match choose(&core, &generation, found.index).await {
        Some(Chosen::Echo) => {
            drop(generation);
            relay::echo(&mut down, idle, &moved).await
        }
        Some(Chosen::Connected(mut up)) => {
            drop(generation);
            relay::relay(&mut down, &mut up, None, None, idle, &moved).await
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
    Connected(Stream),
}

async fn choose(core: &Core, generation: &Generation, socket: usize) -> Option<Chosen> {
    let SocketKind::Tcp(listener) = &generation.shared.sockets[socket].kind else { return None };
    let Some((_, split)) = &listener.route else {
        core.metrics.downstream_error(DownstreamError::NoRoute);
        return None;
    };
    let Some(Target::Backend(id)) = generation.pick(socket, 0, split) else {
        core.metrics.downstream_error(DownstreamError::InvalidBackend);
        return None;
    };
    let metrics = &generation.metrics.backends[id.0 as usize];
    let backend = generation.backend(id);
    let mut tried: Vec<*const Endpoint> = Vec::new();
    for _ in 0..ATTEMPTS.min(backend.endpoints().len()) {
        let endpoint = backend.next()?;
        if tried.contains(&Rc::as_ptr(endpoint)) {
            continue;
        }
        tried.push(Rc::as_ptr(endpoint));
        metrics.requests.inc();
        if matches!(endpoint.address, EndpointAddress::Echo(_)) {
            return Some(Chosen::Echo);
        }
        match upstream::connect(endpoint, false, Tick::MAX).await {
            Ok(connection) => return Some(Chosen::Connected(connection.stream)),
            Err(error) => metrics.error(match error {
                ConnectError::Refused => UpstreamError::ConnectRefused,
                ConnectError::Timeout => UpstreamError::ConnectTimeout,
                ConnectError::NoResources => UpstreamError::NoResources,
            }),
        }
    }
    if backend.endpoints().is_empty() {
        metrics.error(UpstreamError::NoEndpoint);
    }
    None
}
