//! Listeners whose traffic is forwarded by direct server return, and what has to hold for that.
//!
//! What does not hold is a condition of the policy and of the listener, which then is not served: proxying what was
//! meant to be forwarded would answer from the wrong place.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_core::dsr::{Hashing, Transport};
use ringway_core::health::{ActiveCheck, Probe};
use ringway_core::model::{DsrMode, DsrServer, DsrService, EndpointAddress, Target, WeightedTarget};

use crate::control::resources::Resource;
use crate::control::resources::l4_forwarding::{
    ActiveHealthCheck, Dsr, FlowHash, ForwardingMode, HealthCheckType, L4ForwardingPolicySpec, XdpChoice,
};
use crate::control::resources::policy::Policy;

use super::policy::{Outcome, Policies, Target as PolicyTarget};
use super::{BackendState, GatewayState, OnLink, Problem, Report, Resolve, RouteRules, RouteState, Serves};

/// Flows that are remembered unless configured otherwise.
const MAX_FLOWS: u32 = 262_144;
/// New flows of a service that are remembered per second unless configured otherwise.
const NEW_FLOWS_PER_SECOND: u32 = 50_000;
/// How long flows of a drained server go on unless configured otherwise.
const DRAIN: Duration = Duration::from_secs(300);

/// What is looked at.
pub(super) struct Context<'g, 'r> {
    pub(super) gateways: &'g mut [GatewayState<'r>],
    pub(super) routes: &'g [RouteState],
    pub(super) backends: &'g [BackendState],
    pub(super) resolver: &'g mut dyn Resolve,
    /// What it has said.
    pub(super) on_link: HashMap<(String, IpAddr), OnLink>,
    pub(super) report: &'g mut Report,
}

/// The services of all policies with mode DSR. Their listeners are theirs alone.
pub(super) fn services(
    policies: &mut Policies<'_, L4ForwardingPolicySpec>,
    context: &mut Context<'_, '_>,
) -> Vec<DsrService> {
    let mut found: Vec<DsrService> = Vec::new();
    for gateway in 0..context.gateways.len() {
        if context.gateways[gateway].problem.is_some() {
            continue;
        }
        for listener in 0..context.gateways[gateway].listeners.len() {
            if !context.gateways[gateway].listeners[listener].is_served() {
                continue;
            }
            let route = route_of(context.routes, gateway, listener);
            let mut targets = Vec::new();
            targets.extend(route.iter().flat_map(|route| [PolicyTarget::Rule(*route, 0), PolicyTarget::Route(*route)]));
            targets.extend([PolicyTarget::Listener(gateway, listener), PolicyTarget::Gateway(gateway)]);
            if policies.is_closed(&targets) {
                let message = "its L4ForwardingPolicy could not be read";
                context.gateways[gateway].listeners[listener].problem = Some(Problem::new("Invalid", message));
                continue;
            }
            let Some(policy) = policies.first(&targets) else { continue };
            if policy.spec.forwarding.mode.value == ForwardingMode::Proxy {
                continue;
            }
            let Some(dsr) = &policy.spec.forwarding.dsr else { continue };
            let judged = judge(context, gateway, listener, route, policy, dsr, &found);
            let state = &mut context.gateways[gateway].listeners[listener];
            match judged {
                Ok(mut services) => {
                    state.dsr = true;
                    found.append(&mut services);
                }
                Err(problem) => {
                    let name = format!("{} {}", L4ForwardingPolicySpec::KIND, policy.meta.full_name());
                    let at = &*state.spec.name.value.0;
                    let message = format!("listener {at} is not served by {name}: {}", problem.message);
                    context.report.warning(dsr.span, message);
                    refuse(policies, policy, &problem);
                    state.problem = Some(problem);
                }
            }
        }
    }
    found
}

/// The oldest route at a listener has it.
fn route_of(routes: &[RouteState], gateway: usize, listener: usize) -> Option<usize> {
    routes.iter().position(|route| {
        stream_rules(route).is_some()
            && route
                .parents
                .iter()
                .flat_map(|parent| &parent.attached)
                .any(|at| (at.gateway, at.listener) == (gateway, listener))
    })
}

