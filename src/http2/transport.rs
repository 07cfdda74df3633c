//! Bytes between a stream and the codec.
//!
//! The codec wants to poll; our streams move buffers into operations and back. Two pumps, one per direction, own the
//! halves of the stream and live as long as the connection does, so that no operation is ever dropped or boxed; the
//! codec takes what has been read and leaves what is to be written. Whoever drives the connection polls all of it in one
//! task, again as long as [`Transport::progressed`]: what the codec writes in one round, frames of many streams, leaves
//! in one send, and the next round's is gathered while that is in flight.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringway_core::http2::flood::{Flood, Guard};
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{Buf, Class};
use crate::rt::{self, Reader, Stream, Writer};
use crate::sys;

/// Ticks that a read stays in flight with its buffer before only readiness is awaited.
const HOT: rt::Tick = 2;

/// How long a peer may take to read the last words.
const LINGER: Duration = Duration::from_secs(2);

/// What a peer may still send meanwhile.
const LINGER_LIMIT: usize = 1 << 20;

/// What the codec and the pumps share.
#[derive(Debug, Default)]
struct Shared {
    inbound: RefCell<Option<Buf>>,
    ended: Cell<Option<Result<(), io::ErrorKind>>>,
    outbound: RefCell<Option<Buf>>,
    broken: Cell<Option<io::ErrorKind>>,
    closing: Cell<bool>,
    moved: Cell<bool>,
    /// Of what clients send; what endpoints send is bounded by the codec alone.
    guard: Option<RefCell<Guard>>,
    heard: Cell<rt::Tick>,
    flood: Cell<Option<Flood>>,
}

impl Shared {
    fn see(&self, buf: &Buf) {
        if let Some(guard) = &self.guard
            && let Err(flood) = guard.borrow_mut().see(buf.data(), rt::now())
        {
            self.flood.set(Some(flood));
        }
    }
}

/// The codec's end.
#[derive(Debug)]
pub(super) struct Wire(Rc<Shared>);

/// The driver's end.
#[derive(Debug)]
pub(super) struct Transport(Rc<Shared>);

impl Transport {
    /// Around a stream of which `first` has been read already. Both pumps have to be polled until they are done.
    pub(super) fn new(
        stream: Stream,
        first: Option<Buf>,
        guarded: bool,
    ) -> (Self, Wire, impl Future<Output = ()>, impl Future<Output = ()>) {
        let guard = guarded.then(RefCell::default);
        let shared = Rc::new(Shared { guard, heard: Cell::new(rt::now()), ..Shared::default() });
        let (rd, wr) = stream.split();
        if let Some(first) = first {
            shared.see(&first);
            *shared.inbound.borrow_mut() = Some(first);
        }
        let (read, write) = (pump_in(rd, Rc::clone(&shared)), pump_out(wr, Rc::clone(&shared)));
        (Self(Rc::clone(&shared)), Wire(shared), read, write)
    }

    /// Whether anything has moved since this was asked last: then everything is to be polled again.
    pub(super) fn progressed(&self) -> bool {
        self.0.moved.take()
    }

    /// What the peer sends too much of. Nothing more of it is read.
    pub(super) fn flood(&self) -> Option<Flood> {
        self.0.flood.get()
    }

    /// When the peer sent something last.
    pub(super) fn heard(&self) -> rt::Tick {
        self.0.heard.get()
    }

    /// Lets the pumps end when everything has been written.
    pub(super) fn close(&self) {
        self.0.closing.set(true);
        self.0.moved.set(true);
    }
}

async fn pump_in(mut rd: Reader, shared: Rc<Shared>) {
    let mut class = Class::Head;
    let mut thrown = 0;
    loop {
        // The codec takes what has been read before there is more.
        poll_fn(|_| if wants_more(&shared) { Poll::Ready(()) } else { Poll::Pending }).await;
        let (read, buf) = rd.read_unless_quiet(Buf::new(class), rt::now() + HOT).await;
        let end = match read {
            Ok(Some(0)) => Ok(()),
            Ok(Some(n)) if shared.closing.get() => {
                thrown += n;
                if thrown < LINGER_LIMIT {
                    continue;
                }
                Ok(())
            }
            Ok(Some(n)) => {
                // What comes in bulk is read in bulk.
                class = if n == buf.data().len() && buf.room() == 0 { Class::Body } else { Class::Head };
                // What made the measure full is still given to the codec, which may not have seen the preface yet.
                shared.see(&buf);
                shared.heard.set(rt::now());
                *shared.inbound.borrow_mut() = Some(buf);
                shared.moved.set(true);
                continue;
            }
            Ok(None) => {
                drop(buf);
                match rd.readable().await {
                    Ok(()) => continue,
                    Err(error) => Err(error.kind()),
                }
            }
            Err(error) => Err(error.kind()),
        };
        shared.ended.set(Some(end));
        shared.moved.set(true);
        return;
    }
}

fn wants_more(shared: &Shared) -> bool {
    shared.closing.get() || (shared.inbound.borrow().is_none() && shared.flood.get().is_none())
}

async fn pump_out(mut wr: Writer, shared: Rc<Shared>) {
    loop {
        let next = poll_fn(|_| match shared.outbound.borrow_mut().take() {
            Some(buf) => Poll::Ready(Some(buf)),
            None if shared.closing.get() => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await;
        let Some(buf) = next else { break };
        shared.moved.set(true);
        let len = buf.len();
        let (written, buf) = wr.write_all(buf, len).await;
        drop(buf);
        shared.moved.set(true);
        if let Err(error) = written {
            shared.broken.set(Some(error.kind()));
            shared.outbound.borrow_mut().take();
            // Ends the other direction as well.
            sys::cut(wr.fd(), Shutdown::Both);
            poll_fn(|_| if shared.ended.get().is_some() { Poll::Ready(()) } else { Poll::Pending }).await;
            return;
        }
    }
    wr.finish().await;
    // The peer reads its last frames before the connection is closed under what it still sends.
    wr.deadline().arm(rt::tick_after(LINGER), Shutdown::Both);
    poll_fn(|_| if shared.ended.get().is_some() { Poll::Ready(()) } else { Poll::Pending }).await;
    wr.deadline().disarm();
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.0;
        let mut inbound = shared.inbound.borrow_mut();
        if let Some(buf) = &mut *inbound {
            let taken = buf.len().min(into.remaining());
            into.put_slice(&buf.data()[..taken]);
            buf.consume(taken);
            if buf.is_empty() {
                *inbound = None;
                shared.moved.set(true);
            }
            return Poll::Ready(Ok(()));
        }
        match shared.ended.get() {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            // Whoever drives the connection polls again when there is more.
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.0;
        if let Some(kind) = shared.broken.get() {
            return Poll::Ready(Err(kind.into()));
        }
        let mut outbound = shared.outbound.borrow_mut();
        let buf = outbound.get_or_insert_with(|| Buf::new(Class::Body));
        let mut written = 0;
        for slice in slices {
            let taken = slice.len().min(buf.room());
            let fits = buf.push(&slice[..taken]);
            debug_assert!(fits, "no more than there is room for");
            if let Some(guard) = &shared.guard {
                guard.borrow_mut().sent(&slice[..taken]);
            }
            written += taken;
        }
        // Full: the pump has one in flight, and this one waits.
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(written))
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.broken.get().map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
