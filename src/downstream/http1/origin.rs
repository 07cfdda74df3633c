//! An endpoint's side of an exchange: what [`forward()`](super::forward::forward) asks of it, in either version of HTTP.
//!
//! A request's head is lines in both; an answer's may be taken as the fields that HTTP/2 has it in. A body comes and goes in
//! chunks or up to its length in HTTP/1.1, and in frames in HTTP/2.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use ringway_core::http1::exchange::UpstreamFault;
use rustix::net::Shutdown;

use super::io::{Filled, Stall, Watch, fill, gone, pour};
use super::piece::Piece;
use super::websocket;
use crate::buffer::Buf;
use crate::http2::{Failure, Incoming, Outgoing, Received, Section, Sending, Slot};
use crate::rt::{self, Deadline, Reader, Stream, Tick, Writer};
use crate::sys::{self, PeerState};

/// How long an endpoint's SETTINGS may take, where they have to be known.
const SETTINGS: Duration = Duration::from_secs(1);

/// How often they are looked for.
const LOOK: Duration = Duration::from_millis(5);

/// An endpoint that a request is sent to.
pub(super) trait Origin {
    /// Bodies are in frames, and trailers apart from them.
    const FRAMES: bool;
    /// Where the answer comes from.
    type Source: Source;
    /// Where the request's body goes.
    type Sink: Sink;

    /// Sends the window's first `first` bytes, of which `head` are the request's head; `end`: it is whole with them. The
    /// window is what is behind them then, unless this fails.
    async fn begin(&mut self, buf: Buf, head: usize, first: usize, end: bool) -> (Result<(), Begin>, Buf);

    /// Where the answer comes from.
    fn source(&mut self) -> &mut Self::Source;

    /// Both directions, and what breaks off the exchange.
    fn parts(&mut self) -> (&mut Self::Source, &mut Self::Sink, impl Fn() + 'static);
}

/// Why a request could not be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// The endpoint took some of it; it may have answered.
    Write,
    /// Nothing of it has been sent.
    Refused(UpstreamFault),
}

/// Where an answer comes from.
pub(super) trait Source {
    /// As [`Origin::FRAMES`].
    const FRAMES: bool;

    /// More of the answer, as [`fill()`].
    async fn fill(&mut self, buf: Buf, by: Tick, watch: Watch<'_>) -> (Filled, Buf);

    /// What has come by now.
    fn read_now(&mut self, buf: &mut Buf) -> io::Result<Option<usize>>;

    /// Has heads left to be taken by [`Source::take_head`] where they do not come as lines. Without this they are given as
    /// lines among the bytes, in front of what follows them.
    fn leave_heads(&mut self) {}

    /// A head that has come, in front of whatever else there is.
    fn take_head(&mut self) -> Option<Section> {
        None
    }

    /// The trailer lines, once the bytes that have been given are the last.
    fn take_end(&mut self) -> Option<Vec<u8>>;

    /// Waits for nothing more: these trailer lines end the body. False where it has none.
    fn give_up(&mut self, _trailers: &[u8]) -> bool {
        false
    }

    /// What the answer's bytes come from just as they go on, where there is such a thing.
    fn plain(&mut self) -> Option<&mut Reader> {
        None
    }
}

/// Where a request's body goes.
pub(super) trait Sink {
    /// Sends a piece, with `trailers` if it is the last. The window is the piece's rest then.
    async fn send(&mut self, buf: Buf, piece: Piece, trailers: &[u8]) -> (io::Result<()>, Buf);

    /// Says that nothing more comes, where it has not been said with a piece.
    async fn finish(&mut self);

    /// What the body's bytes go to just as they come, where there is such a thing.
    fn plain(&mut self) -> Option<&mut Writer> {
        None
    }
}

impl Origin for Stream {
    const FRAMES: bool = false;
    type Source = Reader;
    type Sink = Writer;

