//! HTTPRoute rules to the model's: matches, filters, splits.

use std::sync::Arc;
use std::time::Duration;

use ringway_core::model::{
    Action, Cors, DirectResponse, ExternalAuth, Filters, HeaderMatch, HeaderModifier, HttpMatch, HttpRule, Mirror,
    PathMatch, PathModifier, QueryMatch, Redirect, RedirectPort, Retry, RouteTimeouts, RuleExtras, Session,
    SessionCarrier, ShareFilters, Target, UrlRewrite, ValueMatch, WeightedTarget,
};

use crate::control::resources::filter::{
    self, ExtensionRef, ExternalAuthProtocol, HeaderFilter, HttpFilter, HttpHeader, PathModifierType, RequestRedirect,
    UrlRewrite as Rewrite,
};
use crate::control::resources::http_route::{self as route, HttpRouteSpec, PathMatchType};
use crate::control::resources::refs::{RINGWAY_GROUP, Weight};
use crate::control::resources::route_filter::MAX_BODY;
use crate::control::resources::text::HeaderName;
use crate::control::resources::tls::LocalObjectRef;
use crate::control::resources::{Resource, Resources};

use super::backend_ref::{Backends, Referrer, Wanted};
use super::{Problem, Report, session};

/// The rules of a route.
pub(super) struct Built {
    pub(super) rules: Vec<HttpRule>,
    pub(super) unresolved: Option<Problem>,
    pub(super) partly_invalid: Option<Problem>,
    /// The route is not accepted as a whole: none of its rules can be honoured.
    pub(super) refused: Option<Problem>,
}

/// Translates them. A filter that cannot be honoured makes its rule answer 500, as the API asks.
pub(super) fn rules(
    kind: &'static str,
    object: &Resource<HttpRouteSpec>,
    backends: &mut Backends<'_>,
    report: &mut Report,
) -> Built {
    let name = format!("{kind} {}", object.meta.full_name());
    let Some(rules) = &object.spec.rules else {
        // The CRD's default: one rule that matches everything, without backends.
        report.warning(object.meta.span, format!("{name} has no rules: it answers 500"));
        let rules = vec![HttpRule {
            matches: vec![HttpMatch::default()],
            filters: Filters::default(),
            action: Action::Fail(500),
            timeouts: RouteTimeouts::default(),
            extras: None,
        }];
        return Built { rules, unresolved: None, partly_invalid: None, refused: None };
    };
    let referrer = Referrer { kind, namespace: &object.meta.namespace };
    let route = format!("{kind}/{}", object.meta.full_name());
    let mut builder = Builder { name, route, referrer, backends, report, unresolved: None, invalid: None };
    let mut broken = 0;
    let built: Vec<HttpRule> = rules
        .iter()
        .map(|rule| {
            let (rule, honoured) = builder.rule(rule);
            broken += usize::from(!honoured);
            rule
        })
        .collect();
    same_cookies(rules, &built, builder.report);
    let (refused, partly_invalid) =
        if broken == built.len() { (builder.invalid.take(), None) } else { (None, builder.invalid.take()) };
    Built { rules: built, unresolved: builder.unresolved, partly_invalid, refused }
}

/// What the rules of a route are made with, and what is found on the way.
struct Builder<'b, 'r> {
    /// `HTTPRoute namespace/name`
    name: String,
    /// `HTTPRoute/namespace/name`
    route: String,
    referrer: Referrer<'b>,
    backends: &'b mut Backends<'r>,
    report: &'b mut Report,
    unresolved: Option<Problem>,
    invalid: Option<Problem>,
}

/// What the filters of a rule or of a backendRef come to.
#[derive(Default)]
struct Filtered {
    filters: Filters,
    redirect: Option<Redirect>,
    response: Option<DirectResponse>,
    mirrors: Vec<Mirror>,
    cors: Option<Cors>,
    auth: Option<Arc<ExternalAuth>>,
    /// One of them cannot be honoured.
    broken: bool,
}

