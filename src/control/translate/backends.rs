//! Backends with the policies that are in force on the ways to them.
//!
//! A BackendPolicy may be attached to a backend or to a way to it (rule, route, listener, Gateway), so one backend can
//! have several settings. Each combination that is used becomes a backend of the model; what nothing leads to is left
//! out.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_core::balance::TableSize;
use ringway_core::model::{
    Action, Backend, BackendId, BackendSettings, ConcurrencyLimit, ExternalAuth, HashKey, HttpRule, LoadBalancer,
    Mirror, ProxyHeader, ProxyTlvs, RateLimit, ResponseRules, SameSite, SessionCarrier, Target, UpstreamHttp,
    UpstreamTls, WeightedTarget,
};

use super::traffic::Traffic;
use crate::control::graph::backend_tls::BackendTls;
use crate::control::graph::policy::Target as PolicyTarget;
use crate::control::graph::{Graph, Serves, session};
use crate::control::resources::Resource;
use crate::control::resources::backend_policy::{
    BackendPolicySpec, BackendProtocol, BackendProxyProtocol, ConsistentHash, HashType, HostRewriteType,
    LoadBalancerType, ProxyTlv, ProxyVersion,
};
use crate::control::resources::session::SameSite as SameSiteSpec;

/// A place from which traffic goes to backends, in indices of the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) gateway: usize,
    pub(super) listener: usize,
    pub(super) route: usize,
    pub(super) rule: usize,
}

/// The model's backends while they are found.
pub(super) struct Backends<'g, 'r> {
    graph: &'g Graph<'r>,
    /// By backend, policy, the Gateway whose certificate is shown, and version of HTTP.
    known: HashMap<(BackendId, Option<String>, Option<usize>, UpstreamHttp), BackendId>,
    all: Vec<Backend>,
    pub(super) traffic: Traffic,
}

impl<'g, 'r> Backends<'g, 'r> {
    pub(super) fn new(graph: &'g Graph<'r>) -> Self {
        Self { graph, known: HashMap::new(), all: Vec::new(), traffic: Traffic::default() }
    }

    /// Limits on requests that some rule has.
    pub(super) fn rates(&self) -> Vec<RateLimit> {
        self.traffic.rates()
    }

    pub(super) fn concurrency(&self) -> Vec<ConcurrencyLimit> {
        self.traffic.concurrency()
    }

    /// What is done to answers of a listener for which there is no rule.
    pub(super) fn responses_at(&mut self, gateway: usize, listener: usize) -> Option<Arc<ResponseRules>> {
        self.traffic.responses_at(self.graph, gateway, listener)
    }

    /// Gives a rule what policies on the way to it say.
    pub(super) fn policies(&mut self, place: Place, rule: &mut HttpRule) {
        self.traffic.apply(self.graph, place, rule);
    }

    pub(super) fn finish(self) -> Vec<Backend> {
        self.all
    }

    /// Gives a rule the sessions that policies of its backends ask for, unless it has its own, and session cookies what
    /// depends on the listener. Sessions are the rule's: one policy's count for all backends of a split.
    pub(super) fn sessions(&self, place: Place, rule: &mut HttpRule) {
        let graph = self.graph;
        let own = rule.extras.as_ref().is_some_and(|extras| extras.session.is_some());
        let Action::Forward(split) = &rule.action else { return };
        if !own && graph.backend_policies.is_empty() {
            return;
        }
        let policies: Vec<&Resource<BackendPolicySpec>> = split
            .iter()
            .filter_map(|share| match share.target {
                Target::Backend(id) => self.policy(place, &graph.backends[id.0 as usize].policy_targets),
                Target::Invalid => None,
            })
            .collect();
        if !own {
            let spec = policies.iter().find_map(|policy| policy.spec.session_persistence.as_ref());
            let Some(spec) = spec else { return };
            let route = &graph.routes[place.route];
            let names = route.rule_names(graph.resources);
            let name = names.get(place.rule).copied().filter(|name| !name.is_empty());
            let scope = session::scope(&graph.route_name(route), name, &rule.matches);
            // One that cannot be had has been reported.
            let Ok(made) = session::session(spec, scope, true) else { return };
            rule.extras.get_or_insert_default().session = Some(Box::new(made));
        }
        let made = rule.extras.as_mut().and_then(|extras| extras.session.as_deref_mut());
        let Some(SessionCarrier::Cookie(cookie)) = made.map(|made| &mut made.carrier) else { return };
        cookie.secure = graph.gateways[place.gateway].listeners[place.listener].serves != Some(Serves::Http);
        if let Some(wanted) = policies.iter().find_map(|policy| policy.spec.session_cookie.as_ref()) {
            cookie.secure |= wanted.secure;
            cookie.domain = wanted.domain.as_ref().map(|domain| domain.0.clone());
            cookie.same_site = match wanted.same_site {
                SameSiteSpec::Strict => SameSite::Strict,
                SameSiteSpec::Lax => SameSite::Lax,
                SameSiteSpec::None => SameSite::None,
            };
        }
    }

