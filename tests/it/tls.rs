//! TLS that is ended here or passed on: certificates, names, sessions, client certificates, how connections end.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, gateway, policy};
use crate::support::tls::{Authority, ClientOptions, Connector, Leaf, Wanted};

/// An HTTPRoute of everything on all listeners to one backend, and the backend.
pub fn route(endpoints: &[&str]) -> String {
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n  - backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n".to_owned()
        + &backend("origin", endpoints)
}

/// A TLSRoute of these server names to a backend of the same name, and the backend.
pub fn tls_route(name: &str, hostnames: &str, parent: &str, endpoints: &[&str]) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge{parent}}}]\n  hostnames: [{hostnames}]\n  rules:\n  - backendRefs: [{{group: ringway.dev, kind: Backend, name: {name}}}]\n"
    ) + &backend(name, endpoints)
}

pub const HTTPS: &str = "  - {name: tls, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n";

/// HTTPS on port 8080 with one certificate for `site.example`, everything to these endpoints.
pub fn https(authority: &Authority, endpoints: &[&str]) -> String {
    gateway(HTTPS) + &route(endpoints) + &authority.leaf(&["site.example"]).secret("site")
}

#[test]
fn https_in_both_versions() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    for (versions, expected, label) in [
        (&[&TLS12][..], ProtocolVersion::TLSv1_2, "1.2"),
        (&[&TLS13][..], ProtocolVersion::TLSv1_3, "1.3"),
        (&[&TLS12, &TLS13][..], ProtocolVersion::TLSv1_3, "1.3"),
    ] {
        let versions: &'static [_] = versions.to_vec().leak();
        let options = ClientOptions { versions: Some(versions), alpn: &["http/1.1"], ..Default::default() };
        let mut client = Connector::with(&authority, options).client(&proxy.address, "site.example");
        assert_eq!(client.version(), expected);
        client.send("GET /a HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-Proto: http\r\n\r\n");
        let told = client.response().json();
        assert_eq!(told["headers"]["x-forwarded-proto"], json!(["https"]));
        assert_eq!(told["tls"]["version"], json!(label));
        assert_eq!(told["tls"]["sni"], json!("site.example"));
        assert_eq!(told["tls"]["alpn"], json!("http/1.1"));
        assert_eq!(told["tls"]["client"], json!(null));
        // The connection is kept.
        assert_eq!(client.get("/b").json()["path"], json!("/b"));
    }
    let labels = ["listener=\"default/edge/tls\"", "version=\"1.3\"", "resumed=\"false\""];
    proxy.expect_metric("ringway_tls_handshakes_total", &labels, 2.0);
    let expiry = proxy.metric("ringway_tls_certificate_expiry_timestamp_seconds", &["Secret/default/site"]);
    assert!(expiry > 1.7e9, "{expiry}");
    let status: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/status").1).unwrap();
    let certificates = status["ringway"]["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 1, "{certificates:?}");
    assert_eq!(certificates[0]["name"], json!("Secret/default/site"));
    let year = certificates[0]["notAfter"].as_str().unwrap()[..4].parse::<u32>().unwrap();
    assert!(year >= 2026, "{certificates:?}");
}

/// The post-quantum exchange is preferred; a client that lacks it is served by what it has.
#[test]
fn the_key_exchange_is_hybrid_where_the_client_can() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let client = Connector::new(&authority).client(&proxy.address, "site.example");
    let group = client.stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    // Debian's openssl does not know it.
    let shown = s_client(&proxy.address, &["-servername", "site.example", "-groups", "X25519"], "");
    assert!(shown.contains("Server Temp Key: X25519"), "{shown}");
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let origin = Origin::script(|mut conn, _| {
        while let Some(mut request) = conn.head() {
            assert!(conn.body(&mut request));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            if !conn.send([head.as_bytes(), &request.body].concat()) {
                return;
            }
        }
    });
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &[&origin.address]));
    let mut client = Connector::new(&authority).client(&proxy.address, "site.example");
    for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 1_000_000, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|index: usize| u8::try_from(index * 7 % 251).unwrap()).collect();
        let head = format!("POST /{size} HTTP/1.1\r\nHost: site.example\r\nContent-Length: {size}\r\n\r\n");
        client.send([head.as_bytes(), &body].concat());
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.body == body, "a body of {size} bytes");
    }
}

