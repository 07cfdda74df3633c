//! TLS towards backends: who is believed, what is shown, and that nothing goes out or comes back in plain.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::client::Ended;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, config, gateway};
use crate::support::tls::{Authority, Connector, Seen, TlsOrigin, Wanted, answer};
use crate::tls::{https, tls_route};

/// A BackendTLSPolicy for the Backend `origin`.
fn policy(validation: &str) -> String {
    named_policy("origin", "", validation)
}

fn named_policy(name: &str, created: &str, validation: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}{created}}}\nspec:\n  targetRefs: [{{group: ringway.dev, kind: Backend, name: origin}}]\n  validation: {{{validation}}}\n"
    )
}

const CA: &str = "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]";

/// HTTP on port 8080 to a TLS origin.
fn to(origin: &str, authority: &Authority, validation: &str) -> String {
    config(&[origin], "") + &policy(&format!("{CA}, {validation}")) + &authority.config_map("ca")
}

fn one_worker(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 1, ..Default::default() })
}

#[test]
fn requests_are_encrypted_and_connections_kept() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::answering(&authority.leaf(&["app.internal"]), usize::MAX);
    let proxy = one_worker(&to(&origin.address, &authority, "hostname: app.internal"));
    let mut client = proxy.client();
    for round in 0..10 {
        assert_eq!(client.get(&format!("/{round}")).text(), format!("GET /{round} HTTP/1.1"));
    }
    let name = Some("app.internal".to_owned());
    assert_eq!(origin.seen(), [Seen { server_name: name, resumed: false, client_certificate: false }]);
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::answering(&authority.leaf(&["app.internal"]), 1);
    let proxy = one_worker(&to(&origin.address, &authority, "hostname: app.internal"));
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
        // Until its end has arrived, a kept connection looks good.
        std::thread::sleep(Duration::from_millis(200));
    }
    let seen = origin.seen();
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(!seen[0].resumed && seen[1..].iter().all(|each| each.resumed), "{seen:?}");
}

#[test]
fn a_certificate_that_does_not_fit_is_502_and_nothing_is_sent() {
    let (authority, foreign) = (Authority::new("ca"), Authority::new("foreign"));
    let wanted = Wanted {
        common_name: "app",
        dns: &["app.internal", "other.internal"],
        uris: &["spiffe://internal/app"],
        ..Default::default()
    };
    let good = authority.issue(&wanted);
    let san = |san: &str| format!("hostname: unrelated.internal, subjectAltNames: [{san}]");
    let cases = [
        (foreign.issue(&wanted), "hostname: app.internal".to_owned(), false),
        (authority.issue(&Wanted { expired: true, ..wanted.clone() }), "hostname: app.internal".to_owned(), false),
        (good.clone(), "hostname: app.internal".to_owned(), true),
        (good.clone(), "hostname: wrong.internal".to_owned(), false),
        // Names that are given are looked for instead of the one that is connected to.
        (good.clone(), san("{type: Hostname, hostname: other.internal}"), true),
        (good.clone(), san("{type: URI, uri: \"spiffe://internal/app\"}"), true),
        (
            good.clone(),
            san("{type: URI, uri: \"spiffe://internal/other\"}, {type: Hostname, hostname: app.internal}"),
            true,
        ),
        (good.clone(), san("{type: URI, uri: \"spiffe://internal/other\"}"), false),
        (
            good,
            "hostname: app.internal, subjectAltNames: [{type: Hostname, hostname: wrong.internal}]".to_owned(),
            false,
        ),
    ];
    for (leaf, validation, fits) in cases {
        let origin = TlsOrigin::answering(&leaf, usize::MAX);
        let proxy = one_worker(&to(&origin.address, &authority, &validation));
        let response = proxy.client().get("/secret");
        if fits {
            assert_eq!(response.text(), "GET /secret HTTP/1.1", "{validation}");
        } else {
            assert_eq!(response.status, 502, "{validation}");
            assert_eq!(origin.seen(), [], "{validation}");
            proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"tls_certificate\""], 1.0);
        }
    }
}

