//! GRPCRoute. A gRPC call is a POST to `/service/method`, so a GRPCRoute is read as the HTTPRoute that says the same.

use std::sync::LazyLock;

use regex::Regex;

use crate::control::read::{Cx, FromNode, Ignored, List, Object, choice, object};
use crate::control::source::{Diagnostic, Span, Spanned};
use crate::control::yaml::Node;

use super::filter::{FilterType, HttpFilter, check_filters};
use super::http_route::{
    HttpMatch, HttpMethod, HttpRouteSpec, HttpRule, PathMatch, PathMatchType, Pattern, ValueMatch, check_rule_names,
};
use super::refs::{HttpBackendRef, ParentRef, check_parents};
use super::session::SessionPersistence;
use super::text::{Hostname, SectionName};

object! {
    /// `GRPCRoute.spec`.
    GrpcRouteSpec = "GRPCRoute spec" {
        /// Where it attaches.
        parent_refs / "parentRefs": List<ParentRef, 0, 32> = or(List::default()),
        /// Which hosts it serves.
        hostnames / "hostnames": List<Spanned<Hostname>, 0, 16> = or(List::default()),
        /// What it does.
        rules / "rules": List<GrpcRule, 0, 16> = or(List::default()),
        /// Experimental; accepted and not used.
        use_default_gateways / "useDefaultGateways": Ignored = optional,
    }
    rules |this, cx| {
        check_parents(&this.parent_refs, cx);
        let matches: usize = this.rules.iter().map(|rule| rule.matches.len()).sum();
        check_rule_names(this.rules.iter().map(|rule| (rule.name.as_ref(), rule.span)), cx);
        if matches > 128 {
            cx.error(this.span, "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128");
        }
    }
}

object! {
    /// One rule.
    GrpcRule = "rule" {
        /// Its name.
        name / "name": SectionName = optional,
        /// Any one of these selects it.
        matches / "matches": List<GrpcMatch, 0, 64> = or(List::default()),
        /// What is done on the way.
        filters / "filters": List<HttpFilter, 0, 16> = or(List::default()),
        /// Where calls go.
        backend_refs / "backendRefs": List<HttpBackendRef, 0, 16> = or(List::default()),
        /// Experimental channel.
        session_persistence / "sessionPersistence": SessionPersistence = optional,
    }
    rules |this, cx| {
        check_filters(&this.filters, cx);
        let all = this.filters.iter().chain(this.backend_refs.iter().flat_map(|target| target.filters.iter()));
        for filter in all {
            let kind = filter.kind.value;
            if matches!(kind, FilterType::RequestRedirect | FilterType::UrlRewrite | FilterType::Cors) {
                let known = "\"RequestHeaderModifier\", \"ResponseHeaderModifier\", \"RequestMirror\", \"ExtensionRef\"";
                let message = format!("unsupported value \"{}\": supported values: {known}", kind.as_str());
                cx.error(filter.kind.span, message);
            }
        }
    }
}

object! {
    /// One match.
    GrpcMatch = "match" {
        /// On the method; none: every one.
        method / "method": MethodMatch = optional,
        /// On metadata.
        headers / "headers": List<ValueMatch, 0, 16> = or(List::default()),
    }
}

choice! {
    /// How a method is matched.
    MethodMatchType {
        /// Equal.
        Exact = "Exact",
        /// By a pattern.
        RegularExpression = "RegularExpression",
    }
}

/// A condition on the method, as one on the path.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodMatch(PathMatch);

impl FromNode for MethodMatch {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = Object::open(node, cx)?;
        let kind: Option<Option<MethodMatchType>> = object.optional("type");
        let service: Option<Option<Spanned<String>>> = object.optional("service");
        let method: Option<Option<Spanned<String>>> = object.optional("method");
        let known = object.finish("method match");
        let kind = kind?.unwrap_or(MethodMatchType::Exact);
        let (service, method) = (service?, method?);
        // Empty is as good as absent to the API's rules.
        let given = |text: Option<Spanned<String>>| text.filter(|text| !text.value.is_empty());
        let (service, method) = (given(service), given(method));
        if service.is_none() && method.is_none() {
            cx.error(node.span, "One or both of 'service' or 'method' must be specified");
            return None;
        }
        let path = match kind {
            MethodMatchType::Exact => exact(service.as_ref(), method.as_ref(), cx)?,
            MethodMatchType::RegularExpression => pattern(node.span, service.as_ref(), method.as_ref(), cx)?,
        };
        known.then_some(Self(path))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {
                "type": MethodMatchType::schema(),
                "service": { "type": "string", "description": "The full name of the gRPC service." },
                "method": { "type": "string", "description": "The gRPC method." },
            },
            "additionalProperties": false,
        })
    }
}

