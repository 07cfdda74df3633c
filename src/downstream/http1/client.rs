//! A client's side of an exchange: what [`forward()`](super::forward::forward) asks of it, and how HTTP/1.1 does it.

use std::io;
use std::time::Duration;

use ringway_core::grpc::Call;
use ringway_core::http1::body::{BodyDecoder, BodyError};
use ringway_core::http1::exchange;
use ringway_core::http1::request::Framing;
use rustix::net::Shutdown;

use super::decide::Plan;
use super::forward::{self, Outcome, Upgraded};
use super::io::{Filled, Watch, fill};
use super::origin::Origin;
use super::piece::{Piece, next_piece};
use super::request_body::{ClientFault, RequestBody, ready_to_read};
use super::{After, Cx, local, tunnel};
use crate::buffer::{Buf, Class};
use crate::relay;
use crate::rt::{self, Reader, Signal, Stream, Writer};
use crate::worker::Held;

/// A client that has made a request.
pub(super) trait Requester {
    /// Where its body comes from.
    type Upload: Upload;
    /// Where its answer goes.
    type Download: Download;

    /// How much of the window leaves with the head that stands at its front: body bytes that have arrived, if they may.
    fn first(&mut self, buf: &mut Buf, plan: &mut Plan) -> Result<usize, BodyError>;

    /// Both directions.
    fn parts(&mut self) -> Parts<'_, Self::Upload, Self::Download>;

    /// Where the rest of an exchange is held that not every one comes to.
    fn held<F: Future>(rest: F) -> impl Future<Output = F::Output>;
}

/// A client's two directions.
pub(super) struct Parts<'c, U, D> {
    pub(super) upload: &'c mut U,
    pub(super) download: &'c mut D,
    /// Raised when the client takes its request back, where its version of HTTP has a way to say so.
    pub(super) gone: Option<&'c Signal>,
}

/// What came of a request's body.
pub(super) enum Pulled {
    /// Something to send, or the end.
    Piece(Piece),
    /// The wait was called off.
    CalledOff,
    /// Nothing more will come.
    Fault(ClientFault),
}

/// The source of a request's body.
pub(super) trait Upload {
    /// What to watch while an answer is awaited and nothing is read from here.
    fn watch(&self) -> Watch<'_>;

    /// The next piece, laid out at the front of the window as it goes upstream.
    async fn pull(&mut self, body: &mut RequestBody, buf: Buf, call_off: &Signal) -> (Pulled, Buf);

    /// That much payload has gone upstream.
    fn consumed(&mut self, payload: usize);

    /// What the body's bytes come from just as they go upstream, where there is such a thing.
    fn plain(&mut self) -> Option<&mut Reader> {
        None
    }
}

/// Where an answer goes. Heads are as HTTP/1.1 writes them.
pub(super) trait Download {
    /// Passes the interim head that is the window's first `head` bytes on and takes it off.
    async fn interim(&mut self, buf: Buf, head: usize) -> (io::Result<()>, Buf);

    /// Passes a piece on, of which the first `head` bytes are the answer's head. The window is the piece's rest then.
    async fn piece(&mut self, buf: Buf, head: usize, piece: Piece, body: &BodyDecoder) -> (io::Result<()>, Buf);

    /// Ends a body that was delimited by the end of the endpoint's connection.
    async fn end(&mut self, chunked: bool) -> io::Result<()>;

    /// What an answer's bytes go to just as they come, where there is such a thing.
    fn plain(&mut self) -> Option<&mut Writer> {
        None
    }
}

impl Requester for Stream {
    type Upload = Reader;
    type Download = Writer;

    /// Everything that has arrived, unless it comes in chunks or waits for the endpoint to ask for it.
    fn first(&mut self, buf: &mut Buf, plan: &mut Plan) -> Result<usize, BodyError> {
        let head = plan.head;
        if plan.web.is_some_and(|web| web.call == Call::WebText) {
            // It is decoded on its way.
            return Ok(head);
        }
        if plan.chunked {
            // Chunks leave one by one, but what has arrived of them is judged before anything goes upstream.
            let mut arrived = buf.data()[head..].to_vec();
            BodyDecoder::request(Framing::Chunked).decode(&mut arrived)?;
        }
        if plan.chunked || plan.expect_continue {
            return Ok(head);
        }
        let decoded = plan.body.decode(&mut buf.data_mut()[head..])?;
        Ok(head + decoded.consumed)
    }

