//! The graph's conditions in the API's shape: what a controller would write to each object's `status`.

use serde_json::{Value, json};

use super::graph::backend_tls::BackendTlsState;
use super::graph::policy::{Outcome, Policies};
use super::graph::{CONTROLLER, GatewayState, Graph, ListenerState, Problem};
use super::resources::Resource;
use super::resources::gateway::GatewayClassSpec;
use super::resources::meta::Meta;
use super::resources::policy::Policy;
use super::resources::refs::{GATEWAY_GROUP, ParentRef, PolicyTargetRef};
use super::resources::tls::BackendTlsPolicySpec;

/// A `v1 List` of every Gateway, route and policy that is ours, with its status.
pub fn status(graph: &Graph<'_>) -> Value {
    let classes = graph.resources.classes.iter().filter(|class| &*class.spec.controller_name == CONTROLLER);
    let mut items: Vec<Value> = classes.map(gateway_class).collect();
    items.extend((0..graph.gateways.len()).map(|index| gateway(graph, index)));
    items.extend((0..graph.listener_sets.len()).map(|index| listener_set(graph, index)));
    items.extend(graph.routes.iter().map(|route| {
        let meta = graph.route_meta(route);
        let refs = route.parent_refs(graph.resources);
        let parents: Vec<Value> = route
            .parents
            .iter()
            .map(|parent| {
                let accepted = condition(meta, "Accepted", "Accepted", "the route is served", parent.problem.as_ref());
                let resolved = condition(
                    meta,
                    "ResolvedRefs",
                    "ResolvedRefs",
                    "every reference resolves",
                    route.unresolved.as_ref(),
                );
                let mut conditions = vec![accepted, resolved];
                if let Some(problem) = &route.partly_invalid {
                    conditions.push(raw(meta, "PartiallyInvalid", true, problem.reason, &problem.message));
                }
                json!({
                    "parentRef": parent_ref(meta, &refs[parent.index]),
                    "controllerName": CONTROLLER,
                    "conditions": conditions,
                })
            })
            .collect();
        object(&format!("{GATEWAY_GROUP}/v1"), route.kind, meta, json!({ "parents": parents }))
    }));
    items.extend(policies(&graph.client_policies));
    items.extend(graph.backend_tls.iter().map(|state| backend_tls(graph, state)));
    items.extend(policies(&graph.backend_policies));
    items.extend(policies(&graph.access_policies));
    items.extend(policies(&graph.rate_limit_policies));
    items.extend(policies(&graph.response_policies));
    items.extend(policies(&graph.l4_policies));
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// PolicyStatus: what a policy names is its ancestor.
fn policies<S: Policy>(policies: &Policies<'_, S>) -> impl Iterator<Item = Value> {
    policies.all.iter().map(|policy| {
        let meta = &policy.object.meta;
        let named = policy.object.spec.target_refs().iter().zip(&policy.outcomes);
        let ancestors: Vec<Value> = named
            .filter_map(|(target, outcome)| {
                let problem = match outcome {
                    Outcome::Attached => None,
                    Outcome::Refused(problem) => Some(problem),
                    Outcome::Foreign => return None,
                };
                Some(json!({
                    "ancestorRef": target_ref(meta, target),
                    "controllerName": CONTROLLER,
                    "conditions": [condition(meta, "Accepted", "Accepted", "the policy is in force", problem)],
                }))
            })
            .collect();
        object(S::API_VERSION, S::KIND, meta, json!({ "ancestors": ancestors }))
    })
}

/// A BackendTLSPolicy's ancestors are the Gateways whose routes lead to its targets; where none does, what it names.
fn backend_tls(graph: &Graph<'_>, state: &BackendTlsState<'_>) -> Value {
    let meta = &state.object.meta;
    let accepted = condition(meta, "Accepted", "Accepted", "the policy is in force", state.refused.as_ref());
    let resolved =
        condition(meta, "ResolvedRefs", "ResolvedRefs", "every reference resolves", state.unresolved.as_ref());
    let ancestor = |reference: Value| {
        json!({
            "ancestorRef": reference,
            "controllerName": CONTROLLER,
            "conditions": [accepted.clone(), resolved.clone()],
        })
    };
    let gateways = state.gateways.iter().map(|index| &graph.gateways[*index].object.meta);
    let mut ancestors: Vec<Value> = gateways
        .map(|gateway| {
            ancestor(json!({
                "group": GATEWAY_GROUP,
                "kind": "Gateway",
                "namespace": gateway.namespace,
                "name": gateway.name,
            }))
        })
        .collect();
    if ancestors.is_empty() {
        ancestors.extend(state.object.spec.target_refs.iter().map(|target| ancestor(target_ref(meta, target))));
    }
    object(BackendTlsPolicySpec::API_VERSION, BackendTlsPolicySpec::KIND, meta, json!({ "ancestors": ancestors }))
}

fn target_ref(meta: &Meta, target: &PolicyTargetRef) -> Value {
    let mut found = json!({
        "group": &*target.group,
        "kind": &*target.kind,
        "namespace": meta.namespace,
        "name": &*target.name,
    });
    if let Some(name) = &target.section_name {
        found["sectionName"] = json!(&**name);
    }
    found
}

fn object(version: &str, kind: &str, meta: &Meta, status: Value) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": meta.name, "namespace": meta.namespace },
        "status": status,
    })
}

