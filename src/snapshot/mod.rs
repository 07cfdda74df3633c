//! The compiled, immutable form of a model that every core serves from.
//!
//! One [`Snapshot`] per generation is shared by all cores. What a core needs to change while serving (positions of
//! round robins, connection pools, counters) is in its own `worker::Generation`, built around the shared one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ringway_core::balance::{Maglev, Member};
use ringway_core::model::{
    Backend, BackendId, ClientPolicy, ConcurrencyLimit, HashKey, HttpListener, L4Listener, ListenOptions, LoadBalancer,
    Model, Protocol, ProxyHeader, RateKey, RateLimit,
};
use ringway_core::route::RouteTable;

mod carried;
mod concurrency;
mod rate;
mod tls;

use crate::tls::ClientTls;

pub use carried::{Before, Carried};
pub use concurrency::{Admission, Concurrency};
pub use rate::RateTable;
pub use tls::{TlsKind, TlsListenerSnapshot, TlsSocket, TlsStream};

/// A bound address that keeps its number across generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// What one generation serves.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up from 1.
    pub generation: u64,
    /// In the model's order.
    pub sockets: Vec<SocketSnapshot>,
    /// By `BackendId`.
    pub backends: Vec<Backend>,
    /// By `BackendId`: the tables of those that are balanced by a hash.
    pub tables: Vec<Option<Maglev>>,
    /// By `BackendId`: how connections to them are encrypted.
    pub tls: Vec<Option<ClientTls>>,
    /// By `RouteId`.
    pub routes: Vec<String>,
    /// By index, as rules have it.
    pub rates: Vec<Arc<RateTable>>,
    /// By index, as rules have it.
    pub concurrency: Vec<CountedLimit>,
}

/// A limit on requests under way, and what is counted of it.
#[derive(Debug)]
pub struct CountedLimit {
    /// What it is.
    pub limit: ConcurrencyLimit,
    /// What is under way of each key.
    pub table: Arc<Concurrency>,
}

/// One socket.
#[derive(Debug)]
pub struct SocketSnapshot {
    /// Its number.
    pub id: SocketId,
    /// Numbers that it had with other options: what was accepted or waits there is served as if it had come here.
    pub formerly: Vec<SocketId>,
    /// Where it is bound.
    pub bind: SocketAddr,
    /// How its peers are treated.
    pub client: ClientPolicy,
    /// Connections open, over all cores and across reloads, where their number is limited.
    pub taken: Arc<AtomicU32>,
    /// Connections open of each client, where theirs are limited.
    pub clients: Option<Arc<Concurrency>>,
    /// What it speaks.
    pub kind: SocketKind,
}

/// What a socket speaks.
#[derive(Debug)]
pub enum SocketKind {
    /// HTTP/1.1.
    Http {
        /// Compiled from the listeners.
        table: Box<RouteTable>,
        /// Listener names, in the table's order.
        listeners: Vec<String>,
    },
    /// TLS.
    Tls(Box<TlsSocket>),
    /// Raw TCP.
    Tcp(L4Listener),
    /// UDP datagrams.
    Udp(L4Listener),
}

impl SocketKind {
    /// The protocol, for people.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Http { .. } => "HTTP",
            Self::Tls(_) => "TLS",
            Self::Tcp(_) => "TCP",
            Self::Udp(_) => "UDP",
        }
    }

    /// Routes of requests, where HTTP is spoken.
    pub fn table(&self) -> Option<&RouteTable> {
        match self {
            Self::Http { table, .. } => Some(table),
            Self::Tls(socket) => Some(&socket.table),
            Self::Tcp(_) | Self::Udp(_) => None,
        }
    }
}

/// Gives every (address, protocol, options) its number: a socket whose options change is bound anew.
#[derive(Debug, Default)]
pub struct SocketIds {
    known: HashMap<(SocketAddr, Speaks, ListenOptions), SocketId>,
    /// Connections open by address, whatever its options.
    taken: HashMap<(SocketAddr, Speaks), Arc<AtomicU32>>,
    /// What rate limits have counted, by their names.
    rates: HashMap<String, Arc<RateTable>>,
    /// What is under way, by the names of limits.
    concurrency: HashMap<String, (RateKey, Arc<Concurrency>)>,
    /// Connections open of each client, by address.
    clients: HashMap<(SocketAddr, Speaks), Arc<Concurrency>>,
    /// Cores that count.
    cores: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Speaks {
    Http,
    Tls,
    Tcp,
    Udp,
}

impl SocketIds {
    /// For a process with as many workers.
    pub fn new(cores: usize) -> Self {
        Self { cores, ..Self::default() }
    }

    /// The tables of these limits: those that are as they were go on with what they have counted.
    fn rates(&mut self, limits: Vec<RateLimit>) -> Vec<Arc<RateTable>> {
        let cores = self.cores;
        let table = |limit: RateLimit| match self.rates.get(&limit.name).filter(|known| known.limit == limit) {
            Some(known) => Arc::clone(known),
            None => Arc::new(RateTable::new(limit, cores)),
        };
        let tables: Vec<Arc<RateTable>> = limits.into_iter().map(table).collect();
        self.rates = tables.iter().map(|table| (table.limit.name.clone(), Arc::clone(table))).collect();
        tables
    }

    /// The tables of these limits. What is under way is counted whatever becomes of the number that may be; only what is
    /// counted by another key, or in a table of another size, begins anew.
    fn concurrency(&mut self, limits: Vec<ConcurrencyLimit>) -> Vec<CountedLimit> {
        let table = |limit: &ConcurrencyLimit| {
            let known = self.concurrency.get(&limit.name).filter(|(key, _)| *key == limit.key).map(|(_, table)| table);
            go_on(known, limit.keys)
        };
        let counted = |limit: ConcurrencyLimit| CountedLimit { table: table(&limit), limit };
        let limits: Vec<CountedLimit> = limits.into_iter().map(counted).collect();
        let known =
            |CountedLimit { limit, table }: &CountedLimit| (limit.name.clone(), (limit.key.clone(), Arc::clone(table)));
        self.concurrency = limits.iter().map(known).collect();
        limits
    }

