//! Ingress objects and what else of a cluster is needed to translate them.

use std::collections::HashSet;

use ringway_core::model::HostPattern;

use crate::control::read::{Cx, FromNode, Object, Table, Verbatim};
use crate::control::resources::core::place;
use crate::control::resources::text::{Namespace, SectionName};
use crate::control::source::Spanned;
use crate::control::yaml::{Node, Value};

/// The prefix of ingress-nginx's annotations.
pub(super) const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// An Ingress.
#[derive(Debug)]
pub(super) struct Ingress {
    pub(super) namespace: String,
    pub(super) name: String,
    /// What its objects are called after: its name, unless those of another would be called the same.
    pub(super) base: String,
    /// Without their prefix, in the order of the file.
    pub(super) annotations: Vec<(String, String)>,
    /// `spec.ingressClassName`, or the annotation that came before it.
    pub(super) class: Option<String>,
    pub(super) default_backend: Option<Backend>,
    pub(super) tls: Vec<Tls>,
    pub(super) rules: Vec<Rule>,
}

impl Ingress {
    /// An annotation's value, without the white space around it; empty counts as absent.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let found = self.annotations.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Whether an annotation is `"true"`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.annotation(name) == Some("true")
    }

    /// `namespace/name`.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether TLS is ended for a host.
    pub(super) fn has_tls(&self, host: Option<&str>) -> bool {
        self.tls
            .iter()
            .any(|tls| tls.hosts.is_empty() || host.is_some_and(|host| tls.hosts.iter().any(|each| each == host)))
    }
}

/// `spec.tls[]`.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) hosts: Vec<String>,
    pub(super) secret: Option<String>,
}

/// `spec.rules[]`.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) host: Option<String>,
    pub(super) paths: Vec<Path>,
}

/// A path and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) kind: PathKind,
    pub(super) backend: Backend,
}

/// `pathType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) service: String,
    /// A number, or a name that the Service knows.
    pub(super) port: Result<u16, String>,
}

/// The Secret that an annotation names: namespace, `own` unless it says another, and name. `None`: it is no name.
pub(super) fn secret<'t>(text: &'t str, own: &'t str) -> Option<(&'t str, &'t str)> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|b| inner(*b))
            && bytes.last().is_some_and(|b| inner(*b))
            && bytes.iter().all(|b| inner(*b) || *b == b'-')
    };
    let good = namespace.len() <= 63 && is_label(namespace) && name.len() <= 253 && name.split('.').all(is_label);
    good.then_some((namespace, name))
}

/// An object's namespace, name, and what it holds by keys.
pub(super) type Named<T> = (String, String, Vec<(String, T)>);

/// All that was given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) ingresses: Vec<Ingress>,
    /// Their namespaces and names.
    seen: HashSet<(String, String)>,
    /// With their ports by name.
    pub(super) services: Vec<Named<u16>>,
    /// With their data.
    pub(super) config_maps: Vec<Named<String>>,
    /// Objects of other kinds, which nothing is made of.
    pub(super) others: usize,
}

impl Given {
    /// Reads one document: an object, or a List of objects.
    pub(super) fn read(&mut self, document: &Node, cx: &Cx<'_>) {
        let text =
            |field: &str| document.get(field).and_then(|node| Verbatim::from_node(node, cx)).map(|found| found.0);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            cx.error(place(document), "expected an object with apiVersion and kind");
            return;
        };
        if kind == "List" {
            if let Some(Value::List(items)) = document.get("items").map(|items| &items.value) {
                items.iter().for_each(|item| self.read(item, cx));
            }
            return;
        }
        match (version.as_str(), kind.as_str()) {
            ("networking.k8s.io/v1", "Ingress") => {
                let Some(found) = ingress(document, cx) else { return };
                if !self.seen.insert((found.namespace.clone(), found.name.clone())) {
                    cx.error(place(document), format!("Ingress {} is there twice", found.full_name()));
                    return;
                }
                self.ingresses.push(found);
            }
            ("extensions/v1beta1" | "networking.k8s.io/v1beta1", "Ingress") => {
                cx.error(
                    place(document),
                    "Ingress is read in version networking.k8s.io/v1: export it again from a cluster",
                );
            }
            ("v1", "Service") => self.services.extend(service(document, cx)),
            ("v1", "ConfigMap") => {
                if let Some((namespace, name)) = names(document, cx) {
                    let data = document.get("data").and_then(|node| Table::<Verbatim>::from_node(node, cx));
                    let data = data.unwrap_or_default().0.into_iter().map(|(key, value)| (key, value.0)).collect();
                    self.config_maps.push((namespace, name, data));
                }
            }
            _ => self.others += 1,
        }
    }
}

/// Words that stand behind an Ingress's name in those of its objects, and numbers.
const WORDS: [&str; 7] = ["default", "closed", "mirror", "https", "www", "more", "auth"];

impl Given {
    /// Sees to it that no objects of two Ingresses are called the same: `shop-1` may be one, and the first of `shop`.
    pub(super) fn tell_apart(&mut self) {
        let mut taken: HashSet<(&str, String)> = HashSet::new();
        // Whoever's name can be made of another's is longer.
        let mut all: Vec<&mut Ingress> = self.ingresses.iter_mut().collect();
        all.sort_by_key(|ingress| ingress.name.len());
        for Ingress { namespace, base, .. } in all {
            let namespace: &str = namespace;
            while roots(base).any(|root| taken.contains(&(namespace, root.to_owned()))) {
                base.push_str("-ingress");
            }
            taken.insert((namespace, base.clone()));
        }
    }
}

