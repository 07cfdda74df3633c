//! Asking another server whether a request may pass (filter ExternalAuth, GEP-1494).
//!
//! A decision about a request that has to be asked for is suspended as one about a password is: what is to be asked is
//! written down, asked, and then it is decided anew with what was found. Whatever goes wrong on the way, the request does
//! not pass.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_core::http::{Method, cors};
use ringway_core::http1::authorize::{self, Granted, GrantedField};
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::encode::RequestContext;
use ringway_core::http1::request::Framing;
use ringway_core::http1::{FieldStorage, response};
use ringway_core::model::{ExternalAuth, RouteId, RouteTimeouts, Target};
use rustix::net::Shutdown;

use super::aside::{self, Heard, Unheard};
use super::client::Upload;
use super::decide::{Counted, Decision, Local};
use super::extra::Copied;
use super::forward::received_by;
use super::io::{Filled, Watch, fill};
use super::request_body::ClientFault;
use super::{Cx, grow, local};
use crate::auth::Verdict;
use crate::buffer::{Buf, Class};
use crate::metrics::{Authorization, DownstreamError, UpstreamError};
use crate::rt::{self, Stream, Tick};
use crate::upstream::{ConnectError, Marks};
use crate::worker::{Generation, Held};

/// How long an answer may take, with the connection that it needs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest body of a refusal that is passed on.
const REFUSAL_LIMIT: usize = 256 << 10;

/// What asks for the body of a client that waits for that.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What has been found out about a request before it is decided about for good.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of its password.
    pub(super) password: Option<Verdict>,
    /// Its client was told to send the body.
    pub(super) continued: bool,
    /// Counts it among those that are under way, from the first decision on.
    pub(super) held: RefCell<Vec<Held>>,
    asked: Vec<Asked>,
}

/// A server that was asked.
#[derive(Debug)]
struct Asked {
    rules: Arc<ExternalAuth>,
    /// The share of the split whose filter it is.
    share: Option<usize>,
    started: Instant,
    by: Tick,
    answer: Answer,
}

/// What came of it.
#[derive(Debug)]
enum Answer {
    Passes(Vec<GrantedField>),
    Refused(Heard),
    /// Nothing: the client is told this.
    Fails(u16, DownstreamError),
}

impl Findings {
    /// Nothing has been found yet.
    pub(super) fn is_empty(&self) -> bool {
        self.password.is_none() && self.asked.is_empty()
    }

    /// The share of the split that the request goes to, where that has been settled.
    pub(super) fn share(&self) -> Option<usize> {
        self.asked.iter().rev().find_map(|asked| asked.share)
    }

    /// When the request was first decided about, and until when it may take.
    pub(super) fn begun(&self) -> Option<(Instant, Tick)> {
        self.asked.first().map(|asked| (asked.started, asked.by))
    }
}

/// What is to be asked, and what has to be known to go on afterwards.
#[derive(Debug)]
pub(super) struct Ask {
    generation: Rc<Generation>,
    route: RouteId,
    rules: Arc<ExternalAuth>,
    share: Option<usize>,
    started: Instant,
    by: Tick,
    /// The question's head, but for its end.
    head: Vec<u8>,
    method: Method,
    /// The length of the client's own head.
    pub(super) client_head: usize,
    framing: Framing,
    expects: bool,
    body_limit: u64,
}

