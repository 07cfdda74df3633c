//! An upgraded connection with a stream of HTTP/2 at one end or both. Two connections of their own are relayed by
//! `relay`, which can splice; frames cannot be spliced.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use super::io::{Filled, Watch};
use super::origin::{Sink, Source};
use super::piece::Piece;
use crate::buffer::{Buf, Class};
use crate::rt::{self, Tick};

/// What both directions share.
struct Life {
    idle: Duration,
    moved: Cell<Tick>,
}

impl Life {
    fn idle_at(&self) -> Tick {
        self.moved.get().saturating_add(rt::tick_after(self.idle).saturating_sub(rt::now()))
    }
}

/// The tunnel broke, or was idle for too long.
struct Broken;

/// Moves bytes until both directions have ended, or one breaks and takes the other with it. `from_down` and `from_up` hold
/// bytes that were read already.
pub(super) async fn tunnel<A: Source, B: Sink, C: Source, D: Sink>(
    (down_rd, down_wr, cut_down): (&mut A, &mut B, impl Fn()),
    (up_rd, up_wr, cut_up): (&mut C, &mut D, impl Fn()),
    from_down: Buf,
    from_up: Buf,
    idle: Duration,
) {
    let life = Life { idle, moved: Cell::new(rt::now()) };
    let cut = || {
        cut_down();
        cut_up();
    };
    let upwards = pin!(async {
        if direction(down_rd, up_wr, from_down, &life).await.is_err() {
            cut();
        }
    });
    let downwards = pin!(async {
        if direction(up_rd, down_wr, from_up, &life).await.is_err() {
            cut();
        }
    });
    rt::join(upwards, downwards).await;
}

async fn direction<S: Source, T: Sink>(from: &mut S, to: &mut T, first: Buf, life: &Life) -> Result<(), Broken> {
    let mut buf = first;
    loop {
        if !buf.is_empty() {
            life.moved.set(rt::now());
            let (len, end) = (buf.len(), buf.mark_end());
            let piece = Piece { len, rest: end..end, done: false, payload: len };
            let (sent, _rest) = to.send(buf, piece, &[]).await;
            sent.map_err(|_gone| Broken)?;
        }
        if from.take_end().is_some() {
            to.finish().await;
            return Ok(());
        }
        let (filled, back) = from.fill(Buf::new(Class::Head), life.idle_at(), Watch::None).await;
        buf = back;
        match filled {
            Filled::Data => {}
            Filled::End => {
                to.finish().await;
                return Ok(());
            }
            // The other direction has been busy.
            Filled::Late if rt::now() < life.idle_at() => {}
            Filled::Late | Filled::Broken | Filled::Refused | Filled::GoneAway | Filled::CalledOff => {
                return Err(Broken);
            }
        }
    }
}
