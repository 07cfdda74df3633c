//! One core's view of a snapshot: the shared, immutable part and what this core changes while serving it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use ringway_core::access::ClientKey;
use ringway_core::balance::WeightedRoundRobin;
use ringway_core::model::{
    Action, Backend, BackendId, ClientLimits, ClientTimeouts, EndpointAddress, Filters, Target, WeightedTarget,
};
use ringway_core::route::{CompiledRule, RouteTable};
use ringway_core::session;

use super::Core;
use super::held::{AtLimit, Counting, Held, Table};
use super::remains::{Graves, Pieces, Remains};
use crate::metrics::{CoreCounters, EndpointMetrics, WorkerMetrics};
use crate::rt::{self, Tick};
use crate::snapshot::{Before, Carried, Snapshot, SocketId, SocketKind, SocketSnapshot, TlsKind, TlsListenerSnapshot};
use crate::tls::{ClientTls, ServerTls};
use crate::upstream::{Balanced, Dial, Endpoint, Gate, Limiter, Marks, Reuse};

/// A generation on one core.
#[derive(Debug)]
pub struct Generation {
    /// The shared part.
    pub shared: Arc<Snapshot>,
    /// This core's counters for it.
    pub metrics: WorkerMetrics,
    by_id: Vec<Option<u32>>,
    splits: Splits,
    /// By socket, then by listener: this core's copies.
    tls: Vec<Vec<Option<ServerTls>>>,
    /// By socket.
    bounds: Vec<Rc<ClientBounds>>,
    backends: Vec<Rc<Balanced>>,
    /// By socket: connections of each client.
    clients: Vec<Option<Table>>,
    /// By index, as rules have it: requests under way.
    concurrency: Vec<Table>,
    graves: Graves,
}

/// Whose turn it is in a split.
pub(super) type Split = RefCell<Option<WeightedRoundRobin>>;

/// By socket, then by rule.
pub(super) type Splits = Vec<Vec<Split>>;

/// A socket of a generation.
#[derive(Debug, Clone, Copy)]
pub struct Socket<'g> {
    /// Its index in the snapshot, which is also that of its metrics.
    pub index: usize,
    /// What the snapshot says.
    pub shared: &'g SocketSnapshot,
}

/// What clients of a socket may do, as their connections keep it.
#[derive(Debug)]
pub struct ClientBounds {
    /// Deadlines.
    pub timeouts: ClientTimeouts,
    /// Sizes.
    pub limits: ClientLimits,
}

/// An HTTP socket of a generation.
#[derive(Debug, Clone, Copy)]
pub struct HttpSocket<'g> {
    /// Its routes.
    pub table: &'g RouteTable,
}

impl<'g> Socket<'g> {
    /// The routes, when it speaks HTTP.
    pub fn http(self) -> Option<HttpSocket<'g>> {
        self.shared.kind.table().map(|table| HttpSocket { table })
    }
}

impl Generation {
    /// Serves nothing.
    pub(super) fn empty(metrics: WorkerMetrics, graves: Graves) -> Self {
        Self {
            shared: Arc::new(Snapshot::default()),
            metrics,
            by_id: Vec::new(),
            splits: Vec::new(),
            tls: Vec::new(),
            bounds: Vec::new(),
            backends: Vec::new(),
            clients: Vec::new(),
            concurrency: Vec::new(),
            graves,
        }
    }

    /// Builds this core's part around `shared`, in pieces between which other tasks have their turns. Backends that are as
    /// they were stay what they are, and endpoints that were there before keep their connections.
    pub(super) async fn build(
        core: &Core,
        old: &Self,
        shared: Arc<Snapshot>,
        carried: &Carried,
        metrics: WorkerMetrics,
    ) -> Self {
        let pieces = Pieces::default();
        let mut backends = Vec::with_capacity(shared.backends.len());
        for (index, (backend, before)) in shared.backends.iter().zip(&carried.backends).enumerate() {
            pieces.next().await;
            let limiter = metrics.limiters[index].as_ref();
            if let Before::Same(number) = before
                && let known = &old.backends[*number as usize]
                && is_gate(known.gate(), limiter)
            {
                backends.push(Rc::clone(known));
                continue;
            }
            let before: &[u32] = match before {
                Before::Same(number) => std::slice::from_ref(number),
                Before::Named(numbers) => numbers,
            };
            let before: Vec<&Balanced> = before.iter().map(|number| &*old.backends[*number as usize]).collect();
            let kept = Kept::of(&before);
            let gate = limiter.map(|limiter| gate(&before, limiter));
            let counters = &metrics.endpoints[index];
            backends.push(Rc::new(kept.backend(core, backend, &shared.tls[index], counters, gate)));
        }
        let mut by_id = Vec::new();
        let mut splits = Vec::with_capacity(shared.sockets.len());
        for (index, socket) in shared.sockets.iter().enumerate() {
            for id in socket.formerly.iter().chain([&socket.id]).map(|id| id.0 as usize) {
                if by_id.len() <= id {
                    by_id.resize(id + 1, None);
                }
                by_id[id] = Some(u32::try_from(index).expect("fewer sockets than 2^32"));
            }
            let mut turns = Vec::new();
            if let Some(table) = socket.kind.table() {
                turns.reserve_exact(table.rules().len());
                for rule in table.rules() {
                    pieces.next().await;
                    turns.push(action_turn(core, &rule.action));
                }
            }
            match &socket.kind {
                SocketKind::Http { .. } => {}
                SocketKind::Tls(socket) => {
                    turns.extend(socket.streams.iter().map(|stream| RefCell::new(turn(core, &stream.split))));
                }
                SocketKind::Tcp(listener) | SocketKind::Udp(listener) => {
                    turns.push(RefCell::new(listener.route.as_ref().and_then(|(_, split)| turn(core, split))));
                }
            }
            splits.push(turns);
        }
        let tls = shared.sockets.iter().map(|socket| server_tls(&socket.kind)).collect();
        let bounds_of = |socket: &SocketSnapshot| {
            Rc::new(ClientBounds { timeouts: socket.client.timeouts, limits: socket.client.limits })
        };
        let bounds = shared.sockets.iter().map(bounds_of).collect();
        let clients = shared.sockets.iter().map(|socket| socket.clients.clone().map(Rc::new)).collect();
        let concurrency = shared.concurrency.iter().map(|counted| Rc::new(Arc::clone(&counted.table))).collect();
        let graves = old.graves.clone();
        Self { shared, metrics, by_id, splits, tls, bounds, backends, clients, concurrency, graves }
    }