impl Builder<'_, '_> {
    /// A rule, and whether it can be honoured.
    fn rule(&mut self, rule: &route::HttpRule) -> (HttpRule, bool) {
        let filtered = self.filters(&rule.filters);
        let (split, shares) = self.split(rule, &filtered.filters);
        let action = if filtered.broken {
            Action::Fail(500)
        } else if let Some(redirect) = filtered.redirect {
            Action::Redirect(redirect)
        } else if let Some(response) = filtered.response {
            Action::Respond(response)
        } else if split.is_empty() {
            self.report.warning(rule.span, format!("{}: a rule without backendRefs answers 500", self.name));
            Action::Fail(500)
        } else {
            Action::Forward(split)
        };
        let matches = matches(rule);
        let extras = RuleExtras {
            shares,
            mirrors: filtered.mirrors,
            cors: filtered.cors,
            auth: filtered.auth,
            retry: rule.retry.as_ref().map(to_retry),
            session: self.session(rule, &matches).filter(|_| matches!(action, Action::Forward(_))),
            ..RuleExtras::default()
        };
        let built = HttpRule {
            matches,
            filters: filtered.filters,
            action,
            timeouts: rule.timeouts.as_ref().map_or_else(RouteTimeouts::default, |timeouts| RouteTimeouts {
                request: timeouts.request.and_then(|found| found.limit()),
                backend_request: timeouts.backend_request.and_then(|found| found.limit()),
            }),
            extras: extras.boxed(),
        };
        (built, !filtered.broken)
    }

    /// What its clients are kept at their endpoints by. A rule whose sessions cannot be had is served without.
    fn session(&mut self, rule: &route::HttpRule, matches: &[HttpMatch]) -> Option<Box<Session>> {
        let spec = rule.session_persistence.as_ref()?;
        let name = rule.name.as_ref().map(|name| name.0.as_str());
        match session::session(spec, session::scope(&self.route, name, matches), false) {
            Ok(found) => Some(Box::new(found)),
            Err(why) => {
                let message = format!("{}: {why}: the rule keeps no sessions", self.name);
                self.report.warning(spec.span, message.clone());
                self.invalid.get_or_insert_with(|| Problem::new("UnsupportedValue", message));
                None
            }
        }
    }

    /// The split, and what its shares have of their own.
    fn split(&mut self, rule: &route::HttpRule, common: &Filters) -> (Vec<WeightedTarget>, Vec<Option<ShareFilters>>) {
        let mut split = Vec::new();
        let mut shares = Vec::new();
        for each in &*rule.backend_refs {
            let wanted = Wanted::from(each);
            let mut target = self.backends.resolve(&self.referrer, &wanted, &mut self.unresolved, self.report);
            let mut share = None;
            if !each.filters.is_empty() {
                let own = self.filters(&each.filters);
                if own.broken {
                    target = Target::Invalid;
                }
                share = Some(ShareFilters {
                    filters: common.then(&own.filters),
                    redirect: own.redirect,
                    response: own.response,
                    mirrors: own.mirrors,
                    cors: own.cors,
                    auth: own.auth,
                });
            }
            split.push(WeightedTarget { weight: weight(each.weight), target });
            shares.push(share);
        }
        if shares.iter().all(Option::is_none) {
            shares.clear();
        }
        (split, shares)
    }

    fn filters(&mut self, filters: &[HttpFilter]) -> Filtered {
        let mut all = Filtered::default();
        for filter in filters {
            if let Some(found) = &filter.request_header_modifier {
                all.filters.request_headers = to_modifier(found);
            }
            if let Some(found) = &filter.response_header_modifier {
                all.filters.response_headers = to_modifier(found);
            }
            if let Some(found) = &filter.url_rewrite {
                let rewrite = all.filters.rewrite.get_or_insert_default();
                let UrlRewrite { hostname, path } = to_rewrite(found);
                rewrite.hostname = hostname;
                rewrite.path = path.or_else(|| rewrite.path.take());
            }
            if let Some(found) = &filter.request_redirect {
                all.redirect = Some(to_redirect(found));
            }
            if let Some(found) = &filter.cors {
                all.cors = Some(to_cors(found));
            }
            if let Some(found) = &filter.request_mirror {
                let wanted = Wanted::from(&found.backend_ref);
                let target = self.backends.resolve(&self.referrer, &wanted, &mut self.unresolved, self.report);
                if let Target::Backend(backend) = target {
                    all.mirrors.push(Mirror { backend, fraction: to_fraction(found) });
                }
            }
            if let Some(found) = &filter.extension_ref {
                self.extension(filter, found, &mut all);
            }
            if let Some(found) = &filter.external_auth {
                self.external_auth(filter, found, &mut all);
            }
        }
        all
    }