fn stream_rules(route: &RouteState) -> Option<&[WeightedTarget]> {
    match &route.rules {
        RouteRules::Tcp(split) | RouteRules::Udp(split) => Some(split),
        _ => None,
    }
}

/// The policy is not in force anywhere when it cannot be at one place.
fn refuse(
    policies: &mut Policies<'_, L4ForwardingPolicySpec>,
    policy: &Resource<L4ForwardingPolicySpec>,
    problem: &Problem,
) {
    let state = policies.all.iter_mut().find(|state| std::ptr::eq(state.object, policy));
    for outcome in state.into_iter().flat_map(|state| &mut state.outcomes) {
        if *outcome == Outcome::Attached {
            *outcome = Outcome::Refused(problem.clone());
        }
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::new("Invalid", message))
}

fn judge(
    context: &mut Context<'_, '_>,
    gateway: usize,
    listener: usize,
    route: Option<usize>,
    policy: &Resource<L4ForwardingPolicySpec>,
    dsr: &Dsr,
    before: &[DsrService],
) -> Result<Vec<DsrService>, Problem> {
    let state = &context.gateways[gateway];
    let spec = state.listeners[listener].spec;
    let transport = match state.listeners[listener].serves {
        Some(Serves::Tcp) => Transport::Tcp,
        Some(Serves::Udp) => Transport::Udp,
        _ => {
            return invalid(format!(
                "its protocol is {}: only TCP and UDP can be forwarded; name a listener of the Gateway by sectionName",
                &*spec.protocol.value
            ));
        }
    };
    let interface = &dsr.interface.value;
    let mode = match dsr.xdp {
        XdpChoice::Auto => DsrMode::Auto,
        XdpChoice::Native => DsrMode::Native,
        XdpChoice::Generic => DsrMode::Generic,
    };
    if let Some(other) = before.iter().find(|other| other.interface == *interface && other.mode != mode) {
        return invalid(format!(
            "xdp {} contradicts listener {}, which has {} at interface {interface}",
            mode.as_str(),
            other.name,
            other.mode.as_str()
        ));
    }
    let vips: Vec<SocketAddr> = state.virtual_addresses(listener).collect();
    if vips.iter().any(|vip| vip.ip().is_unspecified()) {
        return invalid("the Gateway has no addresses of its own: spec.addresses must name the virtual address");
    }
    let split = route.and_then(|route| stream_rules(&context.routes[route])).unwrap_or_default();
    let servers = servers(split, context.backends, spec.port.value.get())?;
    for server in &servers {
        if vips.iter().all(|vip| vip.is_ipv4() != server.ip.is_ipv4()) {
            return invalid(format!("server {} is of another address family than the virtual address", server.ip));
        }
        if vips.iter().any(|vip| vip.ip() == server.ip) {
            return invalid(format!("server {} is the virtual address itself", server.ip));
        }
        let resolver = &mut *context.resolver;
        let asked = context.on_link.entry((interface.clone(), server.ip));
        match *asked.or_insert_with(|| resolver.on_link(interface, server.ip)) {
            OnLink::Yes | OnLink::Unknown => {}
            OnLink::Router => {
                return invalid(format!(
                    "server {} is behind a router: frames can be sent to neighbours only",
                    server.ip
                ));
            }
            OnLink::Local => return invalid(format!("server {} is this machine", server.ip)),
            OnLink::NoInterface => return invalid(format!("this machine has no interface {interface}")),
        }
    }
    let state = &context.gateways[gateway];
    let name = state.listener_name(listener);
    let mut services = Vec::new();
    for vip in vips {
        let same_family: Vec<DsrServer> =
            servers.iter().filter(|server| server.ip.is_ipv4() == vip.is_ipv4()).copied().collect();
        if same_family.is_empty() && !servers.is_empty() {
            return invalid(format!("no server is of the address family of {}", vip.ip()));
        }
        let table = dsr.flow_table.as_ref();
        let number =
            |value: Option<i64>, default| value.map_or(default, |found| u32::try_from(found).expect("in range"));
        services.push(DsrService {
            name: name.clone(),
            vip,
            transport,
            interface: interface.clone(),
            mode,
            hashing: match dsr.hash {
                FlowHash::FiveTuple => Hashing::FiveTuple,
                FlowHash::SourceIp => Hashing::SourceIp,
            },
            stateless: table.is_some_and(|table| table.stateless),
            max_flows: number(table.and_then(|table| table.max_entries.map(|found| found.0)), MAX_FLOWS),
            new_flows_per_second: number(
                table.and_then(|table| table.new_flows_per_second.map(|found| found.0)),
                NEW_FLOWS_PER_SECOND,
            ),
            drain: dsr.drain_timeout.map_or(DRAIN, |found| found.0),
            health: match &policy.spec.health_check {
                Some(found) => check(&found.active, vip),
                None => (transport == Transport::Tcp).then(ActiveCheck::default),
            },
            servers: same_family,
        });
    }
    Ok(services)
}

