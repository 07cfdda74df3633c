//! HTTPRoute.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use crate::control::read::{Cx, FromNode, Ignored, Int, List, choice, object};
use crate::control::source::{Span, Spanned};
use crate::control::yaml::{Node, Value};

use super::filter::{FilterType, HttpFilter, PathModifierType, check_filters};
use super::refs::{HttpBackendRef, ParentRef, check_parents};
use super::session::SessionPersistence;
use super::text::{Duration, HeaderName, Hostname, SectionName};

object! {
    /// `HTTPRoute.spec`.
    HttpRouteSpec = "HTTPRoute spec" {
        /// Where it attaches.
        parent_refs / "parentRefs": List<ParentRef, 0, 32> = or(List::default()),
        /// Which hosts it serves.
        hostnames / "hostnames": List<Spanned<Hostname>, 0, 16> = or(List::default()),
        /// What it does; absent: one rule that matches everything and has no backend.
        rules / "rules": List<HttpRule, 1, 16> = optional,
        /// Experimental; accepted and not used.
        use_default_gateways / "useDefaultGateways": Ignored = optional,
    }
    rules |this, cx| {
        check_parents(&this.parent_refs, cx);
        let matches: usize = this.rules.iter().flat_map(|rules| rules.iter()).map(|rule| rule.matches.len()).sum();
        let names = this.rules.iter().flat_map(|rules| rules.iter()).map(|rule| (rule.name.as_ref(), rule.span));
        check_rule_names(names, cx);
        if matches > 128 {
            cx.error(this.span, "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128");
        }
    }
}

object! {
    /// One rule.
    HttpRule = "rule" {
        /// Its name.
        name / "name": SectionName = optional,
        /// Any one of these selects it.
        matches / "matches": List<HttpMatch, 0, 64> = or(List::default()),
        /// What is done on the way.
        filters / "filters": List<HttpFilter, 0, 16> = or(List::default()),
        /// Where requests go.
        backend_refs / "backendRefs": List<HttpBackendRef, 0, 16> = or(List::default()),
        /// Deadlines.
        timeouts / "timeouts": Timeouts = optional,
        /// Experimental channel.
        retry / "retry": Retry = optional,
        /// Experimental channel.
        session_persistence / "sessionPersistence": SessionPersistence = optional,
    }
    rules |this, cx| {
        check_filters(&this.filters, cx);
        if !this.backend_refs.is_empty()
            && let Some(redirect) = this.filters.iter().find(|filter| filter.request_redirect.is_some())
        {
            cx.error(redirect.span, "RequestRedirect filter must not be used together with backendRefs");
        }
        let one_prefix = matches!(&*this.matches, [only] if only.path.as_ref().is_some_and(|path| path.kind == PathMatchType::PathPrefix));
        // The CRD's defaults make a rule without matches one with a single PathPrefix match.
        let one_prefix = one_prefix || this.matches.is_empty() || matches!(&*this.matches, [only] if only.path.is_none());
        if !one_prefix {
            for (filters, within) in std::iter::once((&this.filters, ""))
                .chain(this.backend_refs.iter().map(|target| (&target.filters, "Within backendRefs, ")))
            {
                prefix_rules(filters, within, cx);
            }
        }
    }
}

/// What policies and statuses call a rule by is one rule's (a rule of the experimental channel's CRD).
pub(super) fn check_rule_names<'r>(names: impl Iterator<Item = (Option<&'r SectionName>, Span)>, cx: &Cx<'_>) {
    let mut seen = HashSet::new();
    for (name, span) in names {
        if name.is_some_and(|name| !seen.insert(&name.0)) {
            cx.error(span, "Rule name must be unique within the route");
        }
    }
}

fn prefix_rules(filters: &[HttpFilter], within: &str, cx: &Cx<'_>) {
    for filter in filters {
        let (path, name) = match filter.kind.value {
            FilterType::RequestRedirect => {
                (filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref()), "RequestRedirect")
            }
            FilterType::UrlRewrite => {
                (filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()), "URLRewrite")
            }
            _ => continue,
        };
        if let Some(path) = path
            && path.kind == PathModifierType::ReplacePrefixMatch
        {
            let when = if within.is_empty() || name == "URLRewrite" { "When" } else { "when" };
            let message = format!(
                "{within}{when} using {name} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
            );
            cx.error(path.span, message);
        }
    }
}