fn raw(meta: &Meta, kind: &str, status: bool, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": if status { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "observedGeneration": meta.generation,
    })
}

fn condition(meta: &Meta, kind: &str, reason: &str, message: &str, problem: Option<&Problem>) -> Value {
    match problem {
        None => raw(meta, kind, true, reason, message),
        Some(problem) => raw(meta, kind, false, problem.reason, &problem.message),
    }
}

fn parent_ref(meta: &Meta, parent: &ParentRef) -> Value {
    let mut found = json!({
        "group": &*parent.group,
        "kind": &*parent.kind,
        "namespace": parent.namespace.as_ref().map_or(meta.namespace.as_str(), |found| &found.0),
        "name": &*parent.name,
    });
    if let Some(name) = &parent.section_name {
        found["sectionName"] = json!(&**name);
    }
    if let Some(port) = parent.port {
        found["port"] = json!(port.get());
    }
    found
}

/// What of the API's features works, by the names of its conformance suite, sorted.
pub const SUPPORTED_FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendRequestRedirect",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

fn gateway_class(class: &Resource<GatewayClassSpec>) -> Value {
    let meta = &class.meta;
    let unknown = class.spec.parameters_ref.as_ref().map(|_| Problem {
        reason: "InvalidParameters",
        message: "parametersRef: no kind of parameters is known".to_owned(),
    });
    let accepted = condition(meta, "Accepted", "Accepted", "Gateways of the class are served", unknown.as_ref());
    let features: Vec<Value> = SUPPORTED_FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "apiVersion": format!("{GATEWAY_GROUP}/v1"),
        "kind": "GatewayClass",
        "metadata": { "name": meta.name },
        "status": { "conditions": [accepted], "supportedFeatures": features },
    })
}

/// A ListenerSet is accepted as long as one of its listeners is.
fn listener_set(graph: &Graph<'_>, index: usize) -> Value {
    let set = &graph.listener_sets[index];
    let gateway = &graph.gateways[set.gateway];
    let meta = &set.object.meta;
    let own = || gateway.listeners.iter().filter(|listener| listener.set == Some(index));
    let served = own().any(ListenerState::is_served);
    let refused: Vec<&str> = own().filter(|listener| !listener.is_served()).map(listener_of).collect();
    let invalid =
        Problem { reason: "ListenersNotValid", message: format!("listeners not served: {}", refused.join(", ")) };
    let refusal = set.problem.as_ref().or_else(|| (!served).then_some(&invalid));
    let accepted = match refusal {
        Some(_) => condition(meta, "Accepted", "", "", refusal),
        None if refused.is_empty() => raw(meta, "Accepted", true, "Accepted", "the ListenerSet is served"),
        None => raw(meta, "Accepted", true, invalid.reason, &invalid.message),
    };
    let programmed = condition(meta, "Programmed", "Programmed", "the listeners are bound", refusal);
    let listeners: Vec<Value> = own().map(|each| listener(meta, gateway, each)).collect();
    object(
        &format!("{GATEWAY_GROUP}/v1"),
        "ListenerSet",
        meta,
        json!({ "conditions": [accepted, programmed], "listeners": listeners }),
    )
}

fn listener_of<'l>(state: &'l ListenerState<'_>) -> &'l str {
    &state.spec.name.value.0
}

