//! Clients that show certificates (GEP-91): verified, foreign, expired, missing, and what the origin is told.

use std::io::Read as _;

use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::support::eventually;
use crate::support::proxy::{Proxy, gateway, policy};
use crate::support::tls::{Authority, ClientOptions, Connector, Leaf, Wanted};
use crate::tls::{HTTPS, route};

/// A Gateway that asks clients for certificates of `clients`, on ports 8080 (as `mode` says) and 8081 (not at all).
fn asking(authority: &Authority, mode: &str, more: &str) -> String {
    let tls = format!(
        "  tls:\n    frontend:\n      default: {{validation: {{caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: clients}}], mode: {mode}}}}}\n      perPort: [{{port: 8081, tls: {{}}}}]\n"
    );
    let listeners = format!("{HTTPS}{}", HTTPS.replace("8080", "8081").replace("name: tls", "name: open"));
    gateway(&listeners) + &tls + more + &route(&["echo"]) + &authority.leaf(&["site.example"]).secret("site")
}

fn identity(leaf: Leaf, authority: &Authority) -> Connector {
    Connector::with(authority, ClientOptions { identity: Some(leaf), ..Default::default() })
}

#[test]
fn client_certificates_are_verified() {
    let (authority, clients, foreign) = (Authority::new("ca"), Authority::new("clients"), Authority::new("foreign"));
    let xfcc = policy("  headers: {xForwardedClientCert: {mode: SanitizeSet}}\n");
    let proxy = Proxy::start(&(asking(&authority, "AllowValidOnly", "") + &clients.config_map("clients") + &xfcc));
    let alice = Wanted {
        common_name: "alice \"quoted\"",
        dns: &["alice.example"],
        uris: &["spiffe://example/alice"],
        ..Default::default()
    };
    let good = identity(clients.issue(&alice), &authority);
    for _ in 0..2 {
        let mut client = good.client(&proxy.address, "site.example");
        client.send("GET / HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-Client-Cert: Hash=spoofed\r\nX_Forwarded_Client_Cert: a\r\n\r\n");
        let told = client.response().json();
        assert_eq!(told["tls"]["client"], json!({"subject": "CN=alice \"quoted\"", "verified": true}));
        let value = told["headers"]["x-forwarded-client-cert"][0].as_str().unwrap();
        assert!(value.starts_with("Hash="), "{value}");
        assert!(
            value.ends_with(";Subject=\"CN=alice \\\"quoted\\\"\";URI=spiffe://example/alice;DNS=alice.example"),
            "{value}"
        );
        assert_eq!(told["headers"]["x-forwarded-client-cert"].as_array().unwrap().len(), 1);
        assert_eq!(told["headers"]["x_forwarded_client_cert"], json!(null));
    }
    // In 1.3 the client learns that its certificate was refused after it has finished: by its first read.
    let refused = |connector: &Connector| match connector.connect(&proxy.address, "site.example") {
        Err(error) => error,
        Ok(mut client) => {
            client.try_send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
            let mut byte = [0; 1];
            client.stream.read(&mut byte).expect_err("an alert").to_string()
        }
    };
    assert!(refused(&Connector::new(&authority)).contains("CertificateRequired"));
    assert!(refused(&identity(foreign.issue(&alice), &authority)).contains("UnknownCA"));
    let expired = clients.issue(&Wanted { expired: true, ..alice });
    assert!(refused(&identity(expired, &authority)).contains("CertificateExpired"));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"client_certificate\""], 3.0);
    // The other port does not ask.
    let mut client = Connector::new(&authority).client(&proxy.port(8081), "site.example");
    client.send("GET / HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-Client-Cert: Hash=spoofed\r\n\r\n");
    assert_eq!(client.response().json()["headers"]["x-forwarded-client-cert"], json!(null));
}

/// CVE-2025-23419: a session from where nobody asks must not open a listener that does.
#[test]
fn sessions_do_not_cross_into_listeners_that_ask_for_certificates() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let proxy = Proxy::start(&(asking(&authority, "AllowValidOnly", "") + &clients.config_map("clients")));
    for versions in [&[&TLS12], &[&TLS13]] {
        let versions: &'static [_] = versions.to_vec().leak();
        let connector = Connector::with(&authority, ClientOptions { versions: Some(versions), ..Default::default() });
        connector.client(&proxy.port(8081), "site.example").get("/");
        assert!(connector.client(&proxy.port(8081), "site.example").is_resumed());
        let failed = match connector.connect(&proxy.address, "site.example") {
            Err(_) => true,
            Ok(mut client) => {
                assert!(!client.is_resumed());
                client.try_send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
                client.response_to("GET").is_err()
            }
        };
        assert!(failed);
    }
}

#[test]
fn insecure_fallback_serves_and_says_so() {
    let (authority, clients, foreign) = (Authority::new("ca"), Authority::new("clients"), Authority::new("foreign"));
    let xfcc = policy("  headers: {xForwardedClientCert: {mode: SanitizeSet}}\n");
    let proxy =
        Proxy::start(&(asking(&authority, "AllowInsecureFallback", "") + &clients.config_map("clients") + &xfcc));
    let wanted = Wanted { common_name: "bob", dns: &["bob.example"], ..Default::default() };
    let ask = |connector: &Connector| {
        let mut client = connector.client(&proxy.address, "site.example");
        client.send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
        let told = client.response().json();
        (told["tls"]["client"].clone(), told["headers"]["x-forwarded-client-cert"].is_array())
    };
    assert_eq!(ask(&Connector::new(&authority)), (json!(null), false));
    let unverified = (json!({"subject": "CN=bob", "verified": false}), false);
    assert_eq!(ask(&identity(foreign.issue(&wanted), &authority)), unverified);
    assert_eq!(ask(&identity(clients.issue(&Wanted { expired: true, ..wanted.clone() }), &authority)), unverified);
    let verified = (json!({"subject": "CN=bob", "verified": true}), true);
    assert_eq!(ask(&identity(clients.issue(&wanted), &authority)), verified);
    assert!(proxy.admin("GET", "/status").1.contains("InsecureFrontendValidationMode"));
}

/// Security: without its CA a listener that verifies clients must not serve, neither at the start nor after a reload.
#[test]
fn a_missing_or_empty_ca_refuses_the_listener() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let good = asking(&authority, "AllowValidOnly", "");
    let empty = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: clients}\ndata: {ca.crt: \"\"}\n";
    let garbage = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: clients}\ndata: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"}\n";
    for bad in ["", empty, garbage] {
        let proxy = Proxy::start(&(good.clone() + bad));
        assert!(std::net::TcpStream::connect(&proxy.address).is_err(), "{bad:?}");
        assert!(proxy.admin("GET", "/status").1.contains("NoValidCACertificate"));
        // The port that does not ask is served.
        assert_eq!(Connector::new(&authority).client(&proxy.port(8081), "site.example").get("/").status, 200);
    }
    let proxy = Proxy::start(&(good.clone() + &clients.config_map("clients")));
    assert!(std::net::TcpStream::connect(&proxy.address).is_ok());
    proxy.reload(&(good + empty));
    eventually("the listener is closed", || std::net::TcpStream::connect(&proxy.address).is_err());
}
