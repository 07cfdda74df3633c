//! Heads written anew from what was understood, never copied as a whole.

use super::authorize::Granted;
use super::exchange::HeadPlan;
use super::request::{Framing as RequestFraming, RequestHead};
use super::response::{Framing as ResponseFraming, ResponseHead};
use crate::grpc::{self, Call};
use crate::http::coding::{Coding, OF_THE_BYTES};
use crate::http::{Date, Tag, Version, is_token, list};
use crate::model::{ClientPolicy, Filters, HeaderModifier, Redirect, RedirectPort};
use crate::route::{Matched, replace_path};

/// Longest request id taken over from a trusted peer.
const REQUEST_ID_LIMIT: usize = 128;

/// What a forwarded request says of its client.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The client's address, as text; IPv6 without brackets.
    pub client: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The peer's own claims are believed.
    pub trusted: bool,
    /// Which fields are sent.
    pub policy: &'a ClientPolicy,
    /// Sent unless a trusted peer brought one.
    pub request_id: &'a str,
    /// `X-Forwarded-Client-Cert`: who the client is by its certificate, if that is to be told.
    pub client_certificate: Option<&'a str>,
    /// In place of the client's Host, unless a filter says something else.
    pub host: Option<&'a str>,
    /// In place of the client's own Content-Type: its body is translated.
    pub content_type: Option<&'a [u8]>,
    /// What servers of ExternalAuth filters have added, in the order in which they were asked.
    pub granted: &'a [Granted<'a>],
}

pub(super) struct Out<'o>(pub(super) &'o mut Vec<u8>);

impl Out<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }

    pub(super) fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    pub(super) fn length(&mut self, length: u64) {
        self.put(b"content-length: ");
        self.number(length);
        self.put(b"\r\n");
    }
}

/// A header modifier at work on one head.
pub(super) struct Modifier<'m> {
    rules: &'m HeaderModifier,
    /// By index in `add`: already appended to a line that was there.
    added: u64,
}

impl<'m> Modifier<'m> {
    pub(super) fn new(rules: &'m HeaderModifier) -> Self {
        Self { rules, added: 0 }
    }

    /// Writes a field as the rules want it.
    fn pass(&mut self, out: &mut Out<'_>, name: &[u8], value: &[u8]) {
        if self.rules.is_empty() {
            return out.field(name, value);
        }
        if self.replaces(name) {
            return;
        }
        out.put(name);
        out.put(b": ");
        out.put(value);
        for (index, (added, more)) in self.rules.add.iter().enumerate().take(64) {
            if self.added & (1 << index) == 0 && name.eq_ignore_ascii_case(added.as_bytes()) {
                self.added |= 1 << index;
                out.put(b",");
                out.put(more.as_bytes());
            }
        }
        out.put(b"\r\n");
    }

    /// Whether lines of this name are dropped, or replaced at the end.
    fn replaces(&self, name: &[u8]) -> bool {
        self.rules.remove.iter().any(|removed| name.eq_ignore_ascii_case(removed.as_bytes()))
            || self.rules.set.iter().any(|(set, _)| name.eq_ignore_ascii_case(set.as_bytes()))
    }

    /// Writes what was not there yet.
    fn finish(self, out: &mut Out<'_>) {
        for (name, value) in &self.rules.set {
            if !is_reserved(name) {
                out.field(name.as_bytes(), value.as_bytes());
            }
        }
        for (index, (name, value)) in self.rules.add.iter().enumerate().take(64) {
            if self.added & (1 << index) == 0 && !is_reserved(name) {
                out.field(name.as_bytes(), value.as_bytes());
            }
        }
    }
}

/// Framing and the connection are not the filters' to change.
fn is_reserved(name: &str) -> bool {
    ["connection", "content-length", "host", "transfer-encoding", "upgrade", "keep-alive", "te", "trailer"]
        .contains(&name)
}

