//! Bodies whose length is known: as many bytes from one stream to another, spliced.

use std::cell::Cell;
use std::time::Duration;

use super::splice::{Failed, Spliced, Terms, readable, splice};
use crate::rt::{self, Reader, Signal, Tick, Writer};

/// The rest of a body from which on it is worth a pipe; the first 64 KiB come with the head. Measured against copying,
/// CPU per answer: bodies of 128 KiB 1.2, of 256 KiB 0.92, of 512 KiB 0.75 (`perf/README.md`, L4).
pub const BODY_FROM: u64 = 128 << 10;

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It has passed whole.
    Whole,
    /// It is to be copied from here on: it comes little by little, or there is no pipe.
    Copy,
    /// The side that it comes from has ended early.
    Ended,
    /// That side has broken.
    ReadFailed,
    /// Nothing came in time.
    Late,
    /// It was called off.
    CalledOff,
    /// The side that it goes to has broken, or took nothing for its stall timeout.
    WriteFailed,
}

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'p> {
    /// All of it.
    pub by: Tick,
    /// Between two pieces of it.
    pub idle: Duration,
    /// Ends the wait for the next piece.
    pub call_off: Option<&'p Signal>,
}

/// Moves the next `left` bytes from `rd` to `wr`, nothing of which may wait in a buffer; how many have passed, and how
/// it ended. While nothing comes no pipe is held.
pub async fn body(rd: &mut Reader, wr: &mut Writer, left: u64, patience: Patience<'_>) -> (u64, Passed) {
    let last_activity = Cell::new(rt::now());
    let Patience { by, idle, call_off } = patience;
    let mut terms = Terms { left, last_activity: &last_activity, by, call_off };
    let passed = loop {
        match splice(rd, wr, &mut terms).await {
            Ok(Spliced::Whole) => break Passed::Whole,
            Ok(Spliced::Ended) => break Passed::Ended,
            Ok(Spliced::Chatty | Spliced::Refused) => break Passed::Copy,
            Ok(Spliced::Quiet) => {}
            Err(Failed::Read(_)) => break Passed::ReadFailed,
            Err(Failed::Write(_)) if call_off.is_some_and(Signal::is_raised) => break Passed::CalledOff,
            Err(Failed::Write(_)) => break Passed::WriteFailed,
        }
        if call_off.is_some_and(Signal::is_raised) {
            break Passed::CalledOff;
        }
        let quiet_by = last_activity.get() + (rt::tick_after(idle) - rt::now());
        match readable(rd, by.min(quiet_by), call_off).await {
            Ok(true) => {}
            Ok(false) if call_off.is_some_and(Signal::is_raised) => break Passed::CalledOff,
            Ok(false) => break Passed::Late,
            Err(_) => break Passed::ReadFailed,
        }
    };
    (left - terms.left, passed)
}
