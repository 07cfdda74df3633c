//! HTTPRoute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::support::eventually;

fn rule(matches: &str, backend: &str) -> String {
    format!("  - matches: [{matches}]\n    {}\n", to(backend))
}

fn path(kind: &str, value: &str) -> String {
    format!("{{path: {{type: {kind}, value: {value}}}}}")
}

/// HTTPRouteSimpleSameNamespace
#[test]
fn http_route_simple_same_namespace() {
    let world = world(&(gateway(WEB) + &route("simple", "", &format!("  - {}\n", to("v1")))));
    world.expect(&[(get("", "/"), "v1")]);
}

/// HTTPRouteCrossNamespace
#[test]
fn http_route_cross_namespace() {
    let listener = "  - {name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {backends: \"yes\"}}}}}\n";
    let other = echo("other");
    let yaml = gateway(listener)
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: backends, labels: {backends: \"yes\"}}\n"
        + &within(
            "backends",
            "HTTPRoute",
            "cross",
            "  parentRefs: [{name: same-namespace, namespace: infra}]\n  rules: [{backendRefs: [{name: web, port: 8080}]}]",
        )
        + &service("backends", "web", &other);
    world(&yaml).expect(&[(get("", "/"), "other")]);
}

/// HTTPRouteExactPathMatching
#[test]
fn http_route_exact_path_matching() {
    let rules = rule(&path("Exact", "/one"), "v1") + &rule(&path("Exact", "/two"), "v2");
    world(&(gateway(WEB) + &route("exact", "", &rules))).expect(&[
        (get("", "/one"), "v1"),
        (get("", "/two"), "v2"),
        (get("", "/"), "404"),
        (get("", "/one/example"), "404"),
        (get("", "/two/"), "404"),
        (get("", "/Two"), "404"),
    ]);
}

/// HTTPRouteMatching
#[test]
fn http_route_matching() {
    let rules = rule(&format!("{}, {{headers: [{{name: version, value: one}}]}}", path("PathPrefix", "/")), "v1")
        + &rule(&format!("{}, {{headers: [{{name: version, value: two}}]}}", path("PathPrefix", "/v2")), "v2");
    let two = [("version", "two")];
    world(&(gateway(WEB) + &route("matching", "", &rules))).expect(&[
        (get("", "/"), "v1"),
        (get("", "/example"), "v1"),
        (Ask { fields: &[("version", "one")], ..get("", "/") }, "v1"),
        (get("", "/v2"), "v2"),
        (get("", "/v2/example"), "v2"),
        (get("", "/v2/"), "v2"),
        (get("", "/v2example"), "v1"),
        (Ask { fields: &two, ..get("", "/") }, "v2"),
        (Ask { fields: &two, ..get("", "/v2/") }, "v2"),
    ]);
}

/// HTTPRouteMatchingAcrossRoutes
#[test]
fn http_route_matching_across_routes() {
    let one = rule(&format!("{}, {{headers: [{{name: version, value: one}}]}}", path("PathPrefix", "/")), "v1");
    let two = rule(&format!("{}, {{headers: [{{name: version, value: two}}]}}", path("PathPrefix", "/v2")), "v2");
    let yaml = gateway(WEB)
        + &route("part-one", "  hostnames: [example.com, example.net]\n", &one)
        + &route("part-two", "  hostnames: [example.com]\n", &two);
    world(&yaml).expect(&[
        (get("example.com", "/"), "v1"),
        (get("example.com", "/example"), "v1"),
        (get("example.net", "/example"), "v1"),
        (Ask { fields: &[("version", "one")], ..get("example.com", "/example") }, "v1"),
        (get("example.com", "/v2"), "v2"),
        (get("example.net", "/v2"), "v1"),
        (get("example.com", "/v2/example"), "v2"),
        (Ask { fields: &[("version", "two")], ..get("example.com", "/") }, "v2"),
        (get("example.org", "/"), "404"),
    ]);
}

/// HTTPRoutePathMatchOrder
#[test]
fn http_route_path_match_order() {
    let rules = rule(&path("PathPrefix", "/match"), "v1")
        + &rule(&path("PathPrefix", "/match/prefix/one"), "v2")
        + &rule(&path("Exact", "/match/exact/one"), "v3")
        + &rule(&path("PathPrefix", "/match/exact"), "v2")
        + &rule(&path("Exact", "/match/exact"), "v1");
    world(&(gateway(WEB) + &route("order", "", &rules))).expect(&[
        (get("", "/match/exact/one"), "v3"),
        (get("", "/match/exact"), "v1"),
        (get("", "/match"), "v1"),
        (get("", "/match/prefix/one/any"), "v2"),
        (get("", "/match/prefix/any"), "v1"),
        (get("", "/match/exact/two"), "v2"),
        (get("", "/any"), "404"),
    ]);
}

/// HTTPRouteHeaderMatching
#[test]
fn http_route_header_matching() {
    let header = |list: &[(&str, &str)]| {
        let all: Vec<String> = list.iter().map(|(name, value)| format!("{{name: {name}, value: {value}}}")).collect();
        format!("{{headers: [{}]}}", all.join(", "))
    };
    let rules = rule(&header(&[("version", "one")]), "v1")
        + &rule(&header(&[("version", "two")]), "v2")
        + &rule(&header(&[("version", "two"), ("color", "orange")]), "v1")
        + &rule(&format!("{}, {}", header(&[("color", "blue")]), header(&[("color", "green")])), "v1")
        + &rule(&format!("{}, {}", header(&[("color", "red")]), header(&[("color", "yellow")])), "v2");
    let world = world(&(gateway(WEB) + &route("headers", "", &rules)));
    for (fields, expected) in [
        (&[("version", "one")][..], "v1"),
        (&[("Version", "two")], "v2"),
        (&[("version", "two"), ("color", "orange")], "v1"),
        (&[("color", "orange")], "404"),
        (&[("some-other", "one")], "404"),
        (&[("version", "One")], "404"),
        (&[("color", "blue")], "v1"),
        (&[("color", "green")], "v1"),
        (&[("color", "red")], "v2"),
        (&[("color", "yellow")], "v2"),
        (&[("color", "purple")], "404"),
    ] {
        world.expect(&[(Ask { fields, ..get("", "/") }, expected)]);
    }
}

/// HTTPRouteMethodMatching
#[test]
fn http_route_method_matching() {
    let rules = rule("{method: POST}", "v1")
        + &rule("{method: GET}", "v2")
        + &rule("{path: {value: /path1}, method: GET}", "v1")
        + &rule("{headers: [{name: version, value: one}], method: PUT}", "v2")
        + &rule("{path: {value: /path2}, headers: [{name: version, value: two}], method: POST}", "v3")
        + &rule("{path: {value: /path3}, method: PATCH}, {path: {value: /path4}, method: DELETE}", "v1")
        + &rule("{path: {value: /path5}}", "v1")
        + &rule("{method: PATCH}", "v2");
    let ask = |method: &'static str, path: &'static str| Ask { method, ..get("", path) };
    world(&(gateway(WEB) + &route("methods", "", &rules))).expect(&[
        (ask("POST", "/"), "v1"),
        (ask("GET", "/"), "v2"),
        (ask("HEAD", "/"), "404"),
        (ask("GET", "/path1"), "v1"),
        (Ask { fields: &[("version", "one")], ..ask("PUT", "/") }, "v2"),
        (Ask { fields: &[("version", "two")], ..ask("POST", "/path2") }, "v3"),
        (ask("PATCH", "/path3"), "v1"),
        (ask("DELETE", "/path4"), "v1"),
        (ask("PATCH", "/path5"), "v1"),
        (ask("PATCH", "/"), "v2"),
        (ask("POST", "/path2"), "v1"),
    ]);
}

/// HTTPRouteQueryParamMatching
#[test]
fn http_route_query_param_matching() {
    let query = |list: &str| format!("{{queryParams: [{list}]}}");
    let whale = "{name: animal, value: whale}";
    let dolphin = "{name: animal, value: dolphin}";
    let blue = "{name: color, value: blue}";
    let rules = rule(&query(whale), "v1")
        + &rule(&query(dolphin), "v2")
        + &rule(&query(&format!("{dolphin}, {blue}")), "v3")
        + &rule(&query("{name: ANIMAL, value: Whale}"), "v3")
        + &rule(&format!("{{path: {{value: /path1}}, queryParams: [{whale}]}}"), "v1")
        + &rule(&format!("{{headers: [{{name: version, value: one}}], queryParams: [{whale}]}}"), "v2")
        + &rule("{queryParams: [{name: empty, value: ' '}]}", "v2");
    world(&(gateway(WEB) + &route("queries", "", &rules))).expect(&[
        (get("", "/?animal=whale"), "v1"),
        (get("", "/?animal=dolphin"), "v2"),
        (get("", "/?animal=dolphin&color=blue"), "v3"),
        (get("", "/?color=blue&animal=dolphin"), "v3"),
        (get("", "/?animal=dolphin&color=yellow"), "v2"),
        (get("", "/?ANIMAL=Whale"), "v3"),
        (get("", "/?animal=whale&otherparam=irrelevant"), "v1"),
        (get("", "/?animal=whale&animal=dolphin"), "v1"),
        (get("", "/?color=blue"), "404"),
        (get("", "/?animal=dog"), "404"),
        (get("", "/?animal=whaledolphin"), "404"),
        (get("", "/"), "404"),
        (get("", "/path1?animal=whale"), "v1"),
        (Ask { fields: &[("version", "one")], ..get("", "/?animal=whale") }, "v2"),
        (get("", "/?animal=w%68ale"), "v1"),
        (get("", "/?empty=+"), "v2"),
    ]);
}

/// HTTPRouteHostnameIntersection
#[test]
fn http_route_hostname_intersection() {
    let listeners = "  - {name: specific, port: 8080, protocol: HTTP, hostname: very.specific.com}\n  - {name: wild, port: 8080, protocol: HTTP, hostname: '*.wildcard.io'}\n  - {name: other, port: 8080, protocol: HTTP, hostname: '*.anotherwildcard.io'}\n";
    let yaml = gateway(listeners)
        + &route(
            "specific-specific",
            "  hostnames: [non.matching.com, '*.nonmatchingwildcard.io', very.specific.com]\n",
            &rule(&path("PathPrefix", "/s1"), "v1"),
        )
        + &route(
            "specific-wildcard",
            "  hostnames: [non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io]\n",
            &rule(&path("PathPrefix", "/s2"), "v2"),
        )
        + &route("wildcard-specific", "  hostnames: ['*.specific.com']\n", &rule(&path("PathPrefix", "/s3"), "v3"))
        + &route(
            "wildcard-wildcard",
            "  hostnames: ['*.anotherwildcard.io']\n",
            &rule(&path("PathPrefix", "/s4"), "v1"),
        )
        + &route(
            "none",
            "  hostnames: [specific.but.wrong.com, wildcard.io]\n",
            &rule(&path("PathPrefix", "/s5"), "v1"),
        );
    world(&yaml).expect(&[
        (get("very.specific.com", "/s1"), "v1"),
        (get("non.matching.com", "/s1"), "404"),
        (get("foo.nonmatchingwildcard.io", "/s1"), "404"),
        (get("foo.wildcard.io", "/s1"), "404"),
        (get("very.specific.com", "/non-matching-prefix"), "404"),
        (get("foo.wildcard.io", "/s2"), "v2"),
        (get("bar.wildcard.io", "/s2"), "v2"),
        (get("foo.bar.wildcard.io", "/s2"), "v2"),
        (get("wildcard.io", "/s2"), "404"),
        (get("baz.wildcard.io", "/s2"), "404"),
        (get("non.matching.com", "/s2"), "404"),
        (get("very.specific.com:1234", "/s3"), "v3"),
        (get("non.specific.com", "/s3"), "404"),
        (get("foo.specific.com", "/s3"), "404"),
        (get("one.anotherwildcard.io", "/s4"), "v1"),
        (get("one.two.three.anotherwildcard.io", "/s4"), "v1"),
        (get("anotherwildcard.io", "/s4"), "404"),
        (get("foo.wildcard.io", "/s4"), "404"),
        (get("specific.but.wrong.com", "/s5"), "404"),
        (get("wildcard.io", "/s5"), "404"),
    ]);
    let status = check(&yaml);
    assert_eq!(condition(status.parent("HTTPRoute infra/none", 0), "Accepted"), "False NoMatchingListenerHostname");
    assert_eq!(condition(status.parent("HTTPRoute infra/specific-specific", 0), "Accepted"), "True Accepted");
}

/// HTTPRouteListenerHostnameMatching
#[test]
fn http_route_listener_hostname_matching() {
    let listeners = "  - {name: one, port: 8080, protocol: HTTP, hostname: bar.com}\n  - {name: two, port: 8080, protocol: HTTP, hostname: foo.bar.com}\n  - {name: three, port: 8080, protocol: HTTP, hostname: '*.bar.com'}\n  - {name: four, port: 8080, protocol: HTTP, hostname: '*.foo.com'}\n";
    let at = |name: &str, parents: &str, backend: &str| {
        object("HTTPRoute", name, &format!("  parentRefs: [{parents}]\n  rules: [{{{}}}]", to(backend)))
    };
    let section = |name: &str| format!("{{name: same-namespace, sectionName: {name}}}");
    let yaml = gateway(listeners)
        + &at("a", &section("one"), "v1")
        + &at("b", &section("two"), "v2")
        + &at("c", &format!("{}, {}", section("three"), section("four")), "v3");
    world(&yaml).expect(&[
        (get("bar.com", "/"), "v1"),
        (get("foo.bar.com", "/"), "v2"),
        (get("baz.bar.com", "/"), "v3"),
        (get("boo.bar.com", "/"), "v3"),
        (get("multiple.prefixes.bar.com", "/"), "v3"),
        (get("multiple.prefixes.foo.com", "/"), "v3"),
        (get("foo.com", "/"), "404"),
        (get("no.matching.host", "/"), "404"),
    ]);
}

/// HTTPRouteListenerPortMatching
#[test]
fn http_route_listener_port_matching() {
    let listeners = "  - {name: one, port: 8080, protocol: HTTP, hostname: foo.com}\n  - {name: two, port: 8090, protocol: HTTP, hostname: foo.com}\n  - {name: three, port: 8090, protocol: HTTP, hostname: bar.com}\n";
    let at = |name: &str, parent: &str, backend: &str| {
        object(
            "HTTPRoute",
            name,
            &format!("  parentRefs: [{{name: same-namespace, {parent}}}]\n  rules: [{{{}}}]", to(backend)),
        )
    };
    let yaml = gateway(listeners)
        + &at("a", "port: 8080", "v1")
        + &at("b", "port: 8090, sectionName: two", "v2")
        + &at("c", "port: 8090, sectionName: three", "v3");
    let at = |port, host| Ask { port, ..get(host, "/") };
    world(&yaml).expect(&[
        (at(8080, "foo.com"), "v1"),
        (at(8090, "foo.com"), "v2"),
        (at(8090, "bar.com"), "v3"),
        (at(8080, "bar.com"), "404"),
        (at(8090, "baz.com"), "404"),
    ]);
}

/// HTTPRouteMultipleGateways
#[test]
fn http_route_multiple_gateways() {
    let other = within(
        "infra",
        "Gateway",
        "other",
        "  gatewayClassName: ringway\n  addresses: [{value: \"{ip}\"}]\n  listeners: [{name: http, port: 8090, protocol: HTTP}]",
    );
    let both = object(
        "HTTPRoute",
        "both",
        &format!("  parentRefs: [{{name: same-namespace}}, {{name: other}}]\n  rules: [{{{}}}]", to("v1")),
    );
    let one = object(
        "HTTPRoute",
        "one",
        &format!(
            "  parentRefs: [{{name: other}}]\n  rules: [{{matches: [{}], {}}}]",
            path("PathPrefix", "/one"),
            to("v2")
        ),
    );
    world(&(gateway(WEB) + &other + &both + &one)).expect(&[
        (get("", "/"), "v1"),
        (get("", "/one"), "v1"),
        (Ask { port: 8090, ..get("", "/") }, "v1"),
        (Ask { port: 8090, ..get("", "/one") }, "v2"),
    ]);
}

/// HTTPRouteNamedRule
#[test]
fn http_route_named_rule() {
    let rules = format!(
        "  - name: named\n    matches: [{}]\n    {}\n  - {}\n",
        path("PathPrefix", "/named"),
        to("v1"),
        to("v2")
    );
    world(&(gateway(WEB) + &route("named", "", &rules)))
        .expect(&[(get("", "/named"), "v1"), (get("", "/unnamed"), "v2")]);
}

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

/// HTTPRouteRequestHeaderModifier
#[test]
fn http_route_request_header_modifier() {
    let rules = format!(
        "  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Header-Set, value: set-overwrites}}]}}}}]\n    {to}\n  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: X-Header-Add, value: add-appends}}]}}}}]\n    {to}\n  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [X-Header-Remove]}}}}]\n    {to}\n",
        path("PathPrefix", "/set"),
        path("PathPrefix", "/add"),
        path("PathPrefix", "/remove"),
        to = to("v1")
    );
    header_modifier(&rules);
}

/// HTTPRouteBackendRequestHeaderModifier
#[test]
fn http_route_backend_request_header_modifier() {
    let at = |path: &str, change: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: v1, port: 8080, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{change}}}}}]}}]\n"
        )
    };
    header_modifier(
        &(at("/set", "set: [{name: X-Header-Set, value: set-overwrites}]")
            + &at("/add", "add: [{name: X-Header-Add, value: add-appends}]")
            + &at("/remove", "remove: [X-Header-Remove]")),
    );
}