    /// The policy of a way to a backend with these targets.
    fn policy(&self, place: Place, targets: &[PolicyTarget]) -> Option<&'g Resource<BackendPolicySpec>> {
        let way = [
            PolicyTarget::Rule(place.route, place.rule),
            PolicyTarget::Route(place.route),
            PolicyTarget::Listener(place.gateway, place.listener),
            PolicyTarget::Gateway(place.gateway),
        ];
        self.graph.backend_policies.first(targets.iter().chain(&way))
    }

    /// A split of the graph's backends as one of the model's.
    pub(super) fn split(&mut self, place: Place, split: &[WeightedTarget]) -> Vec<WeightedTarget> {
        let target = |target: Target| match target {
            Target::Backend(id) => self.backend(place, id).map_or(Target::Invalid, Target::Backend),
            Target::Invalid => Target::Invalid,
        };
        let mut target = target;
        split.iter().map(|share| WeightedTarget { target: target(share.target), ..*share }).collect()
    }

    /// Mirrors to the graph's backends as ones to the model's. One that cannot be protected as it should is left out.
    pub(super) fn mirrors(&mut self, place: Place, mirrors: &mut Vec<Mirror>) {
        mirrors.retain_mut(|mirror| match self.backend(place, mirror.backend) {
            Some(backend) => {
                mirror.backend = backend;
                true
            }
            None => false,
        });
    }

    /// Whom a filter asks, as one of the model's.
    pub(super) fn auth(&mut self, place: Place, auth: &mut Option<Arc<ExternalAuth>>) {
        if let Some(auth) = auth
            && let Target::Backend(id) = auth.target
        {
            Arc::make_mut(auth).target = self.backend(place, id).map_or(Target::Invalid, Target::Backend);
        }
    }

    /// `None`: TLS is asked for and cannot be had, so nothing is sent there.
    fn backend(&mut self, place: Place, id: BackendId) -> Option<BackendId> {
        let found = &self.graph.backends[id.0 as usize];
        let shown = self.graph.gateways[place.gateway].backend_certificate.as_ref();
        let (tls, shown_by) = match (&found.tls, shown) {
            (BackendTls::Plain, _) => (None, None),
            (BackendTls::Invalid, _) | (BackendTls::Verified(_), Some(None)) => return None,
            (BackendTls::Verified(tls), None) => (Some(Arc::clone(tls)), None),
            (BackendTls::Verified(tls), Some(Some(client))) => {
                let tls = UpstreamTls { client: Some(Arc::clone(client)), ..(**tls).clone() };
                (Some(Arc::new(tls)), Some(place.gateway))
            }
        };
        let policy = self.policy(place, &found.policy_targets);
        let name = policy.map(|policy| policy.meta.full_name());
        let wanted = policy.and_then(|policy| policy.spec.protocol);
        let http = match (&tls, wanted) {
            // Calls of gRPC are requests of HTTP/2.
            _ if self.graph.routes[place.route].is_grpc() => UpstreamHttp::Http2,
            (_, Some(BackendProtocol::Http2)) => UpstreamHttp::Http2,
            (_, Some(BackendProtocol::Http1)) => UpstreamHttp::Http1,
            (_, None) if found.http2 => UpstreamHttp::Http2,
            (Some(_), None) => UpstreamHttp::Negotiated,
            (None, None) => UpstreamHttp::Http1,
        };
        let all = &mut self.all;
        Some(*self.known.entry((id, name, shown_by, http)).or_insert_with_key(|(_, name, ..)| {
            let mut settings = policy.map_or_else(|| found.model.settings.clone(), settings);
            if found.is_by_client(policy.map(|policy| &policy.spec)) {
                settings.balancing.policy =
                    LoadBalancer::ConsistentHash { key: HashKey::SourceIp, table: TableSize::DEFAULT };
            }
            settings.connection.tls = tls;
            settings.connection.http = http;
            let rewrite = policy.and_then(|policy| policy.spec.host_rewrite.as_ref());
            settings.host = rewrite.and_then(|rewrite| match rewrite.kind {
                HostRewriteType::Preserve => None,
                HostRewriteType::Backend => found.own_hostname().map(str::to_owned),
                HostRewriteType::Literal => rewrite.hostname.as_ref().map(ToString::to_string),
            });
            all.push(Backend { policy: name.clone(), settings, ..found.model.clone() });
            BackendId(u32::try_from(all.len() - 1).expect("fewer backends than 2^32"))
        }))
    }
}