/// Of more than one record they are encrypted where they stand, and a client that is slow takes a part of a write.
#[test]
fn large_answers_pass_whole_however_they_come_and_are_taken() {
    fn pattern() -> Vec<u8> {
        (0..12_000_007_usize).map(|at| (at.wrapping_mul(2_654_435_761) >> 11 & 255).to_le_bytes()[0]).collect()
    }
    let origin = Origin::replying(|request| {
        let body = pattern();
        if request.target == "/whole" {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            return [head.as_bytes(), &body].concat();
        }
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let (mut rest, mut sizes) = (&body[..], [70_000, 1, 20_000, 16_384, 300_000, 40].into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(sizes.next().unwrap()));
            answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
            answer.extend(chunk);
            answer.extend(b"\r\n");
            rest = after;
        }
        answer.extend(b"0\r\n\r\n");
        answer
    });
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &[&origin.address]));
    let body = pattern();
    for versions in [&[&TLS12][..], &[&TLS13][..]] {
        let versions: &'static [_] = versions.to_vec().leak();
        let connector = Connector::with(&authority, ClientOptions { versions: Some(versions), ..Default::default() });
        let mut client = connector.client(&proxy.address, "site.example");
        for path in ["/whole", "/chunked"] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n\r\n"));
            std::thread::sleep(Duration::from_millis(300));
            assert!(client.response().body == body, "{path}, {versions:?}");
        }
    }
}

#[test]
fn pipelined_requests_in_one_record() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let mut client = Connector::new(&authority).client(&proxy.address, "site.example");
    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: site.example\r\n\r\n")).collect();
    client.send(requests);
    for n in 0..50 {
        assert_eq!(client.response().json()["path"], json!(format!("/{n}")));
    }
}

#[test]
fn certificates_by_server_name() {
    let authority = Authority::new("ca");
    let (one, wild, other) =
        (authority.leaf(&["one.example"]), authority.leaf(&["*.wild.example"]), authority.leaf(&["a.other.example"]));
    let listeners = "  - {name: many, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: one}, {name: wild}]}}\n  - {name: other, port: 8080, protocol: HTTPS, hostname: \"*.other.example\", tls: {certificateRefs: [{name: other}]}}\n";
    let yaml =
        gateway(listeners) + &route(&["echo"]) + &one.secret("one") + &wild.secret("wild") + &other.secret("other");
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    for (name, leaf) in [("one.example", &one), ("a.wild.example", &wild), ("a.other.example", &other)] {
        let client = connector.client(&proxy.address, name);
        assert_eq!(client.leaf(), leaf.certificates()[0], "{name}");
    }
    // The first is the default: for names without a certificate, and for clients without a name.
    let shown = s_client(&proxy.address, &["-noservername"], "");
    assert!(shown.contains("CN = one.example"), "{shown}");
    let shown = s_client(&proxy.address, &["-servername", "unknown.example"], "");
    assert!(shown.contains("CN = one.example"), "{shown}");
    // A certificate's wildcard stands for one label.
    let shown = s_client(&proxy.address, &["-servername", "a.b.wild.example"], "");
    assert!(shown.contains("CN = one.example"), "{shown}");
}

/// `openssl s_client`, which sends `input` and ends when its input does.
pub fn s_client(address: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", address])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let ender = std::thread::spawn(move || {
        // Time for tickets and answers to arrive; s_client ends with its input.
        std::thread::sleep(Duration::from_millis(400));
        drop(stdin);
    });
    let output = child.wait_with_output().unwrap();
    ender.join().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn rsa_and_ecdsa_side_by_side() {
    let authority = Authority::new("ca");
    let rsa = authority.issue(&Wanted { common_name: "rsa", dns: &["site.example"], rsa: true, ..Default::default() });
    let ecdsa = authority.issue(&Wanted { common_name: "ecdsa", dns: &["site.example"], ..Default::default() });
    let listener =
        "  - {name: tls, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: rsa}, {name: ecdsa}]}}\n";
    let proxy = Proxy::start(&(gateway(listener) + &route(&["echo"]) + &rsa.secret("rsa") + &ecdsa.secret("ecdsa")));
    let name = ["-servername", "site.example"];
    let subject = |more: &[&str]| s_client(&proxy.address, &[&name[..], more].concat(), "");
    assert!(subject(&[]).contains("subject=CN = ecdsa"));
    assert!(subject(&["-sigalgs", "RSA-PSS+SHA256"]).contains("subject=CN = rsa"));
    assert!(subject(&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]).contains("subject=CN = rsa"));
    assert!(subject(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]).contains("subject=CN = ecdsa"));
}