    async fn begin(&mut self, buf: Buf, _head: usize, first: usize, _end: bool) -> (Result<(), Begin>, Buf) {
        let (written, buf) = self.wr.write_all(buf, first).await;
        (written.map_err(|_error| Begin::Write), buf)
    }

    fn source(&mut self) -> &mut Reader {
        &mut self.rd
    }

    fn parts(&mut self) -> (&mut Reader, &mut Writer, impl Fn() + 'static) {
        let fd = self.fd();
        (&mut self.rd, &mut self.wr, move || sys::reset(fd))
    }
}

impl Source for Reader {
    const FRAMES: bool = false;

    async fn fill(&mut self, buf: Buf, by: Tick, watch: Watch<'_>) -> (Filled, Buf) {
        fill(self, buf, by, Shutdown::Both, watch).await
    }

    fn read_now(&mut self, buf: &mut Buf) -> io::Result<Option<usize>> {
        Self::read_now(self, buf)
    }

    fn take_end(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn plain(&mut self) -> Option<&mut Reader> {
        self.splice_fd().is_some().then_some(self)
    }
}

impl Sink for Writer {
    async fn send(&mut self, mut buf: Buf, piece: Piece, _trailers: &[u8]) -> (io::Result<()>, Buf) {
        let mut written = Ok(());
        if piece.len > 0 {
            (written, buf) = self.write_all(buf, piece.len).await;
        }
        if written.is_ok() {
            buf.set_window(piece.rest);
        }
        (written, buf)
    }

    async fn finish(&mut self) {
        Self::finish(self).await;
    }

    fn plain(&mut self) -> Option<&mut Writer> {
        self.splice_fd().is_some().then_some(self)
    }
}

/// A request's place on a connection of HTTP/2.
pub(super) struct Http2Origin {
    // Streams end before their place is given to another.
    source: Http2Source,
    sink: Http2Sink,
    slot: Slot,
    /// The request may ask for another protocol.
    upgrade: bool,
}

pub(super) struct Http2Source {
    received: Option<Received>,
    /// What can be taken without waiting.
    next: Option<Incoming>,
    /// The rest of a head in lines.
    head: Vec<u8>,
    /// Heads are not given as lines.
    leaves_heads: bool,
    /// Bytes given that the endpoint has no credit for yet.
    unreleased: usize,
    end: Option<Vec<u8>>,
    failed: Option<Failure>,
    timer: Deadline,
    /// What `Sec-WebSocket-Accept` has to say, where an extended CONNECT stands for an upgrade.
    accept: Option<String>,
}

pub(super) struct Http2Sink {
    sending: Option<Sending>,
    stall: Stall,
}

impl Http2Origin {
    /// On a place. `upgrade`: the request may ask for another protocol, as HTTP/1.1 does that.
    pub(super) fn new(slot: Slot, stall: Duration, upgrade: bool) -> Self {
        let source = Http2Source {
            received: None,
            next: None,
            head: Vec::new(),
            leaves_heads: false,
            unreleased: 0,
            end: None,
            failed: None,
            // No descriptor: the deadline only wakes.
            timer: Deadline::new(-1),
            accept: None,
        };
        Self { source, sink: Http2Sink { sending: None, stall: Stall::new(stall) }, slot, upgrade }
    }
}

impl Origin for Http2Origin {
    const FRAMES: bool = true;
    type Source = Http2Source;
    type Sink = Http2Sink;

