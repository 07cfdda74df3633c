//! A connection and its socket.
//!
//! Our streams move buffers into operations and back. Two pumps, one per direction, own the halves of the stream and
//! live as long as the connection does, so that no operation is ever dropped or boxed; what has been read is given to
//! the connection ([`Link::turn`]), and its frames are written into the next block. Whoever drives the connection polls
//! all of it in one task, again as long as [`Link::progressed`]: what requests' tasks write meanwhile, frames of many
//! streams, leaves in one send, and the next round's is gathered while that is in flight.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringway_core::http2::{Connection, Event, Incoming, Key, Limits, Outbound, Role, Spares};
use rustix::net::Shutdown;

use super::message::{Gone, Head, Request};
use crate::buffer::{Buf, Class};
use crate::rt::{self, Reader, Stream, Writer};
use crate::sys;

/// Ticks that a read stays in flight with its buffer before only readiness is awaited.
const HOT: rt::Tick = 2;

/// How long a peer may take to read the last words.
const LINGER: Duration = Duration::from_secs(2);

/// What a peer may still send meanwhile.
const LINGER_LIMIT: usize = 1 << 20;

thread_local! {
    static SPARES: RefCell<Spares> = RefCell::default();
}

/// Does something with this thread's spare memory. While the thread's locals are being torn down, there is none.
pub(super) fn with_spares<R>(f: impl FnOnce(&mut Spares) -> R) -> R {
    let mut f = Some(f);
    let mut with = |spares: &mut Spares| f.take().map(|f| f(spares));
    let found = SPARES.try_with(|spares| with(spares.try_borrow_mut().ok().as_deref_mut()?)).ok().flatten();
    found.or_else(|| with(&mut Spares::default())).expect("one of the two")
}

/// Bytes that wait for credit.
#[derive(Debug)]
pub(super) enum Chunk {
    /// In the block that they were read into.
    Part(Buf, Range<usize>),
    /// In a copy.
    Copy(Vec<u8>),
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Part(buf, range) => &buf.data()[range.clone()],
            Self::Copy(bytes) => bytes,
        }
    }
}

/// Who waits for a stream.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    pub(super) receive: Option<Waker>,
    pub(super) send: Option<Waker>,
    pub(super) gone: Option<Waker>,
}

/// The block that frames are written into, if there are any.
#[derive(Debug, Default)]
pub(super) struct Block(Option<Buf>);

impl Outbound for Block {
    fn room(&self) -> usize {
        self.0.as_ref().map_or(Class::Body.capacity(), Buf::room)
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let fits = self.0.get_or_insert_with(|| Buf::new(Class::Body)).push(bytes);
        debug_assert!(fits, "no more than there is room for");
    }
}

/// A connection with what it writes.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) connection: Connection<Chunk, Wakers>,
    pub(super) out: Block,
}

/// What a connection's driver, its pumps and its streams share.
#[derive(Debug)]
pub(super) struct Link {
    inner: RefCell<Inner>,
    inbound: RefCell<Option<Buf>>,
    /// Nothing more comes.
    ended: Cell<bool>,
    /// Nothing more goes.
    broken: Cell<bool>,
    closing: Cell<bool>,
    moved: Cell<bool>,
    heard: Cell<rt::Tick>,
    driver: RefCell<Option<Waker>>,
    kicked: Cell<bool>,
}

/// What moves a connection's bytes.
pub(super) type Pumps = Pin<Box<dyn Future<Output = ()>>>;

impl Link {
    /// Around a stream of which `first` has been read already. The pumps have to be polled until they are done.
    pub(super) fn new(stream: Stream, first: Option<Buf>, role: Role, limits: Limits) -> (Rc<Self>, Pumps) {
        let mut out = Block::default();
        let connection = Connection::new(role, limits, &mut out);
        let link = Rc::new(Self {
            inner: RefCell::new(Inner { connection, out }),
            inbound: RefCell::new(first),
            ended: Cell::new(false),
            broken: Cell::new(false),
            closing: Cell::new(false),
            moved: Cell::new(false),
            heard: Cell::new(rt::now()),
            driver: RefCell::new(None),
            kicked: Cell::new(false),
        });
        let (rd, wr) = stream.split();
        let (read, write) = (pump_in(rd, Rc::clone(&link)), pump_out(wr, Rc::clone(&link)));
        let pumps = async move {
            let (read, write) = (std::pin::pin!(read), std::pin::pin!(write));
            rt::join(read, write).await;
        };
        (link, Box::pin(pumps))
    }

