//! Bytes from one stream to another: TCP routes, upgraded connections.
//!
//! Each direction copies through one pooled buffer, small until reads fill it. A direction in which nothing has come
//! for a tick gives its buffer back and waits for readiness only, so an idle connection holds none. An end of stream
//! is passed on as a FIN while the other direction goes on; a reset is passed on as a reset.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use crate::buffer::{Buf, Class};
use crate::rt::{self, Reader, Stream, Tick, Writer};
use crate::sys;

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

/// Bytes that passed, by where they went.
#[derive(Debug, Default)]
pub struct Moved {
    /// From downstream to upstream.
    pub up: Cell<u64>,
    /// From upstream to downstream.
    pub down: Cell<u64>,
}

/// What both directions of a connection share.
struct Shared {
    last_activity: Cell<Tick>,
    idle: Duration,
    ended: Cell<Option<End>>,
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
    moved: &Moved,
) -> End {
    let shared =
        Shared { last_activity: Cell::new(rt::now()), idle, ended: Cell::new(None), fds: [down.fd(), up.fd()] };
    down.wr.set_stall_timeout(idle);
    up.wr.set_stall_timeout(idle);
    let upwards = pin!(direction(&mut down.rd, &mut up.wr, from_down, &shared, &moved.up));
    let downwards = pin!(direction(&mut up.rd, &mut down.wr, from_up, &shared, &moved.down));
    rt::join(upwards, downwards).await;
    shared.ended.get().unwrap_or(End::Finished)
}

/// Sends a stream's bytes back to it until it ends: the built-in echo.
pub async fn echo(stream: &mut Stream, idle: Duration, moved: &Moved) -> End {
    let shared =
        Shared { last_activity: Cell::new(rt::now()), idle, ended: Cell::new(None), fds: [stream.fd(), stream.fd()] };
    stream.wr.set_stall_timeout(idle);
    direction(&mut stream.rd, &mut stream.wr, None, &shared, &moved.up).await;
    shared.ended.get().unwrap_or(End::Finished)
}

async fn direction(rd: &mut Reader, wr: &mut Writer, first: Option<Buf>, shared: &Shared, moved: &Cell<u64>) {
    match copy(rd, wr, first, shared, moved).await {
        Ok(()) => wr.finish().await,
        Err(_) => shared.break_off(End::Reset),
    }
}

async fn copy(
    rd: &mut Reader,
    wr: &mut Writer,
    first: Option<Buf>,
    shared: &Shared,
    moved: &Cell<u64>,
) -> io::Result<()> {
    let mut class = Class::Head;
    let mut held = match first {
        Some(first) if !first.is_empty() => Some(send(wr, first, shared, moved).await?),
        _ => None,
    };
    loop {
        let mut buf = held.take().unwrap_or_else(|| Buf::new(class));
        buf.clear();
        let room = buf.room();
        let (read, buf) = rd.read_unless_quiet(buf, rt::now() + 2).await;
        match read? {
            Some(0) => return Ok(()),
            Some(n) => {
                let full = n == room;
                let buf = send(wr, buf, shared, moved).await?;
                if full && class == Class::Head {
                    class = Class::Body;
                } else {
                    held = Some(buf);
                }
            }
            None => {
                drop(buf);
                class = Class::Head;
                wait(rd, shared).await?;
            }
        }
    }
}

async fn send(wr: &mut Writer, buf: Buf, shared: &Shared, moved: &Cell<u64>) -> io::Result<Buf> {
    let len = buf.len();
    let (written, buf) = wr.write_all(buf, len).await;
    written?;
    moved.set(moved.get() + len as u64);
    shared.last_activity.set(rt::now());
    Ok(buf)
}

/// Waits without a buffer until there is something to read or the whole connection has been idle for too long.
async fn wait(rd: &mut Reader, shared: &Shared) -> io::Result<()> {
    loop {
        if rd.readable_until(shared.idle_at()).await? {
            return Ok(());
        }
        if rt::now() >= shared.idle_at() {
            shared.break_off(End::Idle);
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}
