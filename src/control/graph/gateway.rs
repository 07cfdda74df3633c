//! Gateways and their listeners: classes, addresses, conflicts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ringway_core::model::{CertificateChain, ClientAuth, HostPattern};

use crate::control::resources::gateway::{GatewaySpec, Listener, ListenerSetSpec, TlsMode};
use crate::control::resources::meta::Meta;
use crate::control::resources::refs::GATEWAY_GROUP;
use crate::control::resources::ringway::ClientPolicySpec;
use crate::control::resources::{Resource, Resources};

use super::policy::{Policies, Target};
use super::secret::Secrets;
use super::{Problem, Report, Resolve, by_age};
use super::{gateway_tls, listener_set};

/// The controller whose GatewayClasses are served.
pub const CONTROLLER: &str = "ringway.dev/gateway";
/// The class that needs no object.
const CLASS: &str = "ringway";

/// What a listener's socket speaks, of what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Serves {
    /// Plain HTTP.
    Http,
    /// TLS that is ended here, HTTP inside.
    Https,
    /// TLS that is ended here, anything inside.
    TlsTerminate,
    /// TLS that is passed on.
    TlsPassthrough,
    /// Raw TCP.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl Serves {
    /// Whether sockets speak TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::TlsTerminate | Self::TlsPassthrough)
    }

    /// Whether TLS is ended here.
    pub fn ends_tls(self) -> bool {
        matches!(self, Self::Https | Self::TlsTerminate)
    }

    /// Whether one socket can be shared with listeners of the other's kind.
    fn shares_with(self, other: Self) -> bool {
        self == other && self != Self::Tcp || self.is_tls() && other.is_tls()
    }
}

/// A listener.
#[derive(Debug)]
pub struct ListenerState<'r> {
    /// As configured.
    pub spec: &'r Listener,
    /// What it stands in: a Gateway or a ListenerSet.
    pub owner: &'r Meta,
    /// What it speaks; none: its protocol is not served.
    pub serves: Option<Serves>,
    /// It is not accepted.
    pub problem: Option<Problem>,
    /// It clashes with another.
    pub conflict: Option<Problem>,
    /// A kind of route that it allows is not one it can have.
    pub unresolved: Option<Problem>,
    /// Certificates that can be used.
    pub certificates: Vec<Arc<CertificateChain>>,
    /// What is asked of clients.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// Kinds of routes that may attach.
    pub kinds: Vec<&'static str>,
    /// Routes that have.
    pub attached_routes: usize,
    /// Its traffic is forwarded by direct server return: no socket is bound.
    pub dsr: bool,
    /// The ListenerSet that it stands in, by its index in the graph; none: the Gateway.
    pub set: Option<usize>,
    /// Another listener of its port ends TLS for some of the same names.
    pub overlaps: Option<Problem>,
}

impl ListenerState<'_> {
    /// Whether it is bound.
    pub fn is_served(&self) -> bool {
        self.serves.is_some() && self.problem.is_none() && self.conflict.is_none() && !self.lacks_certificate()
    }

    /// Whether there is nothing that TLS could be ended with.
    pub fn lacks_certificate(&self) -> bool {
        self.serves.is_some_and(Serves::ends_tls) && self.certificates.is_empty()
    }
}

/// A ListenerSet whose parent is a Gateway of ours.
#[derive(Debug)]
pub struct ListenerSetState<'r> {
    /// As configured.
    pub object: &'r Resource<ListenerSetSpec>,
    /// Its Gateway, by its index in the graph.
    pub gateway: usize,
    /// It is not accepted as a whole: its listeners are not among the Gateway's.
    pub problem: Option<Problem>,
}

/// A gateway.
#[derive(Debug)]
pub struct GatewayState<'r> {
    /// As configured.
    pub object: &'r Resource<GatewaySpec>,
    /// It is not accepted as a whole.
    pub problem: Option<Problem>,
    /// Where it listens.
    pub addresses: Vec<IpAddr>,
    /// Its listeners.
    pub listeners: Vec<ListenerState<'r>>,
    /// A reference of `spec.tls` does not resolve.
    pub unresolved: Option<Problem>,
    /// Some port serves clients without a valid certificate although it asks for one.
    pub insecure_frontend: bool,
    /// What is shown to backends that ask; `None` in it: it cannot be had.
    pub backend_certificate: Option<Option<Arc<CertificateChain>>>,
    /// Addresses that this machine does not have.
    pub absent: Vec<IpAddr>,
}

impl<'r> GatewayState<'r> {
    /// `namespace/gateway/listener`, or `namespace/listenerset/listener`.
    pub fn listener_name(&self, listener: usize) -> String {
        let state = &self.listeners[listener];
        format!("{}/{}", state.owner.full_name(), &*state.spec.name.value)
    }

