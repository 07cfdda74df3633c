//! HTTP/1.1 connections of clients.
//!
//! A connection that waits for a request for longer than a moment is a small task without a buffer. When bytes come,
//! a larger future is boxed that reads heads and runs exchanges for as long as they follow each other closely: one
//! allocation per burst of requests, and about a kilobyte per idle connection.

mod answer;
mod aside;
mod authorize;
mod client;
mod coded;
mod decide;
mod echo;
mod extra;
mod forward;
mod frames;
mod grpc_web;
mod http2;
mod io;
mod local;
mod origin;
mod piece;
mod request_body;
mod sessions;
mod streams;
mod tunnel;
mod websocket;

pub(super) use streams::trim;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use ringway_core::http1::HeadScanner;
use ringway_core::model::{ClientLimits, ClientTimeouts};
use rustix::net::Shutdown;

use self::authorize::Findings;
use self::decide::Decision;
use super::tls::Secure;
use super::{Client, Conn, linger};
use crate::buffer::{Buf, Class};
use crate::http2::PREFACE;
use crate::metrics::{DownstreamError, Open};
use crate::rt::{self, Stream, Tick};
use crate::snapshot::SocketId;
use crate::worker::{ClientBounds, ConnGuard, ConnState, Core};

/// A connection's fixed data and what the last request left.
struct Cx {
    core: Rc<Core>,
    socket: SocketId,
    client: Client,
    /// The client's address, as text.
    client_text: Box<str>,
    guard: ConnGuard,
    /// Of the generation that has decided last.
    bounds: RefCell<Rc<ClientBounds>>,
    /// Requests that have come.
    requests: Cell<u32>,
    /// When it was accepted.
    since: Tick,
    /// It counts as one of its listener's, in the generation that accepted it.
    _open: Open,
    /// What TLS has shown of the client.
    secure: Option<Box<Secure>>,
    /// Bytes that were read ahead of the first request.
    first: Cell<Option<Box<Buf>>>,
}

impl Cx {
    /// How long its client may take.
    fn timeouts(&self) -> ClientTimeouts {
        self.bounds.borrow().timeouts
    }

    /// How much its client may ask for.
    fn limits(&self) -> ClientLimits {
        self.bounds.borrow().limits
    }

    /// Goes by what a generation says from here on.
    fn adopt(&self, bounds: &Rc<ClientBounds>) {
        let mut kept = self.bounds.borrow_mut();
        if !Rc::ptr_eq(&kept, bounds) {
            *kept = Rc::clone(bounds);
        }
    }

    /// Whether the request that is being served is the connection's last.
    fn takes_no_more(&self) -> bool {
        let spent = self.limits().requests.is_some_and(|limit| self.requests.get() >= limit);
        spent || self.core.is_draining() || self.ends().is_some_and(|end| rt::now() >= end)
    }

    /// When it has been there for as long as it may.
    fn ends(&self) -> Option<Tick> {
        let limit = self.timeouts().connection?;
        Some(self.since + (rt::tick_after(limit) - rt::now()))
    }
}

/// What is to be done with a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Read the next request.
    KeepAlive,
    /// Close it.
    Close,
    /// Close it, but let the client read its answer first: it may still be sending.
    Linger,
}

/// Serves a connection to its end; `None` when its listener is gone.
///
/// What the connection is made of is put together before the future that serves it: an async function would keep its
/// arguments and what they were moved into, which 8,000 idle connections showed as 160 bytes each.
pub(super) fn serve(core: Rc<Core>, conn: Conn, mut stream: Stream) -> Option<impl Future<Output = ()>> {
    let generation = core.generation();
    let Some(socket) = generation.socket(conn.socket) else {
        stream.reset();
        return None;
    };
    let client = &socket.shared.client;
    let open = generation.metrics.listeners[socket.index][conn.listener].opened();
    stream.count_for(open.listener(), conn.first.as_ref().map_or(0, Buf::len));
    stream.wr.set_stall_timeout(client.timeouts.body_idle);
    let cx = Rc::new(Cx {
        socket: conn.socket,
        client_text: conn.client.ip().to_string().into(),
        client: conn.client,
        guard: conn.guard,
        bounds: RefCell::new(Rc::clone(generation.bounds(socket.index))),
        requests: Cell::new(0),
        since: rt::now(),
        _open: open,
        secure: conn.secure,
        first: Cell::new(conn.first.map(Box::new)),
        core,
    });
    // Handed on from burst to burst: in a box, of which the future holds one copy.
    let mut stream = Box::new(stream);
    Some(async move {
        let mut fresh = true;
        if cx.secure.as_ref().is_some_and(|secure| secure.alpn.as_deref() == Some("h2")) {
            Box::pin(http2::serve(Rc::clone(&cx), *stream, None)).await;
            return cx.guard.leave();
        }
        loop {
            match Box::pin(burst(&cx, stream, &mut fresh)).await {
                Burst::Quiet(back) => stream = back,
                Burst::Http2(back, first) => {
                    Box::pin(http2::serve(Rc::clone(&cx), *back, Some(*first))).await;
                    break;
                }
                Burst::Over => break,
            }
            if cx.core.generation().socket(cx.socket).is_none() {
                // Its listener was removed while it was busy.
                break;
            }
            cx.guard.set(ConnState::Idle);
            let wait = if fresh { cx.timeouts().header } else { cx.timeouts().idle };
            stream.rd.rest();
            stream.wr.rest();
            let by = rt::tick_after(wait);
            stream.rd.deadline().arm(cx.ends().map_or(by, |end| end.min(by)), Shutdown::Both);
            rt::readable(&stream.rd, None).await;
            if stream.rd.deadline().disarm() {
                if rt::now() >= by {
                    cx.core.metrics.downstream_error(DownstreamError::IdleTimeout);
                }
                break;
            }
            cx.guard.set(ConnState::Busy);
        }
        // The registry forgets a descriptor before it is closed.
        cx.guard.leave();
    })
}

