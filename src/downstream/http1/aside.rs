//! Requests beside the one that is forwarded: copies for mirrors, and questions that have to be answered before it may
//! go. They use the same endpoints, connections and limits.

use std::rc::Rc;
use std::time::Duration;

use ringway_core::http::Method;
use ringway_core::http1::body::{BodyDecoder, CRLF, LAST_CHUNK, chunk_header};
use ringway_core::http1::{FieldStorage, response};
use ringway_core::model::{BackendId, ClientLimits, EndpointAddress};

use super::Cx;
use super::extra::Copied;
use super::io::{Filled, Watch};
use super::origin::{Http2Origin, Origin, Source};
use super::request_body::ready_to_read;
use crate::buffer::{Buf, Class};
use crate::metrics::UpstreamError;
use crate::rt::{self, Tick};
use crate::upstream::{self, ConnectError, ConnectFailure, Connected, Link, Marks, Reuse};
use crate::worker::Generation;

/// Copies of a core that are on their way; more are not made.
const COPIES: usize = 1024;

/// How long a copy may take.
const COPY_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a request that are copied, head and body; a longer one is not.
pub(super) const COPY_LIMIT: usize = 60 << 10;

/// Connections that a question is sent on: those that were kept may turn out to be dead.
const ATTEMPTS: usize = 3;

/// A request that is asked aside.
pub(super) struct Question<'q> {
    pub(super) backend: BackendId,
    /// What makes its connection the client's, where the backend wants that.
    pub(super) marks: Marks<'q>,
    pub(super) request: &'q Copied,
    pub(super) method: Method,
    pub(super) limits: ClientLimits,
    pub(super) by: Tick,
    /// What calls it off while its answer is awaited.
    pub(super) watch: Watch<'q>,
    /// The longest body that an answer may have, unless it has a status of success. `None`: it is a copy, and what is
    /// answered does not matter.
    pub(super) body_limit: Option<usize>,
}

impl Question<'_> {
    fn is_copy(&self) -> bool {
        self.body_limit.is_none()
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    /// As it came; empty where only the status matters, as for a copy.
    pub(super) head: Vec<u8>,
    /// Without its framing.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unheard {
    /// There was no connection; the backend's counters know.
    Unconnected(ConnectError),
    /// The backend did not answer, or not as it should.
    Failed(UpstreamError),
    /// The question was called off.
    CalledOff,
}

impl From<ConnectFailure> for Unheard {
    fn from(failure: ConnectFailure) -> Self {
        match failure.error {
            ConnectError::GivenUp => Self::CalledOff,
            error => Self::Unconnected(error),
        }
    }
}

impl From<UpstreamError> for Unheard {
    fn from(error: UpstreamError) -> Self {
        Self::Failed(error)
    }
}

/// Asks. A question that met the end of a kept connection is asked again, unless it is a copy.
pub(super) async fn ask(generation: &Generation, question: &Question<'_>) -> Result<Heard, Unheard> {
    let Question { backend, marks, by, .. } = *question;
    let metrics = &generation.metrics.backends[backend.0 as usize];
    if matches!(generation.backend(backend).first_address(), Some(EndpointAddress::Echo(_))) {
        metrics.requests.inc();
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        return Ok(Heard { status: 200, head, body: Vec::new() });
    }
    let mut attempt = 1;
    loop {
        let mut dial = generation.dial(backend, None, marks, Reuse::KeptAndLookedAt, false, by);
        if let Watch::Signal(gone) = question.watch {
            dial.gone = Some(gone);
        }
        let Connected { lease, link, reused } = upstream::connect(dial).await?;
        let mut stream = None;
        let stall = by.saturating_sub(rt::now());
        let stall = Duration::from_millis(stall * 50);
        let heard = match link {
            Link::Stream(up) => {
                let up = stream.insert(up);
                up.wr.set_stall_timeout(stall);
                exchange(up, question).await
            }
            Link::Http2(slot) => exchange(&mut Http2Origin::new(slot, stall, true), question).await,
        };
        match heard {
            Ok((heard, clean)) => {
                if let Some(stream) = stream.filter(|_| clean) {
                    lease.keep(stream, marks);
                }
                return Ok(heard);
            }
            Err(Unheard::Failed(error)) => {
                metrics.error(error);
                let ended = matches!(error, UpstreamError::Eof | UpstreamError::Reset | UpstreamError::Write);
                if !(reused && ended && !question.is_copy() && attempt < ATTEMPTS && rt::now() < by) {
                    return Err(error.into());
                }
                attempt += 1;
            }
            Err(other) => return Err(other),
        }
    }
}

/// Sends a request and reads the answer; whether its connection is at a message boundary then.
async fn exchange<O: Origin>(up: &mut O, question: &Question<'_>) -> Result<(Heard, bool), Unheard> {
    let Copied { head, payload, chunked } = question.request;
    let mut buf = Buf::new(Class::Body);
    let mut fits = buf.push(head);
    if *chunked && !O::FRAMES {
        let mut room = [0; 18];
        if !payload.is_empty() {
            fits &= buf.push(chunk_header(payload.len(), &mut room)) && buf.push(payload) && buf.push(CRLF);
        }
        fits &= buf.push(LAST_CHUNK) && buf.push(CRLF);
    } else {
        fits &= buf.push(payload);
    }
    let first = buf.len();
    if !fits {
        return Err(UpstreamError::MirrorDropped.into());
    }
    let (begun, _buf) = up.begin(buf, head.len(), first, true).await;
    begun.map_err(|_refused| UpstreamError::Write)?;
    answer(up.source(), question).await
}

