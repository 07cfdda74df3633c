//! From the bytes of a head to what is done about it, in one step without a suspension point: parse, route, choose,
//! and write the head that goes upstream in place of the one that came.

use std::rc::Rc;
use std::time::Instant;

use ringway_core::http::Method;
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::encode::{self, ErrorContext, RequestContext};
use ringway_core::http1::exchange::Exchange;
use ringway_core::http1::request::{self, FieldStorage, Framing, RequestError, RequestHead};
use ringway_core::model::{Action, BackendId, EndpointAddress, RouteId, Target};
use ringway_core::route::{FieldLookup, Found, RequestKey};

use super::{Cx, local, piece};
use crate::buffer::{Buf, Class};
use crate::metrics::{DownstreamError, UpstreamError};
use crate::rt::{self, Tick};
use crate::worker::Generation;

/// What is done about a request.
pub(super) enum Decision {
    /// The head is not whole yet.
    More,
    /// It is answered here.
    Answer(Answer),
    /// It goes upstream; the head that is sent stands at the front of the buffer's window.
    Forward(Plan),
}

/// A request that is answered here.
pub(super) struct Answer {
    /// The answer's head and body.
    pub(super) bytes: Buf,
    /// Its status, for the counters.
    pub(super) status: u16,
    /// What it is counted under.
    pub(super) counted: Option<Counted>,
    /// The request's body, at the front of the window, which has to be read past for the next request.
    pub(super) body: Option<BodyDecoder>,
    /// The connection cannot be used further.
    pub(super) close: bool,
    /// 100 (Continue) has to be sent first.
    pub(super) proceed: bool,
}

/// What a finished request is counted under.
pub(super) struct Counted {
    pub(super) generation: Rc<Generation>,
    pub(super) route: RouteId,
    pub(super) started: Instant,
}

/// A request that goes upstream.
pub(super) struct Plan {
    pub(super) counted: Counted,
    pub(super) socket: usize,
    pub(super) rule: usize,
    pub(super) backend: BackendId,
    pub(super) exchange: Exchange,
    pub(super) method: Method,
    /// Decodes the body that comes.
    pub(super) body: BodyDecoder,
    /// The body leaves in chunks.
    pub(super) chunked: bool,
    /// Length of the head at the front of the window.
    pub(super) head: usize,
    /// Until when the whole exchange may take.
    pub(super) by: Tick,
    /// How long one request to a backend may take.
    pub(super) backend_request: Option<std::time::Duration>,
    /// A kept connection has to be proven alive before this request is sent on it.
    pub(super) look: bool,
    /// Body bytes allowed.
    pub(super) body_limit: u64,
}

struct Fields<'h, 'b>(&'h RequestHead<'b>);

impl FieldLookup for Fields<'_, '_> {
    fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        for (found, value) in self.0.fields() {
            if found.len() == name.len() && found.eq_ignore_ascii_case(name.as_bytes()) {
                f(value);
            }
        }
    }
}

