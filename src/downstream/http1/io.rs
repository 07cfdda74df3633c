//! Reading for HTTP/1.1: with a buffer while bytes are expected soon, without one while they are not.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rustix::net::Shutdown;

use crate::buffer::{Buf, Class};
use crate::http2::{Gone, Outgoing};
use crate::rt::{self, Deadline, Reader, Signal, Tick};
use crate::sys::{self, PeerState};

/// Ticks that a read stays in flight with its buffer before it is taken back.
const HOT: Tick = 2;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// Bytes, behind those that were there.
    Data,
    /// The end of the stream.
    End,
    /// Nothing until the deadline.
    Late,
    /// The connection is broken.
    Broken,
    /// The endpoint says that it has not looked at the request.
    Refused,
    /// It says so of all requests on its connection.
    GoneAway,
    /// The wait was called off, or the other side that was watched broke.
    CalledOff,
}

/// Something that ends a wait early.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch<'a> {
    /// Nothing.
    None,
    /// A client that may reset its connection while its answer is awaited: (its half, its descriptor).
    Peer(&'a Reader, i32),
    /// The other direction of the exchange.
    Signal(&'a Signal),
}

/// Reads behind the buffer's window, of which some room is needed, until `by`. While the window is empty and nothing
/// comes, the buffer goes back to the pool and only readiness is awaited. Past `by` the socket is shut down `how`.
pub(super) async fn fill(rd: &mut Reader, mut buf: Buf, by: Tick, how: Shutdown, watch: Watch<'_>) -> (Filled, Buf) {
    if !buf.is_empty() {
        rd.deadline().arm(by, how);
        let (read, buf) = rd.read(buf).await;
        let late = rd.deadline().disarm();
        return match read {
            _ if late => (Filled::Late, buf),
            Ok(0) => (Filled::End, buf),
            Ok(_) => (Filled::Data, buf),
            Err(_) => (Filled::Broken, buf),
        };
    }
    let class = buf.class();
    loop {
        let (read, back) = rd.read_unless_quiet(buf, (rt::now() + HOT).min(by)).await;
        match read {
            Ok(Some(0)) => return (Filled::End, back),
            Ok(Some(_)) => return (Filled::Data, back),
            Err(_) => return (Filled::Broken, back),
            Ok(None) => {}
        }
        drop(back);
        let waited = wait(rd, by, watch).await;
        buf = Buf::new(class);
        match waited {
            Ok(true) => {}
            Ok(false) if rt::now() >= by => return (Filled::Late, buf),
            Ok(false) => return (Filled::CalledOff, buf),
            Err(_) => return (Filled::Broken, buf),
        }
    }
}

/// Waits for readiness; `false` when the deadline passed or the watch ended it.
pub(super) async fn wait(rd: &mut Reader, by: Tick, watch: Watch<'_>) -> io::Result<bool> {
    match watch {
        Watch::None => rd.readable_until(by).await,
        Watch::Signal(signal) => match rt::race(rd.readable_until(by), signal.wait()).await {
            Ok(ready) => ready,
            Err(()) => Ok(false),
        },
        Watch::Peer(peer, fd) => match rt::race(rd.readable_until(by), peer.readable()).await {
            Ok(ready) => ready,
            // A half-closed client still wants its answer, and one that pipelines has only sent more; a reset does not.
            Err(_) if sys::peer_state(fd) == PeerState::Broken => Ok(false),
            Err(_) => rd.readable_until(by).await,
        },
    }
}

/// Waits for an operation of a peer for as long as it may make one wait.
#[derive(Debug)]
pub(super) struct Stall {
    timer: Deadline,
    limit: Duration,
    /// It has made one wait for too long.
    pub(super) passed: bool,
}

impl Stall {
    /// For one stream.
    pub(super) fn new(limit: Duration) -> Self {
        // No descriptor: the deadline only wakes.
        Self { timer: Deadline::new(-1), limit, passed: false }
    }

    /// `sent`, unless it takes too long.
    pub(super) async fn within(&mut self, sent: impl Future<Output = Result<(), Gone>>) -> io::Result<()> {
        let by = rt::tick_after(self.limit);
        let mut sent = pin!(sent);
        let timer = &mut self.timer;
        let mut waits = false;
        let result = poll_fn(|task| match sent.as_mut().poll(task) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => {
                waits = true;
                pin!(timer.passed(by)).poll(task).map(|()| None)
            }
        })
        .await;
        if waits {
            self.timer.disarm();
        }
        match result {
            Some(result) => gone(result),
            None => {
                self.passed = true;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

/// What a stream of HTTP/2 says, in the terms of a socket.
pub(super) fn gone(result: Result<(), Gone>) -> io::Result<()> {
    result.map_err(|Gone| io::ErrorKind::ConnectionReset.into())
}

/// Sends `payload` of a buffer's window on a stream of HTTP/2, and gives back what is left at `rest`, the start of a
/// chunk at most. The block goes with what cannot be sent at once.
pub(super) async fn pour(
    to: &impl Outgoing,
    stall: &mut Stall,
    mut buf: Buf,
    payload: Range<usize>,
    rest: &Range<usize>,
    end: bool,
) -> (io::Result<()>, Buf) {
    let sent = match to.offer(&buf.data()[payload.clone()], end) {
        Ok(sent) => sent,
        Err(gone) => return (self::gone(Err(gone)), buf),
    };
    if sent == payload.len() {
        buf.set_window(rest.clone());
        return (Ok(()), buf);
    }
    let mut left = Buf::new(Class::Body);
    let at = rest.start - buf.mark();
    let fits = rest.is_empty() || left.push(&buf.data()[at..]);
    debug_assert!(fits, "a block's rest fits a block");
    (stall.within(to.data(buf, payload.start + sent..payload.end, end)).await, left)
}
