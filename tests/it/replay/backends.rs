//! HTTPRoutes and their backends: references, weights, deadlines, retries, protocols.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::http::{path, rule};
use super::*;

/// HTTPRouteNoBackendRefs
#[test]
fn http_route_no_backend_refs() {
    let rules = format!(
        "  - matches: [{}]\n  - matches: [{}]\n    backendRefs: []\n  - matches: [{}]\n    {}\n",
        path("PathPrefix", "/omitted"),
        path("PathPrefix", "/empty"),
        path("PathPrefix", "/there"),
        to("v1")
    );
    let yaml = gateway(WEB) + &route("none", "", &rules);
    let world = world(&yaml);
    world.expect(&[(get("", "/omitted"), "500"), (get("", "/empty"), "500"), (get("", "/there"), "v1")]);
    let status = check(&(yaml + &service("infra", "v1", &world.origins[0])));
    assert_eq!(condition(status.parent("HTTPRoute infra/none", 0), "ResolvedRefs"), "True ResolvedRefs");
}

/// A route to something that is no backend answers 500, and why is in its status.
fn invalid(backend: &str, more: &str, reason: &str) {
    let yaml = gateway(WEB)
        + &route("invalid", "", &format!("  - backendRefs: [{backend}]\n"))
        + &route("valid", "  hostnames: [valid.example]\n", &format!("  - {}\n", to("v1")))
        + more;
    world(&yaml).expect(&[(get("", "/"), "500"), (get("valid.example", "/"), "v1")]);
    let status = check(&yaml);
    let parent = status.parent("HTTPRoute infra/invalid", 0);
    assert_eq!(condition(parent, "ResolvedRefs"), format!("False {reason}"));
    assert_eq!(condition(parent, "Accepted"), "True Accepted");
}

/// HTTPRouteInvalidBackendRefUnknownKind
#[test]
fn http_route_invalid_backend_ref_unknown_kind() {
    invalid("{group: unknownkind.example.com, kind: NonExistent, name: v1, port: 8080}", "", "InvalidKind");
}

/// HTTPRouteInvalidNonExistentBackendRef
#[test]
fn http_route_invalid_non_existent_backend_ref() {
    invalid("{name: nonexistent, port: 8080}", "", "BackendNotFound");
}

/// HTTPRouteInvalidCrossNamespaceBackendRef
#[test]
fn http_route_invalid_cross_namespace_backend_ref() {
    let other = echo("other");
    invalid("{name: web, namespace: elsewhere, port: 8080}", &service("elsewhere", "web", &other), "RefNotPermitted");
}

fn grant(namespace: &str, name: &str, from: &str, to: &str) -> String {
    within(namespace, "ReferenceGrant", name, &format!("  from: [{from}]\n  to: [{to}]"))
}

const FROM_ROUTES: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}";

/// HTTPRouteInvalidReferenceGrant
#[test]
fn http_route_invalid_reference_grant() {
    let other = echo("other");
    let grants = grant(
        "elsewhere",
        "wrong-from-group",
        "{group: not.gateway.example, kind: HTTPRoute, namespace: infra}",
        "{group: '', kind: Service, name: web}",
    ) + &grant(
        "elsewhere",
        "wrong-from-kind",
        "{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}",
        "{group: '', kind: Service, name: web}",
    ) + &grant(
        "elsewhere",
        "wrong-from-namespace",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: third}",
        "{group: '', kind: Service, name: web}",
    ) + &grant("elsewhere", "wrong-to-group", FROM_ROUTES, "{group: not.core, kind: Service, name: web}")
        + &grant("elsewhere", "wrong-to-kind", FROM_ROUTES, "{group: '', kind: Secret, name: web}")
        + &grant("elsewhere", "wrong-to-name", FROM_ROUTES, "{group: '', kind: Service, name: other}")
        + &grant("infra", "wrong-namespace", FROM_ROUTES, "{group: '', kind: Service, name: web}");
    invalid(
        "{name: web, namespace: elsewhere, port: 8080}",
        &(service("elsewhere", "web", &other) + &grants),
        "RefNotPermitted",
    );
}

/// HTTPRoutePartiallyInvalidViaInvalidReferenceGrant
#[test]
fn http_route_partially_invalid_via_invalid_reference_grant() {
    let other = echo("other");
    let rules = format!(
        "  - matches: [{}]\n    backendRefs: [{{name: web, namespace: elsewhere, port: 8080}}]\n{}",
        path("PathPrefix", "/v2"),
        rule(&path("PathPrefix", "/"), "v1")
    );
    let yaml = gateway(WEB)
        + &route("partly", "", &rules)
        + &service("elsewhere", "web", &other)
        + &grant("elsewhere", "wrong", FROM_ROUTES, "{group: '', kind: Service, name: other}");
    world(&yaml).expect(&[(get("", "/v2"), "500"), (get("", "/"), "v1")]);
}

/// HTTPRouteReferenceGrant
#[test]
fn http_route_reference_grant() {
    let other = echo("other");
    let base = gateway(WEB)
        + &route("granted", "", "  - backendRefs: [{name: web, namespace: elsewhere, port: 8080}]\n")
        + &service("elsewhere", "web", &other);
    let world =
        world(&(base.clone() + &grant("elsewhere", "all", FROM_ROUTES, "{group: '', kind: Service, name: web}")));
    world.expect(&[(get("", "/"), "other")]);
    // Without the grant, its permission is over.
    world.proxy.reload(&base);
    world.expect(&[(get("", "/"), "500")]);
}

