//! From the bytes of a head to what is done about it, in one step without a suspension point: parse, route, choose,
//! and write the head that goes upstream in place of the one that came.

use std::rc::Rc;
use std::time::Instant;

use ringway_core::access;
use ringway_core::balance::key::{self, KeyedRequest};
use ringway_core::grpc::{self, Call, web};
use ringway_core::http::{Method, Version};
use ringway_core::http1::FieldStorage;
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::choose::{self, Chosen, Unserved};
use ringway_core::http1::encode::{self, Reply, RequestContext};
use ringway_core::http1::exchange::Exchange;
use ringway_core::http1::request::{self, Framing, RequestError, RequestHead};
use ringway_core::http2;
use ringway_core::model::{
    Action, BackendId, ClientPolicy, Cors, DirectResponse, EndpointAddress, Filters, Login, NotAdmitted, Redirect,
    RedirectPort, ResponseRules, RouteId, RouteTimeouts, Target,
};
use ringway_core::route::Matched;

use super::authorize::{self, Ask, Findings};
use super::extra::{self, Extra};
use super::piece::{self, TooLarge};
use super::sessions;
use super::{Cx, echo, local, websocket};
use crate::auth::{Claim, Judgement, Verdict};
use crate::buffer::{Buf, Class};
use crate::metrics::{DownstreamError, UpstreamError};
use crate::rt::{self, Tick};
use crate::upstream::Reuse;
use crate::worker::{AtLimit, Generation, Held, HttpSocket, Socket};

/// What is done about a request.
pub(super) enum Decision {
    /// The head is not whole yet.
    More,
    /// A password has to be checked first; then it is decided anew, and nothing has been taken off the buffer.
    Check(Claim),
    /// Another server has to be asked first; then it is decided anew, as for a password.
    Ask(Box<Ask>),
    /// It is answered here.
    Answer(Answer),
    /// It goes upstream; the head that is sent stands at the front of the buffer's window.
    Forward(Plan),
}

/// A request that is answered here.
pub(super) struct Answer {
    /// The answer's head and body.
    pub(super) bytes: Vec<u8>,
    /// Its status, for the counters.
    pub(super) status: u16,
    /// What it is counted under.
    pub(super) counted: Option<Counted>,
    /// The request's body, at the front of the window, which has to be read past for the next request.
    pub(super) body: BodyDecoder,
    /// The connection cannot be used further.
    pub(super) close: bool,
    /// Counts it among those that are under way, until the answer has left.
    pub(super) held: Vec<Held>,
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
    /// How the client is answered if the endpoint does not.
    pub(super) reply: Reply,
    /// It goes to a rule for gRPC.
    pub(super) grpc: bool,
    /// What a gRPC call's answer has said of how it ended.
    pub(super) grpc_status: Option<u8>,
    /// It is of gRPC-Web, and its endpoint is not.
    pub(super) web: Option<Web>,
    /// Decodes the body that comes.
    pub(super) body: BodyDecoder,
    /// The body leaves in chunks.
    pub(super) chunked: bool,
    /// How long it is, where that was said.
    pub(super) length: Option<u64>,
    /// Length of the head at the front of the window.
    pub(super) head: usize,
    /// Until when the whole exchange may take.
    pub(super) by: Tick,
    /// The hash that its endpoint is chosen by.
    pub(super) key: Option<u64>,
    /// How long one request to a backend may take.
    pub(super) backend_request: Option<std::time::Duration>,
    /// Whether it goes on a kept connection.
    pub(super) reuse: Reuse,
    /// It asks for another protocol, as HTTP/1.1 does that.
    pub(super) upgrade: bool,
    /// It does so by an extended CONNECT, of which every success would be an upgrade.
    pub(super) connect: bool,
    /// Body bytes allowed.
    pub(super) body_limit: u64,
    /// The body waits for the endpoint's 100 (Continue).
    pub(super) expect_continue: bool,
    /// What most requests do not have.
    pub(super) extra: Option<Box<Extra>>,
}

impl Plan {
    /// Whether it is a call of gRPC that is understood here.
    pub(super) fn counts_calls(&self) -> bool {
        match self.reply.call {
            Some(Call::Native) => true,
            Some(_) => self.grpc,
            None => false,
        }
    }

    /// What counts it among those that are under way: whoever goes on with it takes that along.
    pub(super) fn held(&mut self) -> Vec<Held> {
        self.extra.as_mut().map(|extra| std::mem::take(&mut extra.held)).unwrap_or_default()
    }
}