fn header_modifier(rules: &str) {
    let world = world(&(gateway(WEB) + &route("modifier", "", rules)));
    let header = |path: &'static str, fields: &'static [(&'static str, &'static str)], name: &str| {
        let seen = world.seen(Ask { fields, ..get("", path) });
        seen["headers"][name][0].as_str().map(str::to_owned)
    };
    assert_eq!(header("/set", &[("Some-Other", "x")], "x-header-set").as_deref(), Some("set-overwrites"));
    assert_eq!(header("/set", &[("X-Header-Set", "some")], "x-header-set").as_deref(), Some("set-overwrites"));
    assert_eq!(header("/set", &[("Some-Other", "x")], "some-other").as_deref(), Some("x"));
    assert_eq!(header("/add", &[], "x-header-add").as_deref(), Some("add-appends"));
    assert_eq!(header("/add", &[("X-Header-Add", "some")], "x-header-add").as_deref(), Some("some,add-appends"));
    assert_eq!(header("/remove", &[("X-Header-Remove", "val")], "x-header-remove"), None);
}

/// HTTPRouteRequestHeaderModifierBackendWeights
#[test]
fn http_route_request_header_modifier_backend_weights() {
    let share = |name: &str, weight: u32| {
        format!(
            "{{name: {name}, port: 8080, weight: {weight}, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: Backend, value: {name}}}]}}}}]}}"
        )
    };
    let rules = format!("  - backendRefs: [{}, {}]\n", share("v1", 1), share("v2", 1));
    let world = world(&(gateway(WEB) + &route("weights", "", &rules)));
    for _ in 0..40 {
        let seen = world.seen(get("", "/"));
        assert_eq!(seen["headers"]["backend"][0], seen["backend"]);
    }
    assert!(world.origins[..2].iter().all(|origin| !origin.requests().is_empty()));
}

