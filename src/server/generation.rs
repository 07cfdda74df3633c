//! Generations: compiled, bound, handed to the workers, and the last good one kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use ringway_core::http::Date;
use ringway_core::model::Model;
use serde_json::Value;

use crate::control::Accepted;
use crate::control::inventory::Inventory;
use crate::metrics::Registry;
use crate::snapshot::{Carried, Snapshot, SocketId, SocketIds, SocketKind, SocketSnapshot};
use crate::sys::{self, Listening};
use crate::worker::Message;

use super::workers::Workers;

/// Workers build what is theirs in pieces, between turns of their loop.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a generation is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// Somebody else has the port.
    #[error("{address} is in use by another process; `ss -ltnp 'sport = :{port}'` shows which", port = address.port())]
    InUse { address: SocketAddr },
    /// It cannot be bound.
    #[error("cannot listen on {address}: {error}{hint}")]
    Bind { address: SocketAddr, error: io::Error, hint: &'static str },
    /// Direct server return.
    #[error("direct server return: {0}")]
    Dsr(String),
    /// A worker does not answer.
    #[error("worker {0} did not answer")]
    Worker(usize),
}

/// A generation with its new sockets bound.
pub(super) struct Prepared {
    model: Model,
    status: Value,
    objects: Inventory,
    snapshot: Arc<Snapshot>,
    carried: Arc<Carried>,
    /// New sockets, one per worker.
    listeners: Vec<Vec<(SocketId, OwnedFd)>>,
}

impl Prepared {
    /// What will be served.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }
}

/// The generation being served and what outlives it.
pub(super) struct Generations {
    /// By worker: the core whose connections are its own.
    cores: Vec<Option<usize>>,
    ids: SocketIds,
    registry: Registry,
    current: Arc<Snapshot>,
    model: Model,
    status: Value,
    objects: Inventory,
    number: u64,
}

impl Generations {
    /// Of as many workers as there are `cores`: those whose connections the kernel is to give to them.
    pub(super) fn new(cores: Vec<Option<usize>>) -> Self {
        let mut ids = SocketIds::new(cores.len());
        let current = Arc::new(Snapshot::compile(0, Model::default(), &mut ids));
        Self {
            registry: Registry::new(cores.len()),
            cores,
            ids,
            current,
            model: Model::default(),
            status: Value::Null,
            objects: Inventory::new(),
            number: 0,
        }
    }

