//! `ringway explain`: where a request, connection or datagram goes, and why.
//!
//! A configuration is compiled as a worker's would be, and the answers are those of the code that serves: heads are
//! parsed by `core::http1::request`, rules found by `core::route`, heads written by `core::http1::encode`, servers chosen
//! by `core::balance`. Nothing here judges again; it asks, and puts down what it is told.

mod dsr;
mod endpoints;
mod http;
mod question;
mod session;
mod stream;
mod text;
mod tls;

use std::net::SocketAddr;

use ringway_core::balance::key::Flow;
use ringway_core::dsr::Transport;
use ringway_core::model::{LoadBalancer, Model, RetryBudget, Target, WeightedTarget};
use serde_json::{Value, json};

use crate::snapshot::{Snapshot, SocketIds, SocketKind, SocketSnapshot};

pub use question::{Peer, Question, Scheme, Url};
pub use text::render;

/// What a running process has told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Running {
    /// The `dsr` part of its status, with the flows that it remembers.
    pub dsr: Value,
    /// What its endpoints work on, as `/backends` has it.
    pub backends: Value,
}

/// Where it goes. `running` is what a running process knows, if one was asked.
pub fn explain(model: &Model, question: &Question, running: Option<&Running>) -> Result<Value, String> {
    if let Some(forwarded) = dsr::explain(model, question, running.map(|running| &running.dsr))? {
        return Ok(forwarded);
    }
    let snapshot = Snapshot::compile(1, model.clone(), &mut SocketIds::default());
    let socket = find_socket(&snapshot, question)?;
    let mut out = json!({
        "url": question.url.to_string(),
        "socket": { "address": socket.bind.to_string(), "protocol": socket.kind.protocol() },
        "from": question.from.map(|from| from.to_string()),
    });
    if let Some(limit) = &socket.client.per_client {
        let exempt = question.from.is_some_and(|from| limit.exempt.get(from.ip) == Some(true));
        out["connectionsPerClient"] = json!({ "value": limit.connections, "exempt": exempt });
    }
    let world = World { snapshot: &snapshot, socket, question, running: running.map(|running| &running.backends) };
    match (&socket.kind, question.url.scheme) {
        (SocketKind::Http { table, listeners }, _) => http::explain(&world, table, listeners, None, &mut out),
        (SocketKind::Tls(tls), _) => tls::explain(&world, tls, &mut out),
        (SocketKind::Tcp(listener) | SocketKind::Udp(listener), _) => stream::explain(&world, listener, &mut out),
    }
    Ok(out)
}

/// What a question is asked about.
struct World<'w> {
    snapshot: &'w Snapshot,
    socket: &'w SocketSnapshot,
    question: &'w Question,
    /// What the endpoints of a running process work on.
    running: Option<&'w Value>,
}

impl World<'_> {
    /// Both ends of the client's connection, if it is said who the client is.
    fn flow(&self, protocol: u8) -> Option<Flow> {
        let from = self.question.from?;
        let (ip, port) = self.question.destination();
        let destination = SocketAddr::new(ip.unwrap_or_else(|| self.socket.bind.ip()), port);
        Some(Flow { source: SocketAddr::new(from.ip, from.port.unwrap_or(0)), destination, protocol })
    }
}

/// Whether a socket of this kind is what a URL of this scheme connects to.
fn speaks(kind: &SocketKind, scheme: Scheme) -> bool {
    match scheme {
        Scheme::Http => matches!(kind, SocketKind::Http { .. }),
        Scheme::Https | Scheme::Tls => matches!(kind, SocketKind::Tls(_)),
        Scheme::Tcp => matches!(kind, SocketKind::Tcp(_)),
        Scheme::Udp => matches!(kind, SocketKind::Udp(_)),
    }
}

