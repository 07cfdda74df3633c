//! ClientPolicy: hops, paths, and limits of connections, in both versions of HTTP.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Response};
use crate::support::eventually;
use crate::support::h2::{Ended, H2, REFUSED_STREAM, SETTINGS, get, post};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config, policy};

fn start(endpoint: &str, spec: &str) -> Proxy {
    Proxy::with(&(config(&[endpoint], "") + &policy(spec)), &Options { workers: 4, ..Options::default() })
}

fn ask(proxy: &Proxy, target: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x.example\r\n{fields}\r\n"));
    client.response()
}

#[test]
fn the_client_is_so_many_hops_away() {
    let access = "---\napiVersion: ringway.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: a}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]\n  authorization: {rules: [{action: Allow, principal: {clientCIDRs: [192.0.2.0/24]}}]}\n";
    let hops = policy("  clientIPDetection: {xForwardedFor: {numTrustedHops: 2}}\n");
    let proxy = Proxy::start(&(config(&["echo"], "") + access + &hops));
    for (chain, status) in [
        ("203.0.113.9, 192.0.2.1, 10.0.0.1", 200),
        ("192.0.2.1, 10.0.0.1", 200),
        ("192.0.2.1:4711, [2001:db8::1]:80", 200),
        ("192.0.2.1, 203.0.113.9, 10.0.0.1", 403),
        // Not through as many proxies as there are: the connection's own address.
        ("192.0.2.1", 403),
        ("nonsense, 192.0.2.1", 403),
    ] {
        assert_eq!(ask(&proxy, "/", &format!("X-Forwarded-For: {chain}\r\n")).status, status, "{chain}");
    }
    let told = ask(&proxy, "/", "X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n").json();
    let field = |name: &str| told["headers"][name][0].as_str().unwrap_or_default().to_owned();
    assert!(field("x-forwarded-for").starts_with("192.0.2.1, 10.0.0.1, 127."), "{}", field("x-forwarded-for"));
    assert_eq!(field("x-forwarded-proto"), "https");
}

/// Status and, of the responder's answer, the path; in both versions.
fn path(proxy: &Proxy, target: &str) -> (u16, String) {
    let old = ask(proxy, target, "");
    let mut new = H2::connect(&proxy.address);
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x.example"), (":path", target)];
    let stream = new.open(&fields, true);
    let answer = new.answer(stream);
    assert_eq!(answer.status(), old.status, "{target}");
    match old.status {
        200 => {
            let told = old.json()["path"].as_str().unwrap().to_owned();
            assert!(answer.text().contains(&format!("\"path\":\"{told}\"")), "{target}: {}", answer.text());
            (200, told)
        }
        status => (status, old.header("location").unwrap_or_default().to_owned()),
    }
}

#[test]
fn paths_have_slashes_as_the_policy_says() {
    const ESCAPED: &str = "/a%2fb//c%5Cd?x=%2f";
    for (settings, expected) in [
        ("{}", (200, "/a%2Fb//c%5Cd?x=%2f")),
        ("{disableMergeSlashes: false}", (200, "/a%2Fb/c%5Cd?x=%2f")),
        ("{escapedSlashesAction: RejectRequest}", (400, "")),
        ("{escapedSlashesAction: UnescapeForward}", (200, "/a/b//c/d?x=%2f")),
        ("{escapedSlashesAction: UnescapeForward, disableMergeSlashes: false}", (200, "/a/b/c/d?x=%2f")),
        ("{escapedSlashesAction: UnescapeRedirect}", (307, "http://x.example/a/b//c/d?x=%2f")),
    ] {
        let proxy = start("echo", &format!("  path: {settings}\n"));
        assert_eq!(path(&proxy, ESCAPED), (expected.0, expected.1.to_owned()), "{settings}");
        assert_eq!(path(&proxy, "/plain?x=%2f//"), (200, "/plain?x=%2f//".to_owned()), "{settings}");
    }
}

