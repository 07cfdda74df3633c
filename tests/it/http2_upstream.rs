//! HTTP/2 towards origins, by prior knowledge and by ALPN, from clients of both versions. What answers is the proxy itself
//! on another port, in front of an origin that speaks HTTP/1.1, or a script of frames.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::support::eventually;
use crate::support::h2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, Ended, GOAWAY, H2, HEADERS, NO_ERROR, PING, REFUSED_STREAM, RST_STREAM,
    block, post,
};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, config, gateway};
use crate::support::tls::Authority;

pub const HTTP2: &str = "kubernetes.io/h2c";

fn h2c(name: &str, endpoints: &[&str]) -> String {
    backend(name, endpoints).replace("spec: {", &format!("spec: {{appProtocol: {HTTP2}, "))
}

fn to_h2c(endpoint: &str) -> Proxy {
    Proxy::start(
        &config(&[endpoint], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints")),
    )
}

fn route(name: &str, listener: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: {listener}}}]\n  rules:\n  - backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]\n"
    )
}

/// Port 8080 goes to port 8082 in HTTP/2, and that to the origin in HTTP/1.1.
pub fn chained(origin: &str) -> Proxy {
    Proxy::start(&chain(origin))
}

pub fn chain(origin: &str) -> String {
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: inner, port: 8082, protocol: HTTP}\n";
    gateway(listeners)
        + &route("outer", "web", "inner")
        + &route("inner", "inner", "origin")
        + &h2c("inner", &["{ip}:8082"])
        + &backend("origin", &[origin])
}

/// A server of frames: runs a script for every connection; how many there have been.
pub fn frames(
    settings: &'static [u8],
    script: impl Fn(H2, usize) + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(format!("{}:0", crate::support::address())).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (count, script) = (Arc::new(AtomicUsize::new(0)), Arc::new(script));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let script = Arc::clone(&script);
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                if let Some(server) = H2::accept(stream, settings) {
                    script(server, number);
                }
            });
        }
    });
    (address, count)
}

/// Header table of no size, so that requests need no table.
pub const PLAIN: &[u8] = &[0, 1, 0, 0, 0, 0];

#[test]
fn requests_of_both_versions_share_a_connection() {
    let proxy = chained("echo");
    let mut old = proxy.client();
    let mut new = H2::connect(&proxy.address);
    for n in 0..10 {
        let told = old.get(&format!("/a/{n}?x=1")).json();
        assert_eq!(told["path"], format!("/a/{n}?x=1"));
        assert_eq!(told["host"], "example.com");
        let stream = new.get(&format!("/b/{n}"));
        assert!(new.answer(stream).text().contains(&format!("\"path\":\"/b/{n}\"")));
    }
    // Of each worker that has had a request, to each worker's listener.
    let metrics = proxy.metrics();
    let inner = crate::support::proxy::sum(&metrics, "ringway_connections_total", &["inner"]);
    assert!((1.0..=2.0).contains(&inner), "{inner} connections: {metrics}");
    proxy.expect_metric("ringway_upstream_requests_total", &["inner"], 20.0);
}

#[test]
fn many_requests_at_once() {
    let proxy = chained("echo");
    let mut new = H2::connect(&proxy.address);
    for round in 0..5 {
        let streams: Vec<u32> = (0..100).map(|n| new.get(&format!("/{round}/{n}"))).collect();
        for (n, stream) in streams.into_iter().enumerate() {
            let answer = new.answer(stream);
            assert!(answer.text().contains(&format!("\"path\":\"/{round}/{n}\"")), "{answer:?}");
        }
    }
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

#[test]
fn bodies_trailers_and_interim_answers_pass() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::script(move |mut conn, _| {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"x-sum: 1\r\n\r\n") && conn.fill() {
            bytes.extend(conn.take());
        }
        tell.lock().unwrap().send(bytes).unwrap();
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-End: 1\r\n\r\n");
    });
    let proxy = chained(&origin.address);
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&post("/"), false);
    new.frame(DATA, 0, stream, b"hello");
    new.frame(DATA, 0, stream, &[b'x'; 10_000]);
    new.frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&[("x-sum", "1")]));
    let answer = new.answer(stream);
    assert_eq!(answer.heads[..2], [103, 200]);
    assert_eq!((answer.heads.len(), answer.text(), &answer.ended), (3, "hello world", &Some(Ended::Whole)));
    let bytes = String::from_utf8(told.recv().unwrap()).unwrap();
    assert!(bytes.contains("transfer-encoding: chunked\r\n"), "{bytes}");

    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
    let interim = old.response();
    assert_eq!((interim.status, interim.header("link")), (103, Some("a")));
    let answer = old.response();
    assert_eq!((answer.status, answer.text()), (200, "hello world"));
    assert_eq!(answer.trailers, [("x-end".to_owned(), "1".to_owned())]);
    let bytes = String::from_utf8(told.recv().unwrap()).unwrap();
    assert!(bytes.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{bytes}");
}

