//! Gateways and their listeners: classes, addresses, conflicts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ringway_core::model::{CertificateChain, ClientAuth, HostPattern};

use crate::control::resources::gateway::{GatewaySpec, Listener, TlsMode};
use crate::control::resources::refs::GATEWAY_GROUP;
use crate::control::resources::{Resource, Resources};

use super::gateway_tls;
use super::secret::Secrets;
use super::{Problem, Report, by_age};

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
}

impl GatewayState<'_> {
    /// `namespace/gateway/listener`.
    pub fn listener_name(&self, listener: usize) -> String {
        format!("{}/{}", self.object.meta.full_name(), &*self.listeners[listener].spec.name.value)
    }

    /// The sockets of a listener.
    pub fn binds(&self, listener: usize) -> impl Iterator<Item = SocketAddr> + '_ {
        let port = self.listeners[listener].spec.port.value.get();
        self.addresses.iter().map(move |ip| SocketAddr::new(*ip, port))
    }
}

/// The gateways that are ours.
pub(super) fn gateways<'r>(
    resources: &'r Resources,
    secrets: &mut Secrets<'_>,
    report: &mut Report,
) -> Vec<GatewayState<'r>> {
    let mut all = Vec::new();
    for index in by_age(&resources.gateways) {
        let object = &resources.gateways[index];
        if is_ours(object, resources, report) {
            all.push(gateway(object, secrets, report));
        }
    }
    between_gateways(&mut all, report);
    all
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

fn gateway<'r>(object: &'r Resource<GatewaySpec>, secrets: &mut Secrets<'_>, report: &mut Report) -> GatewayState<'r> {
    let spec = &object.spec;
    let mut problem = None;
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
    let mut listeners: Vec<ListenerState<'r>> = spec.listeners.iter().map(|each| listener(each, report)).collect();
    conflicts(&mut listeners, report);
    for listener in &mut listeners {
        gateway_tls::certificates(&object.meta.namespace, listener, secrets, report);
    }
    let mut state = GatewayState {
        object,
        problem,
        addresses,
        listeners,
        unresolved: None,
        insecure_frontend: false,
        backend_certificate: None,
    };
    gateway_tls::gateway(&mut state, secrets, report);
    state
}

fn listener<'r>(spec: &'r Listener, report: &mut Report) -> ListenerState<'r> {
    let name = &*spec.name.value;
    let (serves, supported, problem): (_, &[&'static str], _) = match &*spec.protocol.value {
        "HTTP" => (Some(Serves::Http), &["HTTPRoute"], None),
        "TCP" => (Some(Serves::Tcp), &["TCPRoute"], None),
        "HTTPS" => (Some(Serves::Https), &["HTTPRoute"], None),
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
        serves,
        problem,
        conflict: None,
        unresolved,
        certificates: Vec::new(),
        client_auth: None,
        kinds,
        attached_routes: 0,
        dsr: false,
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

fn clash(a: &Listener, b: &Listener) -> Option<&'static str> {
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
    let by_port_alone = x == "TCP" || x == "UDP";
    let passthrough =
        |listener: &Listener| listener.tls.as_ref().and_then(|tls| tls.mode) == Some(TlsMode::Passthrough);
    if a.host() == b.host() && (by_port_alone || x != y || passthrough(a) != passthrough(b)) {
        return Some("HostnameConflict");
    }
    by_port_alone.then_some("ProtocolConflict")
}

/// Several Gateways share an address where their HTTP listeners differ by hostname; otherwise the oldest has it.
fn between_gateways(gateways: &mut [GatewayState<'_>], report: &mut Report) {
    let mut taken: Vec<(SocketAddr, Serves, HostPattern, String)> = Vec::new();
    for gateway in gateways {
        if gateway.problem.is_some() {
            continue;
        }
        for index in 0..gateway.listeners.len() {
            let state = &gateway.listeners[index];
            let Some(serves) = state.serves.filter(|_| state.is_served()) else { continue };
            let host = state.spec.host();
            let name = gateway.listener_name(index);
            let owner = gateway.object.meta.full_name() + "/";
            let clash = gateway.binds(index).find_map(|bind| {
                taken.iter().find(|other| {
                    let same_transport = (other.1 == Serves::Udp) == (serves == Serves::Udp);
                    other.0 == bind
                        && same_transport
                        && !other.3.starts_with(&owner)
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
                None => taken.extend(gateway.binds(index).map(|bind| (bind, serves, host.clone(), name.clone()))),
            }
        }
    }
}