/// The head that goes upstream.
pub fn request(
    head: &RequestHead<'_>,
    filters: &Filters,
    matched: Matched<'_>,
    context: &RequestContext<'_>,
    out: &mut Vec<u8>,
) {
    let rewrite = filters.rewrite.as_ref();
    out.extend_from_slice(head.method_token);
    out.push(b' ');
    match rewrite.and_then(|rewrite| rewrite.path.as_ref()) {
        Some(modifier) => replace_path(&head.path, matched, modifier, out),
        None => out.extend_from_slice(&head.path),
    }
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    let mut out = Out(out);
    out.put(b" HTTP/1.1\r\n");
    let host = rewrite.and_then(|rewrite| rewrite.hostname.as_deref()).or(context.host);
    out.field(b"Host", host.map_or(head.authority, str::as_bytes));
    let mut modifier = Modifier::new(&filters.request_headers);
    request_fields(head, context, &mut modifier, &mut out);
    for (index, granted) in context.granted.iter().enumerate() {
        let replaced = |name: &[u8]| context.granted[index + 1..].iter().any(|later| later.replaces(name));
        for (name, value) in granted.fields.iter().filter(|(name, _)| !replaced(name)) {
            modifier.pass(&mut out, name, value);
        }
    }
    client_fields(head, context, &mut modifier, &mut out);
    modifier.finish(&mut out);
    match head.body {
        RequestFraming::None => {}
        RequestFraming::Length(length) => out.length(length),
        RequestFraming::Chunked => out.put(b"transfer-encoding: chunked\r\n"),
    }
    if head.expect_continue {
        out.put(b"expect: 100-continue\r\n");
    }
    match (head.upgrade, head.te_trailers) {
        (Some(protocols), _) => {
            out.put(b"connection: upgrade\r\nupgrade: ");
            let passable =
                |protocol: &&[u8]| !protocol.eq_ignore_ascii_case(b"h2c") && !protocol.eq_ignore_ascii_case(b"h2");
            for (index, protocol) in list(protocols).filter(passable).enumerate() {
                if index > 0 {
                    out.put(b", ");
                }
                out.put(protocol);
            }
            out.put(b"\r\n");
        }
        (None, true) => out.put(b"te: trailers\r\nconnection: te\r\n"),
        (None, false) => {}
    }
    out.put(b"\r\n");
}

/// The client's own fields.
fn request_fields(
    head: &RequestHead<'_>,
    context: &RequestContext<'_>,
    modifier: &mut Modifier<'_>,
    out: &mut Out<'_>,
) {
    let replaced = |name: &[u8]| !context.granted.is_empty() && context.granted.iter().any(|each| each.replaces(name));
    for (tag, name, value) in head.fields.tagged() {
        match tag {
            _ if replaced(name) => {}
            Tag::Plain | Tag::Via => {
                match context.content_type.filter(|_| name.eq_ignore_ascii_case(b"content-type")) {
                    Some(translated) => modifier.pass(out, name, translated),
                    None => modifier.pass(out, name, value),
                }
            }
            Tag::PeerClaim if context.trusted => modifier.pass(out, name, value),
            Tag::Forwarded if context.trusted && !context.policy.forwarded => modifier.pass(out, name, value),
            Tag::Trailer if head.body == RequestFraming::Chunked => modifier.pass(out, name, value),
            Tag::MaxForwards => match head.max_forwards {
                Some(left) => {
                    out.put(b"max-forwards: ");
                    out.number(u64::from(left.saturating_sub(1)));
                    out.put(b"\r\n");
                }
                None => modifier.pass(out, name, value),
            },
            _ => {}
        }
    }
}

/// What we say of the client.
pub(super) fn client_fields(
    head: &RequestHead<'_>,
    context: &RequestContext<'_>,
    modifier: &mut Modifier<'_>,
    out: &mut Out<'_>,
) {
    let believed = |tag| if context.trusted { head.fields.first(tag) } else { None };
    if !modifier.replaces(b"x-forwarded-for") {
        out.put(b"x-forwarded-for: ");
        if context.trusted {
            for (tag, _, value) in head.fields.tagged() {
                if tag == Tag::XForwardedFor && !value.is_empty() {
                    out.put(value);
                    out.put(b", ");
                }
            }
        }
        out.put(context.client.as_bytes());
        out.put(b"\r\n");
    }
    let proto = believed(Tag::XForwardedProto).unwrap_or(context.scheme.as_bytes());
    let host = believed(Tag::XForwardedHost).unwrap_or(head.authority);
    modifier.pass(out, b"x-forwarded-proto", proto);
    if !host.is_empty() {
        modifier.pass(out, b"x-forwarded-host", host);
    }
    let sane = |id: &&[u8]| !id.is_empty() && id.len() <= REQUEST_ID_LIMIT;
    let id = believed(Tag::XRequestId).filter(sane).unwrap_or(context.request_id.as_bytes());
    modifier.pass(out, b"x-request-id", id);
    if let Some(certificate) = context.client_certificate {
        modifier.pass(out, b"x-forwarded-client-cert", certificate.as_bytes());
    }
    if context.policy.forwarded {
        out.put(b"forwarded: ");
        if context.trusted {
            for (tag, _, value) in head.fields.tagged() {
                if tag == Tag::Forwarded && !value.is_empty() {
                    out.put(value);
                    out.put(b", ");
                }
            }
        }
        forwarded(head, context, out);
        out.put(b"\r\n");
    }
    if context.policy.via {
        let version = match head.version {
            Version::Http10 => &b"1.0 ringway"[..],
            Version::Http11 => b"1.1 ringway",
            Version::Http2 => b"2.0 ringway",
        };
        modifier.pass(out, b"via", version);
    }
}