#[test]
fn lengths_and_bodiless_answers_are_kept() {
    let origin = Origin::replying(|request| match request.target.as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ if request.method == "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
            request.body.len(),
            "x".repeat(request.body.len())
        )
        .into_bytes(),
    });
    let proxy = chained(&origin.address);
    let mut old = proxy.client();
    for body in [0, 1, 5000, 70_000, 1_000_000] {
        old.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n{}", "y".repeat(body)));
        let answer = old.response();
        assert_eq!((answer.status, answer.body.len()), (200, body));
        assert_eq!(answer.header("content-length"), Some(body.to_string().as_str()));
    }
    old.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = old.response_to("HEAD").unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("7")));
    assert_eq!(old.get("/204").status, 204);
    let answer = old.get("/304");
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"a\"")));
    assert_eq!(old.get("/").status, 200);
}

#[test]
fn an_expectation_is_passed_on() {
    let origin = Origin::script(|mut conn, _| {
        let Some(mut request) = conn.head() else { return };
        assert_eq!(request.header("expect"), Some("100-continue"));
        if request.target == "/refused" {
            conn.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(conn.body(&mut request));
        conn.reply("200 OK", &request.body.len().to_string());
    });
    let proxy = chained(&origin.address);
    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(old.response().status, 100);
    old.send("hello");
    assert_eq!(old.response().text(), "5");
    let mut refused = proxy.client();
    refused.send("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(refused.response().status, 413);
}

/// An answer before the request's end: it passes, and the rest of the request is not waited for.
#[test]
fn early_answers_pass() {
    let (address, _) = frames(PLAIN, |mut server, _| {
        while let Some(stream) = server.request() {
            server.reply(stream, "413", b"too much");
            server.reset(stream, NO_ERROR);
        }
    });
    let proxy = to_h2c(&address);
    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello");
    let answer = old.response();
    assert_eq!((answer.status, answer.text()), (413, "too much"));
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&post("/"), false);
    new.frame(DATA, 0, stream, b"hello");
    let answer = new.answer(stream);
    assert_eq!((answer.status(), answer.text()), (413, "too much"));
    new.settle();
}

#[test]
fn a_clients_reset_reaches_the_origin() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let (address, _) = frames(PLAIN, move |mut server, _| {
        while let Some(stream) = server.request() {
            tell.lock().unwrap().send(format!("begun {stream}")).unwrap();
            while let Some(frame) = server.read() {
                if frame.kind == RST_STREAM {
                    tell.lock().unwrap().send(format!("reset {}", frame.stream)).unwrap();
                    break;
                }
            }
        }
    });
    let proxy = to_h2c(&address);
    let wait = |what: &str| assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), what);
    let mut new = H2::connect(&proxy.address);
    let stream = new.get("/");
    wait("begun 1");
    new.reset(stream, CANCEL);
    wait("reset 1");
    let mut old = proxy.client();
    old.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(begun == "begun 3" || begun == "begun 1", "{begun}");
    old.abort();
    wait(&begun.replace("begun", "reset"));
}

#[test]
fn an_origins_reset_is_a_502_or_a_cut() {
    let (address, _) = frames(PLAIN, |mut server, _| {
        let mut count = 0;
        while let Some(stream) = server.request() {
            count += 1;
            if count % 2 == 0 {
                server.frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
                server.frame(DATA, 0, stream, b"hello");
            }
            server.reset(stream, 2);
        }
    });
    let proxy = Proxy::with(
        &config(&[&address], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints")),
        &crate::support::proxy::Options { workers: 1, ..Default::default() },
    );
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&post("/"), true);
    assert_eq!(new.answer(stream).status(), 502);
    let stream = new.open(&post("/"), true);
    let ended = new.answer(stream).ended;
    assert!(matches!(ended, Some(Ended::Reset(code)) if code != NO_ERROR), "{ended:?}");
    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(old.response().status, 502);
    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(old.response_to("POST").is_err(), "a cut answer passed for a whole one");
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"reset\""], 4.0);
}

