//! Gateway, GatewayClass, and the routes that move bytes and datagrams.

use super::*;

/// GatewayHTTPListenerIsolation
#[test]
fn gateway_http_listener_isolation() {
    let listeners = "  - {name: empty, port: 8080, protocol: HTTP}\n  - {name: wild, port: 8080, protocol: HTTP, hostname: '*.example.com'}\n  - {name: foo-wild, port: 8080, protocol: HTTP, hostname: '*.foo.example.com'}\n  - {name: exact, port: 8080, protocol: HTTP, hostname: abc.foo.example.com}\n";
    let at = |section: &str| {
        object(
            "HTTPRoute",
            section,
            &format!(
                "  parentRefs: [{{name: same-namespace, sectionName: {section}}}]\n  rules: [{{matches: [{{path: {{value: /{section}}}}}], {}}}]",
                to("v1")
            ),
        )
    };
    let yaml = gateway(listeners) + &at("empty") + &at("wild") + &at("foo-wild") + &at("exact");
    let world = world(&yaml);
    let hosts = [
        ("bar.com", "empty"),
        ("bar.example.com", "wild"),
        ("bar.foo.example.com", "foo-wild"),
        ("abc.foo.example.com", "exact"),
    ];
    for (host, own) in hosts {
        for (_, section) in hosts {
            let path = format!("/{section}");
            world.expect(&[(get(host, &path), if section == own { "v1" } else { "404" })]);
        }
    }
}

fn one(listener: &str) -> Status {
    check(&gateway(listener))
}

const EDGE: &str = "Gateway infra/same-namespace";

/// GatewayListenerUnsupportedProtocol
#[test]
fn gateway_listener_unsupported_protocol() {
    let status = one(
        "  - {name: bad, port: 8080, protocol: example.com/unsupported}\n  - {name: good, port: 8081, protocol: HTTP}\n",
    );
    assert_eq!(condition(status.listener(EDGE, "bad"), "Accepted"), "False UnsupportedProtocol");
    assert_eq!(condition(status.listener(EDGE, "good"), "Accepted"), "True Accepted");
    assert_eq!(condition(status.of(EDGE), "Accepted"), "True ListenersNotValid");
}

/// GatewayInvalidParametersRef
#[test]
fn gateway_invalid_parameters_ref() {
    let yaml = gateway(WEB).replace(
        "  listeners:",
        "  infrastructure: {parametersRef: {group: example.com, kind: X, name: x}}\n  listeners:",
    );
    assert_eq!(condition(check(&yaml).of(EDGE), "Accepted"), "False InvalidParameters");
}

/// GatewayInvalidRouteKind
#[test]
fn gateway_invalid_route_kind() {
    let status = one(
        "  - {name: bad, port: 8080, protocol: HTTP, allowedRoutes: {kinds: [{kind: InvalidRoute}]}}\n  - {name: both, port: 8081, protocol: HTTP, allowedRoutes: {kinds: [{kind: InvalidRoute}, {kind: HTTPRoute}]}}\n",
    );
    for (name, expected) in [("bad", vec![]), ("both", vec!["HTTPRoute"])] {
        let listener = status.listener(EDGE, name);
        assert_eq!(condition(listener, "ResolvedRefs"), "False InvalidRouteKinds");
        assert_eq!(kinds(listener), expected);
    }
}

/// GatewayInvalidTLSConfiguration
#[test]
fn gateway_invalid_tls_configuration() {
    for (reference, reason) in [
        ("{name: nonexistent}", "InvalidCertificateRef"),
        ("{group: wrong.group, name: x}", "InvalidCertificateRef"),
        ("{kind: WrongKind, name: x}", "InvalidCertificateRef"),
        ("{name: malformed}", "InvalidCertificateRef"),
        ("{name: x, namespace: elsewhere}", "RefNotPermitted"),
    ] {
        let yaml = gateway(&format!(
            "  - {{name: https, port: 8443, protocol: HTTPS, tls: {{certificateRefs: [{reference}]}}}}\n"
        )) + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: malformed, namespace: infra}\nstringData: {tls.crt: nonsense, tls.key: nonsense}\n";
        let status = check(&yaml);
        assert_eq!(condition(status.listener(EDGE, "https"), "ResolvedRefs"), format!("False {reason}"), "{reference}");
    }
}

