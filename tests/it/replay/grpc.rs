//! GRPCRoute. Calls go to built-in echoes, which say who they are and what came; calls of a whole gRPC are in `it grpc`.

use std::collections::BTreeMap;

use super::*;
use crate::support::h2::{DATA, END_STREAM, H2};

/// A proxy in front of the Backends `v1` to `v3`.
fn start(yaml: &str) -> Proxy {
    let backends: String = ["v1", "v2", "v3"].iter().map(|name| infra(&backend(name, &["echo"]))).collect();
    Proxy::start(&format!("{yaml}{backends}"))
}

/// `backendRefs` to a Backend.
fn to(name: &str) -> String {
    format!("backendRefs: [{{group: ringway.dev, kind: Backend, name: {name}}}]")
}

fn grpc_route(name: &str, parents: &str, rules: &str) -> String {
    object("GRPCRoute", name, &format!("  parentRefs: [{parents}]\n  rules:\n{rules}"))
}

const PARENT: &str = "{name: same-namespace}";

/// What became of a call: what the echo says, or nothing where the call has ended by a status of its own.
fn call(proxy: &Proxy, host: &str, path: &str, fields: &[(&str, &str)]) -> Option<Value> {
    let mut client = H2::connect(&proxy.address);
    let mut all = vec![(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path)];
    all.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    all.extend_from_slice(fields);
    let stream = client.open(&all, false);
    client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
    let answer = client.answer(stream);
    assert_eq!(answer.status(), 200, "{path}");
    (!answer.body.is_empty()).then(|| serde_json::from_slice(&answer.body).unwrap())
}

/// The backend that a call has come to; `-` where there is none.
fn who(proxy: &Proxy, host: &str, path: &str, fields: &[(&str, &str)]) -> String {
    call(proxy, host, path, fields).map_or_else(|| "-".to_owned(), |told| told["backend"].as_str().unwrap().to_owned())
}

