//! The PROXY protocol: believed from trusted peers ahead of every protocol, and told to endpoints.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use crate::balance::policy as backend_policy;
use crate::support::client::{Client, Ended};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, config, gateway, policy};
use crate::support::tls::{Authority, Connector};
use crate::tls::{https, tls_route};

const TRUSTED: &str = "  proxyProtocol: {trustedCIDRs: [127.0.0.0/8]}\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 by hand.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &len, body].concat()
}

/// 192.0.2.7:1000 talks to 198.51.100.1:443.
const ENDS: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 3, 232, 1, 187];

fn http(spec: &str) -> Proxy {
    Proxy::start(&(config(&["echo"], "") + &policy(spec)))
}

fn forwarded_for(client: &mut Client<impl std::io::Read + std::io::Write>) -> String {
    client.get("/").json()["headers"]["x-forwarded-for"][0].as_str().unwrap().to_owned()
}

fn is_refused(client: &mut Client) -> bool {
    matches!(client.rest(), Err(Ended::Reset(bytes)) if bytes.is_empty())
}

#[test]
fn the_named_address_is_the_client() {
    let proxy = http(TRUSTED);
    let long = [&ENDS[..], &[4, 1, 0], &[0; 256], &[2, 0, 1, b'a']].concat();
    let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 1, 0, 2]].concat();
    for (header, named) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::1 ::1 1000 443\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1000 443\r\n".to_vec(), "192.0.2.7"),
        (v2(0x21, 0x11, &ENDS), "192.0.2.7"),
        (v2(0x21, 0x11, &long), "192.0.2.7"),
        (v2(0x21, 0x21, &six), "2001:db8::1"),
        // Health checks and unknown clients: the connection's own end.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x20, 0, &[]), "127.0.0.1"),
        (v2(0x20, 0x11, &ENDS), "127.0.0.1"),
        (v2(0x21, 0, &[4, 0, 0]), "127.0.0.1"),
    ] {
        // With the request behind it in one piece, and byte by byte ahead of it.
        let mut client = proxy.client();
        client.send([&header[..], b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.response().json()["headers"]["x-forwarded-for"][0], named);
        assert_eq!(forwarded_for(&mut client), named, "the second request");
        let mut client = proxy.client();
        for byte in &header {
            client.send([*byte]);
        }
        assert_eq!(forwarded_for(&mut client), named);
    }
}

#[test]
fn bytes_behind_the_header_go_on_over_tcp_and_tls() {
    let yaml = gateway("  - {name: raw, port: 8080, protocol: TCP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n"
        + &backend("origin", &["echo"])
        + &policy(TRUSTED);
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send([&v2(0x21, 0x11, &ENDS)[..], b"hello"].concat());
    client.finish();
    assert_eq!(client.rest(), Ok(b"hello".to_vec()));

    let authority = Authority::new("ca");
    let proxy = Proxy::start(&(https(&authority, &["echo"]) + &policy(TRUSTED)));
    let mut stream = Connector::new(&authority).open(&proxy.address, "site.example").unwrap();
    stream.sock.write_all(&v2(0x21, 0x11, &ENDS)).unwrap();
    assert_eq!(forwarded_for(&mut Client::over(stream)), "192.0.2.7");
}

#[test]
fn broken_headers_are_refused() {
    let proxy = http(TRUSTED);
    let tlv = |tlv: &[u8]| v2(0x21, 0x11, &[&ENDS, tlv].concat());
    let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &ENDS].concat();
    let cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 99999\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(),
        v2(0x31, 0x11, &ENDS),
        v2(0x22, 0x11, &ENDS),
        v2(0x21, 0x11, &ENDS[..11]),
        too_long,
        tlv(&[1, 0, 5, b'h', b'2']),
        tlv(&[0x20, 0, 7, 1, 0, 0, 0, 0, 0x21, 0]),
        tlv(&[3, 0, 4, 1, 2, 3, 4]),
    ];
    for (number, case) in cases.iter().enumerate() {
        let mut client = proxy.client();
        client.send(case);
        assert!(is_refused(&mut client), "{number}");
        let count = f64::from(u32::try_from(number).unwrap() + 1);
        proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"proxy_header\""], count);
    }
    // Cut in the middle.
    let mut client = proxy.client();
    client.send(&v2(0x21, 0x11, &ENDS)[..20]);
    client.finish();
    assert!(is_refused(&mut client));
    assert_eq!(proxy.metric("ringway_requests_total", &[]), 0.0);
}

#[test]
fn slow_headers_are_refused() {
    let proxy = http("  proxyProtocol: {trustedCIDRs: [127.0.0.0/8], timeout: 300ms}\n");
    let mut client = proxy.client();
    client.send("PROXY TCP4 ");
    assert!(is_refused(&mut client));
    assert!(is_refused(&mut proxy.client()));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"proxy_timeout\""], 2.0);
}

