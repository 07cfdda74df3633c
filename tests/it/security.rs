//! What has broken other proxies: one test for each, named in its comment.

use crate::support::client::Ended;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config};

fn recording(answer: &'static str) -> Origin {
    Origin::replying(move |_| answer.as_bytes().to_vec())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// CVE-2026-2833: a request behind one with Upgrade that the origin did not switch for is parsed, not passed raw.
#[test]
fn an_upgrade_answered_200_does_not_open_a_tunnel() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    assert_eq!(origin.request().target, "/up");
}

/// CVE-2026-2835: lists and repetitions of Transfer-Encoding, and Transfer-Encoding in HTTP/1.0.
#[test]
fn transfer_encoding_matrix() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for (fields, status) in [
        ("Transfer-Encoding: chunked", 200),
        ("Transfer-Encoding: Chunked", 200),
        ("Transfer-Encoding: chunked,", 200),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: identity, chunked", 501),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chun ked", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
    ] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n"));
        assert_eq!(client.response().status, status, "{fields:?}");
    }
    let mut client = proxy.client();
    client.send("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 400);
}

/// CVE-2025-4366: the body of a request that is answered here is not taken for the next request.
#[test]
fn the_body_behind_a_local_answer_is_not_a_request() {
    let origin = recording(OK);
    let yaml = config(&[&origin.address], "    matches: [{path: {value: /known}}]\n");
    let proxy = Proxy::start(&yaml);
    let smuggled = "GET /known/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = proxy.client();
    client.send(format!("POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}GET /known/next HTTP/1.1\r\nHost: a\r\n\r\n", smuggled.len()));
    assert_eq!(client.response().status, 404);
    assert_eq!(client.response().status, 200);
    let mut client = proxy.client();
    client.send(format!("POST /unknown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\nGET /known/next HTTP/1.1\r\nHost: a\r\n\r\n", smuggled.len()));
    assert_eq!(client.response().status, 404);
    assert_eq!(client.response().status, 200);
    let targets: Vec<String> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/known/next", "/known/next"]);
}

/// CVE-2026-58055: an upgrade with a body is no upgrade, and leaves nothing on a pooled connection.
#[test]
fn an_upgrade_with_a_body_is_an_ordinary_request() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 36\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n12");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/b").status, 200);
    let requests = origin.requests();
    assert_eq!(requests[0].header("upgrade"), None);
    assert_eq!(requests.iter().map(|request| request.target.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
}

/// CVE-2023-25725: an empty field name does not hide the fields behind it.
#[test]
fn an_empty_field_name_is_refused() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\n:\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 400);
    assert_eq!(origin.requests(), []);
}

/// CVE-2021-40346: long field names do not hide the fields behind them.
#[test]
fn long_field_names_hide_nothing() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for length in [255, 256, 257, 270, 4096, 16_383, 16_384, 32_768, 60_000, 65_535, 65_536, 70_000] {
        let mut client = proxy.client();
        client.try_send(format!(
            "POST /{length} HTTP/1.1\r\nHost: a\r\n{}: x\r\nContent-Length: 5\r\n\r\nhello",
            "n".repeat(length)
        ));
        let status = client.response().status;
        assert_eq!(status, if length < 65_000 { 200 } else { 431 }, "{length}");
    }
    for request in origin.requests() {
        assert_eq!((request.header("content-length"), request.body.as_slice()), (Some("5"), &b"hello"[..]));
    }
}

/// CVE-2023-40225: an empty Content-Length is not forwarded.
#[test]
fn an_empty_content_length_is_refused() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for field in ["Content-Length:\r\n", "Content-Length: \t\r\n", "Content-Length:\r\nContent-Length: 5\r\n"] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\nhello"));
        assert_eq!(client.response().status, 400, "{field:?}");
    }
    assert_eq!(origin.requests(), []);
}

/// CVE-2023-45539: a fragment in the target reaches no rule.
#[test]
fn a_fragment_is_refused() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for target in ["/a#b", "/#", "/a?q#b", "http://a/#b"] {
        let mut client = proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, 400, "{target}");
    }
    assert_eq!(origin.requests(), []);
}

/// CVE-2022-24766 and CVE-2022-24761: space before a colon, lax chunk extensions.
#[test]
fn space_before_colons_and_lax_chunks_are_refused() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for input in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\0=x\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\rc\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.send(input);
        assert_eq!(client.response().status, 400, "{input:?}");
    }
    assert_eq!(origin.requests(), []);
}

/// CVE-2023-38697 and CVE-2023-47627: signs, prefixes and separators in numbers, LF in chunk extensions.
#[test]
fn numbers_are_digits_only() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for number in ["+5", "-5", "0x5", "5_0", "5.0", "5,", "٥", "1e1"] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {number}\r\n\r\nhello"));
        assert_eq!(client.response().status, 400, "Content-Length: {number}");
        if number != "1e1" {
            let mut client = proxy.client();
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{number}\r\nhello\r\n0\r\n\r\n"
            ));
            assert_eq!(client.response().status, 400, "chunk size {number}");
        }
    }
    assert_eq!(origin.requests(), []);
}

/// The TERM.EXT and EXT.TERM classes of 2025: a line feed alone ends no line of chunked framing.
#[test]
fn a_line_feed_ends_no_chunk_line() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    for body in [
        "5;\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\n\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r0\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(body);
        assert_eq!(client.response().status, 400, "{body:?}");
    }
    assert_eq!(origin.requests(), []);
}