/// How a call of gRPC-Web is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Web {
    pub(super) call: Call,
    /// How its answer is.
    pub(super) answer: Call,
}

/// Decides about the head at the front of `buf`, if it is whole. `findings`: what has been found out about it.
pub(super) fn decide(cx: &Cx, buf: &mut Buf, findings: &Findings) -> Decision {
    let (decision, len) = judge(cx, buf.data(), findings);
    match &decision {
        Decision::More | Decision::Check(_) | Decision::Ask(_) => {}
        Decision::Answer(_) => buf.consume(len),
        Decision::Forward(_) => {
            if let Err(TooLarge) = piece::put_head(buf, len, &cx.core.scratch.borrow()) {
                return refuse(cx, 431, DownstreamError::HeadTooLarge);
            }
        }
    }
    decision
}

/// The decision, and the length of the head that was decided about.
fn judge(cx: &Cx, bytes: &[u8], findings: &Findings) -> (Decision, usize) {
    let core = &cx.core;
    let generation = core.generation();
    // Without its listener, or with one that speaks something else now, a connection has had its last answer.
    let Some((socket, http)) = generation.socket(cx.socket).and_then(|socket| Some((socket, socket.http()?))) else {
        return (refuse(cx, 503, DownstreamError::NoListener), 0);
    };
    let policy = &socket.shared.client;
    cx.adopt(generation.bounds(socket.index));
    let mut storage = FieldStorage::new();
    let mut head = match request::parse_request(bytes, &mut storage, &policy.limits) {
        Ok(Some(head)) => head,
        Ok(None) => return (Decision::More, 0),
        Err(error) => return (refuse(cx, error.status(), error.into()), 0),
    };
    head.expect_continue &= !findings.continued;
    (weigh(cx, &generation, socket, http, &head, findings), head.len)
}

/// Decides about a request of HTTP/2. The head of one that is forwarded stands in the buffer.
pub(super) fn decide_stream(
    cx: &Cx,
    head: &crate::http2::Head,
    findings: &Findings,
) -> Result<(Decision, Buf), RequestError> {
    let generation = cx.core.generation();
    let mut buf = Buf::new(Class::Head);
    let Some((socket, http)) = generation.socket(cx.socket).and_then(|socket| Some((socket, socket.http()?))) else {
        return Ok((refuse(cx, 503, DownstreamError::NoListener), buf));
    };
    let policy = &socket.shared.client;
    cx.adopt(generation.bounds(socket.index));
    let mut storage = http2::request::FieldStorage::default();
    let mut head = match http2::request::request(head.pseudo(), head.fields(), &mut storage, &policy.limits) {
        Ok(head) => head,
        Err(error) => {
            cx.core.metrics.downstream_error(error.into());
            return Err(error);
        }
    };
    head.expect_continue &= !findings.continued;
    let mut decision = weigh(cx, &generation, socket, http, &head, findings);
    if let Decision::Forward(plan) = &mut decision {
        let mut scratch = cx.core.scratch.borrow_mut();
        if plan.upgrade {
            websocket::add_key(&mut scratch, cx.core.random(), cx.core.random());
            plan.head = scratch.len();
        }
        if !buf.push(&scratch) {
            buf = Buf::new(Class::Body);
            if !buf.push(&scratch) {
                return Ok((refuse(cx, 431, DownstreamError::HeadTooLarge), buf));
            }
        }
    }
    Ok((decision, buf))
}