/// Goes on with a request that passes, and says what its server adds; or else what is done about it.
#[allow(clippy::result_large_err, reason = "moved once per request; a box would be an allocation")]
pub(super) fn step<'s, 'l>(
    local: Local<'l>,
    findings: &'s Findings,
    (rules, share): (&'s Arc<ExternalAuth>, Option<usize>),
    context: &RequestContext<'_>,
    (route, timeouts): (RouteId, &RouteTimeouts),
) -> Result<(Local<'l>, Granted<'s>), Decision> {
    let (cx, head) = (local.cx, local.head);
    // What another generation's filter was told counts for nothing.
    let known = findings.asked.iter().find(|asked| Arc::ptr_eq(&asked.rules, rules) && asked.share == share);
    match known.map(|asked| &asked.answer) {
        Some(Answer::Passes(fields)) => Ok((local, Granted { names: &rules.response_headers, fields })),
        Some(Answer::Fails(status, error)) => {
            let mut local = local;
            // What was wrong with a body leaves nothing to go on with.
            local.reply.close |= status / 100 == 4;
            Err(local.error(*status, Some(*error)))
        }
        Some(Answer::Refused(heard)) => Err(refuse(local, heard)),
        None if rules.target == Target::Invalid => Err(local.error(500, Some(DownstreamError::InvalidBackend))),
        None => {
            let limit = body_limit(rules, context);
            if let Framing::Length(length) = head.body
                && rules.body_bytes > 0
                && length > limit
            {
                let mut local = local;
                local.reply.close = true;
                return Err(local.error(413, Some(DownstreamError::BodyTooLarge)));
            }
            if !rules.path.is_empty() && authorize::climbs(&head.path) {
                // The server could answer for another path than the one that is asked for.
                return Err(local.error(400, Some(DownstreamError::BadTarget)));
            }
            let mut question = Vec::with_capacity(512);
            authorize::question(head, rules, context, &mut question);
            let (started, by) =
                findings.begun().unwrap_or_else(|| (local.started, timeouts.request.map_or(Tick::MAX, rt::tick_after)));
            Err(Decision::Ask(Box::new(Ask {
                generation: cx.core.generation(),
                route,
                rules: Arc::clone(rules),
                share,
                started,
                by,
                head: question,
                method: head.method,
                client_head: head.len,
                framing: head.body,
                expects: head.expect_continue,
                body_limit: limit,
            })))
        }
    }
}

/// Bytes of a body that may go along.
fn body_limit(rules: &ExternalAuth, context: &RequestContext<'_>) -> u64 {
    context.policy.limits.body_bytes.unwrap_or(u64::MAX).min(rules.body_bytes as u64)
}

/// The answer of a server that does not let a request pass.
fn refuse(local: Local<'_>, heard: &Heard) -> Decision {
    let mut storage = FieldStorage::new();
    let limits = local.cx.limits();
    let Ok(Some(answer)) = response::parse_response(&heard.head, &mut storage, local.head.method, &limits) else {
        // The limits have changed since it came.
        return local.error(502, Some(DownstreamError::AuthUnavailable));
    };
    let lost: &[&str] = if local.shared { &cors::REPLACED } else { &[] };
    let now = local.cx.core.date();
    local.answer(heard.status, |reply, out| authorize::refusal(&answer, &heard.body, lost, reply, &now, out))
}

impl Ask {
    /// Whether the body is wanted, and not there yet or there.
    fn wants_body(&self) -> bool {
        self.rules.body_bytes > 0 && !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Asks, and adds what was found. False when the client has gone.
    async fn put(self: Box<Self>, cx: &Cx, payload: Vec<u8>, watch: Watch<'_>, findings: &mut Findings) -> bool {
        let Target::Backend(backend) = self.rules.target else { return false };
        let Self { generation, route, rules, share, started, by, mut head, method, .. } = *self;
        authorize::end_question(payload.len(), &mut head);
        let counters = &generation.metrics.routes[route.0 as usize].authorizations;
        let fits = head.len() + payload.len() <= Class::Body.capacity();
        let heard = if fits {
            let wanted = generation.shared.proxy_header(backend);
            let header = wanted.map(|wanted| cx.client.header(wanted, cx.secure.as_deref(), || cx.core.random()));
            let source = generation.shared.is_transparent(backend).then_some(&cx.client.source);
            let request = Copied { head, payload, chunked: false };
            let question = aside::Question {
                backend,
                marks: Marks { header: header.as_deref(), source },
                request: &request,
                method,
                limits: cx.limits(),
                by: by.min(rt::tick_after(TIMEOUT)),
                watch,
                body_limit: Some(REFUSAL_LIMIT),
            };
            Some(aside::ask(&generation, &question).await)
        } else {
            None
        };
        let (answer, counted) = match heard {
            Some(Ok(heard)) if authorize::passes(heard.status) => match fields_of(cx, &heard, &rules, method) {
                Some(fields) => (Answer::Passes(fields), Authorization::Allowed),
                None => (Answer::Fails(502, DownstreamError::AuthUnavailable), Authorization::Error),
            },
            Some(Ok(heard)) => (Answer::Refused(heard), Authorization::Denied),
            Some(Err(Unheard::CalledOff)) => {
                cx.core.metrics.downstream_error(DownstreamError::Aborted);
                local::count(cx, &Counted { generation, route, started }, 0);
                return false;
            }
            Some(Err(why)) => (Answer::Fails(status_of(why), DownstreamError::AuthUnavailable), Authorization::Error),
            None => (Answer::Fails(431, DownstreamError::HeadTooLarge), Authorization::Error),
        };
        counters[counted as usize].inc();
        findings.asked.push(Asked { rules, share, started, by, answer });
        true
    }

    /// There is nothing to ask: the body is not as it should be.
    fn fail(self, cx: &Cx, fault: ClientFault, findings: &mut Findings) -> bool {
        let (status, error) = match fault {
            ClientFault::Cut => {
                cx.core.metrics.downstream_error(DownstreamError::BodyCut);
                let Self { generation, route, started, .. } = self;
                local::count(cx, &Counted { generation, route, started }, 0);
                return false;
            }
            ClientFault::Late => (408, DownstreamError::BodyTimeout),
            ClientFault::BadBody => (400, DownstreamError::BadChunk),
            ClientFault::TooLarge => (413, DownstreamError::BodyTooLarge),
        };
        let Self { rules, share, started, by, .. } = self;
        findings.asked.push(Asked { rules, share, started, by, answer: Answer::Fails(status, error) });
        true
    }
}

fn fields_of(cx: &Cx, heard: &Heard, rules: &ExternalAuth, method: Method) -> Option<Vec<GrantedField>> {
    let mut storage = FieldStorage::new();
    let answer = response::parse_response(&heard.head, &mut storage, method, &cx.limits()).ok()??;
    Some(authorize::granted(&answer, rules))
}

/// What a client is told of a server that does not answer.
fn status_of(why: Unheard) -> u16 {
    match why {
        Unheard::Unconnected(ConnectError::Timeout) | Unheard::Failed(UpstreamError::Timeout) => 504,
        Unheard::Unconnected(ConnectError::NoEndpoint | ConnectError::Overflow | ConnectError::PendingTimeout) => 503,
        Unheard::Unconnected(_) | Unheard::Failed(_) | Unheard::CalledOff => 502,
    }
}

/// Asks about a request of HTTP/1.1, whose head stands at the front of the buffer's window with what has come of its body.
/// False when the client has gone.
pub(super) async fn ask(
    cx: &Cx,
    stream: &mut Stream,
    mut buf: Buf,
    ask: Box<Ask>,
    findings: &mut Findings,
) -> (bool, Buf) {
    let mut payload = Vec::new();
    if ask.wants_body() {
        let (gathered, back) = gather(cx, stream, buf, &ask, findings).await;
        buf = back;
        match gathered {
            Ok(body) => payload = body,
            Err(fault) => return (ask.fail(cx, fault, findings), buf),
        }
    }
    let there = ask.put(cx, payload, stream.rd.watch(), findings).await;
    (there, buf)
}

/// Reads until the body is whole behind the head, and leaves it there.
async fn gather(
    cx: &Cx,
    stream: &mut Stream,
    mut buf: Buf,
    ask: &Ask,
    findings: &mut Findings,
) -> (Result<Vec<u8>, ClientFault>, Buf) {
    let received_by = received_by(cx, ask.started);
    let mut gathered = Gathered::new(ask.framing);
    loop {
        match gathered.take(&buf.data()[ask.client_head..], ask.body_limit) {
            Ok(false) => {}
            Ok(true) => return (Ok(gathered.body), buf),
            Err(fault) => return (Err(fault), buf),
        }
        if buf.room() == 0 {
            match grow(buf) {
                Ok(larger) => buf = larger,
                Err(full) => return (Err(ClientFault::TooLarge), full),
            }
        }
        if ask.expects && !findings.continued {
            findings.continued = true;
            let mut told = Buf::new(Class::Head);
            let fits = told.push(CONTINUE);
            debug_assert!(fits, "a line fits a block");
            if stream.wr.write_all(told, CONTINUE.len()).await.0.is_err() {
                return (Err(ClientFault::Cut), buf);
            }
        }
        let by = rt::tick_after(cx.timeouts().body_idle).min(ask.by).min(received_by);
        let (filled, back) = fill(&mut stream.rd, buf, by, Shutdown::Read, Watch::None).await;
        buf = back;
        match filled {
            Filled::Data => {}
            Filled::Late => return (Err(ClientFault::Late), buf),
            _ => return (Err(ClientFault::Cut), buf),
        }
    }
}

/// A body that is read beside the bytes that it stands in, each of them once.
struct Gathered {
    decoder: BodyDecoder,
    /// Bytes that have been decoded.
    seen: usize,
    body: Vec<u8>,
}

impl Gathered {
    fn new(framing: Framing) -> Self {
        Self { decoder: BodyDecoder::request(framing), seen: 0, body: Vec::new() }
    }

    /// Decodes what is new of `bytes`, which begin with what was there before. True once the body is whole.
    fn take(&mut self, bytes: &[u8], limit: u64) -> Result<bool, ClientFault> {
        // Decoding closes the gaps between chunks, and what stands in the buffer is to leave as it has come.
        let from = self.body.len();
        self.body.extend_from_slice(&bytes[self.seen..]);
        let decoded = self.decoder.decode(&mut self.body[from..]).map_err(|_bad| ClientFault::BadBody)?;
        self.seen += decoded.consumed;
        self.body.truncate(from + decoded.data.end);
        self.body.drain(from..from + decoded.data.start);
        if self.body.len() as u64 > limit { Err(ClientFault::TooLarge) } else { Ok(decoded.done) }
    }
}

/// Asks about a request of HTTP/2, of whose body `gather` reads as many bytes as it is told, if that is all of it. False when
/// the client has gone.
pub(super) async fn ask_stream(
    cx: &Cx,
    ask: Box<Ask>,
    gone: &rt::Signal,
    findings: &mut Findings,
    gather: impl AsyncFnOnce(u64, Tick, bool) -> Result<Vec<u8>, ClientFault>,
) -> bool {
    let mut payload = Vec::new();
    if ask.wants_body() {
        findings.continued |= ask.expects;
        let by = rt::tick_after(cx.timeouts().body_idle).min(ask.by).min(received_by(cx, ask.started));
        match gather(ask.body_limit, by, ask.expects).await {
            Ok(body) => payload = body,
            Err(fault) => return ask.fail(cx, fault, findings),
        }
    }
    ask.put(cx, payload, Watch::Signal(gone), findings).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_body_is_decoded_once() {
        let bytes = b"3\r\ngoo\r\n1;x=y\r\nd\r\n0\r\nX-Trailer: t\r\n\r\nGET /next";
        let whole = bytes.len() - "GET /next".len();
        for step in 1..bytes.len() {
            let mut gathered = Gathered::new(Framing::Chunked);
            let mut come = 0;
            while come < whole {
                let known = gathered.seen;
                assert_eq!(known, come, "nothing is left to be decoded again");
                come = (come + step).min(bytes.len());
                assert_eq!(gathered.take(&bytes[..come], 4).unwrap(), come >= whole);
            }
            assert_eq!((gathered.body.as_slice(), gathered.seen), (&b"good"[..], whole));
        }
        let mut short = Gathered::new(Framing::Chunked);
        assert_eq!(short.take(bytes, 3), Err(ClientFault::TooLarge));
        let mut known = Gathered::new(Framing::Length(4));
        assert_eq!(known.take(b"go", 4), Ok(false));
        assert_eq!(known.take(b"goodGET", 4), Ok(true));
        assert_eq!(known.body, b"good");
    }
}