    /// Who is asked whether a request may pass.
    fn external_auth(&mut self, filter: &HttpFilter, found: &filter::ExternalAuth, all: &mut Filtered) {
        if found.protocol.value == ExternalAuthProtocol::Grpc {
            let what = "filter ExternalAuth asks by HTTP only: protocol GRPC is not served";
            return self.cannot_honour(filter, what, all);
        }
        let wanted = Wanted::from(&found.backend_ref);
        let target = self.backends.resolve(&self.referrer, &wanted, &mut self.unresolved, self.report);
        let http = found.http.as_ref();
        let path = http.and_then(|http| http.path.as_ref()).map_or_else(String::new, |path| normal(&path.value));
        let names = |list: &[HeaderName]| list.iter().map(|name| name.0.to_lowercase()).collect();
        all.auth = Some(Arc::new(ExternalAuth {
            target,
            path: path.trim_end_matches('/').to_owned(),
            request_headers: http.map_or_else(Vec::new, |http| names(&http.allowed_headers)),
            response_headers: http.map_or_else(Vec::new, |http| names(&http.allowed_response_headers)),
            body_bytes: found.forward_body.as_ref().map_or(0, |body| usize::try_from(body.max_size.0).unwrap_or(0)),
        }));
    }

    /// What an object of ours says.
    fn extension(&mut self, filter: &HttpFilter, wanted: &ExtensionRef, all: &mut Filtered) {
        let full_name = format!("{}/{}", self.referrer.namespace, wanted.name);
        if (&*wanted.group, &*wanted.kind) != (RINGWAY_GROUP, "HTTPRouteFilter") {
            let what =
                format!("extensionRef {full_name}: a {} of group \"{}\" is no filter", wanted.kind, wanted.group);
            return self.cannot_honour(filter, &what, all);
        }
        let resources = self.backends.resources();
        let mut known = resources.route_filters.iter().filter(|each| each.meta.namespace == self.referrer.namespace);
        let Some(found) = known.find(|each| each.meta.name == wanted.name.0) else {
            return self.cannot_honour(filter, &format!("there is no HTTPRouteFilter {full_name}"), all);
        };
        if let Some(rewrite) = &found.spec.url_rewrite {
            let path = PathModifier::ReplaceRegex(rewrite.path.regex.0.clone());
            all.filters.rewrite.get_or_insert_default().path = Some(path);
        }
        if let Some(cors) = &found.spec.cors {
            all.cors = Some(to_cors(cors));
        }
        let Some(response) = &found.spec.direct_response else { return };
        let body = match response.body.as_ref().map(|body| (&body.inline, &body.value_ref)) {
            Some((Some(inline), _)) => inline.value.0.clone().into_bytes(),
            Some((_, Some(reference))) => match config_map_body(resources, self.referrer.namespace, &reference.value) {
                Ok(body) => body,
                Err(what) => {
                    self.report.warning(reference.span, what.clone());
                    return self.cannot_honour(filter, &what, all);
                }
            },
            _ => Vec::new(),
        };
        all.response = Some(DirectResponse {
            status: u16::try_from(response.status.0).expect("up to 599"),
            content_type: response.content_type.as_ref().map_or("text/plain", |found| &found.0).to_owned(),
            body,
        });
    }

    fn cannot_honour(&mut self, filter: &HttpFilter, what: &str, all: &mut Filtered) {
        let message = format!("{}: {what}: its requests are answered 500", self.name);
        self.report.warning(filter.kind.span, message.clone());
        self.invalid.get_or_insert_with(|| Problem::new("UnsupportedValue", message));
        all.broken = true;
    }
}