#[test]
fn sessions_are_resumed_on_every_core_and_by_every_machine_with_the_keys() {
    let authority = Authority::new("ca");
    let leaf = authority.leaf(&["site.example"]);
    let yaml = gateway(HTTPS) + &route(&["echo"]) + &leaf.secret("site");
    let keys = crate::support::proxy::Directory::new();
    let random = |byte: u8| {
        // 48 bytes in base64.
        std::iter::repeat_n(["AAAA", "BBBB", "CCCC"][usize::from(byte)], 16).collect::<String>()
    };
    let file = keys.write("keys", &format!("{}\n{}\n", random(0), random(1)));
    let arguments = vec!["--tls-ticket-keys".to_owned(), file.display().to_string()];
    let options = Options { workers: 2, arguments, ..Default::default() };
    let (one, two) = (Proxy::with(&yaml, &options), Proxy::with(&yaml, &options));
    for versions in [&[&TLS12], &[&TLS13]] {
        let versions: &'static [_] = versions.to_vec().leak();
        let connector = Connector::with(&authority, ClientOptions { versions: Some(versions), ..Default::default() });
        let mut first = connector.client(&one.address, "site.example");
        assert!(!first.is_resumed());
        // Tickets of 1.3 come with the first answer.
        first.get("/");
        let mut open = Vec::new();
        for round in 0..24 {
            let address = if round % 3 == 2 { &two.address } else { &one.address };
            let mut client = connector.client(address, "site.example");
            assert!(client.is_resumed(), "round {round}");
            assert_eq!(client.get("/").json()["tls"]["resumed"], json!(true));
            open.push(client);
        }
        for worker in ["worker=\"0\"", "worker=\"1\""] {
            one.expect_metric("ringway_worker_connections", &[worker], 1.0);
        }
    }
    one.expect_metric("ringway_tls_handshakes_total", &["resumed=\"true\"", "version=\"1.2\""], 16.0);
    one.expect_metric("ringway_tls_handshakes_total", &["resumed=\"true\"", "version=\"1.3\""], 16.0);
    // The file is rotated: what the old first key sealed is understood for as long as it is listed.
    let connector = Connector::new(&authority);
    connector.client(&one.address, "site.example").get("/");
    std::fs::write(&file, format!("{}\n{}\n", random(2), random(0))).unwrap();
    eventually("the keys are taken over", || one.log().contains("ticket keys changed"));
    assert!(connector.client(&one.address, "site.example").is_resumed());
    let fresh = Connector::new(&authority);
    fresh.client(&one.address, "site.example").get("/");
    std::fs::write(&file, random(1)).unwrap();
    eventually("the keys are taken over", || one.log().matches("ticket keys changed").count() == 2);
    // The log runs ahead of the workers.
    eventually("old sessions are worth nothing", || !fresh.client(&one.address, "site.example").is_resumed());
}

#[test]
fn without_a_file_tickets_are_this_processs_own() {
    let authority = Authority::new("ca");
    let yaml = https(&authority, &["echo"]);
    let (one, two) = (Proxy::start(&yaml), Proxy::start(&yaml));
    let connector = Connector::new(&authority);
    connector.client(&one.address, "site.example").get("/");
    assert!(!connector.client(&two.address, "site.example").is_resumed());
    let connector = Connector::new(&authority);
    connector.client(&one.address, "site.example").get("/");
    assert!(connector.client(&one.address, "site.example").is_resumed());
}