#[test]
fn a_policy_that_cannot_be_honoured_is_never_plain_text() {
    let authority = Authority::new("ca");
    let empty = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {}\n";
    let secret = "caCertificateRefs: [{group: example.com, kind: Vault, name: ca}], hostname: app.internal";
    let known = format!("{CA}, hostname: app.internal");
    for (validation, more, reason) in [
        (known.as_str(), "", "InvalidCACertificateRef"),
        (known.as_str(), empty, "InvalidCACertificateRef"),
        (secret, authority.config_map("ca").as_str(), "InvalidKind"),
    ] {
        let origin = Origin::echo();
        let proxy = one_worker(&(config(&[&origin.address], "") + &policy(validation) + more));
        assert_eq!(proxy.client().get("/secret").status, 500);
        assert_eq!(origin.connections(), 0);
        let status = proxy.admin("GET", "/status").1;
        for wanted in [reason, "NoValidCACertificate", "BackendTLSPolicy"] {
            assert!(status.contains(wanted), "{wanted}: {status}");
        }
    }
}

#[test]
fn an_origin_without_tls_gets_nothing_but_a_hello() {
    let authority = Authority::new("ca");
    let (told, heard) = mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        let mut bytes = [0; 4096];
        let n = conn.stream.read(&mut bytes).unwrap();
        told.send(bytes[..n].to_vec()).unwrap();
        conn.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = one_worker(&to(&origin.address, &authority, "hostname: app.internal"));
    assert_eq!(proxy.client().get("/secret").status, 502);
    let bytes = heard.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(bytes[..3], [22, 3, 1]);
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"tls_handshake\""], 1.0);
}

/// Security (CVE-2026-1642): what an origin, or somebody on the way to it, sends in plain before or inside of the
/// handshake is never taken for an answer.
#[test]
fn bytes_in_plain_around_the_handshake_reach_no_client() {
    let authority = Authority::new("ca");
    let leaf = authority.leaf(&["app.internal"]);
    let genuine = TlsOrigin::answering(&leaf, usize::MAX);
    let injected = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected".to_vec();
    let as_record = [&b"\x17\x03\x03"[..], &[0, u8::try_from(injected.len()).unwrap()], &injected].concat();
    for (first, after) in [
        (injected.clone(), Vec::new()),
        (as_record.clone(), Vec::new()),
        (Vec::new(), as_record),
        (Vec::new(), injected),
    ] {
        let behind = genuine.address.clone();
        // Somebody in the middle, who adds bytes before the first flight or behind the server's first record.
        let middle = Origin::script(move |mut conn, _| {
            let mut up = std::net::TcpStream::connect(&behind).unwrap();
            up.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            conn.send(&first);
            let (mut from_client, mut to_origin) = (conn.stream.try_clone().unwrap(), up.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_origin));
            if !after.is_empty() {
                let mut header = [0; 5];
                if up.read_exact(&mut header).is_err() {
                    return;
                }
                let mut record = vec![0; usize::from(header[3]) << 8 | usize::from(header[4])];
                up.read_exact(&mut record).unwrap();
                conn.send([&header[..], &record, &after].concat());
            }
            let _copied = std::io::copy(&mut up, &mut conn.stream);
        });
        let proxy = one_worker(&to(&middle.address, &authority, "hostname: app.internal"));
        let response = proxy.client().get("/x");
        assert_eq!(response.status, 502);
        assert!(!response.text().contains("injected"));
    }
}