/// GatewayWithAttachedRoutes, GatewayWithAttachedRoutesWithPort8080
#[test]
fn gateway_with_attached_routes() {
    let at = |name: &str, more: &str| {
        object("HTTPRoute", name, &format!("  parentRefs: [{{name: same-namespace{more}}}]\n  rules: [{{}}]"))
    };
    let listeners = "  - {name: http, port: 8080, protocol: HTTP}\n  - {name: none, port: 8081, protocol: HTTP, allowedRoutes: {namespaces: {from: None}}}\n  - {name: bad, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: nonexistent}]}}\n";
    let status = check(
        &(gateway(listeners)
            + &at("one", ", sectionName: http")
            + &at("two", ", port: 8080")
            + &at("bad", ", sectionName: bad")
            + &at("wrong", ", sectionName: nowhere")),
    );
    let attached = |name: &str| status.listener(EDGE, name)["attachedRoutes"].as_u64().unwrap();
    // A listener's own troubles do not count against the routes that it takes.
    assert_eq!((attached("http"), attached("none"), attached("bad")), (2, 0, 1));
}

/// GatewayStaticAddresses
#[test]
fn gateway_static_addresses() {
    let with = |addresses: &str| {
        gateway(WEB).replace("addresses: [{type: IPAddress, value: \"{ip}\"}]", &format!("addresses: [{addresses}]"))
    };
    let status = check(&with("{type: example.com/other, value: x}"));
    assert_eq!(condition(status.of(EDGE), "Accepted"), "False UnsupportedAddress");
    let status = check(&with("{type: IPAddress, value: 192.0.2.1}"));
    assert_eq!(condition(status.of(EDGE), "Accepted"), "True Accepted");
    assert_eq!(condition(status.of(EDGE), "Programmed"), "False AddressNotUsable");
    let status = check(&with("{type: IPAddress, value: 127.0.0.1}"));
    assert_eq!(condition(status.of(EDGE), "Programmed"), "True Programmed");
    assert_eq!(status.of(EDGE)["addresses"], serde_json::json!([{ "type": "IPAddress", "value": "127.0.0.1" }]));
    // An address that cannot be had keeps nobody from being served.
    let other = within(
        "infra",
        "Gateway",
        "other",
        "  gatewayClassName: ringway\n  addresses: [{value: 192.0.2.1}]\n  listeners: [{name: http, port: 8080, protocol: HTTP}]",
    );
    world(&(gateway(WEB) + &other + &route("r", "", &format!("  - {}\n", to("v1"))))).expect(&[(get("", "/"), "v1")]);
}

/// GatewayOptionalAddressValue
#[test]
fn gateway_optional_address_value() {
    let yaml =
        gateway(WEB).replace("addresses: [{type: IPAddress, value: \"{ip}\"}]", "addresses: [{type: IPAddress}]");
    let status = check(&yaml);
    assert_eq!(condition(status.of(EDGE), "Programmed"), "True Programmed");
    assert_eq!(status.of(EDGE)["addresses"].as_array().unwrap().len(), 1);
}

/// GatewayObservedGenerationBump
#[test]
fn gateway_observed_generation_bump() {
    let yaml = gateway(WEB).replace("{name: same-namespace,", "{name: same-namespace, generation: 4,");
    assert_eq!(check(&yaml).of(EDGE)["conditions"][0]["observedGeneration"], 4);
}

/// GatewayClassObservedGenerationBump
#[test]
fn gateway_class_observed_generation_bump() {
    let status = check(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: mine, generation: 9}\nspec: {controllerName: ringway.dev/gateway}\n",
    );
    let class = status.of("GatewayClass mine");
    assert_eq!(condition(class, "Accepted"), "True Accepted");
    assert_eq!(class["conditions"][0]["observedGeneration"], 9);
    let features: Vec<&str> =
        class["supportedFeatures"].as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap()).collect();
    assert!(features.is_sorted() && features.contains(&"HTTPRoute"), "{features:?}");
}

