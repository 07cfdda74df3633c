//! HTTPS listeners, client certificates, TLSRoute.

use std::io::Read as _;

use super::*;
use crate::support::h2::H2;
use crate::support::tls::{Authority, ClientOptions, Connector, Leaf, TlsOrigin, Wanted};

/// A listener of TLS.
fn listener(name: &str, port: u16, protocol: &str, host: &str, tls: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("hostname: '{host}', ") };
    format!("  - {{name: {name}, port: {port}, protocol: {protocol}, {host}tls: {{{tls}}}}}\n")
}

const SITE: &str = "mode: Terminate, certificateRefs: [{name: site}]";

/// A TLSRoute at a listener to the Backend of its name.
fn tls_route(name: &str, section: &str, hosts: &str, to: &str) -> String {
    object(
        "TLSRoute",
        name,
        &format!(
            "  parentRefs: [{{name: same-namespace, sectionName: {section}}}]\n  hostnames: [{hosts}]\n  rules: [{{backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]}}]"
        ),
    )
}

/// An origin that ends TLS itself and answers with its name.
fn origin(authority: &Authority, name: &'static str) -> TlsOrigin {
    let leaf = authority.leaf(&["*.example", "*.example.com", "abc.example.com"]);
    TlsOrigin::new(&leaf, move |mut stream| {
        use std::io::Write as _;
        let mut bytes = [0; 4096];
        if stream.read(&mut bytes).is_ok_and(|n| n > 0) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            let _sent = stream.write_all(head.as_bytes());
        }
    })
}

/// Who answers behind a server name; `-` where the handshake is refused.
fn who(proxy: &Proxy, port: u16, authority: &Authority, name: &str) -> String {
    match Connector::new(authority).connect(&proxy.port(port), name) {
        Ok(mut client) => client.get("/").text().to_owned(),
        Err(_) => "-".to_owned(),
    }
}

/// HTTPRouteHTTPSListener
#[test]
fn http_route_https_listener() {
    let authority = Authority::new("ca");
    let yaml = gateway(&listener("https", 8080, "HTTPS", "", SITE))
        + &infra(&authority.leaf(&["example.org"]).secret("site"))
        + &route("https", "  hostnames: [example.org]\n", &format!("  - {}\n", to("v1")));
    let world = world(&yaml);
    let mut client = Connector::new(&authority).client(&world.proxy.address, "example.org");
    client.send("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(client.response().json()["backend"], "v1");
}

/// HTTPRouteHTTPSListenerDetectMisdirectedRequests: every row of its table, in either version of HTTP, on a Gateway with the
/// listeners of its base manifest.
#[test]
fn http_route_https_listener_detect_misdirected_requests() {
    let authority = Authority::new("ca");
    let listener = |name: &str, hostname: &str| {
        let hostname = if hostname.is_empty() { String::new() } else { format!("hostname: \"{hostname}\", ") };
        format!(
            "  - {{name: {name}, port: 8080, protocol: HTTPS, {hostname}tls: {{certificateRefs: [{{name: site}}]}}}}\n"
        )
    };
    let listeners = [
        ("https", ""),
        ("https-with-hostname", "second-example.org"),
        ("https-with-wildcard-hostname", "*.wildcard.org"),
        ("https-with-hostname-matching-wildcard", "fourth-example.wildcard.org"),
    ];
    let mut yaml = crate::support::proxy::gateway(&listeners.map(|(name, hostname)| listener(name, hostname)).concat());
    for (number, (name, _)) in listeners.iter().enumerate() {
        let hostnames = if number == 0 { "  hostnames: [example.org]\n" } else { "" };
        yaml += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: route-{number}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: {name}}}]\n{hostnames}  rules:\n  - matches: [{{path: {{value: /detect-misdirected-requests}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: infra-{number}}}]\n"
        );
        yaml += &backend(&format!("infra-{number}"), &["echo"]);
    }
    yaml +=
        &authority.leaf(&["example.org", "second-example.org", "*.wildcard.org", "unknown-example.org"]).secret("site");
    let proxy = Proxy::start(&yaml);
    let new = Connector::with(&authority, ClientOptions { alpn: &["h2"], ..ClientOptions::default() });
    let old = Connector::with(&authority, ClientOptions { alpn: &["http/1.1"], ..ClientOptions::default() });
    let cases = [
        ("example.org", "example.org", 200, "infra-0"),
        ("example.org", "second-example.org", 421, ""),
        ("example.org", "unknown-example.org", 404, ""),
        ("second-example.org", "second-example.org", 200, "infra-1"),
        ("second-example.org", "example.org", 421, ""),
        ("second-example.org", "unknown-example.org", 421, ""),
        ("third-example.wildcard.org", "third-example.wildcard.org", 200, "infra-2"),
        ("third-example.wildcard.org", "fith-example.wildcard.org", 200, "infra-2"),
        ("third-example.wildcard.org", "fourth-example.wildcard.org", 421, ""),
        ("third-example.wildcard.org", "second-example.org", 421, ""),
        ("third-example.wildcard.org", "unknown-example.org", 421, ""),
        ("fourth-example.wildcard.org", "fourth-example.wildcard.org", 200, "infra-3"),
        ("fourth-example.wildcard.org", "fith-example.wildcard.org", 421, ""),
        ("unknown-example.org", "example.org", 200, "infra-0"),
        ("unknown-example.org", "unknown-example.org", 404, ""),
    ];
    let path = "/detect-misdirected-requests";
    for (server_name, host, status, to) in cases {
        let mut client = H2::over(new.client(&proxy.address, server_name).stream);
        let stream =
            client.open(&[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)], true);
        let answer = client.answer(stream);
        assert_eq!(answer.status(), status, "HTTP/2: {host} over {server_name}");
        assert!(answer.text().contains(to), "HTTP/2: {host} over {server_name}: {}", answer.text());
        let mut client = old.client(&proxy.address, server_name);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status, status, "HTTP/1.1: {host} over {server_name}");
        assert!(answer.text().contains(to), "HTTP/1.1: {host} over {server_name}: {}", answer.text());
    }
    let misdirected = f64::from(u32::try_from(cases.iter().filter(|case| case.2 == 421).count()).unwrap() * 2);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"misdirected\""], misdirected);
}

