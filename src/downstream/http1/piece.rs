//! Bodies, piece by piece, in place: what was read is what is sent, with heads and chunk framing laid out around it.

use std::ops::Range;

use ringway_core::http1::body::{BodyDecoder, BodyError, CRLF, LAST_CHUNK, chunk_header};

use crate::buffer::{Buf, Class};

/// What can be sent now.
#[derive(Debug)]
pub(super) struct Piece {
    /// The window's first bytes to send; 0 when there is nothing yet.
    pub(super) len: usize,
    /// The window after they were sent.
    pub(super) rest: Range<usize>,
    /// The body ends with it.
    pub(super) done: bool,
    /// Payload bytes in it.
    pub(super) payload: usize,
}

/// A head that does not fit a buffer with what follows it.
#[derive(Debug)]
pub(super) struct TooLarge;

/// Puts `head` in place of the window's first `old` bytes: right in front of what follows, or, where there is no room,
/// in another block with it.
pub(super) fn put_head(buf: &mut Buf, old: usize, head: &[u8]) -> Result<(), TooLarge> {
    let body = buf.mark() + old;
    let end = buf.mark_end();
    if let Some(start) = body.checked_sub(head.len()) {
        buf.block_mut()[start..body].copy_from_slice(head);
        buf.set_window(start..end);
        return Ok(());
    }
    let mut larger = Buf::new(Class::Body);
    if larger.push(head) && larger.push(&buf.data()[old..]) {
        *buf = larger;
        return Ok(());
    }
    Err(TooLarge)
}

/// Decodes what stands behind the window's first `head` bytes, which are to be sent as they are, and lays it out for
/// sending, in chunks if `chunked`.
///
/// The payload does not move. The chunk's header goes right in front of it and the head in front of that, over framing
/// that has been read; its end goes over framing that has been read or into the room behind the window, of which
/// `buffer::TAIL` bytes are left free by every read.
pub(super) fn next_piece(
    buf: &mut Buf,
    head: usize,
    decoder: &mut BodyDecoder,
    chunked: bool,
) -> Result<Piece, BodyError> {
    let start = buf.mark();
    let body = start + head;
    let end = buf.mark_end();
    let decoded = decoder.decode(&mut buf.block_mut()[body..end])?;
    let data = body + decoded.data.start..body + decoded.data.end;
    let rest = body + decoded.consumed..end;
    if !chunked {
        // A gap is chunk framing that ends here: the client speaks HTTP/1.0.
        let from = if data.is_empty() || data.start == body { start } else { move_head(buf, start, head, data.start) };
        buf.set_window(from..end);
        return Ok(Piece { len: head + data.len(), rest, done: decoded.done, payload: data.len() });
    }
    let mut header = [0; 18];
    let header = if data.is_empty() { &[][..] } else { chunk_header(data.len(), &mut header) };
    let data = if data.is_empty() { body..body } else { data };
    let Some(at) = data.start.checked_sub(header.len() + head) else { return Err(BodyError::NoRoom) };
    let block = buf.block_mut();
    block.copy_within(start..body, at);
    block[at + head..data.start].copy_from_slice(header);
    let mut to = data.end;
    let limit = if rest.is_empty() { block.len() } else { rest.start };
    let mut put = |bytes: &[u8]| {
        let place =
            block.get_mut(to..to + bytes.len()).filter(|_| to + bytes.len() <= limit).ok_or(BodyError::NoRoom)?;
        place.copy_from_slice(bytes);
        to += bytes.len();
        Ok::<(), BodyError>(())
    };
    if !data.is_empty() {
        put(CRLF)?;
    }
    if decoded.done {
        put(LAST_CHUNK)?;
        put(decoder.trailers())?;
        put(CRLF)?;
    }
    buf.set_window(at..to.max(rest.end));
    Ok(Piece { len: to - at, rest, done: decoded.done, payload: data.len() })
}

fn move_head(buf: &mut Buf, start: usize, head: usize, to: usize) -> usize {
    let at = to - head;
    buf.block_mut().copy_within(start..start + head, at);
    at
}