/// HTTPRouteResponseHeaderModifier
#[test]
fn http_route_response_header_modifier() {
    let rules = format!(
        "  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: Content-Type, value: text/set}}], add: [{{name: X-Header-Add, value: add-appends}}], remove: [Content-Language]}}}}]\n    {}\n",
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("response", "", &rules)));
    let response = world.ask(get("", "/"));
    assert_eq!(
        (response.header("content-type"), response.header("x-header-add")),
        (Some("text/set"), Some("add-appends"))
    );
}

/// Location of the answer to a request for each path.
fn redirects(listeners: &str, filters: &[(&str, &str)], cases: &[(u16, &str, u16, &str)]) {
    let rules: String = filters
        .iter()
        .map(|(path, redirect)| {
            format!("  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]\n")
        })
        .collect();
    let world = world(&(gateway(listeners) + &route("redirects", "", &rules)));
    for (port, path, status, location) in cases {
        let response = world.ask(Ask { port: *port, ..get("example.org", path) });
        assert_eq!((response.status, response.header("location")), (*status, Some(*location)), "{port} {path}");
    }
}

/// HTTPRouteRedirectHostAndStatus
#[test]
fn http_route_redirect_host_and_status() {
    redirects(
        WEB,
        &[("/host", "{hostname: example.net}"), ("/both", "{hostname: example.net, statusCode: 301}")],
        &[(8080, "/host", 302, "http://example.net:8080/host"), (8080, "/both", 301, "http://example.net:8080/both")],
    );
}

