//! Counters that cost the data path next to nothing.
//!
//! Every counter belongs to one core: that core adds to it with a plain load and store, everybody else only reads. No
//! counter is locked or contended, and counters that are written together share cache lines with nothing else.
//! Latencies are histograms owned by their core; a scrape asks each core for a copy and merges the copies, so recording
//! is not atomic at all.
//!
//! Counters are found by their labels when a generation is built ([`Registry::bind`]), never on the data path. They
//! live as long as a generation has their labels, so a reload does not reset them.

mod dsr;
mod latency;
mod names;
mod prometheus;
mod registry;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::tls::Version;

pub use dsr::{DsrSamples, DsrServiceSample, render_dsr};
pub use latency::{Latencies, LatencySnapshot, merge};
pub use names::{AcceptError, Authorization, DownstreamError, SessionResult, UpstreamError};
pub use prometheus::{Info, render};
pub use registry::{CoreCounters, Registry, WorkerMetrics};

/// A count that only grows. One thread writes it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. Not a read-modify-write: there is one writer.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter per reason. Arrays of more than 32 have no default of their own.
#[derive(Debug)]
struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// A level. One thread writes it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        self.set(self.get().wrapping_add(1));
    }

    /// Takes 1 away.
    #[inline]
    pub fn dec(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a core counts for itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreMetrics {
    /// Downstream connections open.
    pub connections: Gauge,
    /// Upstream connections kept for reuse.
    pub pool_idle: Gauge,
    /// Buffers in use.
    pub buffers_in_use: Gauge,
    /// Pipes in use for splicing.
    pub pipes_in_use: Gauge,
    /// Bytes that were spliced; copied from the core once a second.
    pub spliced: Gauge,
    /// How often no pipe could be had; copied from the core once a second.
    pub pipes_refused: Gauge,
    /// Panics caught at a connection's boundary.
    pub panics: Counter,
    downstream: Counters<{ DownstreamError::ALL.len() }>,
    accept: [Counter; AcceptError::ALL.len()],
}

impl CoreMetrics {
    /// Counts an error that a client made or saw.
    pub fn downstream_error(&self, error: DownstreamError) {
        self.downstream.0[error as usize].inc();
    }

    /// Counts a connection that could not be accepted.
    pub fn accept_error(&self, error: AcceptError) {
        self.accept[error as usize].inc();
    }
}

/// What a core counts for a route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteMetrics {
    /// By status class; index 0 is for requests that got no answer.
    pub by_class: [Counter; 6],
    /// Calls of gRPC, by status.
    pub grpc: [Counter; ringway_core::grpc::STATUSES],
    /// Questions to servers of ExternalAuth filters, by what came of them.
    pub authorizations: [Counter; Authorization::ALL.len()],
    /// Requests to rules with sessions, by what became of that.
    pub sessions: [Counter; SessionResult::ALL.len()],
}

/// What a core counts for a backend.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendMetrics {
    /// Requests and connections that were given to an endpoint.
    pub requests: Counter,
    /// Requests that were sent again because their routes want that.
    pub retries: Counter,
    errors: [Counter; UpstreamError::ALL.len()],
}

impl BackendMetrics {
    /// Counts a failure.
    pub fn error(&self, error: UpstreamError) {
        self.errors[error as usize].inc();
    }
}

/// What a core has given to an endpoint and not got back: the other cores read it to balance, at every pick, so it
/// shares its cache lines with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointMetrics {
    /// Requests and connections in flight.
    pub in_flight: Gauge,
}

/// What a core counts for a listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerMetrics {
    connections: Counter,
    active: Gauge,
    bytes_in: Counter,
    bytes_out: Counter,
    /// Handshakes that succeeded: TLS 1.2, TLS 1.3; full, resumed.
    handshakes: [[Counter; 2]; 2],
}

impl ListenerMetrics {
    /// A TLS handshake succeeded.
    pub fn handshake(&self, version: Version, resumed: bool) {
        self.handshakes[version as usize][usize::from(resumed)].inc();
    }

    /// A connection was accepted, or a flow begun.
    pub fn opened(self: &Arc<Self>) -> Open {
        self.connections.inc();
        self.active.inc();
        Open(Arc::clone(self))
    }

    /// Bytes have come from a client.
    #[inline]
    pub fn received(&self, bytes: usize) {
        self.bytes_in.add(bytes as u64);
    }

    /// Bytes have gone to a client.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.add(bytes as u64);
    }
}

/// A connection or flow that counts as active for as long as this lives, however it ends: a panic drops it as well.
#[derive(Debug)]
pub struct Open(Arc<ListenerMetrics>);

impl Open {
    /// Its listener's counters.
    pub fn listener(&self) -> &Arc<ListenerMetrics> {
        &self.0
    }
}

impl Deref for Open {
    type Target = ListenerMetrics;

    fn deref(&self) -> &ListenerMetrics {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_by_a_panic_too() {
        let listener = Arc::new(ListenerMetrics::default());
        let first = listener.opened();
        let second = listener.opened();
        assert_eq!(listener.active.get(), 2);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = second;
            panic!("as a bug would");
        }));
        assert!(panicked.is_err());
        assert_eq!(listener.active.get(), 1);
        drop(first);
        assert_eq!((listener.active.get(), listener.connections.get()), (0, 2));
    }
}
