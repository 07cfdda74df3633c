//! UDP routes: flows of datagrams between clients and endpoints.
//!
//! A flow is a client's address (and ours, where a socket has several) and a connected socket of its own towards an
//! endpoint, so that answers find their way back by the socket they come on and nobody but the endpoint can send any.
//! Each core has its own listening socket, and the kernel keeps a client at one of them, so a core's flows are its own.
//!
//! Two tasks per listener: one takes batches from the listening socket and sends them on, the other takes answers.
//! The sockets of all flows are in one epoll set, whose descriptor the event loop waits for: a wait per flow would cost
//! more than the datagrams.
//!
//! What comes alone is passed on at once. Where several come at a time more are on their way, and a task that has passed
//! them on pauses for a moment: the next ones then share a wake-up and its calls.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway_core::balance::key;
use ringway_core::flow::{FlowId, FlowTable};
use ringway_core::model::{EndpointAddress, Target};
use rustix::event::epoll;

use crate::metrics::{BackendMetrics, DownstreamError, ListenerMetrics, Open, UpstreamError};
use crate::rt::{self, Signal, Source, StreamCount, Tick};
use crate::snapshot::{SocketId, SocketKind};
use crate::sys::{self, BATCH, Datagrams, Path};
use crate::upstream::{Lease, Marks, Reuse, Tried};
use crate::worker::{Core, Generation};

/// Batches taken per wake-up, so that other tasks get their turn.
const ROUNDS: usize = 4;

/// Datagrams taken at a wake-up from which on more are on their way: the next are gathered for a moment.
const BUSY: usize = 2;

/// How long. Measured against no pause at all: `perf/README.md`, L4.
const GATHER: Duration = Duration::from_micros(100);

/// How long datagrams are still passed on after a listener was told to stop: what is on its way arrives.
const GRACE: Duration = Duration::from_millis(500);

/// Ready flows at a wake-up up to which each is asked for a whole batch; with more, each has little.
const FEW: usize = 2;

thread_local! {
    /// Of all listeners of a core, between suspension points only.
    static SCRATCH: RefCell<Option<Box<Datagrams>>> = const { RefCell::new(None) };
}

fn with_scratch<R>(f: impl FnOnce(&mut Datagrams) -> R) -> R {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let datagrams = scratch.get_or_insert_with(Box::default);
        datagrams.clear();
        f(datagrams)
    })
}

/// One flow.
struct Flow {
    socket: OwnedFd,
    /// In flight at its endpoint, as a connection is.
    lease: Lease,
    metrics: Arc<BackendMetrics>,
    /// Several datagrams came at a time last.
    bursts: Cell<bool>,
    /// The wake-up at which its endpoint's last datagram was taken.
    taken: Cell<u32>,
    _count: StreamCount,
    _open: Open,
}

/// Where a datagram of a client without a flow goes.
enum Opened {
    /// To an endpoint.
    Flow(FlowId),
    /// Back: the backend is the built-in echo.
    Echo,
    /// It is dropped, which has been counted.
    Nowhere,
}

/// A listener's state.
struct Listener {
    core: Rc<Core>,
    id: SocketId,
    source: Source,
    /// All flows' sockets.
    set: Source,
    flows: RefCell<FlowTable<Path, Flow>>,
    /// Wake-ups by answers.
    wakes: Cell<u32>,
    metrics: Arc<ListenerMetrics>,
}

/// Serves a bound UDP socket until told to stop.
pub(super) fn start(core: &Rc<Core>, id: SocketId, socket: OwnedFd, stop: Rc<Signal>) -> io::Result<()> {
    let generation = core.generation();
    let Some(found) = generation.socket(id) else { return Ok(()) };
    let metrics = Arc::clone(&generation.metrics.listeners[found.index][0]);
    drop(generation);
    let listener = Rc::new(Listener {
        source: Source::new(socket)?,
        set: Source::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)?,
        flows: RefCell::default(),
        wakes: Cell::new(1),
        core: Rc::clone(core),
        id,
        metrics,
    });
    let over = Rc::new(Signal::default());
    guard(core, until_stopped(Rc::clone(&listener), stop, Rc::clone(&over)));
    guard(core, answers(Rc::clone(&listener), Rc::clone(&over)));
    guard(core, expire(listener, over));
    Ok(())
}