    fn parts(&mut self) -> Parts<'_, Reader, Writer> {
        Parts { upload: &mut self.rd, download: &mut self.wr, gone: None }
    }

    /// Apart: most exchanges of HTTP/1.1 are with endpoints that speak it as well, and are no larger for the others.
    fn held<F: Future>(rest: F) -> impl Future<Output = F::Output> {
        Box::pin(rest)
    }
}

impl Upload for Reader {
    fn watch(&self) -> Watch<'_> {
        Watch::Peer(self, self.fd())
    }

    async fn pull(&mut self, body: &mut RequestBody, mut buf: Buf, call_off: &Signal) -> (Pulled, Buf) {
        loop {
            let Ok(piece) = next_piece(&mut buf, 0, &mut body.decoder, body.chunked) else {
                return (Pulled::Fault(ClientFault::BadBody), buf);
            };
            if piece.len > 0 || piece.done {
                if piece.done && body.frames {
                    body.trailers = body.decoder.trailers().to_vec();
                }
                return (Pulled::Piece(piece), buf);
            }
            buf.set_window(piece.rest);
            buf = ready_to_read(buf);
            let by = rt::tick_after(body.idle).min(body.by);
            let (filled, back) = fill(self, buf, by, Shutdown::Read, Watch::Signal(call_off)).await;
            buf = back;
            match filled {
                Filled::Data => {}
                Filled::End | Filled::Broken | Filled::Refused | Filled::GoneAway => {
                    return (Pulled::Fault(ClientFault::Cut), buf);
                }
                Filled::Late => return (Pulled::Fault(ClientFault::Late), buf),
                Filled::CalledOff => return (Pulled::CalledOff, buf),
            }
        }
    }

    fn consumed(&mut self, _payload: usize) {}

    fn plain(&mut self) -> Option<&mut Reader> {
        self.splice_fd().is_some().then_some(self)
    }
}

impl Download for Writer {
    async fn interim(&mut self, buf: Buf, head: usize) -> (io::Result<()>, Buf) {
        self.write_all(buf, head).await
    }

    async fn piece(&mut self, mut buf: Buf, _head: usize, piece: Piece, _body: &BodyDecoder) -> (io::Result<()>, Buf) {
        let mut written = Ok(());
        if piece.len > 0 {
            (written, buf) = self.write_away(buf, piece.len).await;
        }
        if written.is_ok() {
            buf.set_window(piece.rest);
        }
        (written, buf)
    }

    async fn end(&mut self, chunked: bool) -> io::Result<()> {
        if chunked { local::last_chunk(self).await } else { Ok(()) }
    }

    fn plain(&mut self) -> Option<&mut Writer> {
        self.splice_fd().is_some().then_some(self)
    }
}

/// Moves the bytes of another protocol.
async fn upgraded(
    down: &mut Stream,
    up: Upgraded,
    from_down: Buf,
    from_up: Buf,
    idle: Duration,
    // It is under way for as long as the other protocol is spoken.
    _held: Vec<Held>,
) {
    match up {
        Upgraded::Stream(mut up) => {
            let first = Some(Box::new([Some(from_down), Some(from_up)]));
            relay::relay(down, &mut up, first, idle, None).await;
        }
        Upgraded::Http2(mut up) => tunnel::tunnel(Origin::parts(down), up.parts(), from_down, from_up, idle).await,
    }
}

/// Forwards a request of HTTP/1.1 and answers it where nobody else has.
pub(super) async fn forward(cx: &Cx, down: &mut Stream, buf: Buf, mut plan: Plan) -> (After, Buf) {
    let (outcome, mut buf) = forward::forward(cx, down, buf, &mut plan).await;
    match outcome {
        Outcome::Whole { downstream, sent } => {
            let after = match downstream {
                exchange::After::Reuse if sent => After::KeepAlive,
                exchange::After::Close if sent => After::Close,
                _ => After::Linger,
            };
            (after, buf)
        }
        Outcome::Tunnel { up, from_up, lease } => {
            let idle = cx.timeouts().stream_idle;
            let held = plan.held();
            drop(plan);
            let from_down = std::mem::replace(&mut buf, Buf::new(Class::Head));
            Box::pin(upgraded(down, up, from_down, from_up, idle, held)).await;
            drop(lease);
            (After::Close, buf)
        }
        Outcome::Upstream { status } => local::upstream_fault(cx, down, buf, status, &plan).await,
        Outcome::Body { status, error } => local::client_fault(cx, down, buf, status, error, &plan).await,
        Outcome::Cut => {
            // The client must not take what it has for a whole answer.
            down.reset();
            (After::Close, buf)
        }
        Outcome::Gone => (After::Close, buf),
    }
}
