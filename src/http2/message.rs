//! One stream: a request that comes, an answer that goes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use ringway_core::http::{is_forbidden_trailer, is_token};
use ringway_core::http2::request::Pseudo;

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

/// A request's head.
#[derive(Debug)]
pub struct Head {
    parts: http::request::Parts,
    end_stream: bool,
    /// Bytes of the body, where it has come whole.
    whole: Option<u64>,
}

impl Head {
    /// What it says outside of fields.
    pub fn pseudo(&self) -> Pseudo<'_> {
        Pseudo {
            method: self.parts.method.as_str().as_bytes(),
            authority: self.parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
            path: self.parts.uri.path_and_query().map_or(&b""[..], |path| path.as_str().as_bytes()),
            protocol: self.parts.extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().as_bytes()),
            end_stream: self.end_stream,
            whole: self.whole,
        }
    }

    /// The body has come whole, without trailers, and is this long.
    pub fn body_is(&mut self, length: usize) {
        self.whole = Some(length as u64);
    }

    /// Its fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// A request's body. What it gives counts against the peer's windows until it is released.
#[derive(Debug)]
pub struct Body(pub(super) RecvStream);

impl Body {
    /// The next bytes; `None` at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        self.0.poll_data(cx).map_err(|_reset| Gone)
    }

    /// The trailer fields behind the last bytes, as lines.
    pub fn poll_trailer_lines(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Gone>> {
        let trailers = ready!(self.0.poll_trailers(cx)).map_err(|_reset| Gone)?;
        let mut lines = Vec::new();
        for (name, value) in trailers.iter().flatten() {
            put_trailer(&mut lines, name.as_str().as_bytes(), value.as_bytes());
        }
        Poll::Ready(Ok(lines))
    }

    /// Whether nothing more will come.
    pub fn is_end(&self) -> bool {
        self.0.is_end_stream()
    }

    /// Gives the peer credit for bytes that have gone on.
    pub fn release(&mut self, bytes: usize) {
        // Fails only for more than was given, which is a bug, or on a stream that is over, which needs none.
        let released = self.0.flow_control().release_capacity(bytes);
        debug_assert!(released.is_ok(), "no more than was received");
    }

    /// The trailer fields behind the last bytes, as lines.
    pub async fn trailer_lines(&mut self) -> Result<Vec<u8>, Gone> {
        poll_fn(|cx| self.poll_trailer_lines(cx)).await
    }
}

/// Bytes of a trailer section.
pub const TRAILER_LIMIT: usize = 8 << 10;

/// Trailers that must not or cannot be passed on are left out, as are those over the limit.
fn put_trailer(lines: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let passable = is_token(name) && !is_forbidden_trailer(name) && !value.iter().any(u8::is_ascii_control);
    if passable && lines.len() + name.len() + value.len() + 4 < TRAILER_LIMIT {
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
}

/// Bytes of an answer on their way: copied where they are few, and otherwise a part of the block they were read into.
#[derive(Debug)]
#[allow(unnameable_types, reason = "what the codec carries; nobody else names it")]
pub enum Chunk {
    /// A copy.
    Few(Bytes),
    /// A part of a block.
    Part(Rc<Buf>, Range<usize>),
}

/// Bytes up to which copying costs less than holding a block.
const FEW: usize = 4 << 10;

impl bytes::Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Few(bytes) => bytes.len(),
            Self::Part(_, range) => range.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Few(bytes) => bytes,
            Self::Part(buf, range) => &buf.data()[range.clone()],
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Few(bytes) => bytes.advance(n),
            Self::Part(_, range) => {
                assert!(n <= range.len(), "advanced past the end");
                range.start += n;
            }
        }
    }
}

/// The answer to a request. Copies share one stream.
#[derive(Debug, Clone)]
pub struct Respond(Rc<RefCell<Answer>>);

#[derive(Debug)]
enum Answer {
    Awaited(SendResponse<Chunk>),
    Begun(SendStream<Chunk>),
    Over,
}

