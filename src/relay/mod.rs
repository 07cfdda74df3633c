//! Bytes from one stream to another: TCP routes, upgraded connections, long bodies.
//!
//! Each direction is adaptive. It begins by copying through one pooled buffer, small until reads fill it, which is the
//! cheapest way for messages. One that proves to be bulk is spliced through a pooled pipe, past user space, until it
//! turns chatty or the kernel refuses. A direction in which nothing has come for a tick or two gives buffer and pipe
//! back and waits for readiness only, so an idle connection holds neither. An end of stream is passed on as a FIN while
//! the other direction goes on; a reset is passed on as a reset.
//!
//! Backpressure is by bytes: nothing is read while what was read before has not been taken, so a direction holds at
//! most a buffer or a pipe full.

mod body;
mod pool;
mod splice;

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use crate::buffer::{Buf, Class};
use crate::rt::{self, Reader, Stream, Tick, Writer};
use crate::sys;

use splice::{Spliced, Terms};

pub use body::{BODY_FROM, Passed, Patience, body};
pub use pool::{PipeStats, close_free_pipes, pipes, trim_pipes};

/// Ticks without a byte after which buffer and pipe are given back.
const QUIET: Tick = 2;

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions ended in order.
    Finished,
    /// One side was reset, and the other was too.
    Reset,
    /// Nothing moved for the idle timeout.
    Idle,
}

/// What both directions of a connection share.
struct Shared {
    last_activity: Cell<Tick>,
    idle: Duration,
    ended: Cell<Option<End>>,
    /// One direction has ended in order.
    half: Cell<bool>,
    fds: [i32; 2],
}

impl Shared {
    /// The first direction that breaks takes the other with it.
    fn break_off(&self, end: End) {
        if self.ended.get().is_none() {
            self.ended.set(Some(end));
            for fd in self.fds {
                sys::reset(fd);
            }
        }
    }

    fn idle_at(&self) -> Tick {
        self.last_activity.get().saturating_add(rt::tick_after(self.idle).saturating_sub(rt::now()))
    }
}

/// Relays between `down` and `up` until both directions have ended. `from_down` and `from_up` hold bytes that were
/// read already.
pub async fn relay(
    down: &mut Stream,
    up: &mut Stream,
    from_down: Option<Buf>,
    from_up: Option<Buf>,
    idle: Duration,
) -> End {
    let shared = Shared {
        last_activity: Cell::new(rt::now()),
        idle,
        ended: Cell::new(None),
        half: Cell::new(false),
        fds: [down.fd(), up.fd()],
    };
    down.wr.set_stall_timeout(idle);
    up.wr.set_stall_timeout(idle);
    let upwards = pin!(direction(&mut down.rd, &mut up.wr, from_down, &shared));
    let downwards = pin!(direction(&mut up.rd, &mut down.wr, from_up, &shared));
    rt::join(upwards, downwards).await;
    shared.ended.get().unwrap_or(End::Finished)
}

/// Sends a stream's bytes back to it until it ends: the built-in echo. `first` holds bytes that were read already.
pub async fn echo(stream: &mut Stream, first: Option<Buf>, idle: Duration) -> End {
    let shared = Shared {
        last_activity: Cell::new(rt::now()),
        idle,
        ended: Cell::new(None),
        half: Cell::new(false),
        fds: [stream.fd(), stream.fd()],
    };
    stream.wr.set_stall_timeout(idle);
    direction(&mut stream.rd, &mut stream.wr, first, &shared).await;
    shared.ended.get().unwrap_or(End::Finished)
}