/// A Gateway whose ports 8080 and 8081 end TLS, asking clients for certificates as `frontend` says.
fn asking(authority: &Authority, frontend: &str, more: &str) -> Proxy {
    let listeners = listener("one", 8080, "HTTPS", "", SITE) + &listener("two", 8081, "HTTPS", "", SITE);
    let yaml = gateway(&listeners)
        + &format!("  tls: {{frontend: {{{frontend}}}}}\n")
        + &infra(&authority.leaf(&["site.example"]).secret("site"))
        + &infra(&backend("echo", &["echo"]))
        + &route("all", "", "  - backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]\n")
        + more;
    Proxy::start(&yaml)
}

fn by(name: &str, mode: &str) -> String {
    format!("validation: {{caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: {name}}}], mode: {mode}}}")
}

/// The status that a client with this certificate gets; none where its handshake is refused.
fn asked(proxy: &Proxy, port: u16, authority: &Authority, identity: Option<Leaf>) -> Option<u16> {
    let connector = Connector::with(authority, ClientOptions { identity, ..Default::default() });
    let mut client = connector.connect(&proxy.port(port), "site.example").ok()?;
    client.try_send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
    client.response_to("GET").ok().map(|response| response.status)
}

/// GatewayFrontendClientCertificateValidation
#[test]
fn gateway_frontend_client_certificate_validation() {
    let (authority, first, second) = (Authority::new("ca"), Authority::new("first"), Authority::new("second"));
    let frontend = format!(
        "default: {{{}}}, perPort: [{{port: 8081, tls: {{{}}}}}]",
        by("first", "AllowValidOnly"),
        by("second", "AllowValidOnly")
    );
    let more = infra(&first.config_map("first")) + &infra(&second.config_map("second"));
    let proxy = asking(&authority, &frontend, &more);
    let of = |authority: &Authority| Some(authority.leaf(&["client.example"]));
    for (port, identity, expected) in [
        (8080, of(&first), Some(200)),
        (8080, of(&second), None),
        (8080, None, None),
        (8081, of(&second), Some(200)),
        (8081, of(&first), None),
        (8081, None, None),
    ] {
        assert_eq!(asked(&proxy, port, &authority, identity), expected, "{port}");
    }
}

