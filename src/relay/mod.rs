//! Bytes from one stream to another: TCP routes, upgraded connections, long bodies.
//!
//! Each direction is adaptive. It begins by copying through one pooled buffer, small until reads fill it, which is the
//! cheapest way for messages. One that proves to be bulk is spliced through a pooled pipe, past user space, until it
//! turns chatty or the kernel refuses. A direction in which nothing has come for a tick or two gives buffer and pipe
//! back; when both have, what moves bytes goes as well, and the connection waits for readiness of either socket without
//! an operation of the runtime ([`rt::readable`]). An end of stream is passed on as a FIN while
//! the other direction goes on; a reset is passed on as a reset.
//!
//! Backpressure is by bytes: nothing is read while what was read before has not been taken, so a direction holds at
//! most a buffer or a pipe full.

mod body;
mod pool;
mod splice;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ringway_core::model::Keepalive;

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
struct Shared<'s> {
    last_activity: Cell<Tick>,
    /// Ticks without a byte after which the connection is over.
    idle: Tick,
    ended: Cell<Option<End>>,
    sides: [Cell<Side>; 2],
    fds: [i32; 2],
    /// What is still to be done about the endpoint's socket.
    neglected: Cell<Neglected<'s>>,
}

/// What a direction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It moves bytes, or has some on the way.
    Busy,
    /// Nothing has come for a while: it holds nothing.
    Quiet,
    /// It has ended.
    Over,
}

impl<'s> Shared<'s> {
    fn new(fds: [i32; 2], idle: Duration, neglected: Neglected<'s>) -> Self {
        Self {
            last_activity: Cell::new(rt::now()),
            idle: rt::tick_after(idle).saturating_sub(rt::now()),
            ended: Cell::new(None),
            sides: [const { Cell::new(Side::Busy) }; 2],
            fds,
            neglected: Cell::new(neglected),
        }
    }

    /// Nothing has come from this side for a while.
    fn is_quiet(&self, side: usize) {
        self.sides[side].set(Side::Quiet);
        if side == DOWN
            && let Some(keepalive) = self.neglected.take()
        {
            // A socket that takes no options has broken, which reading shows.
            let _broken = sys::look_after(self.fds[1], *keepalive);
        }
    }

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
        self.last_activity.get().saturating_add(self.idle)
    }

    fn is(&self, side: usize, what: Side) -> bool {
        self.sides[side].get() == what
    }

    /// Whether no direction moves bytes.
    fn rests(&self) -> bool {
        !self.is(UP, Side::Busy) && !self.is(DOWN, Side::Busy)
    }

    /// How it has ended, if both directions have.
    fn over(&self) -> Option<End> {
        let over = self.is(UP, Side::Over) && self.is(DOWN, Side::Over);
        over.then(|| self.ended.get().unwrap_or(End::Finished))
    }

    /// Quiet directions begin anew.
    fn wake(&self) {
        for side in &self.sides {
            if side.get() == Side::Quiet {
                side.set(Side::Busy);
            }
        }
    }
}

/// From the client to the endpoint.
const UP: usize = 0;
/// From the endpoint to the client.
const DOWN: usize = 1;

/// Bytes that were read already, from the client and from the endpoint. In a box, since a connection needs them at its
/// beginning only.
pub type First = Option<Box<[Option<Buf>; 2]>>;

/// How an endpoint's socket is to notice that its peer is gone, where nobody has told it yet ([`sys::look_after`]): that
/// is left until nothing has come from there for a moment, since many connections are over by then.
pub type Neglected<'s> = Option<&'s Option<Keepalive>>;

/// Relays between `down` and `up` until both directions have ended, first what was read already.
pub fn relay<'s>(
    down: &'s mut Stream,
    up: &'s mut Stream,
    mut first: First,
    idle: Duration,
    neglected: Neglected<'s>,
) -> impl Future<Output = End> + 's {
    let shared = Shared::new([down.fd(), up.fd()], idle, neglected);
    down.wr.set_stall_timeout(idle);
    up.wr.set_stall_timeout(idle);
    async move {
        loop {
            // What moves bytes is boxed and goes when they stop coming: an idle connection is a small task.
            Box::pin(both(down, up, first.take(), &shared)).await;
            if let Some(end) = shared.over() {
                return end;
            }
            let readable = match (shared.is(UP, Side::Over), shared.is(DOWN, Side::Over)) {
                (false, false) => rt::readable(&down.rd, Some(&up.rd)),
                (false, true) => rt::readable(&down.rd, None),
                (true, _) => rt::readable(&up.rd, None),
            };
            if !rt::readable_by(readable, down.wr.deadline(), shared.idle_at()).await {
                shared.break_off(End::Idle);
                return End::Idle;
            }
            shared.wake();
        }
    }
}

