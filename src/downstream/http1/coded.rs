//! An answer whose body is given a content coding on its way.
//!
//! Bytes are taken for as long as they come without waiting; when they do not, what has been made of them leaves at once, so
//! that events and the first part of a page are not held back.

use ringway_core::http1::body::{BodyDecoder, CRLF, LAST_CHUNK, chunk_header};
use ringway_core::http1::exchange::UpstreamFault;

use super::Cx;
use super::client::Download;
use super::forward::Answered;
use super::io::{Filled, Watch};
use super::origin::Source;
use super::piece::Piece;
use super::request_body::ready_to_read;
use crate::buffer::{Buf, Class};
use crate::compress::Encoder;
use crate::rt::{self, Tick};

/// Coded bytes that are gathered before they are sent.
const GATHERED: usize = 48 << 10;

/// A chunk's header and its end, and the last chunk with the end of its trailers.
const FRAMING: usize = 18 + CRLF.len() + LAST_CHUNK.len() + CRLF.len();

/// An answer whose head is ready and whose body is to be coded.
pub(super) struct Coded {
    /// The head stands at the front of the window, what has come of the body behind it.
    pub(super) buf: Buf,
    pub(super) head: usize,
    pub(super) body: BodyDecoder,
    pub(super) status: u16,
    /// It leaves in chunks.
    pub(super) chunked: bool,
    pub(super) encoder: Encoder,
}

/// Passes it on.
pub(super) async fn answer<S: Source, D: Download>(
    cx: &Cx,
    up: &mut S,
    down: &mut D,
    watch: Watch<'_>,
    by: Tick,
    coded: Coded,
) -> Answered {
    let Coded { mut buf, head, mut body, status, chunked, mut encoder } = coded;
    let mut out = Vec::new();
    let mut head = buf.data()[..head].to_vec();
    buf.consume(head.len());
    let idle = cx.timeouts().body_idle;
    let mut cut_off = false;
    let broken = |fault| Answered::Broken { fault, status };
    loop {
        if S::FRAMES
            && let Some(trailers) = up.take_end()
        {
            body.end_of_frames(trailers);
        }
        let mut done = cut_off;
        if !done {
            let decoded = match body.decode(buf.data_mut()) {
                Ok(decoded) => decoded,
                Err(_) if !head.is_empty() => return Answered::Failed { fault: UpstreamFault::BadBody },
                Err(_) => return broken(UpstreamFault::BadBody),
            };
            if encoder.write(&buf.data()[decoded.data], &mut out).is_err() {
                return broken(UpstreamFault::NoResources);
            }
            buf.consume(decoded.consumed);
            done = decoded.done;
        }
        if !done {
            buf = ready_to_read(buf);
            if out.len() < GATHERED {
                match up.read_now(&mut buf) {
                    Ok(Some(read)) if read > 0 => continue,
                    Ok(_) => {}
                    Err(_) => return broken(UpstreamFault::Reset),
                }
            }
        }
        let flushed = if done {
            encoder.finish(&mut out)
        } else if out.len() < GATHERED {
            encoder.flush(&mut out)
        } else {
            Ok(())
        };
        if flushed.is_err() {
            return broken(UpstreamFault::NoResources);
        }
        let mut at = 0;
        while at < out.len() || !head.is_empty() || done {
            let end = done.then(|| body.trailers());
            let (piece_buf, piece) = lay_out(&head, &out[at..], chunked, end);
            at += piece.payload;
            let last = piece.done;
            let (written, _back) = down.piece(piece_buf, head.len(), piece, &body).await;
            if written.is_err() {
                return Answered::ClientGone { status };
            }
            head.clear();
            if last {
                return Answered::Whole { status, clean: buf.is_empty() && !cut_off };
            }
        }
        out.clear();
        let (filled, back) = up.fill(buf, by.min(rt::tick_after(idle)), watch).await;
        buf = back;
        let fault = match filled {
            Filled::Data => continue,
            Filled::End if body.end_of_stream().is_ok() => {
                cut_off = true;
                continue;
            }
            Filled::End => UpstreamFault::Eof,
            Filled::CalledOff => return Answered::ClientGone { status },
            Filled::Broken | Filled::Refused | Filled::GoneAway => UpstreamFault::Reset,
            Filled::Late => UpstreamFault::Timeout,
        };
        return broken(fault);
    }
}

/// As much as fits a block: the head, and what has been coded, in chunks if so; `end` are the trailers of what ends with it.
fn lay_out(head: &[u8], coded: &[u8], chunked: bool, end: Option<&[u8]>) -> (Buf, Piece) {
    let mut buf = Buf::new(Class::Body);
    let mut put = |bytes: &[u8]| {
        let fits = buf.push(bytes);
        debug_assert!(fits, "room was reckoned with");
        buf.room()
    };
    let room = put(head).saturating_sub(FRAMING + end.map_or(0, <[u8]>::len));
    let payload = coded.len().min(room);
    let done = end.is_some() && payload == coded.len();
    if chunked {
        if payload > 0 {
            let mut header = [0; 18];
            put(chunk_header(payload, &mut header));
            put(&coded[..payload]);
            put(CRLF);
        }
        if let Some(trailers) = end.filter(|_| done) {
            for part in [LAST_CHUNK, trailers, CRLF] {
                put(part);
            }
        }
    } else {
        put(&coded[..payload]);
    }
    let rest = buf.mark_end()..buf.mark_end();
    let len = buf.len();
    (buf, Piece { len, rest, done, payload })
}
