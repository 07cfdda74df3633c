//! The kinds that are read, as published, typed. What a cluster would refuse at admission is refused here; what it
//! would accept with a condition is accepted.

pub mod backend_policy;
pub mod core;
pub mod filter;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod l4_forwarding;
pub mod l4_route;
pub mod meta;
pub mod policy;
pub mod refs;
pub mod ringway;
pub mod route_filter;
pub mod session;
pub mod text;
pub mod tls;
pub mod traffic;

use std::collections::HashMap;

use super::read::{Cx, FromNode, Object};
use super::source::{Diagnostic, Span, Spanned};
use super::yaml::{Node, Value};

use meta::Meta;

/// An object of some kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<S> {
    /// Its metadata.
    pub meta: Meta,
    /// Its content.
    pub spec: S,
}

/// All objects of a load, in the order of the files.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "one field per kind")]
pub struct Resources {
    pub classes: Vec<Resource<gateway::GatewayClassSpec>>,
    pub gateways: Vec<Resource<gateway::GatewaySpec>>,
    pub listener_sets: Vec<Resource<gateway::ListenerSetSpec>>,
    pub http_routes: Vec<Resource<http_route::HttpRouteSpec>>,
    pub grpc_routes: Vec<Resource<http_route::HttpRouteSpec>>,
    pub tcp_routes: Vec<Resource<l4_route::TcpRouteSpec>>,
    pub tls_routes: Vec<Resource<tls::TlsRouteSpec>>,
    pub backend_tls_policies: Vec<Resource<tls::BackendTlsPolicySpec>>,
    pub udp_routes: Vec<Resource<l4_route::UdpRouteSpec>>,
    pub grants: Vec<Resource<gateway::ReferenceGrantSpec>>,
    pub namespaces: Vec<Resource<()>>,
    pub services: Vec<Resource<core::ServiceSpec>>,
    pub slices: Vec<Resource<core::EndpointSliceSpec>>,
    pub config_maps: Vec<Resource<core::Data>>,
    pub secrets: Vec<Resource<core::Data>>,
    pub backends: Vec<Resource<ringway::BackendSpec>>,
    pub certificates: Vec<Resource<ringway::CertificateSpec>>,
    pub client_policies: Vec<Resource<ringway::ClientPolicySpec>>,
    pub backend_policies: Vec<Resource<backend_policy::BackendPolicySpec>>,
    pub l4_policies: Vec<Resource<l4_forwarding::L4ForwardingPolicySpec>>,
    pub route_filters: Vec<Resource<route_filter::RouteFilterSpec>>,
    pub access_policies: Vec<Resource<traffic::AccessPolicySpec>>,
    pub rate_limit_policies: Vec<Resource<traffic::RateLimitPolicySpec>>,
    pub response_policies: Vec<Resource<traffic::ResponsePolicySpec>>,
    /// Objects that could not be read and must not leave anything open.
    pub closed: Vec<Closed>,
    seen: HashMap<(String, String, String), Span>,
}

/// An object that could not be read, and what is not served because of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of a policy, what it is attached to.
    pub targets: Vec<refs::PolicyTargetRef>,
}