/// Rules do not share sessions, so a client cannot have one with each if both say so by the same cookie.
fn same_cookies(rules: &[route::HttpRule], built: &[HttpRule], report: &mut Report) {
    let cookie = |rule: &HttpRule| match &rule.extras.as_ref()?.session.as_ref()?.carrier {
        SessionCarrier::Cookie(cookie) => Some((cookie.name.clone(), cookie.path.clone())),
        SessionCarrier::Header(_) => None,
    };
    let cookies: Vec<_> = built.iter().map(cookie).collect();
    for (index, (spec, found)) in rules.iter().zip(&cookies).enumerate() {
        if let (Some(spec), Some(found)) = (&spec.session_persistence, found)
            && cookies[..index].contains(&Some(found.clone()))
        {
            let (name, path) = found;
            let message = format!(
                "another rule has the cookie {name} with the path {path}: a client has a session with one of them at a time"
            );
            report.warning_with_help(spec.span, message, Some("give each rule a name of its own, or none".to_owned()));
        }
    }
}

/// The body that a ConfigMap holds.
pub(in crate::control) fn config_map_body(
    resources: &Resources,
    namespace: &str,
    wanted: &LocalObjectRef,
) -> Result<Vec<u8>, String> {
    let full_name = format!("{namespace}/{}", wanted.name);
    if (&*wanted.group, &*wanted.kind) != ("", "ConfigMap") {
        return Err(format!("valueRef {full_name}: a {} holds no body, only a ConfigMap", wanted.kind));
    }
    let mut all = resources.config_maps.iter();
    let found = all.find(|each| each.meta.name == wanted.name.0 && each.meta.namespace == namespace);
    let found = found.ok_or_else(|| format!("there is no ConfigMap {full_name}"))?;
    let keys: Vec<&str> = found.spec.text.iter().chain(&found.spec.base64).map(|(key, _)| key.as_str()).collect();
    let key = match keys.as_slice() {
        [only] => only,
        keys if keys.contains(&"response.body") => "response.body",
        _ => return Err(format!("ConfigMap {full_name} needs a key `response.body`")),
    };
    let body = found.spec.get(key).expect("the key is there").value;
    let body = body.map_err(|error| format!("ConfigMap {full_name}: {key} is {error}"))?;
    if body.len() > MAX_BODY {
        return Err(format!("ConfigMap {full_name}: {key} has more than {MAX_BODY} bytes"));
    }
    Ok(body)
}

fn to_cors(found: &filter::Cors) -> Cors {
    let names = |list: &[HeaderName]| list.iter().map(|name| name.0.clone()).collect();
    Cors {
        origins: found.allow_origins.iter().map(|origin| origin.0.clone()).collect(),
        credentials: found.allow_credentials,
        methods: found.allow_methods.iter().map(|method| method.as_str().to_owned()).collect(),
        headers: names(&found.allow_headers),
        expose: names(&found.expose_headers),
        max_age: u32::try_from(found.max_age.0).expect("bounds of the field"),
    }
}

fn to_fraction(found: &filter::Mirror) -> (u32, u32) {
    let number = |value: i64| u32::try_from(value).expect("bounds of the field");
    match (&found.percent, &found.fraction) {
        (Some(percent), _) => (number(percent.0), 100),
        (None, Some(fraction)) => (number(fraction.numerator.0), number(fraction.denominator.0)),
        (None, None) => (1, 1),
    }
}

fn to_retry(found: &route::Retry) -> Retry {
    Retry {
        codes: found.codes.iter().map(|code| u16::try_from(code.0).expect("up to 599")).collect(),
        attempts: found.attempts.map_or(1, |attempts| u32::try_from(attempts.0).expect("up to 1000")),
        backoff: found.backoff.map_or(DEFAULT_BACKOFF, |backoff| backoff.0),
    }
}

/// What is waited for at least before a request is sent again, unless the rule says something else.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// A weight as the model's.
pub(super) fn weight(weight: Weight) -> u32 {
    u32::try_from(weight.0).expect("0 to 1,000,000")
}

/// The matches of a rule, of which there is one at least.
pub(in crate::control) fn matches(rule: &route::HttpRule) -> Vec<HttpMatch> {
    if rule.matches.is_empty() { vec![HttpMatch::default()] } else { rule.matches.iter().map(to_match).collect() }
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
            (PathMatchType::RegularExpression, Some(regex)) if path.any_service => PathMatch::Method(regex.0.clone()),
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

fn to_path(found: &filter::PathModifier) -> PathModifier {
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
        status: found.status.map_or(302, |status| status.0),
    }
}
