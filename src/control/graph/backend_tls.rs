//! BackendTLSPolicies, and `tls` of Backends: how backends are verified.
//!
//! A backend with a policy that cannot be honoured gets nothing: never plain text, never an unverified connection.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_core::model::{SubjectAltName, TrustRoots, UpstreamTls};

use crate::control::resources::Resource;
use crate::control::resources::Resources;
use crate::control::resources::tls::{BackendTlsPolicySpec, BackendTlsValidation, WellKnownCa};
use crate::tls::ClientTls;

use super::policy::{Outcome, Policies, Target};
use super::secret::{AuthorityRef, Secrets};
use super::{BackendState, GatewayState, Problem, Report, RouteState};

/// How connections to a backend are to be protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BackendTls {
    /// Not at all: nothing asks for it.
    #[default]
    Plain,
    /// By TLS, without what a Gateway adds.
    Verified(Arc<UpstreamTls>),
    /// Something asks for TLS and cannot be honoured.
    Invalid,
}

/// A BackendTLSPolicy's conditions, which are the same for every Gateway.
#[derive(Debug)]
pub struct BackendTlsState<'r> {
    /// As configured.
    pub object: &'r Resource<BackendTlsPolicySpec>,
    /// Gateways whose routes lead to its targets.
    pub gateways: Vec<usize>,
    /// It is not in force.
    pub refused: Option<Problem>,
    /// A reference of it does not resolve.
    pub unresolved: Option<Problem>,
}

/// Resolves all policies and gives every backend its protection.
pub(super) fn apply<'r>(
    resources: &'r Resources,
    policies: &Policies<'r, BackendTlsPolicySpec>,
    gateways: &[GatewayState<'r>],
    routes: &[RouteState],
    backends: &mut [BackendState],
    secrets: &Secrets<'_>,
    report: &mut Report,
) -> Vec<BackendTlsState<'r>> {
    let mut states = Vec::new();
    let mut verified: HashMap<String, BackendTls> = HashMap::new();
    for policy in &policies.all {
        let meta = &policy.object.meta;
        let who = format!("BackendTLSPolicy {}", meta.full_name());
        let (tls, unresolved) =
            verify("BackendTLSPolicy", &meta.namespace, &policy.object.spec.validation, secrets, report);
        let conflict = policy.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Refused(problem) => Some(problem.clone()),
            Outcome::Attached | Outcome::Foreign => None,
        });
        let in_force = policy.outcomes.contains(&Outcome::Attached);
        let refused = match &tls {
            Err(problem) => {
                let message = format!("{who} cannot be honoured: its backends get nothing ({})", problem.message);
                report.warning(policy.object.spec.validation.span, message);
                Some(problem.clone())
            }
            Ok(_) => conflict.filter(|_| !in_force),
        };
        verified.insert(meta.full_name(), tls.map_or(BackendTls::Invalid, BackendTls::Verified));
        states.push(BackendTlsState { object: policy.object, gateways: Vec::new(), refused, unresolved });
    }
    for (index, backend) in backends.iter_mut().enumerate() {
        if policies.is_closed(&backend.policy_targets) {
            backend.tls = BackendTls::Invalid;
        } else if let Some(policy) = policies.first(&backend.policy_targets) {
            backend.tls = verified.get(&policy.meta.full_name()).cloned().unwrap_or(BackendTls::Invalid);
        } else if let Some((object, validation)) = inline(resources, backend) {
            let (tls, _) = verify("Backend", &object.meta.namespace, validation, secrets, report);
            backend.tls = match tls {
                Ok(tls) => BackendTls::Verified(tls),
                Err(problem) => {
                    let name = object.meta.full_name();
                    report.warning(validation.span, format!("Backend {name} gets nothing: {}", problem.message));
                    BackendTls::Invalid
                }
            };
        }
        // Whoever leads to it is an ancestor of what is attached to it.
        for state in &mut states {
            let names = |target: &Target| policies.names(state.object, target);
            if !backend.policy_targets.iter().any(names) {
                continue;
            }
            for route in routes.iter().filter(|route| route.leads_to(index)) {
                for found in route.parents.iter().flat_map(|parent| &parent.attached) {
                    if !state.gateways.contains(&found.gateway) {
                        state.gateways.push(found.gateway);
                    }
                }
            }
        }
    }
    debug_assert!(states.iter().all(|state| state.gateways.iter().all(|gateway| *gateway < gateways.len())));
    for state in &mut states {
        state.gateways.sort_unstable();
    }
    states
}

/// What a `ringway.dev` Backend says for itself.
fn inline<'r>(
    resources: &'r Resources,
    backend: &BackendState,
) -> Option<(&'r Resource<crate::control::resources::ringway::BackendSpec>, &'r BackendTlsValidation)> {
    let name = backend.policy_targets.iter().find_map(|target| match target {
        Target::Backend(object) if object.kind == "Backend" => Some(object),
        _ => None,
    })?;
    let mut all = resources.backends.iter();
    let object = all.find(|each| each.meta.name == name.name && each.meta.namespace == name.namespace)?;
    Some((object, object.spec.tls.as_ref()?))
}

/// What is asked for, and the first reference that does not resolve; without any authority it is an error.
fn verify(
    kind: &str,
    namespace: &str,
    validation: &BackendTlsValidation,
    secrets: &Secrets<'_>,
    report: &mut Report,
) -> (Result<Arc<UpstreamTls>, Problem>, Option<Problem>) {
    let (mut certificates, mut unresolved) = (Vec::new(), None);
    for wanted in &*validation.ca_certificate_refs {
        let reference = AuthorityRef {
            span: wanted.span,
            from_kind: kind,
            from_namespace: namespace,
            group: &wanted.value.group,
            kind: &wanted.value.kind,
            namespace,
            name: &wanted.value.name,
        };
        match secrets.authorities(&reference, report) {
            Ok(found) => certificates.extend(found),
            Err(problem) => {
                // The policy's reasons are not the listener's.
                let reason = if problem.reason == "InvalidCACertificateKind" { "InvalidKind" } else { problem.reason };
                unresolved.get_or_insert(Problem { reason, ..problem });
            }
        }
    }
    let roots = match validation.well_known {
        Some(WellKnownCa::System) => TrustRoots::System,
        None if certificates.is_empty() => {
            return (Err(Problem::new("NoValidCACertificate", "no CA certificate can be used")), unresolved);
        }
        None => TrustRoots::Certificates(certificates),
    };
    let sans = validation.subject_alt_names.iter().filter_map(|san| match (&san.hostname, &san.uri) {
        (Some(hostname), _) => Some(SubjectAltName::Dns(hostname.to_string())),
        (None, Some(uri)) => Some(SubjectAltName::Uri(uri.clone())),
        (None, None) => None,
    });
    let tls = UpstreamTls { hostname: validation.hostname.to_string(), roots, sans: sans.collect(), client: None };
    // What the library would refuse is refused here, where it can be said.
    match ClientTls::new(&tls) {
        Ok(_) => (Ok(Arc::new(tls)), unresolved),
        Err(error) => (Err(Problem::new("NoValidCACertificate", error.to_string())), unresolved),
    }
}
