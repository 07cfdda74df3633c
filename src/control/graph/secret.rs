//! Certificates and authorities that listeners and policies refer to.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ringway_core::model::CertificateChain;

use crate::control::read::{Environment, suggestion};
use crate::control::resources::refs::{CertificateRef, RINGWAY_GROUP};
use crate::control::resources::ringway::CertificateSpec;
use crate::control::resources::{Resource, Resources};
use crate::control::source::Span;
use crate::tls;

use super::grant::Reference;
use super::{Problem, Report};

/// Where a fault is and what it is.
type Fault = (Span, Problem, Option<String>);

/// Reads what is referred to, each object once.
pub(super) struct Secrets<'r> {
    resources: &'r Resources,
    environment: &'r dyn Environment,
    known: HashMap<String, Option<Arc<CertificateChain>>>,
}

/// A reference to authorities: a ConfigMap with `ca.crt`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthorityRef<'a> {
    pub(super) span: Span,
    pub(super) from_kind: &'a str,
    pub(super) from_namespace: &'a str,
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'r> Secrets<'r> {
    pub(super) fn new(resources: &'r Resources, environment: &'r dyn Environment) -> Self {
        Self { resources, environment, known: HashMap::new() }
    }

    /// The certificate that a Gateway or ListenerSet refers to. One that cannot be used is reported where its fault is, and `reason`
    /// is what the API calls that.
    pub(super) fn certificate(
        &mut self,
        (from_kind, namespace): (&str, &str),
        wanted: &CertificateRef,
        reason: &'static str,
        report: &mut Report,
    ) -> Result<Arc<CertificateChain>, Problem> {
        let reference = Reference {
            from_kind,
            from_namespace: namespace,
            group: &wanted.group,
            kind: &wanted.kind,
            namespace: wanted.namespace.as_ref().map_or(namespace, |found| &found.0),
            name: &wanted.name,
        };
        self.find(&reference, wanted.span, reason, report).map_err(|(span, problem, help)| {
            report.warning_with_help(span, problem.message.clone(), help);
            problem
        })
    }

    fn find(
        &mut self,
        wanted: &Reference<'_>,
        span: Span,
        reason: &'static str,
        report: &mut Report,
    ) -> Result<Arc<CertificateChain>, Fault> {
        let full_name = format!("{}/{}", wanted.namespace, wanted.name);
        let name = format!("{}/{full_name}", wanted.kind);
        if !matches!((wanted.group, wanted.kind), ("", "Secret") | (RINGWAY_GROUP, "Certificate")) {
            let message = format!("certificateRef {full_name}: a {} holds no certificate", wanted.kind);
            let help = "a Secret of the core group, or a Certificate of group ringway.dev".to_owned();
            return Err((span, Problem::new(reason, message), Some(help)));
        }
        if !wanted.is_permitted(self.resources) {
            return Err((
                span,
                Problem::new("RefNotPermitted", format!("certificateRef to {}", wanted.refusal())),
                None,
            ));
        }
        if let Some(known) = self.known.get(&name) {
            let message = format!("{name} cannot be used");
            return known.clone().ok_or_else(|| (span, Problem::new(reason, message), None));
        }
        let found =
            if wanted.kind == "Secret" { self.secret(wanted, &name, span) } else { self.files(wanted, &name, span) };
        let found = found.map_err(|(span, message, help)| (span, Problem::new(reason, message), help));
        if let Ok(chain) = &found {
            warn_of(chain, span, report);
        }
        self.known.insert(name, found.as_ref().ok().cloned());
        found
    }

    fn secret(
        &self,
        wanted: &Reference<'_>,
        name: &str,
        span: Span,
    ) -> Result<Arc<CertificateChain>, (Span, String, Option<String>)> {
        let object =
            find(&self.resources.secrets, "Secret", wanted).map_err(|(message, help)| (span, message, help))?;
        let value = |key: &str| {
            let found =
                object.spec.get(key).ok_or_else(|| (object.meta.span, format!("{name} has no `{key}`"), None))?;
            let bytes = found.value.map_err(|why| (found.span, format!("`{key}` of {name} is {why}"), None))?;
            Ok((found.span, bytes))
        };
        let (at, certificates) = value("tls.crt")?;
        let (_, key) = value("tls.key")?;
        let chain = tls::chain(name.to_owned(), &certificates, &key, None);
        chain.map(Arc::new).map_err(|error| (at, format!("{name}: {error}"), None))
    }

    fn files(
        &self,
        wanted: &Reference<'_>,
        name: &str,
        span: Span,
    ) -> Result<Arc<CertificateChain>, (Span, String, Option<String>)> {
        let all = &self.resources.certificates;
        let object: &Resource<CertificateSpec> =
            find(all, "Certificate", wanted).map_err(|(message, help)| (span, message, help))?;
        let read = |span: Span, path: &Path| {
            let unreadable = |error| (span, format!("{name}: cannot read {}: {error}", path.display()), None);
            self.environment.bytes(path).map_err(unreadable)
        };
        let spec = &object.spec;
        let certificates = read(spec.certificate_file.span, &spec.certificate_file.value.0)?;
        let key = read(spec.private_key_file.span, &spec.private_key_file.value.0)?;
        let ocsp = spec.ocsp_file.as_ref().map(|file| read(file.span, &file.value.0)).transpose()?;
        let chain = tls::chain(name.to_owned(), &certificates, &key, ocsp);
        chain.map(Arc::new).map_err(|error| (spec.certificate_file.span, format!("{name}: {error}"), None))
    }

    /// The authorities that a ConfigMap holds; the problem says which of the API's reasons it is.
    pub(super) fn authorities(&self, wanted: &AuthorityRef<'_>, report: &mut Report) -> Result<Vec<Vec<u8>>, Problem> {
        self.find_authorities(wanted).map_err(|(span, problem, help)| {
            report.warning_with_help(span, problem.message.clone(), help);
            problem
        })
    }

    fn find_authorities(&self, wanted: &AuthorityRef<'_>) -> Result<Vec<Vec<u8>>, Fault> {
        let reference = Reference {
            from_kind: wanted.from_kind,
            from_namespace: wanted.from_namespace,
            group: wanted.group,
            kind: wanted.kind,
            namespace: wanted.namespace,
            name: wanted.name,
        };
        let span = wanted.span;
        let invalid = |message| Problem::new("InvalidCACertificateRef", message);
        let objects = match (wanted.group, wanted.kind) {
            ("", "ConfigMap") => &self.resources.config_maps,
            ("", "Secret") => &self.resources.secrets,
            (_, kind) => {
                let message = format!("a {kind} holds no CA certificates: a ConfigMap or Secret with `ca.crt` does");
                return Err((span, Problem::new("InvalidCACertificateKind", message), None));
            }
        };
        if !reference.is_permitted(self.resources) {
            let message = format!("reference to {}", reference.refusal());
            return Err((span, Problem::new("RefNotPermitted", message), None));
        }
        let object =
            find(objects, wanted.kind, &reference).map_err(|(message, help)| (span, invalid(message), help))?;
        let name = format!("{} {}", wanted.kind, object.meta.full_name());
        let Some(found) = object.spec.get("ca.crt") else {
            return Err((object.meta.span, invalid(format!("{name} has no `ca.crt`")), None));
        };
        let bytes = found.value.map_err(|why| (found.span, invalid(format!("`ca.crt` of {name} is {why}")), None))?;
        tls::authorities(&bytes).map_err(|error| (found.span, invalid(format!("{name}: {error}")), None))
    }
}

/// Certificates that work and will not for long, or not for anybody.
fn warn_of(chain: &CertificateChain, span: Span, report: &mut Report) {
    let facts = &chain.facts;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    if u64::try_from(facts.not_after).unwrap_or(0) < now {
        report.warning(span, format!("{} has expired: clients will refuse it", chain.name));
    }
    if facts.dns_names.is_empty() {
        let help = "clients look at subjectAltName only".to_owned();
        report.warning_with_help(span, format!("{} has no DNS name", chain.name), Some(help));
    }
}

fn find<'r, S>(
    all: &'r [Resource<S>],
    kind: &str,
    wanted: &Reference<'_>,
) -> Result<&'r Resource<S>, (String, Option<String>)> {
    let here = || all.iter().filter(|each| each.meta.namespace == wanted.namespace);
    here().find(|each| each.meta.name == wanted.name).ok_or_else(|| {
        let known: Vec<&str> = here().map(|each| each.meta.name.as_str()).collect();
        let help = suggestion(wanted.name, &known).map(|meant| format!("did you mean `{meant}`?"));
        (format!("there is no {kind} {}/{}", wanted.namespace, wanted.name), help)
    })
}