    async fn begin(&mut self, mut buf: Buf, head: usize, first: usize, end: bool) -> (Result<(), Begin>, Buf) {
        if self.upgrade
            && let Some(key) = websocket::key(&buf.data()[..head])
        {
            self.source.accept = Some(websocket::accept(key));
            // An endpoint says in its SETTINGS whether it takes this, and those of a new connection may still come.
            let by = rt::tick_after(SETTINGS);
            while !self.slot.takes_connect() && !self.slot.is_over() && rt::now() < by {
                rt::sleep(LOOK).await;
            }
        }
        let (sending, received) = match self.slot.request(&buf.data()[..head], end && first == head) {
            Ok(begun) => begun,
            Err(Failure::GoneAway) => return (Err(Begin::Refused(UpstreamFault::GoneAway)), buf),
            Err(Failure::Refused | Failure::Reset) => return (Err(Begin::Refused(UpstreamFault::Refused)), buf),
            Err(Failure::Malformed | Failure::Unspeakable) => {
                return (Err(Begin::Refused(UpstreamFault::WriteFailed)), buf);
            }
        };
        self.source.received = Some(received);
        let mut sent = Ok(());
        if first > head {
            // A copy: the request may have to be sent again.
            sent = self.sink.stall.within(sending.copy(&buf.data()[head..first], end)).await;
        }
        self.sink.sending = Some(sending);
        if sent.is_ok() {
            buf.consume(first);
        }
        (sent.map_err(|_gone| Begin::Write), buf)
    }

    fn source(&mut self) -> &mut Http2Source {
        &mut self.source
    }

    fn parts(&mut self) -> (&mut Http2Source, &mut Http2Sink, impl Fn() + 'static) {
        let sending = self.sink.sending.clone();
        let cut = move || {
            if let Some(sending) = &sending {
                sending.cancel();
            }
        };
        (&mut self.source, &mut self.sink, cut)
    }
}

impl Http2Source {
    /// A head, bytes, the end or a failure.
    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<()> {
        while self.next.is_none() && self.end.is_none() && self.failed.is_none() {
            let Some(received) = &mut self.received else {
                self.failed = Some(Failure::Reset);
                break;
            };
            match std::task::ready!(received.poll_next(task)) {
                Ok(Incoming::End) => self.end = Some(received.take_trailers()),
                Ok(next) => self.next = Some(next),
                Err(failure) => self.failed = Some(failure),
            }
        }
        Poll::Ready(())
    }

    /// Moves what is there into the buffer; whether that was a head, which is dealt with before its body is read.
    fn gather(&mut self, buf: &mut Buf) {
        let mut task = Context::from_waker(std::task::Waker::noop());
        while buf.room() > 0 && self.poll_ready(&mut task).is_ready() {
            let (Some(next), Some(received)) = (self.next.take(), &mut self.received) else { return };
            if next == Incoming::Head {
                match self.leaves_heads {
                    true => self.next = Some(next),
                    false => self.gather_lines(buf),
                }
                return;
            }
            self.unreleased += received.read(buf);
        }
    }

    /// Moves a head into the buffer, in lines.
    fn gather_lines(&mut self, buf: &mut Buf) {
        if self.head.is_empty()
            && let Some(head) = self.received.as_mut().and_then(Received::take_head)
        {
            head.write_lines(&mut self.head);
            if let Some(accept) = self.accept.as_ref().filter(|_| head.status() / 100 == 2) {
                self.head = websocket::switched(&self.head, accept);
            }
        }
        let taken = buf.room().min(self.head.len());
        let fits = buf.push(&self.head[..taken]);
        debug_assert!(fits, "no more than there is room for");
        self.head.drain(..taken);
        self.next = (!self.head.is_empty()).then_some(Incoming::Head);
    }

    fn release(&mut self) {
        if let Some(received) = &mut self.received
            && self.unreleased > 0
        {
            received.release(std::mem::take(&mut self.unreleased));
        }
    }

