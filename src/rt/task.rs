//! Tasks of one event loop.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Starts a task; it runs until it is done.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// Waits, to the millisecond.
pub async fn sleep(duration: Duration) {
    // The runtime's timer is 640 bytes, aligned to 128, which every future that might sleep would be as well: with it a
    // burst of requests was 4,608 bytes, and is 4,120 without.
    Box::pin(monoio::time::sleep(duration)).await;
}

/// What a panic leaves behind.
pub(super) type Panic = Box<dyn Any + Send>;

/// Runs `future`; a panic inside it ends here. It is boxed by the caller: an async function here would hold it twice,
/// as its argument and as what it polls.
pub fn catch_unwind<F: Future>(mut future: Pin<Box<F>>) -> impl Future<Output = Result<F::Output, Panic>> {
    poll_fn(move |cx| caught(|| future.as_mut().poll(cx)))
}

/// Polls something; a panic inside it ends here.
pub fn caught<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, Panic>> {
    match std::panic::catch_unwind(AssertUnwindSafe(poll)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}

/// Runs both to their ends. They are pinned by the caller, for the reason given at [`catch_unwind`].
pub async fn join<A: Future, B: Future>(mut a: Pin<&mut A>, mut b: Pin<&mut B>) -> (A::Output, B::Output) {
    let (mut a_done, mut b_done) = (None, None);
    poll_fn(move |cx| {
        if a_done.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            a_done = Some(output);
        }
        if b_done.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            b_done = Some(output);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Runs both until one is done and drops the other: for waits that hold no buffer only.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> Result<A::Output, B::Output> {
    race_pinned(pin!(a), pin!(b)).await
}

/// The same of futures that the caller has pinned, and drops: they are held once, and waits of idle connections are
/// small.
pub(super) fn race_pinned<A: Future, B: Future>(
    mut a: Pin<&mut A>,
    mut b: Pin<&mut B>,
) -> impl Future<Output = Result<A::Output, B::Output>> {
    poll_fn(move |cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        b.as_mut().poll(cx).map(Err)
    })
}

/// A flag that one task of this thread waits for.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises it, for good.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Returns once it was raised.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.raised.get() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{self, Driver};

    #[test]
    fn a_panic_ends_at_its_boundary() {
        let ended = rt::run(Driver::Epoll, async {
            let told = std::rc::Rc::new(Signal::default());
            let mine = std::rc::Rc::clone(&told);
            let task = Box::pin(async {
                sleep(Duration::from_millis(1)).await;
                panic!("within a connection");
            });
            spawn(async move {
                if catch_unwind::<_>(task).await.is_err() {
                    mine.raise();
                }
            });
            told.wait().await;
            // The loop goes on with other tasks.
            sleep(Duration::from_millis(1)).await;
            true
        });
        assert!(ended.unwrap());
    }
}
