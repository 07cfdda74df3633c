//! Pauses of a fraction of a millisecond, shared by everything on a core that moves bytes in bulk.
//!
//! The runtime's timers are as coarse as a millisecond, and one per connection would cost more than the pause saves. So
//! there is one kernel timer per event loop, armed by the first task that pauses; all that have paused since wake
//! together.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Source;
use crate::sys;

#[derive(Default)]
struct Pacer {
    timer: Cell<Option<std::os::fd::RawFd>>,
    armed: Cell<bool>,
    /// Goes up with every time the timer goes off.
    beat: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

thread_local! {
    static PACER: Pacer = Pacer::default();
}

impl Pacer {
    fn arm(&self, pause: Duration) -> io::Result<()> {
        if self.timer.get().is_none() {
            let timer = Source::new(sys::timer()?)?;
            self.timer.set(Some(timer.fd()));
            super::spawn(run(timer));
        }
        if let Some(timer) = self.timer.get()
            && !self.armed.replace(true)
        {
            sys::arm_timer(timer, pause)?;
        }
        Ok(())
    }

    fn go_off(&self, woken: &mut Vec<Waker>) {
        self.armed.set(false);
        self.beat.set(self.beat.get() + 1);
        woken.append(&mut self.waiting.borrow_mut());
    }
}

async fn run(timer: Source) {
    let mut woken = Vec::new();
    loop {
        let ready = timer.readable().await;
        sys::reset_timer(timer.fd());
        PACER.with(|pacer| pacer.go_off(&mut woken));
        for waker in woken.drain(..) {
            waker.wake();
        }
        if ready.is_err() {
            PACER.with(|pacer| pacer.timer.set(None));
            return;
        }
    }
}

/// Returns after about `pause`, or sooner where another task of this core has paused already; `false` at once where no
/// timer can be had, for want of descriptors. May be dropped.
pub async fn pace(pause: Duration) -> bool {
    if PACER.with(|pacer| pacer.arm(pause)).is_err() {
        return false;
    }
    let beat = PACER.with(|pacer| pacer.beat.get());
    let mut waits = false;
    poll_fn(|cx| {
        PACER.with(|pacer| {
            if pacer.beat.get() != beat {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut waits, true) {
                pacer.waiting.borrow_mut().push(cx.waker().clone());
            }
            Poll::Pending
        })
    })
    .await;
    true
}
