//! Reading for HTTP/1.1: with a buffer while bytes are expected soon, without one while they are not.

use std::io;

use rustix::net::Shutdown;

use crate::buffer::Buf;
use crate::rt::{self, Reader, Signal, Tick};
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
async fn wait(rd: &mut Reader, by: Tick, watch: Watch<'_>) -> io::Result<bool> {
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
