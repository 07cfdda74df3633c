//! Requests that are wrong: each has one answer, one metric, and no request at the origin. `docs/bad-input.md` lists
//! them; `tests/arch.rs` holds the list and these tests together.

use std::time::Duration;

use crate::support::client::{Client, Ended};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, config, policy};

/// Sends each input on a connection of its own and expects a status, a close, and a count under `reason`.
fn refused(status: u16, reason: &str, inputs: &[&str]) {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    for input in inputs {
        let mut client = proxy.client();
        client.try_send(input);
        let response = client.response_to("GET").unwrap_or_else(|ended| panic!("{input:?}: {ended:?}"));
        assert_eq!(response.status, status, "{input:?}");
        assert_eq!(response.header("connection"), Some("close"), "{input:?}");
        assert_eq!(client.rest(), Ok(Vec::new()), "{input:?}");
    }
    assert_eq!(origin.requests(), [], "nothing of it goes upstream");
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    proxy.expect_metric("ringway_downstream_errors_total", &[&format!("reason=\"{reason}\"")], inputs.len() as f64);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

#[test]
fn malformed_heads() {
    refused(
        400,
        "malformed_head",
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n X: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\nContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
        ],
    );
}

#[test]
fn unknown_versions() {
    refused(
        505,
        "version",
        &[
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn bad_targets() {
    refused(
        400,
        "bad_target",
        &[
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn bad_hosts() {
    refused(
        400,
        "bad_host",
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        ],
    );
}

#[test]
fn ambiguous_framing() {
    refused(
        400,
        "ambiguous_framing",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5_0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    );
}

#[test]
fn unknown_transfer_codings() {
    refused(
        501,
        "transfer_coding",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked, chunked\r\n\r\n",
        ],
    );
}

#[test]
fn unmet_expectations() {
    refused(
        417,
        "expectation",
        &["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: the-unexpected\r\n\r\nx"],
    );
}

#[test]
fn connect_and_trace() {
    refused(405, "method", &["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

#[test]
fn long_targets() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 << 10));
    refused(414, "uri_too_long", &[&long]);
}

#[test]
fn large_heads() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(128));
    let value = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(65 << 10));
    let lines = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "y".repeat(1000)).repeat(100));
    refused(431, "head_too_large", &[&many, &value, &lines]);
}

#[test]
fn slow_heads() {
    let origin = Origin::echo();
    let proxy = Proxy::start(
        &(config(&[&origin.address], "") + &policy("  timeout: {http: {requestHeadersReceivedTimeout: 400ms}}\n")),
    );
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        if !client.try_send("y") {
            break;
        }
    }
    assert_eq!(client.response_to("GET").map(|response| response.status), Ok(408));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"header_timeout\""], 1.0);
    // One that says nothing at all is closed without a word.
    proxy.client().expect_close();
}

#[test]
fn idle_connections() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&(config(&[&origin.address], "") + &policy("  timeout: {http: {idleTimeout: 300ms}}\n")));
    let mut client = proxy.client();
    client.get("/");
    client.expect_close();
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"idle_timeout\""], 1.0);
}

/// An origin that reads bodies as far as they come and answers when they are whole.
fn reader() -> Origin {
    Origin::replying(|request| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Got: {}\r\n\r\n", request.body.len()).into_bytes()
    })
}

#[test]
fn bad_chunks() {
    let origin = reader();
    let proxy = Proxy::to(&origin.address);
    let inputs = [
        "x\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5_0\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n",
        "5;a\nb\r\nhello\r\n",
        "5;a=\"\r\nhello\r\n",
        "10000000000000000\r\n",
        "ffffffffffffffff1\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nA: b\n\r\n",
    ];
    for input in inputs {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(input);
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.response_to("GET") {
            Ok(response) => assert_eq!(response.status, 400, "{input:?}"),
            Err(ended) => panic!("{input:?}: {ended:?}"),
        }
        assert_eq!(client.rest().unwrap_or_default(), b"", "{input:?}");
    }
    assert_eq!(origin.requests(), []);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_chunk\""], inputs.len() as f64);
}

#[test]
fn endless_chunk_extensions_and_trailers() {
    let origin = reader();
    let proxy = Proxy::to(&origin.address);
    // Both workers have used every class of buffer by then.
    for _ in 0..20 {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
        client.response();
    }
    let before = proxy.anonymous_kib();
    for endless in [
        ";aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "0\r\n",
        "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n",
    ] {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        if endless.starts_with(';') {
            client.send("5");
        }
        if endless == "0\r\n" {
            client.send(endless);
        }
        let piece = if endless == "0\r\n" { "X-Trailer: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" } else { endless };
        let mut sent = 0_usize;
        while sent < 64 << 20 && client.try_send(piece.repeat(64)) {
            sent += piece.len() * 64;
        }
        assert!(sent < 64 << 20, "{endless:?} is never refused");
        if let Ok(response) = client.response_to("GET") {
            assert_eq!(response.status, 400);
        }
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_chunk\""], 3.0);
    assert!(proxy.anonymous_kib() < before + 8192, "{} KiB, then {}", before, proxy.anonymous_kib());
}

#[test]
fn large_bodies() {
    let origin = reader();
    let proxy = Proxy::start(&(config(&[&origin.address], "") + &policy("  limits: {bodyBytes: 1000}\n")));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(client.response().status, 413);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        client.try_send(format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    assert_eq!(client.response().status, 413);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_too_large\""], 2.0);
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)));
    assert_eq!(client.response().header("x-got"), Some("1000"));
}

#[test]
fn slow_bodies() {
    let origin = reader();
    let proxy =
        Proxy::start(&(config(&[&origin.address], "") + &policy("  timeout: {http: {streamIdleTimeout: 300ms}}\n")));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response_to("GET").map(|response| response.status), Ok(408));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_timeout\""], 1.0);
}

#[test]
fn cut_requests() {
    let origin = Origin::script(|mut conn, seen| {
        if let Some(request) = conn.request() {
            seen.lock().unwrap().push(request);
        }
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    client.finish();
    assert!(matches!(client.response_to("GET"), Err(Ended::Closed | Ended::Reset(_))));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_cut\""], 1.0);
    let client = proxy.client();
    let mut half: Client = client;
    half.send("GET / HT");
    half.finish();
    half.expect_close();
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 1.0);
    assert_eq!(origin.requests(), [], "the origin never takes a cut body for a whole one");
}