#[test]
fn certificate_files_are_reloaded_and_connections_stay() {
    let authority = Authority::new("ca");
    let (old, new) = (authority.leaf(&["site.example"]), authority.leaf(&["site.example"]));
    let listener = "  - {name: tls, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{group: ringway.dev, kind: Certificate, name: site}]}}\n";
    let directory = crate::support::proxy::Directory::new();
    let put = |leaf: &Leaf| {
        directory.write("site.pem", &leaf.chain);
        directory.write("site.key", &leaf.key);
    };
    put(&old);
    directory.write("site.ocsp", "an OCSP response");
    let place = directory.0.display();
    let certificate = format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: Certificate\nmetadata: {{name: site}}\nspec: {{certificateFile: {place}/site.pem, privateKeyFile: {place}/site.key, ocspFile: {place}/site.ocsp}}\n"
    );
    let proxy = Proxy::start(&(gateway(listener) + &route(&["echo"]) + &certificate));
    let connector = Connector::new(&authority);
    let mut kept = connector.client(&proxy.address, "site.example");
    assert_eq!(kept.leaf(), old.certificates()[0]);
    assert_eq!(connector.ocsp(), b"an OCSP response");
    kept.get("/");
    put(&new);
    // A session that is resumed shows no certificate, so each look is a first one.
    let shown = || Connector::new(&authority).client(&proxy.address, "site.example").leaf();
    eventually("the new certificate is served", || shown() == new.certificates()[0]);
    assert_eq!(kept.get("/still").status, 200);
    // A key that does not belong to it: refused with its place; the listener goes on with nothing, so it is closed.
    directory.write("site.key", &old.key);
    eventually("the mismatch is reported", || proxy.log().contains("does not belong to the certificate"));
    let line = proxy.log().lines().find(|line| line.contains("does not belong")).unwrap().to_owned();
    assert!(line.contains("config.yaml:"), "{line}");
    put(&old);
    eventually("the old certificate is served again", || {
        Connector::new(&authority).connect(&proxy.address, "site.example").is_ok()
    });
}

#[test]
fn a_broken_certificate_leaves_the_others_serving() {
    let authority = Authority::new("ca");
    let (good, other) = (authority.leaf(&["site.example"]), authority.leaf(&["b.example"]));
    let broken = Leaf { chain: other.chain, key: good.key.clone() };
    let listener =
        "  - {name: tls, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: broken}, {name: site}]}}\n";
    let proxy =
        Proxy::start(&(gateway(listener) + &route(&["echo"]) + &good.secret("site") + &broken.secret("broken")));
    assert_eq!(Connector::new(&authority).client(&proxy.address, "site.example").get("/").status, 200);
    let status = proxy.admin("GET", "/status").1;
    assert!(status.contains("InvalidCertificateRef"), "{status}");
    assert!(proxy.log().contains("Secret/default/broken: the private key does not belong to the certificate"));
}