/// HTTPRoute303Redirect, HTTPRoute307Redirect, HTTPRoute308Redirect
#[test]
fn http_route_303_307_308_redirects() {
    redirects(
        WEB,
        &[("/303", "{statusCode: 303}"), ("/307", "{statusCode: 307}"), ("/308", "{statusCode: 308}")],
        &[
            (8080, "/303", 303, "http://example.org:8080/303"),
            (8080, "/307", 307, "http://example.org:8080/307"),
            (8080, "/308", 308, "http://example.org:8080/308"),
        ],
    );
}

/// HTTPRouteRedirectPath
#[test]
fn http_route_redirect_path() {
    let prefix = |value: &str| format!("{{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {value}}}}}");
    let full = "{path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}}";
    let (replaced, host) = (
        prefix("/replacement-prefix"),
        "{hostname: example.net, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}",
    );
    redirects(
        WEB,
        &[("/original-prefix", &replaced), ("/full", full), ("/host-prefix", host), ("/root", &prefix("/"))],
        &[
            (8080, "/original-prefix/lemon", 302, "http://example.org:8080/replacement-prefix/lemon"),
            (8080, "/original-prefix/", 302, "http://example.org:8080/replacement-prefix/"),
            (8080, "/full/path/original", 302, "http://example.org:8080/full-path-replacement"),
            (8080, "/host-prefix/a?q=1", 302, "http://example.net:8080/new/a?q=1"),
            (8080, "/root/x", 302, "http://example.org:8080/x"),
            (8080, "/root", 302, "http://example.org:8080/"),
        ],
    );
}