/// Decides about the head at the front of `buf`, if it is whole.
pub(super) fn decide(cx: &Cx, mut buf: Buf) -> (Decision, Buf) {
    let core = &cx.core;
    let generation = core.generation();
    // Without its listener, or with one that speaks something else now, a connection has had its last answer.
    let Some((socket, http)) = generation.socket(cx.socket).and_then(|socket| Some((socket, socket.http()?))) else {
        return (refuse(cx, 503, "listener_removed", DownstreamError::NoListener, true), buf);
    };
    let policy = &socket.shared.client;
    cx.timeouts.set(policy.timeouts);
    cx.limits.set(policy.limits);
    let mut storage = FieldStorage::new();
    let head = match request::parse_request(buf.data(), &mut storage, &policy.limits) {
        Ok(Some(head)) => head,
        Ok(None) => return (Decision::More, buf),
        Err(error) => return (refuse_request(cx, &error), buf),
    };
    let started = Instant::now();
    let close = !head.keep_alive || core.is_draining();
    let limit = policy.limits.body_bytes.unwrap_or(u64::MAX);
    if let Framing::Length(length) = head.body
        && length > limit
    {
        let decision = refuse(cx, 413, "body_too_large", DownstreamError::BodyTooLarge, head.method == Method::Head);
        return (decision, buf);
    }
    let id = request_id(core.random(), core.random());
    let context = RequestContext {
        client_ip: cx.peer.ip(),
        scheme: "http",
        peer_trusted: policy.trusted.iter().any(|net| net.contains(&cx.peer.ip())),
        policy,
        request_id: &id,
        port: socket.shared.bind.port(),
    };
    let mut local = Local { cx, head: &head, close, counted: None };
    if let Some(allow) = head.answered_here() {
        return local.finish(allow, 200, buf, |out, error| encode::options(error, out));
    }
    let key = RequestKey {
        host: &head.host,
        path: &head.path,
        query: head.query,
        method: head.method_token,
        fields: &Fields(&head),
    };
    let (rule, matched) = match http.table.find(&key) {
        Found::Rule { rule, matched, .. } => (rule, matched),
        Found::NoRule { .. } | Found::NoListener => {
            core.metrics.downstream_error(DownstreamError::NoRoute);
            return local.error(404, buf);
        }
    };
    let compiled = &http.table.rules()[rule.index()];
    local.counted = Some(Counted { generation: Rc::clone(&generation), route: compiled.route, started });
    let split = match &compiled.action {
        Action::Forward(split) => split,
        Action::Redirect(redirect) => {
            return local.finish((), redirect.status, buf, |out, error| {
                encode::redirect(&head, redirect, &matched, &context, error, out);
            });
        }
        Action::Fail(status) => {
            core.metrics.downstream_error(DownstreamError::InvalidRoute);
            return local.error(*status, buf);
        }
    };
    let id = match generation.pick(socket.index, rule.index(), split) {
        Some(Target::Backend(id)) => id,
        Some(Target::Invalid) | None => {
            core.metrics.downstream_error(DownstreamError::InvalidBackend);
            return local.error(500, buf);
        }
    };
    let metrics = &generation.metrics.backends[id.0 as usize];
    let mut scratch = core.scratch.borrow_mut();
    scratch.clear();
    encode::request(&head, &compiled.filters, &matched, &context, &mut scratch);
    let backend = generation.backend(id);
    match backend.next_address() {
        None => {
            metrics.error(UpstreamError::NoEndpoint);
            drop(scratch);
            return local.error(503, buf);
        }
        Some(EndpointAddress::Echo(name)) => {
            metrics.requests.inc();
            let answer = local::echo(&scratch, &head, name, close);
            drop(scratch);
            return local.finish((), 200, buf, |out, _| out.extend_from_slice(&answer));
        }
        Some(_) => {}
    }
    let plan = Plan {
        socket: socket.index,
        rule: rule.index(),
        backend: id,
        exchange: Exchange::new(&head, close),
        method: head.method,
        body: BodyDecoder::request(head.body),
        chunked: head.body == Framing::Chunked,
        head: scratch.len(),
        by: compiled.timeouts.request.map_or(Tick::MAX, rt::tick_after),
        backend_request: compiled.timeouts.backend_request,
        look: !head.method.is_idempotent(),
        body_limit: limit,
        counted: Counted { generation: Rc::clone(&generation), route: compiled.route, started },
    };
    let old = head.len;
    if !piece::replace_head(&mut buf, old, &scratch) {
        match piece::rebuild(&buf, old, &scratch) {
            Some(rebuilt) => buf = rebuilt,
            None => {
                drop(scratch);
                return (refuse(cx, 431, "rewritten_head_too_large", DownstreamError::HeadTooLarge, false), buf);
            }
        }
    }
    (Decision::Forward(plan), buf)
}
