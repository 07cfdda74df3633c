//! The connections of a core: who is open, and in which state.
//!
//! A drain, a removed listener and the page of live figures need to know; connections themselves do not.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;

use rustix::net::Shutdown;

use super::held::Held;
use crate::snapshot::SocketId;
use crate::sys;

/// What a downstream connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnState {
    /// Waiting for a request.
    Idle,
    /// In an exchange or relaying.
    Busy,
}

#[derive(Debug, Clone)]
struct Entry {
    fd: RawFd,
    socket: SocketId,
    state: ConnState,
    /// Whom to wake when it is to end: a connection that ends by itself.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    count: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Rc<RefCell<Slots>>,
}

/// One of them; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct ConnGuard {
    slots: Rc<RefCell<Slots>>,
    index: u32,
    /// In a box, since most connections have none.
    places: Option<Box<Places>>,
}

/// What a connection holds for as long as it is there.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "held until it is dropped")]
struct Places {
    of_socket: Option<Place>,
    of_client: Option<Held>,
}

/// A place among those that a socket has for connections, over all cores; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl Place {
    /// One of `limit`, if not all are taken.
    pub fn take(taken: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        let more = |count: u32| (count < limit).then(|| count + 1);
        let found = taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        found.is_ok().then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Registry {
    /// Enters a connection. The guard has to be dropped before the connection is closed.
    pub fn enter(&self, fd: RawFd, socket: SocketId, place: Option<Place>) -> ConnGuard {
        let entry = Entry { fd, socket, state: ConnState::Busy, waker: None };
        let mut slots = self.slots.borrow_mut();
        slots.count += 1;
        let index = match slots.free.pop() {
            Some(index) => {
                slots.entries[index as usize] = Some(entry);
                index
            }
            None => {
                slots.entries.push(Some(entry));
                u32::try_from(slots.entries.len() - 1).expect("fewer connections than 2^32")
            }
        };
        let places = place.map(|place| Box::new(Places { of_socket: Some(place), ..Places::default() }));
        ConnGuard { slots: Rc::clone(&self.slots), index, places }
    }

    /// Connections open.
    pub fn len(&self) -> usize {
        self.slots.borrow().count
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the idle connections of some sockets, and wakes those that end by themselves.
    pub fn retire(&self, of: impl Fn(SocketId) -> bool) {
        for entry in self.slots.borrow().entries.iter().flatten() {
            if !of(entry.socket) {
                continue;
            }
            if let Some(waker) = &entry.waker {
                waker.wake_by_ref();
            } else if entry.state == ConnState::Idle {
                sys::cut(entry.fd, Shutdown::Both);
            }
        }
    }

    /// Wakes the connections that end by themselves: a drain has begun.
    pub fn nudge(&self) {
        self.slots
            .borrow()
            .entries
            .iter()
            .flatten()
            .filter_map(|entry| entry.waker.as_ref())
            .for_each(Waker::wake_by_ref);
    }

    /// Breaks off every connection; how many there were.
    pub fn cut_all(&self) -> usize {
        let slots = self.slots.borrow();
        for entry in slots.entries.iter().flatten() {
            sys::reset(entry.fd);
        }
        slots.count
    }
}

impl ConnGuard {
    /// It counts among its client's connections until it is forgotten.
    pub fn count_for_client(&mut self, held: Held) {
        self.places.get_or_insert_default().of_client = Some(held);
    }

    /// Says what the connection does now.
    pub fn set(&self, state: ConnState) {
        if let Some(entry) = &mut self.slots.borrow_mut().entries[self.index as usize] {
            entry.state = state;
        }
    }

    /// Has a task woken instead of the connection cut when it is to end: it sees why, and says goodbye.
    pub fn wake_by(&self, waker: &Waker) {
        if let Some(entry) = &mut self.slots.borrow_mut().entries[self.index as usize] {
            entry.waker = Some(waker.clone());
        }
    }

    /// Forgets the descriptor ahead of the guard: it is about to be closed.
    pub fn leave(&self) {
        self.slots.borrow_mut().entries[self.index as usize] = None;
    }
}

impl Drop for ConnGuard {
    fn drop(&mut self) {
        let mut slots = self.slots.borrow_mut();
        slots.entries[self.index as usize] = None;
        slots.free.push(self.index);
        slots.count -= 1;
    }
}
