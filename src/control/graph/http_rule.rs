//! HTTPRoute rules to the model's: matches, filters, splits.

use ringway_core::model::{
    Action, Filters, HeaderMatch, HeaderModifier, HttpMatch, HttpRule, PathMatch, PathModifier, QueryMatch, Redirect,
    RedirectPort, RouteTimeouts, UrlRewrite, ValueMatch, WeightedTarget,
};

use crate::control::resources::Resource;
use crate::control::resources::filter::{
    FilterType, HeaderFilter, HttpFilter, HttpHeader, PathModifierType, RequestRedirect, UrlRewrite as Rewrite,
};
use crate::control::resources::http_route::{self as route, HttpRouteSpec, PathMatchType};
use crate::control::resources::refs::Weight;

use super::backend_ref::{Backends, Referrer, Wanted};
use super::{Problem, Report};

/// The rules of a route.
pub(super) struct Built {
    pub(super) rules: Vec<HttpRule>,
    pub(super) unresolved: Option<Problem>,
    pub(super) partly_invalid: Option<Problem>,
}

/// Translates them. A filter that cannot be honoured makes its rule answer 500, as the API asks.
pub(super) fn rules(object: &Resource<HttpRouteSpec>, backends: &mut Backends<'_>, report: &mut Report) -> Built {
    let mut built = Built { rules: Vec::new(), unresolved: None, partly_invalid: None };
    let name = format!("HTTPRoute {}", object.meta.full_name());
    let Some(rules) = &object.spec.rules else {
        // The CRD's default: one rule that matches everything, without backends.
        built.rules.push(HttpRule {
            matches: vec![HttpMatch::default()],
            filters: Filters::default(),
            action: Action::Fail(500),
            timeouts: RouteTimeouts::default(),
        });
        report.warning(object.meta.span, format!("{name} has no rules: it answers 500"));
        return built;
    };
    let referrer = Referrer { kind: "HTTPRoute", namespace: &object.meta.namespace };
    for rule in rules.iter() {
        for (field, what) in [(&rule.retry, "retry"), (&rule.session_persistence, "sessionPersistence")] {
            if let Some(field) = field {
                report.warning(field.span, format!("{name}: {what} is not served yet"));
            }
        }
        let unsupported = rule.filters.iter().find(|filter| !is_served(filter));
        let redirect = rule.filters.iter().find_map(|filter| filter.request_redirect.as_ref());
        let split = split(rule, &referrer, backends, &mut built, report, &name);
        let action = if let Some(filter) = unsupported {
            let message =
                format!("{name}: filter {} is not served yet: the rule answers 500", filter.kind.value.as_str());
            report.warning(filter.kind.span, message.clone());
            built.partly_invalid.get_or_insert_with(|| Problem::new("UnsupportedValue", message));
            Action::Fail(500)
        } else if let Some(redirect) = redirect {
            Action::Redirect(to_redirect(redirect))
        } else if split.is_empty() {
            report.warning(rule.span, format!("{name}: a rule without backendRefs answers 500"));
            Action::Fail(500)
        } else {
            Action::Forward(split)
        };
        built.rules.push(HttpRule {
            matches: if rule.matches.is_empty() {
                vec![HttpMatch::default()]
            } else {
                rule.matches.iter().map(to_match).collect()
            },
            filters: to_filters(&rule.filters),
            action,
            timeouts: rule.timeouts.as_ref().map_or_else(RouteTimeouts::default, |timeouts| RouteTimeouts {
                request: timeouts.request.and_then(|found| found.limit()),
                backend_request: timeouts.backend_request.and_then(|found| found.limit()),
            }),
        });
    }
    built
}

fn split(
    rule: &route::HttpRule,
    referrer: &Referrer<'_>,
    backends: &mut Backends<'_>,
    built: &mut Built,
    report: &mut Report,
    name: &str,
) -> Vec<WeightedTarget> {
    rule.backend_refs
        .iter()
        .map(|each| {
            let mut target = backends.resolve(referrer, &Wanted::of_http(each), &mut built.unresolved, report);
            if let Some(filter) = each.filters.first() {
                let message = format!("{name}: filters of a backendRef are not served yet: its share answers 500");
                report.warning(filter.span, message.clone());
                built.partly_invalid.get_or_insert_with(|| Problem::new("UnsupportedValue", message));
                target = ringway_core::model::Target::Invalid;
            }
            WeightedTarget { weight: weight(each.weight), target }
        })
        .collect()
}