impl Respond {
    /// Sends an interim answer; `head` is one of HTTP/1.1.
    pub fn interim(&self, head: &[u8]) -> Result<(), Gone> {
        match &mut *self.0.borrow_mut() {
            Answer::Awaited(respond) => respond.send_informational(response(head)?).map_err(|_error| Gone),
            Answer::Begun(_) | Answer::Over => Err(Gone),
        }
    }

    /// Sends the answer's head, one of HTTP/1.1; `end`: there is nothing behind it.
    pub fn head(&self, head: &[u8], end: bool) -> Result<(), Gone> {
        let mut answer = self.0.borrow_mut();
        let Answer::Awaited(respond) = &mut *answer else { return Err(Gone) };
        let stream = respond.send_response(response(head)?, end).map_err(|_error| Gone)?;
        *answer = Answer::Begun(stream);
        Ok(())
    }

    /// Accepts an extended CONNECT; `head` is the 101 that HTTP/1.1 would send (RFC 8441 section 5.1).
    pub fn upgraded(&self, head: &[u8]) -> Result<(), Gone> {
        let mut response = response(head)?;
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove("sec-websocket-accept");
        let mut answer = self.0.borrow_mut();
        let Answer::Awaited(respond) = &mut *answer else { return Err(Gone) };
        let stream = respond.send_response(response, false).map_err(|_error| Gone)?;
        *answer = Answer::Begun(stream);
        Ok(())
    }

    /// Resets the stream, unless it is over.
    pub fn reset(&self, reset: Reset) {
        let reason = match reset {
            Reset::Protocol => Reason::PROTOCOL_ERROR,
            Reset::Internal => Reason::INTERNAL_ERROR,
            Reset::Cancel => Reason::CANCEL,
        };
        match std::mem::replace(&mut *self.0.borrow_mut(), Answer::Over) {
            Answer::Awaited(mut respond) => respond.send_reset(reason),
            Answer::Begun(mut stream) => stream.send_reset(reason),
            Answer::Over => {}
        }
    }

    /// Ready when the peer has taken the request back.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.borrow_mut() {
            Answer::Awaited(respond) => respond.poll_reset(cx).map(|_reason| ()),
            Answer::Begun(stream) => stream.poll_reset(cx).map(|_reason| ()),
            Answer::Over => Poll::Pending,
        }
    }
}

impl Outgoing for Respond {
    fn stream<R>(&self, f: impl FnOnce(&mut SendStream<Chunk>) -> R) -> Result<R, Gone> {
        match &mut *self.0.borrow_mut() {
            Answer::Begun(stream) => Ok(f(stream)),
            Answer::Awaited(_) | Answer::Over => Err(Gone),
        }
    }
}

/// A body on its way out.
#[allow(async_fn_in_trait, reason = "of one thread")]
pub trait Outgoing {
    /// Does something with the stream, if it is there.
    #[doc(hidden)]
    fn stream<R>(&self, f: impl FnOnce(&mut SendStream<Chunk>) -> R) -> Result<R, Gone>;

    /// Sends `range` of a buffer's window as far as the peer has given credit, and waits where it has not. At most as
    /// much as `SEND_BUFFER` is on its way to the stream's connection at a time.
    async fn data(&self, buf: Buf, range: Range<usize>, end: bool) -> Result<(), Gone> {
        let few = range.len() <= FEW;
        let whole = if few {
            Whole::Few(Bytes::copy_from_slice(&buf.data()[range.clone()]))
        } else {
            Whole::Block(Rc::new(buf))
        };
        self.pour(whole, range, end).await
    }

    /// Sends a copy of bytes, as [`Outgoing::data`] does.
    async fn copy(&self, bytes: &[u8], end: bool) -> Result<(), Gone> {
        self.pour(Whole::Few(Bytes::copy_from_slice(bytes)), 0..bytes.len(), end).await
    }

