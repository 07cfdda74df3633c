//! BackendTLSPolicy, and the Gateway's certificate for backends.

use super::*;
use crate::support::h2::{DATA, END_STREAM, H2};
use crate::support::tls::{Authority, Connector, Leaf, TlsOrigin, Wanted, answer};

/// A Service `NAME` of two ports, `one` and `two`, which both lead to this address.
fn two_ports(name: &str, address: &str) -> String {
    let (ip, port) = address.rsplit_once(':').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: infra}}\nspec: {{ports: [{{name: one, port: 443}}, {{name: two, port: 8443}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: infra, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: one, port: {port}}}, {{name: two, port: {port}}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
    )
}

/// A policy for a Service, or for one of its ports.
fn policy(name: &str, service: &str, port: &str, validation: &str) -> String {
    let section = if port.is_empty() { String::new() } else { format!(", sectionName: {port}") };
    object(
        "BackendTLSPolicy",
        name,
        &format!(
            "  targetRefs: [{{group: \"\", kind: Service, name: {service}{section}}}]\n  validation: {{{validation}}}"
        ),
    )
}

const CA: &str = "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]";

fn rule(path: &str, service: &str) -> String {
    format!("  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: {service}, port: 443}}]\n")
}

fn trusted(name: &str) -> String {
    format!("{CA}, hostname: {name}")
}

/// A policy's condition at the Gateway.
fn at_gateway(status: &Status, name: &str, kind: &str) -> String {
    let ancestors = status.of(&format!("BackendTLSPolicy infra/{name}"))["ancestors"].as_array().unwrap();
    let found = ancestors.iter().find(|each| each["ancestorRef"]["name"] == "same-namespace");
    condition(found.unwrap_or_else(|| panic!("{name} has no Gateway: {ancestors:?}")), kind)
}

fn origin(authority: &Authority) -> TlsOrigin {
    TlsOrigin::answering(&authority.leaf(&["abc.example.com"]), usize::MAX)
}

/// BackendTLSPolicy
#[test]
fn backend_tls_policy() {
    let (authority, foreign) = (Authority::new("ca"), Authority::new("foreign"));
    let (good, other) = (origin(&authority), origin(&foreign));
    let rules = rule("/verified", "good") + &rule("/other-host", "named") + &rule("/other-authority", "other");
    let yaml = |validation: &str| {
        gateway(WEB)
            + &route("r", "", &rules)
            + &two_ports("good", &good.address)
            + &two_ports("named", &good.address)
            + &two_ports("other", &other.address)
            + &policy("good", "good", "", validation)
            + &policy("named", "named", "", &trusted("mismatch.example.com"))
            + &policy("other", "other", "", &trusted("abc.example.com"))
            + &infra(&authority.config_map("ca"))
    };
    let proxy = Proxy::start(&yaml(&trusted("abc.example.com")));
    assert_eq!(proxy.client().get("/verified").text(), "GET /verified HTTP/1.1");
    assert_eq!(good.seen()[0].server_name.as_deref(), Some("abc.example.com"));
    assert_eq!(proxy.client().get("/other-host").status, 502);
    assert_eq!(proxy.client().get("/other-authority").status, 502);
    // The policy is changed, and what comes next is held to that.
    proxy.reload(&yaml(&trusted("mismatch.example.com")));
    assert_eq!(proxy.client().get("/verified").status, 502);
}

/// BackendTLSPolicyConflictResolution
#[test]
fn backend_tls_policy_conflict_resolution() {
    let authority = Authority::new("ca");
    let origin = origin(&authority);
    let (right, wrong) = (trusted("abc.example.com"), trusted("mismatch.example.com"));
    let rules = rule("/whole", "whole") + &rule("/section", "section") + &rule("/both", "both");
    let yaml = gateway(WEB)
        + &route("r", "", &rules)
        + &two_ports("whole", &origin.address)
        + &two_ports("section", &origin.address)
        + &two_ports("both", &origin.address)
        + &policy("whole-1", "whole", "", &right)
        + &policy("whole-2", "whole", "", &wrong)
        + &policy("section-1", "section", "one", &right)
        + &policy("section-2", "section", "one", &wrong)
        + &policy("both-section", "both", "one", &right)
        + &policy("both-whole", "both", "", &wrong)
        + &infra(&authority.config_map("ca"));
    let status = check(&yaml);
    for (name, expected) in [
        ("whole-1", "True Accepted"),
        ("whole-2", "False Conflicted"),
        ("section-1", "True Accepted"),
        ("section-2", "False Conflicted"),
        ("both-section", "True Accepted"),
        ("both-whole", "True Accepted"),
    ] {
        assert_eq!(at_gateway(&status, name, "Accepted"), expected, "{name}");
    }
    let proxy = Proxy::start(&yaml);
    for path in ["/whole", "/section", "/both"] {
        assert_eq!(proxy.client().get(path).status, 200, "{path}");
    }
}

/// BackendTLSPolicyInvalidCACertificateRef, BackendTLSPolicyInvalidKind
#[test]
fn backend_tls_policy_invalid_ca_certificate_refs() {
    let authority = Authority::new("ca");
    let origin = origin(&authority);
    let malformed = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: malformed, namespace: infra}\ndata: {ca.crt: \"not a certificate\"}\n";
    for (reference, reason) in [
        ("{group: \"\", kind: ConfigMap, name: nonexistent}", "InvalidCACertificateRef"),
        ("{group: \"\", kind: ConfigMap, name: malformed}", "InvalidCACertificateRef"),
        ("{group: invalid.io, kind: InvalidKind, name: ca}", "InvalidKind"),
    ] {
        let validation = format!("caCertificateRefs: [{reference}], hostname: abc.example.com");
        let yaml = gateway(WEB)
            + &route("r", "", &rule("/", "s"))
            + &two_ports("s", &origin.address)
            + &policy("p", "s", "", &validation)
            + malformed;
        let status = check(&yaml);
        assert_eq!(at_gateway(&status, "p", "Accepted"), "False NoValidCACertificate", "{reference}");
        assert_eq!(at_gateway(&status, "p", "ResolvedRefs"), format!("False {reason}"), "{reference}");
        let proxy = Proxy::start(&yaml);
        assert_eq!(proxy.client().get("/").status, 500, "{reference}");
    }
    assert_eq!(origin.seen(), []);
}

/// BackendTLSPolicySANValidation
#[test]
fn backend_tls_policy_san_validation() {
    let authority = Authority::new("ca");
    let wanted = Wanted {
        common_name: "abc",
        dns: &["abc.example.com"],
        uris: &["spiffe://abc.example.com/test-identity"],
        ..Wanted::default()
    };
    let origin = TlsOrigin::answering(&authority.issue(&wanted), usize::MAX);
    let san = |list: &str| format!("{CA}, hostname: name.of.the.handshake, subjectAltNames: [{list}]");
    let dns = |name: &str| format!("{{type: Hostname, hostname: {name}}}");
    let uri = |uri: &str| format!("{{type: URI, uri: '{uri}'}}");
    let identity = "spiffe://abc.example.com/test-identity";
    for (list, status) in [
        (dns("abc.example.com"), 200),
        (uri(identity), 200),
        (format!("{}, {}", dns("mismatch.example.com"), uri(identity)), 200),
        (dns("mismatch.example.com"), 502),
        (uri("spiffe://mismatch.example.com/test-identity"), 502),
        (format!("{}, {}", dns("mismatch.example.com"), uri("spiffe://mismatch.example.com/x")), 502),
    ] {
        let yaml = gateway(WEB)
            + &route("r", "", &rule("/", "s"))
            + &two_ports("s", &origin.address)
            + &policy("p", "s", "", &san(&list))
            + &infra(&authority.config_map("ca"));
        assert_eq!(Proxy::start(&yaml).client().get("/").status, status, "{list}");
    }
    let name = Some("name.of.the.handshake".to_owned());
    assert!(origin.seen().iter().all(|seen| seen.server_name == name));
}

/// BackendTLSPolicyGRPCRoute
#[test]
fn backend_tls_policy_grpc_route() {
    let authority = Authority::new("ca");
    let inner = Authority::new("inner");
    // A gRPC server with TLS: another proxy, whose echo answers.
    let behind = Proxy::start(
        &(gateway("  - {name: https, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n")
            + &infra(&authority.leaf(&["abc.example.com"]).secret("site"))
            + &infra(&backend("echo", &["echo"]))
            + &object(
                "GRPCRoute",
                "all",
                "  parentRefs: [{name: same-namespace}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]}]",
            )),
    );
    for (validation, authority, whole) in [
        (trusted("abc.example.com"), &authority, true),
        (trusted("mismatch.example.com"), &authority, false),
        (trusted("abc.example.com"), &inner, false),
    ] {
        let yaml = gateway(WEB)
            + &object(
                "GRPCRoute",
                "r",
                "  parentRefs: [{name: same-namespace}]\n  rules: [{backendRefs: [{name: s, port: 443}]}]",
            )
            + &two_ports("s", &behind.address)
            + &policy("p", "s", "", &validation)
            + &infra(&authority.config_map("ca"));
        let proxy = Proxy::start(&yaml);
        let mut client = H2::connect(&proxy.address);
        let mut fields = crate::support::h2::post("/echo.Echo/One");
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        let stream = client.open(&fields, false);
        client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
        let answer = client.answer(stream);
        assert_eq!((answer.status(), answer.text().contains("\"backend\":\"echo\"")), (200, whole), "{validation}");
    }
}

/// BackendTLSPolicyTLSRouteTerminate
#[test]
fn backend_tls_policy_tls_route_terminate() {
    let authority = Authority::new("ca");
    let origin = origin(&authority);
    let yaml = gateway(
        "  - {name: tls, port: 8443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: site}]}}\n",
    ) + &infra(&authority.leaf(&["site.example"]).secret("site"))
        + &object(
            "TLSRoute",
            "r",
            "  parentRefs: [{name: same-namespace}]\n  hostnames: [site.example]\n  rules: [{backendRefs: [{name: s, port: 443}]}]",
        )
        + &two_ports("s", &origin.address)
        + &policy("p", "s", "", &trusted("abc.example.com"))
        + &infra(&authority.config_map("ca"));
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.port(8443), "site.example");
    assert_eq!(client.get("/both").text(), "GET /both HTTP/1.1");
    assert_eq!(origin.seen()[0].server_name.as_deref(), Some("abc.example.com"));
}

