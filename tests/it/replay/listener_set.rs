//! ListenerSet.

use super::*;

const ALL: &str = "allowedRoutes: {namespaces: {from: All}}";

fn edge(allowed: &str, listeners: &str) -> String {
    object(
        "Gateway",
        "edge",
        &format!(
            "  gatewayClassName: ringway\n  addresses: [{{value: \"{{ip}}\"}}]\n{allowed}  listeners:\n{listeners}"
        ),
    )
}

fn allowed(from: &str) -> String {
    format!("  allowedListeners: {{namespaces: {{{from}}}}}\n")
}

fn set(namespace: &str, name: &str, listeners: &str) -> String {
    within(
        namespace,
        "ListenerSet",
        name,
        &format!("  parentRef: {{name: edge, namespace: infra}}\n  listeners:\n{listeners}"),
    )
}

fn listener(name: &str, host: &str) -> String {
    format!("  - {{name: {name}, port: 8080, protocol: HTTP, hostname: {host}, {ALL}}}\n")
}

fn at(namespace: &str, name: &str, parents: &str, path: &str, backend: &str) -> String {
    within(
        namespace,
        "HTTPRoute",
        name,
        &format!(
            "  parentRefs: [{parents}]\n  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {backend}, namespace: infra, port: 8080}}]}}]"
        ),
    )
}

/// ListenerSetHTTPRouting
#[test]
fn listener_set_http_routing() {
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set("infra", "one", &(listener("a", "a.one.example") + &listener("b", "b.one.example")))
        + &set("infra", "two", &listener("a", "a.two.example"))
        + &at("infra", "gateway", "{name: edge}", "/gateway", "v1")
        + &at("infra", "whole-set", "{kind: ListenerSet, name: one}", "/set", "v2")
        + &at("infra", "section", "{kind: ListenerSet, name: one, sectionName: b}", "/section", "v3")
        + &at("infra", "second", "{kind: ListenerSet, name: two}", "/second", "v1");
    world(&yaml).expect(&[
        (get("gw.example", "/gateway"), "v1"),
        (get("a.one.example", "/gateway"), "404"),
        (get("a.two.example", "/gateway"), "404"),
        (get("gw.example", "/set"), "404"),
        (get("a.one.example", "/set"), "v2"),
        (get("b.one.example", "/set"), "v2"),
        (get("a.two.example", "/set"), "404"),
        (get("a.one.example", "/section"), "404"),
        (get("b.one.example", "/section"), "v3"),
        (get("a.two.example", "/second"), "v1"),
        (get("a.one.example", "/second"), "404"),
    ]);
}

/// ListenerSetAllowedRoutesNamespaces
#[test]
fn listener_set_allowed_routes_namespaces() {
    let of = |name: &str, from: &str| {
        format!(
            "  - {{name: {name}, port: 8080, protocol: HTTP, hostname: {name}.example, allowedRoutes: {{namespaces: {{{from}}}}}}}\n"
        )
    };
    let grant = within(
        "infra",
        "ReferenceGrant",
        "routes",
        "  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]\n  to: [{group: '', kind: Service}]",
    );
    let parents = "{kind: ListenerSet, name: one, namespace: infra}";
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set(
            "infra",
            "one",
            &(of("all", "from: All")
                + &of("same", "from: Same")
                + &of("some", "from: Selector, selector: {matchLabels: {a: b}}")
                + &of("none", "from: None")),
        )
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {a: b}}\n"
        + &grant
        + &at("infra", "own", parents, "/own", "v1")
        + &at("other", "foreign", parents, "/foreign", "v2");
    world(&yaml).expect(&[
        (get("all.example", "/own"), "v1"),
        (get("all.example", "/foreign"), "v2"),
        (get("same.example", "/own"), "v1"),
        (get("same.example", "/foreign"), "404"),
        (get("some.example", "/own"), "404"),
        (get("some.example", "/foreign"), "v2"),
        (get("none.example", "/own"), "404"),
        (get("none.example", "/foreign"), "404"),
    ]);
}

/// ListenerSetDualParentRefIndependence
#[test]
fn listener_set_dual_parent_ref_independence() {
    let both = "{name: edge}, {kind: ListenerSet, name: one}";
    let one = "{name: edge, sectionName: nowhere}, {kind: ListenerSet, name: one}";
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set("infra", "one", &listener("ls", "ls.example"))
        + &at("infra", "both", both, "/both", "v1")
        + &at("infra", "one", one, "/one", "v2");
    world(&yaml).expect(&[
        (get("gw.example", "/both"), "v1"),
        (get("ls.example", "/both"), "v1"),
        (get("ls.example", "/one"), "v2"),
        (get("gw.example", "/one"), "404"),
    ]);
    let status = check(&yaml);
    assert_eq!(status.listener("ListenerSet infra/one", "ls")["attachedRoutes"], 2);
    assert_eq!(condition(status.parent("HTTPRoute infra/one", 0), "Accepted"), "False NoMatchingParent");
    assert_eq!(condition(status.parent("HTTPRoute infra/one", 1), "Accepted"), "True Accepted");
}

