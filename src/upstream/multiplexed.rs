//! Connections of HTTP/2 to one endpoint on one core: few, shared by its requests.
//!
//! A request goes to the connection with the fewest. Where even that one is nearly full, the request opens another, so
//! that those behind it need not wait; it never opens one while as many are on their way as who waits can use.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{ConnectError, Endpoint, Marks, Permit};
use crate::http2::{Client, Slot};
use crate::rt::{self, Deadline, Signal, Tick};

/// The connections.
#[derive(Debug, Default)]
pub struct Multiplexed {
    open: RefCell<Vec<Kept>>,
    opening: Cell<u32>,
    waiting: RefCell<Vec<Rc<Waiter>>>,
    /// The endpoint has chosen HTTP/1.1 when it was asked last.
    single: Cell<bool>,
}

#[derive(Debug)]
struct Kept {
    client: Rc<Client>,
    /// The PROXY header that it began with: it is its client's.
    header: Option<Box<[u8]>>,
    /// The client's address that it leaves from.
    source: Option<IpAddr>,
    /// Its place among the backend's connections, where they are limited.
    _place: Option<Permit>,
}

impl Kept {
    fn has(&self, marks: Marks<'_>) -> bool {
        marks.fit(self.header.as_deref(), self.source)
    }
}

/// A request's place on a connection.
pub type MultiplexedSlot = Slot;

#[derive(Debug, Default)]
struct Waiter {
    signal: Signal,
    failed: Cell<Option<ConnectError>>,
}

/// What a request is to do.
pub(super) enum Joined {
    /// Go on a connection.
    Slot(Slot),
    /// Open one, as an [`Opening`], and say how that went.
    Opening,
    /// Do as in HTTP/1.1: the endpoint does not speak HTTP/2.
    Unavailable,
}

/// A connection that is being opened; others may wait for it.
pub(super) struct Opening {
    of: Rc<Endpoint>,
    failed: Option<ConnectError>,
}

impl Opening {
    /// That [`Multiplexed::join`] has asked for.
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> Self {
        Self { of: Rc::clone(endpoint), failed: None }
    }

    /// It is open, or has failed.
    pub(super) fn ended(&mut self, failed: Option<ConnectError>) {
        self.failed = failed;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let all = &self.of.multiplexed;
        all.opening.set(all.opening.get() - 1);
        for waiter in all.waiting.take() {
            waiter.failed.set(self.failed);
            waiter.signal.raise();
        }
    }
}

/// A wait for one that is being opened; left when dropped.
struct Waiting<'m> {
    of: &'m Multiplexed,
    waiter: Rc<Waiter>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
    }
}

impl Multiplexed {
    /// A place for a request on a connection with these marks, of which each takes `most`.
    pub(super) async fn join(&self, marks: Marks<'_>, most: u32, by: Tick) -> Result<Joined, ConnectError> {
        loop {
            if let Some(slot) = self.place(marks) {
                return Ok(Joined::Slot(slot));
            }
            if self.single.get() {
                return Ok(Joined::Unavailable);
            }
            let waiting = u32::try_from(self.waiting.borrow().len()).unwrap_or(u32::MAX);
            if !marks.is_empty() || waiting >= self.opening.get().saturating_mul(most) {
                self.opening.set(self.opening.get() + 1);
                return Ok(Joined::Opening);
            }
            let waiting = Waiting { of: self, waiter: Rc::default() };
            self.waiting.borrow_mut().push(Rc::clone(&waiting.waiter));
            // No descriptor: the deadline only wakes.
            let mut timer = Deadline::new(-1);
            if rt::race(waiting.waiter.signal.wait(), timer.passed(by)).await.is_err() {
                return Err(ConnectError::Timeout);
            }
            if let Some(error) = waiting.waiter.failed.take() {
                return Err(error);
            }
        }
    }

    /// A place on a connection that is there, unless another is to be opened.
    fn place(&self, marks: Marks<'_>) -> Option<Slot> {
        let (mut best, mut room, mut most, mut ended) = (None, 0, 0, false);
        let open = self.open.borrow();
        for kept in open.iter() {
            let Some(limit) = kept.client.limit() else {
                ended = true;
                continue;
            };
            let free = limit.saturating_sub(kept.client.open());
            if free > room && kept.has(marks) {
                (best, room, most) = (Some(&kept.client), free, limit);
            }
        }
        let enough = |client: &Client| self.opening.get() > 0 || client.open() < most.div_ceil(4) * 3;
        let slot = best.filter(|client| enough(client)).map(Client::slot);
        drop(open);
        if ended {
            self.let_go(|kept| kept.client.is_ended());
        }
        slot
    }

    /// A new connection with its first request.
    pub(super) fn put(&self, client: Rc<Client>, marks: Marks<'_>, place: Option<Permit>) -> Slot {
        let slot = client.slot();
        let (header, source) = (marks.header.map(Box::from), marks.source_ip());
        self.open.borrow_mut().push(Kept { client, header, source, _place: place });
        slot
    }

    /// What the endpoint has chosen in a handshake.
    pub(super) fn chosen(&self, http2: bool) {
        self.single.set(!http2);
    }

    /// Whether a connection with these marks takes another request.
    pub(super) fn has_room(&self, marks: Marks<'_>) -> bool {
        self.open.borrow().iter().any(|kept| kept.has(marks) && kept.client.limit() > Some(kept.client.open()))
    }

    /// Connections without requests.
    pub fn idle(&self) -> usize {
        self.open.borrow().iter().filter(|kept| kept.client.open() == 0).count()
    }

    /// Lets go of connections that have had no request for `idle`, and of those that have ended.
    pub(super) fn sweep(&self, idle: Duration) {
        let ticks = rt::tick_after(idle).saturating_sub(rt::now());
        let old = |kept: &Kept| kept.client.idle_since().is_some_and(|since| rt::now().saturating_sub(since) >= ticks);
        self.let_go(|kept| kept.client.is_ended() || old(kept));
    }

    /// Lets go of all that have no request.
    pub(super) fn clear(&self) {
        self.let_go(|kept| kept.client.open() == 0);
    }

    /// A connection ends with its last request once nobody holds it.
    fn let_go(&self, which: impl Fn(&Kept) -> bool) {
        let gone: Vec<Kept> = self.open.borrow_mut().extract_if(.., |kept| which(kept)).collect();
        // Outside of the borrow: a place that becomes free may wake somebody who looks here.
        drop(gone);
    }
}