/// HTTPRouteRedirectPort
#[test]
fn http_route_redirect_port() {
    redirects(
        WEB,
        &[
            ("/port", "{port: 8083}"),
            ("/code", "{port: 8083, statusCode: 301}"),
            ("/host", "{port: 8083, hostname: example.net}"),
            ("/eighty", "{port: 80}"),
        ],
        &[
            (8080, "/port", 302, "http://example.org:8083/port"),
            (8080, "/code", 301, "http://example.org:8083/code"),
            (8080, "/host", 302, "http://example.net:8083/host"),
            (8080, "/eighty", 302, "http://example.org/eighty"),
        ],
    );
}

/// HTTPRouteRedirectScheme
#[test]
fn http_route_redirect_scheme() {
    redirects(
        WEB,
        &[
            ("/scheme", "{scheme: https}"),
            ("/code", "{scheme: https, statusCode: 301}"),
            ("/host", "{scheme: https, hostname: example.net}"),
        ],
        &[
            (8080, "/scheme", 302, "https://example.org/scheme"),
            (8080, "/code", 301, "https://example.org/code"),
            (8080, "/host", 302, "https://example.net/host"),
        ],
    );
}

/// HTTPRouteRedirectPortAndScheme
#[test]
fn http_route_redirect_port_and_scheme() {
    let listeners = "  - {name: http, port: 8080, protocol: HTTP}\n  - {name: other, port: 8090, protocol: HTTP}\n";
    redirects(
        listeners,
        &[
            ("/nil-nil", "{hostname: example.net}"),
            ("/nil-80", "{hostname: example.net, port: 80}"),
            ("/nil-8080", "{hostname: example.net, port: 8080}"),
            ("/https-nil", "{hostname: example.net, scheme: https}"),
            ("/https-443", "{hostname: example.net, scheme: https, port: 443}"),
            ("/https-8443", "{hostname: example.net, scheme: https, port: 8443}"),
            ("/http-nil", "{hostname: example.net, scheme: http}"),
            ("/http-80", "{hostname: example.net, scheme: http, port: 80}"),
            ("/http-8080", "{hostname: example.net, scheme: http, port: 8080}"),
        ],
        &[
            (8080, "/nil-nil", 302, "http://example.net:8080/nil-nil"),
            (8090, "/nil-nil", 302, "http://example.net:8090/nil-nil"),
            (8090, "/nil-80", 302, "http://example.net/nil-80"),
            (8090, "/nil-8080", 302, "http://example.net:8080/nil-8080"),
            (8090, "/https-nil", 302, "https://example.net/https-nil"),
            (8090, "/https-443", 302, "https://example.net/https-443"),
            (8090, "/https-8443", 302, "https://example.net:8443/https-8443"),
            (8090, "/http-nil", 302, "http://example.net/http-nil"),
            (8090, "/http-80", 302, "http://example.net/http-80"),
            (8090, "/http-8080", 302, "http://example.net:8080/http-8080"),
        ],
    );
}