/// GatewayModifyListeners
#[test]
fn gateway_modify_listeners() {
    let two = WEB.to_owned() + "  - {name: more, port: 8090, protocol: HTTP}\n";
    let all = route("r", "", &format!("  - {}\n", to("v1")));
    let world = world(&(gateway(&two) + &all));
    let services: String =
        ["v1", "v2", "v3"].iter().zip(&world.origins).map(|(name, origin)| service("infra", name, origin)).collect();
    world.expect(&[(get("", "/"), "v1"), (Ask { port: 8090, ..get("", "/") }, "v1")]);
    world.proxy.reload(&(gateway(WEB) + &all + &services));
    world.expect(&[(get("", "/"), "v1")]);
    // A worker empties its queue before it closes a socket.
    crate::support::eventually("the port is closed", || {
        crate::support::client::Client::try_connect(&world.proxy.port(8090)).is_err()
    });
    world.proxy.reload(&(gateway(&two) + &all + &services));
    world.expect(&[(Ask { port: 8090, ..get("", "/") }, "v1")]);
}

/// GatewaySecretInvalidReferenceGrant, GatewaySecretMissingReferenceGrant, GatewaySecretReferenceGrantAllInNamespace,
/// GatewaySecretReferenceGrantSpecific
#[test]
fn gateway_secret_reference_grants() {
    let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let indented = |text: String| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: certs}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(certificate.cert.pem()),
        indented(certificate.signing_key.serialize_pem())
    );
    let from = "{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}";
    let grant =
        |from: &str, to: &str| within("certs", "ReferenceGrant", "g", &format!("  from: [{from}]\n  to: [{to}]"));
    for (name, grant, expected) in [
        ("GatewaySecretMissingReferenceGrant", String::new(), "False RefNotPermitted"),
        (
            "GatewaySecretInvalidReferenceGrant",
            grant(from, "{group: '', kind: Service, name: cert}"),
            "False RefNotPermitted",
        ),
        ("GatewaySecretReferenceGrantAllInNamespace", grant(from, "{group: '', kind: Secret}"), "True ResolvedRefs"),
        (
            "GatewaySecretReferenceGrantSpecific",
            grant(from, "{group: '', kind: Secret, name: cert}"),
            "True ResolvedRefs",
        ),
    ] {
        let listener = "  - {name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: certs}]}}\n";
        let status = check(&(gateway(listener) + &secret + &grant));
        assert_eq!(condition(status.listener(EDGE, "https"), "ResolvedRefs"), expected, "{name}");
    }
}

/// A TCP or UDP route's conditions at its parent.
fn stream(kind: &str, protocol: &str, parent: &str, backend: &str, more: &str) -> (String, String) {
    let listeners = format!(
        "  - {{name: one, port: 9000, protocol: {protocol}}}\n  - {{name: two, port: 9001, protocol: {protocol}}}\n  - {{name: web, port: 8080, protocol: HTTP}}\n"
    );
    let yaml = gateway(&listeners)
        + &object(kind, "r", &format!("  parentRefs: [{parent}]\n  rules: [{{backendRefs: [{backend}]}}]"))
        + more;
    let status = check(&yaml);
    let parent = status.parent(&format!("{kind} infra/r"), 0);
    (condition(parent, "Accepted"), condition(parent, "ResolvedRefs"))
}

/// TCPRouteInvalidBackendRefNonexistent, UDPRouteInvalidBackendRefNonexistent
#[test]
fn tcp_and_udp_route_invalid_backend_ref_nonexistent() {
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        let found =
            stream(kind, protocol, "{name: same-namespace, sectionName: one}", "{name: nonexistent, port: 80}", "");
        assert_eq!((&*found.0, &*found.1), ("True Accepted", "False BackendNotFound"), "{kind}");
    }
}