fn exact(service: Option<&Spanned<String>>, method: Option<&Spanned<String>>, cx: &Cx<'_>) -> Option<PathMatch> {
    static SERVICE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$").expect("a constant"));
    static METHOD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[A-Za-z_][A-Za-z_0-9]*$").expect("a constant"));
    let mut good = true;
    for (text, valid, name) in [(service, &SERVICE, "service"), (method, &METHOD, "method")] {
        if let Some(text) = text
            && (!valid.is_match(&text.value) || text.value.len() > 1024)
        {
            let message = format!("{name} must only contain valid characters (matching {})", valid.as_str());
            cx.error(text.span, message);
            good = false;
        }
    }
    good.then_some(())?;
    Some(match (service.map(|text| text.value.as_str()), method.map(|text| text.value.as_str())) {
        (Some(service), Some(method)) => PathMatch {
            kind: PathMatchType::Exact,
            value: format!("/{service}/{method}"),
            regex: None,
            any_service: false,
        },
        (Some(service), None) => {
            PathMatch { kind: PathMatchType::PathPrefix, value: format!("/{service}"), regex: None, any_service: false }
        }
        (None, method) => compiled(None, method).ok()?,
    })
}

fn pattern(
    span: Span,
    service: Option<&Spanned<String>>,
    method: Option<&Spanned<String>>,
    cx: &Cx<'_>,
) -> Option<PathMatch> {
    let text = |found: Option<&'_ Spanned<String>>| found.map(|found| found.value.clone());
    match compiled(text(service).as_deref(), text(method).as_deref()) {
        Ok(path) => Some(path),
        Err(error) => {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or("not a regular expression").trim_start_matches("error: ");
            cx.report(
                Diagnostic::error(span, format!("not a regular expression: {last}"))
                    .help("the syntax is RE2's: no look-around, no back-references"),
            );
            None
        }
    }
}

/// What is not given is whatever is there.
fn compiled(service: Option<&str>, method: Option<&str>) -> Result<PathMatch, regex::Error> {
    let text = format!("/(?:{})/(?:{})", service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+"));
    let regex = regex::bytes::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build()?;
    Ok(PathMatch {
        kind: PathMatchType::RegularExpression,
        value: text,
        regex: Some(Pattern(regex)),
        any_service: service.is_none(),
    })
}

impl From<GrpcRouteSpec> for HttpRouteSpec {
    fn from(spec: GrpcRouteSpec) -> Self {
        let rules: Vec<HttpRule> = spec.rules.0.into_iter().map(HttpRule::from).collect();
        Self {
            span: spec.span,
            parent_refs: spec.parent_refs,
            hostnames: spec.hostnames,
            rules: (!rules.is_empty()).then_some(List(rules)),
            use_default_gateways: spec.use_default_gateways,
        }
    }
}

impl From<GrpcRule> for HttpRule {
    fn from(rule: GrpcRule) -> Self {
        let matches = rule.matches.0.into_iter().map(|found| HttpMatch {
            span: found.span,
            path: found.method.map(|MethodMatch(path)| path),
            headers: found.headers,
            query_params: List::default(),
            method: Some(HttpMethod::Post),
        });
        let mut matches: Vec<HttpMatch> = matches.collect();
        if matches.is_empty() {
            matches.push(HttpMatch {
                span: rule.span,
                path: None,
                headers: List::default(),
                query_params: List::default(),
                method: Some(HttpMethod::Post),
            });
        }
        Self {
            span: rule.span,
            name: rule.name,
            matches: List(matches),
            filters: rule.filters,
            backend_refs: rule.backend_refs,
            timeouts: None,
            retry: None,
            session_persistence: rule.session_persistence,
        }
    }
}
