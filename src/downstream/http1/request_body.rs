//! A request's body that had not arrived whole with its head: on its way from the client to the endpoint, piece by piece.

use std::time::Duration;

use ringway_core::grpc::web::{Base64, Malformed};
use ringway_core::http1::body::BodyDecoder;

use super::client::{Pulled, Upload};
use super::extra::Copying;
use super::origin::Sink;
use crate::buffer::{Buf, Class};
use crate::relay::{self, BODY_FROM, Passed, Patience};
use crate::rt::{Signal, Tick};

/// How the request's body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It has left whole.
    Whole,
    /// The endpoint takes no more; what it answered tells.
    Refused,
    /// The wait for more was called off: the answer is complete.
    CalledOff,
    /// The client did something wrong.
    Client(ClientFault),
}

/// What a client did wrong in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFault {
    /// It ended or broke off early.
    Cut,
    /// It did not go on.
    Late,
    /// It is malformed.
    BadBody,
    /// It is too large.
    TooLarge,
}

/// The rest of a request's body on its way.
pub(super) struct RequestBody {
    /// Finds the body's end where the client's bytes have to tell it.
    pub(super) decoder: BodyDecoder,
    /// It leaves in chunks.
    pub(super) chunked: bool,
    /// It leaves in frames: trailers are kept apart.
    pub(super) frames: bool,
    /// It comes in base64 and leaves as what that says (gRPC-Web).
    pub(super) base64: Option<Base64>,
    /// The lines of a trailer section that leaves in a frame.
    pub(super) trailers: Vec<u8>,
    /// How long the client may pause.
    pub(super) idle: Duration,
    /// Until when it has to have come.
    pub(super) by: Tick,
    /// Takes a copy of what leaves.
    pub(super) copying: Option<Box<Copying>>,
}

impl RequestBody {
    /// Sends it to its end, at most `limit` bytes of it.
    pub(super) async fn send<U: Upload, S: Sink>(
        &mut self,
        from: &mut U,
        to: &mut S,
        mut buf: Buf,
        limit: u64,
        call_off: &Signal,
    ) -> (Sent, Buf) {
        let mut total = 0;
        // What is copied to somebody else, or decoded, has to be seen.
        let mut copied = self.chunked || self.copying.is_some() || self.base64.is_some();
        loop {
            if let Some(left) = self.decoder.remaining().filter(|left| *left >= BODY_FROM && !copied && buf.is_empty())
                && let Some(from) = from.plain()
                && let Some(to) = to.plain()
            {
                drop(buf);
                let patience = Patience { by: self.by, idle: self.idle, call_off: Some(call_off) };
                let (bytes, passed) = Box::pin(relay::body(from, to, left, patience)).await;
                self.decoder.skip(bytes);
                buf = Buf::new(Class::Head);
                match passed {
                    Passed::Whole => return (Sent::Whole, buf),
                    Passed::Copy => copied = true,
                    Passed::Ended | Passed::ReadFailed => return (Sent::Client(ClientFault::Cut), buf),
                    Passed::Late => return (Sent::Client(ClientFault::Late), buf),
                    Passed::CalledOff => return (Sent::CalledOff, buf),
                    Passed::WriteFailed => return (Sent::Refused, buf),
                }
            }
            let (pulled, back) = from.pull(self, buf, call_off).await;
            buf = back;
            let mut piece = match pulled {
                Pulled::Piece(piece) => piece,
                Pulled::CalledOff => return (Sent::CalledOff, buf),
                Pulled::Fault(fault) => return (Sent::Client(fault), buf),
            };
            total += piece.payload as u64;
            if total > limit {
                return (Sent::Client(ClientFault::TooLarge), buf);
            }
            let (payload, done) = (piece.payload, piece.done);
            if let Some(base64) = &mut self.base64 {
                match base64.decode(&mut buf.data_mut()[..piece.len]) {
                    Ok(len) if !done || base64.is_whole() => piece.len = len,
                    Ok(_) | Err(Malformed) => return (Sent::Client(ClientFault::BadBody), buf),
                }
            }
            if let Some(copying) = &mut self.copying {
                copying.piece(&buf.data()[..piece.len], self.chunked);
            }
            let (written, back) = to.send(buf, piece, &self.trailers).await;
            buf = back;
            if written.is_err() {
                let sent = if call_off.is_raised() { Sent::CalledOff } else { Sent::Refused };
                return (sent, buf);
            }
            from.consumed(payload);
            if done {
                return (Sent::Whole, buf);
            }
        }
    }
}

/// A buffer with room for the next bytes of a body: a large one if there is nothing to keep.
pub(super) fn ready_to_read(mut buf: Buf) -> Buf {
    if buf.is_empty() {
        if buf.class() == Class::Body {
            buf.clear();
            return buf;
        }
        return Buf::new(Class::Body);
    }
    // An unfinished chunk header or trailer; bounded by the decoder far below a block.
    buf.compact();
    buf
}