    pub(super) fn current(&self) -> &Snapshot {
        &self.current
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn objects(&self) -> &Inventory {
        &self.objects
    }

    pub(super) fn status(&self) -> &Value {
        &self.status
    }

    /// Takes over what the newest load says of its objects. Conditions that were the same before keep their time.
    pub(super) fn set_objects(&mut self, mut status: Value, objects: Inventory) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        transitions(&mut status, &self.status, &Date::rfc3339(now.as_secs()));
        self.status = status;
        self.objects = objects;
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether this is what is being served.
    pub(super) fn serves(&self, accepted: &Accepted) -> bool {
        accepted.model == self.model
    }

    /// Compiles it and binds what is new. Nothing that is served changes.
    pub(super) fn prepare(&mut self, accepted: Accepted) -> Result<Prepared, ApplyError> {
        let Accepted { model, status, objects } = accepted;
        let snapshot = Arc::new(Snapshot::compile(self.number + 1, model.clone(), &mut self.ids));
        let mut listeners: Vec<Vec<(SocketId, OwnedFd)>> = self.cores.iter().map(|_| Vec::new()).collect();
        let is_new = |socket: &&SocketSnapshot| !self.current.sockets.iter().any(|known| known.id == socket.id);
        // All are probed before any is bound: every address and one of them may have the same port.
        for socket in snapshot.sockets.iter().filter(is_new) {
            self.probe(socket)?;
        }
        for socket in snapshot.sockets.iter().filter(is_new) {
            for (worker, core) in listeners.iter_mut().zip(&self.cores) {
                let bound = bind(socket, Listening::Shared);
                let steered = bound.and_then(|bound| match core {
                    Some(core) => sys::steer(&bound, *core).map(|()| bound),
                    None => Ok(bound),
                });
                let bound = steered.map_err(|error| explain(socket.bind, error))?;
                worker.push((socket.id, bound));
            }
        }
        let carried = Arc::new(Carried::between(&self.current, &snapshot));
        Ok(Prepared { model, status, objects, snapshot, carried, listeners })
    }

    /// Two processes of one user share a port silently when both set SO_REUSEPORT, so a port is first bound without.
    /// Not where a socket of ours is about to make room for the new one.
    fn probe(&self, new: &SocketSnapshot) -> Result<(), ApplyError> {
        let is_udp = |socket: &SocketSnapshot| matches!(socket.kind, SocketKind::Udp(_));
        let ours = self.current.sockets.iter().filter(|ours| is_udp(ours) == is_udp(new)).any(|ours| {
            let (ours, new) = (ours.bind, new.bind);
            let any = ours.ip().is_unspecified() || new.ip().is_unspecified();
            ours.port() == new.port() && (any || ours.ip() == new.ip())
        });
        if ours { Ok(()) } else { bind(new, Listening::Alone).map(drop).map_err(|error| explain(new.bind, error)) }
    }

    /// Hands it to the workers and waits until all of them serve it.
    pub(super) fn apply(&mut self, prepared: Prepared, workers: &Workers) -> Result<(), ApplyError> {
        let Prepared { model, status, objects, snapshot, carried, listeners } = prepared;
        let metrics = self.registry.bind(&model);
        let mut answers = Vec::new();
        for (worker, (metrics, listeners)) in metrics.into_iter().zip(listeners).enumerate() {
            let (done, answer) = mpsc::channel();
            let (snapshot, carried) = (Arc::clone(&snapshot), Arc::clone(&carried));
            workers.send(worker, Message::Apply { snapshot, carried, metrics, listeners, done });
            answers.push(answer);
        }
        for (worker, answer) in answers.into_iter().enumerate() {
            if answer.recv_timeout(APPLY_TIMEOUT).is_err() {
                return Err(ApplyError::Worker(worker));
            }
        }
        self.registry.retain(&model);
        self.number = snapshot.generation;
        self.current = snapshot;
        self.model = model;
        self.set_objects(status, objects);
        Ok(())
    }
}

fn bind(socket: &SocketSnapshot, how: Listening) -> io::Result<OwnedFd> {
    match socket.kind {
        SocketKind::Http { .. } | SocketKind::Tls(_) | SocketKind::Tcp(_) => {
            sys::listen(socket.bind, how, &socket.client.connection)
        }
        SocketKind::Udp(_) => sys::bind_udp(socket.bind, how, &socket.client.connection),
    }
}

fn explain(address: SocketAddr, error: io::Error) -> ApplyError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ApplyError::InUse { address },
        io::ErrorKind::PermissionDenied => ApplyError::Bind {
            address,
            error,
            hint: "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
        },
        io::ErrorKind::AddrNotAvailable => {
            ApplyError::Bind { address, error, hint: "; no interface of this machine has that address" }
        }
        _ => ApplyError::Bind { address, error, hint: "" },
    }
}

/// Gives every condition its `lastTransitionTime`: `now`, or what it was if its status was the same before.
fn transitions(new: &mut Value, old: &Value, now: &str) {
    match new {
        Value::Object(fields) if fields.contains_key("type") && fields.contains_key("observedGeneration") => {
            let same = fields["status"] == old["status"];
            let time = old["lastTransitionTime"].as_str().filter(|_| same).unwrap_or(now);
            fields.insert("lastTransitionTime".to_owned(), time.into());
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                transitions(value, &old[name.as_str()], now);
            }
        }
        Value::Array(items) => {
            let old = old.as_array().map_or(&[][..], Vec::as_slice);
            // Most stand where they stood; of the others, where there are many, it is found by its name.
            let mut by_name: Option<HashMap<String, &Value>> = None;
            for (index, item) in items.iter_mut().enumerate() {
                let before = match old.get(index).filter(|before| identity(before).eq(identity(item))) {
                    Some(before) => Some(before),
                    None if old.len() <= 16 => old.iter().find(|before| identity(before).eq(identity(item))),
                    None => {
                        let names = by_name.get_or_insert_with(|| old.iter().map(|each| (name(each), each)).collect());
                        names.get(&name(item)).copied()
                    }
                };
                transitions(item, before.unwrap_or(&Value::Null), now);
            }
        }
        _ => {}
    }
}

/// What tells items of a status's lists apart.
fn identity(item: &Value) -> impl Iterator<Item = &Value> {
    let keys: &[&str] = if item["metadata"].is_object() {
        &["kind", "metadata"]
    } else if item["parentRef"].is_object() {
        &["parentRef"]
    } else if item["ancestorRef"].is_object() {
        &["ancestorRef"]
    } else if item["type"].is_string() {
        &["type"]
    } else {
        &["name"]
    };
    keys.iter().map(|key| &item[*key])
}

fn name(item: &Value) -> String {
    identity(item).map(Value::to_string).collect()
}
