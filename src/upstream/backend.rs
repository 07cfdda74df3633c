//! A backend on one core: which of its endpoints is next.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Instant;

use ringway_core::balance::{Load, Maglev, Random, WeightedRoundRobin, hash, least_request, peak_ewma, slow_start};
use ringway_core::model::{EndpointAddress, LoadBalancer};

use super::{Endpoint, Gate, Kind, Marks, Permit};
use crate::rt::{self, Stream, Tick};

/// A backend's endpoints and the state of its load balancer on this core.
#[derive(Debug)]
pub struct Balanced {
    policy: Policy,
    weights: Box<[u32]>,
    endpoints: Vec<Rc<Endpoint>>,
    /// While some endpoint is new.
    slow_start: Option<SlowStart>,
    /// In front of it, where it has limits.
    gate: Option<Rc<Gate>>,
    random: Cell<u64>,
}

#[derive(Debug)]
struct SlowStart {
    /// Ticks in which a new endpoint grows into its share.
    window: Tick,
    /// When all have.
    over: Tick,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RefCell<WeightedRoundRobin>),
    LeastRequest(RefCell<WeightedRoundRobin>),
    PeakEwma(RefCell<WeightedRoundRobin>),
    Random(Random),
    /// By the table of the snapshot; at random where there is nothing to hash.
    Hash(Random),
}

/// A point in time, in microseconds and one since this process first asked: half of what an [`Instant`] takes.
#[derive(Debug, Clone, Copy)]
struct Micros(NonZeroU64);

impl Micros {
    fn now() -> Self {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        let micros = u64::try_from(FIRST.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    fn elapsed(self) -> u64 {
        Self::now().0.get() - self.0.get()
    }
}

/// What a request or connection was given; counted as in flight there until this is dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Rc<Endpoint>,
    /// When, where latencies count and this one's is not known yet.
    since: Option<Micros>,
    /// Its place among the backend's requests, and its connection's, where there are limits.
    pub(super) request: Option<Permit>,
    pub(super) connection: Option<Permit>,
}

impl Lease {
    fn new(endpoint: &Rc<Endpoint>, timed: bool) -> Self {
        endpoint.counters.own.in_flight.inc();
        Self { endpoint: Rc::clone(endpoint), since: timed.then(Micros::now), request: None, connection: None }
    }

    /// Keeps the connection, whose last exchange ended cleanly, for the next one.
    pub fn keep(mut self, stream: Stream, marks: Marks<'_>) {
        let place = self.connection.take();
        let gate = place.as_ref().map(Permit::gate);
        if gate.as_ref().is_some_and(|gate| gate.others_wait(Kind::Connection)) {
            // Nobody here needs it, somebody elsewhere its place.
            return;
        }
        self.endpoint.put(stream, marks, place);
        if let Some(gate) = gate {
            gate.wake(Kind::Connection);
        }
    }

    /// The endpoint has done what its latency is measured by: the connection is there. For requests it is their end,
    /// which is that of the lease.
    pub fn answered(&mut self) {
        if let Some(since) = self.since.take() {
            let mut latency = self.endpoint.latency.get();
            latency.observe(u32::try_from(since.elapsed()).unwrap_or(u32::MAX), rt::millis());
            self.endpoint.latency.set(latency);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.answered();
        self.endpoint.counters.own.in_flight.dec();
    }
}

impl Deref for Lease {
    type Target = Rc<Endpoint>;

    fn deref(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }
}

/// Endpoints that one request has been to in vain. Allocates with the first of them.
#[derive(Debug, Default)]
pub struct Tried(Vec<Rc<Endpoint>>);

impl Tried {
    /// Not this one again.
    pub fn add(&mut self, endpoint: &Rc<Endpoint>) {
        self.0.push(Rc::clone(endpoint));
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn has(&self, endpoint: &Rc<Endpoint>) -> bool {
        self.0.iter().any(|tried| Rc::ptr_eq(tried, endpoint))
    }
}

impl Balanced {
    /// Over `endpoints` with their weights. `random` is where this core begins: cores that began at one place would
    /// send everything to the first endpoint together.
    pub fn new(
        policy: &LoadBalancer,
        slow_start: Option<std::time::Duration>,
        endpoints: Vec<Rc<Endpoint>>,
        weights: Vec<u32>,
        gate: Option<Rc<Gate>>,
        random: u64,
    ) -> Self {
        let start = u32::try_from(random >> 32).expect("32 bits are left");
        let turn = || RefCell::new(WeightedRoundRobin::new(&weights, start));
        let policy = match policy {
            LoadBalancer::RoundRobin => Policy::RoundRobin(turn()),
            LoadBalancer::LeastRequest => Policy::LeastRequest(turn()),
            LoadBalancer::PeakEwma => Policy::PeakEwma(turn()),
            LoadBalancer::Random => Policy::Random(Random::new(&weights)),
            LoadBalancer::ConsistentHash { .. } => Policy::Hash(Random::new(&weights)),
        };
        let slow_start = slow_start.filter(|_| endpoints.iter().any(|each| each.arrived.is_some())).map(|window| {
            let window = rt::tick_after(window).saturating_sub(rt::now());
            let last = endpoints.iter().filter_map(|endpoint| endpoint.arrived).max().unwrap_or_default();
            SlowStart { window, over: last + window }
        });
        Self { policy, weights: weights.into(), endpoints, slow_start, gate, random: Cell::new(random) }
    }

