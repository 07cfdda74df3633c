//! The graph to the model: only what is accepted and served is left of it.

mod backends;
mod tls;
mod traffic;

use std::collections::HashMap;
use std::net::SocketAddr;

use ringway_core::access::PrefixMap;
use ringway_core::model::{
    Action, ClientConnections, ClientPolicy, EscapedSlashes, HostPattern, HttpListener, HttpRoute, HttpRule, Keepalive,
    L4Listener, ListenOptions, Model, Protocol, ProxyProtocol, Redirect, RedirectPort, Socket, TlsListener,
};

use self::backends::{Backends, Place};
use super::graph::{Graph, RouteRules, RouteState, Serves};
use super::resources::ringway::{ClientCertMode, ClientPolicySpec, EscapedSlashesAction, TcpKeepalive};

/// Builds the model.
pub(super) fn translate(graph: &Graph<'_>) -> Model {
    let mut backends = Backends::new(graph);
    let mut sockets: Vec<Socket> = Vec::new();
    let mut by_bind: HashMap<(SocketAddr, Speaks), usize> = HashMap::new();
    for (number, gateway) in graph.gateways.iter().enumerate() {
        if gateway.problem.is_some() {
            continue;
        }
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let Some(serves) = listener.serves.filter(|_| listener.is_served() && !listener.dsr) else { continue };
            let name = gateway.listener_name(index);
            for bind in gateway.binds(index) {
                let at = *by_bind.entry((bind, Speaks::of(serves))).or_insert_with(|| {
                    let protocol = match serves {
                        Serves::Http => Protocol::Http(Vec::new()),
                        Serves::Https | Serves::TlsTerminate | Serves::TlsPassthrough => Protocol::Tls(Vec::new()),
                        Serves::Tcp => Protocol::Tcp(l4_listener(graph, number, index, &mut backends)),
                        Serves::Udp => Protocol::Udp(l4_listener(graph, number, index, &mut backends)),
                    };
                    sockets.push(Socket { bind, protocol, client: client_policy(graph, number, index) });
                    sockets.len() - 1
                });
                let hostname = listener.spec.host();
                match &mut sockets[at].protocol {
                    Protocol::Http(listeners) => {
                        let routes = http_routes(graph, number, index, bind.port(), &mut backends);
                        let responses = backends.responses_at(number, index);
                        listeners.push(HttpListener { name: name.clone(), hostname, routes, responses });
                    }
                    Protocol::Tls(listeners) => {
                        let serves = tls::listener(graph, number, index, bind.port(), &mut backends);
                        listeners.push(TlsListener { name: name.clone(), hostname, serves });
                    }
                    Protocol::Tcp(_) | Protocol::Udp(_) => {}
                }
            }
        }
    }
    Model {
        sockets,
        routes: graph.routes.iter().map(|route| graph.route_name(route)).collect(),
        rate_limits: backends.rates(),
        concurrency_limits: backends.concurrency(),
        backends: backends.finish(),
        dsr: graph.dsr.clone(),
    }
}

/// What sockets of one address are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Speaks {
    Http,
    Tls,
    Tcp,
    Udp,
}

impl Speaks {
    fn of(serves: Serves) -> Self {
        match serves {
            Serves::Http => Self::Http,
            Serves::Https | Serves::TlsTerminate | Serves::TlsPassthrough => Self::Tls,
            Serves::Tcp => Self::Tcp,
            Serves::Udp => Self::Udp,
        }
    }
}

/// Everything that a listener without TLS has is sent to HTTPS, if its clients are to be.
fn redirected(rule: &mut HttpRule, policy: &ClientPolicy) {
    if let Some((status, port)) = policy.https_redirect {
        rule.action = Action::Redirect(Redirect {
            scheme: Some("https".to_owned()),
            hostname: None,
            path: None,
            port: RedirectPort::Explicit(port),
            status,
        });
        // What goes to HTTPS needs nobody's permission, which is asked for there.
        if let Some(extras) = &mut rule.extras {
            extras.auth = None;
        }
    }
}

fn http_routes(
    graph: &Graph<'_>,
    gateway: usize,
    listener: usize,
    port: u16,
    backends: &mut Backends<'_, '_>,
) -> Vec<HttpRoute> {
    let plain = graph.gateways[gateway].listeners[listener].serves == Some(Serves::Http);
    let policy = client_policy(graph, gateway, listener);
    let mut attached: Vec<HttpRoute> = Vec::new();
    for (number, route) in graph.routes.iter().enumerate() {
        let RouteRules::Http(rules) = &route.rules else { continue };
        let hostnames = attached_hostnames(route, gateway, listener);
        if !hostnames.is_empty() {
            let here = |(rule, found)| {
                let place = Place { gateway, listener, route: number, rule };
                let mut rule = at_place(found, port, place, backends);
                if plain {
                    redirected(&mut rule, &policy);
                }
                rule
            };
            let rules = rules.iter().enumerate().map(here).collect();
            attached.push(HttpRoute { id: route.id, grpc: route.is_grpc(), hostnames, rules });
        }
    }
    attached
}