/// GRPCExactMethodMatching
#[test]
fn grpc_exact_method_matching() {
    let rule = |method: &str, name: &str| {
        format!("  - matches: [{{method: {{service: echo.Echo, method: {method}}}}}]\n    {}\n", to(name))
    };
    let proxy = start(&(gateway(WEB) + &grpc_route("exact", PARENT, &(rule("One", "v1") + &rule("Two", "v2")))));
    for (path, expected) in [("/echo.Echo/One", "v1"), ("/echo.Echo/Two", "v2"), ("/echo.Echo/Three", "-")] {
        assert_eq!(who(&proxy, "a.example", path, &[]), expected, "{path}");
    }
    // UNIMPLEMENTED, as gRPC-Web has it in the head.
    let mut client = proxy.client();
    client.send(
        "POST /echo.Echo/Three HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(client.response().header("grpc-status"), Some("12"));
}

/// GRPCRouteHeaderMatching
#[test]
fn grpc_route_header_matching() {
    let header = |list: &[(&str, &str)]| {
        let all: Vec<String> = list.iter().map(|(name, value)| format!("{{name: {name}, value: {value}}}")).collect();
        format!("{{headers: [{}]}}", all.join(", "))
    };
    let rule = |matches: &[String], name: &str| format!("  - matches: [{}]\n    {}\n", matches.join(", "), to(name));
    let rules = rule(&[header(&[("version", "one")])], "v1")
        + &rule(&[header(&[("version", "two")])], "v2")
        + &rule(&[header(&[("version", "two"), ("color", "orange")])], "v1")
        + &rule(&[header(&[("color", "blue")]), header(&[("color", "green")])], "v1")
        + &rule(&[header(&[("color", "red")]), header(&[("color", "yellow")])], "v2");
    let proxy = start(&(gateway(WEB) + &grpc_route("headers", PARENT, &rules)));
    for (fields, expected) in [
        (&[("version", "one")][..], "v1"),
        (&[("version", "two")], "v2"),
        (&[("version", "two"), ("color", "orange")], "v1"),
        (&[("color", "orange")], "-"),
        (&[("some-other-header", "one")], "-"),
        (&[("version", "One")], "-"),
        (&[("color", "blue")], "v1"),
        (&[("color", "green")], "v1"),
        (&[("color", "red")], "v2"),
        (&[("color", "yellow")], "v2"),
        (&[("color", "purple")], "-"),
    ] {
        assert_eq!(who(&proxy, "a.example", "/echo.Echo/One", fields), expected, "{fields:?}");
    }
}

/// GRPCRouteListenerHostnameMatching
#[test]
fn grpc_route_listener_hostname_matching() {
    let listener =
        |name: &str, host: &str| format!("  - {{name: {name}, port: 8080, protocol: HTTP, hostname: '{host}'}}\n");
    let section = |name: &str| format!("{{name: same-namespace, sectionName: {name}}}");
    let rule = |name: &str| format!("  - {}\n", to(name));
    let listeners = listener("one", "bar.com")
        + &listener("two", "foo.bar.com")
        + &listener("three", "*.bar.com")
        + &listener("four", "*.foo.com");
    let yaml = gateway(&listeners)
        + &grpc_route("a", &section("one"), &rule("v1"))
        + &grpc_route("b", &section("two"), &rule("v2"))
        + &grpc_route("c", &format!("{}, {}", section("three"), section("four")), &rule("v3"));
    let proxy = start(&yaml);
    for (host, expected) in [
        ("bar.com", "v1"),
        ("foo.bar.com", "v2"),
        ("baz.bar.com", "v3"),
        ("boo.bar.com", "v3"),
        ("multiple.prefixes.bar.com", "v3"),
        ("multiple.prefixes.foo.com", "v3"),
        ("foo.com", "-"),
        ("no.matching.host", "-"),
    ] {
        assert_eq!(who(&proxy, host, "/echo.Echo/One", &[]), expected, "{host}");
    }
}

/// GRPCRouteNamedRule
#[test]
fn grpc_route_named_rule() {
    let rules = format!(
        "  - name: named\n    matches: [{{method: {{service: echo.Echo, method: One}}}}]\n    {}\n  - {}\n",
        to("v1"),
        to("v2")
    );
    let proxy = start(&(gateway(WEB) + &grpc_route("named", PARENT, &rules)));
    assert_eq!(who(&proxy, "a.example", "/echo.Echo/One", &[]), "v1");
    assert_eq!(who(&proxy, "a.example", "/echo.Echo/Two", &[]), "v2");
}

/// GRPCRouteRequestHeaderModifier
#[test]
fn grpc_route_request_header_modifier() {
    let rule = |method: &str, change: &str| {
        format!(
            "  - matches: [{{method: {{service: echo.Echo, method: {method}}}}}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{change}}}}}]\n    {}\n",
            to("v1")
        )
    };
    let rules = rule("Set", "set: [{name: X-Header-Set, value: set-overwrites}]")
        + &rule("Add", "add: [{name: X-Header-Add, value: add-appends}]")
        + &rule("Remove", "remove: [X-Header-Remove]")
        + &rule(
            "All",
            "set: [{name: X-Header-Set, value: set-overwrites}], add: [{name: X-Header-Add, value: add-appends}], remove: [X-Header-Remove]",
        );
    let proxy = start(&(gateway(WEB) + &grpc_route("modifier", PARENT, &rules)));
    for (method, fields, name, expected) in [
        ("Set", &[("some-other-header", "val")][..], "x-header-set", Some("set-overwrites")),
        ("Set", &[("x-header-set", "some")], "x-header-set", Some("set-overwrites")),
        ("Add", &[("some-other-header", "val")], "x-header-add", Some("add-appends")),
        ("Add", &[("x-header-add", "some")], "x-header-add", Some("some,add-appends")),
        ("Remove", &[("x-header-remove", "val")], "x-header-remove", None),
        ("All", &[("x-header-set", "some"), ("x-header-add", "some")], "x-header-add", Some("some,add-appends")),
        ("All", &[("x-header-remove", "val"), ("x-header-set", "some")], "x-header-set", Some("set-overwrites")),
    ] {
        let told = call(&proxy, "a.example", &format!("/echo.Echo/{method}"), fields).unwrap();
        assert_eq!(told["headers"][name][0].as_str(), expected, "{method} {fields:?}");
        let other = fields.iter().find(|(name, _)| *name == "some-other-header").map(|(_, value)| *value);
        assert_eq!(told["headers"]["some-other-header"][0].as_str(), other, "{method} {fields:?}");
    }
}

/// GRPCRouteWeight
#[test]
fn grpc_route_weight() {
    let share =
        |name: &str, weight: u32| format!("{{group: ringway.dev, kind: Backend, name: {name}, weight: {weight}}}");
    let rules = format!("  - backendRefs: [{}, {}, {}]\n", share("v1", 70), share("v2", 30), share("v3", 0));
    let proxy = start(&(gateway(WEB) + &grpc_route("weight", PARENT, &rules)));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..500 {
        *counts.entry(who(&proxy, "a.example", "/echo.Echo/One", &[])).or_default() += 1;
    }
    assert!(counts["v1"].abs_diff(350) <= 25 && counts["v2"].abs_diff(150) <= 25, "{counts:?}");
    assert!(!counts.contains_key("v3"), "{counts:?}");
}

/// HTTPRouteBackendProtocolH2C
#[test]
fn http_route_backend_protocol_h2c() {
    let (address, connections) = crate::http2_upstream::frames(crate::http2_upstream::PLAIN, |mut server, _| {
        while let Some(stream) = server.request() {
            server.reply(stream, "200", b"over h2c");
        }
    });
    let (ip, port) = address.rsplit_once(':').unwrap();
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: h2c, namespace: infra}}\nspec: {{ports: [{{port: 8080, appProtocol: kubernetes.io/h2c, targetPort: {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: h2c-1, namespace: infra, labels: {{kubernetes.io/service-name: h2c}}}}\naddressType: IPv4\nports: [{{port: {port}, appProtocol: kubernetes.io/h2c}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
    );
    let proxy =
        Proxy::start(&(gateway(WEB) + &route("h2c", "", "  - backendRefs: [{name: h2c, port: 8080}]\n") + &service));
    assert_eq!(proxy.client().get("/").text(), "over h2c");
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