    fn get(&mut self, bind: SocketAddr, speaks: Speaks, options: &ListenOptions) -> SocketId {
        let next = SocketId(u32::try_from(self.known.len()).expect("fewer sockets than 2^32"));
        *self.known.entry((bind, speaks, options.clone())).or_insert(next)
    }

    /// Numbers that the same port had with other options.
    fn others(&self, id: SocketId, bind: SocketAddr, speaks: Speaks) -> Vec<SocketId> {
        let same =
            self.known.iter().filter(|((known, what, _), other)| *known == bind && *what == speaks && **other != id);
        same.map(|(_, other)| *other).collect()
    }
}

/// A table for as many keys: the one that is there, if it is such.
fn go_on(known: Option<&Arc<Concurrency>>, keys: usize) -> Arc<Concurrency> {
    match known.filter(|known| known.keys() == keys) {
        Some(known) => Arc::clone(known),
        None => Arc::new(Concurrency::new(keys)),
    }
}

impl Snapshot {
    /// What a backend's consistent hash goes by, if that is how it is balanced.
    pub fn hash_key(&self, id: BackendId) -> Option<&HashKey> {
        match &self.backends[id.0 as usize].settings.balancing.policy {
            LoadBalancer::ConsistentHash { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The header that a backend's endpoints want ahead of every connection.
    pub fn proxy_header(&self, id: BackendId) -> Option<&ProxyHeader> {
        self.backends[id.0 as usize].settings.connection.proxy_protocol.as_ref()
    }

    /// What requests to a backend name in Host, if not what their clients have named.
    pub fn host(&self, id: BackendId) -> Option<&str> {
        self.backends[id.0 as usize].settings.host.as_deref()
    }

    /// Whether a backend's endpoints are to see clients' addresses (IP_TRANSPARENT).
    pub fn is_transparent(&self, id: BackendId) -> bool {
        self.backends[id.0 as usize].settings.connection.transparent
    }

    /// Whether some rule keeps its clients at their endpoints.
    pub fn has_sessions(&self) -> bool {
        let mut rules = self.sockets.iter().filter_map(|socket| socket.kind.table()).flat_map(RouteTable::rules);
        rules.any(|rule| rule.extras.as_ref().is_some_and(|extras| extras.session.is_some()))
    }

    /// Compiles a model.
    pub fn compile(generation: u64, mut model: Model, ids: &mut SocketIds) -> Self {
        let tls = model.backends.iter_mut().map(client_tls).collect();
        let mut clients = HashMap::new();
        let sockets = model
            .sockets
            .into_iter()
            .map(|socket| {
                let (speaks, kind) = match socket.protocol {
                    Protocol::Http(listeners) => (Speaks::Http, http(&listeners)),
                    Protocol::Tls(listeners) => (Speaks::Tls, SocketKind::Tls(Box::new(TlsSocket::compile(listeners)))),
                    Protocol::Tcp(listener) => (Speaks::Tcp, SocketKind::Tcp(listener)),
                    Protocol::Udp(listener) => (Speaks::Udp, SocketKind::Udp(listener)),
                };
                let id = ids.get(socket.bind, speaks, &socket.client.connection);
                let formerly = ids.others(id, socket.bind, speaks);
                let taken = Arc::clone(ids.taken.entry((socket.bind, speaks)).or_default());
                let counted = socket.client.per_client.as_ref().map(|limit| {
                    let table = go_on(ids.clients.get(&(socket.bind, speaks)), limit.clients);
                    clients.insert((socket.bind, speaks), Arc::clone(&table));
                    table
                });
                SocketSnapshot { id, formerly, bind: socket.bind, client: socket.client, taken, clients: counted, kind }
            })
            .collect();
        let tables = model.backends.iter().map(table).collect();
        ids.clients = clients;
        let rates = ids.rates(model.rate_limits);
        let concurrency = ids.concurrency(model.concurrency_limits);
        Self { generation, sockets, backends: model.backends, tables, tls, routes: model.routes, rates, concurrency }
    }
}

/// How a backend's connections are encrypted. Where that cannot be had there is no endpoint to connect to in plain: the
/// control path has checked it, so this is for what only both together show.
fn client_tls(backend: &mut Backend) -> Option<ClientTls> {
    let wanted = backend.settings.connection.tls.as_ref()?;
    match ClientTls::new(wanted) {
        Ok(ready) => Some(ready),
        Err(error) => {
            tracing::error!(backend = backend.name, %error, "TLS cannot be had: nothing is sent to the backend");
            backend.endpoints.clear();
            None
        }
    }
}

/// Members are known by their addresses, so every process that has the same endpoints has the same table.
fn table(backend: &Backend) -> Option<Maglev> {
    let LoadBalancer::ConsistentHash { table, .. } = &backend.settings.balancing.policy else { return None };
    let keys: Vec<String> = backend.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    let weights = backend.endpoints.iter().map(|endpoint| endpoint.weight);
    let members: Vec<Member<'_>> =
        keys.iter().zip(weights).map(|(key, weight)| Member { key: key.as_bytes(), weight }).collect();
    Maglev::build(&members, *table)
}

fn http(listeners: &[HttpListener]) -> SocketKind {
    SocketKind::Http {
        table: Box::new(RouteTable::compile(listeners)),
        listeners: listeners.iter().map(|listener| listener.name.clone()).collect(),
    }
}