/// The 0.CL and Expect classes of 2025: a body announced with an expectation belongs to its request, whoever answers.
#[test]
fn an_expectation_shifts_no_request_boundary() {
    let origin = Origin::script(|mut conn, seen| {
        while let Some(request) = conn.head() {
            let refuse = request.target == "/refuse";
            seen.lock().unwrap().push(request);
            // It answers at once and does not read the body.
            conn.reply(if refuse { "403 Forbidden" } else { "200 OK" }, "");
        }
    });
    let proxy = Proxy::with(&config(&[&origin.address], ""), &Options { workers: 1, ..Default::default() });
    let mut client = proxy.client();
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 38\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n");
    assert_eq!(client.response().status, 403);
    // Whatever happens to this connection, what came as a body is never a request.
    let _rest = client.rest();
    assert_eq!(proxy.client().get("/next").status, 200);
    let targets: Vec<String> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/refuse", "/next"]);
    for expect in ["100-continue, x", "100-Continue-Not", "y 100-continue"] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response().status, 417, "{expect}");
    }
}

/// CVE-2026-39858 and kin: no spelling of a forwarding field reaches the origin from a stranger.
#[test]
fn aliases_of_forwarding_fields_are_dropped() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nx_forwarded-Host: evil\r\nX_Real_Ip: 6.6.6.6\r\nX_Request_Id: x\r\nX-Forwarded-Prefix: /p\r\nX_Forwarded_Prefix: /p\r\nX_Other: kept\r\n\r\n");
    client.response();
    let request = origin.request();
    let suspicious: Vec<&(String, String)> = request
        .headers
        .iter()
        .filter(|(name, value)| {
            let plain = name.to_lowercase().replace('_', "-");
            name.contains('_') && (plain.starts_with("x-forwarded") || plain == "x-real-ip" || plain == "x-request-id")
                || value == "6.6.6.6"
                || value == "/p"
        })
        .collect();
    assert!(suspicious.is_empty(), "{suspicious:?}");
    assert_eq!(request.header("x_other"), Some("kept"));
}

/// CVE-2024-45410: fields that the proxy sets survive being nominated by Connection.
#[test]
fn connection_cannot_remove_what_the_proxy_sets() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, Via, Host, Content-Length\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 200);
    let request = origin.request();
    for field in
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via", "host", "content-length"]
    {
        assert!(request.header(field).is_some(), "{field}");
    }
    assert_eq!(request.body, b"hello");
}

/// GHSA-6jwx-7vp4-9847: the path that is matched is the path that is forwarded.
#[test]
fn matching_and_forwarding_use_one_form_of_the_path() {
    let origin = recording(OK);
    let yaml = config(&[&origin.address], "    matches: [{path: {value: /public}}]\n");
    let proxy = Proxy::start(&yaml);
    for (target, expected) in [
        ("/public/a", Some("/public/a")),
        ("/%70ublic/%61", Some("/public/a")),
        ("/public/./a", Some("/public/a")),
        ("/x/../public/a", Some("/public/a")),
        ("/x/%2e%2e/public", Some("/public")),
        ("/public/../admin", None),
        ("/public/%2e%2e/admin", None),
        ("/public/.%2E/admin", None),
        ("/public%2fa", None),
        ("/public/a%2f%2e%2e%2fadmin", Some("/public/a%2F..%2Fadmin")),
        ("/public//a", Some("/public//a")),
        ("/public/a;b=c", Some("/public/a;b=c")),
        ("/public/%5c", Some("/public/%5C")),
        ("/Public", None),
    ] {
        let before = origin.requests().len();
        let mut client = proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        let forwarded = origin.requests().get(before).map(|request| request.target.clone());
        assert_eq!(forwarded.as_deref(), expected, "{target}: {}", response.status);
    }
}

/// CVE-2021-29492 and CVE-2021-32777: escaped slashes and repeated fields in route rules.
#[test]
fn rules_see_repeated_fields_and_escaped_slashes_as_they_are() {
    let origin = recording(OK);
    let yaml =
        config(&[&origin.address], "    matches: [{path: {value: /a/b}, headers: [{name: X-Role, value: user}]}]\n");
    let proxy = Proxy::start(&yaml);
    for (target, fields, status) in [
        ("/a/b", "X-Role: user\r\n", 200),
        ("/a/b", "X-Role: user\r\nX-Role: admin\r\n", 404),
        ("/a/b", "X-Role: admin\r\nX-Role: user\r\n", 404),
        ("/a%2fb", "X-Role: user\r\n", 404),
        ("/a%2Fb", "X-Role: user\r\n", 404),
    ] {
        let mut client = proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(client.response().status, status, "{target} {fields:?}");
    }
}

/// CVE-2023-39326: chunk extensions do not multiply the bytes that are read for a body.
#[test]
fn chunk_extensions_are_bounded() {
    let origin = recording(OK);
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(200));
    let mut sent = 0;
    while sent < 64 << 20 && client.try_send(chunk.repeat(50)) {
        sent += chunk.len() * 50;
    }
    assert!(sent < 64 << 20, "never refused");
    match client.response_to("GET") {
        Ok(response) => assert_eq!(response.status, 400),
        Err(Ended::Reset(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(origin.requests(), []);
}