/// A weight as the model's.
pub(super) fn weight(weight: Weight) -> u32 {
    u32::try_from(weight.0).expect("0 to 1,000,000")
}

fn is_served(filter: &HttpFilter) -> bool {
    match filter.kind.value {
        FilterType::RequestHeaderModifier
        | FilterType::ResponseHeaderModifier
        | FilterType::RequestRedirect
        | FilterType::UrlRewrite => true,
        FilterType::RequestMirror | FilterType::ExtensionRef | FilterType::Cors => false,
    }
}

fn to_match(found: &route::HttpMatch) -> HttpMatch {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for each in &*found.headers {
        let name = each.name.to_lowercase();
        // Only the first entry of a name counts.
        if !headers.iter().any(|known| known.name == name) {
            headers.push(HeaderMatch { name, value: to_value(each) });
        }
    }
    HttpMatch {
        path: found.path.as_ref().map_or_else(PathMatch::default, |path| match (path.kind, &path.regex) {
            (PathMatchType::RegularExpression, Some(regex)) => PathMatch::Regex(regex.0.clone()),
            (PathMatchType::Exact, _) => PathMatch::Exact(normal(&path.value)),
            _ => PathMatch::Prefix(normal(&path.value)),
        }),
        method: found.method.map(|method| method.as_str().to_owned()),
        headers,
        query: found
            .query_params
            .iter()
            .map(|each| QueryMatch { name: each.name.0.clone(), value: to_value(each) })
            .collect(),
    }
}

/// Requests are matched in their normal form, so what they are matched against is brought into it too.
fn normal(path: &str) -> String {
    ringway_core::http1::normal_path(path).unwrap_or_else(|| path.to_owned())
}

fn to_value(found: &route::ValueMatch) -> ValueMatch {
    match &found.regex {
        Some(regex) => ValueMatch::Regex(regex.0.clone()),
        None => ValueMatch::Exact(found.value.clone()),
    }
}

fn to_filters(filters: &[HttpFilter]) -> Filters {
    let mut all = Filters::default();
    for filter in filters {
        if let Some(found) = &filter.request_header_modifier {
            all.request_headers = to_modifier(found);
        }
        if let Some(found) = &filter.response_header_modifier {
            all.response_headers = to_modifier(found);
        }
        if let Some(found) = &filter.url_rewrite {
            all.rewrite = Some(to_rewrite(found));
        }
    }
    all
}

/// One action per name: where several are given, removing wins over setting, and setting over adding.
fn to_modifier(found: &HeaderFilter) -> HeaderModifier {
    let lower = |header: &HttpHeader| (header.name.to_lowercase(), header.value.0.trim().to_owned());
    let remove: Vec<String> = found.remove.iter().map(|name| name.value.to_lowercase()).collect();
    let set: Vec<_> = found.set.iter().map(lower).filter(|(name, _)| !remove.contains(name)).collect();
    let is_set = |name: &String| set.iter().any(|(known, _)| known == name);
    let add = found.add.iter().map(lower).filter(|(name, _)| !remove.contains(name) && !is_set(name)).collect();
    HeaderModifier { set, add, remove }
}

fn to_rewrite(found: &Rewrite) -> UrlRewrite {
    UrlRewrite {
        hostname: found.hostname.as_ref().map(|hostname| hostname.0.clone()),
        path: found.path.as_ref().map(to_path),
    }
}

fn to_path(found: &crate::control::resources::filter::PathModifier) -> PathModifier {
    let text = |value: &Option<crate::control::resources::text::FilterPath>| {
        value.as_ref().map(|path| path.0.clone()).unwrap_or_default()
    };
    match found.kind {
        PathModifierType::ReplaceFullPath => PathModifier::ReplaceFull(text(&found.replace_full_path)),
        PathModifierType::ReplacePrefixMatch => PathModifier::ReplacePrefix(text(&found.replace_prefix_match)),
    }
}

fn to_redirect(found: &RequestRedirect) -> Redirect {
    Redirect {
        scheme: found.scheme.map(|scheme| scheme.as_str().to_owned()),
        hostname: found.hostname.as_ref().map(|hostname| hostname.0.clone()),
        path: found.path.as_ref().map(to_path),
        port: match (found.port, found.scheme) {
            (Some(port), _) => RedirectPort::Explicit(port.get()),
            (None, Some(_)) => RedirectPort::OfScheme,
            // The listener's, filled in where the route attaches.
            (None, None) => RedirectPort::Listener(0),
        },
        status: found.status.as_ref().map_or(302, |status| u16::try_from(status.value.0).expect("up to 999")),
    }
}
