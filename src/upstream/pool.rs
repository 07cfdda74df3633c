//! Kept connections: one stack per endpoint and core, newest first, so that the least used ones grow old and go.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_core::balance::PeakEwma;
use ringway_core::model::{ConnectionSettings, EndpointAddress};

use super::{Multiplexed, Permit};
use crate::metrics::{CoreCounters, EndpointMetrics};
use crate::rt::{self, Stream, Tick};
use crate::tls::ClientTls;

/// An endpoint as one core sees it. It outlives generations as long as its address and settings stay.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// What it is called in session tokens.
    pub identity: u64,
    /// How it is connected to.
    pub settings: ConnectionSettings,
    /// What all cores have in flight there.
    pub counters: CoreCounters<EndpointMetrics>,
    /// When it came to a backend that had other endpoints already.
    pub arrived: Option<Tick>,
    /// What this core has seen of its latency.
    pub latency: Cell<PeakEwma>,
    /// How connections to it are encrypted, with this core's sessions.
    pub tls: Option<ClientTls>,
    /// Connections of HTTP/2.
    pub multiplexed: Multiplexed,
    /// Attempts to connect whose requests have been given up.
    pub(super) going_on: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Tick,
    /// The PROXY header that it began with: it is its client's.
    header: Option<Box<[u8]>>,
    /// The client's address that it leaves from.
    source: Option<IpAddr>,
    /// Its place among the backend's connections, where they are limited.
    place: Option<Permit>,
}

/// What makes a connection one client's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'m> {
    /// The PROXY header that it begins with.
    pub header: Option<&'m [u8]>,
    /// The client, whose address it leaves from. A reference, since this is a part of every busy connection's future.
    pub source: Option<&'m SocketAddr>,
}

impl Marks<'_> {
    /// Whether there are none: any client may use the connection.
    pub fn is_empty(&self) -> bool {
        self.header.is_none() && self.source.is_none()
    }

    /// The address of [`Marks::source`].
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.source.map(SocketAddr::ip)
    }

    /// Whether a connection with this header and source is the same client's.
    pub(super) fn fit(&self, header: Option<&[u8]>, source: Option<IpAddr>) -> bool {
        self.header == header && self.source_ip() == source
    }
}

impl Idle {
    fn has(&self, marks: Marks<'_>) -> bool {
        marks.fit(self.header.as_deref(), self.source)
    }
}

/// A kept connection.
#[derive(Debug)]
pub struct Pooled(pub Stream, pub Option<Permit>);

impl Endpoint {
    /// Without connections.
    pub fn new(
        address: EndpointAddress,
        identity: u64,
        settings: ConnectionSettings,
        counters: CoreCounters<EndpointMetrics>,
        arrived: Option<Tick>,
        tls: Option<ClientTls>,
    ) -> Self {
        let latency = Cell::new(PeakEwma::default());
        let multiplexed = Multiplexed::default();
        let idle = RefCell::default();
        let going_on = Cell::new(0);
        Self { address, identity, settings, counters, arrived, latency, tls, multiplexed, going_on, idle }
    }

    /// Requests and connections in flight, of all cores.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        let others: u64 = self.counters.others.iter().map(|core| core.in_flight.get()).sum();
        u32::try_from(self.counters.own.in_flight.get() + others).unwrap_or(u32::MAX)
    }

    /// The newest kept connection that is alive, with these marks: an endpoint's connections have some or none, all of
    /// them.
    ///
    /// The look costs a system call (measured: 0.3 us), so a connection that was put back within the last two ticks is
    /// taken without one, unless `look` asks: a request that must not be sent twice is worth it.
    pub fn take(&self, look: bool, marks: Marks<'_>) -> Option<Pooled> {
        loop {
            let idle = if marks.is_empty() {
                self.idle.borrow_mut().pop()?
            } else {
                let mut idle = self.idle.borrow_mut();
                let same = idle.iter().rposition(|kept| kept.has(marks))?;
                idle.remove(same)
            };
            let fresh = rt::now() <= idle.since + 1;
            if (fresh && !look) || idle.stream.is_quiet() {
                return Some(Pooled(idle.stream, idle.place));
            }
        }
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub fn put(&self, stream: Stream, marks: Marks<'_>, place: Option<Permit>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.settings.max_idle {
            let (header, source) = (marks.header.map(Box::from), marks.source_ip());
            idle.push(Idle { stream, since: rt::now(), header, source, place });
        }
    }

    /// Whether a connection is kept that has these marks.
    pub fn has_kept(&self, marks: Marks<'_>) -> bool {
        self.idle.borrow().iter().any(|kept| kept.has(marks))
    }

    /// Drops connections that are too old or that the other side has ended.
    pub fn sweep(&self) {
        self.multiplexed.sweep(self.settings.idle_timeout);
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return;
        }
        let ticks = rt::tick_after(self.settings.idle_timeout).saturating_sub(rt::now());
        let now = rt::now();
        idle.retain(|kept| now.saturating_sub(kept.since) < ticks && kept.stream.is_quiet());
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }

    /// Connections kept.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.multiplexed.idle()
    }

    /// Drops all of them: descriptors have run out.
    pub fn clear(&self) {
        // Given up outside of the borrow: a place that becomes free may wake somebody who looks here.
        drop(self.idle.take());
        self.multiplexed.clear();
    }

    /// Until when a connect that starts now may take.
    pub fn connect_by(&self) -> Tick {
        rt::tick_after(self.settings.connect_timeout.max(Duration::from_millis(1)))
    }
}