#[test]
fn unescaping_leads_nowhere_else() {
    let proxy = start("echo", "  path: {escapedSlashesAction: UnescapeRedirect}\n");
    // A path of two slashes would be another host.
    assert_eq!(path(&proxy, "/%2fevil.example/"), (307, "http://x.example//evil.example/".to_owned()));
    assert_eq!(path(&proxy, "/a/..%2f..%2fb").0, 400);
    let mut old = proxy.client();
    old.send("GET /%2f%5cevil.example HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().header("location"), Some("/evil.example"));
}

#[test]
fn a_connection_takes_so_many_requests() {
    let proxy = start("echo", "  connection: {connectionLimit: {maxRequestsPerConnection: 3}}\n");
    let mut client = proxy.client();
    let kept: Vec<bool> = (0..3).map(|_| client.get("/").header("connection") != Some("close")).collect();
    assert_eq!(kept, [true, true, false]);
    client.expect_close();
    let mut client = H2::connect(&proxy.address);
    for _ in 0..3 {
        let stream = client.open(&get("/"), true);
        assert_eq!(client.answer(stream).status(), 200);
    }
    assert!(client.goaway().is_some());
}

#[test]
fn a_connection_takes_requests_for_so_long() {
    let proxy = start("echo", "  connection: {connectionLimit: {maxConnectionDuration: 1s}}\n");
    let mut old = proxy.client();
    assert_eq!(old.get("/").status, 200);
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&get("/"), true);
    assert_eq!(new.answer(stream).status(), 200);
    // Both are idle, and their idle timeout is 75 s.
    old.expect_close();
    assert!(new.goaway().is_some());
    assert_eq!(proxy.metric("ringway_downstream_errors_total", &["reason=\"idle_timeout\""]), 0.0);
}

#[test]
fn a_listener_has_so_many_connections_on_all_cores() {
    let proxy = start("echo", "  connection: {connectionLimit: {value: 2}}\n");
    let served = |client: &mut Client| {
        client.try_send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            && client.response_to("GET").is_ok_and(|response| response.status == 200)
    };
    let mut clients: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    assert!(clients.iter_mut().all(served));
    for _ in 0..8 {
        assert!(!Client::try_connect(&proxy.address).is_ok_and(|mut client| served(&mut client)));
    }
    proxy.expect_metric("ringway_accept_errors_total", &["reason=\"listener_limit\""], 8.0);
    assert!(clients.iter_mut().all(served));
    // A place that becomes free is somebody else's.
    clients.pop();
    eventually("a place is free", || Client::try_connect(&proxy.address).is_ok_and(|mut client| served(&mut client)));
}

#[test]
fn streams_and_windows_are_as_the_policy_says() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        // Nothing is answered.
        while conn.fill() {}
    });
    let proxy = start(&origin.address, "  http2: {maxConcurrentStreams: 2, initialStreamWindowSize: 131072}\n");
    let mut client = H2::connect(&proxy.address);
    let settings = client.read().unwrap();
    assert_eq!(settings.kind, SETTINGS);
    let value = |wanted: u16| {
        let all = settings.payload.chunks(6).map(|pair| pair.split_at(2));
        let mut of = all.filter(|(id, _)| *id == wanted.to_be_bytes());
        of.next().map(|(_, value)| u32::from_be_bytes(value.try_into().unwrap()))
    };
    // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_INITIAL_WINDOW_SIZE.
    assert_eq!((value(3), value(4)), (Some(2), Some(131_072)));
    client.take(settings);
    client.settle();
    let ids: Vec<u32> = (0..3).map(|_| client.open(&post("/"), false)).collect();
    assert_eq!(client.answer(ids[2]).ended, Some(Ended::Reset(REFUSED_STREAM)));
    assert!(ids[..2].iter().all(|id| !client.answers.contains_key(id)));
}

#[test]
fn a_request_that_takes_too_long_to_come_is_408() {
    let origin = Origin::echo();
    let proxy = start(&origin.address, "  timeout: {http: {requestReceivedTimeout: 1s}}\n");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    // Something comes all the time, and yet it is not whole in time.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) && client.try_send("x") {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.response_to("POST").unwrap().status, 408);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_timeout\""], 1.0);
    assert_eq!(ask(&proxy, "/", "").status, 200);
}
