//! Objects with their references resolved and their conditions known.
//!
//! What the API calls a condition (a backend that does not exist, a reference without a grant, a listener in conflict)
//! is not an error here: it is kept at the object it concerns, reported as a warning with its place, and has become
//! the behaviour that the API prescribes for it by the time the model is built.

mod affinity;
mod attach;
mod backend_ref;
pub mod backend_tls;
mod dsr;
mod gateway;
mod gateway_tls;
mod grant;
pub(super) mod http_rule;
mod listener_set;
pub mod policy;
mod secret;
pub(super) mod session;
pub mod users;

use std::collections::HashMap;
use std::net::IpAddr;

use ringway_core::model::{Action, Backend, DsrService, HostPattern, HttpRule, RouteId, Target, WeightedTarget};

use super::read::Environment;
use super::resources::backend_policy::{BackendPolicySpec, HostRewriteType};
use super::resources::http_route::HttpRouteSpec;
use super::resources::l4_forwarding::L4ForwardingPolicySpec;
use super::resources::meta::Meta;
use super::resources::refs::ParentRef;
use super::resources::ringway::ClientPolicySpec;
use super::resources::text::SectionName;
use super::resources::traffic::{AccessPolicySpec, RateLimitPolicySpec, ResponsePolicySpec};
use super::resources::{Resource, Resources};
use super::source::{Diagnostic, Span};

pub use affinity::Affinity;
use backend_tls::{BackendTls, BackendTlsState};
pub use gateway::{CONTROLLER, GatewayState, ListenerSetState, ListenerState, Serves};
use policy::{Policies, Targets};
use secret::Secrets;

/// Looks a hostname up; no answer is an empty list.
pub trait Resolve {
    /// Its addresses, in a stable order.
    fn resolve(&mut self, hostname: &str) -> Vec<IpAddr>;

    /// Whether an address can be bound on this machine.
    fn is_usable(&mut self, _ip: IpAddr) -> bool {
        true
    }

    /// Whether frames can be sent to an address without a router between.
    fn on_link(&mut self, _interface: &str, _ip: IpAddr) -> OnLink {
        OnLink::Unknown
    }
}

/// How far an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLink {
    /// It is a neighbour.
    Yes,
    /// There is a router between.
    Router,
    /// It is this machine's own.
    Local,
    /// There is no such interface here.
    NoInterface,
    /// It cannot be told.
    Unknown,
}

/// A condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The API's reason, in camel case.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Problem {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// One parentRef of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct ParentState {
    /// Its index in the route's parentRefs.
    pub index: usize,
    /// The route is not accepted there.
    pub problem: Option<Problem>,
    /// Listeners that took it: gateway, listener, the hostnames that both have.
    pub attached: Vec<Attachment>,
}