/// GatewayFrontendClientCertificateValidationInsecureFallback
#[test]
fn gateway_frontend_client_certificate_validation_insecure_fallback() {
    let (authority, clients, foreign) = (Authority::new("ca"), Authority::new("clients"), Authority::new("foreign"));
    let frontend = format!("default: {{{}}}", by("clients", "AllowInsecureFallback"));
    let proxy = asking(&authority, &frontend, &infra(&clients.config_map("clients")));
    for identity in [Some(clients.leaf(&["a.example"])), Some(foreign.leaf(&["a.example"])), None] {
        assert_eq!(asked(&proxy, 8080, &authority, identity), Some(200));
    }
    let status: Value = serde_json::from_str(&proxy.admin("GET", "/status").1).unwrap();
    let edge = status["items"].as_array().unwrap().iter().find(|item| item["kind"] == "Gateway").unwrap();
    assert_eq!(condition(&edge["status"], "InsecureFrontendValidationMode"), "True ConfigurationChanged");
}

/// GatewayFrontendInvalidDefaultClientCertificateValidation: what has its own validation goes on.
#[test]
fn gateway_frontend_invalid_default_client_certificate_validation() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let frontend = format!(
        "default: {{{}}}, perPort: [{{port: 8081, tls: {{{}}}}}]",
        by("nonexistent", "AllowValidOnly"),
        by("clients", "AllowValidOnly")
    );
    let proxy = asking(&authority, &frontend, &infra(&clients.config_map("clients")));
    assert_eq!(asked(&proxy, 8081, &authority, Some(clients.leaf(&["a.example"]))), Some(200));
    assert!(Connector::new(&authority).connect(&proxy.port(8080), "site.example").is_err());
}

/// GatewayInvalidFrontendClientCertificateValidation
#[test]
fn gateway_invalid_frontend_client_certificate_validation() {
    let authority = Authority::new("ca");
    let reference = |group: &str, kind: &str, name: &str| {
        format!("validation: {{caCertificateRefs: [{{group: \"{group}\", kind: {kind}, name: {name}}}]}}")
    };
    let elsewhere = "validation: {caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca, namespace: certs}]}";
    let there = authority.config_map("ca").replace("{name: ca}", "{name: ca, namespace: certs}");
    let empty = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty, namespace: infra}\ndata: {}\n";
    for (validation, reason) in [
        (reference("", "ConfigMap", "nonexistent"), "InvalidCACertificateRef"),
        (reference("", "ConfigMap", "empty"), "InvalidCACertificateRef"),
        (reference("example.com", "Vault", "ca"), "InvalidCACertificateKind"),
        (elsewhere.to_owned(), "RefNotPermitted"),
    ] {
        let yaml = gateway(&listener("https", 8443, "HTTPS", "", SITE))
            + &format!("  tls: {{frontend: {{default: {{{validation}}}}}}}\n")
            + &infra(&authority.leaf(&["site.example"]).secret("site"))
            + empty
            + &there;
        let status = check(&yaml);
        let https = status.listener("Gateway infra/same-namespace", "https");
        assert_eq!(condition(https, "ResolvedRefs"), format!("False {reason}"), "{validation}");
        assert_eq!(condition(https, "Accepted"), "False NoValidCACertificate", "{validation}");
    }
}

/// TLSRouteSimpleSameNamespace
#[test]
fn tls_route_simple_same_namespace() {
    let authority = Authority::new("ca");
    let one = origin(&authority, "one");
    let yaml = gateway(&listener("tls", 8443, "TLS", "", "mode: Passthrough"))
        + &tls_route("r", "tls", "abc.example.com", "one")
        + &infra(&backend("one", &[&one.address]));
    let proxy = Proxy::start(&yaml);
    assert_eq!(who(&proxy, 8443, &authority, "abc.example.com"), "one");
    assert_eq!(one.seen()[0].server_name.as_deref(), Some("abc.example.com"));
}