/// What is done about a request, in whatever version of HTTP it came. The head of one that is forwarded is left in the
/// core's scratch space.
fn weigh(
    cx: &Cx,
    generation: &Rc<Generation>,
    socket: Socket<'_>,
    http: HttpSocket<'_>,
    head: &RequestHead<'_>,
    findings: &Findings,
) -> Decision {
    let core = &cx.core;
    let policy = &socket.shared.client;
    let verdict = findings.password;
    let (started, by) = findings.begun().unwrap_or_else(|| (Instant::now(), Tick::MAX));
    let close = cx.takes_no_more() && head.version != Version::Http2;
    let mut local = Local {
        cx,
        head,
        findings,
        reply: Reply::to(head, close),
        counted: None,
        started,
        added: Vec::new(),
        shared: false,
        pages: None,
    };
    let Chosen { id: rule, rule: compiled, matched } =
        match choose::choose(http.table, head, &policy.limits, cx.secure.as_ref().map(|secure| secure.listener)) {
            Ok(chosen) => chosen,
            Err(refused) => {
                local.keep_rules(refused.responses);
                let error = match refused.why {
                    Unserved::Redirected if local.reply.call.is_some() => {
                        return local.error(400, Some(DownstreamError::BadTarget));
                    }
                    Unserved::Redirected => {
                        let scheme = if cx.secure.is_some() { "https" } else { "http" };
                        return local.answer(307, |reply, out| {
                            encode::ask_again(head, scheme, reply, &core.date(), out);
                        });
                    }
                    Unserved::BodyTooLarge => {
                        local.reply.close = true;
                        DownstreamError::BodyTooLarge
                    }
                    Unserved::LastHop => {
                        return local.answer(200, |reply, out| encode::options(reply, &core.date(), out));
                    }
                    Unserved::Misdirected => DownstreamError::Misdirected,
                    Unserved::NoRoute => {
                        if let Some((status, port)) = policy.https_redirect.filter(|_| cx.secure.is_none()) {
                            let redirect = to_https(status, port);
                            return local.answer(status, |reply, out| {
                                let matched = Matched::Exact;
                                encode::redirect(head, &redirect, matched, "http", reply, &core.date(), out);
                            });
                        }
                        DownstreamError::NoRoute
                    }
                };
                return local.error(refused.why.status(), Some(error));
            }
        };
    local.counted = Some((generation, compiled.route));
    let mut id = [0; 36];
    let context = RequestContext {
        client: &cx.client_text,
        scheme: if cx.secure.is_some() { "https" } else { "http" },
        trusted: policy.believes(cx.client.ip()),
        policy,
        request_id: request_id(core.random(), core.random(), &mut id),
        client_certificate: client_certificate(cx, policy),
        host: None,
        content_type: None,
        granted: &[],
    };
    let extras = compiled.extras.as_deref();
    let mut login = None;
    if let Some(extras) = extras {
        local.keep_rules(extras.responses.as_deref());
        if let Some(access) = &extras.access {
            match access.login(access.admits(access::of_request(cx.client.ip(), policy, head))) {
                Ok(asked) => login = asked,
                Err(NotAdmitted) => return local.error(403, Some(DownstreamError::AccessDenied)),
            }
        }
    }
    let before_cors = local.added.len();
    if let Some(cors) = extras.and_then(|extras| extras.cors.as_ref())
        && let Some(lines) = local.share(cors)
    {
        return local.preflight(&lines);
    }
    if let Some(limits) = extras.map(|extras| extras.rate_limits.as_slice()).filter(|limits| !limits.is_empty())
        // A request whose password has been looked at, or that has been asked for, has been counted.
        && findings.is_empty()
        && let client = access::of_request(cx.client.ip(), policy, head)
        && let Some(wait) = extra::over_limit(core.settings.id, generation, limits, head, client, started)
    {
        local.added.extend_from_slice(format!("retry-after: {wait}\r\n").as_bytes());
        return local.error(429, Some(DownstreamError::RateLimited));
    }
    if let Some(limits) = extras.map(|extras| extras.concurrency_limits.as_slice()).filter(|limits| !limits.is_empty())
        && findings.is_empty()
    {
        let client = access::of_request(cx.client.ip(), policy, head);
        match extra::hold(core, generation, limits, head, client) {
            Ok(held) => *findings.held.borrow_mut() = held,
            Err(AtLimit) => return local.error(429, Some(DownstreamError::ConcurrencyLimited)),
        }
    }
    match login {
        None => {}
        Some(Login::Closed) => return local.error(500, Some(DownstreamError::InvalidRoute)),
        Some(Login::Basic(rules)) => {
            let said = head.named("authorization").next();
            match (core.passwords.known().judge(rules, said, started), verdict) {
                (Judgement::Pass, _) => {}
                (Judgement::Check(claim), None | Some(Verdict::Right)) => return Decision::Check(claim),
                (Judgement::Check(_), Some(Verdict::Busy)) => {
                    return local.error(503, Some(DownstreamError::PasswordsBusy));
                }
                (Judgement::Challenge, _) | (Judgement::Check(_), Some(Verdict::Wrong)) => {
                    let line = format!("www-authenticate: Basic realm=\"{}\", charset=\"UTF-8\"\r\n", rules.realm);
                    local.added.extend_from_slice(line.as_bytes());
                    return local.error(401, Some(DownstreamError::Unauthorized));
                }
            }
        }
    }
    let mut granted = Vec::new();
    let is_fate = (compiled.route, &compiled.timeouts);
    if let Some(rules) = extras.and_then(|extras| extras.auth.as_ref())
        && !matches!(compiled.action, Action::Fail(_))
    {
        match authorize::step(local, findings, (rules, None), &context, is_fate) {
            Ok((back, adds)) => {
                local = back;
                granted.push(adds);
            }
            Err(decision) => return decision,
        }
    }
    let split = match &compiled.action {
        Action::Forward(split) => split,
        Action::Redirect(redirect) => {
            return local.answer(redirect.status, |reply, out| {
                encode::redirect(head, redirect, matched, context.scheme, reply, &core.date(), out);
            });
        }
        Action::Respond(response) => return local.respond(response, &compiled.filters),
        Action::Fail(status) => return local.error(*status, Some(DownstreamError::InvalidRoute)),
    };
    let session = extras.and_then(|extras| extras.session.as_deref());
    let asked = session.map(|session| sessions::ask(core, generation, session, split, head));
    let kept = asked.as_ref().and_then(|(_, share)| *share);
    let settled = findings.share().filter(|share| *share < split.len());
    let share = settled.or(kept).or_else(|| generation.pick_share(socket.index, rule.index(), split));
    let (share, id) = match share.map(|share| (share, split[share].target)) {
        Some((share, Target::Backend(id))) => (share, id),
        Some((_, Target::Invalid)) | None => return local.error(500, Some(DownstreamError::InvalidBackend)),
    };
    let mut filters = &compiled.filters;
    if let Some(own) = extras.and_then(|extras| extras.shares.get(share)?.as_ref()) {
        filters = &own.filters;
        if let Some(cors) = &own.cors {
            local.added.truncate(before_cors);
            if let Some(lines) = local.share(cors) {
                return local.preflight(&lines);
            }
        }
        if let Some(rules) = &own.auth {
            match authorize::step(local, findings, (rules, Some(share)), &context, is_fate) {
                Ok((back, adds)) => {
                    local = back;
                    granted.push(adds);
                }
                Err(decision) => return decision,
            }
        }
        if let Some(redirect) = &own.redirect {
            return local.answer(redirect.status, |reply, out| {
                encode::redirect(head, redirect, matched, context.scheme, reply, &core.date(), out);
            });
        }
        if let Some(response) = &own.response {
            return local.respond(response, filters);
        }
    }
    let metrics = &generation.metrics.backends[id.0 as usize];
    let web = local.reply.call.filter(|call| compiled.grpc && *call != Call::Native).map(|call| web_call(call, head));
    let own = web.map(|web| web::request(web.call, head));
    let context = RequestContext {
        host: generation.shared.host(id),
        content_type: own.as_ref().map(|(_, format)| format.as_slice()),
        granted: &granted,
        ..context
    };
    let sent = own.as_ref().map_or(head, |(sent, _)| sent);
    let mut scratch = core.scratch.borrow_mut();
    scratch.clear();
    encode::request(sent, filters, matched, &context, &mut scratch);
    match generation.backend(id).first_address() {
        None => {
            drop(scratch);
            metrics.error(UpstreamError::NoEndpoint);
            return local.error(503, None);
        }
        Some(EndpointAddress::Echo(name)) => {
            metrics.requests.inc();
            let body = echo::describe(&scratch, name, cx.secure.as_deref());
            if let Some(extras) = extras {
                let mut extra = Extra::new(core, extras, share, head, Vec::new());
                // The demonstration answers before a body has come, and copies go without waiting for one.
                if let Some(mut copying) = extra.copying.take().filter(|_| matches!(head.body, Framing::None)) {
                    copying.begin(&scratch, scratch.len(), false);
                    copying.send(cx, generation, head.method);
                }
            }
            drop(scratch);
            let (date, filters) = (core.date(), &filters.response_headers);
            return local.answer(200, |reply, out| {
                encode::content(200, "application/json", &body, filters, reply, &date, out);
            });
        }
        Some(_) => {}
    }
    let mut exchange = Exchange::new(head, close);
    let extra = extras.map(|extras| {
        exchange.allow_retries(extras.retry.as_ref().map_or(0, |retry| retry.attempts));
        let mut extra = Extra::new(core, extras, share, head, std::mem::take(&mut local.added));
        extra.held = findings.held.take();
        extra.session = asked.map(|(asked, kept)| asked.at(kept == Some(share)).behind(extra.added.len()));
        Box::new(extra)
    });
    let withheld = ringway_core::http1::authorize::withheld(&granted);
    let plan = Plan {
        socket: socket.index,
        rule: rule.index(),
        backend: id,
        exchange,
        method: head.method,
        reply: local.reply,
        grpc: compiled.grpc,
        grpc_status: None,
        web,
        body: BodyDecoder::request(head.body).withholding(withheld),
        chunked: sent.body == Framing::Chunked,
        length: if let Framing::Length(length) = head.body { Some(length) } else { None },
        head: scratch.len(),
        by: until(&compiled.timeouts, head, local.reply.call.is_some()).min(by),
        backend_request: compiled.timeouts.backend_request,
        key: generation.shared.hash_key(id).and_then(|wanted| {
            let request = KeyedRequest { path: &head.path, query: head.query, fields: head };
            key::of_request(wanted, &request, || cx.client.flow())
        }),
        reuse: if head.method.is_idempotent() { Reuse::Kept } else { Reuse::KeptAndLookedAt },
        upgrade: head.upgrade.is_some(),
        connect: head.upgrade.is_some() && head.version == Version::Http2,
        body_limit: policy.limits.body_bytes.unwrap_or(u64::MAX),
        expect_continue: head.expect_continue,
        extra,
        counted: Counted { generation: Rc::clone(generation), route: compiled.route, started },
    };
    Decision::Forward(plan)
}