#[test]
fn untrusted_peers_are_not_believed() {
    // Where a header is required they have no business at all.
    let proxy = http("  proxyProtocol: {trustedCIDRs: [192.0.2.0/24]}\n");
    // The reset may come before the client has seen that it is connected.
    if let Ok(mut client) = Client::try_connect(&proxy.address) {
        client.try_send("PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(is_refused(&mut client));
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"proxy_untrusted\""], 1.0);
    // Where it is not, they are clients, and what they claim is no request.
    let proxy = http("  proxyProtocol: {trustedCIDRs: [192.0.2.0/24], optional: true}\n");
    assert_eq!(forwarded_for(&mut proxy.client()), "127.0.0.1");
    let mut client = proxy.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 400);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"malformed_head\""], 1.0);
}

#[test]
fn an_optional_header_may_be_left_out() {
    let proxy = http("  proxyProtocol: {trustedCIDRs: [127.0.0.0/8], optional: true}\n");
    assert_eq!(forwarded_for(&mut proxy.client()), "127.0.0.1");
    let mut client = proxy.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\n");
    assert_eq!(forwarded_for(&mut client), "192.0.2.7");
    // One that begins like a header and is none is no request either.
    let mut client = proxy.client();
    client.send("PROXY TCP4 nonsense\r\n");
    assert!(is_refused(&mut client));
    // `P` could have become a header.
    let mut client = proxy.client();
    client.send("P");
    client.send("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().json()["method"], "POST");
}

/// An origin that notes how every connection began and answers requests.
fn noting() -> (Origin, Arc<Mutex<Vec<Vec<u8>>>>) {
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let notes = Arc::clone(&seen);
    let origin = Origin::script(move |mut conn, _| {
        let mut header = Vec::new();
        let mut byte = [0];
        let whole = |header: &[u8]| match header.first() {
            Some(b'P') => header.ends_with(b"\r\n"),
            _ => header.len() >= 16 && header.len() == 16 + usize::from(header[14]) * 256 + usize::from(header[15]),
        };
        while !whole(&header) && conn.stream.read_exact(&mut byte).is_ok() {
            header.push(byte[0]);
        }
        notes.lock().unwrap().push(header);
        while conn.request().is_some() {
            conn.reply("200 OK", "ok");
        }
    });
    (origin, seen)
}

#[test]
fn endpoints_are_told_who_the_client_is() {
    let (origin, seen) = noting();
    let yaml = |spec: &str| config(&[&origin.address], "") + &policy(TRUSTED) + &backend_policy(spec);
    let proxy = Proxy::with(&yaml("  proxyProtocol: {version: V1}\n"), &Options { workers: 1, ..Options::default() });
    let ask = |port: u16, requests: usize| {
        let mut client = proxy.client();
        client.send(format!("PROXY TCP4 192.0.2.7 198.51.100.1 {port} 443\r\n"));
        assert!((0..requests).all(|_| client.get("/").status == 200));
    };
    ask(1000, 3);
    ask(1001, 2);
    let all = std::mem::take(&mut *seen.lock().unwrap());
    let line = |port| format!("PROXY TCP4 192.0.2.7 198.51.100.1 {port} 443\r\n").into_bytes();
    assert_eq!(all, [line(1000), line(1001)], "one connection for each client, kept for its own requests only");

    proxy.reload(&yaml("  proxyProtocol: {version: V2, tlvs: [UniqueID, CRC32C, Authority, ALPN, SSL]}\n"));
    ask(1000, 2);
    let all = std::mem::take(&mut *seen.lock().unwrap());
    let [header] = &all[..] else { panic!("{all:?}") };
    assert_eq!(header[..16], v2(0x21, 0x11, &[0; 12 + 7 + 19])[..16]);
    assert_eq!(header[16..28], ENDS);
    // A checksum of four bytes, then an identity of sixteen; there is no TLS to tell about.
    assert_eq!((&header[28..31], &header[35..38], header.len()), (&[3, 0, 4][..], &[5, 0, 16][..], 54));
}

#[test]
fn a_chain_of_proxies_keeps_the_client_through_tls() {
    // Passed through by the first, ended by the second: what the first says comes ahead of the ClientHello.
    let authority = Authority::new("ca");
    let inner = Proxy::start(&(https(&authority, &["echo"]) + &policy(TRUSTED)));
    let yaml = gateway("  - {name: sni, port: 8080, protocol: TLS, tls: {mode: Passthrough}}\n")
        + &tls_route("origin", "site.example", "", &[&inner.address])
        + &policy(TRUSTED)
        + &backend_policy("  proxyProtocol: {version: V2, tlvs: [Authority, CRC32C]}\n");
    let outer = Proxy::start(&yaml);
    let mut stream = Connector::new(&authority).open(&outer.address, "site.example").unwrap();
    stream.sock.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\n").unwrap();
    assert_eq!(forwarded_for(&mut Client::over(stream)), "192.0.2.7");
}
