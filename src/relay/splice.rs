//! Bulk: from socket to pipe to socket, readiness from the event loop and the splices our own.
//!
//! What splicing costs is not the bytes but the wake-ups: of this task for every packet or two that come, and of the
//! peer on its own core for every packet that leaves it asleep in between. So after each move the direction pauses for
//! a moment, together with all others of its core, and lets bytes gather; the next move is larger.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::QUIET;
use super::pool::{Lease, count_spliced};
use crate::rt::{self, Reader, Signal, Tick, Writer};
use crate::sys;

/// Most bytes of one move.
const MOVE: usize = 1 << 20;

/// The pause after a move. Measured over one connection, CPU per byte against no pause: 100 us 0.85, 200 us 0.98,
/// 400 us 1.4 (`perf/README.md`, L4).
const GATHER: Duration = Duration::from_micros(100);

/// A move of fewer bytes than this would have been cheaper as a copy.
const SMALL: usize = 16 << 10;

/// Small moves in a row after which the flow is chatty.
const CHATTY_AFTER: u32 = 16;

/// Why splicing stopped. No byte is left in the pipe then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spliced {
    /// The stream has ended.
    Ended,
    /// As many bytes as asked for have passed.
    Whole,
    /// Nothing has come for a while, or the wait was called off.
    Quiet,
    /// Little comes at a time.
    Chatty,
    /// These sockets cannot be spliced, or there is no pipe.
    Refused,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The side that bytes come from.
    Read(io::Error),
    /// The side that they go to; `TimedOut` of our own when it took nothing for the writer's stall timeout.
    Write(io::Error),
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        let (Failed::Read(error) | Failed::Write(error)) = failed;
        error
    }
}

/// What bounds splicing, and what it tells meanwhile.
#[derive(Debug)]
pub(super) struct Terms<'t> {
    /// Bytes that may pass; what has passed is taken off.
    pub(super) left: u64,
    /// When bytes passed last.
    pub(super) last_activity: &'t Cell<Tick>,
    /// Until when it may go on; it is quiet then.
    pub(super) by: Tick,
    /// Ends a wait for bytes.
    pub(super) call_off: Option<&'t Signal>,
}

/// Splices until the terms say otherwise.
pub(super) async fn splice(rd: &mut Reader, wr: &mut Writer, terms: &mut Terms<'_>) -> Result<Spliced, Failed> {
    let (Some(from), Some(to)) = (rd.splice_fd(), wr.splice_fd()) else { return Ok(Spliced::Refused) };
    let Some(mut pipe) = Lease::take() else { return Ok(Spliced::Refused) };
    let mut small = 0;
    while terms.left > 0 {
        if rt::now() >= terms.by {
            return Ok(Spliced::Quiet);
        }
        let len = usize::try_from(terms.left).unwrap_or(MOVE).min(MOVE);
        let filled = match pipe.fill(from, len) {
            Ok(0) => return Ok(Spliced::Ended),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let until = (rt::now() + QUIET).min(terms.by);
                if readable(rd, until, terms.call_off).await.map_err(Failed::Read)? {
                    continue;
                }
                return Ok(Spliced::Quiet);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if sys::splice_refused(&error) => return Ok(Spliced::Refused),
            Err(error) => return Err(Failed::Read(error)),
        };
        rd.count(filled);
        while pipe.held() > 0 {
            match pipe.drain(to) {
                Ok(taken) => {
                    terms.left -= taken as u64;
                    terms.last_activity.set(rt::now());
                    wr.count(taken);
                    count_spliced(taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wr.writable_until(wr.stalled_at()).await.map_err(Failed::Write)? {
                        return Err(Failed::Write(io::ErrorKind::TimedOut.into()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failed::Write(error)),
            }
        }
        small = if filled < SMALL { small + 1 } else { 0 };
        if small == CHATTY_AFTER {
            return Ok(Spliced::Chatty);
        }
        if terms.left > 0 {
            // Without a timer it goes on with what there is.
            let _paused = rt::pace(GATHER).await;
        }
    }
    Ok(Spliced::Whole)
}

/// Waits until something can be read; `false` when `until` has passed or the wait was called off.
pub(super) async fn readable(rd: &mut Reader, until: Tick, call_off: Option<&Signal>) -> io::Result<bool> {
    match call_off {
        None => rd.readable_until(until).await,
        Some(signal) => rt::race(rd.readable_until(until), signal.wait()).await.unwrap_or(Ok(false)),
    }
}