/// One element of RFC 7239.
fn forwarded(head: &RequestHead<'_>, context: &RequestContext<'_>, out: &mut Out<'_>) {
    out.put(b"for=");
    if context.client.contains(':') {
        out.put(b"\"[");
        out.put(context.client.as_bytes());
        out.put(b"]\"");
    } else {
        out.put(context.client.as_bytes());
    }
    if !head.authority.is_empty() {
        out.put(b";host=");
        if is_token(head.authority) {
            out.put(head.authority);
        } else {
            out.put(b"\"");
            out.put(head.authority);
            out.put(b"\"");
        }
    }
    out.put(b";proto=");
    out.put(context.scheme.as_bytes());
}

/// What an answer gets besides what filters say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Added<'a> {
    /// Whole lines.
    pub lines: &'a [u8],
    /// Fields that the endpoint's answer loses for that, in lower case.
    pub replaced: &'a [&'a str],
    /// Among the lines is Strict-Transport-Security, of which clients take the first (RFC 6797 section 8.1).
    pub secures: bool,
    /// What is sent depends on Accept-Encoding.
    pub varies: bool,
    /// The body is given this coding on its way.
    pub coding: Option<Coding>,
}

/// The head that goes downstream. An answer without a Date gets `now` (RFC 9110 section 6.6.1).
pub fn response(
    head: &ResponseHead<'_>,
    filters: &Filters,
    added: Added<'_>,
    plan: &HeadPlan,
    now: &Date,
    out: &mut Vec<u8>,
) {
    let mut out = Out(out);
    status_line(&mut out, head.status, head.reason);
    let HeadPlan::Final { framing, close, keep_alive_10 } = *plan else {
        for (tag, name, value) in head.fields.tagged() {
            if matches!(tag, Tag::Plain | Tag::Date) {
                out.field(name, value);
            }
        }
        if *plan == HeadPlan::Tunnel {
            out.put(b"connection: upgrade\r\n");
            if let Some(protocol) = head.upgrade {
                out.field(b"upgrade", protocol);
            }
            out.put(added.lines);
        }
        out.put(b"\r\n");
        return;
    };
    let mut modifier = Modifier::new(&filters.response_headers);
    let mut dated = false;
    let mut varies = added.varies;
    for (tag, name, value) in head.fields.tagged() {
        match tag {
            Tag::Plain if added.replaces(name) => {}
            Tag::Plain if added.varies && name.eq_ignore_ascii_case(b"vary") => {
                let covers = |of: &[u8]| of == b"*" || of.eq_ignore_ascii_case(b"accept-encoding");
                varies &= !list(value).any(covers);
                modifier.pass(&mut out, name, value);
            }
            Tag::Plain if added.weakens(name, value) => modifier.pass(&mut out, name, &[b"W/", value].concat()),
            Tag::Plain => modifier.pass(&mut out, name, value),
            Tag::Date => {
                dated = true;
                modifier.pass(&mut out, name, value);
            }
            Tag::Trailer if framing == ResponseFraming::Chunked => modifier.pass(&mut out, name, value),
            _ => {}
        }
    }
    if !dated {
        modifier.pass(&mut out, b"date", now.as_bytes());
    }
    modifier.finish(&mut out);
    out.put(added.lines);
    if varies {
        out.put(b"vary: accept-encoding\r\n");
    }
    if let Some(coding) = added.coding {
        out.field(b"content-encoding", coding.name().as_bytes());
    }
    match framing {
        ResponseFraming::Length(length) => out.length(length),
        ResponseFraming::None(Some(length)) if head.status != 204 => out.length(length),
        ResponseFraming::Chunked => out.put(b"transfer-encoding: chunked\r\n"),
        ResponseFraming::None(_) | ResponseFraming::UntilClose => {}
    }
    if close {
        out.put(b"connection: close\r\n");
    } else if keep_alive_10 {
        out.put(b"connection: keep-alive\r\n");
    }
    out.put(b"\r\n");
}