/// A panic ends a listener's task, not the core.
fn guard(core: &Rc<Core>, task: impl Future<Output = ()> + 'static) {
    let core = Rc::clone(core);
    let task = rt::catch_unwind(Box::pin(task));
    rt::spawn(async move {
        if task.await.is_err() {
            core.metrics.panics.inc();
            tracing::error!(
                worker = core.settings.id,
                "panic in a UDP listener's task; the listener is not served on this worker"
            );
        }
    });
}

async fn until_stopped(listener: Rc<Listener>, stop: Rc<Signal>, over: Rc<Signal>) {
    let stopped = async {
        stop.wait().await;
        // A drain waits for as long as this is entered.
        let _busy = listener.core.conns.enter(listener.source.fd(), listener.id, None);
        rt::sleep(GRACE).await;
    };
    if let Ok(Err(error)) = rt::race(requests(&listener), stopped).await {
        tracing::error!(%error, worker = listener.core.settings.id, "cannot wait for datagrams");
    }
    over.raise();
}

/// Datagrams of clients.
async fn requests(listener: &Listener) -> io::Result<()> {
    let mut taken = 0;
    loop {
        // Without a timer every batch is waited for: other tasks want their turn.
        if taken < BUSY || !rt::pace(GATHER).await {
            listener.source.readable().await?;
        }
        taken = 0;
        for _ in 0..ROUNDS {
            let received = with_scratch(|batch| match batch.receive(listener.source.fd(), None) {
                Ok(received) => {
                    listener.forward(batch);
                    received
                }
                // An ICMP message about something sent earlier, or a moment without memory.
                Err(_) => 0,
            });
            taken += received;
            if received < BATCH {
                break;
            }
        }
    }
}

/// Datagrams of endpoints.
async fn answers(listener: Rc<Listener>, over: Rc<Signal>) {
    let mut events = Vec::with_capacity(BATCH);
    let mut taken = 0;
    loop {
        if taken < BUSY || !rt::pace(GATHER).await {
            match rt::race(over.wait(), listener.set.readable()).await {
                Ok(()) => return,
                Err(Ok(())) => {}
                Err(Err(error)) => {
                    tracing::error!(%error, "cannot wait for answers of UDP endpoints");
                    return;
                }
            }
        }
        if over.is_raised() {
            return;
        }
        taken = 0;
        listener.wakes.set(listener.wakes.get().wrapping_add(1));
        for _ in 0..ROUNDS {
            match sys::ready(listener.set.fd(), &mut events) {
                Ok(()) => taken += listener.answer(&events),
                Err(_) => break,
            }
            if events.len() < BATCH {
                break;
            }
        }
    }
}

/// Ends flows that have been quiet for long enough, and all of them when the listener is over.
async fn expire(listener: Rc<Listener>, over: Rc<Signal>) {
    const STEP: Duration = Duration::from_secs(1);
    while rt::race(over.wait(), rt::sleep(STEP)).await.is_err() {
        let generation = listener.core.generation();
        let Some(socket) = generation.socket(listener.id) else { continue };
        let idle = rt::tick_after(socket.shared.client.timeouts.udp_idle).saturating_sub(rt::now());
        let Some(then) = rt::now().checked_sub(idle) else { continue };
        let mut flows = listener.flows.borrow_mut();
        let before = flows.len();
        while flows.expire(then).is_some() {}
        if flows.len() < before / 2 {
            flows.shrink();
        }
    }
    while listener.flows.borrow_mut().evict().is_some() {}
}

