//! Kinds of Kubernetes itself. Fields that nothing here uses are accepted: the objects come from clusters.

use std::net::IpAddr;

use base64::Engine as _;

use crate::control::read::{Cx, FromNode, Ignored, Object, choice};
use crate::control::source::{Span, Spanned};
use crate::control::yaml::{Node, Value};

use super::text::Port;

/// Reads some fields of a mapping and accepts the others.
fn loose<'n, 'c>(node: &'n Node, cx: &'c Cx<'_>) -> Option<Object<'n, 'c>> {
    Object::open(node, cx)
}

/// `Service.spec`, as far as it is used.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceSpec {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// An `ExternalName` Service has no endpoints of its own.
    pub external_name: Option<String>,
    /// Where `sessionAffinity: ClientIP` stands.
    pub client_ip: Option<Span>,
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    /// Its name, by which EndpointSlices refer to it; empty for the only one.
    pub name: String,
    /// Its number, by which routes refer to it.
    pub port: Port,
    /// `TCP` unless given.
    pub protocol: String,
    /// `kubernetes.io/h2c` and the like.
    pub app_protocol: Option<String>,
}

impl FromNode for ServiceSpec {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = loose(node, cx)?;
        let ports: Option<Option<Vec<ServicePort>>> = object.optional("ports");
        let kind: Option<Option<String>> = object.optional("type");
        let external: Option<Option<String>> = object.optional("externalName");
        let affinity: Option<Option<Spanned<String>>> = object.optional("sessionAffinity");
        let client_ip = affinity?.filter(|affinity| affinity.value == "ClientIP").map(|affinity| affinity.span);
        let external_name = (kind?.as_deref() == Some("ExternalName")).then_some(external?.unwrap_or_default());
        Some(Self { ports: ports?.unwrap_or_default(), external_name, client_ip })
    }
}

impl FromNode for ServicePort {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = loose(node, cx)?;
        let name: Option<Option<String>> = object.optional("name");
        let port: Option<Port> = object.required("port");
        let protocol: Option<Option<String>> = object.optional("protocol");
        let app_protocol: Option<Option<String>> = object.optional("appProtocol");
        Some(Self {
            name: name?.unwrap_or_default(),
            port: port?,
            protocol: protocol?.unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: app_protocol?,
        })
    }
}

/// An EndpointSlice, as far as it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSliceSpec {
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Its ports.
    pub ports: Vec<SlicePort>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceEndpoint {
    /// Its addresses, which are equivalent; the first is used.
    pub addresses: Vec<Spanned<IpAddr>>,
    /// Takes traffic; unknown counts as yes.
    pub ready: bool,
    /// Answers, even if it is about to end.
    pub serving: bool,
    /// Is about to end.
    pub terminating: bool,
}

/// One port.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: String,
    /// Where to connect to; none: every port, which nothing can be made of.
    pub port: Option<Port>,
}

choice! {
    /// `addressType`.
    AddressType {
        /// Of four bytes.
        Ipv4 = "IPv4",
        /// Of sixteen.
        Ipv6 = "IPv6",
        /// Names. They are not used.
        Fqdn = "FQDN",
    }
}

impl EndpointSliceSpec {
    /// From the whole object: this kind has no `spec`.
    pub fn read(object: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut fields = loose(object, cx)?;
        let kind: Option<Option<Spanned<AddressType>>> = fields.optional("addressType");
        let kind = kind?;
        let endpoints = match &kind {
            // Names, of which no use is made.
            Some(kind) if kind.value == AddressType::Fqdn => {
                cx.warning(kind.span, "addressType FQDN is not used: these endpoints get no traffic");
                let _unused: Option<Option<Ignored>> = fields.optional("endpoints");
                Some(None)
            }
            _ => fields.optional("endpoints"),
        };
        let ports: Option<Option<Vec<SlicePort>>> = fields.optional("ports");
        Some(Self { endpoints: endpoints?.unwrap_or_default(), ports: ports?.unwrap_or_default() })
    }
}

impl FromNode for SliceEndpoint {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = loose(node, cx)?;
        let addresses: Option<Vec<Spanned<IpAddr>>> = object.required("addresses");
        let conditions: Option<Option<Conditions>> = object.optional("conditions");
        let conditions = conditions?.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        Some(Self {
            addresses: addresses?,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        })
    }
}

#[derive(Default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl FromNode for Conditions {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = loose(node, cx)?;
        let ready = object.optional("ready");
        let serving = object.optional("serving");
        let terminating = object.optional("terminating");
        Some(Self { ready: ready?, serving: serving?, terminating: terminating? })
    }
}

