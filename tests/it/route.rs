//! Routing and filters through the whole proxy. The matcher's own rules are tested beside it.

use crate::support::proxy::{Proxy, backend, gateway};

fn route(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge}}]\n{spec}"
    )
}

fn to(name: &str) -> String {
    format!("[{{group: ringway.dev, kind: Backend, name: {name}}}]")
}

fn start(routes: &str) -> Proxy {
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + routes;
    for name in ["a", "b", "c"] {
        yaml += &backend(name, &["echo"]);
    }
    Proxy::start(&yaml)
}

fn ask(proxy: &Proxy, host: &str, line: &str, fields: &str) -> crate::support::client::Response {
    let mut client = proxy.client();
    client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    client.response()
}

/// The backend that answered, or the status.
fn who(proxy: &Proxy, host: &str, line: &str, fields: &str) -> String {
    let response = ask(proxy, host, line, fields);
    if response.status == 200 {
        response.json()["backend"].as_str().unwrap().to_owned()
    } else {
        response.status.to_string()
    }
}

#[test]
fn hosts_paths_methods_headers_and_queries_choose() {
    let rules = format!(
        "  hostnames: [www.example.com]\n  rules:\n  - matches: [{{path: {{type: Exact, value: /exact}}}}]\n    backendRefs: {b}\n  - matches: [{{path: {{value: /api}}, method: POST}}]\n    backendRefs: {c}\n  - matches: [{{path: {{value: /api}}, headers: [{{name: X-Version, value: two}}]}}]\n    backendRefs: {b}\n  - matches: [{{path: {{value: /api}}, queryParams: [{{name: q, value: 1}}]}}]\n    backendRefs: {c}\n  - matches: [{{path: {{type: RegularExpression, value: '/r[0-9]+'}}}}]\n    backendRefs: {c}\n  - backendRefs: {a}\n",
        a = to("a"), b = to("b"), c = to("c")
    )
    .replace("value: 1}", "value: \"1\"}");
    let wild = format!("  hostnames: ['*.example.com']\n  rules: [{{backendRefs: {}}}]\n", to("b"));
    let proxy = start(&(route("www", &rules) + &route("wild", &wild)));
    for (host, line, fields, expected) in [
        ("www.example.com", "GET /", "", "a"),
        ("WWW.Example.COM:8080", "GET /", "", "a"),
        ("www.example.com", "GET /exact", "", "b"),
        ("www.example.com", "GET /exact/", "", "a"),
        ("www.example.com", "POST /api/x", "", "c"),
        ("www.example.com", "GET /apix", "", "a"),
        ("www.example.com", "GET /api", "x-version: two\r\n", "b"),
        ("www.example.com", "GET /api?q=1", "", "c"),
        ("www.example.com", "GET /api?q=2&q=1", "", "a"),
        ("www.example.com", "GET /r123", "", "c"),
        ("www.example.com", "GET /r123x", "", "a"),
        ("a.b.example.com", "GET /", "", "b"),
        ("example.com", "GET /", "", "404"),
        ("other.org", "GET /", "", "404"),
    ] {
        assert_eq!(who(&proxy, host, line, fields), expected, "{host} {line} {fields}");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"no_route\""], 2.0);
}

#[test]
fn the_most_specific_listener_alone_is_asked() {
    let yaml = gateway(
        "  - {name: any, port: 8080, protocol: HTTP}\n  - {name: wild, port: 8080, protocol: HTTP, hostname: '*.example.com'}\n  - {name: exact, port: 8080, protocol: HTTP, hostname: www.example.com}\n",
    ) + &["any", "wild", "exact"]
        .iter()
        .zip(["a", "b", "c"])
        .map(|(section, name)| {
            format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {section}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: {section}}}]\n  rules: [{{matches: [{{path: {{value: /{section}}}}}], backendRefs: {}}}]\n",
                to(name)
            ) + &backend(name, &["echo"])
        })
        .collect::<String>();
    let proxy = Proxy::start(&yaml);
    for (host, path, expected) in [
        ("www.example.com", "/exact", "c"),
        ("www.example.com", "/wild", "404"),
        ("x.example.com", "/wild", "b"),
        ("x.example.com", "/any", "404"),
        ("else.org", "/any", "a"),
    ] {
        assert_eq!(who(&proxy, host, &format!("GET {path}"), ""), expected, "{host}{path}");
    }
}

#[test]
fn weights_are_kept_and_broken_references_answer_500() {
    let rules = "  rules:\n  - backendRefs:\n    - {group: ringway.dev, kind: Backend, name: a, weight: 3}\n    - {group: ringway.dev, kind: Backend, name: b, weight: 1}\n    - {group: ringway.dev, kind: Backend, name: c, weight: 0}\n    - {group: ringway.dev, kind: Backend, name: missing, weight: 1}\n";
    let proxy = start(&route("split", rules));
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..100 {
        *counts.entry(who(&proxy, "x", "GET /", "")).or_insert(0) += 1;
    }
    // Each of the two workers goes its own rounds.
    let near = |name: &str, wanted: i32| (wanted - 6..=wanted + 6).contains(counts.get(name).unwrap_or(&0));
    assert!(near("a", 60) && near("b", 20) && near("500", 20) && !counts.contains_key("c"), "{counts:?}");
}