impl Listener {
    /// Sends a batch of clients' datagrams on. Those of one flow that stand together leave together.
    fn forward(&self, batch: &mut Datagrams) {
        let mut run: Option<(FlowId, Range<usize>)> = None;
        let mut bytes = 0;
        for index in 0..batch.len() {
            let (path, data) = batch.get(index);
            bytes += data.len();
            let known = self.flows.borrow().find(&path);
            if let (Some(id), Some((current, range))) = (known, &mut run)
                && id == *current
            {
                range.end = index + 1;
                continue;
            }
            if let Some((id, range)) = run.take() {
                self.send_on(id, batch, range);
            }
            // What was sent may have ended a flow of the same client.
            let alive = known.filter(|id| self.flows.borrow().get(*id).is_some());
            match alive.map_or_else(|| self.open(path, &Tried::default()), Opened::Flow) {
                Opened::Flow(id) => run = Some((id, index..index + 1)),
                Opened::Echo => self.send_back(batch, index..index + 1),
                Opened::Nowhere => {}
            }
        }
        if let Some((id, range)) = run {
            self.send_on(id, batch, range);
        }
        self.metrics.received(bytes);
    }

    fn send_on(&self, id: FlowId, batch: &mut Datagrams, range: Range<usize>) {
        let mut flows = self.flows.borrow_mut();
        flows.touch(id, rt::now());
        let Some((_, flow)) = flows.get(id) else { return };
        let Range { mut start, end } = range;
        if end - start > 1 {
            // Who sends in bursts is answered in bursts.
            flow.bursts.set(true);
        }
        let mut tried = false;
        while start < end {
            match batch.send(flow.socket.as_raw_fd(), start..end, true) {
                Ok(sent) => start += sent,
                // The answer of an endpoint that is not there to something sent before; this datagram is still here,
                // and the next may find another endpoint.
                Err(error) if sys::is_unreachable(&error) && !tried => {
                    flow.metrics.error(UpstreamError::ConnectRefused);
                    tried = true;
                }
                Err(error) if sys::is_unreachable(&error) => {
                    flow.metrics.error(UpstreamError::ConnectRefused);
                    drop(flows);
                    return self.turn_away(id);
                }
                Err(_) => {
                    flow.metrics.error(UpstreamError::Write);
                    start += 1;
                }
            }
        }
    }

    /// Ends a flow whose endpoint is not there and begins another in its place, to another endpoint where there is one:
    /// a balancer takes a dead endpoint for one that has nothing to do.
    fn turn_away(&self, id: FlowId) {
        let Some((path, flow)) = self.flows.borrow_mut().remove(id) else { return };
        let mut tried = Tried::default();
        tried.add(&flow.lease);
        drop(flow);
        self.open(path, &tried);
    }

    /// A flow to an endpoint that has not been tried, for a client that has none.
    fn open(&self, path: Path, tried: &Tried) -> Opened {
        let generation = self.core.generation();
        self.choose(&generation, path, tried).unwrap_or(Opened::Nowhere)
    }