impl FromNode for SlicePort {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = loose(node, cx)?;
        let name: Option<Option<String>> = object.optional("name");
        let port: Option<Option<Port>> = object.optional("port");
        Some(Self { name: name?.unwrap_or_default(), port: port? })
    }
}

impl FromNode for IpAddr {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        let address = text.parse().ok();
        if address.is_none() {
            cx.error(node.span, format!("\"{text}\" is not an IP address"));
        }
        address
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string" })
    }
}

/// Keys of a ConfigMap or Secret with their values, verbatim.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Data {
    /// As text.
    pub text: Vec<(String, Spanned<String>)>,
    /// In base64.
    pub base64: Vec<(String, Spanned<String>)>,
}

impl Data {
    /// From the fields of the whole object that hold data.
    pub fn read(object: &Node, text: &str, base64: &str, cx: &Cx<'_>) -> Option<Self> {
        let text = entries(object, text, cx);
        let base64 = entries(object, base64, cx);
        Some(Self { text: text?, base64: base64? })
    }

    /// The bytes of a key with their place; text comes before base64, as in a cluster. `None`: there is no such key.
    pub fn get(&self, key: &str) -> Option<Spanned<Result<Vec<u8>, &'static str>>> {
        let find = |list: &'_ [(String, Spanned<String>)]| {
            list.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        };
        if let Some(text) = find(&self.text) {
            return Some(Spanned { span: text.span, value: Ok(text.value.into_bytes()) });
        }
        let encoded = find(&self.base64)?;
        // Long values are often folded over several lines.
        let joined: String = encoded.value.split_ascii_whitespace().collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(joined);
        Some(Spanned { span: encoded.span, value: decoded.map_err(|_invalid| "not base64") })
    }
}

fn entries(object: &Node, field: &str, cx: &Cx<'_>) -> Option<Vec<(String, Spanned<String>)>> {
    let Some(node) = object.get(field).filter(|node| !node.is_null()) else { return Some(Vec::new()) };
    let Value::Map(map) = &node.value else {
        cx.error(node.span, format!("expected a mapping, found {}", crate::control::read::kind_of(node)));
        return None;
    };
    let mut found = Vec::new();
    let mut good = true;
    for (key, value) in map {
        match &value.value {
            Value::Scalar { text, .. } => {
                found.push((key.name.clone(), Spanned { span: value.span, value: text.clone() }));
            }
            _ => {
                cx.error(value.span, format!("expected a string, found {}", crate::control::read::kind_of(value)));
                good = false;
            }
        }
    }
    good.then_some(found)
}

/// Schema of what is used of a kind, as properties of the whole object.
pub fn schema(kind: &str) -> serde_json::Map<String, serde_json::Value> {
    use serde_json::json;
    let port = Port::schema();
    let properties = match kind {
        "Service" => json!({ "spec": { "type": "object", "properties": {
            "type": { "type": "string" },
            "externalName": { "type": "string" },
            "ports": { "type": "array", "items": {
                "type": "object",
                "required": ["port"],
                "properties": {
                    "name": { "type": "string", "description": "By which EndpointSlices refer to it." },
                    "port": described_port(&port, "By which routes refer to it."),
                    "protocol": { "type": "string" },
                    "appProtocol": { "type": "string", "description": "kubernetes.io/h2c: HTTP/2 by prior knowledge." },
                },
            }},
        }}}),
        "EndpointSlice" => json!({
            "addressType": AddressType::schema(),
            "endpoints": { "type": "array", "items": {
                "type": "object",
                "required": ["addresses"],
                "properties": { "addresses": { "type": "array", "items": { "type": "string" } }, "conditions": { "type": "object" } },
            }},
            "ports": { "type": "array", "items": {
                "type": "object",
                "properties": { "name": { "type": "string" }, "port": port },
            }},
        }),
        "ConfigMap" => json!({ "data": { "type": "object" }, "binaryData": { "type": "object" } }),
        "Secret" => {
            json!({ "data": { "type": "object" }, "stringData": { "type": "object" }, "type": { "type": "string" } })
        }
        _ => json!({}),
    };
    properties.as_object().cloned().unwrap_or_default()
}

fn described_port(port: &serde_json::Value, doc: &str) -> serde_json::Value {
    crate::control::read::described(port.clone(), doc)
}

/// The place of a whole object: its first line.
pub fn place(node: &Node) -> Span {
    match &node.value {
        Value::Map(entries) => entries.first().map_or(node.span, |(key, _)| key.span),
        _ => node.span,
    }
}
