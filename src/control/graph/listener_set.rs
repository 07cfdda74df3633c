//! ListenerSets: listeners that other objects add to a Gateway (GEP-1713).
//!
//! The Gateway's own listeners come first, then those of the oldest ListenerSet, then by namespace and name. One that
//! clashes with one before it is conflicted and bound nowhere; the one before it stays.

use crate::control::resources::Resources;
use crate::control::resources::refs::{FromNamespaces, GATEWAY_GROUP};

use super::attach::selected_namespace;
use super::gateway::{GatewayState, ListenerSetState, clash, listener};
use super::{Problem, Report, by_age};

/// Adds the listeners of all sets to their Gateways.
pub(super) fn attach<'r>(
    resources: &'r Resources,
    gateways: &mut [GatewayState<'r>],
    report: &mut Report,
) -> Vec<ListenerSetState<'r>> {
    let mut sets = Vec::new();
    for index in by_age(&resources.listener_sets) {
        let object = &resources.listener_sets[index];
        let name = format!("ListenerSet {}", object.meta.full_name());
        let parent = &object.spec.parent_ref;
        let namespace = parent.namespace.as_ref().map_or(object.meta.namespace.as_str(), |found| &found.0);
        if (&*parent.group, &*parent.kind) != (GATEWAY_GROUP, "Gateway") {
            report.warning(parent.span, format!("{name}: a parent of kind {} is not served", parent.kind));
            continue;
        }
        let is_it = |name: &str, of: &str| name == parent.name.0 && of == namespace;
        let found = gateways.iter().position(|each| is_it(&each.object.meta.name, &each.object.meta.namespace));
        let Some(gateway) = found else {
            if !resources.gateways.iter().any(|each| is_it(&each.meta.name, &each.meta.namespace)) {
                report.warning(parent.span, format!("{name}: there is no Gateway {namespace}/{}", parent.name));
            }
            continue;
        };
        let state = &mut gateways[gateway];
        let allowed = state.object.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let permitted = match allowed.map_or(FromNamespaces::None, |namespaces| namespaces.from) {
            FromNamespaces::All => true,
            FromNamespaces::None => false,
            FromNamespaces::Same => state.object.meta.namespace == object.meta.namespace,
            FromNamespaces::Selector => {
                let selector = allowed.and_then(|namespaces| namespaces.selector.as_ref());
                selected_namespace(selector, &object.meta.namespace, resources)
            }
        };
        let full_name = state.object.meta.full_name();
        let problem = if !permitted {
            let message = format!("Gateway {full_name} takes no ListenerSets of namespace {}", object.meta.namespace);
            Some(Problem::new("NotAllowed", message))
        } else {
            let refused = state.problem.as_ref();
            refused.map(|refused| {
                let message = format!("Gateway {full_name} is not accepted: {}", refused.message);
                Problem::new("ParentNotAccepted", message)
            })
        };
        if let Some(problem) = &problem {
            report.warning(parent.span, format!("{name} is not accepted: {}", problem.message));
        } else {
            for spec in &*object.spec.listeners {
                let mut new = listener(spec, &object.meta, report);
                new.set = Some(sets.len());
                let before = state.listeners.iter().filter(|other| other.conflict.is_none() && other.serves.is_some());
                let mut reasons = before.filter_map(|other| Some((clash(spec, other.spec)?, other)));
                if let Some((reason, other)) = reasons.next() {
                    let message = format!(
                        "listener {} clashes with listener {} of {}, which comes first: {reason}",
                        &*spec.name.value,
                        &*other.spec.name.value,
                        other.owner.full_name()
                    );
                    report.warning(spec.span, format!("{name}: {message}"));
                    new.conflict = Some(Problem::new(reason, message));
                }
                drop(reasons);
                state.listeners.push(new);
            }
        }
        sets.push(ListenerSetState { object, gateway, problem });
    }
    sets
}