/// The socket that a connection to the URL's port comes to.
fn find_socket<'s>(snapshot: &'s Snapshot, question: &Question) -> Result<&'s SocketSnapshot, String> {
    let (address, port) = question.destination();
    let is_udp = question.url.scheme == Scheme::Udp;
    let transport = |socket: &&SocketSnapshot| matches!(socket.kind, SocketKind::Udp(_)) == is_udp;
    let at_port = |socket: &&SocketSnapshot| socket.bind.port() == port && transport(socket);
    let precise = |socket: &&SocketSnapshot| address.is_none_or(|address| socket.bind.ip() == address);
    let mut found: Vec<_> = snapshot.sockets.iter().filter(at_port).filter(precise).collect();
    if found.is_empty() {
        let everywhere = |socket: &&SocketSnapshot| socket.bind.ip().is_unspecified();
        found = snapshot.sockets.iter().filter(at_port).filter(everywhere).collect();
    }
    let list = |sockets: &mut dyn Iterator<Item = &SocketSnapshot>| {
        let all: Vec<String> = sockets.map(|socket| format!("{} ({})", socket.bind, socket.kind.protocol())).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    match found.as_slice() {
        [] => {
            let at = address.map_or_else(|| format!("port {port}"), |ip| SocketAddr::new(ip, port).to_string());
            let kind = if is_udp { "UDP " } else { "" };
            let bound = list(&mut snapshot.sockets.iter());
            Err(format!("no {kind}listener is bound to {at}; bound: {bound}. --to IP:PORT says what is connected to"))
        }
        [socket] if speaks(&socket.kind, question.url.scheme) => Ok(socket),
        [socket] => {
            let (bind, protocol) = (socket.bind, socket.kind.protocol());
            let scheme = question.url.scheme.as_str();
            Err(format!("{bind} speaks {protocol}: a client of {scheme}:// would not understand it, nor it the client"))
        }
        several => {
            let several = list(&mut several.iter().copied());
            Err(format!("several sockets have port {port}: {several}; say by --to IP:PORT which is connected to"))
        }
    }
}

/// The targets of a split, with what stands behind them. `key` is asked for the hash that a backend's endpoint is chosen
/// by.
fn backends(
    world: &World<'_>,
    split: &[WeightedTarget],
    key: impl Fn(&ringway_core::model::HashKey) -> Option<u64>,
) -> Value {
    let total: u64 = split.iter().map(|share| u64::from(share.weight)).sum();
    let one = |share: &WeightedTarget| {
        let mut out = json!({ "weight": share.weight, "weights": total });
        let Target::Backend(id) = share.target else {
            out["state"] = json!("the reference does not resolve, or is not permitted");
            return out;
        };
        let backend = &world.snapshot.backends[id.0 as usize];
        let table = world.snapshot.tables[id.0 as usize].as_ref();
        let hash = world.snapshot.hash_key(id).and_then(&key);
        let picked = hash.and_then(|hash| table.map(|table| table.get(hash)));
        out["backend"] = json!(backend.name);
        out["policy"] = json!(backend.policy);
        out["loadBalancer"] = json!(balancer(&backend.settings.balancing.policy));
        out["tls"] = json!(backend.settings.connection.tls.as_ref().map(|tls| tls.hostname.clone()));
        let RetryBudget { percent, interval, min_count, min_interval } = &backend.settings.retry_budget;
        out["retryBudget"] = json!({
            "percent": percent,
            "interval": format!("{interval:?}"),
            "minRetryRate": format!("{min_count} in {min_interval:?}"),
        });
        out["host"] = json!(backend.settings.host);
        out["hash"] = json!(hash.map(|hash| format!("{hash:#018x}")));
        let running = world.running.map(|running| endpoints::of(running, &backend.name));
        out["endpoints"] = endpoints::explain(backend, picked, running.as_ref());
        out["pending"] = running.map_or(Value::Null, |running| running["pending"].clone());
        let ready = if backend.endpoints.is_empty() { "no endpoint is ready" } else { "ready" };
        out["state"] = json!(ready);
        out
    };
    split.iter().map(one).collect()
}

fn balancer(policy: &LoadBalancer) -> &'static str {
    match policy {
        LoadBalancer::LeastRequest => "LeastRequest",
        LoadBalancer::RoundRobin => "RoundRobin",
        LoadBalancer::Random => "Random",
        LoadBalancer::PeakEwma => "PeakEwma",
        LoadBalancer::ConsistentHash { .. } => "ConsistentHash",
    }
}

/// What became of a split as a whole: an answer instead of an endpoint, where that is certain.
fn certain_failure(world: &World<'_>, split: &[WeightedTarget]) -> Option<Failure> {
    let live = || split.iter().filter(|share| share.weight > 0);
    let is_empty = |share: &WeightedTarget| match share.target {
        Target::Backend(id) => world.snapshot.backends[id.0 as usize].endpoints.is_empty(),
        Target::Invalid => false,
    };
    if live().all(|share| share.target == Target::Invalid) {
        return Some(Failure::Invalid);
    }
    live().all(is_empty).then_some(Failure::NoEndpoint)
}

/// Why a split serves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Invalid,
    NoEndpoint,
}

impl Failure {
    fn why(self) -> &'static str {
        match self {
            Self::Invalid => "no backend that is permitted and exists has a weight above 0",
            Self::NoEndpoint => "no endpoint is ready",
        }
    }
}

/// The protocol of a direct server return service that a scheme could mean.
fn transport(scheme: Scheme) -> Transport {
    if scheme == Scheme::Udp { Transport::Udp } else { Transport::Tcp }
}