fn settings(policy: &Resource<BackendPolicySpec>) -> BackendSettings {
    let spec = &policy.spec;
    let mut settings = BackendSettings::default();
    if let Some(balancer) = &spec.load_balancer {
        settings.balancing.policy = match (balancer.kind, &balancer.consistent_hash) {
            (LoadBalancerType::ConsistentHash, Some(hash)) => {
                LoadBalancer::ConsistentHash { key: hash_key(hash), table: hash.size() }
            }
            (LoadBalancerType::RoundRobin, _) => LoadBalancer::RoundRobin,
            (LoadBalancerType::Random, _) => LoadBalancer::Random,
            (LoadBalancerType::PeakEwma, _) => LoadBalancer::PeakEwma,
            (LoadBalancerType::LeastRequest | LoadBalancerType::ConsistentHash, _) => LoadBalancer::LeastRequest,
        };
        settings.balancing.slow_start = balancer.slow_start.as_ref().map(|slow_start| slow_start.window.0);
    }
    let count = |value: i64| u32::try_from(value).expect("bounds of the field");
    if let Some(breaker) = &spec.circuit_breaker {
        let limits = &mut settings.limits;
        limits.connections = breaker.max_connections.map(|found| count(found.0));
        limits.requests = breaker.max_parallel_requests.map(|found| count(found.0));
        limits.pending = breaker.max_pending_requests.map_or(limits.pending, |found| count(found.0));
        limits.pending_timeout = breaker.pending_timeout.map_or(limits.pending_timeout, |found| found.0);
    }
    let connection = &mut settings.connection;
    if let Some(timeout) = &spec.timeout {
        let connect = timeout.tcp.as_ref().and_then(|tcp| tcp.connect);
        connection.connect_timeout = connect.map_or(connection.connect_timeout, |found| found.0);
        let idle = timeout.http.as_ref().and_then(|http| http.idle);
        connection.idle_timeout = idle.map_or(connection.idle_timeout, |found| found.0);
    }
    if let Some(found) = &spec.connection {
        let max = found.max_idle.map(|max| usize::try_from(max.0).expect("bounds of the field"));
        connection.max_idle = max.unwrap_or(connection.max_idle);
        connection.transparent = found.transparent_source.unwrap_or(false);
        connection.congestion = found.congestion.as_ref().map(|name| name.0.clone());
    }
    if let Some(found) = &spec.tcp_keepalive {
        connection.keepalive = super::keepalive(found);
    }
    if let Some(found) = &spec.http2 {
        let http2 = &mut connection.http2;
        http2.max_streams = found.max_concurrent_streams.map_or(http2.max_streams, |value| count(value.0));
        if let Some(ping) = &found.keep_alive {
            http2.ping_interval = ping.interval.map_or(http2.ping_interval, |value| value.0);
            http2.ping_timeout = ping.timeout.map_or(http2.ping_timeout, |value| value.0);
        }
    }
    connection.proxy_protocol = spec.proxy_protocol.as_ref().map(proxy_header);
    if let Some(retries) = spec.retry.as_ref().and_then(|retry| retry.num_retries) {
        settings.connect_attempts = count(retries.0) + 1;
    }
    if let Some(constraint) = &spec.retry_constraint {
        let budget = &mut settings.retry_budget;
        if let Some(found) = &constraint.budget {
            budget.percent = count(found.percent.0);
            budget.interval = found.interval.as_ref().map_or(budget.interval, |interval| interval.value.0);
        }
        if let Some(found) = &constraint.min_rate {
            budget.min_count = count(found.count.0);
            budget.min_interval = found.interval.as_ref().map_or(budget.min_interval, |interval| interval.value.0);
        }
    }
    settings
}

fn hash_key(hash: &ConsistentHash) -> HashKey {
    match hash.kind {
        HashType::SourceIp => HashKey::SourceIp,
        HashType::FiveTuple => HashKey::FiveTuple,
        HashType::Header => HashKey::Headers(hash.header.iter().map(|header| header.name.to_lowercase()).collect()),
        HashType::Headers => {
            let headers = hash.headers.iter().flat_map(|headers| headers.iter());
            HashKey::Headers(headers.map(|header| header.name.to_lowercase()).collect())
        }
        HashType::Cookie => {
            HashKey::Cookie(hash.cookie.as_ref().map(|cookie| cookie.name.0.clone()).unwrap_or_default())
        }
        HashType::QueryParams => {
            let params = hash.query_params.iter().flat_map(|params| params.iter());
            HashKey::QueryParams(params.map(|param| param.name.0.clone()).collect())
        }
        HashType::Path => HashKey::Path,
    }
}

fn proxy_header(found: &BackendProxyProtocol) -> ProxyHeader {
    let has = |tlv: ProxyTlv| found.tlvs.contains(&tlv);
    match found.version {
        ProxyVersion::V1 => ProxyHeader::V1,
        ProxyVersion::V2 => ProxyHeader::V2(ProxyTlvs {
            alpn: has(ProxyTlv::Alpn),
            authority: has(ProxyTlv::Authority),
            ssl: has(ProxyTlv::Ssl),
            unique_id: has(ProxyTlv::UniqueId),
            crc32c: has(ProxyTlv::Crc32c),
        }),
    }
}
