//! The client's end of a connection: one connection to an endpoint, many requests on it.
//!
//! A connection is driven by a task of its own, which ends when the connection has. Whoever has a request takes a
//! [`Slot`] on it; how many there may be is the smaller of what is configured and what the endpoint allows.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringway_core::http2::frame::{Code, DEFAULT_WINDOW};
use ringway_core::http2::{self as codec, Limits, Refusal, Role};

use super::message::{Outgoing, Section};
use super::transport::{Handle, Link, Pumps, with_spares};
use crate::buffer::Buf;
use crate::rt::{self, Deadline, Stream, Tick};

/// How a connection is used.
#[derive(Debug, Clone, Copy)]
pub struct ClientSettings {
    /// Requests at a time.
    pub max_streams: u32,
    /// Silence after which an endpoint that has requests is asked whether it is there.
    pub ping_interval: Duration,
    /// How long its answer may take.
    pub ping_timeout: Duration,
    /// `:scheme` of requests on it.
    pub scheme: &'static str,
}

/// What an endpoint may send of a head.
const HEADER_LIST: u32 = 64 << 10;

/// The connection's window, at least and at most: with room for what every stream may have waiting, answers that are not
/// read do not hold up the others.
const WINDOW: u32 = 1 << 20;
const LARGEST_WINDOW: u32 = 16 << 20;

/// Streams that an endpoint may make this side reset at once before its connection ends.
const PROVOKED_RESETS: u32 = 1024;

/// Requests at a time on a connection whose endpoint has not said how many it takes.
const UNSAID: u32 = 100;

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Client {
    link: Rc<Link>,
    life: Rc<Life>,
    settings: ClientSettings,
}

/// What a connection's driver and its users share.
#[derive(Debug, Default)]
struct Life {
    open: Cell<u32>,
    /// When the last request ended.
    idle_since: Cell<Tick>,
}

impl Client {
    /// Begins a connection on a stream that nothing has been sent on, and drives it in a task.
    pub fn start(stream: Stream, settings: ClientSettings) -> Rc<Self> {
        let (timer, fd) = (Deadline::new(stream.fd()), stream.fd());
        let limits = Limits {
            streams: 0,
            header_list: HEADER_LIST,
            stream_window: DEFAULT_WINDOW,
            window: settings.max_streams.saturating_mul(DEFAULT_WINDOW).clamp(WINDOW, LARGEST_WINDOW),
            provoked_resets: PROVOKED_RESETS,
        };
        let (link, pumps) = Link::new(stream, None, Role::Client, limits);
        let life = Rc::new(Life::default());
        life.idle_since.set(rt::now());
        let mut driver = Driver {
            link: Rc::clone(&link),
            pumps: Some(pumps),
            life: Rc::clone(&life),
            timer,
            armed: None,
            asked: None,
            settings,
            fd,
        };
        rt::spawn(async move { poll_fn(|cx| driver.poll(cx)).await });
        Rc::new(Self { link, life, settings })
    }

    /// Requests on it.
    pub fn open(&self) -> u32 {
        self.life.open.get()
    }

    /// How many it takes; `None`: no more.
    pub fn limit(&self) -> Option<u32> {
        let theirs = self.link.look(|connection| (!connection.takes_no_more()).then(|| connection.peer_streams()))?;
        Some(self.settings.max_streams.min(theirs.unwrap_or(UNSAID)))
    }

    /// It takes no more requests: it has ended, or the endpoint has said so.
    pub fn is_ended(&self) -> bool {
        self.link.look(|connection| connection.takes_no_more())
    }

    /// Since when it has had none, if it has none.
    pub fn idle_since(&self) -> Option<Tick> {
        (self.open() == 0).then(|| self.life.idle_since.get())
    }

    /// A place for a request.
    pub fn slot(self: &Rc<Self>) -> Slot {
        self.life.open.set(self.open() + 1);
        Slot(Rc::clone(self))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.with(|connection, out| connection.leave(out));
    }
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Slot(Rc<Client>);

impl Drop for Slot {
    fn drop(&mut self) {
        let life = &self.0.life;
        life.open.set(life.open.get() - 1);
        life.idle_since.set(rt::now());
    }
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint has not looked at it: it may be sent again, whatever it is (RFC 9113 section 8.7).
    Refused,
    /// The same, since the connection takes no more requests: another one does.
    GoneAway,
    /// The endpoint, or its connection, ended it.
    Reset,
    /// What came breaks the protocol.
    Malformed,
    /// The request cannot be said in HTTP/2.
    Unspeakable,
}

impl Failure {
    fn of(reset: codec::Reset) -> Self {
        match reset {
            codec::Reset::Remote(Code::REFUSED_STREAM) => Self::Refused,
            codec::Reset::GoneAway => Self::GoneAway,
            codec::Reset::Remote(_) | codec::Reset::Connection => Self::Reset,
            codec::Reset::Local(_) => Self::Malformed,
        }
    }
}

impl Slot {
    /// Whether the endpoint has said that it takes extended CONNECT (RFC 8441 section 3).
    pub fn takes_connect(&self) -> bool {
        self.0.link.look(|connection| connection.takes_connect())
    }

