//! From Ingresses to Gateway API objects.

use std::collections::BTreeSet;

use super::annotations::{Fate, fate};
use super::authorize;
use super::filters::{self, filter, full_path, is_hostname};
use super::ingress::{Backend, Given, Ingress, PREFIX, Path, Rule};
use super::paths::{Condition, Host};
use super::yaml::{Yaml, wrapped};
use super::{Options, policies};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const RINGWAY_API: &str = "ringway.dev/v1alpha1";
/// Rules of one HTTPRoute, and certificates of one listener.
const MAX_RULES: usize = 16;
const MAX_CERTIFICATES: usize = 64;

/// What became of the Ingresses.
pub(super) struct Translated {
    pub(super) yaml: String,
    pub(super) ingresses: usize,
    pub(super) attention: Vec<String>,
}

/// Translates all Ingresses of the class.
pub(super) fn translate(given: &Given, options: &Options) -> Translated {
    let ours = |ingress: &&Ingress| ingress.class.as_ref().is_none_or(|class| *class == options.class);
    let (ingresses, foreign): (Vec<_>, Vec<_>) = given.ingresses.iter().partition(ours);
    let mut work = Work::new(given, options, ingresses);
    for ingress in foreign {
        let class = ingress.class.as_deref().unwrap_or_default();
        work.attention.push(format!(
            "{}: left out: its class is {class}; --ingress-class says which is translated",
            ingress.full_name()
        ));
    }
    let mut body = String::new();
    for ingress in work.ingresses.clone() {
        if !ingress.is("canary") {
            body += &work.ingress(ingress);
        } else if work.unclaimed(ingress) {
            work.attention.push(format!("{}: a canary of no path of another Ingress: left out", ingress.full_name()));
        }
    }
    let mut yaml = work.preamble();
    yaml += &work.gateway().document();
    work.grants().iter().for_each(|grant| yaml += &grant.document());
    if let Some(policy) = work.client_policy() {
        yaml += &policy.document();
    }
    Translated { yaml: yaml + &body, ingresses: work.ingresses.len(), attention: work.attention }
}

/// How clients' certificates are asked for: the authorities' Secret, and whether they have to be shown.
type ClientAuth = (String, bool);

struct Work<'g> {
    given: &'g Given,
    options: &'g Options,
    ingresses: Vec<&'g Ingress>,
    /// Of the Gateway.
    namespace: String,
    /// Namespace and name of every certificate.
    certificates: Vec<(String, String)>,
    /// Hosts whose TLS is passed through.
    passthrough: BTreeSet<String>,
    /// What every Ingress with TLS asks of clients, if they agree.
    client_auth: Option<ClientAuth>,
    /// Services that have a BackendTLSPolicy already.
    verified: BTreeSet<(String, String)>,
    attention: Vec<String>,
}