/// How a call of gRPC-Web is answered: as it says, or else as it is written itself.
fn web_call(call: Call, head: &RequestHead<'_>) -> Web {
    Web { call, answer: web::answer_to(call, head.named("accept").next()) }
}

/// Until when a request may take: by its rule, and for a gRPC call by what it says itself.
fn until(timeouts: &RouteTimeouts, head: &RequestHead<'_>, grpc: bool) -> Tick {
    let by = timeouts.request.map_or(Tick::MAX, rt::tick_after);
    if !grpc {
        return by;
    }
    let own = head.named("grpc-timeout").next().and_then(grpc::timeout);
    own.map_or(by, |own| by.min(rt::tick_after(own)))
}

/// The answer to plain HTTP where everything goes to HTTPS.
fn to_https(status: u16, port: u16) -> Redirect {
    let scheme = Some("https".to_owned());
    Redirect { scheme, hostname: None, path: None, port: RedirectPort::Explicit(port), status }
}

/// What is said upstream of a client's certificate.
fn client_certificate<'c>(cx: &'c Cx, policy: &ClientPolicy) -> Option<&'c str> {
    if !policy.client_certificate {
        return None;
    }
    let client = cx.secure.as_ref()?.client.as_ref()?;
    Some(client.forwarded.as_str()).filter(|value| !value.is_empty())
}

