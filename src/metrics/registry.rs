//! Which counters there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ringway_core::model::{Backend, Endpoint, Model, Protocol};
use serde_json::{Value, json};

use crate::upstream::{Budget, CoreBudget, Limiter};

use super::{BackendMetrics, CoreMetrics, EndpointMetrics, ListenerMetrics, RouteMetrics};

/// All counters, by label and core. Lives on the control thread.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    pub(super) cores: Vec<Arc<CoreMetrics>>,
    pub(super) routes: Family<RouteMetrics>,
    pub(super) backends: Family<BackendMetrics>,
    pub(super) listeners: Family<ListenerMetrics>,
    pub(super) endpoints: Family<EndpointMetrics>,
    /// By backend's name and policy.
    pub(super) limiters: HashMap<(String, Option<String>), Arc<Limiter>>,
    /// The same.
    budgets: HashMap<(String, Option<String>), Arc<Budget>>,
}

/// The counters of one kind: by label, one per core.
#[derive(Debug)]
pub(super) struct Family<T> {
    by_label: HashMap<String, Vec<Arc<T>>>,
}

impl<T: Default> Family<T> {
    fn new() -> Self {
        Self { by_label: HashMap::new() }
    }

    fn get(&mut self, label: &str, workers: usize) -> &[Arc<T>] {
        if !self.by_label.contains_key(label) {
            let counters = (0..workers).map(|_| Arc::default()).collect();
            self.by_label.insert(label.to_owned(), counters);
        }
        &self.by_label[label]
    }

    /// Labels in order, each with its cores' counters.
    pub(super) fn sorted(&self) -> Vec<(&str, &[Arc<T>])> {
        let mut all: Vec<_> = self.by_label.iter().map(|(label, cores)| (label.as_str(), cores.as_slice())).collect();
        all.sort_unstable_by_key(|(label, _)| *label);
        all
    }
}

/// The counters of one label on all cores, as one of them sees them.
#[derive(Debug)]
pub struct CoreCounters<T> {
    /// The core's own, which it alone writes.
    pub own: Arc<T>,
    /// The others', which it only reads.
    pub others: Box<[Arc<T>]>,
}

impl<T> Clone for CoreCounters<T> {
    fn clone(&self) -> Self {
        Self { own: Arc::clone(&self.own), others: self.others.clone() }
    }
}

impl<T> CoreCounters<T> {
    fn seen_by(worker: usize, all: &[Arc<T>]) -> Self {
        let others = all.iter().enumerate().filter(|(core, _)| *core != worker);
        Self { own: Arc::clone(&all[worker]), others: others.map(|(_, counters)| Arc::clone(counters)).collect() }
    }
}

/// One core's counters for one generation, by the model's ids.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    /// The core's own.
    pub core: Arc<CoreMetrics>,
    /// By `RouteId`.
    pub routes: Vec<Arc<RouteMetrics>>,
    /// By `BackendId`.
    pub backends: Vec<Arc<BackendMetrics>>,
    /// By `BackendId`, then by endpoint: the counters of all cores.
    pub endpoints: Vec<Vec<CoreCounters<EndpointMetrics>>>,
    /// By `BackendId`, of those that have limits.
    pub limiters: Vec<Option<Arc<Limiter>>>,
    /// By `BackendId`, of those that routes send requests to again.
    pub budgets: Vec<Option<CoreBudget>>,
    /// By socket, then by listener on it.
    pub listeners: Vec<Vec<Arc<ListenerMetrics>>>,
}

