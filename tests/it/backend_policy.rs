//! BackendPolicy: what requests name in Host, and in which version of HTTP they are sent. What answers is the proxy itself
//! on another port, in front of the built-in responder.

use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, gateway};

/// Port 8080 goes to Backend `outer`, which is port 8082, which answers.
fn chain(outer: &str, policy: &str) -> String {
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: inner, port: 8082, protocol: HTTP}\n";
    let route = |listener: &str, filters: &str, to: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {listener}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: {listener}}}]\n  rules:\n  - backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]\n{filters}"
        )
    };
    let rewrite = "  - matches: [{path: {value: /filter}}]\n    filters: [{type: URLRewrite, urlRewrite: {hostname: filter.example}}]\n    backendRefs: [{group: ringway.dev, kind: Backend, name: outer}]\n";
    gateway(listeners)
        + &route("web", rewrite, "outer")
        + &route("inner", "", "echo")
        + outer
        + &backend("echo", &["echo"])
        + &format!(
            "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: outer}}\nspec:\n  targetRefs: [{{group: ringway.dev, kind: Backend, name: outer}}]\n{policy}"
        )
}

fn outer(more: &str) -> String {
    backend("outer", &["{ip}:8082"]).replace("spec: {", &format!("spec: {{{more}"))
}

#[test]
fn host_is_the_clients_or_a_literal() {
    for (policy, host, filtered) in [
        ("  hostRewrite: {type: Preserve}\n", "example.com", "filter.example"),
        ("  hostRewrite: {type: Literal, hostname: app.internal}\n", "app.internal", "filter.example"),
        // What has no hostname leaves the client's.
        ("  hostRewrite: {type: Backend}\n", "example.com", "filter.example"),
        (
            "  hostRewrite: {type: Literal, hostname: app.internal}\n  protocol: HTTP2\n",
            "app.internal",
            "filter.example",
        ),
    ] {
        let proxy = Proxy::start(&chain(&outer(""), policy));
        let told = proxy.client().get("/").json();
        assert_eq!(told["host"], host, "{policy}");
        assert_eq!(proxy.client().get("/filter").json()["host"], filtered, "{policy}");
    }
}

#[test]
fn the_forwarded_host_stays_the_clients() {
    let origin = Origin::echo();
    let policy = "  hostRewrite: {type: Literal, hostname: app.internal}\n";
    let proxy = Proxy::start(&chain(&backend("outer", &[&origin.address]), policy));
    assert_eq!(proxy.client().get("/").status, 200);
    let seen = origin.request();
    assert_eq!((seen.header("host"), seen.header("x-forwarded-host")), (Some("app.internal"), Some("example.com")));
}

#[test]
fn host_is_the_hostname_of_the_backends_endpoints() {
    let origin = Origin::at("127.0.0.1:0", |mut conn, seen| {
        while let Some(request) = conn.request() {
            seen.lock().unwrap().push(request);
            if !conn.reply("200 OK", "here") {
                return;
            }
        }
    });
    let port = origin.address.rsplit(':').next().unwrap();
    let named = format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: outer}}\nspec: {{endpoints: [{{hostname: localhost, port: {port}}}]}}\n"
    );
    let proxy = Proxy::start(&chain(&named, "  hostRewrite: {type: Backend}\n"));
    assert_eq!(proxy.client().get("/").text(), "here");
    assert_eq!(origin.request().header("host"), Some("localhost"));
}

#[test]
fn the_protocol_comes_before_app_protocol() {
    for (app_protocol, policy, version) in [
        ("", "  protocol: HTTP2\n", "2.0 ringway"),
        ("appProtocol: kubernetes.io/h2c, ", "  protocol: HTTP1\n", "1.1 ringway"),
        ("appProtocol: kubernetes.io/h2c, ", "  retry: {numRetries: 1}\n", "2.0 ringway"),
    ] {
        let proxy = Proxy::start(&chain(&outer(app_protocol), policy));
        let via = proxy.client().get("/").json()["headers"]["via"].to_string();
        assert!(via.trim_end_matches(['"', ']']).ends_with(version), "{app_protocol}{policy}: {via}");
    }
}