/// HTTPRouteWeight
#[test]
fn http_route_weight() {
    let rules = "  - backendRefs: [{name: v1, port: 8080, weight: 70}, {name: v2, port: 8080, weight: 30}, {name: v3, port: 8080, weight: 0}]\n";
    let world = world(&(gateway(WEB) + &route("weight", "", rules)));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..500 {
        *counts.entry(world.who(get("", "/"))).or_default() += 1;
    }
    assert!(counts["v1"].abs_diff(350) <= 25 && counts["v2"].abs_diff(150) <= 25, "{counts:?}");
    assert!(!counts.contains_key("v3"), "{counts:?}");
}

/// HTTPRouteServiceTypes
#[test]
fn http_route_service_types() {
    // Headless, and with endpoints that were written by hand: both are EndpointSlices.
    let (headless, manual) = (echo("headless"), echo("manual"));
    let with = |service: String| service.replace("spec: {ports", "spec: {clusterIP: None, ports");
    let yaml = gateway(WEB)
        + &route(
            "types",
            "",
            &(rule(&path("PathPrefix", "/headless"), "headless") + &rule(&path("PathPrefix", "/manual"), "manual")),
        )
        + &with(service("infra", "headless", &headless))
        + &service("infra", "manual", &manual);
    world(&yaml).expect(&[(get("", "/headless"), "headless"), (get("", "/manual"), "manual")]);
}

/// An origin that waits for as long as a request's query says, in milliseconds.
fn slow() -> Origin {
    Origin::script(|mut conn, _| {
        while let Some(request) = conn.request() {
            let wait = request.target.split_once("delay=").map_or(0, |(_, wait)| wait.parse().unwrap());
            std::thread::sleep(Duration::from_millis(wait));
            if !conn.reply("200 OK", "{\"backend\":\"slow\"}") {
                return;
            }
        }
    })
}

fn timeouts(field: &str) {
    let origin = slow();
    let rules = format!(
        "  - matches: [{{path: {{value: /limited}}}}]\n    timeouts: {{{field}: 500ms}}\n    backendRefs: [{{name: slow, port: 8080}}]\n  - matches: [{{path: {{value: /disabled}}}}]\n    timeouts: {{{field}: 0s}}\n    backendRefs: [{{name: slow, port: 8080}}]\n"
    );
    let world = world(&(gateway(WEB) + &route("timeouts", "", &rules) + &service("infra", "slow", &origin)));
    world.expect(&[
        (get("", "/limited"), "slow"),
        (get("", "/limited?delay=2000"), "504"),
        (get("", "/disabled?delay=1200"), "slow"),
    ]);
}

/// HTTPRouteTimeoutRequest
#[test]
fn http_route_timeout_request() {
    timeouts("request");
}

/// HTTPRouteTimeoutBackendRequest
#[test]
fn http_route_timeout_backend_request() {
    timeouts("backendRequest");
}

/// HTTPRouteRetry
#[test]
fn http_route_retry() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::replying(move |request| {
        let wanted = if request.target == "/never" { usize::MAX } else { 2 };
        let so_far = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 3;
        let status = if so_far < wanted { "500 Oh" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 18\r\n\r\n{{\"backend\":\"flaky\"}}")
            .replace("18", "19")
            .into_bytes()
    });
    let rules = "  - retry: {codes: [500, 502, 503, 504], attempts: 2, backoff: 10ms}\n    backendRefs: [{name: flaky, port: 8080}]\n";
    let world = world(&(gateway(WEB) + &route("retry", "", rules) + &service("infra", "flaky", &origin)));
    world.expect(&[(get("", "/"), "flaky"), (get("", "/never"), "500")]);
    assert_eq!(origin.requests().len(), 6);
}

/// HTTPRouteRetryConnectionError
#[test]
fn http_route_retry_connection_error() {
    let origin = Origin::script(|mut conn, seen| {
        if let Some(request) = conn.request() {
            seen.lock().unwrap().push(request);
            conn.abort();
        }
    });
    let rules = "  - retry: {attempts: 2, backoff: 10ms}\n    backendRefs: [{name: resets, port: 8080}]\n";
    let world = world(&(gateway(WEB) + &route("retry", "", rules) + &service("infra", "resets", &origin)));
    assert!(matches!(&*world.who(get("", "/")), "500" | "502" | "503"));
    assert_eq!(origin.requests().len(), 3);
}

/// HTTPRouteRetryWithTimeouts
#[test]
fn http_route_retry_with_timeouts() {
    let origin = slow();
    let rules = "  - retry: {codes: [504], attempts: 2, backoff: 10ms}\n    timeouts: {request: 3s, backendRequest: 300ms}\n    backendRefs: [{name: slow, port: 8080}]\n";
    let world = world(&(gateway(WEB) + &route("retry", "", rules) + &service("infra", "slow", &origin)));
    let begun = Instant::now();
    world.expect(&[(get("", "/?delay=1500"), "504")]);
    // Three attempts of 300 ms each.
    assert!(begun.elapsed() >= Duration::from_millis(850), "{:?}", begun.elapsed());
}

/// HTTPRouteBackendProtocolWebSocket
#[test]
fn http_route_backend_protocol_web_socket() {
    let origin = Origin::script(|mut conn, _| {
        let request = conn.head().unwrap();
        assert_eq!(request.header("upgrade"), Some("websocket"));
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        while conn.fill() {
            let bytes = conn.take();
            conn.send(bytes);
        }
    });
    let service = service("infra", "ws", &origin).replace("targetPort", "appProtocol: kubernetes.io/ws, targetPort");
    let world = world(&(gateway(WEB) + &route("ws", "", "  - backendRefs: [{name: ws, port: 8080}]\n") + &service));
    let mut client = world.proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().status, 101);
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
}