/// ListenerSetGatewayParentSectionNameNotFound
#[test]
fn listener_set_gateway_parent_section_name_not_found() {
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set("infra", "one", &listener("ls", "ls.example"))
        + &at("infra", "by-set", "{kind: ListenerSet, name: one, sectionName: ls}", "/good", "v1")
        + &at("infra", "by-gateway", "{name: edge, sectionName: ls}", "/bad", "v1");
    world(&yaml).expect(&[(get("ls.example", "/good"), "v1"), (get("gw.example", "/bad"), "404")]);
    assert_eq!(condition(check(&yaml).parent("HTTPRoute infra/by-gateway", 0), "Accepted"), "False NoMatchingParent");
}

/// ListenerSetRouteStatusScopedToParentRef
#[test]
fn listener_set_route_status_scoped_to_parent_ref() {
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set("infra", "one", &listener("ls", "ls.example"))
        + &at("infra", "gateway-only", "{name: edge}", "/a", "v1")
        + &at("infra", "set-only", "{kind: ListenerSet, name: one}", "/b", "v1");
    let status = check(&yaml);
    assert_eq!(status.listener("ListenerSet infra/one", "ls")["attachedRoutes"], 1);
    assert_eq!(status.of("Gateway infra/edge")["attachedListenerSets"], 1);
    for (route, kind, name) in [("gateway-only", "Gateway", "edge"), ("set-only", "ListenerSet", "one")] {
        let parents = status.of(&format!("HTTPRoute infra/{route}"))["parents"].as_array().unwrap();
        assert_eq!(parents.len(), 1);
        let expected = serde_json::json!({ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": "infra", "name": name });
        assert_eq!(parents[0]["parentRef"], expected);
    }
}

/// Whether a ListenerSet of a namespace is accepted.
fn accepted(allowed: &str, namespace: &str) -> String {
    let yaml = edge(allowed, &listener("gw", "gw.example"))
        + &set(namespace, "one", &listener("ls", "ls.example"))
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: selected, labels: {a: b}}\n";
    let status = check(&yaml);
    let name = format!("ListenerSet {namespace}/one");
    let (accepted, programmed) = (condition(status.of(&name), "Accepted"), condition(status.of(&name), "Programmed"));
    let taken = accepted.starts_with("True");
    assert_eq!(programmed.starts_with("True"), taken, "{programmed}");
    assert_eq!(status.of("Gateway infra/edge")["attachedListenerSets"], u64::from(taken));
    assert_eq!(condition(status.of("Gateway infra/edge"), "Accepted"), "True Accepted");
    accepted
}

/// ListenerSetDefaultNotAllowed
#[test]
fn listener_set_default_not_allowed() {
    assert_eq!(accepted("", "infra"), "False NotAllowed");
}

/// ListenerSetAllowedNamespaceNone
#[test]
fn listener_set_allowed_namespace_none() {
    assert_eq!(accepted(&allowed("from: None"), "infra"), "False NotAllowed");
}

/// ListenerSetAllowedNamespaceSame
#[test]
fn listener_set_allowed_namespace_same() {
    assert_eq!(accepted(&allowed("from: Same"), "infra"), "True Accepted");
    assert_eq!(accepted(&allowed("from: Same"), "other"), "False NotAllowed");
}

/// ListenerSetAllowedNamespaceSelector
#[test]
fn listener_set_allowed_namespace_selector() {
    let some = allowed("from: Selector, selector: {matchLabels: {a: b}}");
    assert_eq!(accepted(&some, "selected"), "True Accepted");
    assert_eq!(accepted(&some, "other"), "False NotAllowed");
}

fn conflicts(gateway: &str, first: &str, second: &str, reason: &str) {
    let yaml = edge(&allowed("from: Same"), &(listener("own", "own.example") + gateway))
        + &set(
            "infra",
            "a-with-gateway",
            &(listener("good", "good.example") + &gateway.replace("{name: taken", "{name: loser") + first),
        )
        + &set("infra", "b-only-gateway", &gateway.replace("{name: taken", "{name: loser"))
        + &set("infra", "c-with-set", &(listener("good", "better.example") + second))
        + &set("infra", "d-only-set", second);
    let status = check(&yaml);
    assert_eq!(condition(status.of("Gateway infra/edge"), "Accepted"), "True Accepted");
    assert_eq!(condition(status.listener("Gateway infra/edge", "taken"), "Conflicted"), "False NoConflicts");
    assert_eq!(status.of("Gateway infra/edge")["attachedListenerSets"], 2);
    for (name, bad) in
        [("a-with-gateway", "loser"), ("b-only-gateway", "loser"), ("c-with-set", "set"), ("d-only-set", "set")]
    {
        let name = format!("ListenerSet infra/{name}");
        let lost = status.listener(&name, bad);
        assert_eq!(condition(lost, "Conflicted"), format!("True {reason}"), "{name}");
        assert_eq!(condition(lost, "Accepted"), format!("False {reason}"), "{name}");
        assert_eq!(condition(lost, "Programmed"), format!("False {reason}"), "{name}");
        let (accepted, programmed) = match name.contains("only") {
            true => ("False ListenersNotValid", "False ListenersNotValid"),
            false => ("True ListenersNotValid", "True Programmed"),
        };
        assert_eq!(
            (&*condition(status.of(&name), "Accepted"), &*condition(status.of(&name), "Programmed")),
            (accepted, programmed)
        );
    }
    assert_eq!(condition(status.listener("ListenerSet infra/a-with-gateway", "set"), "Accepted"), "True Accepted");
}

/// ListenerSetHostnameConflict
#[test]
fn listener_set_hostname_conflict() {
    conflicts(
        &listener("taken", "taken.example"),
        &listener("set", "set.example"),
        &listener("set", "set.example"),
        "HostnameConflict",
    );
}

/// ListenerSetProtocolConflict
#[test]
fn listener_set_protocol_conflict() {
    let tcp = |name: &str, port: u16| format!("  - {{name: {name}, port: {port}, protocol: TCP}}\n");
    let http = |name: &str, port: u16| format!("  - {{name: {name}, port: {port}, protocol: HTTP}}\n");
    let yaml = edge(&allowed("from: Same"), &(http("own", 8080) + &http("taken", 8081)))
        + &set("infra", "a", &(http("good", 8082) + &tcp("loser", 8081) + &http("first", 8083)))
        + &set("infra", "b", &tcp("loser", 8083));
    let status = check(&yaml);
    for name in ["a", "b"] {
        let lost = status.listener(&format!("ListenerSet infra/{name}"), "loser");
        assert_eq!(condition(lost, "Conflicted"), "True ProtocolConflict");
        assert_eq!(condition(lost, "Accepted"), "False ProtocolConflict");
    }
    assert_eq!(condition(status.of("ListenerSet infra/a"), "Programmed"), "True Programmed");
    assert_eq!(condition(status.of("ListenerSet infra/b"), "Accepted"), "False ListenersNotValid");
    assert_eq!(condition(status.listener("Gateway infra/edge", "taken"), "Accepted"), "True Accepted");
}

/// ListenerSetAllowedRoutesSupportedKinds
#[test]
fn listener_set_allowed_routes_supported_kinds() {
    let yaml = edge(&allowed("from: Same"), &listener("gw", "gw.example"))
        + &set(
            "infra",
            "one",
            "  - {name: kinds, port: 8081, protocol: HTTP, allowedRoutes: {kinds: [{kind: TLSRoute}]}}\n",
        );
    let status = check(&yaml);
    let listener = status.listener("ListenerSet infra/one", "kinds");
    assert_eq!(condition(listener, "ResolvedRefs"), "False InvalidRouteKinds");
    assert_eq!(kinds(listener), Vec::<&str>::new());
}

/// ListenerSetReferenceGrant
#[test]
fn listener_set_reference_grant() {
    let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let indented = |text: String| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: certs}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(certificate.cert.pem()),
        indented(certificate.signing_key.serialize_pem())
    );
    let with = |name: &str, namespace: &str, port: u16| {
        set(
            namespace,
            name,
            &format!(
                "  - {{name: https, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert, namespace: certs}}]}}}}\n"
            ),
        )
    };
    let grant = within(
        "certs",
        "ReferenceGrant",
        "sets",
        "  from: [{group: gateway.networking.k8s.io, kind: ListenerSet, namespace: infra}]\n  to: [{group: '', kind: Secret}]",
    );
    let yaml = edge(&allowed("from: All"), &listener("gw", "gw.example"))
        + &with("granted", "infra", 8443)
        + &with("refused", "other", 8444)
        + &secret
        + &grant;
    let status = check(&yaml);
    let (good, bad) = ("ListenerSet infra/granted", "ListenerSet other/refused");
    assert_eq!(condition(status.of(good), "Accepted"), "True Accepted");
    assert_eq!(condition(status.listener(good, "https"), "ResolvedRefs"), "True ResolvedRefs");
    assert_eq!(condition(status.of(bad), "Accepted"), "False ListenersNotValid");
    assert_eq!(condition(status.of(bad), "Programmed"), "False ListenersNotValid");
    assert_eq!(condition(status.listener(bad, "https"), "ResolvedRefs"), "False RefNotPermitted");
}