/// A request that is answered here, on its way to being so.
pub(super) struct Local<'l> {
    pub(super) cx: &'l Cx,
    pub(super) head: &'l RequestHead<'l>,
    findings: &'l Findings,
    pub(super) reply: Reply,
    counted: Option<(&'l Rc<Generation>, RouteId)>,
    pub(super) started: Instant,
    /// Lines that its answer gets, whoever gives it.
    pub(super) added: Vec<u8>,
    /// Of those, some say with whom it is shared.
    pub(super) shared: bool,
    /// What is said in place of errors.
    pages: Option<&'l ResponseRules>,
}

impl<'l> Local<'l> {
    /// The lines that answer a preflight; the answer to anything else gets those that belong to it.
    fn share(&mut self, cors: &Cors) -> Option<Vec<u8>> {
        self.shared = true;
        let preflight = choose::preflight(cors, self.head);
        if preflight.is_none() {
            let before = self.added.len();
            choose::shared(cors, self.head, &mut self.added);
            if self.added.len() > before && self.reply.call.is_some_and(|call| call != Call::Native) {
                // How a call ended may stand in the head.
                self.added.extend_from_slice(b"access-control-expose-headers: grpc-status, grpc-message\r\n");
            }
        }
        preflight
    }

    fn preflight(self, lines: &[u8]) -> Decision {
        let date = self.cx.core.date();
        self.answer(204, |reply, out| encode::no_content(lines, reply, &date, out))
    }

