//! The Gateway API's conformance tests restated: each test is named after the one that it restates, with fixtures of its
//! own. Traffic goes through the real binary to origins on loopback; what only asserts conditions asks `check --status`.
//! `docs/testing.md` lists those that are left out.

mod backend_tls;
mod backends;
mod filters;
mod gateway;
mod grpc;
mod http;
mod listener_set;
mod streams;
mod tls;

use serde_json::Value;

use crate::support::client::Response;
use crate::support::origin::Origin;
use crate::support::proxy::{Directory, Proxy, backend, command};

/// An origin that tells what it got and who it is.
pub fn echo(name: &'static str) -> Origin {
    Origin::replying(move |request| {
        let mut headers = serde_json::Map::new();
        for (name, value) in &request.headers {
            let list = headers.entry(name.to_lowercase()).or_insert_with(|| serde_json::json!([]));
            list.as_array_mut().unwrap().push(value.as_str().into());
        }
        let host = request.header("host").unwrap_or_default();
        let (path, method) = (&request.target, &request.method);
        let body =
            serde_json::json!({ "backend": name, "path": path, "host": host, "method": method, "headers": headers });
        let body = body.to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    })
}

/// A Service on port 8080 with one endpoint.
pub fn service(namespace: &str, name: &str, origin: &Origin) -> String {
    let (ip, port) = origin.address.rsplit_once(':').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{port: 8080, targetPort: {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
    )
}

/// Objects without a namespace, in namespace `infra`.
pub fn infra(yaml: &str) -> String {
    yaml.replace("metadata: {name: ", "metadata: {namespace: infra, name: ")
}

/// An object of the Gateway API in namespace `infra`.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    within("infra", kind, name, spec)
}

pub fn within(namespace: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}\n"
    )
}

/// Gateway `same-namespace` with these listeners.
pub fn gateway(listeners: &str) -> String {
    object(
        "Gateway",
        "same-namespace",
        &format!(
            "  gatewayClassName: ringway\n  addresses: [{{type: IPAddress, value: \"{{ip}}\"}}]\n  listeners:\n{listeners}"
        ),
    )
}

/// Its usual listener.
pub const WEB: &str = "  - {name: http, port: 8080, protocol: HTTP}\n";

/// An HTTPRoute at that Gateway with these rules and what else its spec has.
pub fn route(name: &str, more: &str, rules: &str) -> String {
    object("HTTPRoute", name, &format!("  parentRefs: [{{name: same-namespace}}]\n{more}  rules:\n{rules}"))
}

/// `backendRefs` to a Service.
pub fn to(name: &str) -> String {
    format!("backendRefs: [{{name: {name}, port: 8080}}]")
}

/// A proxy in front of three origins, `v1` to `v3`, which are Services of namespace `infra`.
pub struct World {
    pub proxy: Proxy,
    pub origins: [Origin; 3],
}

pub fn world(yaml: &str) -> World {
    let origins = [echo("v1"), echo("v2"), echo("v3")];
    let services: String =
        ["v1", "v2", "v3"].iter().zip(&origins).map(|(name, origin)| service("infra", name, origin)).collect();
    World { proxy: Proxy::start(&format!("{yaml}{services}")), origins }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub port: u16,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
}

pub fn get<'a>(host: &'a str, path: &'a str) -> Ask<'a> {
    Ask { port: 8080, method: "GET", host, path, fields: &[] }
}

impl World {
    pub fn ask(&self, ask: Ask<'_>) -> Response {
        let mut client = crate::support::client::Client::connect(&self.proxy.port(ask.port));
        let fields: String = ask.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let host = if ask.host.is_empty() { "example.com" } else { ask.host };
        client.send(format!("{} {} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n", ask.method, ask.path));
        client.response_to(ask.method).unwrap()
    }

    /// The backend that answered, or else the status.
    pub fn who(&self, ask: Ask<'_>) -> String {
        let response = self.ask(ask);
        if response.status == 200 && ask.method != "HEAD" {
            response.json()["backend"].as_str().unwrap().to_owned()
        } else {
            response.status.to_string()
        }
    }

    /// Asserts who answers each.
    pub fn expect(&self, cases: &[(Ask<'_>, &str)]) {
        for (ask, expected) in cases {
            assert_eq!(self.who(*ask), *expected, "{ask:?}");
        }
    }

    /// What the origin got.
    pub fn seen(&self, ask: Ask<'_>) -> Value {
        let response = self.ask(ask);
        assert_eq!(response.status, 200, "{ask:?}");
        response.json()
    }
}

/// What `ringway check --status -o json` says.
pub struct Status(Value);

pub fn check(yaml: &str) -> Status {
    let directory = Directory::new();
    directory.write("a.yaml", &yaml.replace("{ip}", "127.0.0.1"));
    let (code, out, error) = command(&["check", "--status", "-o", "json", "--config", "a.yaml"], &directory.0);
    assert_eq!(code, 0, "{error}");
    Status(serde_json::from_str(&out).unwrap())
}

impl Status {
    /// An object's status; `name` is `Kind namespace/name`, or `Kind name` where there is no namespace.
    pub fn of(&self, name: &str) -> &Value {
        let (kind, name) = name.split_once(' ').unwrap();
        let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
        let item = self.0["items"].as_array().unwrap().iter().find(|item| {
            item["kind"] == kind
                && item["metadata"]["name"] == name
                && item["metadata"]["namespace"].as_str() == namespace
        });
        &item.unwrap_or_else(|| panic!("no status of {kind} {name}"))["status"]
    }

    pub fn listener(&self, name: &str, listener: &str) -> &Value {
        let all = self.of(name)["listeners"].as_array().unwrap();
        all.iter().find(|each| each["name"] == listener).unwrap_or_else(|| panic!("no listener {listener} of {name}"))
    }

    /// A route's status at its parent with this number.
    pub fn parent(&self, name: &str, index: usize) -> &Value {
        &self.of(name)["parents"][index]
    }
}

/// `True Reason` of a condition.
pub fn condition(of: &Value, kind: &str) -> String {
    let all = of["conditions"].as_array().unwrap_or_else(|| panic!("no conditions in {of}"));
    let found = all.iter().find(|each| each["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {all:?}"));
    assert!(found["observedGeneration"].is_i64() && found["message"].is_string(), "{found}");
    format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

/// The kinds that a listener supports.
pub fn kinds(listener: &Value) -> Vec<&str> {
    listener["supportedKinds"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect()
}
