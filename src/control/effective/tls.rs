//! TLS as it is served. Keys are not shown.

use ringway_core::model::{
    CertificateChain, Model, SubjectAltName, TlsListener, TlsRoute, TlsServes, TlsSettings, TlsVersion, TrustRoots,
    UpstreamTls,
};
use serde_json::{Value, json};

use super::{http, route, targets};

/// A listener.
pub(super) fn listener(model: &Model, listener: &TlsListener) -> Value {
    let mut out = json!({ "name": listener.name, "hostname": listener.hostname.to_string() });
    let streams = |routes: &[TlsRoute]| routes.iter().map(|each| stream(model, each)).collect::<Vec<_>>();
    match &listener.serves {
        TlsServes::Https { tls, routes, responses } => {
            out["mode"] = json!("HTTPS");
            out["tls"] = settings(tls);
            out["routes"] = routes.iter().map(|each| route(model, each)).collect();
            if let Some(found) = responses {
                out["responses"] = http::responses(found);
            }
        }
        TlsServes::Terminate { tls, routes } => {
            out["mode"] = json!("Terminate");
            out["tls"] = settings(tls);
            out["routes"] = json!(streams(routes));
        }
        TlsServes::Passthrough { routes } => {
            out["mode"] = json!("Passthrough");
            out["routes"] = json!(streams(routes));
        }
    }
    out
}

fn stream(model: &Model, route: &TlsRoute) -> Value {
    let hostnames: Vec<String> = route.hostnames.iter().map(ToString::to_string).collect();
    json!({
        "name": model.routes[route.id.0 as usize],
        "hostnames": hostnames,
        "split": targets(model, &route.split),
    })
}

fn settings(tls: &TlsSettings) -> Value {
    let version = |version: Option<TlsVersion>, otherwise: &'static str| match version {
        None => otherwise,
        Some(TlsVersion::V12) => "1.2",
        Some(TlsVersion::V13) => "1.3",
    };
    let all = |names: &[&'static str]| if names.is_empty() { json!("all") } else { json!(names) };
    json!({
        "minVersion": version(tls.parameters.min, "1.2"),
        "maxVersion": version(tls.parameters.max, "1.3"),
        "ciphers": all(&tls.parameters.cipher_suites),
        "ecdhCurves": all(&tls.parameters.groups),
        "alpnProtocols": tls.alpn,
        "certificates": tls.certificates.iter().map(|each| certificate(each)).collect::<Vec<_>>(),
        "clientValidation": tls.client_auth.as_ref().map(|auth| json!({
            "authorities": auth.roots.len(),
            "mode": if auth.required { "AllowValidOnly" } else { "AllowInsecureFallback" },
        })),
    })
}

/// A certificate without its key.
pub(super) fn certificate(found: &CertificateChain) -> Value {
    json!({
        "name": found.name,
        "subject": found.facts.subject,
        "dnsNames": found.facts.dns_names,
        "sha256": found.facts.fingerprint,
        "notAfter": found.facts.not_after,
        "ocspStapled": found.ocsp.is_some(),
    })
}

/// TLS towards a backend.
pub(super) fn upstream(tls: &UpstreamTls) -> Value {
    let sans: Vec<&str> = tls
        .sans
        .iter()
        .map(|san| match san {
            SubjectAltName::Dns(name) | SubjectAltName::Uri(name) => name.as_str(),
        })
        .collect();
    json!({
        "hostname": tls.hostname,
        "subjectAltNames": sans,
        "authorities": match &tls.roots {
            TrustRoots::System => json!("System"),
            TrustRoots::Certificates(certificates) => json!(certificates.len()),
        },
        "clientCertificate": tls.client.as_deref().map(certificate),
    })
}