    /// The socket with this number, or the one that has taken its place with other options, if this generation has it.
    pub fn socket(&self, id: SocketId) -> Option<Socket<'_>> {
        let index = (*self.by_id.get(id.0 as usize)?)? as usize;
        Some(Socket { index, shared: &self.shared.sockets[index] })
    }

    /// What clients of a socket may do.
    pub fn bounds(&self, socket: usize) -> &Rc<ClientBounds> {
        &self.bounds[socket]
    }

    /// Counts a connection of a client, where those of each are limited and this one's are not exempt.
    pub fn hold_connection(&self, socket: Socket<'_>, client: IpAddr) -> Result<Counting, AtLimit> {
        let Some((limit, table)) = socket.shared.client.per_client.as_ref().zip(self.clients[socket.index].as_ref())
        else {
            return Ok(Counting::Unlimited);
        };
        if limit.exempt.get(client) == Some(true) {
            return Ok(Counting::Unlimited);
        }
        Held::take(table, ClientKey::of(client).as_bytes(), limit.connections)
    }

    /// Counts a request of a key of limit `index`.
    pub fn hold_request(&self, index: usize, key: &[u8]) -> Result<Counting, AtLimit> {
        Held::take(&self.concurrency[index], key, self.shared.concurrency[index].limit.requests)
    }

    /// Whose turn it is in a split: rule `rule` of socket `socket`, rule 0 of a TCP or UDP socket. `None` when every weight is
    /// zero.
    pub fn pick(&self, socket: usize, rule: usize, split: &[WeightedTarget]) -> Option<Target> {
        self.pick_share(socket, rule, split).map(|share| split[share].target)
    }

    /// The same, by its place in the split.
    #[inline]
    pub fn pick_share(&self, socket: usize, rule: usize, split: &[WeightedTarget]) -> Option<usize> {
        match split {
            [only] => (only.weight > 0).then_some(0),
            _ => self.splits[socket][rule].borrow_mut().as_mut()?.next(),
        }
    }

    /// How a listener of a socket ends TLS.
    pub fn server_tls(&self, socket: usize, listener: usize) -> Option<&ServerTls> {
        self.tls.get(socket)?.get(listener)?.as_ref()
    }

    /// A rule, if there is such a one.
    pub fn rule(&self, socket: usize, rule: usize) -> Option<&CompiledRule> {
        self.shared.sockets.get(socket)?.kind.table()?.rules().get(rule)
    }

    /// What a rule changes; nothing when there is no such rule.
    pub fn filters(&self, socket: usize, rule: usize) -> &Filters {
        static NONE: LazyLock<Filters> = LazyLock::new(Filters::default);
        self.rule(socket, rule).map_or(&NONE, |rule| &rule.filters)
    }

    /// A backend.
    pub fn backend(&self, id: BackendId) -> &Balanced {
        &self.backends[id.0 as usize]
    }

    /// What a connection to a backend is asked for with.
    pub fn dial<'d>(
        &'d self,
        id: BackendId,
        key: Option<u64>,
        marks: Marks<'d>,
        reuse: Reuse,
        upgrade: bool,
        by: Tick,
    ) -> Dial<'d> {
        let index = id.0 as usize;
        Dial {
            backend: &self.backends[index],
            metrics: &self.metrics.backends[index],
            table: self.shared.tables[index].as_ref(),
            key,
            wanted: None,
            marks,
            attempts: self.shared.backends[index].settings.connect_attempts,
            reuse,
            upgrade,
            by,
            gone: None,
            ahead: None,
        }
    }

    /// All backends.
    pub fn backends(&self) -> impl Iterator<Item = &Balanced> {
        self.backends.iter().map(|backend| &**backend)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let metrics = WorkerMetrics {
            core: Arc::clone(&self.metrics.core),
            routes: std::mem::take(&mut self.metrics.routes),
            backends: std::mem::take(&mut self.metrics.backends),
            endpoints: std::mem::take(&mut self.metrics.endpoints),
            limiters: std::mem::take(&mut self.metrics.limiters),
            budgets: std::mem::take(&mut self.metrics.budgets),
            listeners: std::mem::take(&mut self.metrics.listeners),
        };
        let remains = Remains {
            _shared: std::mem::take(&mut self.shared),
            _metrics: metrics,
            _splits: std::mem::take(&mut self.splits),
        };
        self.graves.take(remains, std::mem::take(&mut self.backends));
    }
}