    /// Gives a request or connection to an endpoint that has not been tried; `None` when there is none. `key` is the
    /// hash of what a consistent hash goes by, `table` its table.
    pub fn pick(&self, key: Option<u64>, table: Option<&Maglev>, tried: &Tried) -> Option<Lease> {
        if let [only] = self.endpoints.as_slice() {
            return (!tried.has(only)).then(|| Lease::new(only, false));
        }
        if tried.count() >= self.endpoints.len() {
            return None;
        }
        let usable = |index: usize| !tried.has(&self.endpoints[index]);
        let index = match &self.policy {
            Policy::RoundRobin(turn) => self.turn(turn, usable)?,
            Policy::LeastRequest(turn) => {
                let turn = self.turn(turn, usable)?;
                let load = |index| self.load(index, usable);
                least_request::pick(self.endpoints.len(), turn, self.draw(), load)
            }
            Policy::PeakEwma(turn) => {
                let turn = self.turn(turn, usable)?;
                let now = rt::millis();
                let cost = |index: usize| self.endpoints[index].latency.get().cost(self.load(index, usable), now);
                peak_ewma::pick(self.endpoints.len(), turn, self.draw(), cost)
            }
            Policy::Random(random) => self.among(usable, || random.pick(self.draw()))?,
            Policy::Hash(random) => match (key, table) {
                (Some(key), Some(table)) => table.get_where(key, usable)?,
                _ => self.among(usable, || random.pick(self.draw()))?,
            },
        };
        Some(Lease::new(&self.endpoints[index], matches!(self.policy, Policy::PeakEwma(_))))
    }

    /// Gives it to this endpoint, unless that has been tried.
    pub fn give(&self, index: usize, tried: &Tried) -> Option<Lease> {
        let endpoint = self.endpoints.get(index).filter(|endpoint| !tried.has(endpoint))?;
        Some(Lease::new(endpoint, matches!(self.policy, Policy::PeakEwma(_))))
    }

    /// The endpoint that session tokens call by this.
    pub fn named(&self, identity: u64) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.identity == identity)
    }

    fn turn(&self, turn: &RefCell<WeightedRoundRobin>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut turn = turn.borrow_mut();
        self.among(usable, || turn.next())
    }

    /// The first candidate that is usable and takes its turn; where the candidates' order gives none for long, any that
    /// is usable.
    fn among(&self, usable: impl Fn(usize) -> bool, mut next: impl FnMut() -> Option<usize>) -> Option<usize> {
        let first = next()?;
        if usable(first) && self.takes_turn(first) {
            return Some(first);
        }
        for _ in 0..2 * self.endpoints.len() {
            let other = next()?;
            if usable(other) && self.takes_turn(other) {
                return Some(other);
            }
        }
        (0..self.endpoints.len()).find(|index| self.weights[*index] > 0 && usable(*index))
    }

    fn takes_turn(&self, index: usize) -> bool {
        let share = self.share(index);
        share == slow_start::WHOLE || slow_start::takes_turn(share, self.draw())
    }

    /// The part of its share that an endpoint takes now.
    #[inline]
    fn share(&self, index: usize) -> u32 {
        let Some(SlowStart { window, over }) = &self.slow_start else { return slow_start::WHOLE };
        let now = rt::now();
        if now >= *over {
            return slow_start::WHOLE;
        }
        match self.endpoints[index].arrived {
            Some(arrived) => slow_start::share(now.saturating_sub(arrived), *window),
            None => slow_start::WHOLE,
        }
    }

    /// What an endpoint has to do; more than any other has, if it is not to be used.
    #[inline]
    fn load(&self, index: usize, usable: impl Fn(usize) -> bool) -> Load {
        if !usable(index) {
            return Load { in_flight: u32::MAX, weight: 1 };
        }
        let weight = u64::from(self.weights[index]) * u64::from(self.share(index));
        Load { in_flight: self.endpoints[index].in_flight(), weight: weight.max(1) }
    }

    fn draw(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        hash::finish(next)
    }

    /// Where the first endpoint is: all of a backend's are of one kind.
    pub fn first_address(&self) -> Option<&EndpointAddress> {
        self.endpoints.first().map(|endpoint| &endpoint.address)
    }

    /// In front of it, where it has limits.
    pub fn gate(&self) -> Option<&Rc<Gate>> {
        self.gate.as_ref()
    }

    /// Gives up connections that nobody uses, where another core waits for their places.
    pub fn make_room(&self) {
        if self.gate.as_ref().is_some_and(|gate| gate.others_wait(Kind::Connection)) {
            self.endpoints.iter().for_each(|endpoint| endpoint.clear());
        }
    }

    /// Its endpoints.
    pub fn endpoints(&self) -> &[Rc<Endpoint>] {
        &self.endpoints
    }
}