async fn direction(rd: &mut Reader, wr: &mut Writer, first: Option<Buf>, shared: &Shared) {
    match run(rd, wr, first, shared).await {
        // Once both directions have ended the sockets are closed. Boxed: an idle connection does not pay for its end.
        Ok(()) if shared.half.replace(true) => Box::pin(wr.finish_by_close()).await,
        Ok(()) => Box::pin(wr.finish()).await,
        // Our own deadline, not the kernel's, which has a number: the peer has taken nothing for as long.
        Err(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() => {
            shared.break_off(End::Idle);
        }
        Err(_) => shared.break_off(End::Reset),
    }
}

async fn run(rd: &mut Reader, wr: &mut Writer, mut first: Option<Buf>, shared: &Shared) -> io::Result<()> {
    loop {
        // What moves bytes is boxed and goes when they stop coming: an idle connection is a small task.
        match Box::pin(busy(rd, wr, first.take(), shared)).await? {
            Busy::Ended => return Ok(()),
            Busy::Quiet => {
                rd.rest();
                wr.rest();
                wait(rd, shared).await?;
            }
        }
    }
}

/// Why a direction stopped moving bytes.
enum Busy {
    /// The stream has ended.
    Ended,
    /// Nothing has come for a while.
    Quiet,
}

/// Moves bytes for as long as they come, by copying or by splicing, whichever is cheaper for what comes.
async fn busy(rd: &mut Reader, wr: &mut Writer, mut first: Option<Buf>, shared: &Shared) -> io::Result<Busy> {
    let mut can_splice = rd.splice_fd().is_some() && wr.splice_fd().is_some();
    loop {
        match copy(rd, wr, first.take(), shared, can_splice).await? {
            Copied::Ended => return Ok(Busy::Ended),
            Copied::Quiet => return Ok(Busy::Quiet),
            Copied::Bulk => {
                let last_activity = &shared.last_activity;
                let mut terms = Terms { left: u64::MAX, last_activity, by: Tick::MAX, call_off: None };
                match splice::splice(rd, wr, &mut terms).await? {
                    Spliced::Ended => return Ok(Busy::Ended),
                    Spliced::Quiet => return Ok(Busy::Quiet),
                    Spliced::Chatty | Spliced::Whole => {}
                    Spliced::Refused => can_splice = false,
                }
            }
        }
    }
}

/// Why copying stopped.
enum Copied {
    Ended,
    Quiet,
    /// It is worth splicing.
    Bulk,
}

/// Bytes that have to come in reads that fill at least half of their buffer, one after the other, before a direction
/// counts as bulk: a small buffer and a large one. Measured against twice as many, CPU per connection that carries
/// 96 to 192 KiB 0.92 to 0.98, 512 KiB 0.88 (`perf/README.md`, L4).
const BULK_AFTER: usize = 64 << 10;

async fn copy(
    rd: &mut Reader,
    wr: &mut Writer,
    first: Option<Buf>,
    shared: &Shared,
    can_splice: bool,
) -> io::Result<Copied> {
    let mut class = Class::Head;
    let mut in_a_row = 0;
    let mut held = match first {
        Some(first) if !first.is_empty() => Some(send(wr, first, shared).await?),
        _ => None,
    };
    loop {
        let mut buf = held.take().unwrap_or_else(|| Buf::new(class));
        buf.clear();
        let room = buf.room();
        let (read, buf) = rd.read_unless_quiet(buf, rt::now() + QUIET).await;
        let Some(n) = read? else { return Ok(Copied::Quiet) };
        if n == 0 {
            return Ok(Copied::Ended);
        }
        let buf = send(wr, buf, shared).await?;
        in_a_row = if n >= room / 2 { in_a_row + n } else { 0 };
        if in_a_row >= BULK_AFTER && can_splice {
            return Ok(Copied::Bulk);
        }
        if n == room && class == Class::Head {
            class = Class::Body;
        } else {
            held = Some(buf);
        }
    }
}

async fn send(wr: &mut Writer, buf: Buf, shared: &Shared) -> io::Result<Buf> {
    let len = buf.len();
    let (written, buf) = wr.write_all(buf, len).await;
    written?;
    shared.last_activity.set(rt::now());
    Ok(buf)
}

/// Waits without a buffer until there is something to read; `TimedOut` when the whole connection has been idle for too
/// long.
async fn wait(rd: &mut Reader, shared: &Shared) -> io::Result<()> {
    loop {
        if rd.readable_until(shared.idle_at()).await? {
            return Ok(());
        }
        if rt::now() >= shared.idle_at() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}