/// Kinds of the groups that are known and come with later work.
pub(super) const KINDS: &[(&str, &str, &[&str])] = &[
    (refs::GATEWAY_GROUP, "GatewayClass", &["v1", "v1beta1"]),
    (refs::GATEWAY_GROUP, "Gateway", &["v1", "v1beta1"]),
    (refs::GATEWAY_GROUP, "ListenerSet", &["v1"]),
    (refs::GATEWAY_GROUP, "HTTPRoute", &["v1", "v1beta1"]),
    (refs::GATEWAY_GROUP, "GRPCRoute", &["v1", "v1alpha2"]),
    (refs::GATEWAY_GROUP, "TCPRoute", &["v1", "v1alpha2"]),
    (refs::GATEWAY_GROUP, "TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    (refs::GATEWAY_GROUP, "BackendTLSPolicy", &["v1", "v1alpha3"]),
    (refs::GATEWAY_GROUP, "UDPRoute", &["v1", "v1alpha2"]),
    (refs::GATEWAY_GROUP, "ReferenceGrant", &["v1", "v1beta1"]),
    ("", "Namespace", &["v1"]),
    ("", "Service", &["v1"]),
    ("discovery.k8s.io", "EndpointSlice", &["v1"]),
    ("", "ConfigMap", &["v1"]),
    ("", "Secret", &["v1"]),
    (refs::RINGWAY_GROUP, "Backend", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "Certificate", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "ClientPolicy", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "BackendPolicy", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "L4ForwardingPolicy", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "HTTPRouteFilter", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "AccessPolicy", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "RateLimitPolicy", &["v1alpha1"]),
    (refs::RINGWAY_GROUP, "ResponsePolicy", &["v1alpha1"]),
];

impl Resources {
    /// Whether an object of that kind and name could not be read.
    pub fn is_closed(&self, kind: &str, name: &str) -> bool {
        self.closed.iter().any(|each| each.kind == kind && each.name == name)
    }

    /// Reads one document: an object, or a List of objects.
    pub fn read(&mut self, document: &Node, cx: &Cx<'_>) {
        if !matches!(document.value, Value::Map(_)) {
            let found = super::read::kind_of(document);
            cx.error(document.span, format!("expected an object with apiVersion and kind, found {found}"));
            return;
        }
        let text = |field: &str| -> Option<Spanned<String>> {
            let Some(node) = document.get(field) else {
                cx.error(core::place(document), format!("`{field}` is missing"));
                return None;
            };
            Spanned::from_node(node, cx)
        };
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else { return };
        if kind.value == "List" && version.value == "v1" {
            match document.get("items").map(|items| &items.value) {
                Some(Value::List(items)) => items.iter().for_each(|item| self.read(item, cx)),
                _ => cx.error(kind.span, "a List needs `items`"),
            }
            return;
        }
        let (group, name) = version.value.rsplit_once('/').unwrap_or(("", &version.value));
        match KINDS.iter().find(|known| known.0 == group && known.1 == kind.value) {
            None => unknown(group, &kind, cx),
            Some((_, _, versions)) if !versions.contains(&name) => {
                let message = format!("{} is read in version {}, not {name}", kind.value, versions.join(" or "));
                cx.error(version.span, message);
            }
            Some(_) => self.object(group, &kind.value, document, cx),
        }
    }

    /// Reads an object that may be there already under its name: a part of another version of it.
    pub fn read_beside(&mut self, document: &Node, cx: &Cx<'_>) {
        let seen = std::mem::take(&mut self.seen);
        self.read(document, cx);
        self.seen.extend(seen);
    }

    fn object(&mut self, group: &str, kind: &str, document: &Node, cx: &Cx<'_>) {
        match (group, kind) {
            (refs::GATEWAY_GROUP, "GatewayClass") => self.put(kind, document, cx, spec, |all| &mut all.classes),
            (refs::GATEWAY_GROUP, "Gateway") => self.put(kind, document, cx, spec, |all| &mut all.gateways),
            (refs::GATEWAY_GROUP, "ListenerSet") => self.put(kind, document, cx, spec, |all| &mut all.listener_sets),
            (refs::GATEWAY_GROUP, "HTTPRoute") => self.put(kind, document, cx, spec, |all| &mut all.http_routes),
            (refs::GATEWAY_GROUP, "GRPCRoute") => {
                let read = |node: &Node, cx: &Cx<'_>| Some(spec::<grpc_route::GrpcRouteSpec>(node, cx)?.into());
                self.put(kind, document, cx, read, |all| &mut all.grpc_routes);
            }
            (refs::GATEWAY_GROUP, "TCPRoute") => self.put(kind, document, cx, spec, |all| &mut all.tcp_routes),
            (refs::GATEWAY_GROUP, "TLSRoute") => self.put(kind, document, cx, spec, |all| &mut all.tls_routes),
            (refs::GATEWAY_GROUP, "BackendTLSPolicy") => {
                self.put(kind, document, cx, spec, |all| &mut all.backend_tls_policies);
            }
            (refs::GATEWAY_GROUP, "UDPRoute") => self.put(kind, document, cx, spec, |all| &mut all.udp_routes),
            (refs::GATEWAY_GROUP, "ReferenceGrant") => self.put(kind, document, cx, spec, |all| &mut all.grants),
            (refs::RINGWAY_GROUP, "Backend") => self.put(kind, document, cx, spec, |all| &mut all.backends),
            (refs::RINGWAY_GROUP, "Certificate") => self.put(kind, document, cx, spec, |all| &mut all.certificates),
            (refs::RINGWAY_GROUP, "ClientPolicy") => self.put(kind, document, cx, spec, |all| &mut all.client_policies),
            (refs::RINGWAY_GROUP, "BackendPolicy") => {
                self.put(kind, document, cx, spec, |all| &mut all.backend_policies);
            }
            (refs::RINGWAY_GROUP, "L4ForwardingPolicy") => {
                self.put(kind, document, cx, spec, |all| &mut all.l4_policies);
            }
            (refs::RINGWAY_GROUP, "HTTPRouteFilter") => {
                self.put(kind, document, cx, spec, |all| &mut all.route_filters);
            }
            (refs::RINGWAY_GROUP, "AccessPolicy") => self.put(kind, document, cx, spec, |all| &mut all.access_policies),
            (refs::RINGWAY_GROUP, "RateLimitPolicy") => {
                self.put(kind, document, cx, spec, |all| &mut all.rate_limit_policies);
            }
            (refs::RINGWAY_GROUP, "ResponsePolicy") => {
                self.put(kind, document, cx, spec, |all| &mut all.response_policies);
            }
            (_, "Namespace") => self.put(kind, document, cx, |_, _| Some(()), |all| &mut all.namespaces),
            (_, "Service") => self.put(kind, document, cx, service, |all| &mut all.services),
            (_, "EndpointSlice") => {
                self.put(kind, document, cx, core::EndpointSliceSpec::read, |all| &mut all.slices);
            }
            (_, "ConfigMap") => {
                let read = |node: &Node, cx: &Cx<'_>| core::Data::read(node, "data", "binaryData", cx);
                self.put(kind, document, cx, read, |all| &mut all.config_maps);
            }
            _ => {
                let read = |node: &Node, cx: &Cx<'_>| core::Data::read(node, "stringData", "data", cx);
                self.put(kind, document, cx, read, |all| &mut all.secrets);
            }
        }
    }

    fn put<S>(
        &mut self,
        kind: &str,
        document: &Node,
        cx: &Cx<'_>,
        read: impl FnOnce(&Node, &Cx<'_>) -> Option<S>,
        list: impl FnOnce(&mut Self) -> &mut Vec<Resource<S>>,
    ) {
        let meta = match document.get("metadata") {
            Some(node) => Meta::from_node(node, cx),
            None => {
                cx.error(core::place(document), "`metadata` is missing");
                None
            }
        };
        let spec = read(document, cx);
        let Some(mut meta) = meta else { return };
        if matches!(kind, "GatewayClass" | "Namespace") {
            meta.namespace.clear();
        }
        let key = (kind.to_owned(), meta.namespace.clone(), meta.name.clone());
        if self.seen.insert(key, meta.span).is_some() {
            cx.error(meta.span, format!("{kind} {} is defined twice", meta.full_name()));
            return;
        }
        if let Some(spec) = spec {
            list(self).push(Resource { meta, spec });
        }
    }
}

/// The `spec` of a kind whose fields are all known.
fn spec<S: FromNode>(document: &Node, cx: &Cx<'_>) -> Option<S> {
    let mut object = Object::open(document, cx)?;
    for other in ["apiVersion", "kind", "metadata", "status"] {
        let _ignored: Option<Option<super::read::Ignored>> = object.optional(other);
    }
    let read = object.required("spec");
    let known = object.finish("this object");
    read.filter(|_| known)
}

fn service(document: &Node, cx: &Cx<'_>) -> Option<core::ServiceSpec> {
    match document.get("spec") {
        Some(node) => core::ServiceSpec::from_node(node, cx),
        None => Some(core::ServiceSpec::default()),
    }
}

fn unknown(group: &str, kind: &Spanned<String>, cx: &Cx<'_>) {
    let ours = [refs::GATEWAY_GROUP, refs::RINGWAY_GROUP].contains(&group);
    let mut warning = Diagnostic::warning(kind.span, format!("unknown kind {}; the object is ignored", kind.value));
    let known: Vec<&str> = KINDS.iter().filter(|known| known.0 == group).map(|known| known.1).collect();
    if ours && let Some(meant) = super::read::suggestion(&kind.value, &known) {
        warning = warning.help(format!("did you mean `{meant}`?"));
    }
    cx.report(warning);
}
