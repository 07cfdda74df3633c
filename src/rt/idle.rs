//! Waits of streams that are quiet for long.
//!
//! A wait for readiness by an operation of the runtime is some 250 bytes of a connection: the operation, what it is held
//! by, a place among the loop's operations. So streams that will be quiet for a while wait in one epoll set per event
//! loop, which the loop waits for as for any descriptor: such a stream has no operation, only a place in a table of
//! wakers. Each wait is told once (EPOLLONESHOT), and one that is dropped is told no more; the set keeps the socket.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Deadline, Reader, Source, Tick, now};
use crate::sys;

/// Events taken in a row, so that other tasks get their turn.
const ROUNDS: usize = 4;

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { set: None, places: Vec::new(), free: Vec::new() }) };
}

/// The waits of an event loop.
#[derive(Debug)]
struct Table {
    /// The epoll set, once somebody waits. The task that waits for it owns it.
    set: Option<RawFd>,
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    waker: Option<Waker>,
    /// Which wait it is the place of: events of earlier ones are nobody's.
    serial: u32,
    /// Bits of the streams that have been told of.
    told: u8,
}

/// What the set calls a stream: its place, the wait there, and which of the wait's streams it is.
fn name(place: u32, serial: u32, which: usize) -> u64 {
    u64::from(place) | (u64::from(serial & (u32::MAX >> 1)) << 32) | ((which as u64) << 63)
}

impl Table {
    fn set(&mut self) -> io::Result<RawFd> {
        if let Some(set) = self.set {
            return Ok(set);
        }
        let set = Source::new(sys::watch_set()?)?;
        let fd = set.fd();
        self.set = Some(fd);
        super::spawn(run(set));
        Ok(fd)
    }

    fn take(&mut self, waker: Waker) -> u32 {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.waker = Some(waker);
            place.told = 0;
            return index;
        }
        self.places.push(Place { waker: Some(waker), serial: 0, told: 0 });
        u32::try_from(self.places.len() - 1).expect("fewer waits than 2^32")
    }

    /// Whom an event is for.
    fn tell(&mut self, event: u64) -> Option<Waker> {
        let index = usize::try_from(event & u64::from(u32::MAX)).expect("32 bits");
        let place = self.places.get_mut(index)?;
        if u64::from(place.serial & (u32::MAX >> 1)) != (event >> 32) & u64::from(u32::MAX >> 1) {
            return None;
        }
        place.told |= 1 << (event >> 63);
        place.waker.clone()
    }
}

/// Forgets the set with the task that waits for it.
struct Forget;

impl Drop for Forget {
    fn drop(&mut self) {
        // Fails only while the thread's locals are being torn down.
        let _gone = TABLE.try_with(|table| table.borrow_mut().set = None);
    }
}

async fn run(set: Source) {
    let _forget = Forget;
    let mut events = Vec::with_capacity(sys::BATCH);
    loop {
        let ready = set.readable().await;
        for _ in 0..ROUNDS {
            if sys::ready(set.fd(), &mut events).is_err() {
                break;
            }
            for event in &events {
                // Outside of the table: what is woken may look into it.
                let waker = TABLE.with(|table| table.borrow_mut().tell(*event));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            if events.len() < sys::BATCH {
                break;
            }
        }
        if let Err(error) = ready {
            tracing::error!(%error, "cannot wait for idle streams");
            super::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// A wait for one or two streams. May be dropped.
#[derive(Debug)]
pub struct Readable<'r> {
    streams: [Option<&'r Reader>; 2],
    place: Option<u32>,
}

/// Returns when one of the streams can be read from without waiting, has ended or is broken; at once where it cannot be
/// waited for. No operation may be in flight on their incoming halves.
pub fn readable<'r>(first: &'r Reader, second: Option<&'r Reader>) -> Readable<'r> {
    Readable { streams: [Some(first), second], place: None }
}

/// The same, but `false` when nothing has come until `at`. May be dropped.
pub fn readable_by<'r>(
    mut readable: Readable<'r>,
    timer: &'r mut Deadline,
    at: Tick,
) -> impl Future<Output = bool> + 'r {
    poll_fn(move |cx| {
        let ready = Pin::new(&mut readable).poll(cx).is_ready();
        if !ready && now() < at {
            timer.wake_at(at, cx.waker());
            return Poll::Pending;
        }
        timer.disarm();
        Poll::Ready(ready)
    })
}

impl Readable<'_> {
    fn streams(&self) -> impl Iterator<Item = (usize, &Reader)> {
        self.streams.iter().enumerate().filter_map(|(which, stream)| Some((which, (*stream)?)))
    }

    /// Enters the set; `false` where that cannot be done.
    fn enter(&mut self, cx: &Context<'_>) -> bool {
        TABLE.with(|table| {
            let mut table = table.borrow_mut();
            let Ok(set) = table.set() else { return false };
            let index = table.take(cx.waker().clone());
            self.place = Some(index);
            let serial = table.places[index as usize].serial;
            self.streams().all(|(which, stream)| {
                let known = stream.watched.replace(true);
                let entered = sys::watch_once(set, stream.fd(), name(index, serial, which), known);
                if entered.is_err() {
                    stream.watched.set(false);
                }
                entered.is_ok()
            })
        })
    }
}

impl Future for Readable<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(index) = self.place else {
            if self.streams().any(|(_, stream)| stream.has_bytes()) || !self.enter(cx) {
                return Poll::Ready(());
            }
            return Poll::Pending;
        };
        TABLE.with(|table| {
            let place = &mut table.borrow_mut().places[index as usize];
            if place.told != 0 {
                return Poll::Ready(());
            }
            if place.waker.as_ref().is_none_or(|kept| !kept.will_wake(cx.waker())) {
                place.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl Drop for Readable<'_> {
    fn drop(&mut self) {
        let Some(index) = self.place else { return };
        // Fails only while the thread's locals are being torn down.
        let left = TABLE.try_with(|table| {
            let mut table = table.borrow_mut();
            let place = &mut table.places[index as usize];
            let (waker, told) = (place.waker.take(), place.told);
            place.serial = place.serial.wrapping_add(1);
            table.free.push(index);
            (waker, told, table.set)
        });
        let Ok((waker, told, set)) = left else { return };
        // Outside of the table: it may be the last that holds a task.
        drop(waker);
        for (which, stream) in self.streams() {
            // What was told of stays in the set, where it says nothing until it is asked for again.
            if told & (1 << which) == 0 && stream.watched.get() {
                let kept = set.is_some_and(|set| sys::unwatch(set, stream.fd()).is_ok());
                stream.watched.set(kept);
            }
        }
    }
}