    /// The listeners that stand in the Gateway itself, with their indices; those of ListenerSets come behind them.
    pub fn own_listeners(&self) -> impl Iterator<Item = &ListenerState<'r>> {
        self.listeners.iter().take_while(|listener| listener.set.is_none())
    }

    /// The sockets of a listener.
    pub fn binds(&self, listener: usize) -> impl Iterator<Item = SocketAddr> + '_ {
        let port = self.listeners[listener].spec.port.value.get();
        self.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
    }

    /// Not all of its addresses can be bound.
    pub fn unusable(&self) -> Option<Problem> {
        self.absent.first().map(|ip| Problem::new("AddressNotUsable", not_here(*ip)))
    }

    /// Where a listener's clients send what is forwarded without a socket: this machine may not have the address yet, or
    /// not now, and what arrives for it is forwarded all the same.
    pub fn virtual_addresses(&self, listener: usize) -> impl Iterator<Item = SocketAddr> + '_ {
        let port = self.listeners[listener].spec.port.value.get();
        self.addresses.iter().chain(&self.absent).map(move |ip| SocketAddr::new(*ip, port))
    }
}

/// The gateways that are ours.
pub(super) fn gateways<'r>(
    resources: &'r Resources,
    secrets: &mut Secrets<'_>,
    resolver: &mut dyn Resolve,
    report: &mut Report,
) -> (Vec<GatewayState<'r>>, Vec<ListenerSetState<'r>>) {
    let mut all = Vec::new();
    for index in by_age(&resources.gateways) {
        let object = &resources.gateways[index];
        if is_ours(object, resources, report) {
            all.push(gateway(object, resolver, report));
        }
    }
    let sets = listener_set::attach(resources, &mut all, report);
    for gateway in &mut all {
        for listener in &mut gateway.listeners {
            let kind = if listener.set.is_some() { "ListenerSet" } else { "Gateway" };
            gateway_tls::certificates((kind, &listener.owner.namespace), listener, secrets, report);
        }
        gateway_tls::gateway(gateway, secrets, report);
        overlaps(&mut gateway.listeners);
    }
    between_gateways(&mut all, report);
    (all, sets)
}

fn is_ours(object: &Resource<GatewaySpec>, resources: &Resources, report: &mut Report) -> bool {
    let class = &object.spec.class;
    match resources.classes.iter().find(|known| known.meta.name == class.value.0) {
        Some(known) if &*known.spec.controller_name == CONTROLLER => true,
        Some(known) => {
            let message = format!(
                "Gateway {} is not served: its class {} belongs to {}",
                object.meta.full_name(),
                class.value,
                known.spec.controller_name
            );
            report.warning(class.span, message);
            false
        }
        None if resources.is_closed("GatewayClass", &class.value.0) => {
            let message =
                format!("Gateway {} is not served: its GatewayClass could not be read", object.meta.full_name());
            report.warning(class.span, message);
            false
        }
        None if &*class.value == CLASS => true,
        None => {
            let message =
                format!("Gateway {} is not served: there is no GatewayClass {}", object.meta.full_name(), class.value);
            let help = format!("`gatewayClassName: {CLASS}` needs no GatewayClass object");
            report.warning_with_help(class.span, message, Some(help));
            false
        }
    }
}

fn gateway<'r>(object: &'r Resource<GatewaySpec>, resolver: &mut dyn Resolve, report: &mut Report) -> GatewayState<'r> {
    let spec = &object.spec;
    let mut problem = None;
    if let Some(infrastructure) = &spec.infrastructure {
        let name = object.meta.full_name();
        if let Some(parameters) = &infrastructure.value.parameters_ref {
            let message = format!("parametersRef {}: no kind of parameters is known", parameters.value.name);
            report.warning(parameters.span, format!("Gateway {name} is not served: {message}"));
            problem = Some(Problem::new("InvalidParameters", message));
        } else {
            let message = "infrastructure has no effect: nothing is generated that could have labels or annotations";
            report.note(infrastructure.span, format!("Gateway {name}: {message}"));
        }
    }
    let mut addresses = Vec::new();
    for address in &*spec.addresses {
        match (&*address.kind, &address.value) {
            ("IPAddress", Some(value)) => addresses.extend(value.value.parse::<IpAddr>().ok()),
            // An address of any kind is asked for: all.
            ("IPAddress" | "Hostname", None) => addresses.push(Ipv6Addr::UNSPECIFIED.into()),
            (other, _) => {
                let message = format!("address type {other} is not supported: only IPAddress is");
                report.warning(address.span, format!("Gateway {} is not served: {message}", object.meta.full_name()));
                problem = Some(Problem::new("UnsupportedAddress", message));
            }
        }
    }
    if addresses.is_empty() && problem.is_none() {
        addresses.push(Ipv6Addr::UNSPECIFIED.into());
    }
    let mut listeners: Vec<ListenerState<'r>> =
        spec.listeners.iter().map(|each| listener(each, &object.meta, report)).collect();
    conflicts(&mut listeners, report);
    // What cannot be bound must not keep others from being served.
    let mut absent = Vec::new();
    addresses.retain(|ip| {
        let usable = resolver.is_usable(*ip);
        if !usable {
            report.note(spec.addresses[0].span, format!("Gateway {}: {}", object.meta.full_name(), not_here(*ip)));
            absent.push(*ip);
        }
        usable
    });
    GatewayState {
        object,
        problem,
        addresses,
        listeners,
        unresolved: None,
        insecure_frontend: false,
        backend_certificate: None,
        absent,
    }
}