/// Servers with their shares of the whole: a reference's weight is divided among its endpoints.
fn servers(split: &[WeightedTarget], backends: &[BackendState], port: u16) -> Result<Vec<DsrServer>, Problem> {
    let mut shares: Vec<(IpAddr, u64)> = Vec::new();
    for share in split {
        // One that does not resolve has been reported; what it would have is left to the others.
        let Target::Backend(id) = share.target else { continue };
        let backend = &backends[id.0 as usize].model;
        let sum: u64 = backend.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        for endpoint in &backend.endpoints {
            let EndpointAddress::Tcp(address) = endpoint.address else {
                return invalid(format!(
                    "{} has an endpoint that is not an address: {}",
                    backend.name, endpoint.address
                ));
            };
            if address.port() != port {
                return invalid(format!(
                    "{} has port {}, the listener {port}: frames keep their port, so both must be the same",
                    backend.name,
                    address.port()
                ));
            }
            let weight = u64::from(share.weight) * 65_536 * u64::from(endpoint.weight) / sum.max(1);
            let weight = if share.weight == 0 { 0 } else { weight.max(1) };
            match shares.iter_mut().find(|known| known.0 == address.ip()) {
                Some(known) => known.1 += weight,
                None => shares.push((address.ip(), weight)),
            }
        }
    }
    let divisor = shares.iter().fold(0, |divisor, share| gcd(divisor, share.1)).max(1);
    let to_server =
        |(ip, weight): (IpAddr, u64)| DsrServer { ip, weight: u32::try_from(weight / divisor).unwrap_or(u32::MAX) };
    Ok(shares.into_iter().map(to_server).collect())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check(active: &ActiveHealthCheck, vip: SocketAddr) -> Option<ActiveCheck> {
    let defaults = ActiveCheck::default();
    let probe = match (active.kind.value, &active.http) {
        (HealthCheckType::None, _) => return None,
        (HealthCheckType::Http, Some(http)) => {
            let statuses = http.expected_statuses.as_ref().map_or_else(
                || vec![(200, 200)],
                |all| {
                    let status = |found: i64| u16::try_from(found).expect("in range");
                    all.iter().map(|found| (status(found.0), status(found.0))).collect()
                },
            );
            let host = http.hostname.as_ref().map_or_else(|| vip.to_string(), |found| found.value.clone());
            Probe::Http { path: http.path.value.clone(), host, statuses }
        }
        _ => Probe::Tcp,
    };
    let interval = active.interval.map_or(defaults.interval, |found| found.0);
    let threshold =
        |value: Option<i64>, default| value.map_or(default, |found| u32::try_from(found).expect("in range"));
    Some(ActiveCheck {
        probe,
        port: active.port.map(|port| port.get()),
        interval,
        fast_interval: defaults.fast_interval.min(interval),
        timeout: active.timeout.map_or(defaults.timeout, |found| found.0),
        rise: threshold(active.healthy_threshold.map(|found| found.0), defaults.rise),
        fall: threshold(active.unhealthy_threshold.map(|found| found.0), defaults.fall),
    })
}
