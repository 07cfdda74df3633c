//! AccessPolicies, RateLimitPolicies and ResponsePolicies: what rules get of them.
//!
//! Each is made once however many rules share it. A rule of a RateLimitPolicy with the key `Route` counts for its policy
//! as a whole, so that a policy of a Gateway limits all that goes through it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringway_core::access::PrefixMap;
use ringway_core::http::coding::Coding;
use ringway_core::model::{
    Access, Action, BasicAuth, Compression, ConcurrencyLimit, DirectResponse, HeaderModifier, HttpRule, Login, RateKey,
    RateLimit, ResponseRules,
};

use super::backends::Place;
use crate::control::graph::Graph;
use crate::control::graph::http_rule::config_map_body;
use crate::control::graph::policy::{Policies, Target};
use crate::control::resources::Resource;
use crate::control::resources::policy::Policy;
use crate::control::resources::ringway::Cidr;
use crate::control::resources::traffic::{
    AccessAction, AccessPolicySpec, Compression as CompressionSpec, Compressor, CompressorType, RateLimitKeyType,
    RateLimitPolicySpec, RateLimitUnit, ResponsePolicySpec, Satisfy, StatusCodes,
};

/// What has been made so far, by policy.
#[derive(Default)]
pub(super) struct Traffic {
    access: HashMap<String, Arc<Access>>,
    rates: Vec<RateLimit>,
    concurrency: Vec<ConcurrencyLimit>,
    by_policy: HashMap<String, Limits>,
    responses: HashMap<String, Arc<ResponseRules>>,
}

/// The limits of a RateLimitPolicy, by their indices.
#[derive(Default)]
struct Limits {
    rates: Vec<usize>,
    concurrency: Vec<usize>,
}

impl Traffic {
    pub(super) fn rates(&self) -> Vec<RateLimit> {
        self.rates.clone()
    }

    pub(super) fn concurrency(&self) -> Vec<ConcurrencyLimit> {
        self.concurrency.clone()
    }

    /// Gives a rule what the policies on the way to it say.
    pub(super) fn apply(&mut self, graph: &Graph<'_>, place: Place, rule: &mut HttpRule) {
        if is_closed(&graph.access_policies, place) || is_closed(&graph.rate_limit_policies, place) {
            rule.action = Action::Fail(500);
            rule.extras = None;
            return;
        }
        let access = of(&graph.access_policies, place);
        let rates = of(&graph.rate_limit_policies, place);
        let responses = of(&graph.response_policies, place);
        if access.is_none() && rates.is_none() && responses.is_none() {
            return;
        }
        let extras = rule.extras.get_or_insert_default();
        if let Some(policy) = access {
            let made = self.access.entry(policy.meta.full_name()).or_insert_with(|| Arc::new(to_access(graph, policy)));
            extras.access = Some(Arc::clone(made));
            if policy.spec.basic_auth.as_ref().is_some_and(|basic| !basic.forward) {
                let kept = HeaderModifier { remove: vec!["authorization".to_owned()], ..HeaderModifier::default() };
                let shares = extras.shares.iter_mut().flatten().map(|share| &mut share.filters);
                for filters in shares.chain([&mut rule.filters]) {
                    filters.request_headers = kept.then(&filters.request_headers);
                }
            }
        }
        if let Some(policy) = rates {
            let (rates, concurrency) = (&mut self.rates, &mut self.concurrency);
            let made = self.by_policy.entry(policy.meta.full_name()).or_insert_with(|| {
                let mut made = Limits::default();
                for limit in to_limits(policy) {
                    match limit {
                        Limit::Rate(limit) => {
                            made.rates.push(rates.len());
                            rates.push(limit);
                        }
                        Limit::Concurrency(limit) => {
                            made.concurrency.push(concurrency.len());
                            concurrency.push(limit);
                        }
                    }
                }
                made
            });
            extras.rate_limits.clone_from(&made.rates);
            extras.concurrency_limits.clone_from(&made.concurrency);
        }
        extras.responses = responses.map(|policy| self.made(graph, policy));
    }

    /// What is done to answers of a listener for which there is no rule.
    pub(super) fn responses_at(
        &mut self,
        graph: &Graph<'_>,
        gateway: usize,
        listener: usize,
    ) -> Option<Arc<ResponseRules>> {
        graph.response_policies.of_listener(gateway, listener).map(|policy| self.made(graph, policy))
    }

    fn made(&mut self, graph: &Graph<'_>, policy: &Resource<ResponsePolicySpec>) -> Arc<ResponseRules> {
        let made = self.responses.entry(policy.meta.full_name());
        Arc::clone(made.or_insert_with(|| Arc::new(to_responses(graph, policy))))
    }
}

fn of<'r, S: Policy>(policies: &Policies<'r, S>, place: Place) -> Option<&'r Resource<S>> {
    if policies.is_empty() {
        return None;
    }
    policies.first(&way(place))
}

/// Whether a policy that could not be read would have been the one in force.
fn is_closed<S: Policy>(policies: &Policies<'_, S>, place: Place) -> bool {
    policies.is_closed(&way(place))
}

fn way(place: Place) -> [Target; 4] {
    [
        Target::Rule(place.route, place.rule),
        Target::Route(place.route),
        Target::Listener(place.gateway, place.listener),
        Target::Gateway(place.gateway),
    ]
}

fn ranges<'c>(list: &'c [Cidr], answer: bool) -> impl Iterator<Item = (ipnet::IpNet, bool)> + 'c {
    list.iter().map(move |range| (range.0, answer))
}

