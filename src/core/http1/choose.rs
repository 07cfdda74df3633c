//! Which rule serves a request, or what it is answered instead. The data path and `ringway explain` both ask here, so
//! that what is explained is what is done.

use super::request::{Framing, RequestHead};
use crate::http::Method;
use crate::http::cors::CorsRequest;
use crate::model::{ClientLimits, Cors, ResponseRules};
use crate::route::{CompiledRule, FieldLookup, Found, Matched, RequestKey, RouteTable, RuleId};

/// The rule that serves a request.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'t> {
    /// Its number in the table.
    pub id: RuleId,
    /// What it does.
    pub rule: &'t CompiledRule,
    /// Which kind of path condition held.
    pub matched: Matched<'t>,
}

/// Why no rule serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// The client is to ask for its path without escaped slashes.
    Redirected,
    /// Its body is longer than the limit.
    BodyTooLarge,
    /// Max-Forwards is used up: it is answered here (RFC 9110 section 7.6.2).
    LastHop,
    /// The name in the TLS handshake chose another listener than its host does (RFC 9110 section 15.5.20, Gateway API
    /// GEP-3567): one listener's certificates and demands on clients must not be passed by through another's.
    Misdirected,
    /// No listener takes its host, or no rule of the listener takes it.
    NoRoute,
}

impl Unserved {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            Self::BodyTooLarge => 413,
            Self::Redirected => 307,
            Self::LastHop => 200,
            Self::Misdirected => 421,
            Self::NoRoute => 404,
        }
    }
}

impl FieldLookup for RequestHead<'_> {
    fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        for (found, value) in self.fields() {
            if found.len() == name.len() && found.eq_ignore_ascii_case(name.as_bytes()) {
                f(value);
            }
        }
    }
}

/// What a request is matched by.
pub fn key<'h, 'b>(head: &'h RequestHead<'b>) -> RequestKey<'h, RequestHead<'b>> {
    RequestKey { host: &head.host, path: &head.path, query: head.query, method: head.method_token, fields: head }
}

/// A request that no rule serves.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'t> {
    /// Why.
    pub why: Unserved,
    /// What is done to the answer: by the rule that would have served it, or else by the listener. What another listener
    /// has than the one that a TLS handshake chose is not said.
    pub responses: Option<&'t ResponseRules>,
}

/// The rule that serves a request. `shaken` is the listener that a TLS handshake chose.
pub fn choose<'t>(
    table: &'t RouteTable,
    head: &RequestHead<'_>,
    limits: &ClientLimits,
    shaken: Option<usize>,
) -> Result<Chosen<'t>, Refused<'t>> {
    let found = table.find(&key(head));
    let is_too_large =
        matches!((head.body, limits.body_bytes), (Framing::Length(length), Some(limit)) if length > limit);
    let is_misdirected = match (shaken, &found) {
        (Some(shaken), Found::Rule { listener, .. } | Found::NoRule { listener }) => shaken != *listener,
        _ => false,
    };
    let why = if head.redirect {
        Unserved::Redirected
    } else if is_too_large {
        Unserved::BodyTooLarge
    } else if head.max_forwards == Some(0) {
        Unserved::LastHop
    } else if is_misdirected {
        Unserved::Misdirected
    } else if let Found::Rule { rule, matched, .. } = found {
        return Ok(Chosen { id: rule, rule: &table.rules()[rule.index()], matched });
    } else {
        Unserved::NoRoute
    };
    let responses = match found {
        _ if is_misdirected => None,
        Found::Rule { rule, .. } => {
            table.rules()[rule.index()].extras.as_ref().and_then(|extras| extras.responses.as_deref())
        }
        Found::NoRule { listener } => table.responses(listener),
        Found::NoListener => None,
    };
    Err(Refused { why, responses })
}

/// The lines that answer a preflight under these rules; `None`: it is none.
pub fn preflight(cors: &Cors, head: &RequestHead<'_>) -> Option<Vec<u8>> {
    let request = cors_request(head);
    (head.method == Method::Options && request.origin.is_some() && request.method.is_some()).then(|| {
        let mut fields = Vec::new();
        cors.preflight(&request, &mut fields);
        fields
    })
}

/// The lines that any other answer gets under these rules.
pub fn shared(cors: &Cors, head: &RequestHead<'_>, out: &mut Vec<u8>) {
    cors.response(cors_request(head).origin, out);
}

fn cors_request<'h>(head: &RequestHead<'h>) -> CorsRequest<'h> {
    let mut request = CorsRequest::default();
    for (name, value) in head.fields() {
        let place = match name.len() {
            6 if name.eq_ignore_ascii_case(b"origin") => &mut request.origin,
            29 if name.eq_ignore_ascii_case(b"access-control-request-method") => &mut request.method,
            30 if name.eq_ignore_ascii_case(b"access-control-request-headers") => &mut request.headers,
            _ => continue,
        };
        place.get_or_insert(value);
    }
    request
}