#[test]
fn an_orderly_end_is_said_in_both_directions() {
    let authority = Authority::new("ca");
    let origin = Origin::closing("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
    let proxy = Proxy::start(&https(&authority, &[&origin.address]));
    let connector = Connector::new(&authority);
    // Delimited by the end of the connection: without close_notify the library reports an error instead of an end.
    let mut client = connector.client(&proxy.address, "site.example");
    client.send("GET / HTTP/1.0\r\nHost: site.example\r\n\r\n");
    let response = client.response();
    assert!(response.until_close || response.header("content-length").is_some());
    assert_eq!(response.text(), "until the end");
    // The client's close_notify ends its connection in order.
    let mut client = connector.client(&proxy.address, "site.example");
    client.stream.conn.send_close_notify();
    client.expect_close();
    proxy.expect_metric("ringway_connections_active", &[], 0.0);
}

#[test]
fn streams_end_as_their_peers_end_them() {
    let authority = Authority::new("ca");
    let (told, ends) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        let mut all = Vec::new();
        let end = conn.stream.read_to_end(&mut all).map_err(|error| error.kind());
        told.send((all, end)).unwrap();
        let _sent = conn.stream.write_all(b"bye");
    });
    let listener =
        "  - {name: tls, port: 8080, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listener)
        + &authority.leaf(&["site.example"]).secret("site")
        + &tls_route("origin", "site.example", "", &[&origin.address]);
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    let mut client = connector.client(&proxy.address, "site.example");
    client.send(vec![b'x'; 100_000]);
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    let (all, end) = ends.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((all.len(), end), (100_000, Ok(100_000)));
    // The other direction goes on until its own end, which is said too.
    assert_eq!(client.rest(), Ok(b"bye".to_vec()));
    // A client that vanishes without close_notify has been cut: the origin must not take that for an end.
    let mut client = connector.client(&proxy.address, "site.example");
    client.send("half");
    client.stream.sock.shutdown(std::net::Shutdown::Both).unwrap();
    let (_, end) = ends.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn passthrough_does_not_touch_bytes() {
    // The origin speaks TLS itself; the proxy has no certificate at all.
    let authority = Authority::new("ca");
    let origins: Vec<_> = ["one.example", "a.wild.example", "b.wild.example"]
        .iter()
        .map(|name| {
            let leaf = authority.leaf(&[name]);
            Proxy::start(&(gateway(HTTPS) + &route(&["echo"]) + &leaf.secret("site")))
        })
        .collect();
    let dead = format!("{}:9", crate::support::address());
    let yaml = gateway("  - {name: sni, port: 8080, protocol: TLS, tls: {mode: Passthrough}}\n")
        + &tls_route("one", "one.example", "", &[&origins[0].address])
        + &tls_route("wild", "\"*.wild.example\"", "", &[&origins[1].address])
        // Its hello survives the endpoints that refuse the connection that it travels with.
        + &tls_route("exact", "b.wild.example", "", &[&dead, &origins[2].address, &dead]);
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    for (number, name) in ["one.example", "a.wild.example", "b.wild.example"].into_iter().enumerate() {
        let mut client = connector.client(&proxy.address, name);
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(client.response().json()["tls"]["sni"], json!(name));
        origins[number].expect_metric("ringway_tls_handshakes_total", &[], 1.0);
    }
    assert_eq!(proxy.metric("ringway_tls_handshakes_total", &[]), 0.0);
    assert!(connector.connect(&proxy.address, "unknown.example").unwrap_err().contains("UnrecognisedName"));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"no_server_name\""], 1.0);
}

#[test]
fn the_longest_wildcard_wins_within_the_listeners_hostname() {
    let authority = Authority::new("ca");
    let named = |name: &'static str| {
        Origin::script(move |mut conn, _| {
            conn.stream.write_all(name.as_bytes()).unwrap();
        })
    };
    let (wide, narrow, exact, part) = (named("wide"), named("narrow"), named("exact"), named("part"));
    let served = ["y.example", "z.b.example", "deep.z.b.example", "x.b.example", "in.example"];
    let yaml = gateway(
        "  - {name: end, port: 8080, protocol: TLS, hostname: \"*.example\", tls: {mode: Terminate, certificateRefs: [{name: site}]}}\n",
    ) + &authority.leaf(&served).secret("site")
        + &tls_route("wide", "\"*.example\"", "", &[&wide.address])
        + &tls_route("narrow", "\"*.b.example\"", "", &[&narrow.address])
        + &tls_route("exact", "x.b.example", "", &[&exact.address])
        + &tls_route("part", "\"*.other.test\", in.example", "", &[&part.address])
        + &tls_route("none", "\"*.none.test\"", "", &[&part.address]);
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    for (name, expected) in served.into_iter().zip(["wide", "narrow", "narrow", "exact", "part"]) {
        assert_eq!(connector.client(&proxy.address, name).rest(), Ok(expected.as_bytes().to_vec()), "{name}");
    }
    for name in ["q.other.test", "q.none.test", "example"] {
        assert!(connector.connect(&proxy.address, name).unwrap_err().contains("UnrecognisedName"), "{name}");
    }
    // A route none of whose names is among the listener's is not accepted by it.
    let status: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/status").1).unwrap();
    let told = status.to_string();
    assert!(told.contains("NoMatchingListenerHostname"), "{told}");
}

