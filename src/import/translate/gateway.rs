//! The Gateway, and what belongs to it as a whole: grants, the ClientPolicy.

use std::collections::BTreeSet;

use super::{ClientAuth, GATEWAY_API, MAX_RULES, RINGWAY_API, Work, object};
use crate::import::ingress::{Ingress, secret};
use crate::import::yaml::Yaml;
use crate::import::{controller, policies};

impl<'g> Work<'g> {
    pub(super) fn gateway(&self) -> Yaml {
        let several = self.ingresses.iter().any(|ingress| ingress.namespace != self.namespace);
        let allowed = || {
            several.then(|| ("allowedRoutes", Yaml::Map(vec![("namespaces", Yaml::Map(vec![("from", "All".into())]))])))
        };
        let listener = |name: &str, port: i64, protocol: &str, more: Vec<(&'static str, Yaml)>| {
            let mut parts = vec![("name", name.into()), ("port", port.into()), ("protocol", protocol.into())];
            parts.extend(more);
            parts.extend(allowed());
            Yaml::Map(parts)
        };
        let mut listeners = vec![listener("http", 80, "HTTP", Vec::new())];
        if self.has_https() {
            let refs = self.certificates.iter().map(|(namespace, name)| {
                let mut parts = vec![("name", name.as_str().into())];
                parts.extend((*namespace != self.namespace).then(|| ("namespace", namespace.as_str().into())));
                Yaml::Map(parts)
            });
            let tls = Yaml::Map(vec![("certificateRefs", Yaml::List(refs.collect()))]);
            let note = "One listener for every host: the certificate is chosen by the name that the client asks for, the first one is \
                        shown where none has it. A host without TLS of its own is served here too, as by ingress-nginx.";
            listeners.push(listener("https", 443, "HTTPS", vec![("tls", tls)]).noted(vec![note.to_owned()]));
        }
        for host in &self.passthrough {
            let tls = Yaml::Map(vec![("mode", "Passthrough".into())]);
            let name = format!("tls-{}", host.replace("*.", "any."));
            listeners.push(listener(&name, 443, "TLS", vec![("hostname", host.as_str().into()), ("tls", tls)]));
        }
        let mut spec = vec![("gatewayClassName", "ringway".into()), ("listeners", Yaml::List(listeners))];
        let mut tls = Vec::new();
        if let Some((secret, required)) = self.client_auth.as_ref().filter(|_| self.has_https()) {
            let (namespace, name) = secret.split_once('/').unwrap_or((&self.namespace, secret));
            let mut reference = vec![("group", "".into()), ("kind", "Secret".into()), ("name", name.into())];
            reference.extend((namespace != self.namespace).then(|| ("namespace", namespace.into())));
            let mode = if *required { "AllowValidOnly" } else { "AllowInsecureFallback" };
            let validation = vec![("caCertificateRefs", Yaml::List(vec![Yaml::Map(reference)])), ("mode", mode.into())];
            let validation = Yaml::Map(vec![("validation", Yaml::Map(validation))]);
            let note = "auth-tls-secret: asked of every client of the port; a client that is refused ends in the handshake, not with 400";
            tls.push(("frontend", Yaml::Map(vec![("default", validation.noted(vec![note.to_owned()]))])));
        }
        if let Some((namespace, name)) = self.backend_certificate() {
            let mut reference = vec![("name", name.into())];
            reference.extend((namespace != self.namespace).then(|| ("namespace", namespace.into())));
            tls.push(("backend", Yaml::Map(vec![("clientCertificateRef", Yaml::Map(reference))])));
        }
        if !tls.is_empty() {
            spec.push(("tls", Yaml::Map(tls)));
        }
        object(GATEWAY_API, "Gateway", &self.namespace, &self.options.gateway, spec)
    }

    /// The certificate that backends are shown: a Gateway has one.
    pub(super) fn backend_certificate(&self) -> Option<(&'g str, &'g str)> {
        let asked = self
            .ingresses
            .iter()
            .filter(|ingress| matches!(ingress.annotation("backend-protocol"), Some("HTTPS" | "GRPCS")));
        let all: BTreeSet<&str> = asked.filter_map(|ingress| ingress.annotation("proxy-ssl-secret")).collect();
        let only = all.first().copied().filter(|only| all.len() == 1 && only.contains('/'))?;
        secret(only, "")
    }

    /// ReferenceGrants for the Secrets of other namespaces that the Gateway names.
    pub(super) fn grants(&self) -> Vec<Yaml> {
        let mut named: BTreeSet<(&str, &str)> =
            self.certificates.iter().map(|(namespace, name)| (namespace.as_str(), name.as_str())).collect();
        named.extend(self.client_auth.as_ref().and_then(|(secret, _)| secret.split_once('/')));
        named.extend(self.backend_certificate());
        let namespaces: BTreeSet<&str> =
            named.iter().map(|(namespace, _)| *namespace).filter(|namespace| *namespace != self.namespace).collect();
        let grant = |namespace: &str| {
            let from = vec![
                ("group", "gateway.networking.k8s.io".into()),
                ("kind", "Gateway".into()),
                ("namespace", self.namespace.as_str().into()),
            ];
            let secret = |name: &&str| {
                Yaml::Map(vec![("group", "".into()), ("kind", "Secret".into()), ("name", (*name).into())])
            };
            let names: Vec<&str> =
                named.iter().filter(|(within, _)| *within == namespace).map(|(_, name)| *name).collect();
            let to = names.chunks(MAX_RULES).map(|names| names.iter().map(secret).collect());
            to.enumerate()
                .map(|(index, to)| {
                    let name = if index == 0 {
                        self.options.gateway.clone()
                    } else {
                        format!("{}-{}", self.options.gateway, index + 1)
                    };
                    let spec = vec![("from", Yaml::List(vec![Yaml::Map(from.clone())])), ("to", Yaml::List(to))];
                    object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", namespace, &name, spec)
                })
                .collect::<Vec<_>>()
        };
        namespaces.into_iter().flat_map(grant).collect()
    }

    pub(super) fn client_policy(&mut self) -> Option<Yaml> {
        let ingresses = self.ingresses.clone();
        let mut spec: Vec<_> = controller::of_clients(self.given, &mut self.attention).into_iter().collect();
        spec.extend(policies::of_clients(&ingresses, &mut self.attention));
        if spec.is_empty() {
            return None;
        }
        let target = vec![
            ("group", "gateway.networking.k8s.io".into()),
            ("kind", "Gateway".into()),
            ("name", self.options.gateway.as_str().into()),
        ];
        let mut all = vec![("targetRefs", Yaml::List(vec![Yaml::Map(target)]))];
        all.extend(spec);
        Some(object(RINGWAY_API, "ClientPolicy", &self.namespace, &self.options.gateway, all))
    }
}

pub(super) fn client_auth(ingress: &Ingress) -> Option<ClientAuth> {
    let secret = ingress.annotation("auth-tls-secret")?;
    match ingress.annotation("auth-tls-verify-client").unwrap_or("on") {
        "off" => None,
        how => Some((secret.to_owned(), how == "on")),
    }
}