object! {
    /// One match.
    HttpMatch = "match" {
        /// On the path; none: every path.
        path / "path": PathMatch = optional,
        /// On header fields.
        headers / "headers": List<ValueMatch, 0, 16> = or(List::default()),
        /// On query parameters.
        query_params / "queryParams": List<ValueMatch, 0, 16> = or(List::default()),
        /// On the method.
        method / "method": HttpMethod = optional,
    }
    rules |this, cx| {
        for (list, fold) in [(&this.headers, true), (&this.query_params, false)] {
            for (index, each) in list.iter().enumerate() {
                let same = |earlier: &ValueMatch| {
                    if fold { earlier.name.eq_ignore_ascii_case(&each.name) } else { earlier.name == each.name }
                };
                if let Some(earlier) = list[..index].iter().find(|earlier| same(earlier)) {
                    if earlier.name == each.name {
                        cx.error(each.span, format!("Duplicate value: {{\"name\":\"{}\"}}", &*each.name));
                    } else {
                        cx.warning(each.span, format!("`{}` is matched already: only the first entry counts", &*each.name));
                    }
                }
            }
        }
    }
}

choice! {
    /// How a path is matched.
    PathMatchType {
        /// The whole path.
        Exact = "Exact",
        /// By elements.
        PathPrefix = "PathPrefix",
        /// By a pattern.
        RegularExpression = "RegularExpression",
    }
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq)]
pub struct PathMatch {
    /// How.
    pub kind: PathMatchType,
    /// Against what.
    pub value: String,
    /// The compiled pattern of a regular expression.
    pub regex: Option<Pattern>,
    /// A GRPCRoute names a method and no service.
    pub any_service: bool,
}

/// A compiled pattern, anchored at both ends.
#[derive(Debug, Clone)]
pub struct Pattern(pub regex::bytes::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// The text of a scalar, with variables replaced unless it is a regular expression, in which `$` means something.
fn text_of(node: &Node, cx: &Cx<'_>, verbatim: bool) -> Option<String> {
    if verbatim { Some(crate::control::read::Verbatim::from_node(node, cx)?.0) } else { String::from_node(node, cx) }
}

fn compile(node: &Node, cx: &Cx<'_>, text: &str) -> Option<Pattern> {
    match regex::bytes::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build() {
        Ok(regex) => Some(Pattern(regex)),
        Err(error) => {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or("not a regular expression").trim_start_matches("error: ");
            cx.report(
                crate::control::source::Diagnostic::error(node.span, format!("not a regular expression: {last}"))
                    .help("the syntax is RE2's: no look-around, no back-references"),
            );
            None
        }
    }
}

impl FromNode for PathMatch {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = crate::control::read::Object::open(node, cx)?;
        let kind: Option<PathMatchType> =
            object.optional("type").map(|found| found.unwrap_or(PathMatchType::PathPrefix));
        let value: Option<Option<RawNode>> = object.optional("value");
        let known = object.finish("path match");
        let kind = kind?;
        let Some(RawNode(value)) = value? else {
            return known.then(|| Self { kind, value: "/".to_owned(), regex: None, any_service: false });
        };
        let text = text_of(&value, cx, kind == PathMatchType::RegularExpression)?;
        if text.chars().count() > 1024 {
            cx.error(value.span, "too long: may not be more than 1024 characters");
            return None;
        }
        if kind == PathMatchType::RegularExpression {
            let regex = compile(&value, cx, &text)?;
            return known.then_some(Self { kind, value: text, regex: Some(regex), any_service: false });
        }
        check_path(&value, cx, &text).then_some(())?;
        known.then_some(Self { kind, value: text, regex: None, any_service: false })
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {
                "type": PathMatchType::schema(),
                "value": { "type": "string", "maxLength": 1024, "description": "The path, or the pattern." },
            },
            "additionalProperties": false,
        })
    }
}

