//! Policies of an Ingress's routes and backends.

use super::{GATEWAY_API, MAX_RULES, Output, RINGWAY_API, Work, object};
use crate::import::filters::is_hostname;
use crate::import::ingress::{Backend, Ingress, secret};
use crate::import::paths::Host;
use crate::import::yaml::Yaml;
use crate::import::{policies, traffic};

impl Work<'_> {
    /// The policies of an Ingress's routes.
    pub(super) fn policies(&self, ingress: &Ingress, out: &mut Output) {
        // What of it cannot be translated closes the rules.
        let (access, _) = traffic::access(ingress);
        let rates = traffic::rates(ingress, &mut out.problems);
        let pages = traffic::pages(ingress, &mut out.problems);
        let backends = policies::of_backends(ingress, &mut out.problems);
        let all = [
            ("AccessPolicy", access),
            ("RateLimitPolicy", rates),
            ("ResponsePolicy", pages),
            ("BackendPolicy", backends),
        ];
        for (kind, spec) in all {
            self.policy(kind, &spec, ingress, out);
        }
    }

    fn policy(&self, kind: &str, spec: &[(&'static str, Yaml)], ingress: &Ingress, out: &mut Output) {
        if spec.is_empty() {
            return;
        }
        for (index, routes) in out.routes.clone().chunks(MAX_RULES).enumerate() {
            let target = |name: &String| {
                let group = ("group", "gateway.networking.k8s.io".into());
                Yaml::Map(vec![group, ("kind", "HTTPRoute".into()), ("name", name.as_str().into())])
            };
            let mut all = vec![("targetRefs", Yaml::List(routes.iter().map(target).collect()))];
            all.extend(spec.iter().cloned());
            let name = if index == 0 { ingress.base.clone() } else { format!("{}-{}", ingress.base, index + 1) };
            out.objects.push(object(RINGWAY_API, kind, &ingress.namespace, &name, all));
        }
    }

    pub(super) fn backend_tls(&mut self, ingress: &Ingress, host: &Host, backend: &Backend, out: &mut Output) {
        match ingress.annotation("backend-protocol").unwrap_or("HTTP").to_ascii_uppercase().as_str() {
            "HTTP" | "AUTO_HTTP" => return,
            // In plain it is the BackendPolicy that says so.
            "GRPC" => return,
            // Over TLS the endpoint chooses HTTP/2 by ALPN.
            "HTTPS" | "GRPCS" => {}
            other => {
                out.problems.push(format!("backend-protocol: {other} is not spoken to backends"));
                return;
            }
        }
        if !self.verified.insert((ingress.namespace.clone(), backend.service.clone())) {
            return;
        }
        let service = format!("{}.{}.svc", backend.service, ingress.namespace);
        let by_name = ingress.annotation("proxy-ssl-name").filter(|name| is_hostname(name)).map(str::to_owned);
        let by_host = host.name.clone().filter(|name| is_hostname(name));
        let hostname = by_name.or(by_host).unwrap_or(service);
        let mut notes = vec![format!(
            "backend-protocol HTTPS: Ringway verifies the backend's certificate for {hostname}. {}",
            if ingress.annotation("proxy-ssl-verify") == Some("on") {
                "proxy-ssl-verify was on."
            } else {
                "ingress-nginx did not (proxy-ssl-verify is off by default): check that the certificate has that name and who signed it."
            }
        )];
        let mut validation = Vec::new();
        let named = ingress.annotation("proxy-ssl-secret");
        let found = named.and_then(|named| secret(named, &ingress.namespace));
        if let Some(named) = named.filter(|_| found.is_none()) {
            out.problems.push(format!("proxy-ssl-secret: {named} is not the name of a Secret"));
        }
        match found {
            Some((namespace, name)) if namespace == ingress.namespace => {
                let reference = vec![("group", "".into()), ("kind", "Secret".into()), ("name", name.into())];
                validation.push(("caCertificateRefs", Yaml::List(vec![Yaml::Map(reference)])));
                if self.backend_certificate().is_none() {
                    out.problems.push("proxy-ssl-secret: a Gateway shows one certificate to all backends, and the Ingresses name several".to_owned());
                }
            }
            other => {
                if let Some((namespace, name)) = other {
                    out.problems.push(format!("proxy-ssl-secret: the authorities have to be in the namespace of the Service: copy {namespace}/{name}"));
                }
                notes.push("The machine's authorities are believed; name others by caCertificateRefs.".to_owned());
                validation.push(("wellKnownCACertificates", "System".into()));
            }
        }
        validation.push(("hostname", hostname.into()));
        let target = vec![("group", "".into()), ("kind", "Service".into()), ("name", backend.service.as_str().into())];
        let spec = vec![("targetRefs", Yaml::List(vec![Yaml::Map(target)])), ("validation", Yaml::Map(validation))];
        out.objects
            .push(object(GATEWAY_API, "BackendTLSPolicy", &ingress.namespace, &backend.service, spec).noted(notes));
    }
}
