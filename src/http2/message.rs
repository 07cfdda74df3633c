//! One stream: a request that comes, an answer that goes.

use std::future::poll_fn;
use std::ops::{Deref, Range};
use std::task::{Context, Poll, ready};

use ringway_core::http2::frame::Code;
use ringway_core::http2::request::Pseudo;
use ringway_core::http2::{Fields, Incoming, PseudoField};

use super::transport::{Chunk, Handle, with_spares};
use crate::buffer::Buf;

/// The stream or its connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Why a stream is reset (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The request is malformed.
    Protocol,
    /// The answer broke off.
    Internal,
    /// It is not wanted any more.
    Cancel,
}

/// Fields whose memory is kept for others.
#[derive(Debug)]
pub struct Section(
    /// Present until drop.
    Option<Box<Fields>>,
);

impl Section {
    pub(super) fn new(fields: Box<Fields>) -> Self {
        Self(Some(fields))
    }
}

impl Deref for Section {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        self.0.as_ref().expect("present until drop")
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        if let Some(fields) = self.0.take() {
            with_spares(|spares| spares.put_fields(fields));
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub struct Head {
    fields: Section,
    end_stream: bool,
    /// Bytes of the body, where it has come whole.
    whole: Option<u64>,
}

impl Head {
    pub(super) fn new(fields: Box<Fields>, end_stream: bool) -> Self {
        Self { fields: Section::new(fields), end_stream, whole: None }
    }

    /// What it says outside of fields.
    pub fn pseudo(&self) -> Pseudo<'_> {
        let said = |field| self.fields.pseudo(field);
        Pseudo {
            method: said(PseudoField::Method).unwrap_or_default(),
            authority: said(PseudoField::Authority),
            path: said(PseudoField::Path).unwrap_or_default(),
            protocol: said(PseudoField::Protocol),
            end_stream: self.end_stream,
            whole: self.whole,
        }
    }

    /// The body has come whole, without trailers, and is this long.
    pub fn body_is(&mut self, length: usize) {
        self.whole = Some(length as u64);
    }

    /// Its fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }
}

/// A request's body. What it gives counts against the peer's windows until it is released.
#[derive(Debug)]
pub struct Body(Handle);

impl Body {
    /// Waits for bytes and moves them behind a buffer's window, no more than `room`; how many, none at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut Buf, room: usize) -> Poll<Result<usize, Gone>> {
        match ready!(self.0.poll_incoming(cx)) {
            Incoming::Data => Poll::Ready(Ok(self.0.read(buf, room))),
            Incoming::End => Poll::Ready(Ok(0)),
            Incoming::Nothing | Incoming::Head | Incoming::Reset(_) => Poll::Ready(Err(Gone)),
        }
    }

    /// Moves what has come behind a buffer's window, as far as it fits; how much that is.
    pub fn read(&mut self, buf: &mut Buf) -> usize {
        let room = buf.room();
        self.0.read(buf, room)
    }

    /// Waits for bytes; false at the end.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Gone>> {
        match ready!(self.0.poll_incoming(cx)) {
            Incoming::Data => Poll::Ready(Ok(true)),
            Incoming::End => Poll::Ready(Ok(false)),
            Incoming::Nothing | Incoming::Head | Incoming::Reset(_) => Poll::Ready(Err(Gone)),
        }
    }

    /// Waits until all of it has come, or more than `limit` bytes: a copy of what has, which stays here to be read.
    pub fn poll_copy(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Vec<u8>, Gone>> {
        let found = self.0.look(|connection, key| {
            let data = connection.data(key);
            if connection.has_ended(key) || data.len() > limit {
                return Some(Ok(data.to_vec()));
            }
            connection.reset_by(key).map(|_reset| Err(Gone))
        });
        match found {
            Some(found) => Poll::Ready(found),
            None => {
                // Bodies that are awaited whole must not wait for each other's credit.
                self.0.with(|connection, key, out| connection.lend(key, out));
                self.0.wait_for_more(cx);
                Poll::Pending
            }
        }
    }

    /// Throws away what has come, and gives credit for it; how much that was.
    pub fn skip(&mut self) -> usize {
        self.0.with(|connection, key, out| {
            let bytes = connection.data(key).len();
            connection.consume(key, bytes);
            connection.release(key, bytes, out);
            bytes
        })
    }

    /// The trailer fields behind the last bytes, as lines.
    pub fn poll_trailer_lines(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Gone>> {
        match ready!(self.0.poll_incoming(cx)) {
            Incoming::End => Poll::Ready(Ok(self.0.with(|connection, key, _| connection.take_trailers(key)))),
            _ => Poll::Ready(Err(Gone)),
        }
    }

    /// How long the body is, if all of it has come, without trailers.
    pub fn whole(&self) -> Option<usize> {
        self.0.look(|connection, key| connection.whole(key))
    }

    /// Whether nothing more will come.
    pub fn is_end(&self) -> bool {
        self.0.look(|connection, key| connection.is_end(key))
    }

    /// Gives the peer credit for bytes that have gone on.
    pub fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.0.with(|connection, key, out| connection.release(key, bytes, out));
        }
    }

    /// The trailer fields behind the last bytes, as lines.
    pub async fn trailer_lines(&mut self) -> Result<Vec<u8>, Gone> {
        poll_fn(|cx| self.poll_trailer_lines(cx)).await
    }
}