    /// Waits until there is something; false when the deadline passed or the watch ended the wait.
    async fn ready(&mut self, by: Tick, watch: Watch<'_>) -> bool {
        let mut timer = std::mem::replace(&mut self.timer, Deadline::new(-1));
        let found = {
            let ready = poll_fn(|task| self.poll_ready(task));
            let in_time = rt::race(ready, timer.passed(by));
            match watch {
                Watch::None => in_time.await.is_ok(),
                Watch::Signal(signal) => matches!(rt::race(in_time, signal.wait()).await, Ok(Ok(()))),
                Watch::Peer(peer, fd) => match rt::race(in_time, peer.readable()).await {
                    Ok(found) => found.is_ok(),
                    // A half-closed client still wants its answer, and one that pipelines has only sent more.
                    Err(_) if sys::peer_state(fd) == PeerState::Broken => false,
                    Err(_) => {
                        let ready = poll_fn(|task| self.poll_ready(task));
                        rt::race(ready, timer.passed(by)).await.is_ok()
                    }
                },
            }
        };
        timer.disarm();
        self.timer = timer;
        found
    }
}

impl Source for Http2Source {
    const FRAMES: bool = true;

    /// What was given before has gone on by now: the endpoint is given credit for it.
    async fn fill(&mut self, mut buf: Buf, by: Tick, watch: Watch<'_>) -> (Filled, Buf) {
        self.release();
        let ready = {
            let mut task = Context::from_waker(std::task::Waker::noop());
            self.poll_ready(&mut task).is_ready()
        };
        if !ready {
            // Whoever waits without bytes holds no buffer.
            let class = buf.class();
            let kept = if buf.is_empty() {
                drop(buf);
                None
            } else {
                Some(buf)
            };
            let found = self.ready(by, watch).await;
            buf = kept.unwrap_or_else(|| Buf::new(class));
            if !found {
                return (if rt::now() >= by { Filled::Late } else { Filled::CalledOff }, buf);
            }
        }
        let before = buf.len();
        self.gather(&mut buf);
        match self.failed {
            // What came before it is good.
            Some(_) if buf.len() > before => {}
            Some(Failure::Refused) => return (Filled::Refused, buf),
            Some(Failure::GoneAway) => return (Filled::GoneAway, buf),
            Some(_) => return (Filled::Broken, buf),
            None => {}
        }
        (Filled::Data, buf)
    }

    fn read_now(&mut self, buf: &mut Buf) -> io::Result<Option<usize>> {
        let before = buf.len();
        self.gather(buf);
        Ok(Some(buf.len() - before))
    }

    /// One that accepts an extended CONNECT is written anew, as lines.
    fn leave_heads(&mut self) {
        self.leaves_heads = self.accept.is_none();
    }

    fn take_head(&mut self) -> Option<Section> {
        if !self.leaves_heads || !self.poll_ready(&mut Context::from_waker(std::task::Waker::noop())).is_ready() {
            return None;
        }
        self.next.take_if(|next| *next == Incoming::Head)?;
        self.received.as_mut()?.take_head()
    }

    fn take_end(&mut self) -> Option<Vec<u8>> {
        if self.next.is_none() { self.end.take() } else { None }
    }

    fn give_up(&mut self, trailers: &[u8]) -> bool {
        (self.received, self.failed, self.next) = (None, None, None);
        self.end = Some(trailers.to_vec());
        true
    }
}

impl Sink for Http2Sink {
    async fn send(&mut self, mut buf: Buf, piece: Piece, trailers: &[u8]) -> (io::Result<()>, Buf) {
        let Some(sending) = &self.sending else { return (Err(io::ErrorKind::NotConnected.into()), buf) };
        let Piece { len, rest, done, .. } = piece;
        let end = done && trailers.is_empty();
        if len > 0 {
            let (sent, left) = pour(sending, &mut self.stall, buf, 0..len, &rest, end).await;
            buf = left;
            if sent.is_err() {
                return (sent, buf);
            }
        } else {
            if end {
                let sent = gone(sending.end());
                buf.set_window(rest);
                return (sent, buf);
            }
            buf.set_window(rest);
        }
        let sent = if done && !trailers.is_empty() { gone(sending.trailers(trailers)) } else { Ok(()) };
        (sent, buf)
    }

    async fn finish(&mut self) {
        if let Some(sending) = &self.sending {
            // Where the stream is over, there is nobody to tell.
            let _told = sending.end();
        }
    }
}