/// A Gateway that shows this certificate to backends, in front of an origin that asks for one of `clients`.
fn shown(authority: &Authority, clients: &Authority, reference: &str, more: &str) -> (String, TlsOrigin) {
    let leaf = authority.leaf(&["abc.example.com"]);
    let origin = TlsOrigin::asking(&leaf, Some(clients), |stream| answer(stream, usize::MAX));
    let yaml = gateway(WEB)
        + &format!("  tls: {{backend: {{clientCertificateRef: {reference}}}}}\n")
        + &route("r", "", &rule("/", "s"))
        + &two_ports("s", &origin.address)
        + &policy("p", "s", "", &trusted("abc.example.com"))
        + &infra(&authority.config_map("ca"))
        + more;
    (yaml, origin)
}

/// GatewayTLSBackendClientCertificate
#[test]
fn gateway_tls_backend_client_certificate() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let secret: Leaf = clients.leaf(&["gateway.example"]);
    let (yaml, origin) = shown(&authority, &clients, "{name: shown}", &infra(&secret.secret("shown")));
    assert_eq!(Proxy::start(&yaml).client().get("/").status, 200);
    assert!(origin.seen()[0].client_certificate);
}

/// GatewayInvalidTLSBackendConfiguration
#[test]
fn gateway_invalid_tls_backend_configuration() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let there =
        clients.leaf(&["a.example"]).secret("shown").replace("{name: shown}", "{name: shown, namespace: certs}");
    let malformed = "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: malformed, namespace: infra}\nstringData: {tls.crt: x, tls.key: y}\n";
    for (reference, more, reason) in [
        ("{name: nonexistent}", "", "InvalidClientCertificateRef"),
        ("{group: example.com, kind: Vault, name: shown}", "", "InvalidClientCertificateRef"),
        ("{name: malformed}", malformed, "InvalidClientCertificateRef"),
        ("{name: shown, namespace: certs}", &*there, "RefNotPermitted"),
    ] {
        let (yaml, _origin) = shown(&authority, &clients, reference, more);
        let status = check(&yaml);
        let edge = status.of("Gateway infra/same-namespace");
        assert_eq!(condition(edge, "ResolvedRefs"), format!("False {reason}"), "{reference}");
    }
}
