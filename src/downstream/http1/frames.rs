//! A request's body in HTTP/2, frame by frame.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::Cx;
use super::authorize::CONTINUE;
use super::request_body::ClientFault;
use crate::http2::{Body, Gone, Respond};
use crate::rt::{self, Deadline, Tick};

/// A request's body and what has come of it.
pub(super) struct Frames {
    pub(super) body: Body,
    /// What came and did not fit.
    pub(super) ahead: Bytes,
    pub(super) ended: bool,
}

impl Frames {
    /// Nothing of which has come.
    pub(super) fn new(body: Body) -> Self {
        Self { body, ahead: Bytes::new(), ended: false }
    }

    /// Takes what has come with the head; its length, if that is the whole body.
    pub(super) fn arrived(&mut self) -> Option<usize> {
        let mut task = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(bytes))) = self.body.poll_data(&mut task) {
            self.ended = self.body.is_end();
            self.ahead = bytes;
        }
        self.whole()
    }

    /// Reads all of it, no more than `limit` bytes, which stay here.
    pub(super) async fn gather(
        &mut self,
        cx: &Cx,
        respond: &Respond,
        limit: u64,
        by: Tick,
        expects: bool,
    ) -> Result<Vec<u8>, ClientFault> {
        let mut all = std::mem::take(&mut self.ahead).to_vec();
        let mut timer = Deadline::new(cx.client.fd);
        let told = if expects && !self.ended { respond.interim(CONTINUE) } else { Ok(()) };
        let mut gathered = told.map_err(|Gone| ClientFault::Cut);
        while gathered.is_ok() && !self.ended && all.len() as u64 <= limit {
            gathered = match rt::race(poll_fn(|task| self.poll_bytes(usize::MAX, task)), timer.passed(by)).await {
                Ok(Ok(Some(bytes))) => {
                    all.extend_from_slice(&bytes);
                    Ok(())
                }
                Ok(Ok(None)) => {
                    // Trailers may still be there.
                    self.ended = self.body.is_end();
                    break;
                }
                Ok(Err(Gone)) => Err(ClientFault::Cut),
                Err(()) => Err(ClientFault::Late),
            };
        }
        timer.disarm();
        self.ahead = all.clone().into();
        gathered?;
        if all.len() as u64 > limit { Err(ClientFault::TooLarge) } else { Ok(all) }
    }

    /// Its length, if all of it is here.
    pub(super) fn whole(&self) -> Option<usize> {
        self.ended.then_some(self.ahead.len())
    }

    /// The next bytes, no more than `room`; none at the end.
    pub(super) fn poll_bytes(&mut self, room: usize, task: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Gone>> {
        if self.ahead.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match std::task::ready!(self.body.poll_data(task)) {
                Some(Ok(bytes)) => {
                    self.ended = self.body.is_end();
                    self.ahead = bytes;
                }
                Some(Err(gone)) => return Poll::Ready(Err(gone)),
                None => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
        let taken = room.min(self.ahead.len());
        Poll::Ready(Ok(Some(self.ahead.split_to(taken))))
    }
}

/// Reads past a body before it is answered here, since only what has been read can be found to be malformed; not for
/// long. False when the stream is over.
pub(super) async fn discard(cx: &Cx, frames: &mut Frames) -> bool {
    const LIMIT: usize = 256 << 10;
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut timer = Deadline::new(cx.client.fd);
    let by = rt::tick_after(PATIENCE);
    let Frames { body, ahead, .. } = frames;
    let mut read = ahead.len();
    body.release(read);
    poll_fn(|task| {
        while !body.is_end() && read < LIMIT {
            match body.poll_data(task) {
                Poll::Ready(Some(Ok(bytes))) => {
                    body.release(bytes.len());
                    read += bytes.len();
                }
                Poll::Ready(Some(Err(Gone))) => return Poll::Ready(false),
                Poll::Ready(None) => break,
                Poll::Pending if passed(&mut timer, by, task) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(true)
    })
    .await
}

/// Whether a deadline is over.
pub(super) fn passed(timer: &mut Deadline, by: Tick, task: &mut Context<'_>) -> bool {
    pin!(timer.passed(by)).poll(task).is_ready()
}