/// What the origin says it has not looked at is sent again, whatever it is.
#[test]
fn refused_requests_are_sent_again() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let refused = Arc::clone(&refusals);
    let (address, _) = frames(PLAIN, move |mut server, _| {
        while let Some(stream) = server.request() {
            if refused.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                server.reset(stream, REFUSED_STREAM);
            } else {
                server.reply(stream, "200", b"done");
            }
        }
    });
    let proxy = to_h2c(&address);
    let mut old = proxy.client();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(old.response().text(), "done");
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&post("/"), true);
    assert_eq!(new.answer(stream).text(), "done");
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"refused\""], 2.0);
}

/// Streams above the last that a GOAWAY names are sent on another connection; those below it finish.
#[test]
fn a_goaway_moves_requests_on() {
    let (address, connections) = frames(PLAIN, |mut server, number| {
        if number > 0 {
            while let Some(stream) = server.request() {
                server.reply(stream, "200", b"second");
            }
            return;
        }
        let first = server.request().unwrap();
        let _second = server.request().unwrap();
        let mut last = first.to_be_bytes().to_vec();
        last.extend_from_slice(&NO_ERROR.to_be_bytes());
        server.frame(GOAWAY, 0, 0, &last);
        std::thread::sleep(Duration::from_millis(50));
        server.reply(first, "200", b"first");
        while server.read().is_some() {}
    });
    let proxy = Proxy::with(
        &config(&[&address], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints")),
        &crate::support::proxy::Options { workers: 1, ..Default::default() },
    );
    let mut new = H2::connect(&proxy.address);
    let streams = [new.open(&post("/"), true), new.open(&post("/"), true)];
    let mut texts: Vec<String> = streams.iter().map(|stream| new.answer(*stream).text().to_owned()).collect();
    texts.sort();
    assert_eq!(texts, ["first", "second"]);
    let stream = new.open(&post("/"), true);
    assert_eq!(new.answer(stream).text(), "second");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// No connection carries more than it may, and another is there before the first is full.
#[test]
fn streams_are_spread_over_connections() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let go = Arc::new(AtomicBool::new(false));
    let went = Arc::clone(&go);
    let (address, connections) = frames(PLAIN, move |mut server, _| {
        server.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut open = Vec::new();
        loop {
            match server.request() {
                Some(stream) => {
                    open.push(stream);
                    seen.fetch_max(open.len(), Ordering::SeqCst);
                }
                None if went.load(Ordering::SeqCst) => {
                    for stream in open.drain(..) {
                        if !server.reply(stream, "200", b"ok") {
                            return;
                        }
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                None => {}
            }
        }
    });
    let yaml = config(&[&address], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints"))
        + "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: few}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  http2: {maxConcurrentStreams: 8}\n";
    let proxy = Proxy::with(&yaml, &crate::support::proxy::Options { workers: 1, ..Default::default() });
    let mut new = H2::connect(&proxy.address);
    let streams: Vec<u32> = (0..40).map(|_| new.get("/")).collect();
    new.settle();
    eventually("there are connections for all", || connections.load(Ordering::SeqCst) >= 5);
    std::thread::sleep(Duration::from_millis(200));
    go.store(true, Ordering::SeqCst);
    for stream in streams {
        assert_eq!(new.answer(stream).text(), "ok");
    }
    assert!(most.load(Ordering::SeqCst) <= 8, "{most:?} streams on one connection");
    assert!(connections.load(Ordering::SeqCst) <= 10, "{connections:?} connections");
}

/// An endpoint that has a request, says nothing and answers no PING is given up.
#[test]
fn a_silent_connection_is_asked_and_given_up() {
    let pings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pings);
    let (address, connections) = frames(PLAIN, move |mut server, number| {
        let Some(stream) = server.request() else { return };
        if number > 0 {
            server.reply(stream, "200", b"other");
        }
        while let Some(frame) = server.read() {
            if frame.kind == PING && frame.flags == 0 {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let yaml = config(&[&address], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints"))
        + "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: ping}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  http2: {keepAlive: {interval: 200ms, timeout: 300ms}}\n";
    let proxy = Proxy::with(&yaml, &crate::support::proxy::Options { workers: 1, ..Default::default() });
    let mut new = H2::connect(&proxy.address);
    let stream = new.open(&post("/"), true);
    assert_eq!(new.answer(stream).status(), 502);
    assert_eq!(pings.load(Ordering::SeqCst), 1);
    let stream = new.open(&post("/"), true);
    assert_eq!(new.answer(stream).text(), "other");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// A slow client stops its origin's stream, and no other.
#[test]
fn credit_goes_from_end_to_end() {
    let origin = Origin::replying(|request| {
        let size = if request.target == "/large" { 8 << 20 } else { 10 };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    });
    let proxy = chained(&origin.address);
    let mut new = H2::connect(&proxy.address);
    new.generous = false;
    let large = new.get("/large");
    while new.answers.get(&large).is_none_or(|answer| answer.body.len() < 65_535) {
        assert!(new.step());
    }
    let mut other = proxy.client();
    for _ in 0..20 {
        assert_eq!(other.get("/small").body.len(), 10);
    }
    assert!(proxy.anonymous_kib() < 64 << 10, "{} KiB", proxy.anonymous_kib());
    new.frame(crate::support::h2::WINDOW_UPDATE, 0, 0, &(16_u32 << 20).to_be_bytes());
    new.frame(crate::support::h2::WINDOW_UPDATE, 0, large, &(16_u32 << 20).to_be_bytes());
    assert_eq!(new.answer(large).body.len(), 8 << 20);
}

/// What is offered in the handshake decides, where nothing else has been said.
#[test]
fn by_alpn_over_tls() {
    let authority = Authority::new("ca");
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: inner, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n";
    let old = crate::support::address();
    let tls = |name: &str, endpoint: &str| {
        backend(name, &[endpoint]).replace(
            "spec: {",
            "spec: {tls: {hostname: site.example, caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]}, ",
        )
    };
    let yaml = gateway(listeners)
        + &route("outer", "web", "inner")
        + &route("inner", "inner", "echo")
        + &tls("inner", "{ip}:8443")
        + &backend("echo", &["echo"])
        + &authority.leaf(&["site.example"]).secret("site")
        + &authority.config_map("ca");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    for n in 0..5 {
        let told = client.get(&format!("/{n}")).json();
        assert_eq!(told["path"], format!("/{n}"));
        assert_eq!(told["tls"]["alpn"], "h2", "{told}");
    }
    drop(old);
}

/// CVE-2023-35945: an endpoint that answers everything by RST_STREAM and GOAWAY leaves nothing behind.
#[test]
fn resets_with_goaways_leave_nothing_behind() {
    let (address, connections) = frames(PLAIN, |mut server, _| {
        let Some(stream) = server.request() else { return };
        server.reset(stream, 2);
        server.frame(GOAWAY, 0, 0, &[stream.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
        while server.read().is_some() {}
    });
    let proxy = Proxy::with(
        &config(&[&address], "").replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints")),
        &crate::support::proxy::Options { workers: 1, ..Default::default() },
    );
    let mut client = H2::connect(&proxy.address);
    let mut measured = 0;
    for number in 0..600 {
        let stream = client.open(&post("/"), true);
        assert_eq!(client.answer(stream).status(), 502);
        if number == 100 {
            measured = proxy.anonymous_kib();
        }
    }
    let grown = proxy.anonymous_kib().saturating_sub(measured);
    assert!(grown < 4 << 10, "{grown} KiB more after 500 connections");
    assert!(connections.load(Ordering::SeqCst) >= 600);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

/// A connection dies, or is found to be dead, with requests on it and others that wait for a place: the former are told, the
/// latter go on another one, and nobody is left waiting.
#[test]
fn a_connection_that_dies_leaves_nobody_waiting() {
    for silent in [true, false] {
        let (address, connections) = frames(PLAIN, move |mut server, number| {
            if number > 0 {
                while let Some(stream) = server.request() {
                    server.reply(stream, "200", b"other");
                }
                return;
            }
            let _held = [server.request().unwrap(), server.request().unwrap()];
            if silent {
                while server.read().is_some() {}
            } else {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let yaml = config(&[&address], "")
            .replace("spec: {endpoints", &format!("spec: {{appProtocol: {HTTP2}, endpoints"))
            + "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: one}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  http2: {maxConcurrentStreams: 2, keepAlive: {interval: 300ms, timeout: 300ms}}\n  circuitBreaker: {maxConnections: 1, maxPendingRequests: 100, pendingTimeout: 60s}\n";
        let proxy = Proxy::with(&yaml, &crate::support::proxy::Options { workers: 1, ..Default::default() });
        let mut client = H2::connect(&proxy.address);
        let streams: Vec<u32> = (0..8).map(|_| client.open(&post("/"), true)).collect();
        let mut told: Vec<(u16, String)> = streams
            .iter()
            .map(|stream| client.answer(*stream))
            .map(|answer| {
                (answer.status(), if answer.status() == 200 { answer.text().to_owned() } else { String::new() })
            })
            .collect();
        told.sort();
        let expected = [vec![(200, "other".to_owned()); 6], vec![(502, String::new()); 2]].concat();
        assert_eq!(told, expected, "silent: {silent}");
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        eventually("nothing is in flight", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
        assert_eq!(proxy.metric("ringway_upstream_pending", &[]), 0.0);
    }
}
