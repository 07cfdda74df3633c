//! What is changed on the way: hop-by-hop fields, forwarding fields, and who is believed.

use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, config, policy};

fn ok() -> Origin {
    Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
}

#[test]
fn forwarding_fields_are_set_and_a_strangers_are_replaced() {
    let origin = ok();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: site.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: chosen\r\n\r\n");
    client.response();
    let request = origin.request();
    let peer = client.stream.local_addr().unwrap().ip().to_string();
    assert_eq!(request.header("x-forwarded-for"), Some(peer.as_str()));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("site.example:81"));
    assert_eq!(request.header("host"), Some("site.example:81"));
    assert_ne!(request.header("x-request-id"), Some("chosen"));
    assert_eq!(request.header("x-request-id").unwrap().len(), 36);
    for gone in ["x-forwarded-port", "x-forwarded-prefix", "forwarded", "x-real-ip"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
}

#[test]
fn trusted_peers_are_believed_and_extended() {
    let origin = ok();
    let yaml = config(&[&origin.address], "")
        + &policy(
            "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8]}}\n  headers: {forwarded: true}\n",
        );
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Request-Id: kept\r\nForwarded: for=1.2.3.4\r\n\r\n");
    client.response();
    let request = origin.request();
    let peer = client.stream.local_addr().unwrap().ip().to_string();
    assert_eq!(request.headers("x-forwarded-for").join(", "), format!("1.2.3.4, {peer}"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-host"), Some("outer"));
    assert_eq!(request.header("x-request-id"), Some("kept"));
    let forwarded = request.headers("forwarded").join(", ");
    assert!(forwarded.starts_with("for=1.2.3.4, for=") && forwarded.contains(&peer), "{forwarded}");
}

#[test]
fn hop_by_hop_fields_end_here_in_both_directions() {
    let origin = Origin::replying(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\nX-End: 2\r\nTrailer: X\r\n\r\n".to_vec()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: gzip\r\nX-End: 2\r\n\r\n");
    let response = client.response();
    let request = origin.request();
    for gone in ["x-hop", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
    assert_eq!(request.header("x-end"), Some("2"));
    for gone in ["x-hop", "keep-alive"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
    assert_eq!(response.header("x-end"), Some("2"));
}

#[test]
fn via_is_sent_unless_turned_off() {
    let origin = ok();
    let proxy = Proxy::to(&origin.address);
    proxy.client().get("/");
    assert_eq!(origin.request().header("via"), Some("1.1 ringway"));
    let origin = ok();
    let proxy = Proxy::start(&(config(&[&origin.address], "") + &policy("  headers: {via: false}\n")));
    proxy.client().get("/");
    assert_eq!(origin.request().header("via"), None);
}

#[test]
fn several_lines_of_one_field_stay_several() {
    let origin = Origin::replying(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n".to_vec()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nAccept: x\r\nAccept: y\r\n\r\n");
    assert_eq!(client.response().headers("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(origin.request().headers("accept"), ["x", "y"]);
}