/// The hostnames that a route has at a listener; none: it is not attached there.
fn attached_hostnames(route: &RouteState, gateway: usize, listener: usize) -> Vec<HostPattern> {
    let mut hostnames = Vec::new();
    for found in route.parents.iter().flat_map(|parent| &parent.attached) {
        if (found.gateway, found.listener) == (gateway, listener) {
            let new: Vec<_> = found.hostnames.iter().filter(|each| !hostnames.contains(*each)).cloned().collect();
            hostnames.extend(new);
        }
    }
    hostnames
}

/// A rule as it is at one listener: a redirect without port and scheme keeps the listener's port, and backends have
/// the policies of the way to them.
fn at_place(rule: &HttpRule, port: u16, place: Place, backends: &mut Backends<'_, '_>) -> HttpRule {
    let mut rule = rule.clone();
    backends.sessions(place, &mut rule);
    match &mut rule.action {
        Action::Redirect(redirect) => {
            if let RedirectPort::Listener(listener) = &mut redirect.port {
                *listener = port;
            }
        }
        Action::Forward(split) => *split = backends.split(place, split),
        Action::Fail(_) | Action::Respond(_) => {}
    }
    backends.policies(place, &mut rule);
    if let Some(extras) = &mut rule.extras {
        backends.mirrors(place, &mut extras.mirrors);
        backends.auth(place, &mut extras.auth);
        for share in extras.shares.iter_mut().flatten() {
            if let Some(RedirectPort::Listener(listener)) = share.redirect.as_mut().map(|redirect| &mut redirect.port) {
                *listener = port;
            }
            backends.mirrors(place, &mut share.mirrors);
            backends.auth(place, &mut share.auth);
        }
    }
    rule
}

/// The oldest of the attached routes has a TCP or UDP listener. Only routes of its protocol are attached.
fn l4_listener(graph: &Graph<'_>, gateway: usize, listener: usize, backends: &mut Backends<'_, '_>) -> L4Listener {
    let route = graph.routes.iter().enumerate().find_map(|(number, route)| {
        let (RouteRules::Tcp(split) | RouteRules::Udp(split)) = &route.rules else { return None };
        let mut attached = route.parents.iter().flat_map(|parent| &parent.attached);
        let is_here = attached.any(|found| (found.gateway, found.listener) == (gateway, listener));
        is_here.then(|| (route.id, backends.split(Place { gateway, listener, route: number, rule: 0 }, split)))
    });
    L4Listener { name: graph.gateways[gateway].listener_name(listener), route }
}

fn client_policy(graph: &Graph<'_>, gateway: usize, listener: usize) -> ClientPolicy {
    graph
        .client_policies
        .of_listener(gateway, listener)
        .map_or_else(ClientPolicy::default, |found| to_policy(&found.spec))
}

/// Options of sockets are whole seconds and at least one.
fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, 32_767)
}

fn keepalive(found: &TcpKeepalive) -> Option<Keepalive> {
    let default = Keepalive::default();
    let probes = found.probes.map_or(default.probes, |value| u32::try_from(value.0).expect("bounds of the field"));
    (probes > 0).then(|| Keepalive {
        idle: found.idle_time.map_or(default.idle, |wait| seconds(wait.0)),
        interval: found.interval.map_or(default.interval, |wait| seconds(wait.0)),
        probes,
    })
}

fn listen_options(spec: &ClientPolicySpec) -> ListenOptions {
    let count = |value: i64| u32::try_from(value).expect("bounds of the field");
    let mut options = ListenOptions::default();
    if let Some(found) = &spec.connection {
        options.backlog = found.backlog.map_or(options.backlog, |value| count(value.0));
        options.defer_accept = found.defer_accept.map(|wait| seconds(wait.0));
        options.fast_open = found.fast_open.map(|value| count(value.0));
        options.ipv6_only = found.ipv6_only.unwrap_or(false);
        options.device = found.device.as_ref().map(|device| device.value.clone());
        options.congestion = found.congestion.as_ref().map(|name| name.0.clone());
    }
    if let Some(found) = &spec.tcp_keepalive {
        options.keepalive = keepalive(found);
    }
    options
}