fn check_path(node: &Node, cx: &Cx<'_>, path: &str) -> bool {
    static VALID: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$").expect("a constant"));
    const WHEN: &str = "when type one of ['Exact', 'PathPrefix']";
    let mut good = true;
    let mut refuse = |message: String| {
        cx.error(node.span, message);
        good = false;
    };
    if !path.starts_with('/') {
        refuse(format!("value must be an absolute path and start with '/' {WHEN}"));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if path.contains(part) {
            refuse(format!("must not contain '{part}' {WHEN}"));
        }
    }
    for end in ["/..", "/."] {
        if path.ends_with(end) {
            refuse(format!("must not end with '{end}' {WHEN}"));
        }
    }
    if !VALID.is_match(path) {
        refuse(format!(
            "must only contain valid characters (matching {}) for types ['Exact', 'PathPrefix']",
            VALID.as_str()
        ));
    }
    good
}

/// A node to be read later, when it is known how.
struct RawNode(Node);

impl FromNode for RawNode {
    fn from_node(node: &Node, _: &Cx<'_>) -> Option<Self> {
        Some(Self(node.clone()))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string" })
    }
}

choice! {
    /// How a value is matched.
    ValueMatchType {
        /// Equal.
        Exact = "Exact",
        /// By a pattern.
        RegularExpression = "RegularExpression",
    }
}

/// A condition on a header field or query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueMatch {
    /// Where it stands.
    pub span: Span,
    /// The field's or parameter's name.
    pub name: HeaderName,
    /// Against what.
    pub value: String,
    /// The compiled pattern of a regular expression.
    pub regex: Option<Pattern>,
}

impl FromNode for ValueMatch {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = crate::control::read::Object::open(node, cx)?;
        let kind: Option<ValueMatchType> = object.optional("type").map(|found| found.unwrap_or(ValueMatchType::Exact));
        let name: Option<HeaderName> = object.required("name");
        let value: Option<RawNode> = object.required("value");
        let known = object.finish("match");
        let (kind, name, RawNode(value)) = (kind?, name?, value?);
        let text = text_of(&value, cx, kind == ValueMatchType::RegularExpression)?;
        if text.is_empty() || text.chars().count() > 4096 {
            cx.error(value.span, "should be 1 to 4096 characters long");
            return None;
        }
        let regex = match kind {
            ValueMatchType::Exact => None,
            ValueMatchType::RegularExpression => Some(compile(&value, cx, &text)?),
        };
        if matches!(&value.value, Value::List(_) | Value::Map(_)) {
            return None;
        }
        known.then_some(Self { span: node.span, name, value: text, regex })
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {
                "type": ValueMatchType::schema(),
                "name": HeaderName::schema(),
                "value": { "type": "string", "minLength": 1, "maxLength": 4096, "description": "The value, or the pattern." },
            },
            "required": ["name", "value"],
            "additionalProperties": false,
        })
    }
}

choice! {
    /// A method.
    HttpMethod {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// CONNECT.
        Connect = "CONNECT",
        /// OPTIONS.
        Options = "OPTIONS",
        /// TRACE.
        Trace = "TRACE",
        /// PATCH.
        Patch = "PATCH",
    }
}

object! {
    /// Sending again what an endpoint has failed.
    Retry = "retry" {
        /// Statuses that count as failures.
        codes / "codes": List<Int<400, 599>, 0, 200> = or(List::default()),
        /// How often.
        attempts / "attempts": Int<1, 1000> = optional,
        /// The least time before each.
        backoff / "backoff": Duration = optional,
    }
}

object! {
    /// Deadlines.
    Timeouts = "timeouts" {
        /// Of the whole exchange.
        request / "request": Duration = optional,
        /// Of one request to a backend.
        backend_request / "backendRequest": Duration = optional,
    }
    rules |this, cx| {
        if let (Some(request), Some(backend)) = (this.request, this.backend_request)
            && request.limit().is_some()
            && backend > request
        {
            cx.error(this.span, "backendRequest timeout cannot be longer than request timeout");
        }
    }
}