fn not_here(ip: IpAddr) -> String {
    format!("{ip} is no address of this machine: it is not bound")
}

pub(super) fn listener<'r>(spec: &'r Listener, owner: &'r Meta, report: &mut Report) -> ListenerState<'r> {
    let name = &*spec.name.value;
    let (serves, supported, problem): (_, &[&'static str], _) = match &*spec.protocol.value {
        "HTTP" => (Some(Serves::Http), &["HTTPRoute", "GRPCRoute"], None),
        "TCP" => (Some(Serves::Tcp), &["TCPRoute"], None),
        "HTTPS" => (Some(Serves::Https), &["HTTPRoute", "GRPCRoute"], None),
        "TLS" => match spec.tls.as_ref().and_then(|tls| tls.mode) {
            Some(TlsMode::Passthrough) => (Some(Serves::TlsPassthrough), &["TLSRoute"], None),
            _ => (Some(Serves::TlsTerminate), &["TLSRoute"], None),
        },
        "UDP" => (Some(Serves::Udp), &["UDPRoute"], None),
        other => {
            let message = format!("protocol {other} is not supported");
            report.warning_with_help(
                spec.protocol.span,
                format!("listener {name} is not served: {message}"),
                crate::control::read::suggestion(other, &["HTTP", "HTTPS", "TLS", "TCP", "UDP"])
                    .map(|meant| format!("did you mean `{meant}`?")),
            );
            (None, &[], Some(Problem::new("UnsupportedProtocol", message)))
        }
    };
    let mut kinds = supported.to_vec();
    let mut unresolved = None;
    if let Some(allowed) = spec.allowed_routes.as_ref().map(|allowed| &allowed.kinds)
        && !allowed.is_empty()
    {
        kinds.retain(|kind| allowed.iter().any(|each| &*each.group == GATEWAY_GROUP && &*each.kind.value == *kind));
        let wrong =
            allowed.iter().find(|each| &*each.group != GATEWAY_GROUP || !supported.contains(&&*each.kind.value));
        if let Some(wrong) = wrong
            && serves.is_some()
        {
            let message =
                format!("routes of kind {} cannot attach to protocol {}", wrong.kind.value, spec.protocol.value);
            report.warning(wrong.kind.span, message.clone());
            unresolved = Some(Problem::new("InvalidRouteKinds", message));
        }
    }
    ListenerState {
        spec,
        owner,
        serves,
        problem,
        conflict: None,
        unresolved,
        certificates: Vec::new(),
        client_auth: None,
        kinds,
        attached_routes: 0,
        dsr: false,
        set: None,
        overlaps: None,
    }
}

/// Listeners of one Gateway that clash: none of them is served (GatewaySpec.listeners).
fn conflicts(listeners: &mut [ListenerState<'_>], report: &mut Report) {
    for index in 0..listeners.len() {
        let this = listeners[index].spec;
        let clash = listeners
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .find_map(|(_, other)| clash(this, other.spec).map(|reason| (reason, &*other.spec.name.value)));
        if let Some((reason, other)) = clash {
            let message = format!("listener {} clashes with listener {other}: {reason}", &*this.name.value);
            report.warning(this.span, message.clone());
            listeners[index].conflict = Some(Problem::new(reason, message));
        }
    }
}

pub(super) fn clash(a: &Listener, b: &Listener) -> Option<&'static str> {
    if a.port.value != b.port.value {
        return None;
    }
    let (x, y) = (&*a.protocol.value, &*b.protocol.value);
    if (x == "UDP") != (y == "UDP") {
        return None;
    }
    let encrypted = |protocol: &str| protocol == "HTTPS" || protocol == "TLS";
    if x != y && !(encrypted(x) && encrypted(y)) {
        return Some("ProtocolConflict");
    }
    // TCP and UDP listeners have no hostname, so two of a port always clash.
    (a.host() == b.host()).then_some("HostnameConflict")
}

/// Listeners of a port that end TLS for some of the same names (GEP-3567), or with certificates for some of the same, so
/// that clients may take a connection to one for the other's requests. Those are told so by 421.
fn overlaps(listeners: &mut [ListenerState<'_>]) {
    let encrypted: Vec<usize> =
        (0..listeners.len()).filter(|index| listeners[*index].serves.is_some_and(Serves::ends_tls)).collect();
    for index in &encrypted {
        let this = &listeners[*index];
        let host = this.spec.host();
        let others = || {
            let others = encrypted.iter().filter(|other| *other != index).map(|other| &listeners[*other]);
            others.filter(|other| other.spec.port.value == this.spec.port.value)
        };
        let by_certificate = others().find(|other| certify_the_same(&this.certificates, &other.certificates));
        let by_name = || {
            others().find(|other| {
                let name = other.spec.host();
                name != host && name.intersect(&host).is_some()
            })
        };
        let found = match by_certificate {
            Some(other) => Some(("OverlappingCertificates", "a certificate of its own has a name of one", other)),
            None => by_name().map(|other| ("OverlappingHostnames", "its hostname overlaps with that", other)),
        };
        let problem = found.map(|(reason, what, other)| {
            Problem::new(reason, format!("{what} of listener {}", &*other.spec.name.value))
        });
        listeners[*index].overlaps = problem;
    }
}

/// Whether some name is in certificates of both. A wildcard stands for one label.
fn certify_the_same(these: &[Arc<CertificateChain>], those: &[Arc<CertificateChain>]) -> bool {
    let covers = |name: &str, other: &str| {
        let below = |parent: &str| other.split_once('.').is_some_and(|(_, rest)| rest == parent);
        name == other || name.strip_prefix("*.").is_some_and(below)
    };
    let names = |chains: &'_ [Arc<CertificateChain>]| -> Vec<String> {
        chains.iter().flat_map(|chain| chain.facts.dns_names.iter().cloned()).collect()
    };
    let those = names(those);
    names(these).iter().any(|name| those.iter().any(|other| covers(name, other) || covers(other, name)))
}

/// Listeners whose ClientPolicy could not be read are not served: it says whom to believe, and what TLS to ask for. Those
/// that share their port share the policy.
pub(super) fn close(gateways: &mut [GatewayState<'_>], policies: &Policies<'_, ClientPolicySpec>) {
    let mut ports = Vec::new();
    for (number, gateway) in gateways.iter().enumerate() {
        for (index, listener) in gateway.listeners.iter().enumerate() {
            if policies.is_closed(&[Target::Listener(number, index), Target::Gateway(number)]) {
                ports.extend(gateway.binds(index).map(|bind| (bind, listener.serves == Some(Serves::Udp))));
            }
        }
    }
    if ports.is_empty() {
        return;
    }
    for gateway in gateways {
        for index in 0..gateway.listeners.len() {
            let is_udp = gateway.listeners[index].serves == Some(Serves::Udp);
            if gateway.binds(index).any(|bind| ports.contains(&(bind, is_udp))) {
                let message = "the ClientPolicy of its port could not be read";
                gateway.listeners[index].problem.get_or_insert_with(|| Problem::new("Invalid", message));
            }
        }
    }
}

/// Several Gateways share an address where their HTTP listeners differ by hostname; otherwise the oldest has it.
fn between_gateways(gateways: &mut [GatewayState<'_>], report: &mut Report) {
    let mut taken: Vec<(SocketAddr, Serves, HostPattern, String, usize)> = Vec::new();
    for (number, gateway) in gateways.iter_mut().enumerate() {
        if gateway.problem.is_some() {
            continue;
        }
        for index in 0..gateway.listeners.len() {
            let state = &gateway.listeners[index];
            let Some(serves) = state.serves.filter(|_| state.is_served()) else { continue };
            let host = state.spec.host();
            let name = gateway.listener_name(index);
            let clash = gateway.binds(index).find_map(|bind| {
                taken.iter().find(|other| {
                    let same_transport = (other.1 == Serves::Udp) == (serves == Serves::Udp);
                    other.0 == bind
                        && same_transport
                        && other.4 != number
                        && (!serves.shares_with(other.1) || other.2 == host)
                })
            });
            match clash {
                Some(other) => {
                    let reason = if serves.shares_with(other.1) { "HostnameConflict" } else { "ProtocolConflict" };
                    let message = format!("listener {name} is not served: {} has {} already", other.3, other.0);
                    report.warning(state.spec.span, message.clone());
                    gateway.listeners[index].conflict = Some(Problem::new(reason, message));
                }
                None => {
                    taken.extend(gateway.binds(index).map(|bind| (bind, serves, host.clone(), name.clone(), number)))
                }
            }
        }
    }
}
