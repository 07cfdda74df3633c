//! The requests of HTTP/2, each in a task of its own.
//!
//! A task is some kilobytes, and a request is soon over: those that are done wait for the next one, of whatever
//! connection of their core, so that a request allocates none and finds it in the cache.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::iter;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ringway_core::rate::{Gcra, Share};

use super::Cx;
use super::http2::{self, Judged};
use crate::downstream::panicked;
use crate::http2::{Body, Request, Reset, Respond};
use crate::rt::{self, Signal};

/// Streams of a connection that may be given up because their client takes or sends nothing, before the connection is:
/// so many at once, and one more in so many nanoseconds.
const STALLS: u64 = 31;
const STALL_EVERY: u64 = 10_000_000_000;

/// Tasks of a core that wait for requests at most.
const KEPT: usize = 512;

thread_local! {
    static FREE: RefCell<Vec<Rc<Server>>> = const { RefCell::new(Vec::new()) };
}

/// What a connection's tasks share.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) open: Cell<usize>,
    /// Of the limit on those that are given up because of their client.
    stalls: Cell<Option<Share>>,
    /// There have been too many.
    pub(super) stalled: Cell<bool>,
    pub(super) driver: RefCell<Option<Waker>>,
}

impl Streams {
    /// One has been given up because of its client.
    pub(super) fn stall(&self) {
        let before = self.stalls.get().unwrap_or(Share::NONE);
        match Gcra::new(1, STALL_EVERY, STALLS).judge(before, iter::empty(), rt::millis() * 1_000_000) {
            Ok(share) => self.stalls.set(Some(share)),
            Err(_wait) => self.stalled.set(true),
        }
    }
}

/// A request that has been decided about, and whose it is.
struct Job {
    cx: Rc<Cx>,
    streams: Rc<Streams>,
    judged: Box<Judged>,
    body: Body,
    respond: Respond,
}

/// A task that serves requests, seen from outside.
#[derive(Default)]
struct Server {
    job: Cell<Option<Job>>,
    /// It is not needed any more.
    dismissed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Server {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The next request; `None` where the task is one too many.
    async fn next(self: &Rc<Self>) -> Option<Job> {
        let mut waits = false;
        poll_fn(|task| {
            if let Some(job) = self.job.take() {
                return Poll::Ready(Some(job));
            }
            if self.dismissed.get() {
                return Poll::Ready(None);
            }
            // Whatever the last request left may still wake it.
            if !std::mem::replace(&mut waits, true) {
                let mut waker = self.waker.borrow_mut();
                if waker.as_ref().is_none_or(|kept| !kept.will_wake(task.waker())) {
                    *waker = Some(task.waker().clone());
                }
                let keep = |free: &RefCell<Vec<Rc<Self>>>| {
                    let mut free = free.borrow_mut();
                    let room = free.len() < KEPT;
                    if room {
                        free.push(Rc::clone(self));
                    }
                    room
                };
                if !FREE.try_with(keep).unwrap_or(false) {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Decides about a request, and serves it in a task of its own.
pub(super) fn start(cx: &Rc<Cx>, streams: &Rc<Streams>, request: Request) {
    let Request { head, body, respond } = request;
    let Poll::Ready(Ok(judged)) = rt::caught(|| Poll::Ready(Judged::new(cx, head, &body))) else {
        panicked(&cx.core, cx.client.source);
        return respond.reset(Reset::Internal);
    };
    streams.open.set(streams.open.get() + 1);
    let job = Job { cx: Rc::clone(cx), streams: Rc::clone(streams), judged, body, respond };
    let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
    let new = free.is_none();
    let server = free.unwrap_or_default();
    server.job.set(Some(job));
    if new {
        rt::spawn(run(server));
    } else {
        server.wake();
    }
}

/// Ends a quarter of the tasks that wait.
pub(in crate::downstream) fn trim() {
    let dismiss = |free: &RefCell<Vec<Rc<Server>>>| {
        let mut free = free.borrow_mut();
        let keep = free.len() / 4 * 3;
        for server in free.drain(keep..) {
            server.dismissed.set(true);
            server.wake();
        }
        free.shrink_to(keep);
    };
    // Fails only while the thread's locals are being torn down.
    let _gone = FREE.try_with(dismiss);
}

#[allow(clippy::large_futures, reason = "in place: it is made once for many requests")]
async fn run(server: Rc<Server>) {
    // All in one body: what a function of its own would hold, 5 KiB, was copied twice for each request.
    while let Some(job) = server.next().await {
        let Job { cx, streams, judged, body, respond } = job;
        let gone = Signal::default();
        // Ends early what waits for the endpoint when the client takes its request back.
        let served = {
            let mut served = pin!(http2::answer(&cx, &streams, judged, body, &respond, &gone));
            poll_fn(|task| {
                rt::caught(|| {
                    if !gone.is_raised() && respond.poll_gone(task).is_ready() {
                        gone.raise();
                    }
                    served.as_mut().poll(task)
                })
            })
            .await
        };
        if served.is_err() {
            panicked(&cx.core, cx.client.source);
            respond.reset(Reset::Internal);
        }
        drop(respond);
        streams.open.set(streams.open.get() - 1);
        if (streams.open.get() == 0 || streams.stalled.get())
            && let Some(driver) = streams.driver.take()
        {
            driver.wake();
        }
    }
    // It would hold itself by its waker.
    server.waker.take();
}
