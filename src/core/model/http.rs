//! HTTP routes: matches, filters, actions.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::{Access, BackendId, HostPattern, ResponseRules, RouteId, Session, Target, WeightedTarget};

/// An HTTPRoute as attached to one listener.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Its name and metrics.
    pub id: RouteId,
    /// It is for calls of gRPC (GRPCRoute).
    pub grpc: bool,
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
    /// What most rules do not have.
    pub extras: Option<Box<RuleExtras>>,
}

/// What most rules do not have. A request of a rule without any of it pays for one look at a pointer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleExtras {
    /// By share of the split; empty when no backendRef has filters of its own.
    pub shares: Vec<Option<ShareFilters>>,
    /// Copies that go elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin resource sharing.
    pub cors: Option<Cors>,
    /// Who is asked whether a request may pass.
    pub auth: Option<Arc<ExternalAuth>>,
    /// Sending again what failed.
    pub retry: Option<Retry>,
    /// Clients go where they went.
    pub session: Option<Box<Session>>,
    /// Who may ask.
    pub access: Option<Arc<Access>>,
    /// Limits, by their index in [`super::Model::rate_limits`].
    pub rate_limits: Vec<usize>,
    /// Limits, by their index in [`super::Model::concurrency_limits`].
    pub concurrency_limits: Vec<usize>,
    /// What is done to answers.
    pub responses: Option<Arc<ResponseRules>>,
}

impl RuleExtras {
    /// Nothing at all is kept as nothing.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// What is done for one share of a split: the filters of its backendRef behind those of the rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShareFilters {
    /// Both levels as one.
    pub filters: Filters,
    /// Answers in place of the backend.
    pub redirect: Option<Redirect>,
    /// Answers in place of the backend, where nothing redirects.
    pub response: Option<DirectResponse>,
    /// Copies of this share's requests, besides the rule's.
    pub mirrors: Vec<Mirror>,
    /// In place of the rule's.
    pub cors: Option<Cors>,
    /// Who is asked besides whom the rule asks.
    pub auth: Option<Arc<ExternalAuth>>,
}

/// ExternalAuth: another server is asked whether a request may pass (GEP-1494, HTTPExternalAuthFilter by HTTP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuth {
    /// Who is asked; where that is invalid nothing passes.
    pub target: Target,
    /// Stands in front of the request's path; normalised, without a `/` at its end, or empty.
    pub path: String,
    /// Fields of the request that go along besides those that always do, in lower case.
    pub request_headers: Vec<String>,
    /// Fields of the answer that the backend gets, in lower case; empty for all.
    pub response_headers: Vec<String>,
    /// Bytes of the body that go along at most; requests with more are refused. 0: none goes along.
    pub body_bytes: usize,
}

/// RequestMirror: a copy whose answer nobody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Where it goes.
    pub backend: BackendId,
    /// How many of how many requests are copied; the second is not zero.
    pub fraction: (u32, u32),
}

/// Sending a request again that an endpoint has failed (HTTPRouteRetry).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Statuses that count as failures.
    pub codes: Vec<u16>,
    /// How often, after the first time.
    pub attempts: u32,
    /// The least time before each.
    pub backoff: Duration,
}

/// CORS (HTTPCORSFilter).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Who may share.
    pub origins: Vec<OriginPattern>,
    /// With cookies and the like.
    pub credentials: bool,
    /// Methods; `*` alone for all.
    pub methods: Vec<String>,
    /// Request fields; `*` alone for all.
    pub headers: Vec<String>,
    /// Response fields that scripts see.
    pub expose: Vec<String>,
    /// Seconds for which the answer to a preflight holds.
    pub max_age: u32,
}

/// An origin as CORS filters write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// Scheme and host in lower case and the port.
    Origin {
        /// `http` or `https`.
        scheme: String,
        /// Without the part that a `*` in front stands for, which is anything, dots included.
        host: String,
        /// It begins with a `*`.
        wildcard: bool,
        /// The scheme's own where none is written.
        port: u16,
    },
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Sends it to one target of a weighted split.
    Forward(Vec<WeightedTarget>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers with this.
    Respond(DirectResponse),
    /// Answers with this status: a rule without backends, or with a filter that could not be honoured (500).
    Fail(u16),
}

/// An answer in place of a backend's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status, 200 to 599.
    pub status: u16,
    /// What the body is.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
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
    /// A pattern for the path of a method of gRPC, whatever its service: less specific than any service.
    Method(Regex),
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
            (Self::Regex(a), Self::Regex(b)) | (Self::Method(a), Self::Method(b)) => a.as_str() == b.as_str(),
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