    /// What a filter has in place of a backend.
    fn respond(self, response: &DirectResponse, filters: &Filters) -> Decision {
        let DirectResponse { status, content_type, body } = response;
        let (date, filters) = (self.cx.core.date(), &filters.response_headers);
        self.answer(*status, |reply, out| encode::content(*status, content_type, body, filters, reply, &date, out))
    }

    /// What is said in place of an answer, and over TLS that TLS is to be kept to.
    fn keep_rules(&mut self, rules: Option<&'l ResponseRules>) {
        self.pages = rules;
        if let Some(hsts) = rules.and_then(|rules| rules.hsts.as_ref()).filter(|_| self.cx.secure.is_some()) {
            self.added.extend_from_slice(hsts.as_bytes());
        }
    }

    pub(super) fn error(self, status: u16, error: Option<DownstreamError>) -> Decision {
        if let Some(error) = error {
            self.cx.core.metrics.downstream_error(error);
        }
        let date = self.cx.core.date();
        if let Some(page) = self.pages.filter(|_| self.reply.call.is_none()).and_then(|rules| rules.page(status)) {
            let status = if page.status == 0 { status } else { page.status };
            return self.answer(status, |reply, out| local::page(page, status, reply, &date, out));
        }
        self.answer(status, |reply, out| encode::error(status, reply, &date, out))
    }

    /// Answers with what `write` writes. A client that has not sent its body may be told to keep it: then the connection
    /// ends, since what follows could be either (RFC 9110 section 10.1.1).
    pub(super) fn answer(mut self, status: u16, write: impl FnOnce(Reply, &mut Vec<u8>)) -> Decision {
        if status / 100 == 2 && self.head.upgrade.is_some() && self.head.version == Version::Http2 {
            // It would say that an extended CONNECT has succeeded.
            return self.error(501, None);
        }
        if self.head.expect_continue {
            self.reply.close = true;
            self.reply.keep_alive_10 = false;
        }
        let mut bytes = bytes_of(|out| write(self.reply, out));
        extra::add_lines(&mut bytes, &self.added);
        if self.reply.call.is_some()
            && let Some((generation, route)) = self.counted
        {
            generation.metrics.routes[route.0 as usize].grpc[usize::from(self.reply.grpc_status(status))].inc();
        }
        let counted = self.counted.map(|(generation, route)| Counted {
            generation: Rc::clone(generation),
            route,
            started: self.started,
        });
        Decision::Answer(Answer {
            bytes,
            status,
            counted,
            body: BodyDecoder::request(self.head.body),
            close: self.reply.close,
            held: self.findings.held.take(),
        })
    }
}

/// The answer to something that is no request: nothing behind it can be understood either.
fn refuse(cx: &Cx, status: u16, error: DownstreamError) -> Decision {
    cx.core.metrics.downstream_error(error);
    let bytes = bytes_of(|out| encode::error(status, Reply::CLOSE, &cx.core.date(), out));
    Decision::Answer(Answer { bytes, status, counted: None, body: BodyDecoder::none(), close: true, held: Vec::new() })
}

/// The answer to a head that does not fit any buffer.
pub(super) fn head_too_large(cx: &Cx) -> Decision {
    refuse(cx, 431, DownstreamError::HeadTooLarge)
}

/// The answer to a head that does not come.
pub(super) fn head_too_slow(cx: &Cx) -> Decision {
    refuse(cx, 408, DownstreamError::HeaderTimeout)
}

fn bytes_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    write(&mut bytes);
    bytes
}

/// A version 4 UUID (RFC 9562 section 5.4).
fn request_id(high: u64, low: u64, text: &mut [u8; 36]) -> &str {
    /// Where each octet's digits stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let high = high & 0xffff_ffff_ffff_0fff | 0x4000;
    let low = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    let digits = u128::from(high) << 64 | u128::from(low);
    *text = [b'-'; 36];
    for (octet, at) in digits.to_be_bytes().into_iter().zip(PLACES) {
        let digit = |four: u8| b"0123456789abcdef"[usize::from(four & 15)];
        (text[at], text[at + 1]) = (digit(octet >> 4), digit(octet));
    }
    std::str::from_utf8(text).expect("hexadecimal digits and hyphens")
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_ids_are_version_4_uuids() {
        let mut text = [0; 36];
        assert_eq!(super::request_id(0, 0, &mut text), "00000000-0000-4000-8000-000000000000");
        assert_eq!(super::request_id(u64::MAX, u64::MAX, &mut text), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