/// HTTPRouteBackendRequestRedirect
#[test]
fn http_route_backend_request_redirect() {
    let rules = "  - backendRefs: [{name: v1, port: 8080, filters: [{type: RequestRedirect, requestRedirect: {hostname: example.net, statusCode: 301}}]}]\n";
    let world = world(&(gateway(WEB) + &route("redirect", "", rules)));
    let response = world.ask(get("", "/x"));
    assert_eq!((response.status, response.header("location")), (301, Some("http://example.net:8080/x")));
    assert!(world.origins[0].requests().is_empty());
}

fn rewrites(filters: &[(&str, &str)], cases: &[(&str, &str, &str)], at_backend: bool) {
    let rules: String = filters
        .iter()
        .map(|(path, rewrite)| {
            let filter = format!("filters: [{{type: URLRewrite, urlRewrite: {rewrite}}}]");
            match at_backend {
                true => format!("  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: v1, port: 8080, {filter}}}]\n"),
                false => format!("  - matches: [{{path: {{value: {path}}}}}]\n    {filter}\n    {}\n", to("v1")),
            }
        })
        .collect();
    let world = world(&(gateway(WEB) + &route("rewrites", "", &rules)));
    for (path, host, target) in cases {
        let seen = world.seen(get("example.org", path));
        assert_eq!((seen["host"].as_str(), seen["path"].as_str()), (Some(*host), Some(*target)), "{path}");
    }
}