    #[doc(hidden)]
    async fn pour(&self, whole: Whole, range: Range<usize>, end: bool) -> Result<(), Gone> {
        let mut left = range.clone();
        while !left.is_empty() {
            let credit = poll_fn(|cx| self.poll_credit(cx, left.len())).await?;
            let now = left.start..left.start + credit.min(left.len());
            left.start = now.end;
            let chunk = match &whole {
                Whole::Few(bytes) => Chunk::Few(bytes.slice(now.start - range.start..now.end - range.start)),
                Whole::Block(block) => Chunk::Part(Rc::clone(block), now),
            };
            self.stream(|stream| stream.send_data(chunk, end && left.is_empty()))?.map_err(|_error| Gone)?;
        }
        Ok(())
    }

    /// Ends the body.
    fn end(&self) -> Result<(), Gone> {
        self.stream(|stream| stream.send_data(Chunk::Few(Bytes::new()), true))?.map_err(|_error| Gone)
    }

    /// Ends the body with trailers, lines as in HTTP/1.1.
    fn trailers(&self, lines: &[u8]) -> Result<(), Gone> {
        let mut fields = HeaderMap::new();
        collect(lines, &mut fields)?;
        self.stream(|stream| stream.send_trailers(fields))?.map_err(|_error| Gone)
    }

    #[doc(hidden)]
    fn poll_credit(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        let polled = self.stream(|stream| {
            stream.reserve_capacity(wanted);
            loop {
                let credit = stream.capacity();
                if credit > 0 {
                    return Poll::Ready(Ok(credit));
                }
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(0)) => {}
                    Some(Ok(credit)) => return Poll::Ready(Ok(credit)),
                    Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
                }
            }
        });
        polled.unwrap_or(Poll::Ready(Err(Gone)))
    }
}

/// What a body's bytes stand in.
#[derive(Debug)]
#[allow(unnameable_types, reason = "of this trait alone")]
pub enum Whole {
    /// In a copy.
    Few(Bytes),
    /// In the block they were read into.
    Block(Rc<Buf>),
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
    pub(super) fn new(request: http::Request<RecvStream>, respond: SendResponse<Chunk>) -> Self {
        let (parts, body) = request.into_parts();
        let head = Head { parts, end_stream: body.is_end_stream(), whole: None };
        Self { head, body: Body(body), respond: Respond(Rc::new(RefCell::new(Answer::Awaited(respond)))) }
    }
}

/// A head as HTTP/1.1 writes it, which is how all answers are written here, in the codec's form.
fn response(head: &[u8]) -> Result<Response<()>, Gone> {
    // `HTTP/1.1 200 reason`
    let (line, fields) = split_line(head).ok_or(Gone)?;
    let status = line.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok()).ok_or(Gone)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    collect(fields, response.headers_mut())?;
    Ok(response)
}

/// Field lines, up to an empty one. What is about a connection of HTTP/1.1 is left out (RFC 9113 section 8.2.2).
pub(super) fn collect(mut lines: &[u8], into: &mut HeaderMap) -> Result<(), Gone> {
    while let Some((line, rest)) = split_line(lines) {
        lines = rest;
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line).ok_or(Gone)?;
        let (name, value) = (&line[..colon], ringway_core::http::trim(&line[colon + 1..]));
        let about_connection: [&[u8]; 5] =
            [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
        if about_connection.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_bad| Gone)?;
        let value = HeaderValue::from_bytes(value).map_err(|_bad| Gone)?;
        into.try_append(name, value).map_err(|_full| Gone)?;
    }
    Ok(())
}

pub(super) fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_http_1_in_http_2() {
        let head =
            b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nconnection: close\r\nx-a:  2 \r\nupgrade: x\r\n\r\nbody: x\r\n";
        let response = response(head).unwrap();
        assert_eq!(response.status(), 404);
        let fields: Vec<_> = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-a", &b"1"[..]), ("x-a", b"2")]);
        for bad in
            ["", "HTTP/1.1 404", "HTTP/1.1 40 x\r\n\r\n", "HTTP/1.1 200 x\r\na\r\n\r\n", "HTTP/1.1 200 x\r\na b: c\r\n"]
        {
            assert!(super::response(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