/// TCPRouteInvalidCrossNamespaceBackendRef, UDPRouteInvalidCrossNamespaceBackendRef
#[test]
fn tcp_and_udp_route_invalid_cross_namespace_backend_ref() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: elsewhere}\nspec: {ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]}\n";
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        let found = stream(
            kind,
            protocol,
            "{name: same-namespace, sectionName: one}",
            "{name: s, namespace: elsewhere, port: 80}",
            service,
        );
        assert_eq!((&*found.0, &*found.1), ("True Accepted", "False RefNotPermitted"), "{kind}");
    }
}

/// TCPRouteInvalidNonTCPListener, UDPRouteNotAllowedByListeners
#[test]
fn tcp_route_invalid_non_tcp_listener_and_udp_route_not_allowed_by_listeners() {
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        let found =
            stream(kind, protocol, "{name: same-namespace, sectionName: web}", "{name: nonexistent, port: 80}", "");
        assert_eq!(found.0, "False NotAllowedByListeners", "{kind}");
    }
}

/// TCPRouteMultipleRoutesAttachment, UDPRouteMultipleRoutesAttachment
#[test]
fn tcp_and_udp_route_multiple_routes_attachment() {
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        let at = |name: &str| {
            object(
                kind,
                name,
                "  parentRefs: [{name: same-namespace}]\n  rules: [{backendRefs: [{name: s, port: 80}]}]",
            )
        };
        let yaml = gateway(&format!("  - {{name: one, port: 9000, protocol: {protocol}}}\n")) + &at("a") + &at("b");
        let status = check(&yaml);
        assert_eq!(status.listener(EDGE, "one")["attachedRoutes"], 2);
        for name in ["a", "b"] {
            assert_eq!(condition(status.parent(&format!("{kind} infra/{name}"), 0), "Accepted"), "True Accepted");
        }
    }
}

/// TCPRouteParentRefPortAndSectionName, UDPRouteParentRefPortAndSectionName
#[test]
fn tcp_and_udp_route_parent_ref_port_and_section_name() {
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        let by = |parent: &str| stream(kind, protocol, parent, "{name: s, port: 80}", "").0;
        assert_eq!(by("{name: same-namespace, port: 9001}"), "True Accepted");
        assert_eq!(by("{name: same-namespace, sectionName: one, port: 9000}"), "True Accepted");
        assert_eq!(by("{name: same-namespace, sectionName: one, port: 9001}"), "False NoMatchingParent");
        assert_eq!(by("{name: same-namespace}"), "True Accepted");
    }
}

/// TLSRouteListenerPassthroughSupportedKinds, TLSRouteListenerTerminateSupportedKinds
#[test]
fn tls_route_listener_supported_kinds() {
    let status = one(
        "  - {name: passthrough, port: 8443, protocol: TLS, tls: {mode: Passthrough}}\n  - {name: terminate, port: 8444, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: x}]}}\n",
    );
    for name in ["passthrough", "terminate"] {
        assert_eq!(kinds(status.listener(EDGE, name)), ["TLSRoute"], "{name}");
    }
}

/// TLSRouteInvalidNoMatchingListener, TLSRouteInvalidNoMatchingListenerHostname
#[test]
fn tls_route_invalid_no_matching_listener() {
    let at = |parent: &str, host: &str| {
        let yaml = gateway(
            "  - {name: tls, port: 8443, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}\n  - {name: web, port: 8080, protocol: HTTP}\n",
        ) + &object(
            "TLSRoute",
            "r",
            &format!(
                "  parentRefs: [{{name: same-namespace, {parent}}}]\n  hostnames: [{host}]\n  rules: [{{backendRefs: [{{name: nonexistent, port: 80}}]}}]"
            ),
        );
        let status = check(&yaml);
        let parent = status.parent("TLSRoute infra/r", 0);
        (condition(parent, "Accepted"), condition(parent, "ResolvedRefs"))
    };
    assert_eq!(at("sectionName: nowhere", "a.example").0, "False NoMatchingParent");
    assert_eq!(at("sectionName: web", "a.example").0, "False NotAllowedByListeners");
    assert_eq!(at("sectionName: tls", "b.example").0, "False NoMatchingListenerHostname");
    assert_eq!(at("sectionName: tls", "a.example"), ("True Accepted".to_owned(), "False BackendNotFound".to_owned()));
}