impl Added<'_> {
    fn replaces(&self, name: &[u8]) -> bool {
        let is_one = |lost: &&str| name.eq_ignore_ascii_case(lost.as_bytes());
        (!self.replaced.is_empty() && self.replaced.iter().any(is_one))
            || (self.secures && name.eq_ignore_ascii_case(b"strict-transport-security"))
            || (self.coding.is_some() && OF_THE_BYTES.iter().any(is_one))
    }

    /// Whether a field is a strong validator that the coded answer cannot have (RFC 9110 section 8.8.1).
    fn weakens(&self, name: &[u8], value: &[u8]) -> bool {
        self.coding.is_some() && value.starts_with(b"\"") && name.eq_ignore_ascii_case(b"etag")
    }
}

pub(super) fn status_line(out: &mut Out<'_>, status: u16, reason: &[u8]) {
    out.put(b"HTTP/1.1 ");
    out.number(u64::from(status));
    out.put(b" ");
    out.put(reason);
    out.put(b"\r\n");
}

/// What a locally made answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The connection ends with it.
    pub close: bool,
    /// The request was HEAD: no body follows.
    pub head_only: bool,
    /// The client speaks HTTP/1.0 and its connection stays.
    pub keep_alive_10: bool,
    /// The request was a call of gRPC: errors are said in its terms.
    pub call: Option<Call>,
    /// The call's own time is over.
    pub late: bool,
}

impl Reply {
    /// To a request; `close`: the connection ends in any case.
    pub fn to(head: &RequestHead<'_>, close: bool) -> Self {
        let close = close || !head.keep_alive;
        Self {
            close,
            head_only: head.method == crate::http::Method::Head,
            keep_alive_10: head.version == Version::Http10 && !close,
            call: call_of(head),
            late: false,
        }
    }

    /// How a call has ended that is answered with this status.
    pub fn grpc_status(&self, status: u16) -> u8 {
        if self.late { grpc::DEADLINE_EXCEEDED } else { grpc::status_of(status) }
    }

    /// To bytes that are no request.
    pub const CLOSE: Self = Self { close: true, head_only: false, keep_alive_10: false, call: None, late: false };
}

/// Only a POST can be one, so that nobody else pays for the look; in HTTP/1.1, only of gRPC-Web.
fn call_of(head: &RequestHead<'_>) -> Option<Call> {
    if head.method != crate::http::Method::Post {
        return None;
    }
    let call = head.named("content-type").next().and_then(Call::of);
    call.filter(|call| head.version == Version::Http2 || *call != Call::Native)
}

pub(super) fn end_of_reply(out: &mut Out<'_>, reply: Reply, now: &Date, body: &[u8]) {
    out.field(b"date", now.as_bytes());
    out.length(body.len() as u64);
    end_of_head(out, reply);
    if !reply.head_only {
        out.put(body);
    }
}

pub(super) fn end_of_head(out: &mut Out<'_>, reply: Reply) {
    if reply.close {
        out.put(b"connection: close\r\n");
    } else if reply.keep_alive_10 {
        out.put(b"connection: keep-alive\r\n");
    }
    out.put(b"\r\n");
}

/// An answer without a body (204).
pub fn no_content(lines: &[u8], reply: Reply, now: &Date, out: &mut Vec<u8>) {
    let mut out = Out(out);
    status_line(&mut out, 204, reason_of(204).as_bytes());
    out.put(lines);
    out.field(b"date", now.as_bytes());
    end_of_head(&mut out, reply);
}