    /// Whether the connection has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_ended()
    }

    /// Sends a request; `head` is one of HTTP/1.1, `end`: nothing comes behind it.
    pub fn request(&self, head: &[u8], end: bool) -> Result<(Sending, Received), Failure> {
        let Client { link, settings, .. } = &*self.0;
        let sent = link.with(|connection, out| {
            with_spares(|spares| connection.request(head, settings.scheme.as_bytes(), end, spares, out))
        });
        match sent {
            Ok(key) => {
                let stream = Handle::new(link, key);
                let received = Received(stream.reader());
                Ok((Sending(stream), received))
            }
            // Nothing has been sent.
            Err(Refusal::Ending) => Err(Failure::GoneAway),
            Err(Refusal::Full) => Err(Failure::Refused),
            Err(Refusal::Unspeakable) => Err(Failure::Unspeakable),
        }
    }
}

/// A request's body on its way. Copies share one stream.
#[derive(Debug, Clone)]
pub struct Sending(Handle);

impl Outgoing for Sending {
    fn handle(&self) -> &Handle {
        &self.0
    }
}

impl Sending {
    /// Takes the request back.
    pub fn cancel(&self) {
        self.0.with(|connection, key, out| connection.reset(key, Code::CANCEL, out));
    }
}

/// An answer on its way.
#[derive(Debug)]
pub struct Received(Handle);

/// What comes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// A head: [`Received::take_head`].
    Head,
    /// Bytes of its body: [`Received::read`].
    Data,
    /// The end: [`Received::take_trailers`].
    End,
}

impl Received {
    /// What comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Failure>> {
        self.0.poll_incoming(cx).map(|incoming| match incoming {
            codec::Incoming::Head => Ok(Incoming::Head),
            codec::Incoming::Data => Ok(Incoming::Data),
            codec::Incoming::End => Ok(Incoming::End),
            codec::Incoming::Reset(reset) => Err(Failure::of(reset)),
            codec::Incoming::Nothing => Err(Failure::Reset),
        })
    }

    /// Takes a head, if one comes next.
    pub fn take_head(&mut self) -> Option<Section> {
        self.0.with(|connection, key, _| connection.take_head(key)).map(Section::new)
    }

    /// Moves bytes of the body behind a buffer's window, as many as there are and fit; how many. They count against the
    /// endpoint's windows until they are released.
    pub fn read(&mut self, buf: &mut Buf) -> usize {
        let room = buf.room();
        self.0.read(buf, room)
    }

    /// The trailer fields, as lines.
    pub fn take_trailers(&mut self) -> Vec<u8> {
        self.0.with(|connection, key, _| connection.take_trailers(key))
    }

    /// Gives the endpoint credit for bytes that have gone on.
    pub fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.0.with(|connection, key, out| connection.release(key, bytes, out));
        }
    }
}

/// What moves a connection.
struct Driver {
    link: Rc<Link>,
    pumps: Option<Pumps>,
    life: Rc<Life>,
    timer: Deadline,
    /// The tick that the timer is set for.
    armed: Option<Tick>,
    /// When the endpoint was asked whether it is there, and has not answered.
    asked: Option<Tick>,
    settings: ClientSettings,
    fd: i32,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.driven_by(cx);
        loop {
            self.link.turn();
            let request = self.link.next_request();
            debug_assert!(request.is_none(), "an endpoint asks for nothing");
            // What has been written leaves at once.
            if let Some(pumps) = &mut self.pumps
                && pumps.as_mut().poll(cx).is_ready()
            {
                self.pumps = None;
            }
            if self.pumps.is_none() {
                self.link.finish();
                return Poll::Ready(());
            }
            if !self.link.progressed() && !self.keep_alive(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Asks an endpoint that has requests and says nothing whether it is there; whether there is something to be sent.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.link.look(|connection| connection.end().is_some());
        if over || (self.life.open.get() == 0 && self.asked.is_none()) {
            return false;
        }
        if self.asked.is_some() && self.link.with(|connection, _| connection.take_pong()) {
            self.asked = None;
        }
        let after = |from: Tick, wait: Duration| from + (rt::tick_after(wait) - rt::now());
        let due = match self.asked {
            Some(asked) => after(asked, self.settings.ping_timeout),
            None => after(self.link.heard(), self.settings.ping_interval),
        };
        if rt::now() < due {
            // One look at the wheel per interval, not one per frame: an early look finds a later time.
            if self.armed.is_none_or(|armed| armed <= rt::now() || due < armed) {
                self.armed = Some(due);
                let waiting = pin!(self.timer.passed(due)).poll(cx).is_pending();
                debug_assert!(waiting, "it lies ahead");
            }
            return false;
        }
        if self.asked.take().is_some() {
            // Its connection is of no use. Whoever waits on it is told so by the end that this brings.
            self.link.with(|connection, out| connection.closed(out));
            crate::sys::reset(self.fd);
            return true;
        }
        self.asked = Some(rt::now());
        self.link.with(|connection, out| connection.ping(out));
        true
    }
}