fn to_access(graph: &Graph<'_>, policy: &Resource<AccessPolicySpec>) -> Access {
    let spec = &policy.spec;
    let rules = spec.authorization.iter().flat_map(|found| found.rules.iter());
    let rules = rules.flat_map(|rule| ranges(&rule.principal.client_cidrs, rule.action == AccessAction::Allow));
    let login = spec.basic_auth.as_ref().map(|basic| match graph.users.get(&policy.meta.full_name()) {
        None => Login::Closed,
        Some(users) => Login::Basic(BasicAuth {
            realm: basic.realm.as_ref().map_or("Restricted", |realm| &realm.value).to_owned(),
            users: Arc::clone(users),
        }),
    });
    Access {
        ranges: PrefixMap::new(rules),
        others: spec.authorization.as_ref().is_none_or(|found| found.default_action == AccessAction::Allow),
        login,
        any: spec.satisfy == Satisfy::Any,
    }
}

/// What a rule of a RateLimitPolicy limits.
enum Limit {
    Rate(RateLimit),
    Concurrency(ConcurrencyLimit),
}

fn to_limits(policy: &Resource<RateLimitPolicySpec>) -> impl Iterator<Item = Limit> + '_ {
    policy.spec.rules.iter().enumerate().filter_map(|(index, rule)| {
        let number = |value: i64| u64::try_from(value).expect("bounds of the field");
        let key = match rule.key.as_ref().map(|key| (key.kind, &key.header)) {
            Some((RateLimitKeyType::Header, Some(name))) => RateKey::Header(name.to_lowercase()),
            Some((RateLimitKeyType::Route, _)) => RateKey::Route,
            _ => RateKey::ClientIp,
        };
        let keys =
            if key == RateKey::Route { 8 } else { usize::try_from(rule.max_keys.0).expect("bounds of the field") };
        let name = format!("{}/{index}", policy.meta.full_name());
        let exempt = PrefixMap::new(ranges(&rule.exempt, true));
        if let Some(requests) = rule.max_concurrent {
            let requests = u32::try_from(requests.0).expect("bounds of the field");
            return Some(Limit::Concurrency(ConcurrencyLimit { name, requests, key, exempt, keys }));
        }
        // Reading has seen to it that there is one of the two.
        let limit = rule.limit.as_ref()?;
        let per = Duration::from_secs(match limit.unit {
            RateLimitUnit::Second => 1,
            RateLimitUnit::Minute => 60,
            RateLimitUnit::Hour => 3600,
            RateLimitUnit::Day => 86_400,
        });
        let requests = number(limit.requests.0);
        let burst = rule.burst.map_or_else(|| (requests / per.as_secs()).max(1), |burst| number(burst.0));
        Some(Limit::Rate(RateLimit { name, requests, per, burst, key, exempt, keys }))
    })
}

fn to_responses(graph: &Graph<'_>, policy: &Resource<ResponsePolicySpec>) -> ResponseRules {
    let spec = &policy.spec;
    let hsts = spec.hsts.as_ref().map(|found| {
        let domains = if found.include_sub_domains { "; includeSubDomains" } else { "" };
        let preload = if found.preload { "; preload" } else { "" };
        format!("strict-transport-security: max-age={}{domains}{preload}\r\n", found.max_age.0.as_secs())
    });
    let mut pages = Vec::new();
    for each in &*spec.overrides {
        let body = match each.response.body.as_ref().map(|body| (&body.inline, &body.value_ref)) {
            Some((Some(inline), _)) => inline.value.0.clone().into_bytes(),
            // One that cannot be had has been reported, and leaves the answer as it is.
            Some((_, Some(reference))) => {
                match config_map_body(graph.resources, &policy.meta.namespace, &reference.value) {
                    Ok(body) => body,
                    Err(_) => continue,
                }
            }
            _ => Vec::new(),
        };
        let status = |value: i64| u16::try_from(value).expect("up to 599");
        for codes in &*each.matches.codes {
            let StatusCodes { value, range, .. } = codes;
            let (first, last) = match (value, range) {
                (Some(one), _) => (one.0, one.0),
                (None, Some(range)) => (range.start.0, range.end.0),
                (None, None) => continue,
            };
            let page = DirectResponse {
                // 0: as it was.
                status: each.response.status.map_or(0, |found| status(found.0)),
                content_type: each.response.content_type.as_ref().map_or("text/html", |found| &found.0).to_owned(),
                body: body.clone(),
            };
            pages.push((status(first), status(last), page));
        }
    }
    ResponseRules { hsts, pages, compression: spec.compression.as_ref().map(to_compression) }
}

fn to_compression(spec: &CompressionSpec) -> Compression {
    let coding = |kind: CompressorType| match kind {
        CompressorType::Gzip => (Coding::Gzip, 4),
        CompressorType::Brotli => (Coding::Brotli, 4),
        CompressorType::Zstd => (Coding::Zstd, 3),
    };
    let codings = match &spec.compressors {
        None => [CompressorType::Brotli, CompressorType::Zstd, CompressorType::Gzip].map(coding).to_vec(),
        Some(listed) => {
            let level = |level: i64| u32::try_from(level).expect("bounds of the field");
            let one = |each: &Compressor| {
                let (coding, usual) = coding(each.kind);
                (coding, each.level.map_or(usual, |given| level(given.0)))
            };
            listed.iter().map(one).collect()
        }
    };
    let types = match &spec.content_types {
        None => COMPRESSED_TYPES.map(str::to_owned).to_vec(),
        Some(listed) => listed.iter().map(|each| each.value.clone()).collect(),
    };
    Compression { codings, min_length: u64::try_from(spec.min_length.0).expect("bounds of the field"), types }
}

/// What is worth compressing.
const COMPRESSED_TYPES: [&str; 13] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/javascript",
    "text/markdown",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];