    /// Does something with the connection, and has its driver do the rest.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Connection<Chunk, Wakers>, &mut Block) -> R) -> R {
        let mut inner = self.inner.borrow_mut();
        let Inner { connection, out } = &mut *inner;
        let result = f(connection, out);
        let work = out.0.is_some() || connection.is_restless();
        drop(inner);
        if work {
            self.kick();
        }
        result
    }

    /// Looks at the connection.
    pub(super) fn look<R>(&self, f: impl FnOnce(&Connection<Chunk, Wakers>) -> R) -> R {
        f(&self.inner.borrow().connection)
    }

    /// Has the driver look, once, however many ask.
    fn kick(&self) {
        if !self.kicked.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    /// The driver is here.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        self.kicked.set(false);
        keep(&mut self.driver.borrow_mut(), cx);
    }

    /// Gives the connection what has come, and writes what it has.
    pub(super) fn turn(&self) {
        let mut inner = self.inner.borrow_mut();
        let Inner { connection, out } = &mut *inner;
        let mut inbound = self.inbound.borrow_mut();
        if let Some(buf) = &mut *inbound {
            let taken = with_spares(|spares| connection.receive(buf.data(), rt::now(), spares, out));
            buf.consume(taken);
            if buf.is_empty() {
                *inbound = None;
                self.moved.set(true);
            }
        }
        if self.broken.get() || (self.ended.get() && inbound.is_none()) {
            connection.closed(out);
        }
        drop(inbound);
        connection.pump(out);
        if self.broken.get() {
            out.0 = None;
        }
        if connection.end().is_some() && (connection.is_flushed() || self.broken.get()) && !self.closing.replace(true) {
            self.moved.set(true);
        }
    }

    /// Nothing moves any more: whoever still waits is told so.
    pub(super) fn finish(self: &Rc<Self>) {
        self.ended.set(true);
        self.turn();
        // What has not been looked at by now never is.
        self.inbound.take();
        self.turn();
        while self.next_request().is_some() {}
    }

    /// Wakes whoever waits for a stream on which something has happened, up to the next request.
    pub(super) fn next_request(self: &Rc<Self>) -> Option<Request> {
        let mut inner = self.inner.borrow_mut();
        let Inner { connection, .. } = &mut *inner;
        while let Some(event) = connection.next_event() {
            match event {
                Event::Stream(key) => {
                    if let Some(wakers) = connection.attached(key) {
                        let Wakers { receive, send, gone } = std::mem::take(wakers);
                        [receive, send, gone].into_iter().flatten().for_each(Waker::wake);
                    }
                }
                Event::Request(key) => {
                    let taken = with_spares(|spares| connection.take_request(key, spares));
                    if let Some((fields, end_stream)) = taken {
                        drop(inner);
                        return Some(Request::new(Head::new(fields, end_stream), Handle::new(self, key)));
                    }
                }
            }
        }
        None
    }

    /// Whether anything has moved since this was asked last: then everything is to be polled again.
    pub(super) fn progressed(&self) -> bool {
        self.moved.take()
    }

    /// When the peer sent something last.
    pub(super) fn heard(&self) -> rt::Tick {
        self.heard.get()
    }

    fn wants_more(&self) -> bool {
        self.closing.get() || (self.inbound.borrow().is_none() && self.look(|connection| connection.end().is_none()))
    }

    fn take_outbound(&self) -> Option<Buf> {
        self.inner.borrow_mut().out.0.take()
    }
}

/// Keeps the waker of a task that waits.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    if place.as_ref().is_none_or(|kept| !kept.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

async fn pump_in(mut rd: Reader, link: Rc<Link>) {
    let mut thrown = 0;
    // What reads is boxed and goes when nothing comes: it is a third of what an idle connection would hold.
    while Box::pin(read_on(&mut rd, &link, &mut thrown)).await {
        rd.rest();
        link.inner.borrow_mut().connection.rest();
        rt::readable(&rd, None).await;
    }
    link.ended.set(true);
    link.moved.set(true);
}

/// Reads for as long as bytes keep coming; `false` when the stream has ended.
async fn read_on(rd: &mut Reader, link: &Link, thrown: &mut usize) -> bool {
    let mut class = Class::Head;
    loop {
        // The connection takes what has been read before there is more.
        poll_fn(|_| if link.wants_more() { Poll::Ready(()) } else { Poll::Pending }).await;
        let (read, buf) = rd.read_unless_quiet(Buf::new(class), rt::now() + HOT).await;
        match read {
            Ok(Some(0)) => {}
            Ok(Some(n)) if link.closing.get() => {
                *thrown += n;
                if *thrown < LINGER_LIMIT {
                    continue;
                }
            }
            Ok(Some(n)) => {
                // What comes in bulk is read in bulk.
                class = if n == buf.data().len() && buf.room() == 0 { Class::Body } else { Class::Head };
                link.heard.set(rt::now());
                *link.inbound.borrow_mut() = Some(buf);
                link.moved.set(true);
                continue;
            }
            Ok(None) => return true,
            Err(_) => {}
        }
        return false;
    }
}

