//! JSON Schema of every kind that is read, for editors, made from the readers themselves (`FromNode::schema`).

use serde_json::{Map, Value, json};

use super::read::FromNode;
use super::resources::{
    KINDS, backend_policy, core, gateway, grpc_route, http_route, l4_forwarding, l4_route, ringway, route_filter, tls,
    traffic,
};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Kinds that are read, in order.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(_, kind, _)| *kind)
}

/// The schema of one kind, whatever its case; `None`: it is not read.
pub fn of_kind(kind: &str) -> Option<Value> {
    let (group, kind, versions) = KINDS.iter().find(|known| known.1.eq_ignore_ascii_case(kind))?;
    let mut schema = object(group, kind, versions);
    schema["$schema"] = DRAFT.into();
    Some(schema)
}

/// One schema for every kind: each object is held to that of its own.
pub fn all() -> Value {
    let one = |(group, kind, versions): &(&str, &str, &[&str])| {
        let whose = json!({ "properties": { "kind": { "const": kind } }, "required": ["kind"] });
        json!({ "if": whose, "then": object(group, kind, versions) })
    };
    json!({
        "$schema": DRAFT,
        "title": "Ringway configuration",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": { "kind": { "type": "string", "examples": kinds().collect::<Vec<_>>() } },
        "allOf": KINDS.iter().map(one).collect::<Vec<_>>(),
    })
}

/// What stands beside `apiVersion`, `kind` and `metadata`, and whether other fields may too.
fn content(kind: &str) -> (Map<String, Value>, bool) {
    let spec = |schema: Value| (Map::from_iter([("spec".to_owned(), schema)]), false);
    match kind {
        "GatewayClass" => spec(gateway::GatewayClassSpec::schema()),
        "Gateway" => spec(gateway::GatewaySpec::schema()),
        "ListenerSet" => spec(gateway::ListenerSetSpec::schema()),
        "HTTPRoute" => spec(http_route::HttpRouteSpec::schema()),
        "GRPCRoute" => spec(grpc_route::GrpcRouteSpec::schema()),
        "TCPRoute" => spec(l4_route::TcpRouteSpec::schema()),
        "UDPRoute" => spec(l4_route::UdpRouteSpec::schema()),
        "TLSRoute" => spec(tls::TlsRouteSpec::schema()),
        "BackendTLSPolicy" => spec(tls::BackendTlsPolicySpec::schema()),
        "ReferenceGrant" => spec(gateway::ReferenceGrantSpec::schema()),
        "Backend" => spec(ringway::BackendSpec::schema()),
        "Certificate" => spec(ringway::CertificateSpec::schema()),
        "ClientPolicy" => spec(ringway::ClientPolicySpec::schema()),
        "BackendPolicy" => spec(backend_policy::BackendPolicySpec::schema()),
        "L4ForwardingPolicy" => spec(l4_forwarding::L4ForwardingPolicySpec::schema()),
        "HTTPRouteFilter" => spec(route_filter::RouteFilterSpec::schema()),
        "AccessPolicy" => spec(traffic::AccessPolicySpec::schema()),
        "RateLimitPolicy" => spec(traffic::RateLimitPolicySpec::schema()),
        "ResponsePolicy" => spec(traffic::ResponsePolicySpec::schema()),
        // Kinds of Kubernetes itself: fields that are not used are accepted.
        kind => (core::schema(kind), true),
    }
}

fn object(group: &str, kind: &str, versions: &[&str]) -> Value {
    let full = |version: &&str| if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let metadata = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253, "description": "The object's name." },
            "namespace": { "type": "string", "maxLength": 63, "description": "Its namespace; `default` when not given." },
            "labels": labels,
            "annotations": { "type": "object" },
            "creationTimestamp": { "type": "string", "description": "Older objects come before younger ones." },
        },
    });
    let mut properties = json!({
        "apiVersion": { "enum": versions.iter().map(full).collect::<Vec<_>>() },
        "kind": { "const": kind },
        "metadata": metadata,
        "status": {},
    });
    let (content, loose) = content(kind);
    let mut required = vec!["apiVersion", "kind", "metadata"];
    if content.contains_key("spec") && !loose {
        required.push("spec");
    }
    for (name, schema) in content {
        properties[name] = schema;
    }
    json!({
        "title": kind,
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": loose,
    })
}

/// The reference: every field of every kind of the Gateway API and of Ringway, as a page.
pub fn reference() -> String {
    let mut out = String::from(
        "# Reference\n\nEvery field that is read, made from the readers by `ringway schema --reference`. A field that is not listed is an error.\n\
         What the fields mean together is in [configuration.md](configuration.md). `*` marks what must be there.\n",
    );
    for (group, kind, versions) in KINDS.iter().filter(|known| known.0.contains('.') && known.0 != "discovery.k8s.io") {
        out += &format!("\n## {kind}\n\n`{group}`, {}\n\n| Field | Type | |\n|---|---|---|\n", versions.join(", "));
        let schema = object(group, kind, versions);
        rows(&schema["properties"]["spec"], "", &mut out);
    }
    out
}

fn rows(schema: &Value, path: &str, out: &mut String) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|each| each == name));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let star = if required(name) { "*" } else { "" };
        let mut here = format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
        let mut inner = field;
        while inner["type"] == "array" {
            here += "[]";
            inner = &inner["items"];
        }
        let doc = field["description"].as_str().unwrap_or_default().replace('|', "\\|");
        *out += &format!("| `{here}`{star} | {} | {doc} |\n", kind_of(field));
        rows(inner, &here, out);
    }
}

/// A type in few words.
fn kind_of(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values: Vec<String> = values.iter().map(|value| format!("`{}`", text(value))).collect();
        return values.join(", ");
    }
    if let Some(either) = schema["anyOf"].as_array() {
        return either.first().map(kind_of).unwrap_or_default();
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind_of(&schema["items"])),
        Some("integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(min), Some(max)) if max < i64::MAX => format!("{min} to {max}"),
            _ => "integer".to_owned(),
        },
        Some(other) => other.to_owned(),
        None => "not used".to_owned(),
    }
}
