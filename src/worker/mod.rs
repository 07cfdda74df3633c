//! A worker: one thread, one core, one event loop.
//!
//! It owns its listening sockets, connections, buffers, pools and counters. Nothing on its data path is shared or
//! locked; what other threads want of it arrives in its inbox, and what it serves is swapped there in one step.

mod accept;
mod conn;
mod generation;
mod held;
mod housekeeping;
mod remains;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use ringway_core::http::Date;

use crate::auth::Checker;
use crate::compress::Encoders;
use crate::downstream;
use crate::metrics::{CoreMetrics, Latencies, LatencySnapshot, WorkerMetrics};
use crate::rt::{self, Driver, Listener, Receiver, Signal};
use crate::session::SessionKeys;
use crate::snapshot::{Carried, Snapshot, SocketId, SocketKind};
use crate::tls::TicketRing;

use remains::Graves;

pub use conn::{ConnGuard, ConnState, Place, Registry};
pub use generation::{ClientBounds, Generation, HttpSocket, Socket};
pub use held::{AtLimit, Counting, Held};
pub use remains::{Remains, collect};

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// Serve this from now on; answers through `done` once it does.
    Apply {
        /// What to serve.
        snapshot: Arc<Snapshot>,
        /// What of it has been there before.
        carried: Arc<Carried>,
        /// Where to count.
        metrics: WorkerMetrics,
        /// Sockets that are new with it, bound and listening.
        listeners: Vec<(SocketId, OwnedFd)>,
        /// Told when it is in effect.
        done: mpsc::Sender<()>,
    },
    /// Tickets are made and taken by these keys from now on.
    TicketKeys(Arc<TicketRing>),
    /// Session tokens are made and taken by these keys from now on.
    SessionKeys(Arc<SessionKeys>),
    /// Copies of the latency histograms, please.
    Latencies(mpsc::Sender<LatencySnapshot>),
    /// Stop accepting, let exchanges in flight finish for at most this long, then stop.
    Drain(Duration),
}

/// What a worker is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its index.
    pub id: usize,
    /// Where it waits.
    pub driver: Driver,
    /// The core to run on.
    pub pin: Option<core_affinity::CoreId>,
    /// Streams it may have open, both sides counted.
    pub max_streams: usize,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because the drain's deadline passed.
    pub cut: usize,
}

/// State of one core, shared by its tasks.
#[derive(Debug)]
pub struct Core {
    /// Its settings.
    pub settings: Settings,
    /// Its counters.
    pub metrics: Arc<CoreMetrics>,
    /// Its latencies.
    pub latencies: RefCell<Latencies>,
    /// Its connections.
    pub conns: Registry,
    /// Bytes under construction, between suspension points only.
    pub scratch: RefCell<Vec<u8>>,
    /// For requests that show who they are of by a password.
    pub passwords: Checker,
    /// For answers that are compressed.
    pub encoders: Encoders,
    /// Copies of requests that are on their way to mirrors.
    pub copies: Cell<usize>,
    /// Keys of session tokens.
    pub session_keys: RefCell<Arc<SessionKeys>>,
    generation: RefCell<Rc<Generation>>,
    draining: Cell<bool>,
    date: Cell<Date>,
    seconds: Cell<u64>,
    random: Cell<u64>,
    graves: Graves,
}

impl Core {
    /// What is served now.
    pub fn generation(&self) -> Rc<Generation> {
        Rc::clone(&self.generation.borrow())
    }

    /// Whether connections should end after the exchange they are in.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The Date of answers, renewed once a second.
    pub fn date(&self) -> Date {
        self.date.get()
    }

    /// The time of day, in seconds since 1970, renewed once a second.
    pub fn seconds(&self) -> u64 {
        self.seconds.get()
    }