#[test]
fn passthrough_terminate_and_https_on_one_port() {
    let authority = Authority::new("ca");
    let behind =
        Proxy::start(&(gateway(HTTPS) + &route(&["echo"]) + &authority.leaf(&["pass.example"]).secret("site")));
    let plain = Origin::script(|mut conn, _| {
        let mut bytes = [0; 5];
        conn.stream.read_exact(&mut bytes).unwrap();
        conn.stream.write_all(&bytes).unwrap();
    });
    let listeners = "  - {name: pass, port: 8080, protocol: TLS, hostname: pass.example, tls: {mode: Passthrough}}\n  - {name: end, port: 8080, protocol: TLS, hostname: end.example, tls: {mode: Terminate, certificateRefs: [{name: site}]}}\n  - {name: web, port: 8080, protocol: HTTPS, hostname: web.example, tls: {certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listeners)
        + &authority.leaf(&["end.example", "web.example"]).secret("site")
        + &tls_route("pass", "pass.example", ", sectionName: pass", &[&behind.address])
        + &tls_route("end", "end.example", ", sectionName: end", &[&plain.address])
        + &route(&["echo"]);
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    let mut client = connector.client(&proxy.address, "pass.example");
    client.send("GET / HTTP/1.1\r\nHost: pass.example\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let mut client = connector.client(&proxy.address, "end.example");
    client.send("hello");
    assert_eq!(client.rest(), Ok(b"hello".to_vec()));
    let mut client = connector.client(&proxy.address, "web.example");
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n");
    assert_eq!(client.response().status, 200);
    // No listener without a hostname: other names are nobody's.
    assert!(connector.connect(&proxy.address, "other.example").unwrap_err().contains("UnrecognisedName"));
}

#[test]
fn versions_suites_and_groups_by_policy() {
    let authority = Authority::new("ca");
    let tls = |spec: &str| https(&authority, &["echo"]) + &policy(&format!("  tls: {{{spec}}}\n"));
    let name = ["-servername", "site.example"];
    let proxy = Proxy::start(&tls("minVersion: \"1.3\""));
    assert!(s_client(&proxy.address, &[&name[..], &["-tls1_2"]].concat(), "").contains("protocol version"));
    let shown = s_client(&proxy.address, &[&name[..], &["-tls1_3"]].concat(), "");
    assert!(shown.contains("TLSv1.3"), "{shown}");
    let proxy =
        Proxy::start(&tls("maxVersion: \"1.2\", ciphers: [ECDHE-ECDSA-AES256-GCM-SHA384], ecdhCurves: [P-384]"));
    let shown = s_client(&proxy.address, &name, "");
    assert!(shown.contains("ECDHE-ECDSA-AES256-GCM-SHA384") && shown.contains("TLSv1.2"), "{shown}");
    assert!(shown.contains("P-384") || shown.contains("secp384r1"), "{shown}");
    let refused = ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    assert!(s_client(&proxy.address, &[&name[..], &refused].concat(), "").contains("handshake failure"));
    for old in ["-tls1", "-tls1_1"] {
        let shown = s_client(&proxy.address, &[&name[..], &[old, "-cipher", "ALL:@SECLEVEL=0"]].concat(), "");
        assert!(shown.contains("Cipher is (NONE)") && shown.contains("alert"), "{shown}");
    }
}

/// Security (ALPACA, SNI-Host confusion): the host of a request belongs to the listener that the server name chose.
#[test]
fn a_host_of_another_listener_is_misdirected() {
    let authority = Authority::new("ca");
    let listeners = "  - {name: a, port: 8080, protocol: HTTPS, hostname: a.example, tls: {certificateRefs: [{name: site}]}}\n  - {name: b, port: 8080, protocol: HTTPS, hostname: b.example, tls: {certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listeners) + &route(&["echo"]) + &authority.leaf(&["a.example", "b.example"]).secret("site");
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.address, "a.example");
    for (host, status) in [("a.example", 200), ("b.example", 421), ("A.Example:443", 200), ("c.example", 404)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{host}");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"misdirected\""], 1.0);
}

#[test]
fn the_key_log_is_loud_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new("ca");
    let directory = crate::support::proxy::Directory::new();
    let file = directory.0.join("keys.log");
    let arguments = vec!["--tls-key-log".to_owned(), file.display().to_string()];
    let proxy = Proxy::with(&https(&authority, &["echo"]), &Options { arguments, ..Default::default() });
    Connector::new(&authority).client(&proxy.address, "site.example").get("/");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().any(|line| line.starts_with("SERVER_TRAFFIC_SECRET_0 ")), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(proxy.log().contains("SECRETS OF EVERY TLS CONNECTION"), "{}", proxy.log());
}