async fn pump_out(mut wr: Writer, link: Rc<Link>) {
    let over = || if link.ended.get() { Poll::Ready(()) } else { Poll::Pending };
    loop {
        let next = poll_fn(|_| match link.take_outbound() {
            Some(buf) => Poll::Ready(Some(buf)),
            None if link.closing.get() => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await;
        let Some(buf) = next else { break };
        link.moved.set(true);
        let len = buf.len();
        let (written, buf) = wr.write_away(buf, len).await;
        drop(buf);
        link.moved.set(true);
        if written.is_err() {
            link.broken.set(true);
            // Ends the other direction as well.
            sys::cut(wr.fd(), Shutdown::Both);
            poll_fn(|_| over()).await;
            return;
        }
    }
    wr.finish().await;
    // The peer reads its last frames before the connection is closed under what it still sends.
    wr.deadline().arm(rt::tick_after(LINGER), Shutdown::Both);
    poll_fn(|_| over()).await;
    wr.deadline().disarm();
}

/// Holds a stream. It is reset, unless it has ended, when nobody does.
#[derive(Debug)]
#[allow(unnameable_types, reason = "what a body on its way is made of; nobody else names it")]
pub struct Handle {
    link: Rc<Link>,
    key: Key,
    /// It reads what comes: without it, nobody does.
    reads: bool,
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.link.inner.borrow_mut().connection.hold(self.key);
        Self { link: Rc::clone(&self.link), key: self.key, reads: false }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let wakers = self.link.with(|connection, out| {
            if self.reads {
                connection.ignore(self.key, out);
            }
            with_spares(|spares| connection.let_go(self.key, spares, out))
        });
        // Outside of the connection: they may be the last that hold a task.
        drop(wakers);
    }
}

impl Handle {
    /// Of a stream that is held for this.
    pub(super) fn new(link: &Rc<Link>, key: Key) -> Self {
        Self { link: Rc::clone(link), key, reads: false }
    }

    /// Another that reads what comes.
    pub(super) fn reader(&self) -> Self {
        let mut reader = self.clone();
        reader.reads = true;
        reader
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Connection<Chunk, Wakers>, Key, &mut Block) -> R) -> R {
        self.link.with(|connection, out| f(connection, self.key, out))
    }

    pub(super) fn look<R>(&self, f: impl FnOnce(&Connection<Chunk, Wakers>, Key) -> R) -> R {
        self.link.look(|connection| f(connection, self.key))
    }

    fn wait(&self, cx: &Context<'_>, which: impl FnOnce(&mut Wakers) -> &mut Option<Waker>) {
        if let Some(wakers) = self.link.inner.borrow_mut().connection.attached(self.key) {
            keep(which(wakers), cx);
        }
    }

    /// Has the task woken when more has come.
    pub(super) fn wait_for_more(&self, cx: &Context<'_>) {
        self.wait(cx, |wakers| &mut wakers.receive);
    }

    /// What comes next.
    pub(super) fn poll_incoming(&self, cx: &Context<'_>) -> Poll<Incoming> {
        match self.look(|connection, key| connection.incoming(key)) {
            Incoming::Nothing => {
                self.wait_for_more(cx);
                Poll::Pending
            }
            incoming => Poll::Ready(incoming),
        }
    }

    /// Ready when the stream has been ended before its end.
    pub(super) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        if self.look(|connection, key| connection.reset_by(key)).is_some() {
            return Poll::Ready(());
        }
        self.wait(cx, |wakers| &mut wakers.gone);
        Poll::Pending
    }

    /// Moves bytes of a body behind a buffer's window, no more than `room`; how many.
    pub(super) fn read(&self, buf: &mut Buf, room: usize) -> usize {
        self.with(|connection, key, _| {
            let data = connection.data(key);
            let taken = data.len().min(room);
            let fits = buf.push(&data[..taken]);
            debug_assert!(fits, "no more than there is room for");
            connection.consume(key, taken);
            taken
        })
    }

    /// Sends bytes as far as can be done now; how many.
    pub(super) fn offer(&self, bytes: &[u8], end: bool) -> Result<usize, Gone> {
        self.with(|connection, key, out| connection.send(key, bytes, end, out)).map_err(|_gone| Gone)
    }

    /// Has the rest sent when it can be.
    pub(super) async fn sent(&self, chunk: Chunk, from: usize, end: bool) -> Result<(), Gone> {
        // Somebody else's may be on its way.
        self.unparked().await?;
        self.with(|connection, key, _| connection.park(key, chunk, from, end));
        self.unparked().await
    }

    async fn unparked(&self) -> Result<(), Gone> {
        poll_fn(|cx| match self.look(|connection, key| connection.is_parked(key)) {
            Ok(true) => {
                self.wait(cx, |wakers| &mut wakers.send);
                Poll::Pending
            }
            Ok(false) => Poll::Ready(Ok(())),
            Err(_gone) => Poll::Ready(Err(Gone)),
        })
        .await
    }
}
