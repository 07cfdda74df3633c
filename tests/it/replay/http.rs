//! HTTPRoute: what it matches, and where it attaches.

use super::*;

pub fn rule(matches: &str, backend: &str) -> String {
    format!("  - matches: [{matches}]\n    {}\n", to(backend))
}

pub fn path(kind: &str, value: &str) -> String {
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
