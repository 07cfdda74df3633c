//! TLS listeners.

use ringway_core::model::{TlsParameters, TlsRoute, TlsServes, TlsSettings, TlsVersion};

use super::backends::{Backends, Place};
use super::{attached_hostnames, http_routes};
use crate::control::graph::{Graph, RouteRules, Serves};
use crate::control::resources::ringway::{ClientTls, TlsVersionName};
use crate::tls;

/// What a listener does.
pub(super) fn listener(
    graph: &Graph<'_>,
    gateway: usize,
    listener: usize,
    port: u16,
    backends: &mut Backends<'_, '_>,
) -> TlsServes {
    let state = &graph.gateways[gateway].listeners[listener];
    match state.serves {
        Some(Serves::Https) => {
            let routes = http_routes(graph, gateway, listener, port, backends);
            let responses = backends.responses_at(gateway, listener);
            TlsServes::Https { tls: settings(graph, gateway, listener, &["h2", "http/1.1"]), routes, responses }
        }
        Some(Serves::TlsTerminate) => {
            // What is inside is the backend's business, and so is its protocol: none is offered.
            let tls = settings(graph, gateway, listener, &[]);
            TlsServes::Terminate { tls, routes: routes(graph, gateway, listener, backends) }
        }
        _ => TlsServes::Passthrough { routes: routes(graph, gateway, listener, backends) },
    }
}

fn routes(graph: &Graph<'_>, gateway: usize, listener: usize, backends: &mut Backends<'_, '_>) -> Vec<TlsRoute> {
    let mut attached = Vec::new();
    for (number, route) in graph.routes.iter().enumerate() {
        let RouteRules::Tls(split) = &route.rules else { continue };
        let hostnames = attached_hostnames(route, gateway, listener);
        if !hostnames.is_empty() {
            let split = backends.split(Place { gateway, listener, route: number, rule: 0 }, split);
            attached.push(TlsRoute { id: route.id, hostnames, split });
        }
    }
    attached
}

fn settings(graph: &Graph<'_>, gateway: usize, listener: usize, alpn: &[&str]) -> TlsSettings {
    let state = &graph.gateways[gateway].listeners[listener];
    let policy = graph.client_policies.of_listener(gateway, listener).and_then(|found| found.spec.tls.as_ref());
    let offered = policy.and_then(|policy| policy.alpn_protocols.as_ref());
    TlsSettings {
        certificates: state.certificates.clone(),
        parameters: policy.map_or_else(TlsParameters::default, parameters),
        alpn: match offered {
            Some(offered) => offered.iter().map(|protocol| protocol.value.clone()).collect(),
            None => alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
        },
        client_auth: state.client_auth.clone(),
    }
}

fn parameters(policy: &ClientTls) -> TlsParameters {
    let version = |name: TlsVersionName| match name {
        TlsVersionName::Auto => None,
        TlsVersionName::V12 => Some(TlsVersion::V12),
        TlsVersionName::V13 => Some(TlsVersion::V13),
    };
    TlsParameters {
        min: version(policy.min_version),
        max: version(policy.max_version),
        cipher_suites: policy
            .ciphers
            .iter()
            .flat_map(|list| &**list)
            .filter_map(|name| tls::cipher_suite(&name.value))
            .collect(),
        groups: policy.ecdh_curves.iter().flat_map(|list| &**list).filter_map(|name| tls::group(&name.value)).collect(),
    }
}