/// Reads the answer.
async fn answer<S: Source>(up: &mut S, question: &Question<'_>) -> Result<(Heard, bool), Unheard> {
    let Question { method, limits, body_limit, .. } = question;
    let mut buf = Buf::new(Class::Body);
    let (mut heard, mut body, alive) = loop {
        buf = more(up, buf, question).await?;
        let mut found = None;
        while found.is_none() && !buf.is_empty() {
            let mut storage = FieldStorage::new();
            let head = response::parse_response(buf.data(), &mut storage, *method, limits);
            let Some(head) = head.map_err(|_bad| UpstreamError::BadResponse)? else { break };
            let (len, status) = (head.len, head.status);
            if status == 101 {
                return Err(UpstreamError::BadResponse.into());
            }
            if status >= 200 {
                let body = if S::FRAMES { BodyDecoder::frames(head.body) } else { BodyDecoder::response(head.body) };
                let kept = if question.is_copy() { Vec::new() } else { buf.data()[..len].to_vec() };
                found = Some((Heard { status, head: kept, body: Vec::new() }, body, head.keep_alive));
            }
            buf.consume(len);
        }
        if let Some(found) = found {
            break found;
        }
        buf.compact();
        if buf.room() == 0 {
            return Err(UpstreamError::BadResponse.into());
        }
    };
    let mut length = 0;
    while !body.is_done() {
        if S::FRAMES
            && let Some(trailers) = up.take_end()
        {
            body.end_of_frames(trailers);
        }
        let decoded = body.decode(buf.data_mut()).map_err(|_bad| UpstreamError::BadResponse)?;
        length += decoded.data.len();
        if let Some(limit) = *body_limit {
            let matters = heard.status / 100 != 2;
            if length > limit {
                return if matters { Err(UpstreamError::BadResponse.into()) } else { Ok((heard, false)) };
            }
            if matters {
                heard.body.extend_from_slice(&buf.data()[decoded.data.clone()]);
            }
        }
        buf.consume(decoded.consumed);
        if decoded.done {
            break;
        }
        buf = ready_to_read(buf);
        match more(up, buf, question).await {
            Ok(filled) => buf = filled,
            Err(Unheard::Failed(UpstreamError::Eof)) if body.end_of_stream().is_ok() => return Ok((heard, false)),
            Err(error) => return Err(error),
        }
    }
    Ok((heard, alive && buf.is_empty()))
}

async fn more<S: Source>(up: &mut S, buf: Buf, question: &Question<'_>) -> Result<Buf, Unheard> {
    let (filled, buf) = up.fill(buf, question.by, question.watch).await;
    match filled {
        Filled::Data => Ok(buf),
        Filled::End => Err(UpstreamError::Eof.into()),
        Filled::CalledOff => Err(Unheard::CalledOff),
        Filled::Late => Err(UpstreamError::Timeout.into()),
        Filled::Broken | Filled::Refused | Filled::GoneAway => Err(UpstreamError::Reset.into()),
    }
}

/// Sends copies of a request to backends, and forgets their answers. Nobody waits for that.
pub(super) fn mirror(
    cx: &Cx,
    generation: &Rc<Generation>,
    backends: &[BackendId],
    method: Method,
    request: &Rc<Copied>,
) {
    for &backend in backends {
        let metrics = &generation.metrics.backends[backend.0 as usize];
        let core = Rc::clone(&cx.core);
        if core.copies.get() >= COPIES {
            metrics.error(UpstreamError::MirrorDropped);
            continue;
        }
        let wanted = generation.shared.proxy_header(backend);
        let header = wanted.map(|wanted| cx.client.header(wanted, cx.secure.as_deref(), || core.random()));
        let source = generation.shared.is_transparent(backend).then_some(cx.client.source);
        let (generation, request, limits) = (Rc::clone(generation), Rc::clone(request), cx.limits());
        core.copies.set(core.copies.get() + 1);
        let counted = Counted(core);
        let copy = async move {
            let by = rt::tick_after(COPY_TIMEOUT);
            let marks = Marks { header: header.as_deref(), source: source.as_ref() };
            let request = &*request;
            let question =
                Question { backend, marks, request, method, limits, by, watch: Watch::None, body_limit: None };
            // What it answers, or whether, is nobody's business.
            let _heard = ask(&generation, &question).await;
        };
        let copy = rt::catch_unwind(Box::pin(copy));
        rt::spawn(async move {
            if copy.await.is_err() {
                counted.0.metrics.panics.inc();
            }
            drop(counted);
        });
    }
}

/// A copy on its way.
struct Counted(Rc<crate::worker::Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get() - 1);
    }
}
