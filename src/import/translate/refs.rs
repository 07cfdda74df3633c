//! What routes refer to, and TLSRoutes, which do nothing else.

use super::{GATEWAY_API, Output, Work, object};
use crate::import::ingress::{Backend, Ingress};
use crate::import::yaml::Yaml;

impl Work<'_> {
    pub(super) fn passed_through(&self, ingress: &Ingress, out: &mut Output) {
        for (index, rule) in ingress.rules.iter().enumerate() {
            let (Some(host), Some(path)) =
                (&rule.host, rule.paths.iter().find(|path| path.path == "/").or_else(|| rule.paths.first()))
            else {
                out.problems.push(
                    "ssl-passthrough: a rule without a host or path cannot be told apart by server name".to_owned(),
                );
                continue;
            };
            if rule.paths.len() > 1 {
                out.problems.push(format!(
                    "ssl-passthrough: paths of {host} cannot be seen: everything goes to {}",
                    path.backend.service
                ));
            }
            let name =
                if ingress.rules.len() == 1 { ingress.base.clone() } else { format!("{}-{}", ingress.base, index + 1) };
            let backend = self.backend(ingress, &path.backend, None, out);
            let rules = Yaml::List(vec![Yaml::Map(vec![("backendRefs", Yaml::List(vec![backend]))])]);
            let section = format!("tls-{}", host.replace("*.", "any."));
            let spec = vec![
                ("parentRefs", self.parents(ingress, Some(&section))),
                ("hostnames", Yaml::List(vec![host.as_str().into()])),
                ("rules", rules),
            ];
            let note = "ssl-passthrough: every other annotation of the Ingress is without effect, as in ingress-nginx"
                .to_owned();
            out.objects.push(object(GATEWAY_API, "TLSRoute", &ingress.namespace, &name, spec).noted(vec![note]));
        }
    }

    pub(super) fn parents(&self, ingress: &Ingress, section: Option<&str>) -> Yaml {
        let mut parent = vec![("name", self.options.gateway.as_str().into())];
        parent.extend((ingress.namespace != self.namespace).then(|| ("namespace", self.namespace.as_str().into())));
        parent.extend(section.map(|section| ("sectionName", section.into())));
        Yaml::List(vec![Yaml::Map(parent)])
    }

    pub(super) fn backend(&self, ingress: &Ingress, backend: &Backend, weight: Option<i64>, out: &mut Output) -> Yaml {
        let port = match &backend.port {
            Ok(port) => i64::from(*port),
            Err(name) => {
                let mut services = self.given.services.iter();
                let service =
                    services.find(|(namespace, known, _)| *namespace == ingress.namespace && *known == backend.service);
                let port = service.and_then(|(_, _, ports)| ports.iter().find(|(known, _)| known == name));
                port.map_or_else(
                    || {
                        let service = &backend.service;
                        out.problems.push(format!(
                            "port \"{name}\" of Service {service}: its number is needed, and the Service is not among the files; 80 stands in its place"
                        ));
                        80
                    },
                    |(_, port)| i64::from(*port),
                )
            }
        };
        let mut parts = vec![("name", backend.service.as_str().into()), ("port", Yaml::Int(port))];
        parts.extend(weight.map(|weight| ("weight", Yaml::Int(weight))));
        Yaml::Map(parts)
    }
}
