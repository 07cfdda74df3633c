//! GRPCRoute. A gRPC call is a POST to `/service/method`, so a GRPCRoute is read as the HTTPRoute that says the same.

use std::sync::LazyLock;

use regex::Regex;

use crate::control::read::{Cx, FromNode, Ignored, Int, List, Object, choice, object};
use crate::control::source::{Diagnostic, Span, Spanned};
use crate::control::yaml::Node;

use super::filter::{ExtensionRef, FilterType, HeaderFilter, HttpFilter, Mirror, check_parts};
use super::http_route::{
    HttpMatch, HttpMethod, HttpRouteSpec, HttpRule, PathMatch, PathMatchType, Pattern, ValueMatch, check_rule_names,
};
use super::refs::{HttpBackendRef, ParentRef, Weight, check_parents, must_have_port};
use super::session::SessionPersistence;
use super::text::{Group, Hostname, Kind, Namespace, ObjectName, Port, SectionName};

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
        filters / "filters": List<GrpcFilter, 0, 16> = or(List::default()),
        /// Where calls go.
        backend_refs / "backendRefs": List<GrpcBackendRef, 0, 16> = or(List::default()),
        /// Experimental channel.
        session_persistence / "sessionPersistence": SessionPersistence = optional,
    }
    rules |this, cx| {
        check_filters(&this.filters, cx);
    }
}

choice! {
    /// A filter's type.
    GrpcFilterType {
        /// Changes the call's metadata.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Changes the answer's initial metadata.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Sends a copy of the call elsewhere.
        RequestMirror = "RequestMirror",
        /// Defined by an object of another group.
        ExtensionRef = "ExtensionRef",
    }
}

object! {
    /// A filter.
    GrpcFilter = "filter" {
        /// Which of the others is given.
        kind / "type": Spanned<GrpcFilterType> = required,
        /// For `RequestHeaderModifier`.
        request_header_modifier / "requestHeaderModifier": HeaderFilter = optional,
        /// For `ResponseHeaderModifier`.
        response_header_modifier / "responseHeaderModifier": HeaderFilter = optional,
        /// For `RequestMirror`.
        request_mirror / "requestMirror": Mirror = optional,
        /// For `ExtensionRef`.
        extension_ref / "extensionRef": ExtensionRef = optional,
    }
    rules |this, cx| {
        let parts = [
            ("RequestHeaderModifier", "requestHeaderModifier", this.request_header_modifier.is_some()),
            ("ResponseHeaderModifier", "responseHeaderModifier", this.response_header_modifier.is_some()),
            ("RequestMirror", "requestMirror", this.request_mirror.is_some()),
            ("ExtensionRef", "extensionRef", this.extension_ref.is_some()),
        ];
        check_parts(this.span, this.kind.value.as_str(), &parts, cx);
    }
}

fn check_filters(filters: &[GrpcFilter], cx: &Cx<'_>) {
    for kind in [GrpcFilterType::RequestHeaderModifier, GrpcFilterType::ResponseHeaderModifier] {
        if let Some(second) = filters.iter().filter(|filter| filter.kind.value == kind).nth(1) {
            cx.error(second.kind.span, format!("{} filter cannot be repeated", kind.as_str()));
        }
    }
}

object! {
    /// A weighted target of a rule.
    GrpcBackendRef = "backendRef" {
        /// The target's group.
        group / "group": Group = or(Group(String::new())),
        /// The target's kind.
        kind / "kind": Kind = or(Kind("Service".to_owned())),
        /// The target's namespace; none: the route's.
        namespace / "namespace": Namespace = optional,
        /// The target's name.
        name / "name": ObjectName = required,
        /// The Service's port.
        port / "port": Port = optional,
        /// Its share.
        weight / "weight": Weight = or(Int(1)),
        /// Filters for this target only.
        filters / "filters": List<GrpcFilter, 0, 16> = or(List::default()),
    }
    rules |this, cx| {
        must_have_port(&this.group, &this.kind, this.port, this.span, cx);
        check_filters(&this.filters, cx);
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

fn http_filters(filters: List<GrpcFilter, 0, 16>) -> List<HttpFilter, 0, 16> {
    List(filters.0.into_iter().map(HttpFilter::from).collect())
}

impl From<GrpcFilter> for HttpFilter {
    fn from(filter: GrpcFilter) -> Self {
        let kind = match filter.kind.value {
            GrpcFilterType::RequestHeaderModifier => FilterType::RequestHeaderModifier,
            GrpcFilterType::ResponseHeaderModifier => FilterType::ResponseHeaderModifier,
            GrpcFilterType::RequestMirror => FilterType::RequestMirror,
            GrpcFilterType::ExtensionRef => FilterType::ExtensionRef,
        };
        Self {
            span: filter.span,
            kind: Spanned { span: filter.kind.span, value: kind },
            request_header_modifier: filter.request_header_modifier,
            response_header_modifier: filter.response_header_modifier,
            request_mirror: filter.request_mirror,
            request_redirect: None,
            url_rewrite: None,
            extension_ref: filter.extension_ref,
            cors: None,
            external_auth: None,
        }
    }
}

impl From<GrpcBackendRef> for HttpBackendRef {
    fn from(target: GrpcBackendRef) -> Self {
        Self {
            span: target.span,
            group: target.group,
            kind: target.kind,
            namespace: target.namespace,
            name: target.name,
            port: target.port,
            weight: target.weight,
            filters: http_filters(target.filters),
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
            filters: http_filters(rule.filters),
            backend_refs: List(rule.backend_refs.0.into_iter().map(HttpBackendRef::from).collect()),
            timeouts: None,
            retry: None,
            session_persistence: rule.session_persistence,
        }
    }
}