impl HeaderModifier {
    /// What both do, `self` first.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        let find = |list: &[(String, String)], name: &str| list.iter().position(|(known, _)| known == name);
        let mut both = self.clone();
        for name in &later.remove {
            both.set.retain(|(known, _)| known != name);
            both.add.retain(|(known, _)| known != name);
            if !both.remove.contains(name) {
                both.remove.push(name.clone());
            }
        }
        for (name, value) in &later.set {
            both.remove.retain(|known| known != name);
            both.add.retain(|(known, _)| known != name);
            match find(&both.set, name) {
                Some(at) => both.set[at].1.clone_from(value),
                None => both.set.push((name.clone(), value.clone())),
            }
        }
        for (name, value) in &later.add {
            if let Some(at) = find(&both.set, name) {
                both.set[at].1 = format!("{},{value}", both.set[at].1);
            } else if let Some(at) = find(&both.add, name) {
                both.add[at].1 = format!("{},{value}", both.add[at].1);
            } else if both.remove.contains(name) {
                // Nothing of the name is left: what is added is all there is.
                both.remove.retain(|known| known != name);
                both.set.push((name.clone(), value.clone()));
            } else {
                both.add.push((name.clone(), value.clone()));
            }
        }
        both
    }
}

impl Filters {
    /// What both do, `self` first; where both rewrite the same thing, `later` does.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        let rewrite = match (&self.rewrite, &later.rewrite) {
            (Some(first), Some(second)) => Some(UrlRewrite {
                hostname: second.hostname.clone().or_else(|| first.hostname.clone()),
                path: second.path.clone().or_else(|| first.path.clone()),
            }),
            (first, second) => second.clone().or_else(|| first.clone()),
        };
        Self {
            request_headers: self.request_headers.then(&later.request_headers),
            response_headers: self.response_headers.then(&later.response_headers),
            rewrite,
        }
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
    /// Every match of a regular expression.
    ReplaceRegex(RegexRewrite),
}

/// A replacement by a regular expression: `ringway.dev HTTPRouteFilter`.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    /// Linear time.
    pub pattern: Regex,
    /// What stands in place of a match.
    pub substitution: Vec<Substitution>,
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substitution {
    /// As it is.
    Text(String),
    /// What a group of the pattern has captured; 0 is the whole match.
    Group(usize),
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.substitution == other.substitution
    }
}

impl Eq for RegexRewrite {}

impl Substitution {
    /// Parses `\1` and `$1` (also `${1}`) as groups, and `\\` and `$$` as themselves. `groups`: how many the pattern has,
    /// the whole match included.
    pub fn parse(text: &str, groups: usize) -> Result<Vec<Self>, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['\\', '$']) {
            let (before, marked) = rest.split_at(at);
            plain.push_str(before);
            let (mark, after) = marked.split_at(1);
            if let Some(after) = after.strip_prefix(mark) {
                plain.push_str(mark);
                rest = after;
                continue;
            }
            let (digits, left) = match after.strip_prefix('{').filter(|_| mark == "$") {
                Some(inside) => inside.split_once('}').ok_or("`${` without its `}`")?,
                None => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count().min(2)),
            };
            let group: usize = digits.parse().map_err(|_none| format!("`{mark}` without the number of a group"))?;
            if group >= groups {
                return Err(format!("the pattern has no group {group}"));
            }
            if !plain.is_empty() {
                parts.push(Self::Text(std::mem::take(&mut plain)));
            }
            parts.push(Self::Group(group));
            rest = left;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Self::Text(plain));
        }
        Ok(parts)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn modifier(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let remove = remove.iter().map(|name| (*name).to_owned()).collect();
        HeaderModifier { set: pairs(set), add: pairs(add), remove }
    }

    #[test]
    fn two_modifiers_are_one() {
        let first = modifier(&[("a", "1"), ("b", "1")], &[("c", "1"), ("d", "1")], &["e", "f", "g"]);
        let second =
            modifier(&[("c", "2"), ("e", "2")], &[("a", "2"), ("d", "2"), ("f", "2"), ("h", "2")], &["b", "i"]);
        let both = first.then(&second);
        assert_eq!(both.set, modifier(&[("a", "1,2"), ("c", "2"), ("e", "2"), ("f", "2")], &[], &[]).set);
        assert_eq!(both.add, modifier(&[], &[("d", "1,2"), ("h", "2")], &[]).add);
        assert_eq!(both.remove, ["g", "b", "i"]);
    }

    #[test]
    fn substitutions() {
        let group = Substitution::Group;
        let text = |text: &str| Substitution::Text(text.to_owned());
        assert_eq!(Substitution::parse(r"/\1/x$2", 3), Ok(vec![text("/"), group(1), text("/x"), group(2)]));
        assert_eq!(Substitution::parse("${1}0$$", 2), Ok(vec![group(1), text("0$")]));
        assert_eq!(Substitution::parse("", 1), Ok(vec![]));
        for bad in ["$", "\\x", "$3", "${1", "${x}"] {
            assert!(Substitution::parse(bad, 3).is_err(), "{bad}");
        }
    }
}