fn gateway(graph: &Graph<'_>, index: usize) -> Value {
    let state = &graph.gateways[index];
    let meta = &state.object.meta;
    let none = state.own_listeners().next().is_none();
    let served = state.problem.is_none() && (none || state.own_listeners().any(ListenerState::is_served));
    let refused = state.own_listeners().filter(|listener| listener.problem.is_some() || listener.conflict.is_some());
    let refused: Vec<&str> = refused.map(|listener| &*listener.spec.name.value.0).collect();
    let invalid = (!refused.is_empty()).then(|| Problem {
        reason: "ListenersNotValid",
        message: format!("listeners not served: {}", refused.join(", ")),
    });
    let accepted = match (&state.problem, &invalid) {
        (Some(problem), _) => raw(meta, "Accepted", false, problem.reason, &problem.message),
        (None, Some(invalid)) => raw(meta, "Accepted", served, invalid.reason, &invalid.message),
        (None, None) => raw(meta, "Accepted", true, "Accepted", "the Gateway is served"),
    };
    let programmed = if let Some(unusable) = state.unusable().filter(|_| served) {
        condition(meta, "Programmed", "", "", Some(&unusable))
    } else if served {
        raw(meta, "Programmed", true, "Programmed", "the Gateway's listeners are bound")
    } else {
        raw(meta, "Programmed", false, "Invalid", "no listener is served")
    };
    let addresses: Vec<Value> = if served {
        state.addresses.iter().map(|ip| json!({ "type": "IPAddress", "value": ip.to_string() })).collect()
    } else {
        Vec::new()
    };
    let listeners: Vec<Value> = state.own_listeners().map(|each| listener(meta, state, each)).collect();
    let sets = graph.listener_sets.iter().enumerate().filter(|(number, set)| {
        let mut listeners = state.listeners.iter().filter(|listener| listener.set == Some(*number));
        set.gateway == index && listeners.any(ListenerState::is_served)
    });
    let sets = sets.count();
    let mut conditions = vec![accepted, programmed];
    if state.object.spec.tls.is_some() {
        let problem = state.unresolved.as_ref();
        conditions.push(condition(meta, "ResolvedRefs", "ResolvedRefs", "every reference resolves", problem));
    }
    if state.insecure_frontend {
        let message = "clients without a valid certificate are served (AllowInsecureFallback)";
        conditions.push(raw(meta, "InsecureFrontendValidationMode", true, "ConfigurationChanged", message));
    }
    object(
        &format!("{GATEWAY_GROUP}/v1"),
        "Gateway",
        meta,
        json!({
            "addresses": addresses,
            "attachedListenerSets": sets,
            "conditions": conditions,
            "listeners": listeners,
        }),
    )
}

fn listener(meta: &Meta, gateway: &GatewayState<'_>, state: &ListenerState<'_>) -> Value {
    let refused = state.problem.as_ref().or(state.conflict.as_ref()).or(gateway.problem.as_ref());
    let unusable = state.unresolved.as_ref().filter(|_| state.lacks_certificate());
    // A ListenerSet's listener says why (ListenerEntryConditionReason), a Gateway's that it is invalid.
    let programmed = refused.or(unusable).map(|problem| {
        let reason = if state.set.is_some() { problem.reason } else { "Invalid" };
        Problem { reason, message: problem.message.clone() }
    });
    let conflicted = match &state.conflict {
        Some(conflict) => raw(meta, "Conflicted", true, conflict.reason, &conflict.message),
        None => raw(meta, "Conflicted", false, "NoConflicts", "it clashes with no other listener"),
    };
    let kinds: Vec<Value> = state.kinds.iter().map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind })).collect();
    let mut conditions = vec![
        condition(meta, "Accepted", "Accepted", "the listener is served", refused),
        condition(meta, "Programmed", "Programmed", "the listener is bound", programmed.as_ref()),
        condition(meta, "ResolvedRefs", "ResolvedRefs", "every reference resolves", state.unresolved.as_ref()),
        conflicted,
    ];
    if let Some(overlaps) = &state.overlaps {
        conditions.push(raw(meta, "OverlappingTLSConfig", true, overlaps.reason, &overlaps.message));
    }
    json!({
        "name": &*state.spec.name.value,
        "supportedKinds": kinds,
        "attachedRoutes": state.attached_routes,
        "conditions": conditions,
    })
}