/// HTTPRouteRewriteHost
#[test]
fn http_route_rewrite_host() {
    rewrites(
        &[("/one", "{hostname: one.example.org}"), ("/", "{hostname: example.net}")],
        &[("/one", "one.example.org", "/one"), ("/two", "example.net", "/two")],
        false,
    );
}

const PATHS: [(&str, &str); 4] = [
    ("/prefix/one", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}"),
    ("/strip", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}"),
    ("/full/one", "{path: {type: ReplaceFullPath, replaceFullPath: /one}}"),
    ("/both", "{hostname: example.net, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}}"),
];

/// HTTPRouteRewritePath
#[test]
fn http_route_rewrite_path() {
    rewrites(
        &PATHS,
        &[
            ("/prefix/one/two", "example.org", "/one/two"),
            ("/strip/three", "example.org", "/three"),
            ("/strip", "example.org", "/"),
            ("/full/one/two", "example.org", "/one"),
            ("/both/x?q=1", "example.net", "/new/x?q=1"),
        ],
        false,
    );
}

/// HTTPRouteBackendURLRewrite
#[test]
fn http_route_backend_url_rewrite() {
    rewrites(&PATHS, &[("/prefix/one/two", "example.org", "/one/two"), ("/both/x", "example.net", "/new/x")], true);
}

fn mirror(name: &str, more: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 8080}}{more}}}}}")
}

/// HTTPRouteRequestMirror
#[test]
fn http_route_request_mirror() {
    let rules = format!(
        "  - filters: [{}, {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Header-Set, value: set}}]}}}}]\n    {}\n",
        mirror("v2", ""),
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("mirror", "", &rules)));
    let seen = world.seen(get("", "/mirror?id=7"));
    assert_eq!((seen["backend"].as_str(), seen["headers"]["x-header-set"][0].as_str()), (Some("v1"), Some("set")));
    eventually("the copy arrives", || world.origins[1].requests().iter().any(|each| each.target == "/mirror?id=7"));
}

/// HTTPRouteRequestMultipleMirrors
#[test]
fn http_route_request_multiple_mirrors() {
    let rules = format!("  - filters: [{}, {}]\n    {}\n", mirror("v2", ""), mirror("v3", ""), to("v1"));
    let world = world(&(gateway(WEB) + &route("mirrors", "", &rules)));
    world.expect(&[(get("", "/x?id=8"), "v1")]);
    eventually("both arrive", || {
        world.origins[1..].iter().all(|each| each.requests().iter().any(|one| one.target == "/x?id=8"))
    });
}

/// HTTPRouteRequestPercentageMirror
#[test]
fn http_route_request_percentage_mirror() {
    let rules = format!(
        "  - filters: [{}, {}]\n    {}\n",
        mirror("v2", ", percent: 20"),
        mirror("v3", ", fraction: {numerator: 1, denominator: 2}"),
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("mirrors", "", &rules)));
    let mut client = world.proxy.client();
    for _ in 0..500 {
        client.get("/");
    }
    // Six standard deviations: 54 and 67.
    let near = |origin: &Origin, wanted: usize, off: usize| origin.requests().len().abs_diff(wanted) <= off;
    eventually("the shares arrive", || near(&world.origins[1], 100, 54) && near(&world.origins[2], 250, 67));
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