/// A route at a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Index of the gateway.
    pub gateway: usize,
    /// Index of its listener.
    pub listener: usize,
    /// Hostnames that both have; never empty for HTTP.
    pub hostnames: Vec<HostPattern>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteRules {
    /// HTTP rules; redirects that follow the listener's port carry port 0.
    Http(Vec<HttpRule>),
    /// One TCP split.
    Tcp(Vec<WeightedTarget>),
    /// One split of TLS connections.
    Tls(Vec<WeightedTarget>),
    /// One UDP split.
    Udp(Vec<WeightedTarget>),
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteState {
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute`, `TCPRoute` or `UDPRoute`.
    pub kind: &'static str,
    /// Index among the resources of that kind.
    pub index: usize,
    /// Its id in the model.
    pub id: RouteId,
    /// Its parents that are ours.
    pub parents: Vec<ParentState>,
    /// A reference of it does not resolve.
    pub unresolved: Option<Problem>,
    /// Part of it cannot be honoured.
    pub partly_invalid: Option<Problem>,
    /// What it does.
    pub rules: RouteRules,
}

impl RouteState {
    /// Calls of gRPC, which are requests of HTTP/2.
    pub fn is_grpc(&self) -> bool {
        self.kind == "GRPCRoute"
    }

    /// The resources of its kind, where that is HTTPRoute or one that is read as such.
    fn http_routes<'r>(&self, resources: &'r Resources) -> &'r [Resource<HttpRouteSpec>] {
        if self.is_grpc() { &resources.grpc_routes } else { &resources.http_routes }
    }

    /// Its metadata.
    pub fn meta<'r>(&self, resources: &'r Resources) -> &'r Meta {
        match self.rules {
            RouteRules::Http(_) => &self.http_routes(resources)[self.index].meta,
            RouteRules::Tcp(_) => &resources.tcp_routes[self.index].meta,
            RouteRules::Tls(_) => &resources.tls_routes[self.index].meta,
            RouteRules::Udp(_) => &resources.udp_routes[self.index].meta,
        }
    }

    /// Its parentRefs.
    pub fn parent_refs<'r>(&self, resources: &'r Resources) -> &'r [ParentRef] {
        match self.rules {
            RouteRules::Http(_) => &self.http_routes(resources)[self.index].spec.parent_refs,
            RouteRules::Tcp(_) => &resources.tcp_routes[self.index].spec.parent_refs,
            RouteRules::Tls(_) => &resources.tls_routes[self.index].spec.parent_refs,
            RouteRules::Udp(_) => &resources.udp_routes[self.index].spec.parent_refs,
        }
    }

    /// Whether some share of it goes to the backend with this index.
    pub fn leads_to(&self, backend: usize) -> bool {
        let rules = if let RouteRules::Http(rules) = &self.rules { rules.len() } else { 1 };
        (0..rules).any(|rule| self.rule_leads_to(rule, backend))
    }

    /// Whether some share of this rule goes to the backend with this index.
    fn rule_leads_to(&self, rule: usize, backend: usize) -> bool {
        match &self.rules {
            RouteRules::Http(rules) => rules.get(rule).is_some_and(|rule| match &rule.action {
                Action::Forward(split) => leads_to(split, backend),
                _ => false,
            }),
            RouteRules::Tcp(split) | RouteRules::Tls(split) | RouteRules::Udp(split) => leads_to(split, backend),
        }
    }

    /// Its rules' names, empty for those that have none.
    pub fn rule_names<'r>(&self, resources: &'r Resources) -> Vec<&'r str> {
        let name = |name: &'r Option<SectionName>| name.as_deref().unwrap_or("");
        match self.rules {
            RouteRules::Http(_) => {
                let rules = self.http_routes(resources)[self.index].spec.rules.as_ref();
                rules.map_or_else(Vec::new, |rules| rules.iter().map(|rule| name(&rule.name)).collect())
            }
            RouteRules::Tcp(_) => {
                resources.tcp_routes[self.index].spec.rules.iter().map(|rule| name(&rule.name)).collect()
            }
            RouteRules::Tls(_) => {
                resources.tls_routes[self.index].spec.rules.iter().map(|rule| name(&rule.name)).collect()
            }
            RouteRules::Udp(_) => {
                resources.udp_routes[self.index].spec.rules.iter().map(|rule| name(&rule.name)).collect()
            }
        }
    }
}

fn leads_to(split: &[WeightedTarget], backend: usize) -> bool {
    split.iter().any(|share| matches!(share.target, Target::Backend(id) if id.0 as usize == backend))
}

/// A backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendState {
    /// With the settings that it has without a policy.
    pub model: Backend,
    /// What a policy for it may be attached to, from the most specific on.
    pub policy_targets: Vec<policy::Target>,
    /// How connections to it are protected.
    pub tls: BackendTls,
    /// It speaks HTTP/2 by prior knowledge (`appProtocol`).
    pub http2: bool,
    /// What all of its endpoints are called.
    pub hostname: Option<String>,
    /// Clients stay by their addresses, unless a policy says otherwise.
    pub affinity: Option<Affinity>,
}

impl BackendState {
    /// What its endpoints are called: by their one hostname, or by that which TLS verifies.
    pub fn own_hostname(&self) -> Option<&str> {
        let verified = match &self.tls {
            BackendTls::Verified(tls) => Some(tls.hostname.as_str()),
            BackendTls::Plain | BackendTls::Invalid => None,
        };
        self.hostname.as_deref().or(verified)
    }
}

/// Everything, resolved.
#[derive(Debug)]
pub struct Graph<'r> {
    /// What it was built from.
    pub resources: &'r Resources,
    /// Gateways of our classes, oldest first.
    pub gateways: Vec<GatewayState<'r>>,
    /// ListenerSets of those, oldest first.
    pub listener_sets: Vec<ListenerSetState<'r>>,
    /// Routes, oldest first, HTTP before gRPC before TLS before TCP before UDP.
    pub routes: Vec<RouteState>,
    /// Backends that routes refer to, by `BackendId`.
    pub backends: Vec<BackendState>,
    /// BackendPolicies and what they are attached to.
    pub backend_policies: Policies<'r, BackendPolicySpec>,
    /// AccessPolicies and what they are attached to.
    pub access_policies: Policies<'r, AccessPolicySpec>,
    /// The users of AccessPolicies, by the policies' full names. A policy with basic authentication that is not here has none.
    pub users: HashMap<String, users::Users>,
    /// RateLimitPolicies and what they are attached to.
    pub rate_limit_policies: Policies<'r, RateLimitPolicySpec>,
    /// ResponsePolicies and what they are attached to.
    pub response_policies: Policies<'r, ResponsePolicySpec>,
    /// BackendTLSPolicies and their conditions.
    pub backend_tls: Vec<BackendTlsState<'r>>,
    /// ClientPolicies and what they are attached to.
    pub client_policies: Policies<'r, ClientPolicySpec>,
    /// L4ForwardingPolicies and what they are attached to.
    pub l4_policies: Policies<'r, L4ForwardingPolicySpec>,
    /// Services that are forwarded by direct server return.
    pub dsr: Vec<DsrService>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// What building needs: where warnings go.
#[derive(Debug, Default)]
struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    fn warning(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(span, message));
    }

    fn note(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::note(span, message));
    }

    fn warning_with_help(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.diagnostics.push(Diagnostic { help, ..Diagnostic::warning(span, message) });
    }
}

impl<'r> Graph<'r> {
    /// Resolves everything.
    pub fn build(resources: &'r Resources, environment: &dyn Environment, resolver: &mut dyn Resolve) -> Self {
        let mut report = Report::default();
        let mut secrets = Secrets::new(resources, environment);
        let (mut gateways, listener_sets) = gateway::gateways(resources, &mut secrets, resolver, &mut report);
        let places = attach::Places::new(&gateways, &listener_sets);
        let mut backends = backend_ref::Backends::new(resources, resolver);
        let mut routes = Vec::new();
        for (kind, all) in [("HTTPRoute", &resources.http_routes), ("GRPCRoute", &resources.grpc_routes)] {
            for index in by_age(all) {
                let route = &all[index];
                let id = next_id(&routes);
                let built = http_rule::rules(kind, route, &mut backends, &mut report);
                let parents = attach::http(kind, route, built.refused, &mut gateways, &places, resources, &mut report);
                routes.push(RouteState {
                    kind,
                    index,
                    id,
                    parents,
                    unresolved: built.unresolved,
                    partly_invalid: built.partly_invalid,
                    rules: RouteRules::Http(built.rules),
                });
            }
        }
        for index in by_age(&resources.tls_routes) {
            let route = &resources.tls_routes[index];
            let id = next_id(&routes);
            let parents = attach::tls(route, &mut gateways, &places, resources, &mut report);
            let refs = &route.spec.rules[0].backend_refs;
            let (split, unresolved) = backends.split("TLSRoute", &route.meta, refs, &mut report);
            routes.push(RouteState {
                kind: "TLSRoute",
                index,
                id,
                parents,
                unresolved,
                partly_invalid: None,
                rules: RouteRules::Tls(split),
            });
        }
        for index in by_age(&resources.tcp_routes) {
            let route = &resources.tcp_routes[index];
            let id = next_id(&routes);
            let parents = attach::stream(
                "TCPRoute",
                &route.meta,
                &route.spec.parent_refs,
                &mut gateways,
                &places,
                resources,
                &mut report,
            );
            let refs = &route.spec.rules[0].backend_refs;
            let (split, unresolved) = backends.split("TCPRoute", &route.meta, refs, &mut report);
            routes.push(RouteState {
                kind: "TCPRoute",
                index,
                id,
                parents,
                unresolved,
                partly_invalid: None,
                rules: RouteRules::Tcp(split),
            });
        }
        for index in by_age(&resources.udp_routes) {
            let route = &resources.udp_routes[index];
            let id = next_id(&routes);
            let parents = attach::stream(
                "UDPRoute",
                &route.meta,
                &route.spec.parent_refs,
                &mut gateways,
                &places,
                resources,
                &mut report,
            );
            let refs = &route.spec.rules[0].backend_refs;
            let (split, unresolved) = backends.split("UDPRoute", &route.meta, refs, &mut report);
            routes.push(RouteState {
                kind: "UDPRoute",
                index,
                id,
                parents,
                unresolved,
                partly_invalid: None,
                rules: RouteRules::Udp(split),
            });
        }
        let targets = Targets { resources, gateways: &gateways, routes: &routes };
        let client_policies = targets.attach(&resources.client_policies, &mut report);
        let mut access_policies = targets.attach(&resources.access_policies, &mut report);
        let users = users::read(resources, &mut access_policies, &mut report);
        let rate_limit_policies = targets.attach(&resources.rate_limit_policies, &mut report);
        let response_policies = targets.attach(&resources.response_policies, &mut report);
        for policy in &resources.response_policies {
            let bodies =
                policy.spec.overrides.iter().filter_map(|each| each.response.body.as_ref()?.value_ref.as_ref());
            for reference in bodies {
                let found = http_rule::config_map_body(resources, &policy.meta.namespace, &reference.value);
                if let Err(message) = found {
                    let name = policy.meta.full_name();
                    report
                        .warning(reference.span, format!("ResponsePolicy {name}: {message}: answers stay as they are"));
                }
            }
        }
        let mut backend_policies = targets.attach(&resources.backend_policies, &mut report);
        session::check_policies(&mut backend_policies, &mut report);
        let backend_tls_policies = targets.attach(&resources.backend_tls_policies, &mut report);
        let mut l4_policies = targets.attach(&resources.l4_policies, &mut report);
        let mut backends = backends.finish();
        let backend_tls = backend_tls::apply(
            resources,
            &backend_tls_policies,
            &gateways,
            &routes,
            &mut backends,
            &secrets,
            &mut report,
        );
        for backend in &backends {
            let policy = backend_policies.first(&backend.policy_targets);
            if let Some(rewrite) = policy.and_then(|policy| policy.spec.host_rewrite.as_ref())
                && rewrite.kind == HostRewriteType::Backend
                && backend.own_hostname().is_none()
            {
                let name = &backend.model.name;
                let message = format!("{name} has no hostname of its own: requests keep what their clients name");
                let help = "of type Backend are the one hostname of all endpoints, or that of TLS; or use type Literal";
                report.warning_with_help(rewrite.span, message, Some(help.to_owned()));
            }
        }
        affinity::check(&backends, &routes, &backend_policies, &mut report);
        gateway::close(&mut gateways, &client_policies);
        let mut context = dsr::Context {
            gateways: &mut gateways,
            routes: &routes,
            backends: &backends,
            resolver,
            on_link: HashMap::new(),
            report: &mut report,
        };
        let dsr = dsr::services(&mut l4_policies, &mut context);
        Self {
            resources,
            gateways,
            listener_sets,
            routes,
            backends,
            access_policies,
            users,
            rate_limit_policies,
            response_policies,
            backend_policies,
            backend_tls,
            client_policies,
            l4_policies,
            dsr,
            diagnostics: report.diagnostics,
        }
    }

    /// A route's `Kind/namespace/name`.
    pub fn route_name(&self, route: &RouteState) -> String {
        format!("{}/{}", route.kind, self.route_meta(route).full_name())
    }

    /// A route's metadata.
    pub fn route_meta(&self, route: &RouteState) -> &'r Meta {
        route.meta(self.resources)
    }
}

fn next_id(routes: &[RouteState]) -> RouteId {
    RouteId(u32::try_from(routes.len()).expect("fewer routes than 2^32"))
}

fn by_age<S>(all: &[Resource<S>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].meta.age_key().cmp(&all[*b].meta.age_key()));
    order
}