enum Burst {
    /// No request is on its way.
    Quiet(Box<Stream>),
    /// The client speaks HTTP/2, which its first bytes say.
    Http2(Box<Stream>, Box<Buf>),
    /// The connection is over.
    Over,
}

/// Requests that follow each other closely. `fresh` ends with the first one.
async fn burst(cx: &Cx, mut stream: Box<Stream>, fresh: &mut bool) -> Burst {
    let mut buf = cx.first.take().map_or_else(|| Buf::new(Class::Head), |first| *first);
    loop {
        let (read, back) = read_request(cx, &mut stream, buf, *fresh).await;
        buf = back;
        *fresh &= matches!(read, Read::Quiet);
        let after = match read {
            Read::Quiet => return Burst::Quiet(stream),
            Read::Preface => return Burst::Http2(stream, Box::new(buf)),
            Read::Over => return end(cx, stream),
            Read::Request(Decision::More | Decision::Check(_) | Decision::Ask(_)) => {
                unreachable!("only what was decided is returned")
            }
            Read::Request(Decision::Answer(answer)) => {
                let (after, back) = local::answer(cx, &mut stream, buf, answer).await;
                buf = back;
                after
            }
            Read::Request(Decision::Forward(plan)) => {
                let (after, back) = client::forward(cx, &mut stream, buf, plan).await;
                buf = back;
                after
            }
        };
        match after {
            After::KeepAlive => {}
            After::Close => return end(cx, stream),
            After::Linger => {
                linger(&mut stream, buf).await;
                return end(cx, stream);
            }
        }
    }
}

/// The registry forgets a descriptor before it is closed: `cx` outlives the stream, so the entry is marked instead.
fn end(cx: &Cx, stream: Box<Stream>) -> Burst {
    cx.guard.leave();
    drop(stream);
    Burst::Over
}

#[allow(clippy::large_enum_variant, reason = "moved once per request; a box would be an allocation per request")]
enum Read {
    Request(Decision),
    /// Of HTTP/2.
    Preface,
    Quiet,
    Over,
}

/// Whether bytes begin as the preface of HTTP/2 does, which no request of HTTP/1.1 may (RFC 9113 section 3.4): by all
/// of it, or by nothing else so far.
fn is_preface(cx: &Cx, bytes: &[u8]) -> Option<bool> {
    // Who negotiates protocols by TLS has negotiated this one.
    let chosen = cx.secure.as_ref().is_some_and(|secure| secure.alpn.is_some());
    let len = bytes.len().min(PREFACE.len());
    if chosen || bytes[..len] != PREFACE[..len] {
        return Some(false);
    }
    (len == PREFACE.len()).then_some(true)
}

/// Reads until there is a whole request head and decides about it.
async fn read_request(cx: &Cx, stream: &mut Stream, mut buf: Buf, first: bool) -> (Read, Buf) {
    let mut scanner = HeadScanner::new();
    let mut by: Option<Tick> = None;
    let so_far = cx.requests.get();
    loop {
        if buf.is_empty() {
            let (read, back) = stream.rd.read_unless_quiet(buf, rt::now() + 2).await;
            buf = back;
            match read {
                Ok(Some(0)) | Err(_) => return (Read::Over, buf),
                Ok(Some(_)) => {}
                Ok(None) => return (Read::Quiet, buf),
            }
        } else {
            let preface = if first { is_preface(cx, buf.data()) } else { Some(false) };
            if preface == Some(true) {
                return (Read::Preface, buf);
            }
            if preface == Some(false) && scanner.should_parse(buf.data()) {
                cx.requests.set(so_far + 1);
                let mut findings = Findings::default();
                loop {
                    match decide::decide(cx, &mut buf, &findings) {
                        Decision::More => break,
                        Decision::Check(claim) => findings.password = Some(cx.core.passwords.check(claim).await),
                        Decision::Ask(ask) => {
                            let (there, back) = Box::pin(authorize::ask(cx, stream, buf, ask, &mut findings)).await;
                            buf = back;
                            if !there {
                                return (Read::Over, buf);
                            }
                        }
                        decision => return (Read::Request(decision), buf),
                    }
                }
            }
            if buf.room() == 0 {
                match grow(buf) {
                    Ok(larger) => buf = larger,
                    Err(full) => return (Read::Request(decide::head_too_large(cx)), full),
                }
            }
            let by = *by.get_or_insert_with(|| rt::tick_after(cx.timeouts().header));
            stream.rd.deadline().arm(by, Shutdown::Read);
            let (read, back) = stream.rd.read(buf).await;
            buf = back;
            let late = stream.rd.deadline().disarm();
            match read {
                _ if late => return (Read::Request(decide::head_too_slow(cx)), buf),
                Ok(0) | Err(_) => {
                    cx.core.metrics.downstream_error(DownstreamError::Aborted);
                    return (Read::Over, buf);
                }
                Ok(_) => {}
            }
        }
    }
}

/// More room for a head: the window moved to the front, or a larger block.
fn grow(mut buf: Buf) -> Result<Buf, Buf> {
    buf.compact();
    if buf.room() > 0 {
        return Ok(buf);
    }
    if buf.class() == Class::Body {
        return Err(buf);
    }
    let mut larger = Buf::new(Class::Body);
    let fits = larger.push(buf.data());
    debug_assert!(fits, "a larger class holds what a smaller one does");
    Ok(larger)
}