/// HTTPRouteCORS
#[test]
fn http_route_cors() {
    let cors = "{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600}}";
    let methods = "{type: CORS, cors: {allowOrigins: ['https://www.foo.com'], allowMethods: ['*']}}";
    let origins = "{type: CORS, cors: {allowOrigins: ['*'], allowMethods: [PUT]}}";
    let rules: String = [("/cors-1", cors), ("/cors-2", methods), ("/cors-3", origins)]
        .iter()
        .map(|(path, filter)| {
            format!("  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{filter}]\n    {}\n", to("v1"))
        })
        .collect();
    let world = world(&(gateway(WEB) + &route("cors", "", &rules)));
    let preflight = |path: &'static str, origin: &str, method: &str| {
        let fields = [
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "x-header-1, x-header-2"),
        ];
        world.ask(Ask { method: "OPTIONS", fields: &fields, ..get("", path) })
    };
    for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
        let answer = preflight("/cors-1", origin, "GET");
        assert!(matches!(answer.status, 200 | 204));
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{origin} {name}");
        }
        let simple = world.ask(Ask { fields: &[("Origin", origin)], ..get("", "/cors-1") });
        assert_eq!((simple.status, simple.header("access-control-allow-origin")), (200, Some(origin)));
    }
    assert_eq!(preflight("/cors-1", "https://foobar.com", "GET").header("access-control-allow-origin"), None);
    let foreign = world.ask(Ask { fields: &[("Origin", "https://foobar.com")], ..get("", "/cors-1") });
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let any = preflight("/cors-2", "https://www.foo.com", "POST");
    assert!(matches!(any.header("access-control-allow-methods"), Some("*" | "POST")));
    assert_eq!(any.header("access-control-allow-credentials"), None);
    for origin in ["https://foobar.com", "https://foobar.com:12345"] {
        let answer = preflight("/cors-3", origin, "PUT");
        assert!(matches!(answer.header("access-control-allow-origin"), Some(found) if found == origin || found == "*"));
        assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    }
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

// What follows asserts conditions only.

fn parent_problem(parent: &str, reason: &str) {
    let yaml = gateway(WEB) + &object("HTTPRoute", "r", &format!("  parentRefs: [{parent}]\n  rules: [{{}}]"));
    assert_eq!(condition(check(&yaml).parent("HTTPRoute infra/r", 0), "Accepted"), format!("False {reason}"));
}

/// HTTPRouteInvalidParentRefNotMatchingSectionName
#[test]
fn http_route_invalid_parent_ref_not_matching_section_name() {
    parent_problem("{name: same-namespace, sectionName: not-matching}", "NoMatchingParent");
}

/// HTTPRouteInvalidParentRefNotMatchingListenerPort
#[test]
fn http_route_invalid_parent_ref_not_matching_listener_port() {
    parent_problem("{name: same-namespace, port: 81}", "NoMatchingParent");
}

/// HTTPRouteInvalidParentRefSectionNameNotMatchingPort
#[test]
fn http_route_invalid_parent_ref_section_name_not_matching_port() {
    parent_problem("{name: same-namespace, sectionName: http, port: 81}", "NoMatchingParent");
}

/// HTTPRouteInvalidCrossNamespaceParentRef
#[test]
fn http_route_invalid_cross_namespace_parent_ref() {
    let yaml = gateway(WEB)
        + &within(
            "elsewhere",
            "HTTPRoute",
            "r",
            "  parentRefs: [{name: same-namespace, namespace: infra}]\n  rules: [{}]",
        );
    assert_eq!(condition(check(&yaml).parent("HTTPRoute elsewhere/r", 0), "Accepted"), "False NotAllowedByListeners");
}

/// HTTPRouteDisallowedKind
#[test]
fn http_route_disallowed_kind() {
    let listener = "  - {name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TLSRoute}]}}\n";
    let yaml = gateway(listener) + &route("r", "", "  - {}\n");
    assert_eq!(condition(check(&yaml).parent("HTTPRoute infra/r", 0), "Accepted"), "False NotAllowedByListeners");
}

/// HTTPRouteObservedGenerationBump
#[test]
fn http_route_observed_generation_bump() {
    let yaml = gateway(WEB) + &route("r", "", "  - {}\n").replace("{name: r, ", "{name: r, generation: 7, ");
    let status = check(&yaml);
    assert_eq!(status.parent("HTTPRoute infra/r", 0)["conditions"][0]["observedGeneration"], 7);
}