fn to_policy(spec: &ClientPolicySpec) -> ClientPolicy {
    let mut policy = ClientPolicy::default();
    if let Some(found) = &spec.client_ip_detection {
        let found = &found.x_forwarded_for;
        policy.trusted = found.trusted_cidrs.iter().flat_map(|list| &**list).map(|range| range.0).collect();
        policy.trusted_hops = found.num_trusted_hops.map(|hops| u32::try_from(hops.0).expect("up to 64"));
    }
    if let Some(found) = &spec.path {
        let path = &mut policy.limits.path;
        path.merge_slashes = !found.disable_merge_slashes;
        path.escaped_slashes = match found.escaped_slashes {
            EscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            EscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            EscapedSlashesAction::UnescapeForward => EscapedSlashes::Unescape,
            EscapedSlashesAction::UnescapeRedirect => EscapedSlashes::Redirect,
        };
    }
    let count = |value: i64| u32::try_from(value).expect("bounds of the field");
    if let Some(found) = &spec.http2 {
        let http2 = &mut policy.http2;
        http2.streams = found.max_concurrent_streams.map_or(http2.streams, |value| count(value.0));
        http2.stream_window = found.stream_window.map_or(http2.stream_window, |value| count(value.0));
        http2.connection_window = found.connection_window.map_or(http2.connection_window, |value| count(value.0));
    }
    if let Some(found) = spec.connection.as_ref().and_then(|connection| connection.limit.as_ref()) {
        policy.limits.connections = found.value.map(|value| count(value.0));
        policy.limits.requests = found.max_requests.map(|value| count(value.0));
        policy.timeouts.connection = found.max_duration.map(|found| found.0);
        policy.per_client = found.per_client.as_ref().map(|limit| ClientConnections {
            connections: count(limit.value.0),
            exempt: PrefixMap::new(limit.exempt.iter().map(|range| (range.0, true))),
            clients: usize::try_from(limit.max_clients.0).expect("bounds of the field"),
        });
    }
    policy.proxy_protocol = spec.proxy_protocol.as_ref().map(|found| ProxyProtocol {
        trusted: found.trusted_cidrs.iter().map(|range| range.0).collect(),
        optional: found.optional,
        timeout: found.timeout.0,
    });
    if let Some(http) = spec.timeout.as_ref().and_then(|timeout| timeout.http.as_ref()) {
        let timeouts = &mut policy.timeouts;
        timeouts.header = http.request_headers.map_or(timeouts.header, |found| found.0);
        timeouts.idle = http.idle.map_or(timeouts.idle, |found| found.0);
        timeouts.body_idle = http.stream_idle.map_or(timeouts.body_idle, |found| found.0);
        timeouts.request = http.request.map(|found| found.0);
    }
    if let Some(idle) = spec.timeout.as_ref().and_then(|timeout| timeout.tcp.as_ref()).and_then(|tcp| tcp.idle) {
        policy.timeouts.stream_idle = idle.0;
    }
    if let Some(handshake) =
        spec.timeout.as_ref().and_then(|timeout| timeout.tls.as_ref()).and_then(|tls| tls.handshake)
    {
        policy.timeouts.handshake = handshake.0;
    }
    if let Some(idle) = spec.timeout.as_ref().and_then(|timeout| timeout.udp.as_ref()).and_then(|udp| udp.idle) {
        policy.timeouts.udp_idle = idle.0;
    }
    policy.https_redirect = spec.https_redirect.as_ref().map(|found| {
        let status = found.status.map_or(308, |status| status.0);
        (status, found.port.get())
    });
    policy.connection = listen_options(spec);
    if let Some(found) = &spec.limits {
        let size = |value: i64| usize::try_from(value).expect("bounds of the field");
        let limits = &mut policy.limits;
        limits.head_bytes = found.head_bytes.map_or(limits.head_bytes, |value| size(value.0));
        limits.head_fields = found.head_fields.map_or(limits.head_fields, |value| size(value.0));
        limits.uri_bytes = found.uri_bytes.map_or(limits.uri_bytes, |value| size(value.0));
        limits.udp_flows = found.udp_flows.map_or(limits.udp_flows, |value| size(value.0));
        limits.body_bytes = found.body_bytes.map(|value| u64::try_from(value.0).expect("not negative"));
    }
    if let Some(found) = &spec.headers {
        policy.forwarded = found.forwarded.unwrap_or(policy.forwarded);
        policy.via = found.via.unwrap_or(policy.via);
        policy.client_certificate =
            found.client_cert.as_ref().is_some_and(|found| found.mode == ClientCertMode::SanitizeSet);
    }
    policy
}