/// A TLSRoute's conditions with this backendRef, beside a Service `s` of another namespace.
fn tls_route(backend: &str, more: &str) -> (String, String) {
    let yaml = gateway("  - {name: tls, port: 8443, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}\n")
        + &object(
            "TLSRoute",
            "r",
            &format!(
                "  parentRefs: [{{name: same-namespace}}]\n  hostnames: [a.example]\n  rules: [{{backendRefs: [{backend}]}}]"
            ),
        )
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: elsewhere}\nspec: {ports: [{port: 443}]}\n"
        + more;
    let status = check(&yaml);
    let parent = status.parent("TLSRoute infra/r", 0);
    (condition(parent, "Accepted"), condition(parent, "ResolvedRefs"))
}

/// What lets routes of `infra` refer to Services of `elsewhere`.
pub fn granted(kind: &str, from: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: elsewhere}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {from}}}]\n  to: [{{group: \"\", kind: Service{to}}}]\n"
    )
}

/// TLSRouteInvalidBackendRefUnknownKind
#[test]
fn tls_route_invalid_backend_ref_unknown_kind() {
    let (accepted, resolved) = tls_route("{group: unknownkind.example.com, kind: NonExistent, name: s, port: 443}", "");
    assert_eq!((&*accepted, &*resolved), ("True Accepted", "False InvalidKind"));
}

/// TLSRouteInvalidReferenceGrant
#[test]
fn tls_route_invalid_reference_grant() {
    let backend = "{name: s, namespace: elsewhere, port: 443}";
    for (grant, resolved) in [
        (String::new(), "False RefNotPermitted"),
        (granted("HTTPRoute", "infra", ""), "False RefNotPermitted"),
        (granted("TLSRoute", "other", ""), "False RefNotPermitted"),
        (granted("TLSRoute", "infra", ", name: t"), "False RefNotPermitted"),
        (granted("TLSRoute", "infra", ", name: s"), "True ResolvedRefs"),
        (granted("TLSRoute", "infra", ""), "True ResolvedRefs"),
    ] {
        assert_eq!(tls_route(backend, &grant), ("True Accepted".to_owned(), resolved.to_owned()), "{grant}");
    }
}

/// TCPRouteReferenceGrant, UDPRouteReferenceGrant
#[test]
fn tcp_and_udp_route_reference_grant() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: elsewhere}\nspec: {ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]}\n";
    for (kind, protocol) in [("TCPRoute", "TCP"), ("UDPRoute", "UDP")] {
        for (grant, resolved) in [(kind, "True ResolvedRefs"), ("TLSRoute", "False RefNotPermitted")] {
            let more = service.to_owned() + &granted(grant, "infra", ", name: s");
            let parent = "{name: same-namespace, sectionName: one}";
            let found = stream(kind, protocol, parent, "{name: s, namespace: elsewhere, port: 80}", &more);
            assert_eq!((&*found.0, &*found.1), ("True Accepted", resolved), "{kind} by {grant}");
        }
    }
}

/// BackendTLSPolicyObservedGenerationBump
#[test]
fn backend_tls_policy_observed_generation_bump() {
    let yaml = gateway(WEB)
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: p, namespace: infra, generation: 7}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: s}]\n  validation: {wellKnownCACertificates: System, hostname: a.example}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: infra}\nspec: {ports: [{port: 443}]}\n";
    let status = check(&yaml);
    let ancestor = &status.of("BackendTLSPolicy infra/p")["ancestors"][0];
    assert_eq!(condition(ancestor, "Accepted"), "True Accepted");
    assert_eq!(ancestor["conditions"][0]["observedGeneration"], 7);
}
