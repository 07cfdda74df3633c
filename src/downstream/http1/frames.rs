//! A request's body in HTTP/2, where it is not simply passed on.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Cx;
use super::authorize::CONTINUE;
use super::request_body::ClientFault;
use crate::http2::{Body, Gone, Respond};
use crate::rt::{self, Deadline, Tick};

/// Waits for all of a body, no more than `limit` bytes, which stay where they are; a copy of it. `expects`: its client
/// waits to be asked for it.
pub(super) async fn gather(
    cx: &Cx,
    body: &mut Body,
    respond: &Respond,
    limit: u64,
    by: Tick,
    expects: bool,
) -> Result<Vec<u8>, ClientFault> {
    if expects && body.whole().is_none() {
        respond.interim(CONTINUE).map_err(|Gone| ClientFault::Cut)?;
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut timer = Deadline::new(cx.client.fd);
    let gathered = rt::race(poll_fn(|task| body.poll_copy(task, limit)), timer.passed(by)).await;
    timer.disarm();
    match gathered {
        Ok(Ok(all)) if all.len() > limit => Err(ClientFault::TooLarge),
        Ok(Ok(all)) => Ok(all),
        Ok(Err(Gone)) => Err(ClientFault::Cut),
        Err(()) => Err(ClientFault::Late),
    }
}

/// Reads past a body before it is answered here, since only what has been read can be found to be malformed; not for
/// long. False when the stream is over.
pub(super) async fn discard(cx: &Cx, body: &mut Body) -> bool {
    const LIMIT: usize = 256 << 10;
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut timer = Deadline::new(cx.client.fd);
    let by = rt::tick_after(PATIENCE);
    let mut read = 0;
    poll_fn(|task| {
        while !body.is_end() && read < LIMIT {
            match body.poll_ready(task) {
                Poll::Ready(Ok(true)) => read += body.skip(),
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(Gone)) => return Poll::Ready(false),
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
