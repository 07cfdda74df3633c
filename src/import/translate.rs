//! From Ingresses to Gateway API objects.

mod backend;
mod canary;
mod gateway;
mod refs;
mod route;

use std::collections::BTreeSet;

use self::gateway::client_auth;
use super::annotations::{Fate, fate};
use super::authorize;
use super::ingress::{Given, Ingress, PREFIX, Path, Rule, secret};
use super::yaml::{Yaml, wrapped};
use super::{Options, traffic};

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
            let asked = asked.into_iter().next().flatten();
            work.client_auth = asked.filter(|(name, _)| secret(name, &work.namespace).is_some());
        }
        work
    }

    fn has_https(&self) -> bool {
        !self.certificates.is_empty()
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
        why.extend(traffic::access(ingress).1);
        if let Some((secret, true)) = client_auth(ingress)
            && self.client_auth.is_none()
        {
            why.push(format!("auth-tls-secret: {secret}: client certificates are asked of a whole port, and not every Ingress asks for the same, or it is no name"));
        }
        why
    }

    /// The objects of one Ingress.
    fn ingress(&mut self, ingress: &'g Ingress) -> String {
        let closed = self.closed(ingress);
        let mut notes = vec![format!("---- Ingress {}", ingress.full_name())];
        if ingress.base != ingress.name {
            notes.push(format!(
                "its objects are called {}: another Ingress has some that would be called like them",
                ingress.base
            ));
        }
        let mut out = Output::default();
        if ingress.is("ssl-passthrough") {
            self.passed_through(ingress, &mut out);
        } else {
            let single = ingress.rules.len() + usize::from(ingress.default_backend.is_some()) == 1;
            for (index, rule) in ingress.rules.iter().enumerate() {
                let name = if single { ingress.base.clone() } else { format!("{}-{}", ingress.base, index + 1) };
                self.host(ingress, rule, &name, &closed, &mut out);
            }
            if let Some(backend) = &ingress.default_backend {
                let path =
                    Path { path: "/".to_owned(), kind: super::ingress::PathKind::Prefix, backend: backend.clone() };
                let rule = Rule { host: None, paths: vec![path] };
                let name = if single { ingress.base.clone() } else { format!("{}-default", ingress.base) };
                self.host(ingress, &rule, &name, &closed, &mut out);
            }
            self.policies(ingress, &mut out);
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
        notes.extend(ingress.annotations.iter().map(|(name, value)| self.told(ingress, name, value, &closed)));
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
    fn told(&mut self, ingress: &Ingress, name: &str, value: &str, closed: &[String]) -> String {
        let closes = |why: &String| why.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let short: String = value.trim().chars().take(80).collect();
        let told = match fate(name) {
            _ if is_neutral(name, value.trim()) => "asks for nothing".to_owned(),
            Some(Fate::Translated(_)) if closed.iter().any(closes) => "NOT TRANSLATED, CLOSED".to_owned(),
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
