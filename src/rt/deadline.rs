//! Deadlines: one coarse wheel per event loop.
//!
//! A deadline never drops an operation. When it passes, it shuts the socket down, cancels one read, or wakes a waiting
//! task, and the operation in flight completes by itself. Most deadlines are moved on before they pass, so moving one
//! is a store; the wheel looks again when the place where it was filed comes by (`ringway_core::deadline`).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::RawFd;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use ringway_core::deadline::{Key, Wheel};
use rustix::net::Shutdown;

use crate::sys;

/// A point in time, in ticks of this event loop.
pub type Tick = u64;

/// Length of a tick. Deadlines are never early and at most two ticks late.
const TICK: Duration = Duration::from_millis(50);

thread_local! {
    static NOW: Cell<Tick> = const { Cell::new(0) };
    static WHEEL: RefCell<Wheel<Entry>> = RefCell::new(Wheel::new());
}

/// The current tick.
pub fn now() -> Tick {
    NOW.get()
}

/// The current tick in milliseconds, for what is measured coarsely.
pub fn millis() -> u64 {
    now() * u64::try_from(TICK.as_millis()).expect("a small constant")
}

/// The tick at which `duration` has passed for certain.
pub fn tick_after(duration: Duration) -> Tick {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    now().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)).saturating_add(1)
}

struct Entry {
    fd: RawFd,
    action: Action,
    fired: bool,
    /// Of the task that [`Action::Wake`] wakes.
    waker: Option<Waker>,
    canceller: Option<Canceller>,
}

#[derive(Clone, Copy)]
enum Action {
    None,
    Cut(Direction),
    Cancel,
    Wake,
}

/// As [`Shutdown`], in a byte.
#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
    Both,
}

/// One deadline on one half of a stream. Forgotten by the wheel when dropped.
#[derive(Debug)]
pub struct Deadline {
    key: Option<Key>,
    fd: RawFd,
}

impl Deadline {
    /// None yet; it enters the wheel when first set.
    pub fn new(fd: RawFd) -> Self {
        Self { key: None, fd }
    }

    /// The stream's descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    fn set<R>(&mut self, at: Tick, f: impl FnOnce(&mut Entry) -> R) -> R {
        WHEEL.with(|wheel| {
            let mut wheel = wheel.borrow_mut();
            let key = *self.key.get_or_insert_with(|| {
                wheel.insert(Entry { fd: self.fd, action: Action::None, fired: false, waker: None, canceller: None })
            });
            wheel.set(key, at);
            let entry = wheel.get_mut(key).expect("entries live as long as their handle");
            entry.fired = false;
            f(entry)
        })
    }

    /// Shuts the socket down when `at` has passed.
    pub fn arm(&mut self, at: Tick, how: Shutdown) {
        let direction = match how {
            Shutdown::Read => Direction::Read,
            Shutdown::Write => Direction::Write,
            Shutdown::Both => Direction::Both,
        };
        self.set(at, |entry| entry.action = Action::Cut(direction));
    }

    /// Cancels the read that is given the handle when `at` has passed.
    pub(super) fn arm_cancel(&mut self, at: Tick) -> CancelHandle {
        self.set(at, |entry| {
            entry.action = Action::Cancel;
            entry.canceller.get_or_insert_default().handle()
        })
    }

    /// Takes the deadline back; says whether it had passed.
    pub fn disarm(&mut self) -> bool {
        let Some(key) = self.key else { return false };
        WHEEL.with(|wheel| {
            let mut wheel = wheel.borrow_mut();
            wheel.clear(key);
            let entry = wheel.get_mut(key).expect("entries live as long as their handle");
            entry.action = Action::None;
            entry.waker = None;
            std::mem::take(&mut entry.fired)
        })
    }

    /// Has a task woken when `at` has passed.
    pub(super) fn wake_at(&mut self, at: Tick, waker: &Waker) {
        self.set(at, |entry| {
            entry.action = Action::Wake;
            if entry.waker.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
                entry.waker = Some(waker.clone());
            }
        });
    }

    /// Returns when `at` has passed. May be dropped.
    pub async fn passed(&mut self, at: Tick) {
        poll_fn(|cx| {
            if now() >= at {
                return Poll::Ready(());
            }
            if at == Tick::MAX {
                // It never does.
                return Poll::Pending;
            }
            self.wake_at(at, cx.waker());
            Poll::Pending
        })
        .await;
        self.disarm();
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Fails only while the thread's locals are being torn down.
            let _gone = WHEEL.try_with(|wheel| drop(wheel.borrow_mut().remove(key)));
        }
    }
}

/// Moves time on.
pub(super) async fn ticker() {
    let start = std::time::Instant::now();
    let mut wakers = Vec::new();
    loop {
        monoio::time::sleep(TICK).await;
        let tick = u64::try_from(start.elapsed().as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        NOW.set(tick);
        WHEEL.with(|wheel| {
            wheel.borrow_mut().advance(tick, |_, entry| {
                entry.fired = true;
                match std::mem::replace(&mut entry.action, Action::None) {
                    Action::None => {}
                    Action::Cut(Direction::Read) => sys::cut(entry.fd, Shutdown::Read),
                    Action::Cut(Direction::Write) => sys::cut(entry.fd, Shutdown::Write),
                    Action::Cut(Direction::Both) => sys::cut(entry.fd, Shutdown::Both),
                    Action::Cancel => entry.canceller = entry.canceller.take().map(Canceller::cancel),
                    Action::Wake => wakers.extend(entry.waker.take()),
                }
            });
        });
        for waker in wakers.drain(..) {
            waker.wake();
        }
    }
}