/// The gate in front of these limits, with those who wait at it; a new one where there is none.
fn gate(before: &[&Balanced], limiter: &Arc<Limiter>) -> Rc<Gate> {
    let known = before.iter().filter_map(|backend| backend.gate()).find(|gate| gate.is_for(limiter));
    known.map_or_else(|| Rc::new(Gate::new(Arc::clone(limiter))), Rc::clone)
}

fn is_gate(gate: Option<&Rc<Gate>>, limiter: Option<&Arc<Limiter>>) -> bool {
    match (gate, limiter) {
        (Some(gate), Some(limiter)) => gate.is_for(limiter),
        (gate, limiter) => gate.is_none() && limiter.is_none(),
    }
}

/// Endpoints that a backend of this name had, by address.
struct Kept<'o>(HashMap<&'o EndpointAddress, Vec<&'o Rc<Endpoint>>>);

impl<'o> Kept<'o> {
    fn of(before: &[&'o Balanced]) -> Self {
        let mut kept: HashMap<&EndpointAddress, Vec<&Rc<Endpoint>>> = HashMap::new();
        for endpoint in before.iter().flat_map(|backend| backend.endpoints()) {
            kept.entry(&endpoint.address).or_default().push(endpoint);
        }
        Self(kept)
    }

    /// A backend's endpoints on this core: those that were there before with the same settings, and new ones. One that
    /// comes to a backend that had others is new to it; what it then has is warmed up.
    fn backend(
        &self,
        core: &Core,
        backend: &Backend,
        tls: &Option<ClientTls>,
        counters: &[CoreCounters<EndpointMetrics>],
        gate: Option<Rc<Gate>>,
    ) -> Balanced {
        let settings = &backend.settings;
        let endpoint = |(endpoint, counters): (&ringway_core::model::Endpoint, &CoreCounters<EndpointMetrics>)| {
            let known = self.0.get(&endpoint.address);
            if let Some(same) = known.and_then(|all| all.iter().find(|one| one.settings == settings.connection)) {
                return Rc::clone(same);
            }
            let arrived = match known.and_then(|all| all.first()) {
                Some(known) => known.arrived,
                None => (!self.0.is_empty()).then(rt::now),
            };
            let tls = tls.as_ref().map(ClientTls::for_core);
            let (address, connection) = (endpoint.address.clone(), settings.connection.clone());
            let identity = session::identity(&backend.name, &address.to_string());
            Rc::new(Endpoint::new(address, identity, connection, counters.clone(), arrived, tls))
        };
        let endpoints = backend.endpoints.iter().zip(counters).map(endpoint).collect();
        let weights = backend.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        Balanced::new(
            &settings.balancing.policy,
            settings.balancing.slow_start,
            endpoints,
            weights,
            gate,
            core.random(),
        )
    }
}

fn server_tls(kind: &SocketKind) -> Vec<Option<ServerTls>> {
    let SocketKind::Tls(socket) = kind else { return Vec::new() };
    let of = |listener: &TlsListenerSnapshot| match &listener.kind {
        TlsKind::Https { tls, .. } | TlsKind::Terminate { tls, .. } => tls.as_ref().map(ServerTls::for_core),
        TlsKind::Passthrough { .. } => None,
    };
    socket.listeners.iter().map(of).collect()
}

fn action_turn(core: &Core, action: &Action) -> Split {
    RefCell::new(match action {
        Action::Forward(split) => turn(core, split),
        Action::Redirect(_) | Action::Respond(_) | Action::Fail(_) => None,
    })
}

/// Splits of one target need no turn.
fn turn(core: &Core, split: &[WeightedTarget]) -> Option<WeightedRoundRobin> {
    (split.len() > 1).then(|| {
        let weights: Vec<u32> = split.iter().map(|share| share.weight).collect();
        WeightedRoundRobin::new(&weights, start(core))
    })
}

/// Cores start their rounds at random places, so that together they do not send everything to the first endpoint.
fn start(core: &Core) -> u32 {
    u32::try_from(core.random() >> 32).expect("32 bits are left")
}