impl Registry {
    /// For this many cores.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            cores: (0..workers).map(|_| Arc::default()).collect(),
            routes: Family::new(),
            backends: Family::new(),
            listeners: Family::new(),
            endpoints: Family::new(),
            limiters: HashMap::new(),
            budgets: HashMap::new(),
        }
    }

    /// A core's counters before there is anything to serve.
    pub fn unbound(&self, worker: usize) -> WorkerMetrics {
        WorkerMetrics {
            core: Arc::clone(&self.cores[worker]),
            routes: Vec::new(),
            backends: Vec::new(),
            endpoints: Vec::new(),
            limiters: Vec::new(),
            budgets: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Finds or makes the counters that serving `model` needs, for every core.
    pub fn bind(&mut self, model: &Model) -> Vec<WorkerMetrics> {
        let mut all: Vec<WorkerMetrics> = (0..self.workers).map(|worker| self.unbound(worker)).collect();
        for route in &model.routes {
            for (metrics, counter) in all.iter_mut().zip(self.routes.get(route, self.workers)) {
                metrics.routes.push(Arc::clone(counter));
            }
        }
        for (backend, retried) in model.backends.iter().zip(model.retried_backends()) {
            let budget = retried.then(|| self.budget(backend));
            for (core, metrics) in all.iter_mut().enumerate() {
                metrics.budgets.push(budget.clone().map(|shared| CoreBudget { shared, core }));
            }
            for (metrics, counter) in all.iter_mut().zip(self.backends.get(&backend.name, self.workers)) {
                metrics.backends.push(Arc::clone(counter));
            }
            let limits = &backend.settings.limits;
            let limiter = (!limits.is_unlimited()).then(|| {
                let limiter = self.limiters.entry((backend.name.clone(), backend.policy.clone())).or_default();
                limiter.set(limits);
                Arc::clone(limiter)
            });
            all.iter_mut().for_each(|metrics| metrics.limiters.push(limiter.clone()));
            let all_endpoints = all.iter_mut().map(|metrics| &mut metrics.endpoints);
            all_endpoints.for_each(|endpoints| endpoints.push(Vec::with_capacity(backend.endpoints.len())));
            for endpoint in &backend.endpoints {
                let counters = self.endpoints.get(&endpoint_label(backend, endpoint), self.workers);
                for (worker, metrics) in all.iter_mut().enumerate() {
                    let endpoints = metrics.endpoints.last_mut().expect("pushed above");
                    endpoints.push(CoreCounters::seen_by(worker, counters));
                }
            }
        }
        for socket in &model.sockets {
            for metrics in &mut all {
                metrics.listeners.push(Vec::new());
            }
            for name in listener_names(&socket.protocol) {
                for (metrics, counter) in all.iter_mut().zip(self.listeners.get(name, self.workers)) {
                    metrics.listeners.last_mut().expect("pushed above").push(Arc::clone(counter));
                }
            }
        }
        all
    }

    /// What every backend's endpoints work on, over all cores: those of `model`, and those that only finish what they have.
    pub fn endpoints(&self, model: &Model) -> Value {
        let mut backends: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
        for backend in &model.backends {
            let of_backend = backends.entry(&backend.name).or_default();
            for endpoint in &backend.endpoints {
                let shown = json!({ "weight": endpoint.weight, "state": "Serving", "inFlight": 0 });
                of_backend.insert(endpoint.address.to_string(), shown);
            }
        }
        for (label, cores) in self.endpoints.sorted() {
            let Some((backend, address)) = label.split_once(' ') else { continue };
            let in_flight: u64 = cores.iter().map(|core| core.in_flight.get()).sum();
            let of_backend = backends.entry(backend).or_default();
            match of_backend.get_mut(address) {
                Some(shown) => shown["inFlight"] = json!(in_flight),
                None if in_flight > 0 => {
                    let shown = json!({ "weight": 0, "state": "Draining", "inFlight": in_flight });
                    of_backend.insert(address.to_owned(), shown);
                }
                None => {}
            }
        }
        let waiting = |name: &str| -> u32 {
            let of_backend = self.limiters.iter().filter(|((backend, _), _)| backend == name);
            of_backend.map(|(_, limiter)| limiter.waiting()).sum()
        };
        let shown = |(name, endpoints): (&str, BTreeMap<String, Value>)| {
            let endpoints: Vec<Value> = endpoints
                .into_iter()
                .map(|(address, mut shown)| {
                    shown["address"] = json!(address);
                    shown
                })
                .collect();
            json!({ "name": name, "pending": waiting(name), "endpoints": endpoints })
        };
        json!({ "backends": backends.into_iter().map(shown).collect::<Vec<_>>() })
    }

    /// A backend's retry budget: the one that was, if it was for the same.
    fn budget(&mut self, backend: &Backend) -> Arc<Budget> {
        let wanted = backend.settings.retry_budget;
        let new = || Arc::new(Budget::new(wanted, self.workers));
        let known = self.budgets.entry((backend.name.clone(), backend.policy.clone())).or_insert_with(new);
        if *known.settings() != wanted {
            *known = new();
        }
        Arc::clone(known)
    }

    /// Forgets the counters of labels that `model` does not have. Called once it is served everywhere.
    pub fn retain(&mut self, model: &Model) {
        let routes: std::collections::HashSet<&str> = model.routes.iter().map(String::as_str).collect();
        self.routes.by_label.retain(|label, _| routes.contains(label.as_str()));
        let backends: std::collections::HashSet<&str> = model.backends.iter().map(|b| b.name.as_str()).collect();
        self.backends.by_label.retain(|label, _| backends.contains(label.as_str()));
        self.limiters.retain(|(name, policy), _| {
            model.backends.iter().any(|backend| {
                backend.name == *name && backend.policy == *policy && !backend.settings.limits.is_unlimited()
            })
        });
        self.budgets.retain(|(name, policy), _| {
            model.backends.iter().any(|backend| backend.name == *name && backend.policy == *policy)
        });
        let endpoints: std::collections::HashSet<String> = model
            .backends
            .iter()
            .flat_map(|backend| backend.endpoints.iter().map(|endpoint| endpoint_label(backend, endpoint)))
            .collect();
        // One that still has something to do is kept until it is done: it may come back in the meantime.
        let idle = |cores: &[Arc<EndpointMetrics>]| cores.iter().all(|core| core.in_flight.get() == 0);
        self.endpoints.by_label.retain(|label, cores| endpoints.contains(label) || !idle(cores));
        let listeners: std::collections::HashSet<&str> =
            model.sockets.iter().flat_map(|socket| listener_names(&socket.protocol)).collect();
        // One that still has connections is kept until they have ended.
        let quiet = |cores: &[Arc<ListenerMetrics>]| cores.iter().all(|core| core.active.get() == 0);
        self.listeners.by_label.retain(|label, cores| listeners.contains(label.as_str()) || !quiet(cores));
    }
}

/// A backend's name and an endpoint's address, which have no space.
fn endpoint_label(backend: &Backend, endpoint: &Endpoint) -> String {
    format!("{} {}", backend.name, endpoint.address)
}

fn listener_names(protocol: &Protocol) -> Vec<&str> {
    match protocol {
        Protocol::Http(listeners) => listeners.iter().map(|listener| listener.name.as_str()).collect(),
        Protocol::Tls(listeners) => listeners.iter().map(|listener| listener.name.as_str()).collect(),
        Protocol::Tcp(listener) | Protocol::Udp(listener) => vec![&listener.name],
    }
}
