//! auth-url and its details: filter ExternalAuth, where the server is a Service.

use super::filters::{filter, url};
use super::ingress::Ingress;
use super::translate::object;
use super::yaml::Yaml;

/// Fields that servers behind auth-url go by, besides Authorization. ingress-nginx sends all of the client's.
const SENT: [&str; 6] = ["Cookie", "Accept", "Accept-Language", "User-Agent", "X-Requested-With", "Origin"];

/// What is asked whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    service: String,
    /// Where it is not the Ingress's.
    namespace: Option<String>,
    port: u16,
    path: String,
}

/// The server of an Ingress's auth-url; why not, if a filter cannot ask it.
pub(super) fn server(ingress: &Ingress) -> Option<Result<Server, String>> {
    let text = ingress.annotation("auth-url")?.trim();
    (!matches!(text, "" | "false")).then(|| parse(text, &ingress.namespace))
}

fn parse(text: &str, own: &str) -> Result<Server, String> {
    let strange =
        || "it is not http://SERVICE.NAMESPACE.svc.cluster.local[:PORT]/PATH, which is all that a filter can ask";
    let (scheme, host, port, path) = url(text).ok_or_else(strange)?;
    if scheme != "http" {
        return Err("https needs a BackendTLSPolicy with the CA of the server: write the filter ExternalAuth by hand"
            .to_owned());
    }
    if path.contains(['$', '?', '#']) {
        return Err("variables and queries cannot be part of what a filter asks for".to_owned());
    }
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/._~!&'()*+,;=:@%".contains(&byte)) {
        return Err("its path has characters that a path of a filter cannot have".to_owned());
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Err("without a path of its own the server would be asked for the request's, and what it answers to everybody there, like a sign-in page, would let requests pass".to_owned());
    }
    let labels: Vec<&str> = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc")).map_or_else(
        // A name alone is one of the Ingress's namespace.
        || if host.contains('.') { Vec::new() } else { vec![host] },
        |name| name.split('.').collect(),
    );
    let (service, namespace) = match labels.as_slice() {
        [service] => (*service, own),
        [service, namespace] => (*service, *namespace),
        _ => return Err(strange().to_owned()),
    };
    Ok(Server {
        service: service.to_owned(),
        namespace: (namespace != own).then(|| namespace.to_owned()),
        port: port.unwrap_or(80),
        path: path.to_owned(),
    })
}

impl Server {
    /// Lets routes of the Ingress's namespace ask a server of another one.
    pub(super) fn grant(&self, ingress: &Ingress) -> Option<Yaml> {
        let namespace = self.namespace.as_deref()?;
        let from = vec![
            ("group", "gateway.networking.k8s.io".into()),
            ("kind", "HTTPRoute".into()),
            ("namespace", ingress.namespace.as_str().into()),
        ];
        let to = vec![("group", "".into()), ("kind", "Service".into()), ("name", self.service.as_str().into())];
        let spec = vec![("from", Yaml::List(vec![Yaml::Map(from)])), ("to", Yaml::List(vec![Yaml::Map(to)]))];
        let name = format!("{}.{}-auth", ingress.namespace, ingress.base);
        Some(object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", namespace, &name, spec))
    }
}

/// The filter.
pub(super) fn external(ingress: &Ingress, server: &Server, problems: &mut Vec<String>) -> Yaml {
    let Server { service, namespace, port, path } = server;
    let mut to = vec![("name", service.as_str().into())];
    to.extend(namespace.as_deref().map(|namespace| ("namespace", namespace.into())));
    to.push(("port", Yaml::Int(i64::from(*port))));
    let texts = |list: &[&str]| Yaml::List(list.iter().map(|text| (*text).into()).collect());
    let mut http = vec![("path", path.as_str().into())];
    let mut notes = vec!["ingress-nginx sends every field of the client; add those that the server goes by".to_owned()];
    let given = ingress.annotation("auth-response-headers").unwrap_or_default();
    let known = |name: &&str| ringway_core::http::is_token(name.as_bytes());
    let (names, strange): (Vec<&str>, Vec<&str>) =
        given.split(',').map(str::trim).filter(|name| !name.is_empty()).partition(known);
    problems.extend(strange.iter().map(|name| format!("auth-response-headers: \"{name}\" is not a field's name")));
    if names.is_empty() {
        let note = "without auth-response-headers backends got none of the answer's fields; without allowedResponseHeaders they get all of them";
        notes.push(note.to_owned());
    }
    http.push(("allowedHeaders", texts(&SENT).noted(notes)));
    if !names.is_empty() {
        http.push(("allowedResponseHeaders", texts(&names)));
    }
    problems.push(format!(
        "auth-url: LOOK: the server is asked for the request's own path with \"{path}\" in front of it, by the client's method; ingress-nginx asks for one path by GET. In place of X-Original-URL it gets X-Forwarded-Uri"
    ));
    let spec = vec![("protocol", "HTTP".into()), ("backendRef", Yaml::Map(to)), ("http", Yaml::Map(http))];
    filter("ExternalAuth", "externalAuth", Yaml::Map(spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_in_urls() {
        let found = |text: &str| {
            let Server { service, namespace, port, path } = parse(text, "web").unwrap();
            (service, namespace.unwrap_or_default(), port, path)
        };
        let is = |service: &str, namespace: &str, port: u16, path: &str| {
            (service.to_owned(), namespace.to_owned(), port, path.to_owned())
        };
        assert_eq!(found("http://auth.id.svc.cluster.local:4180/oauth2/auth"), is("auth", "id", 4180, "/oauth2/auth"));
        assert_eq!(found("http://auth.web.svc/a/"), is("auth", "", 80, "/a"));
        assert_eq!(found("http://auth/check"), is("auth", "", 80, "/check"));
        for refused in [
            "https://auth.id.svc.cluster.local/check",
            "https://$host/oauth2/auth",
            "http://auth.example.com/check",
            "http://auth.id.svc.cluster.local/",
            "http://auth",
            "http://auth/a b",
            "http://auth.id.svc/check?x=1",
            "http://auth.id.svc/$request_uri",
            "http://a.b.c.svc.cluster.local/check",
            "http://10.0.0.1:80/x",
            "auth",
        ] {
            assert!(parse(refused, "web").is_err(), "{refused}");
        }
    }
}