/// The answer to a request. Copies share one stream.
#[derive(Debug, Clone)]
pub struct Respond(Handle);

impl Respond {
    /// Sends an interim answer; `head` is one of HTTP/1.1.
    pub fn interim(&self, head: &[u8]) -> Result<(), Gone> {
        self.0.with(|connection, key, out| connection.interim(key, head, out)).map_err(|_gone| Gone)
    }

    /// Sends the answer's head, one of HTTP/1.1; `end`: there is nothing behind it.
    pub fn head(&self, head: &[u8], end: bool) -> Result<(), Gone> {
        self.0.with(|connection, key, out| connection.respond(key, head, end, out)).map_err(|_gone| Gone)
    }

    /// Accepts an extended CONNECT; `head` is the 101 that HTTP/1.1 would send (RFC 8441 section 5.1).
    pub fn upgraded(&self, head: &[u8]) -> Result<(), Gone> {
        self.0.with(|connection, key, out| connection.accept(key, head, out)).map_err(|_gone| Gone)
    }

    /// Resets the stream, unless it is over.
    pub fn reset(&self, reset: Reset) {
        let code = match reset {
            Reset::Protocol => Code::PROTOCOL_ERROR,
            Reset::Internal => Code::INTERNAL_ERROR,
            Reset::Cancel => Code::CANCEL,
        };
        self.0.with(|connection, key, out| connection.reset(key, code, out));
    }

    /// Ready when the peer has taken the request back.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_gone(cx)
    }
}

impl Outgoing for Respond {
    fn handle(&self) -> &Handle {
        &self.0
    }
}

/// A body on its way out.
#[allow(async_fn_in_trait, reason = "of one thread")]
pub trait Outgoing {
    /// Its stream.
    #[doc(hidden)]
    fn handle(&self) -> &Handle;

    /// Sends bytes as far as the peer has given credit and the connection has room, without waiting; how many.
    fn offer(&self, bytes: &[u8], end: bool) -> Result<usize, Gone> {
        self.handle().offer(bytes, end)
    }

    /// Sends `range` of a buffer's window, and waits for credit and room. It is held until all of it has been written.
    async fn data(&self, buf: Buf, range: Range<usize>, end: bool) -> Result<(), Gone> {
        let sent = self.offer(&buf.data()[range.clone()], end)?;
        if sent == range.len() {
            return Ok(());
        }
        self.handle().sent(Chunk::Part(buf, range), sent, end).await
    }

    /// Sends a copy of bytes, as [`Outgoing::data`] does.
    async fn copy(&self, bytes: &[u8], end: bool) -> Result<(), Gone> {
        let sent = self.offer(bytes, end)?;
        if sent == bytes.len() {
            return Ok(());
        }
        self.handle().sent(Chunk::Copy(bytes[sent..].to_vec()), 0, end).await
    }

    /// Ends the body.
    fn end(&self) -> Result<(), Gone> {
        self.handle().with(|connection, key, out| connection.finish(key, out)).map_err(|_gone| Gone)
    }

    /// Ends the body with trailers, lines as in HTTP/1.1.
    fn trailers(&self, lines: &[u8]) -> Result<(), Gone> {
        self.handle().with(|connection, key, out| connection.send_trailers(key, lines, out)).map_err(|_gone| Gone)
    }
}

/// A request with its stream.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub head: Head,
    /// What comes behind it.
    pub body: Body,
    /// Where the answer goes.
    pub respond: Respond,
}

impl Request {
    pub(super) fn new(head: Head, stream: Handle) -> Self {
        Self { head, body: Body(stream.reader()), respond: Respond(stream) }
    }
}