#[test]
fn curl_and_openssl_are_content() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let directory = crate::support::proxy::Directory::new();
    let ca = directory.write("ca.pem", &authority.pem());
    let output = Command::new("curl")
        .args(["-sS", "--http1.1", "--resolve", &format!("site.example:8080:{}", proxy.ip()), "--cacert"])
        .arg(&ca)
        .args(["https://site.example:8080/from-curl", "https://site.example:8080/again"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("/from-curl") && text.contains("/again"), "{text} {:?}", output.stderr);
    let ca = ca.display().to_string();
    let request = "GET /s HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n";
    let arguments = ["-servername", "site.example", "-CAfile", &ca, "-verify_return_error", "-quiet", "-tls1_2"];
    let shown = s_client(&proxy.address, &arguments, request);
    assert!(shown.contains("\"path\":\"/s\""), "{shown}");
}

/// What is kept in flight is bounded by what the other side takes, also when it is encrypted.
#[test]
fn a_slow_reader_does_not_make_the_proxy_grow() {
    let origin = Origin::script(|mut conn, _| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while conn.send(&piece) {}
    });
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &[&origin.address]));
    let connector = Connector::new(&authority);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connector.client(&proxy.address, "site.example");
            client.send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let grown = proxy.anonymous_kib();
    assert!(grown < 60_000, "{grown} KiB for {} clients that do not read", clients.len());
    drop(clients);
    proxy.expect_metric("ringway_connections_active", &[], 0.0);
}

#[test]
fn listeners_whose_names_or_certificates_overlap_say_so() {
    let authority = Authority::new("ca");
    let certificates = [
        ("wild", &["*.example"][..]),
        ("b", &["b.example"][..]),
        ("deep", &["c.b.example"][..]),
        ("other", &["other.org"][..]),
        ("both", &["one.org", "two.org"][..]),
    ];
    let listeners = [
        // A name and a certificate.
        ("a", 8080, "*.example", "wild"),
        ("b", 8080, "b.example", "b"),
        // A wildcard of certificates stands for one label, one of listeners for several.
        ("deep", 8080, "c.b.example", "deep"),
        ("alone", 8080, "other.org", "other"),
        // Only by what the certificate has besides.
        ("one", 8443, "one.org", "both"),
        ("two", 8443, "two.org", "both"),
        // The same on a port of its own.
        ("elsewhere", 9443, "b.example", "wild"),
    ];
    let listeners: String = listeners.iter().map(|(name, port, host, certificate)| {
        format!("  - {{name: {name}, port: {port}, protocol: HTTPS, hostname: \"{host}\", tls: {{certificateRefs: [{{name: {certificate}}}]}}}}\n")
    }).collect();
    let secrets: String = certificates.iter().map(|(name, names)| authority.leaf(names).secret(name)).collect();
    let directory = crate::support::proxy::Directory::new();
    directory.write("a.yaml", &(gateway(&listeners).replace("{ip}", "127.0.0.1") + &secrets));
    let arguments = ["check", "--status", "-o", "json", "--config", "a.yaml"];
    let (code, out, error) = crate::support::proxy::command(&arguments, &directory.0);
    assert_eq!(code, 0, "{error}");
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    let edge = list["items"].as_array().unwrap().iter().find(|each| each["kind"] == "Gateway").unwrap();
    let reason = |listener: &serde_json::Value| {
        let conditions = listener["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == "OverlappingTLSConfig");
        let reason = found.map_or("", |condition| condition["reason"].as_str().unwrap());
        format!("{} {reason}", listener["name"].as_str().unwrap())
    };
    let found: Vec<String> = edge["status"]["listeners"].as_array().unwrap().iter().map(reason).collect();
    assert_eq!(
        found,
        [
            "a OverlappingCertificates",
            "b OverlappingCertificates",
            "deep OverlappingHostnames",
            "alone ",
            "one OverlappingCertificates",
            "two OverlappingCertificates",
            "elsewhere ",
        ]
    );
}