/// A rule of an HTTPRoute that is being made.
#[derive(Debug, Clone)]
struct Made {
    notes: Vec<String>,
    path: Yaml,
    headers: Vec<Yaml>,
    body: Vec<(&'static str, Yaml)>,
}

impl Made {
    fn yaml(&self) -> Yaml {
        let mut one = vec![("path", self.path.clone())];
        if !self.headers.is_empty() {
            one.push(("headers", Yaml::List(self.headers.clone())));
        }
        let mut parts = vec![("matches", Yaml::List(vec![Yaml::Map(one)]))];
        parts.extend(self.body.iter().cloned());
        Yaml::Map(parts).noted(self.notes.clone())
    }
}

pub(super) fn object(api: &str, kind: &str, namespace: &str, name: &str, spec: Vec<(&'static str, Yaml)>) -> Yaml {
    Yaml::Map(vec![
        ("apiVersion", api.into()),
        ("kind", kind.into()),
        ("metadata", Yaml::Map(vec![("name", name.into()), ("namespace", namespace.into())])),
        ("spec", Yaml::Map(spec)),
    ])
}

fn header_match(name: &str, kind: &str, value: Yaml) -> Yaml {
    Yaml::Map(vec![("name", name.into()), ("type", kind.into()), ("value", value)])
}

/// Whether a value of an annotation asks for nothing.
fn is_neutral(name: &str, value: &str) -> bool {
    match name {
        "enable-access-log" | "enable-global-auth" | "proxy-ssl-server-name" => value == "true",
        "satisfy" => value == "all",
        "ssl-redirect" | "cors-allow-credentials" => false,
        "proxy-cookie-domain" | "proxy-cookie-path" | "proxy-redirect-from" | "proxy-redirect-to" => {
            value == "off" || value == "default"
        }
        _ => value == "false" || value.is_empty(),
    }
}

/// Whether lines of nginx keep somebody out.
fn protects(snippet: &str) -> bool {
    ["deny ", "auth_basic", "auth_request", "allow ", "return 40", "return 444", "limit_except", "valid_referers"]
        .iter()
        .any(|words| snippet.contains(words))
}

impl<'g> Work<'g> {
    fn new(given: &'g Given, options: &'g Options, ingresses: Vec<&'g Ingress>) -> Self {
        let namespaces: BTreeSet<&str> = ingresses.iter().map(|ingress| ingress.namespace.as_str()).collect();
        let namespace = if namespaces.len() == 1 { namespaces.first().copied() } else { None };
        let mut work = Self {
            given,
            options,
            ingresses,
            namespace: namespace.unwrap_or("default").to_owned(),
            certificates: Vec::new(),
            passthrough: BTreeSet::new(),
            client_auth: None,
            verified: BTreeSet::new(),
            attention: Vec::new(),
        };
        for ingress in work.ingresses.clone() {
            if ingress.is("ssl-passthrough") {
                work.passthrough.extend(ingress.rules.iter().filter_map(|rule| rule.host.clone()));
                continue;
            }
            for tls in &ingress.tls {
                let Some(secret) = &tls.secret else {
                    let message = "a TLS entry without secretName had the controller's default certificate: name a Secret of your own";
                    work.attention.push(format!("{}: {message}", ingress.full_name()));
                    continue;
                };
                let secret = (ingress.namespace.clone(), secret.clone());
                if !work.certificates.contains(&secret) {
                    work.certificates.push(secret);
                }
            }
        }
        if work.certificates.len() > MAX_CERTIFICATES {
            let left = work.certificates.split_off(MAX_CERTIFICATES);
            let names: Vec<String> = left.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
            work.attention.push(format!("a listener has at most 64 certificates; left out: {}", names.join(", ")));
        }
        let with_tls =
            work.ingresses.iter().filter(|ingress| !ingress.tls.is_empty() && !ingress.is("ssl-passthrough"));
        let asked: BTreeSet<Option<ClientAuth>> = with_tls.map(|ingress| client_auth(ingress)).collect();
        if asked.len() == 1 {
            work.client_auth = asked.into_iter().next().flatten();
        }
        work
    }

    fn has_https(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Whether no path of another Ingress is this canary's.
    fn unclaimed(&self, canary: &Ingress) -> bool {
        let main =
            self.ingresses.iter().filter(|ingress| !ingress.is("canary") && ingress.namespace == canary.namespace);
        let mut paths = main
            .flat_map(|ingress| &ingress.rules)
            .flat_map(|rule| rule.paths.iter().map(move |path| (&rule.host, &path.path)));
        !paths.any(|(host, path)| {
            canary.rules.iter().any(|rule| rule.host == *host && rule.paths.iter().any(|each| each.path == *path))
        })
    }

    fn preamble(&self) -> String {
        let text = [
            "Written by `ringway import ingress-nginx`. Every choice is a comment where it was made; read those in capitals first.",
            "Services and Secrets are referred to by name: put the cluster's own (kubectl get services,endpointslices,secrets -o yaml) \
             beside this file, or write Backends and Certificates.",
            "SURPRISE 5: ingress-nginx resolves `.`, `..` and doubled slashes before it matches. Ringway resolves `.` and `..`, also \
             as %2e, and refuses what climbs above the root; doubled slashes stay as they are and match only what has them.",
        ];
        text.iter().flat_map(|each| wrapped(each, 116)).map(|line| format!("# {line}\n")).collect()
    }

    fn gateway(&self) -> Yaml {
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
    fn backend_certificate(&self) -> Option<(&'g str, &'g str)> {
        let asked = self
            .ingresses
            .iter()
            .filter(|ingress| matches!(ingress.annotation("backend-protocol"), Some("HTTPS" | "GRPCS")));
        let all: BTreeSet<&str> = asked.filter_map(|ingress| ingress.annotation("proxy-ssl-secret")).collect();
        if all.len() == 1 { all.first()?.split_once('/') } else { None }
    }

    /// ReferenceGrants for the Secrets of other namespaces that the Gateway names.
    fn grants(&self) -> Vec<Yaml> {
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

    fn client_policy(&mut self) -> Option<Yaml> {
        let ingresses = self.ingresses.clone();
        let spec = policies::of_clients(&ingresses, &mut self.attention);
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

    /// Why the rules of an Ingress must not be open.
    fn closed(&self, ingress: &Ingress) -> Vec<String> {
        let mut why = Vec::new();
        for (name, value) in &ingress.annotations {
            let value = value.trim();
            match fate(name) {
                Some(Fate::Closed(reason)) if !is_neutral(name, value) => {
                    why.push(format!("{name}: {value}: {reason}"))
                }
                Some(Fate::Refused(reason)) if name.ends_with("snippet") && protects(value) => {
                    why.push(format!("{name} keeps somebody out: {reason}"));
                }
                _ => {}
            }
        }
        if let Some(Err(reason)) = authorize::server(ingress) {
            why.push(format!("auth-url: {}: {reason}", ingress.annotation("auth-url").unwrap_or_default().trim()));
        }
        if let Some((secret, true)) = client_auth(ingress)
            && self.client_auth.is_none()
        {
            why.push(format!("auth-tls-secret: {secret}: client certificates are asked of a whole port, and not every Ingress asks for the same"));
        }
        why
    }

    /// The objects of one Ingress.
    fn ingress(&mut self, ingress: &'g Ingress) -> String {
        let closed = self.closed(ingress);
        let mut notes = vec![format!("---- Ingress {}", ingress.full_name())];
        let mut out = Output::default();
        if ingress.is("ssl-passthrough") {
            self.passed_through(ingress, &mut out);
        } else {
            let single = ingress.rules.len() + usize::from(ingress.default_backend.is_some()) == 1;
            for (index, rule) in ingress.rules.iter().enumerate() {
                let name = if single { ingress.name.clone() } else { format!("{}-{}", ingress.name, index + 1) };
                self.host(ingress, rule, &name, &closed, &mut out);
            }
            if let Some(backend) = &ingress.default_backend {
                let path =
                    Path { path: "/".to_owned(), kind: super::ingress::PathKind::Prefix, backend: backend.clone() };
                let rule = Rule { host: None, paths: vec![path] };
                let name = if single { ingress.name.clone() } else { format!("{}-default", ingress.name) };
                self.host(ingress, &rule, &name, &closed, &mut out);
            }
            self.policy(ingress, &mut out);
        }
        if !closed.is_empty() {
            let what = if self.options.open {
                "OPEN, BUT WAS PROTECTED"
            } else {
                "CLOSED: its rules answer 403 until you decide"
            };
            notes.push(what.to_owned());
            notes.extend(closed.iter().map(|why| format!("  {why}")));
            self.attention.extend(closed.iter().map(|why| format!("{}: {what}: {why}", ingress.full_name())));
        }
        notes.extend(ingress.annotations.iter().map(|(name, value)| self.told(ingress, name, value)));
        let Output { objects, mut problems, .. } = out;
        problems.sort();
        problems.dedup();
        notes.extend(problems.iter().map(|problem| format!("NOT TRANSLATED: {problem}")));
        self.attention.extend(problems.iter().map(|problem| format!("{}: {problem}", ingress.full_name())));
        let mut text = String::new();
        for (index, each) in objects.into_iter().enumerate() {
            let each = if index == 0 { each.noted(std::mem::take(&mut notes)) } else { each };
            text += &each.document();
        }
        if !notes.is_empty() {
            text = notes.iter().flat_map(|note| wrapped(note, 116)).map(|line| format!("# {line}\n")).collect();
        }
        text
    }

    /// What became of an annotation, for people.
    fn told(&mut self, ingress: &Ingress, name: &str, value: &str) -> String {
        let short: String = value.trim().chars().take(80).collect();
        let told = match fate(name) {
            _ if is_neutral(name, value.trim()) => "asks for nothing".to_owned(),
            Some(Fate::Translated(to)) => format!("translated: {to}"),
            Some(Fate::NoEffect(why)) => format!("nothing to do: {why}"),
            Some(Fate::Closed(why)) => format!("NOT TRANSLATED, CLOSED: {why}"),
            Some(Fate::Refused(why)) => {
                self.attention.push(format!("{}: {name}: {why}", ingress.full_name()));
                format!("NOT TRANSLATED: {why}")
            }
            None => {
                let why = format!("not an annotation that ingress-nginx documents ({PREFIX}{name})");
                self.attention.push(format!("{}: {name}: {why}", ingress.full_name()));
                format!("NOT TRANSLATED: {why}")
            }
        };
        format!("{name}: {short}: {told}")
    }

    fn passed_through(&self, ingress: &Ingress, out: &mut Output) {
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
                if ingress.rules.len() == 1 { ingress.name.clone() } else { format!("{}-{}", ingress.name, index + 1) };
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

    fn parents(&self, ingress: &Ingress, section: Option<&str>) -> Yaml {
        let mut parent = vec![("name", self.options.gateway.as_str().into())];
        parent.extend((ingress.namespace != self.namespace).then(|| ("namespace", self.namespace.as_str().into())));
        parent.extend(section.map(|section| ("sectionName", section.into())));
        Yaml::List(vec![Yaml::Map(parent)])
    }

    fn backend(&self, ingress: &Ingress, backend: &Backend, weight: Option<i64>, out: &mut Output) -> Yaml {
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

    /// The routes of one host.
    fn host(&mut self, ingress: &'g Ingress, rule: &Rule, name: &str, closed: &[String], out: &mut Output) {
        let host = Host::of(rule.host.as_deref(), &self.ingresses);
        let mut hostnames: Vec<String> = rule.host.iter().cloned().collect();
        for alias in ingress.annotation("server-alias").into_iter().flat_map(|list| list.split(',')).map(str::trim) {
            if ringway_core::model::HostPattern::parse(alias).is_ok() {
                hostnames.push(alias.to_owned());
            } else if !alias.is_empty() {
                out.problems.push(format!("server-alias: \"{alias}\" is not a hostname"));
            }
        }
        let mut made = Vec::new();
        let mut plain = Vec::new();
        for (index, path) in rule.paths.iter().enumerate() {
            let condition = match host.condition(ingress, path) {
                Ok(condition) => condition,
                Err(why) => {
                    out.problems.push(format!("LEFT OUT: {why}"));
                    continue;
                }
            };
            let object_name = if rule.paths.len() == 1 { name.to_owned() } else { format!("{name}-{}", index + 1) };
            let place =
                Place { host: &host, path, condition: &condition, name: &object_name, closed: !closed.is_empty() };
            self.path(ingress, &place, &mut made, out);
            plain.push(condition.yaml());
        }
        if let Some(root) = ingress.annotation("app-root") {
            let redirect = Yaml::Map(vec![("path", full_path(root)), ("statusCode", Yaml::Int(302))]);
            let path = Yaml::Map(vec![("type", "Exact".into()), ("value", "/".into())]);
            let body = vec![("filters", Yaml::List(vec![filter("RequestRedirect", "requestRedirect", redirect)]))];
            if root.starts_with('/') && !root.contains(['$', '?', '#', ' ']) {
                made.push(Made { notes: vec!["app-root".to_owned()], path, headers: Vec::new(), body });
            } else {
                out.problems.push(format!("app-root: \"{root}\" is not a path"));
            }
        }
        if made.is_empty() {
            return;
        }
        let target = Target { ingress, hostnames: &hostnames, name };
        let is_wild = hostnames.iter().any(|host| host.starts_with("*."));
        let wild = is_wild
            .then(|| "a wildcard stands for one label in ingress-nginx, for one or more in the Gateway API".to_owned());
        let wants_tls = ingress.has_tls(rule.host.as_deref()) && self.has_https();
        let redirects = wants_tls && ingress.annotation("ssl-redirect") != Some("false");
        if wants_tls && (redirects || ingress.is("force-ssl-redirect")) {
            self.put_routes(&target, name, Some("https"), &made, wild, out);
            let note =
                "ssl-redirect: a host with TLS answers 308 in plain, which is ingress-nginx's default".to_owned();
            self.redirect_to_https(&target, &plain, note, out);
        } else if ingress.is("force-ssl-redirect") {
            let mut forwarded = made.clone();
            for each in &mut forwarded {
                each.headers.push(header_match("X-Forwarded-Proto", "Exact", "https".into()));
            }
            self.put_routes(&target, name, Some("http"), &forwarded, wild, out);
            let note = "force-ssl-redirect without TLS: what ends TLS in front says so by X-Forwarded-Proto; all else is sent to https"
                .to_owned();
            self.redirect_to_https(&target, &plain, note, out);
        } else {
            self.put_routes(&target, name, None, &made, wild, out);
        }
        self.www(&target, out);
    }

    /// Rules for one path, and the objects that they refer to.
    fn path(&mut self, ingress: &'g Ingress, place: &Place<'_>, made: &mut Vec<Made>, out: &mut Output) {
        let Place { host, path, condition, name, closed } = *place;
        if let Some(bare) = &condition.redirect {
            let redirect = Yaml::Map(vec![("path", full_path(&path.path)), ("statusCode", Yaml::Int(301))]);
            made.push(Made {
                notes: vec![format!(
                    "SURPRISE 4: ingress-nginx redirects {bare} to {} with 301; PathPrefix alone would serve it",
                    path.path
                )],
                path: Yaml::Map(vec![("type", "Exact".into()), ("value", bare.as_str().into())]),
                headers: Vec::new(),
                body: vec![("filters", Yaml::List(vec![filter("RequestRedirect", "requestRedirect", redirect)]))],
            });
        }
        let base = |headers: Vec<Yaml>, body: Vec<(&'static str, Yaml)>| Made {
            notes: condition.notes.clone(),
            path: condition.yaml(),
            headers,
            body,
        };
        if closed && !self.options.open {
            let reference = vec![
                ("group", "ringway.dev".into()),
                ("kind", "HTTPRouteFilter".into()),
                ("name", format!("{}-closed", ingress.name).into()),
            ];
            let filters = Yaml::List(vec![filter("ExtensionRef", "extensionRef", Yaml::Map(reference))]);
            let mut one = base(Vec::new(), vec![("filters", filters)]);
            let port = path.backend.port.as_ref().map_or_else(Clone::clone, ToString::to_string);
            one.notes.push(format!("CLOSED. It led to Service {} port {port}", path.backend.service));
            made.push(one);
            self.closing(ingress, out);
            return;
        }
        let found = filters::rule(self.given, ingress, path, name);
        out.problems.extend(found.problems);
        if let Some(Ok(server)) = authorize::server(ingress) {
            out.objects.extend(server.grant(ingress).filter(|grant| !out.objects.contains(grant)));
        }
        if let Some((pattern, substitution)) = &found.rewrite {
            let replace = vec![
                ("pattern", Yaml::Verbatim(pattern.clone())),
                ("substitution", Yaml::Verbatim(substitution.clone())),
            ];
            let rewrite = vec![("type", "ReplaceRegexMatch".into()), ("replaceRegexMatch", Yaml::Map(replace))];
            let spec = vec![("urlRewrite", Yaml::Map(vec![("path", Yaml::Map(rewrite))]))];
            let note = "rewrite-target with groups: the whole path becomes the target".to_owned();
            out.objects.push(object(RINGWAY_API, "HTTPRouteFilter", &ingress.namespace, name, spec).noted(vec![note]));
        }
        if let Some((hostname, port)) = &found.mirror {
            let endpoint = vec![("hostname", hostname.as_str().into()), ("port", Yaml::Int(i64::from(*port)))];
            let spec = vec![("endpoints", Yaml::List(vec![Yaml::Map(endpoint)]))];
            out.objects.push(object(RINGWAY_API, "Backend", &ingress.namespace, &format!("{name}-mirror"), spec));
        }
        let body = |backends: Vec<Yaml>| {
            let mut body = Vec::new();
            if !found.filters.is_empty() {
                body.push(("filters", Yaml::List(found.filters.clone())));
            }
            if !found.redirect {
                body.push(("backendRefs", Yaml::List(backends)));
                body.extend(found.retry.clone().map(|retry| ("retry", retry)));
            }
            body
        };
        self.backend_tls(ingress, host, &path.backend, out);
        let canary = self.canary(ingress, host, path).filter(|_| !found.redirect);
        let Some((canary, other)) = canary else {
            made.push(base(Vec::new(), body(vec![self.backend(ingress, &path.backend, None, out)])));
            return;
        };
        let here = self.backend(ingress, &path.backend, None, out);
        let there = self.backend(ingress, &other, None, out);
        let note = format!("canary: Ingress {}", canary.full_name());
        for (wanted, to_canary) in canary_headers(canary) {
            let to = if to_canary { there.clone() } else { here.clone() };
            let mut one = base(vec![wanted], body(vec![to]));
            one.notes.push(note.clone());
            made.push(one);
        }
        let number = |name: &str| canary.annotation(name).and_then(|text| text.parse::<i64>().ok());
        let total = number("canary-weight-total").unwrap_or(100).clamp(1, 1_000_000);
        let weight = number("canary-weight").unwrap_or(0).clamp(0, total);
        let backends = if weight > 0 {
            vec![
                self.backend(ingress, &path.backend, Some(total - weight), out),
                self.backend(ingress, &other, Some(weight), out),
            ]
        } else {
            vec![here]
        };
        let mut one = base(Vec::new(), body(backends));
        one.notes.push(format!("{note}, weight {weight} of {total}"));
        made.push(one);
    }

    /// The filter that answers in place of what must not be open.
    fn closing(&self, ingress: &Ingress, out: &mut Output) {
        let text = "closed by ringway import: it was protected by what is not translated\n";
        let body = Yaml::Map(vec![("type", "Inline".into()), ("inline", Yaml::Verbatim(text.to_owned()))]);
        let answer = vec![("statusCode", Yaml::Int(403)), ("contentType", "text/plain".into()), ("body", body)];
        let spec = vec![("directResponse", Yaml::Map(answer))];
        let one = object(RINGWAY_API, "HTTPRouteFilter", &ingress.namespace, &format!("{}-closed", ingress.name), spec);
        if !out.objects.contains(&one) {
            out.objects.push(one);
        }
    }

    fn canary(&self, ingress: &Ingress, host: &Host, path: &Path) -> Option<(&'g Ingress, Backend)> {
        let canaries = self.ingresses.iter().filter(|each| each.is("canary") && each.namespace == ingress.namespace);
        let find = |canary: &&'g Ingress| {
            let rules = canary.rules.iter().filter(|rule| rule.host == host.name);
            let other = rules.flat_map(|rule| &rule.paths).find(|other| other.path == path.path)?;
            Some((*canary, other.backend.clone()))
        };
        canaries.into_iter().find_map(find)
    }

    fn put_routes(
        &self,
        target: &Target<'_>,
        name: &str,
        section: Option<&str>,
        made: &[Made],
        note: Option<String>,
        out: &mut Output,
    ) {
        for (index, rules) in made.chunks(MAX_RULES).enumerate() {
            let name = if index == 0 { name.to_owned() } else { format!("{name}-more-{index}") };
            let rules = Yaml::List(rules.iter().map(Made::yaml).collect());
            out.objects.push(self.route(target, &name, section, rules).noted(note.iter().cloned().collect()));
            out.routes.push(name);
        }
    }

    fn route(&self, target: &Target<'_>, name: &str, section: Option<&str>, rules: Yaml) -> Yaml {
        let mut spec = vec![("parentRefs", self.parents(target.ingress, section))];
        if !target.hostnames.is_empty() {
            let hostnames = target.hostnames.iter().take(16).map(|host| host.as_str().into());
            spec.push(("hostnames", Yaml::List(hostnames.collect())));
        }
        spec.push(("rules", rules));
        object(GATEWAY_API, "HTTPRoute", &target.ingress.namespace, name, spec)
    }

    fn redirect_to_https(&self, target: &Target<'_>, paths: &[Yaml], note: String, out: &mut Output) {
        let to = Yaml::Map(vec![("scheme", "https".into()), ("statusCode", Yaml::Int(308))]);
        let filters = Yaml::List(vec![filter("RequestRedirect", "requestRedirect", to)]);
        for (index, paths) in paths.chunks(64).enumerate() {
            let matches = paths.iter().map(|path| Yaml::Map(vec![("path", path.clone())]));
            let rule = Yaml::Map(vec![("matches", Yaml::List(matches.collect())), ("filters", filters.clone())]);
            let name =
                if index == 0 { format!("{}-https", target.name) } else { format!("{}-https-{index}", target.name) };
            out.objects.push(self.route(target, &name, Some("http"), Yaml::List(vec![rule])).noted(vec![note.clone()]));
        }
    }

    fn www(&self, target: &Target<'_>, out: &mut Output) {
        let Some(host) = target.hostnames.first().filter(|_| target.ingress.is("from-to-www-redirect")) else { return };
        let other = host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned);
        let taken =
            self.ingresses.iter().flat_map(|ingress| &ingress.rules).any(|rule| rule.host.as_deref() == Some(&other));
        if taken || !is_hostname(&other) {
            out.problems
                .push(format!("from-to-www-redirect: {other} is served by an Ingress of its own, or is no hostname"));
            return;
        }
        let to = Yaml::Map(vec![("hostname", host.as_str().into()), ("statusCode", Yaml::Int(308))]);
        let filters = Yaml::List(vec![filter("RequestRedirect", "requestRedirect", to)]);
        let other = [other];
        let target = Target { hostnames: &other, ..*target };
        let rules = Yaml::List(vec![Yaml::Map(vec![("filters", filters)])]);
        let note = "from-to-www-redirect: for https a certificate has to have this name too".to_owned();
        out.objects.push(self.route(&target, &format!("{}-www", target.name), None, rules).noted(vec![note]));
    }

    fn policy(&self, ingress: &Ingress, out: &mut Output) {
        let spec = policies::of_backends(ingress, &mut out.problems);
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
            let name = if index == 0 { ingress.name.clone() } else { format!("{}-{}", ingress.name, index + 1) };
            out.objects.push(object(RINGWAY_API, "BackendPolicy", &ingress.namespace, &name, all));
        }
    }

    fn backend_tls(&mut self, ingress: &Ingress, host: &Host, backend: &Backend, out: &mut Output) {
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
        let secret = ingress
            .annotation("proxy-ssl-secret")
            .map(|secret| secret.split_once('/').unwrap_or((&ingress.namespace, secret)));
        match secret {
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

/// What is made of an Ingress.
#[derive(Default)]
struct Output {
    objects: Vec<Yaml>,
    /// Names of the HTTPRoutes that serve.
    routes: Vec<String>,
    /// What could not be translated.
    problems: Vec<String>,
}

/// Where rules are made for.
#[derive(Clone, Copy)]
struct Place<'p> {
    host: &'p Host,
    path: &'p Path,
    condition: &'p Condition,
    name: &'p str,
    closed: bool,
}

/// Whose routes are made.
#[derive(Clone, Copy)]
struct Target<'t> {
    ingress: &'t Ingress,
    hostnames: &'t [String],
    name: &'t str,
}

fn client_auth(ingress: &Ingress) -> Option<ClientAuth> {
    let secret = ingress.annotation("auth-tls-secret")?;
    match ingress.annotation("auth-tls-verify-client").unwrap_or("on") {
        "off" => None,
        how => Some((secret.to_owned(), how == "on")),
    }
}

/// Header conditions of a canary in the order of precedence, and whether they lead to it.
fn canary_headers(canary: &Ingress) -> Vec<(Yaml, bool)> {
    let mut found = Vec::new();
    if let Some(header) = canary.annotation("canary-by-header") {
        let exact = |value: &str| header_match(header, "Exact", value.into());
        if let Some(value) = canary.annotation("canary-by-header-value") {
            found.push((exact(value), true));
        } else if let Some(pattern) = canary.annotation("canary-by-header-pattern") {
            let pattern = Yaml::Verbatim(format!(".*(?:{pattern}).*"));
            found.push((header_match(header, "RegularExpression", pattern), true));
        } else {
            found.push((exact("always"), true));
            found.push((exact("never"), false));
        }
    }
    if let Some(cookie) = canary.annotation("canary-by-cookie") {
        let name = regex::escape(cookie);
        for (value, to_canary) in [("always", true), ("never", false)] {
            let pattern = Yaml::Verbatim(format!("(?:.*; ?)?{name}={value}(?:;.*)?"));
            found.push((header_match("Cookie", "RegularExpression", pattern), to_canary));
        }
    }
    found
}