/// An error of ours: a short text that says which.
pub fn error(status: u16, reply: Reply, now: &Date, out: &mut Vec<u8>) {
    let reason = reason_of(status);
    let mut out = Out(out);
    if let Some(call) = reply.call {
        // Trailers-only: a head that says how the call has ended.
        status_line(&mut out, 200, b"OK");
        out.field(b"content-type", call.content_type().as_bytes());
        out.put(b"grpc-status: ");
        out.number(u64::from(reply.grpc_status(status)));
        out.put(b"\r\n");
        out.field(b"grpc-message", reason.as_bytes());
        return end_of_reply(&mut out, reply, now, b"");
    }
    status_line(&mut out, status, reason.as_bytes());
    out.put(b"content-type: text/plain\r\n");
    if status == 405 {
        out.put(b"allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n");
    }
    let mut body = [0; 64];
    let len = reason.len().min(body.len() - 1);
    body[..len].copy_from_slice(&reason.as_bytes()[..len]);
    body[len] = b'\n';
    end_of_reply(&mut out, reply, now, &body[..=len]);
}

/// A whole answer of ours with a body, which filters may change like an endpoint's.
pub fn content(
    status: u16,
    content_type: &str,
    body: &[u8],
    filters: &HeaderModifier,
    reply: Reply,
    now: &Date,
    out: &mut Vec<u8>,
) {
    let mut out = Out(out);
    status_line(&mut out, status, reason_of(status).as_bytes());
    let mut modifier = Modifier::new(filters);
    if !content_type.is_empty() {
        modifier.pass(&mut out, b"content-type", content_type.as_bytes());
    }
    modifier.finish(&mut out);
    if matches!(status, 204 | 304) {
        out.field(b"date", now.as_bytes());
        return end_of_head(&mut out, reply);
    }
    end_of_reply(&mut out, reply, now, body);
}

/// The answer to OPTIONS that must not go further (RFC 9110 section 7.6.2).
pub fn options(reply: Reply, now: &Date, out: &mut Vec<u8>) {
    let mut out = Out(out);
    status_line(&mut out, 200, b"OK");
    out.put(b"allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n");
    end_of_reply(&mut out, reply, now, b"");
}

/// A redirect (Gateway API HTTPRequestRedirectFilter). `scheme` is the request's.
pub fn redirect(
    head: &RequestHead<'_>,
    redirect: &Redirect,
    matched: Matched<'_>,
    scheme: &str,
    reply: Reply,
    now: &Date,
    out: &mut Vec<u8>,
) {
    let mut out = Out(out);
    status_line(&mut out, redirect.status, reason_of(redirect.status).as_bytes());
    let scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    out.put(b"location: ");
    out.put(scheme.as_bytes());
    out.put(b"://");
    out.put(redirect.hostname.as_deref().unwrap_or(&head.host).as_bytes());
    let well_known = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let port = match redirect.port {
        RedirectPort::Explicit(port) | RedirectPort::Listener(port) => port,
        RedirectPort::OfScheme => well_known,
    };
    if port != well_known {
        out.put(b":");
        out.number(u64::from(port));
    }
    match &redirect.path {
        Some(modifier) => replace_path(&head.path, matched, modifier, out.0),
        None => out.put(&head.path),
    }
    if let Some(query) = head.query {
        out.put(b"?");
        out.put(query);
    }
    out.put(b"\r\n");
    end_of_reply(&mut out, reply, now, b"");
}

/// Tells a client to ask for its path in the form that this has become. It names the authority, since a path may begin
/// with two slashes, and would be one.
pub fn ask_again(head: &RequestHead<'_>, scheme: &str, reply: Reply, now: &Date, out: &mut Vec<u8>) {
    let mut out = Out(out);
    status_line(&mut out, 307, reason_of(307).as_bytes());
    out.put(b"location: ");
    let slashes = head.path.iter().take_while(|byte| **byte == b'/').count();
    if head.authority.is_empty() {
        out.put(&head.path[slashes.saturating_sub(1)..]);
    } else {
        out.put(scheme.as_bytes());
        out.put(b"://");
        out.put(head.authority);
        out.put(&head.path);
    }
    if let Some(query) = head.query {
        out.put(b"?");
        out.put(query);
    }
    out.put(b"\r\n");
    end_of_reply(&mut out, reply, now, b"");
}

/// The registered reason phrase, for statuses that we make and those that answers of HTTP/2 have.
pub fn reason_of(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