#[test]
fn rules_without_backends_answer_500() {
    let proxy = start(&route("empty", "  rules: [{matches: [{path: {value: /none}}]}]\n"));
    assert_eq!(who(&proxy, "x", "GET /none", ""), "500");
    proxy.expect_metric("ringway_requests_total", &["route=\"HTTPRoute/default/empty\"", "code=\"5xx\""], 1.0);
}

#[test]
fn backends_without_endpoints_answer_503() {
    let yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + &route("r", &format!("  rules: [{{backendRefs: {}}}]\n", to("none")))
        + &backend("none", &[]);
    let proxy = Proxy::start(&yaml);
    assert_eq!(who(&proxy, "x", "GET /", ""), "503");
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"no_endpoint\""], 1.0);
}

#[test]
fn header_filters_change_both_directions() {
    let rules = format!(
        "  rules:\n  - filters:\n    - type: RequestHeaderModifier\n      requestHeaderModifier: {{set: [{{name: X-Set, value: new}}], add: [{{name: X-Add, value: more}}], remove: [X-Remove]}}\n    - type: ResponseHeaderModifier\n      responseHeaderModifier: {{set: [{{name: Content-Type, value: text/x}}], add: [{{name: X-Out, value: '1'}}]}}\n    backendRefs: {}\n",
        to("a")
    );
    let proxy = start(&route("filters", &rules));
    let response = ask(&proxy, "x", "GET /", "x-set: old\r\nx-add: one\r\nx-remove: me\r\n");
    let headers = &response.json()["headers"];
    assert_eq!(headers["x-set"], serde_json::json!(["new"]));
    assert_eq!(headers["x-add"], serde_json::json!(["one,more"]));
    assert!(headers["x-remove"].is_null());
    // The demonstration answers as an origin would.
    assert_eq!((response.header("x-out"), response.header("content-type")), (Some("1"), Some("text/x")));
}

#[test]
fn redirects() {
    let cases = [
        ("{scheme: https}", 302, "https://x.org/a/b?q=1"),
        ("{hostname: y.org, statusCode: 301}", 301, "http://y.org:8080/a/b?q=1"),
        ("{port: 80}", 302, "http://x.org/a/b?q=1"),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 308}", 308, "http://x.org:8080/new?q=1"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 307}", 307, "http://x.org:8080/b?q=1"),
    ];
    for (spec, status, location) in cases {
        let rules = format!(
            "  rules:\n  - matches: [{{path: {{value: /a}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {spec}}}]\n"
        );
        let proxy = start(&route("redirect", &rules));
        let response = ask(&proxy, "x.org", "GET /a/b?q=1", "");
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{spec}");
    }
}

#[test]
fn rewrites() {
    let rules = format!(
        "  rules:\n  - matches: [{{path: {{value: /old}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{hostname: inner.example, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}}}]\n    backendRefs: {}\n",
        to("a")
    );
    let proxy = start(&route("rewrite", &rules));
    let answer = ask(&proxy, "x.org", "GET /old/page?q", "").json();
    assert_eq!((answer["path"].as_str(), answer["host"].as_str()), (Some("/new/page?q"), Some("inner.example")));
}

#[test]
fn services_are_reached_through_their_endpoint_slices() {
    let ready = crate::support::origin::Origin::echo();
    let gone = crate::support::origin::Origin::echo();
    let (ip, port) = ready.address.rsplit_once(':').unwrap();
    let (gone_ip, _) = gone.address.rsplit_once(':').unwrap();
    let yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + &route("svc", "  rules: [{backendRefs: [{name: app, port: 80}]}]\n")
        + &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: app}}\nspec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}\naddressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints:\n- {{addresses: [{ip}], conditions: {{ready: true}}}}\n- {{addresses: [{gone_ip}], conditions: {{ready: false}}}}\n- {{addresses: [{gone_ip}], conditions: {{ready: true, terminating: true}}}}\n"
        );
    let proxy = Proxy::start(&yaml);
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/x").text(), "GET /x");
    }
    assert_eq!(gone.connections(), 0);
}

#[test]
fn timeouts_answer_504() {
    let origin = crate::support::origin::Origin::script(|mut conn, _| {
        conn.request();
        std::thread::sleep(std::time::Duration::from_secs(5));
    });
    for timeouts in ["{request: 200ms}", "{backendRequest: 200ms}"] {
        let proxy =
            Proxy::start(&crate::support::proxy::config(&[&origin.address], &format!("    timeouts: {timeouts}\n")));
        let mut client = proxy.client();
        let start = std::time::Instant::now();
        assert_eq!(client.get("/").status, 504);
        assert!(start.elapsed() < std::time::Duration::from_secs(3));
        proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"timeout\""], 1.0);
    }
}