    /// A random number: request ids, starting points. Not for secrets.
    pub fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Runs a worker on the calling thread until it has drained.
/// What is left of its generations goes to `remains`.
pub fn run(
    settings: Settings,
    seed: u64,
    metrics: WorkerMetrics,
    inbox: Receiver<Message>,
    remains: mpsc::Sender<Remains>,
) -> io::Result<Drained> {
    if let Some(core) = settings.pin
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(worker = settings.id, core = core.id, "cannot pin worker to core");
    }
    let driver = settings.driver;
    let now = housekeeping::now();
    let graves = Graves::new(remains);
    let core = Rc::new(Core {
        metrics: Arc::clone(&metrics.core),
        latencies: RefCell::new(Latencies::default()),
        conns: Registry::default(),
        scratch: RefCell::new(Vec::with_capacity(4 << 10)),
        passwords: Checker::default(),
        encoders: Encoders::default(),
        copies: Cell::new(0),
        session_keys: RefCell::default(),
        generation: RefCell::new(Rc::new(Generation::empty(metrics, graves.clone()))),
        draining: Cell::new(false),
        date: Cell::new(Date::at(now)),
        seconds: Cell::new(now),
        random: Cell::new(seed),
        settings,
        graves,
    });
    rt::run(driver, serve(core, inbox))?
}

async fn serve(core: Rc<Core>, inbox: Receiver<Message>) -> io::Result<Drained> {
    let mut inbox = inbox.open()?;
    let mut accepting: HashMap<SocketId, Rc<Signal>> = HashMap::new();
    rt::spawn(housekeeping::run(Rc::clone(&core)));
    loop {
        match inbox.next().await? {
            Message::Apply { snapshot, carried, metrics, listeners, done } => {
                let old = core.generation();
                // One that this worker took too long for has not counted.
                let known = carried.from == old.shared.generation;
                let carried = if known { carried } else { Arc::new(Carried::between(&old.shared, &snapshot)) };
                // In pieces, while the old one is served.
                let new = Rc::new(Generation::build(&core, &old, snapshot, &carried, metrics).await);
                core.latencies.borrow_mut().rebind(&carried.routes);
                *core.generation.borrow_mut() = Rc::clone(&new);
                drop(old);
                accepting.retain(|id, stop| {
                    let stays = new.socket(*id).is_some_and(|found| found.shared.id == *id);
                    if !stays {
                        stop.raise();
                    }
                    stays
                });
                for (id, socket) in listeners {
                    if matches!(new.socket(id).map(|found| &found.shared.kind), Some(SocketKind::Udp(_))) {
                        let stop = Rc::new(Signal::default());
                        accepting.insert(id, Rc::clone(&stop));
                        downstream::start_udp(&core, id, socket, stop);
                        continue;
                    }
                    match Listener::new(socket) {
                        Ok(listener) => {
                            let stop = Rc::new(Signal::default());
                            accepting.insert(id, Rc::clone(&stop));
                            rt::spawn(accept::run(Rc::clone(&core), id, listener, stop));
                        }
                        Err(error) => tracing::error!(%error, worker = core.settings.id, "cannot use listener"),
                    }
                }
                core.conns.retire(|id| new.socket(id).is_none());
                // The sender waits; if it has gone, so has the process's control thread.
                let _told = done.send(());
            }
            Message::TicketKeys(ring) => ring.install(),
            Message::SessionKeys(keys) => *core.session_keys.borrow_mut() = keys,
            Message::Latencies(reply) => {
                let _told = reply.send(core.latencies.borrow().snapshot());
            }
            Message::Drain(limit) => {
                core.draining.set(true);
                core.conns.nudge();
                for stop in accepting.values() {
                    stop.raise();
                }
                return Ok(drain(&core, limit).await);
            }
        }
    }
}

/// Waits until every connection has ended, closing idle ones after a grace in which their clients may still send the
/// request that is on its way; cuts what is left at the limit.
async fn drain(core: &Core, limit: Duration) -> Drained {
    const STEP: Duration = Duration::from_millis(20);
    const GRACE: Duration = Duration::from_millis(500);
    let started = std::time::Instant::now();
    // Accept loops take what waits in their queues first.
    rt::sleep(STEP).await;
    while !core.conns.is_empty() && started.elapsed() < limit {
        if started.elapsed() >= GRACE.min(limit / 2) {
            core.conns.retire(|_| true);
        }
        rt::sleep(STEP).await;
    }
    let cut = core.conns.cut_all();
    if cut > 0 {
        rt::sleep(STEP * 5).await;
    }
    Drained { cut }
}
