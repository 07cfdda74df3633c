//! Which listeners a route attaches to.

use std::collections::HashMap;

use ringway_core::model::HostPattern;

use crate::control::read::Table;
use crate::control::resources::http_route::HttpRouteSpec;
use crate::control::resources::meta::Meta;
use crate::control::resources::refs::{FromNamespaces, GATEWAY_GROUP, LabelSelector, ParentRef};
use crate::control::resources::tls::TlsRouteSpec;
use crate::control::resources::{Resource, Resources};

use super::{Attachment, GatewayState, ListenerSetState, ListenerState, ParentState, Problem, Report};

/// Attaches an HTTPRoute, or a GRPCRoute.
pub(super) fn http(
    kind: &'static str,
    route: &Resource<HttpRouteSpec>,
    refused: Option<Problem>,
    gateways: &mut [GatewayState<'_>],
    places: &Places<'_, '_>,
    resources: &Resources,
    report: &mut Report,
) -> Vec<ParentState> {
    let common = by_host(route.spec.hostnames.iter().map(|hostname| hostname.value.0.clone()));
    let mut found = parents(kind, &route.meta, &route.spec.parent_refs, gateways, places, resources, report, common);
    if let Some(refused) = refused {
        // It is not accepted, and what it would have been asked is answered by its error all the same: a filter that
        // cannot be honoured must not be skipped.
        for parent in found.iter_mut().filter(|parent| parent.problem.is_none()) {
            for attachment in &parent.attached {
                gateways[attachment.gateway].listeners[attachment.listener].attached_routes -= 1;
            }
            parent.problem = Some(refused.clone());
        }
    }
    found
}

/// Attaches a TLSRoute.
pub(super) fn tls(
    route: &Resource<TlsRouteSpec>,
    gateways: &mut [GatewayState<'_>],
    places: &Places<'_, '_>,
    resources: &Resources,
    report: &mut Report,
) -> Vec<ParentState> {
    let common = by_host(route.spec.hostnames.iter().map(|hostname| hostname.value.0.clone()));
    parents("TLSRoute", &route.meta, &route.spec.parent_refs, gateways, places, resources, report, common)
}

/// Attaches a route of a kind that has no hostnames.
pub(super) fn stream(
    kind: &'static str,
    meta: &Meta,
    refs: &[ParentRef],
    gateways: &mut [GatewayState<'_>],
    places: &Places<'_, '_>,
    resources: &Resources,
    report: &mut Report,
) -> Vec<ParentState> {
    parents(kind, meta, refs, gateways, places, resources, report, |_| vec![HostPattern::Any])
}

/// What listeners have in common with a route's hostnames.
fn by_host(hostnames: impl Iterator<Item = HostPattern>) -> impl Fn(&ListenerState<'_>) -> Vec<HostPattern> {
    let hostnames: Vec<HostPattern> = hostnames.collect();
    move |listener| intersection(&listener.spec.host(), &hostnames)
}

/// What a listener and a route without or with hostnames have in common.
fn intersection(listener: &HostPattern, hostnames: &[HostPattern]) -> Vec<HostPattern> {
    if hostnames.is_empty() {
        return vec![listener.clone()];
    }
    let mut common: Vec<HostPattern> = Vec::new();
    for both in hostnames.iter().filter_map(|hostname| listener.intersect(hostname)) {
        if !common.contains(&both) {
            common.push(both);
        }
    }
    common
}

#[allow(clippy::too_many_arguments, reason = "one function for every kind of route")]
fn parents(
    kind: &'static str,
    meta: &Meta,
    refs: &[ParentRef],
    gateways: &mut [GatewayState<'_>],
    places: &Places<'_, '_>,
    resources: &Resources,
    report: &mut Report,
    common: impl Fn(&ListenerState<'_>) -> Vec<HostPattern>,
) -> Vec<ParentState> {
    let name = format!("{kind} {}", meta.full_name());
    if refs.is_empty() {
        report.warning(meta.span, format!("{name} has no parentRefs: it is not served"));
    }
    let mut parents = Vec::new();
    for (index, parent) in refs.iter().enumerate() {
        let is_set = &*parent.kind == "ListenerSet";
        if &*parent.group != GATEWAY_GROUP || !(is_set || &*parent.kind == "Gateway") {
            report.warning(parent.span, format!("{name}: a parent of kind {} is not served", parent.kind));
            continue;
        }
        let namespace = parent.namespace.as_ref().map_or(meta.namespace.as_str(), |found| &found.0);
        let is_it = |meta: &Meta| meta.name == parent.name.0 && meta.namespace == namespace;
        let found = if is_set {
            let set = places.sets.iter().position(|set| is_it(&set.object.meta));
            set.map(|set| (places.sets[set].gateway, Some(set)))
        } else {
            places.gateways.get(&(namespace, &*parent.name.0)).map(|gateway| (*gateway, None))
        };
        let Some((gateway, set)) = found else {
            let known: Vec<&Meta> = match is_set {
                true => resources.listener_sets.iter().map(|each| &each.meta).collect(),
                false => resources.gateways.iter().map(|each| &each.meta).collect(),
            };
            if !known.iter().any(|meta| is_it(meta)) {
                let near = known.iter().filter(|meta| meta.namespace == namespace);
                let near: Vec<&str> = near.map(|meta| meta.name.as_str()).collect();
                let help = crate::control::read::suggestion(&parent.name, &near);
                report.warning_with_help(
                    parent.span,
                    format!("{name}: there is no {} {namespace}/{}", parent.kind, parent.name),
                    help.map(|meant| format!("did you mean `{meant}`?")),
                );
            }
            continue;
        };
        let state = parent_state(kind, meta, index, parent, (gateway, set), &gateways[gateway], resources, &common);
        if let Some(problem) = &state.problem {
            report.warning(parent.span, format!("{name} is not accepted: {}", problem.message));
        }
        for attachment in &state.attached {
            gateways[gateway].listeners[attachment.listener].attached_routes += 1;
        }
        parents.push(state);
    }
    parents
}

#[allow(clippy::too_many_arguments, reason = "one call; a structure for it would be read once")]
fn parent_state(
    kind: &'static str,
    meta: &Meta,
    index: usize,
    parent: &ParentRef,
    (gateway, set): (usize, Option<usize>),
    state: &GatewayState<'_>,
    resources: &Resources,
    common: &impl Fn(&ListenerState<'_>) -> Vec<HostPattern>,
) -> ParentState {
    let selected = |listener: &ListenerState<'_>| {
        listener.set == set
            && parent.section_name.as_ref().is_none_or(|name| *name == listener.spec.name.value)
            && parent.port.is_none_or(|port| port == listener.spec.port.value)
    };
    let mut any_selected = false;
    let mut any_allowed = false;
    let mut attached = Vec::new();
    for (number, listener) in state.listeners.iter().enumerate() {
        if !selected(listener) {
            continue;
        }
        any_selected = true;
        if !listener.kinds.contains(&kind) || !allows(listener, meta, resources) {
            continue;
        }
        any_allowed = true;
        let hostnames = common(listener);
        if !hostnames.is_empty() {
            attached.push(Attachment { gateway, listener: number, hostnames });
        }
    }
    let namespace = parent.namespace.as_ref().map_or(meta.namespace.as_str(), |found| &found.0);
    let where_to = format!("{} {namespace}/{}", parent.kind, parent.name);
    let problem = if !any_selected {
        Some(Problem::new("NoMatchingParent", format!("{where_to} has no listener with that name or port")))
    } else if !any_allowed {
        let message = format!("no listener of {where_to} allows {kind}s of namespace {}", meta.namespace);
        Some(Problem::new("NotAllowedByListeners", message))
    } else if attached.is_empty() {
        let message = format!("no listener of {where_to} has a hostname in common with it");
        Some(Problem::new("NoMatchingListenerHostname", message))
    } else {
        None
    };
    ParentState { index, problem, attached }
}

/// Whether a listener takes routes of the route's namespace.
fn allows(listener: &ListenerState<'_>, meta: &Meta, resources: &Resources) -> bool {
    let namespaces = listener.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.map_or(FromNamespaces::Same, |namespaces| namespaces.from) {
        FromNamespaces::All => true,
        FromNamespaces::None => false,
        FromNamespaces::Same => listener.owner.namespace == meta.namespace,
        FromNamespaces::Selector => {
            let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
            selected_namespace(selector, &meta.namespace, resources)
        }
    }
}

/// Whether a selector takes a namespace; none takes nothing.
pub(super) fn selected_namespace(selector: Option<&LabelSelector>, namespace: &str, resources: &Resources) -> bool {
    if resources.is_closed("Namespace", namespace) {
        return false;
    }
    let object = resources.namespaces.iter().find(|each| each.meta.name == namespace);
    let mut labels = object.map_or_else(Table::default, |object| object.meta.labels.clone());
    // Every namespace has this label in a cluster.
    labels.0.retain(|(key, _)| key != "kubernetes.io/metadata.name");
    labels.0.push(("kubernetes.io/metadata.name".to_owned(), namespace.to_owned()));
    selector.is_some_and(|selector| selector.matches(&labels))
}

/// Where routes may attach.
pub(super) struct Places<'p, 'r> {
    sets: &'p [ListenerSetState<'r>],
    /// By namespace and name.
    gateways: HashMap<(&'r str, &'r str), usize>,
}

impl<'p, 'r> Places<'p, 'r> {
    pub(super) fn new(gateways: &[GatewayState<'r>], sets: &'p [ListenerSetState<'r>]) -> Self {
        let place = |(index, gateway): (usize, &GatewayState<'r>)| {
            let meta = &gateway.object.meta;
            ((meta.namespace.as_str(), meta.name.as_str()), index)
        };
        Self { sets, gateways: gateways.iter().enumerate().map(place).collect() }
    }
}