#[test]
fn a_missing_close_notify_in_a_body_is_no_end() {
    let authority = Authority::new("ca");
    let leaf = authority.leaf(&["app.internal"]);
    for orderly in [true, false] {
        let origin = TlsOrigin::new(&leaf, move |mut stream| {
            let mut bytes = [0; 4096];
            let _request = stream.read(&mut bytes).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end").unwrap();
            stream.flush().unwrap();
            if orderly {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
            let _rest = stream.sock.read(&mut bytes);
        });
        let yaml = to(&origin.address, &authority, "hostname: app.internal");
        let proxy = one_worker(&yaml);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let response = client.response_to("GET");
        if orderly {
            assert_eq!(response.unwrap().text(), "until the end");
        } else {
            assert!(matches!(response, Err(Ended::Reset(_) | Ended::Truncated(_) | Ended::Closed)), "{response:?}");
            proxy.expect_metric("ringway_upstream_errors_total", &[], 1.0);
        }
    }
}

#[test]
fn the_gateways_certificate_is_shown_to_backends_that_ask() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let leaf = authority.leaf(&["app.internal"]);
    let shown = clients.leaf(&["gateway.internal"]).secret("shown");
    let tls = "  tls: {backend: {clientCertificateRef: {name: shown}}}\n";
    let with = |tls: &str, more: &str, origin: &str| {
        // `tls` belongs to the Gateway's spec, which `config` ends with its listeners.
        let yaml = to(origin, &authority, "hostname: app.internal");
        yaml.replacen("---\n", &format!("{tls}---\n"), 1) + more
    };
    let origin = TlsOrigin::asking(&leaf, Some(&clients), |stream| answer(stream, usize::MAX));
    let proxy = one_worker(&with(tls, &shown, &origin.address));
    assert_eq!(proxy.client().get("/").status, 200);
    assert!(origin.seen()[0].client_certificate);
    // Without one the origin refuses; with a reference that does not resolve nothing is tried.
    let origin = TlsOrigin::asking(&leaf, Some(&clients), |stream| answer(stream, usize::MAX));
    let proxy = one_worker(&with("", "", &origin.address));
    assert_eq!(proxy.client().get("/").status, 502);
    let proxy = one_worker(&with(tls, "", &origin.address));
    assert_eq!(proxy.client().get("/").status, 500);
    assert!(proxy.admin("GET", "/status").1.contains("InvalidClientCertificateRef"));
}

#[test]
fn streams_to_backends_that_speak_tls() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::new(&authority.leaf(&["app.internal"]), |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(format!("got {}", all.len()).as_bytes()).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let verified = policy(&format!("{CA}, hostname: app.internal")) + &authority.config_map("ca");
    let tcp = gateway("  - {name: raw, port: 8080, protocol: TCP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n"
        + &backend("origin", &[&origin.address]);
    let proxy = Proxy::start(&(tcp + &verified));
    let mut client = proxy.client();
    client.send(vec![b'x'; 300_000]);
    client.finish();
    assert_eq!(client.rest(), Ok(b"got 300000".to_vec()));
    // Ended here and encrypted again.
    let listener =
        "  - {name: tls, port: 8080, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listener)
        + &authority.leaf(&["site.example"]).secret("site")
        + &tls_route("origin", "site.example", "", &[&origin.address])
        + &verified;
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.address, "site.example");
    client.send(vec![b'x'; 300_000]);
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.rest(), Ok(b"got 300000".to_vec()));
}

#[test]
fn encrypted_on_both_sides_by_a_backends_own_field() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::answering(&authority.leaf(&["app.internal"]), usize::MAX);
    let yaml = https(&authority, &[&origin.address]).replace(
        "kind: Backend\nmetadata: {name: origin}\nspec: {",
        &format!("kind: Backend\nmetadata: {{name: origin}}\nspec: {{tls: {{{CA}, hostname: app.internal}}, "),
    ) + &authority.config_map("ca");
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.address, "site.example");
    assert_eq!(client.get("/both").text(), "GET /both HTTP/1.1");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn of_two_policies_for_one_backend_the_older_wins() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::answering(&authority.leaf(&["app.internal"]), usize::MAX);
    let yaml = config(&[&origin.address], "")
        + &named_policy(
            "a-younger",
            ", creationTimestamp: \"2026-02-01T00:00:00Z\"",
            &format!("{CA}, hostname: wrong.internal"),
        )
        + &named_policy(
            "z-older",
            ", creationTimestamp: \"2026-01-01T00:00:00Z\"",
            &format!("{CA}, hostname: app.internal"),
        )
        + &authority.config_map("ca");
    let proxy = Proxy::start(&yaml);
    assert_eq!(proxy.client().get("/").status, 200);
    assert!(proxy.admin("GET", "/status").1.contains("Conflicted"));
}
