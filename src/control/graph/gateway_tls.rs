//! TLS of Gateways and their listeners: certificates, what is asked of clients, what is shown to backends.

use std::sync::Arc;

use ringway_core::model::ClientAuth;

use crate::control::resources::tls::{FrontendValidation, FrontendValidationMode};

use super::gateway::{GatewayState, ListenerState, Serves};
use super::secret::{AuthorityRef, Secrets};
use super::{Problem, Report};

/// Finds a listener's certificates; `owner`: kind and namespace of what it stands in. Those that cannot be used are reported, and the others serve.
pub(super) fn certificates(
    owner: (&str, &str),
    listener: &mut ListenerState<'_>,
    secrets: &mut Secrets<'_>,
    report: &mut Report,
) {
    if !listener.serves.is_some_and(Serves::ends_tls) {
        return;
    }
    let name = &*listener.spec.name.value;
    let refs = listener.spec.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
    for wanted in refs {
        match secrets.certificate(owner, wanted, "InvalidCertificateRef", report) {
            Ok(found) => listener.certificates.push(found),
            Err(problem) => {
                listener.unresolved.get_or_insert(problem);
            }
        }
    }
    if listener.certificates.is_empty() {
        let message = "it has no certificate that can be used";
        report.warning(listener.spec.span, format!("listener {name} is not served: {message}"));
        listener.unresolved.get_or_insert_with(|| Problem::new("InvalidCertificateRef", message));
    }
}

/// What the Gateway says for all of its listeners (`spec.tls`).
pub(super) fn gateway(state: &mut GatewayState<'_>, secrets: &mut Secrets<'_>, report: &mut Report) {
    let Some(tls) = &state.object.spec.tls else { return };
    let namespace = &state.object.meta.namespace;
    if let Some(wanted) = tls.backend.as_ref().and_then(|backend| backend.client_certificate_ref.as_ref()) {
        match secrets.certificate(("Gateway", namespace), wanted, "InvalidClientCertificateRef", report) {
            Ok(found) => state.backend_certificate = Some(Some(found)),
            Err(problem) => {
                state.backend_certificate = Some(None);
                state.unresolved.get_or_insert(problem);
            }
        }
    }
    let Some(frontend) = &tls.frontend else { return };
    for listener in &mut state.listeners {
        if listener.serves != Some(Serves::Https) {
            continue;
        }
        let port = listener.spec.port.value;
        let own = frontend.per_port.iter().find(|each| each.port == port).map(|each| &each.tls);
        let Some(validation) = &own.unwrap_or(&frontend.default).validation else { continue };
        let insecure = validation.mode == FrontendValidationMode::AllowInsecureFallback;
        state.insecure_frontend |= insecure;
        match authorities(namespace, validation, secrets, report) {
            (Some(roots), partly) => {
                listener.client_auth = Some(Arc::new(ClientAuth { roots, required: !insecure }));
                if let Some(problem) = partly {
                    listener.unresolved.get_or_insert(problem);
                }
            }
            (None, problem) => {
                // Never fail open: without authorities nobody could be verified, so nobody is served.
                let name = &*listener.spec.name.value;
                let message = "clients cannot be verified: no CA certificate can be used";
                report.warning(validation.span, format!("listener {name} is not served: {message}"));
                if let Some(problem) = problem {
                    listener.unresolved.get_or_insert(problem);
                }
                listener.problem.get_or_insert_with(|| Problem::new("NoValidCACertificate", message));
            }
        }
    }
}

/// The authorities of all references that resolve, and the first problem of those that do not.
fn authorities(
    namespace: &str,
    validation: &FrontendValidation,
    secrets: &Secrets<'_>,
    report: &mut Report,
) -> (Option<Vec<Vec<u8>>>, Option<Problem>) {
    let (mut roots, mut first) = (Vec::new(), None);
    for wanted in &*validation.ca_certificate_refs {
        let reference = AuthorityRef {
            span: wanted.span,
            from_kind: "Gateway",
            from_namespace: namespace,
            group: &wanted.group,
            kind: &wanted.kind,
            namespace: wanted.namespace.as_ref().map_or(namespace, |found| &found.0),
            name: &wanted.name,
        };
        match secrets.authorities(&reference, report) {
            Ok(found) => roots.extend(found),
            Err(problem) => {
                first.get_or_insert(problem);
            }
        }
    }
    ((!roots.is_empty()).then_some(roots), first)
}