/// A name, and those that it can be made of.
fn roots(name: &str) -> impl Iterator<Item = &str> {
    let is_word = |word: &str| WORDS.contains(&word) || (!word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
    std::iter::successors(Some(name), move |name| {
        name.rsplit_once('-').filter(|(_, word)| is_word(word)).map(|(root, _)| root)
    })
}

fn optional(object: &mut Object<'_, '_>, name: &'static str) -> Option<String> {
    object.optional::<Verbatim>(name)?.map(|found| found.0)
}

/// A host of an Ingress; `*.` may stand in front of it.
#[derive(Debug)]
struct HostName(String);

impl FromNode for HostName {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = Verbatim::from_node(node, cx)?.0.to_lowercase();
        if !text.is_empty()
            && let Err(error) = HostPattern::parse(&text)
        {
            cx.error(node.span, format!("\"{text}\" is not a hostname: {error}"));
            return None;
        }
        Some(Self(text))
    }
}

fn names(document: &Node, cx: &Cx<'_>) -> Option<(String, String)> {
    let meta = document.get("metadata");
    let Some(name) = meta.and_then(|meta| meta.get("name")) else {
        cx.error(place(document), "`metadata.name` is missing");
        return None;
    };
    let name = SectionName::from_node(name, cx);
    let namespace = match meta.and_then(|meta| meta.get("namespace")).filter(|node| !node.is_null()) {
        Some(node) => Namespace::from_node(node, cx)?.0,
        None => "default".to_owned(),
    };
    Some((namespace, name?.0))
}

fn ingress(document: &Node, cx: &Cx<'_>) -> Option<Ingress> {
    let (namespace, name) = names(document, cx)?;
    let all = document.get("metadata").and_then(|meta| meta.get("annotations")).filter(|node| !node.is_null());
    let all = match all {
        Some(node) => Table::<Verbatim>::from_node(node, cx)?.0,
        None => Vec::new(),
    };
    let old_class = all.iter().find(|(key, _)| key == "kubernetes.io/ingress.class").map(|(_, value)| value.0.clone());
    let ours = |(key, value): (String, Verbatim)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.0));
    let annotations = all.into_iter().filter_map(ours).collect();
    let Some(spec) = document.get("spec") else {
        cx.error(place(document), "`spec` is missing");
        return None;
    };
    let mut object = Object::open(spec, cx)?;
    let class = optional(&mut object, "ingressClassName").or(old_class);
    let default_backend: Option<Option<Backend>> = object.optional("defaultBackend");
    let tls: Option<Option<Vec<Tls>>> = object.optional("tls");
    let rules: Option<Option<Vec<Rule>>> = object.optional("rules");
    Some(Ingress {
        namespace,
        base: name.clone(),
        name,
        annotations,
        class,
        default_backend: default_backend?,
        tls: tls?.unwrap_or_default(),
        rules: rules?.unwrap_or_default(),
    })
}

fn service(document: &Node, cx: &Cx<'_>) -> Option<Named<u16>> {
    let (namespace, name) = names(document, cx)?;
    let spec = document.get("spec")?;
    let found = crate::control::resources::core::ServiceSpec::from_node(spec, cx)?;
    Some((namespace, name, found.ports.into_iter().map(|port| (port.name, port.port.get())).collect()))
}

impl FromNode for Tls {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = Object::open(node, cx)?;
        let hosts: Option<Vec<HostName>> = object.optional("hosts")?;
        let secret: Option<Verbatim> = object.optional("secretName")?;
        let secret = match secret {
            Some(name) if !name.0.is_empty() => object.optional::<SectionName>("secretName")?.map(|name| name.0),
            _ => None,
        };
        Some(Self { hosts: hosts.unwrap_or_default().into_iter().map(|host| host.0).collect(), secret })
    }
}

impl FromNode for Rule {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = Object::open(node, cx)?;
        let host: Option<HostName> = object.optional("host")?;
        let host = host.map(|host| host.0).filter(|host| !host.is_empty());
        let http: Option<Paths> = object.optional("http")?;
        Some(Self { host, paths: http.map(|http| http.0).unwrap_or_default() })
    }
}

struct Paths(Vec<Path>);

impl FromNode for Paths {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        Object::open(node, cx)?.required("paths").map(Self)
    }
}

impl FromNode for Path {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = Object::open(node, cx)?;
        let path = optional(&mut object, "path").filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        let kind: Option<Spanned<Verbatim>> = object.optional("pathType")?;
        let backend = object.required("backend")?;
        let kind = match kind.as_ref().map(|kind| kind.value.0.as_str()) {
            Some("Exact") => PathKind::Exact,
            Some("Prefix") => PathKind::Prefix,
            Some("ImplementationSpecific") | None => PathKind::ImplementationSpecific,
            Some(other) => {
                cx.error(node.span, format!("\"{other}\" is not a pathType: Exact, Prefix or ImplementationSpecific"));
                return None;
            }
        };
        Some(Self { path, kind, backend })
    }
}

impl FromNode for Backend {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let Some(service) = node.get("service") else {
            cx.error(node.span, "only Services are translated: a `resource` has no counterpart");
            return None;
        };
        let mut object = Object::open(service, cx)?;
        let name: SectionName = object.required("name")?;
        let Some(port) = service.get("port") else {
            cx.error(service.span, "`port` is missing");
            return None;
        };
        let mut port = Object::open(port, cx)?;
        let number: Option<crate::control::resources::text::Port> = port.optional("number")?;
        let port = match number {
            Some(number) => Ok(number.get()),
            None => Err(optional(&mut port, "name").unwrap_or_default()),
        };
        Some(Self { service: name.0, port })
    }
}
