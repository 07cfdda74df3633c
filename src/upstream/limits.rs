//! Limits of a backend on requests and connections, over all cores, and the queue in front of them.
//!
//! The counts are exact: a place is taken by a compare-and-swap on one number that the cores share, which only backends
//! with a limit pay for. Who finds none waits in its core's queue, first come, first served. A place that becomes free
//! is offered to the core that frees it as often as its part of all who wait; the front of every other queue looks by
//! itself every few milliseconds, since a core cannot wake another's tasks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_core::model::BackendLimits;

use super::ConnectError;
use crate::rt::{self, Signal, Tick};

/// How often the front of a queue looks for a place that another core has freed.
const LOOK: Duration = Duration::from_millis(5);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests and TCP connections that an endpoint works on.
    Request,
    /// Connections to endpoints.
    Connection,
}

/// A backend's limits and what is taken of them; shared by all cores and kept across reloads.
#[derive(Debug, Default)]
pub struct Limiter {
    requests: Places,
    connections: Places,
    pending: AtomicU32,
    pending_millis: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    /// 0: no limit.
    limit: AtomicU32,
    taken: AtomicU32,
    waiting: AtomicU32,
}

impl Places {
    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |taken: u32| (limit == 0 || taken < limit).then(|| taken.saturating_add(1));
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    fn queue(&self, limit: u32) -> bool {
        let more = |waiting: u32| (waiting < limit).then(|| waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }
}

impl Limiter {
    /// Sets the limits; what is taken stays.
    pub fn set(&self, limits: &BackendLimits) {
        self.requests.limit.store(limits.requests.unwrap_or(0), Ordering::Relaxed);
        self.connections.limit.store(limits.connections.unwrap_or(0), Ordering::Relaxed);
        self.pending.store(limits.pending, Ordering::Relaxed);
        let millis = u64::try_from(limits.pending_timeout.as_millis()).unwrap_or(u64::MAX);
        self.pending_millis.store(millis, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.requests.waiting.load(Ordering::Relaxed) + self.connections.waiting.load(Ordering::Relaxed)
    }

    fn places(&self, kind: Kind) -> &Places {
        match kind {
            Kind::Request => &self.requests,
            Kind::Connection => &self.connections,
        }
    }
}

/// A backend's limits as one core sees them, with its queues.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Limiter>,
    queues: [RefCell<VecDeque<Rc<Waiter>>>; 2],
    offered: Cell<u32>,
}

#[derive(Debug, Default)]
struct Waiter {
    signal: RefCell<Rc<Signal>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Rc<Gate>,
    kind: Kind,
}

impl Permit {
    /// Where it was got.
    pub fn gate(&self) -> Rc<Gate> {
        Rc::clone(&self.gate)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.shared.places(self.kind).taken.fetch_sub(1, Ordering::AcqRel);
        self.gate.offer(self.kind);
    }
}

/// A place in a queue; left when dropped.
struct Queued<'g> {
    gate: &'g Rc<Gate>,
    kind: Kind,
    waiter: Rc<Waiter>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.gate.shared.places(self.kind).waiting.fetch_sub(1, Ordering::AcqRel);
        self.gate.queue(self.kind).borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        // Whoever is in front now has to look.
        self.gate.wake(self.kind);
    }
}

impl Gate {
    /// Of this core.
    pub fn new(shared: Arc<Limiter>) -> Self {
        Self { shared, queues: Default::default(), offered: Cell::new(0) }
    }

    /// Whether it is in front of these limits.
    pub fn is_for(&self, shared: &Arc<Limiter>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    fn queue(&self, kind: Kind) -> &RefCell<VecDeque<Rc<Waiter>>> {
        &self.queues[kind as usize]
    }

    /// Whether somebody on another core waits and nobody here.
    pub fn others_wait(&self, kind: Kind) -> bool {
        self.queue(kind).borrow().is_empty() && self.shared.places(kind).waiting.load(Ordering::Relaxed) > 0
    }

    /// Tells the front of the queue to look.
    pub fn wake(&self, kind: Kind) {
        let front = self.queue(kind).borrow().front().map(|waiter| Rc::clone(&waiter.signal.borrow()));
        if let Some(signal) = front {
            signal.raise();
        }
    }

    /// Offers a freed place here, or leaves it to the others, by how many wait where.
    fn offer(&self, kind: Kind) {
        let here = u32::try_from(self.queue(kind).borrow().len()).unwrap_or(u32::MAX);
        let all = self.shared.places(kind).waiting.load(Ordering::Relaxed).max(here).max(1);
        let turn = self.offered.get().wrapping_add(1);
        self.offered.set(turn);
        if turn % all < here {
            self.wake(kind);
        }
    }

    /// A place, if there is one and nobody waits for it.
    pub fn try_enter(self: &Rc<Self>, kind: Kind) -> Option<Permit> {
        let free = self.queue(kind).borrow().is_empty() && self.shared.places(kind).take();
        free.then(|| Permit { gate: Rc::clone(self), kind })
    }

    /// A place, now or after waiting until `by` or for as long as the limits allow. `None`: `instead` holds, which is
    /// asked while waiting, so that no place is needed.
    pub async fn enter(
        self: &Rc<Self>,
        kind: Kind,
        by: Tick,
        instead: impl Fn() -> bool,
    ) -> Result<Option<Permit>, ConnectError> {
        let places = self.shared.places(kind);
        if let Some(permit) = self.try_enter(kind) {
            return Ok(Some(permit));
        }
        if !places.queue(self.shared.pending.load(Ordering::Relaxed)) {
            return Err(ConnectError::Overflow);
        }
        let queued = Queued { gate: self, kind, waiter: Rc::default() };
        self.queue(kind).borrow_mut().push_back(Rc::clone(&queued.waiter));
        let until = Instant::now() + Duration::from_millis(self.shared.pending_millis.load(Ordering::Relaxed));
        loop {
            let is_front = self.queue(kind).borrow().front().is_some_and(|front| Rc::ptr_eq(front, &queued.waiter));
            if is_front && instead() {
                return Ok(None);
            }
            if is_front && places.take() {
                return Ok(Some(Permit { gate: Rc::clone(self), kind }));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || rt::now() >= by {
                return Err(ConnectError::PendingTimeout);
            }
            let signal = Rc::<Signal>::default();
            *queued.waiter.signal.borrow_mut() = Rc::clone(&signal);
            let nap = if is_front { left.min(LOOK) } else { left };
            // Woken or not: both are reasons to look.
            let _either = rt::race(signal.wait(), rt::sleep(nap)).await;
        }
    }
}
