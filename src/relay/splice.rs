//! Bulk: from socket to pipe to socket, readiness from the event loop and the splices our own.
//!
//! What splicing costs is not the bytes but the wake-ups: of this task for every packet or two that come, and of the
//! peer on its own core for every packet that leaves it asleep in between. So after each move the direction pauses for
//! a moment, together with all others of its core, and lets bytes gather; the next move is larger.

use std::io;
use std::time::Duration;

use super::pool::{Lease, count_spliced};
use super::{QUIET, Shared};
use crate::rt::{self, Reader, Writer};
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
    /// Nothing has come for a while.
    Quiet,
    /// Little comes at a time.
    Chatty,
    /// These sockets cannot be spliced, or there is no pipe.
    Refused,
}

/// Splices at most `left` bytes. An error is of either side, or `TimedOut` when the peer took nothing for the writer's
/// stall timeout.
pub(super) async fn splice(rd: &mut Reader, wr: &mut Writer, mut left: u64, shared: &Shared) -> io::Result<Spliced> {
    let (Some(from), Some(to)) = (rd.splice_fd(), wr.splice_fd()) else { return Ok(Spliced::Refused) };
    let Some(mut pipe) = Lease::take() else { return Ok(Spliced::Refused) };
    let mut small = 0;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(MOVE).min(MOVE);
        let filled = match pipe.fill(from, len) {
            Ok(0) => return Ok(Spliced::Ended),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if rd.readable_until(rt::now() + QUIET).await? {
                    continue;
                }
                return Ok(Spliced::Quiet);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if sys::splice_refused(&error) => return Ok(Spliced::Refused),
            Err(error) => return Err(error),
        };
        left -= filled as u64;
        rd.count(filled);
        while pipe.held() > 0 {
            match pipe.drain(to) {
                Ok(taken) => {
                    shared.moved();
                    wr.count(taken);
                    count_spliced(taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wr.writable_until(wr.stalled_at()).await? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        small = if filled < SMALL { small + 1 } else { 0 };
        if small == CHATTY_AFTER {
            return Ok(Spliced::Chatty);
        }
        if left > 0 {
            rt::pace(GATHER).await;
        }
    }
    Ok(Spliced::Whole)
}