    fn choose(&self, generation: &Generation, path: Path, tried: &Tried) -> Option<Opened> {
        let core = &self.core;
        let socket = generation.socket(self.id)?;
        let SocketKind::Udp(listener) = &socket.shared.kind else { return None };
        let Some((_, split)) = &listener.route else {
            core.metrics.downstream_error(DownstreamError::NoRoute);
            return None;
        };
        let Some(Target::Backend(id)) = generation.pick(socket.index, 0, split) else {
            core.metrics.downstream_error(DownstreamError::InvalidBackend);
            return None;
        };
        let metrics = &generation.metrics.backends[id.0 as usize];
        metrics.requests.inc();
        let local = SocketAddr::new(path.local.unwrap_or_else(|| socket.shared.bind.ip()), socket.shared.bind.port());
        // An IPv4 client of a dual-stack socket is the same as one of an IPv4 socket.
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let ends = key::Flow { source: plain(path.peer), destination: plain(local), protocol: key::UDP };
        let dial = generation.dial(id, None, Marks::default(), Reuse::Never, false, Tick::MAX);
        let hash = generation.shared.hash_key(id).and_then(|wanted| key::of_flow(wanted, &ends));
        let Some(mut lease) = dial.backend.pick(hash, dial.table, tried) else {
            if tried.count() == 0 {
                metrics.error(UpstreamError::NoEndpoint);
            }
            return None;
        };
        let address = match &lease.address {
            EndpointAddress::Tcp(address) => *address,
            EndpointAddress::Echo(_) => return Some(Opened::Echo),
            EndpointAddress::Unix(_) => {
                metrics.error(UpstreamError::NoEndpoint);
                return None;
            }
        };
        let limit = socket.shared.client.limits.udp_flows;
        while self.flows.borrow().len() >= limit {
            self.evict();
        }
        if rt::open_streams() >= core.settings.max_streams {
            self.evict();
        }
        let source = generation.shared.is_transparent(id).then(|| path.peer.ip().to_canonical());
        let connected = sys::connect_udp(address, source).or_else(|_| {
            // Descriptors or local ports have run out: the oldest flow makes room.
            self.evict();
            sys::connect_udp(address, source)
        });
        let Ok(socket) = connected else {
            metrics.error(UpstreamError::NoResources);
            return None;
        };
        lease.answered();
        let mut flows = self.flows.borrow_mut();
        let flow = Flow {
            socket,
            lease,
            metrics: Arc::clone(metrics),
            bursts: Cell::new(false),
            taken: Cell::new(0),
            _count: StreamCount::take(),
            _open: self.metrics.opened(),
        };
        let flow_id = flows.insert(path, flow, rt::now());
        let watched = flows.get(flow_id).map(|(_, flow)| sys::watch(self.set.fd(), &flow.socket, flow_id.to_bits()));
        if !matches!(watched, Some(Ok(()))) {
            flows.remove(flow_id);
            metrics.error(UpstreamError::NoResources);
            return None;
        }
        Some(Opened::Flow(flow_id))
    }

    fn evict(&self) {
        if self.flows.borrow_mut().evict().is_some() {
            self.core.metrics.downstream_error(DownstreamError::FlowEvicted);
        }
    }

    /// Takes the answers of flows that have some and sends them to their clients, many in one call. How many there were.
    fn answer(&self, events: &[u64]) -> usize {
        with_scratch(|batch| {
            let mut count = 0;
            for id in events.iter().map(|bits| FlowId::from_bits(*bits)) {
                let mut flows = self.flows.borrow_mut();
                let Some((path, flow)) = flows.get(id) else { continue };
                let (path, socket) = (*path, flow.socket.as_raw_fd());
                // One call for one datagram, unless there are probably more of this flow: they came so last, or it had some
                // left at the wake-up before. What came together leaves together.
                let now = self.wakes.get();
                let more = flow.bursts.get() || now.wrapping_sub(flow.taken.replace(now)) <= 1;
                let received = if more || events.len() <= FEW {
                    batch.receive(socket, Some(path)).map(|received| flow.bursts.set(received > 1))
                } else {
                    batch.receive_one(socket, path).map(drop)
                };
                match received {
                    Ok(()) => flows.touch(id, rt::now()),
                    Err(error) => {
                        let refused = sys::is_unreachable(&error);
                        flow.metrics.error(if refused { UpstreamError::ConnectRefused } else { UpstreamError::Reset });
                        drop(flows);
                        self.turn_away(id);
                    }
                }
                if batch.is_full() {
                    count += batch.len();
                    self.send_back(batch, 0..BATCH);
                    batch.clear();
                }
            }
            let rest = batch.len();
            self.send_back(batch, 0..rest);
            count + rest
        })
    }

    fn send_back(&self, batch: &mut Datagrams, range: Range<usize>) {
        let mut bytes = 0;
        let Range { mut start, end } = range;
        while start < end {
            match batch.send(self.source.fd(), start..end, false) {
                Ok(sent) => {
                    bytes += (start..start + sent).map(|index| batch.get(index).1.len()).sum::<usize>();
                    start += sent;
                }
                // A full send buffer, or a client that cannot be reached: UDP may lose datagrams, and nobody waits.
                Err(_) => {
                    self.core.metrics.downstream_error(DownstreamError::DatagramDropped);
                    start += 1;
                }
            }
        }
        self.metrics.sent(bytes);
    }
}