/// Sends a stream's bytes back to it until it ends: the built-in echo. `first` holds bytes that were read already.
pub async fn echo(stream: &mut Stream, mut first: Option<Buf>, idle: Duration) -> End {
    let shared = Shared::new([stream.fd(), stream.fd()], idle, None);
    shared.sides[DOWN].set(Side::Over);
    stream.wr.set_stall_timeout(idle);
    loop {
        Box::pin(step(&mut stream.rd, &mut stream.wr, first.take(), &shared, UP)).await;
        if let Some(end) = shared.over() {
            return end;
        }
        if !rt::readable_by(rt::readable(&stream.rd, None), stream.wr.deadline(), shared.idle_at()).await {
            shared.break_off(End::Idle);
            return End::Idle;
        }
        shared.wake();
    }
}

/// Moves bytes in both directions until neither has any on the way.
async fn both(down: &mut Stream, up: &mut Stream, first: First, shared: &Shared<'_>) {
    let [from_down, from_up] = first.map_or([None, None], |first| *first);
    let mut upwards = pin!(direction(&mut down.rd, &mut up.wr, from_down, shared, UP));
    let mut downwards = pin!(direction(&mut up.rd, &mut down.wr, from_up, shared, DOWN));
    poll_fn(|cx| {
        // A direction that is over has returned, or had before this began.
        if !shared.is(UP, Side::Over) && upwards.as_mut().poll(cx).is_ready() {
            debug_assert!(shared.is(UP, Side::Over), "it returns when it is over");
        }
        if !shared.is(DOWN, Side::Over) && downwards.as_mut().poll(cx).is_ready() {
            debug_assert!(shared.is(DOWN, Side::Over), "it returns when it is over");
        }
        if shared.rests() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One direction, while the other may be busy.
async fn direction(rd: &mut Reader, wr: &mut Writer, mut first: Option<Buf>, shared: &Shared<'_>, side: usize) {
    loop {
        step(rd, wr, first.take(), shared, side).await;
        if shared.is(side, Side::Over) {
            return;
        }
        // Where the other rests too, both go to rest together.
        if shared.rests() {
            return std::future::pending().await;
        }
        rt::readable(rd, None).await;
        shared.sides[side].set(Side::Busy);
    }
}

/// Moves bytes for as long as they come, and says in `shared` what the direction is afterwards.
async fn step(rd: &mut Reader, wr: &mut Writer, first: Option<Buf>, shared: &Shared<'_>, side: usize) {
    match busy(rd, wr, first, shared).await {
        Ok(Busy::Quiet) => {
            rd.rest();
            wr.rest();
            return shared.is_quiet(side);
        }
        // Once both directions have ended the sockets are closed.
        Ok(Busy::Ended) if shared.is(1 - side, Side::Over) => Box::pin(wr.finish_by_close()).await,
        Ok(Busy::Ended) => Box::pin(wr.finish()).await,
        // Our own deadline, not the kernel's, which has a number: the peer has taken nothing for as long.
        Err(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() => {
            shared.break_off(End::Idle);
        }
        Err(_) => shared.break_off(End::Reset),
    }
    shared.sides[side].set(Side::Over);
}

/// Why a direction stopped moving bytes.
enum Busy {
    /// The stream has ended.
    Ended,
    /// Nothing has come for a while.
    Quiet,
}

/// Moves bytes for as long as they come, by copying or by splicing, whichever is cheaper for what comes.
async fn busy(rd: &mut Reader, wr: &mut Writer, mut first: Option<Buf>, shared: &Shared<'_>) -> io::Result<Busy> {
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
    shared: &Shared<'_>,
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

async fn send(wr: &mut Writer, buf: Buf, shared: &Shared<'_>) -> io::Result<Buf> {
    let len = buf.len();
    let (written, buf) = wr.write_away(buf, len).await;
    written?;
    shared.last_activity.set(rt::now());
    Ok(buf)
}
