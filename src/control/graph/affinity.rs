//! `sessionAffinity: ClientIP` of a Service, and what has precedence over it.
//!
//! A Service says it for everybody, a BackendPolicy for this proxy, so what a policy says of the choice of endpoints is
//! what holds: its balancer, or its sessions and no affinity besides.

use std::collections::BTreeSet;

use crate::control::resources::backend_policy::BackendPolicySpec;
use crate::control::source::Span;

use super::policy::{Policies, Target};
use super::{BackendState, Report, RouteRules, RouteState};

/// A Service's affinity, and where it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity(pub(super) Span);

impl BackendState {
    /// Whether clients are kept at an endpoint by their addresses under a policy.
    pub fn is_by_client(&self, policy: Option<&BackendPolicySpec>) -> bool {
        self.affinity.is_some() && !policy.is_some_and(chooses)
    }
}

/// Whether a policy says which endpoint is next.
fn chooses(policy: &BackendPolicySpec) -> bool {
    policy.load_balancer.is_some() || policy.session_persistence.is_some()
}

/// Says where a policy has taken the place of a Service's affinity.
pub(super) fn check(
    backends: &[BackendState],
    routes: &[RouteState],
    policies: &Policies<'_, BackendPolicySpec>,
    report: &mut Report,
) {
    if policies.is_empty() {
        return;
    }
    for (index, backend) in backends.iter().enumerate() {
        let Some(Affinity(span)) = backend.affinity else { continue };
        let mut found = BTreeSet::new();
        for (number, route) in routes.iter().enumerate().filter(|(_, route)| route.leads_to(index)) {
            let rules = if let RouteRules::Http(rules) = &route.rules { rules.len() } else { 1 };
            for attached in route.parents.iter().flat_map(|parent| &parent.attached) {
                for rule in (0..rules).filter(|rule| route.rule_leads_to(*rule, index)) {
                    let way = [
                        Target::Rule(number, rule),
                        Target::Route(number),
                        Target::Listener(attached.gateway, attached.listener),
                        Target::Gateway(attached.gateway),
                    ];
                    let policy = policies.first(backend.policy_targets.iter().chain(&way));
                    found.extend(policy.filter(|policy| chooses(&policy.spec)).map(|policy| {
                        let sessions = policy.spec.session_persistence.is_some();
                        (policy.meta.full_name(), if sessions { "sessionPersistence" } else { "loadBalancer" })
                    }));
                }
            }
        }
        for (policy, field) in found {
            let name = &backend.model.name;
            let message =
                format!("{name}: {field} of BackendPolicy {policy} takes the place of sessionAffinity ClientIP");
            report.note(span, message);
        }
    }
}