/// TLSRouteHostnameIntersection
#[test]
fn tls_route_hostname_intersection() {
    let authority = Authority::new("ca");
    let (one, two) = (origin(&authority, "one"), origin(&authority, "two"));
    let backends = infra(&backend("one", &[&one.address])) + &infra(&backend("two", &[&two.address]));
    for (listener_host, routes, cases) in [
        ("abc.example.com", &[("'*.example.com'", "one")][..], &[("abc.example.com", "one"), ("non.example", "-")][..]),
        (
            "*.example.com",
            &[("abc.example.com", "one"), ("'*.com'", "two")],
            &[("abc.example.com", "one"), ("other.example.com", "two"), ("non.example", "-")],
        ),
        (
            "*.com",
            &[("abc.example.com", "one"), ("'*.example.com'", "two")],
            &[("abc.example.com", "one"), ("other.example.com", "two"), ("non.example", "-")],
        ),
        (
            "",
            &[("abc.example.com", "one"), ("'*.example.com'", "two")],
            &[("abc.example.com", "one"), ("other.example.com", "two"), ("non.example", "-")],
        ),
    ] {
        let mut yaml = gateway(&listener("tls", 8443, "TLS", listener_host, "mode: Passthrough")) + &backends;
        for (number, (hosts, to)) in routes.iter().enumerate() {
            yaml += &tls_route(&format!("r{number}"), "tls", hosts, to);
        }
        let proxy = Proxy::start(&yaml);
        for (name, expected) in cases {
            assert_eq!(who(&proxy, 8443, &authority, name), *expected, "{name} at {listener_host}");
        }
    }
}

/// TLSRouteInvalidBackendRefNonexistent, TLSRouteInvalidBackendRefUnknownKind: connections are rejected.
#[test]
fn tls_route_invalid_backend_refs_are_rejected() {
    let authority = Authority::new("ca");
    for backend in ["{name: nonexistent, port: 443}", "{group: example.com, kind: NonExistent, name: x, port: 443}"] {
        let yaml = gateway(&listener("tls", 8443, "TLS", "", "mode: Passthrough"))
            + &object(
                "TLSRoute",
                "r",
                &format!(
                    "  parentRefs: [{{name: same-namespace}}]\n  hostnames: [abc.example.com]\n  rules: [{{backendRefs: [{backend}]}}]"
                ),
            );
        let proxy = Proxy::start(&yaml);
        assert_eq!(who(&proxy, 8443, &authority, "abc.example.com"), "-", "{backend}");
    }
}

/// TLSRouteTerminateSimpleSameNamespace
#[test]
fn tls_route_terminate_simple_same_namespace() {
    let (authority, plain) = (Authority::new("ca"), echo("plain"));
    let yaml = gateway(&listener("tls", 8443, "TLS", "", SITE))
        + &infra(&authority.leaf(&["abc.example.com"]).secret("site"))
        + &tls_route("r", "tls", "abc.example.com", "plain")
        + &infra(&backend("plain", &[&plain.address]));
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.port(8443), "abc.example.com");
    assert_eq!(client.get("/").json()["backend"], "plain");
}

/// TLSRouteMixedTerminationSameNamespace
#[test]
fn tls_route_mixed_termination_same_namespace() {
    let authority = Authority::new("ca");
    let (passed, ended) = (origin(&authority, "passed"), echo("ended"));
    let listeners = listener("passed", 8443, "TLS", "abc.example.com", "mode: Passthrough")
        + &listener("ended", 8443, "TLS", "def.example.com", SITE);
    let yaml = gateway(&listeners)
        + &infra(&authority.issue(&Wanted { dns: &["def.example.com"], ..Wanted::default() }).secret("site"))
        + &tls_route("passed", "passed", "abc.example.com", "passed")
        + &tls_route("ended", "ended", "def.example.com", "ended")
        + &infra(&backend("passed", &[&passed.address]))
        + &infra(&backend("ended", &[&ended.address]));
    let proxy = Proxy::start(&yaml);
    assert_eq!(who(&proxy, 8443, &authority, "abc.example.com"), "passed");
    let mut client = Connector::new(&authority).client(&proxy.port(8443), "def.example.com");
    assert_eq!(client.get("/").json()["backend"], "ended");
}
