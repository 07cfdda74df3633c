//! HTTP routes: matches, filters, actions.

use std::time::Duration;

use regex::bytes::Regex;

use super::{HostPattern, RouteId, WeightedTarget};

/// An HTTPRoute as attached to one listener.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Its name and metrics.
    pub id: RouteId,
    /// The intersections of its hostnames with the listener's; never empty.
    pub hostnames: Vec<HostPattern>,
    /// In the order of the resource.
    pub rules: Vec<HttpRule>,
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// Any one of these selects the rule; never empty (the API's default is the prefix `/`).
    pub matches: Vec<HttpMatch>,
    /// What is changed on the way.
    pub filters: Filters,
    /// What is done.
    pub action: Action,
    /// Deadlines.
    pub timeouts: RouteTimeouts,
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Sends it to one target of a weighted split.
    Forward(Vec<WeightedTarget>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers with this status: a rule without backends, or with a filter that could not be honoured (500).
    Fail(u16),
}

/// All conditions of one match must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// On the path as it is forwarded (normalised).
    pub path: PathMatch,
    /// Upper case, as on the wire.
    pub method: Option<String>,
    /// One per name.
    pub headers: Vec<HeaderMatch>,
    /// One per name.
    pub query: Vec<QueryMatch>,
}

/// A condition on the path.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// By path elements; a trailing `/` of the prefix is ignored, so `/` is every path.
    Prefix(String),
    /// Anchored at both ends by whoever built it; linear time.
    Regex(Regex),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A condition on a value.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// Equal, byte by byte.
    Exact(String),
    /// Anchored at both ends by whoever built it; linear time.
    Regex(Regex),
}

impl ValueMatch {
    /// Whether `value` satisfies it.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A condition on a header field.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: String,
    /// On the field's value; several lines of one name are joined with `,` first (RFC 9110 section 5.3).
    pub value: ValueMatch,
}

/// A condition on a query parameter: its first occurrence counts.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Exact, case-sensitive.
    pub name: String,
    /// On the decoded value.
    pub value: ValueMatch,
}

/// What a rule changes on the way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filters {
    /// RequestHeaderModifier.
    pub request_headers: HeaderModifier,
    /// ResponseHeaderModifier.
    pub response_headers: HeaderModifier,
    /// URLRewrite.
    pub rewrite: Option<UrlRewrite>,
}

/// Changes to header fields; each name (in lower case) stands in one list only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderModifier {
    /// Replaces every line of the name.
    pub set: Vec<(String, String)>,
    /// Appends with a comma to what is there.
    pub add: Vec<(String, String)>,
    /// Removes every line of the name.
    pub remove: Vec<String>,
}

impl HeaderModifier {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// URLRewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlRewrite {
    /// Replaces Host.
    pub hostname: Option<String>,
    /// Replaces the path or its matched prefix.
    pub path: Option<PathModifier>,
}

/// A change of the path; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path.
    ReplaceFull(String),
    /// The prefix that the rule's one PathPrefix match matched (HTTPPathModifier's table in the API).
    ReplacePrefix(String),
}

/// RequestRedirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; none keeps the request's.
    pub scheme: Option<String>,
    /// None keeps the request's host.
    pub hostname: Option<String>,
    /// None keeps the request's path and query.
    pub path: Option<PathModifier>,
    /// Which port stands in Location.
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The port of a redirect's Location (HTTPRequestRedirectFilter.port). A scheme's well-known port is never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// As configured.
    Explicit(u16),
    /// The scheme is given: its well-known port.
    OfScheme,
    /// Neither is given: the listener's.
    Listener(u16),
}

/// HTTPRoute `timeouts`; none means no limit (also `0s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteTimeouts {
    /// From the request's head to the last byte of its response.
    pub request: Option<Duration>,
    /// One request to a backend, from its start to the response's head and on to its end.
    pub backend_request: Option<Duration>,
}
