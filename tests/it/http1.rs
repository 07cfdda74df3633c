//! HTTP/1.1 as such: framing, keep-alive, pipelining, 1xx, upgrade, early answers.

use std::time::Duration;

use crate::support::client::{Client, Ended};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

#[test]
fn keep_alive_reuses_both_connections() {
    let origin = Origin::echo();
    let proxy = Proxy::with(
        &crate::support::proxy::config(&[&origin.address], ""),
        &crate::support::proxy::Options { workers: 1, ..Default::default() },
    );
    let mut client = proxy.client();
    for index in 0..50 {
        assert_eq!(client.get(&format!("/{index}")).text(), format!("GET /{index}"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    let mut all = String::new();
    for index in 0..40 {
        if index % 3 == 0 {
            all += &format!("POST /{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        } else {
            all += &format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n");
        }
    }
    client.send(&all);
    for index in 0..40 {
        let method = if index % 3 == 0 { "POST" } else { "GET" };
        assert_eq!(client.response().text(), format!("{method} /{index}"));
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = Origin::replying(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    for byte in
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
    {
        client.send([*byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(client.response().text(), "hello world");
    assert_eq!(client.get("/again").status, 200);
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let origin = Origin::script(|mut conn, _| {
        while conn.request().is_some() {
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n1;x=\"y\"\r\nd\r\n0\r\n\r\n";
            for byte in answer {
                if !conn.send([*byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.text(), response.header("x-a")), ("abcd", Some("b")));
    }
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let origin = Origin::script(|mut conn, _| {
        while let Some(request) = conn.request() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            conn.send(head);
            conn.send(&request.body);
        }
    });
    let proxy = Proxy::to(&origin.address);
    let body: Vec<u8> =
        (0..3_000_000_u32).map(|index| u8::try_from(index.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert!(client.response().body == body);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(70_001) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert!(client.response().body == body);
}

#[test]
fn trailers_pass_where_they_are_allowed() {
    let origin = Origin::script(|mut conn, seen| {
        while let Some(request) = conn.request() {
            seen.lock().unwrap().push(request);
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n");
        }
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Check: 5\r\nHost: evil\r\n\r\n");
    let response = client.response();
    assert_eq!(response.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    let request = origin.request();
    assert_eq!(request.trailers.iter().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>(), ["x-check"]);
}

#[test]
fn head_204_and_304_have_no_body() {
    let origin = Origin::replying(|request| {
        match request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
        }
        .as_bytes()
        .to_vec()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_to("HEAD").unwrap();
    assert_eq!((response.status, response.header("content-length")), (200, Some("99")));
    assert_eq!(client.get("/204").status, 204);
    assert_eq!(client.get("/304").status, 304);
    assert_eq!(client.get("/204").status, 204);
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    let origin =
        Origin::replying(|_| b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec());
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text(), response.until_close), ("ok", true));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "ok");
    assert!(response.header("transfer-encoding").is_none());
}

#[test]
fn connection_close_is_respected() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text(), response.header("connection")), ("GET /a", Some("close")));
    client.expect_close();
}

#[test]
fn a_client_that_has_finished_sending_is_still_answered() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    assert_eq!(client.response().text(), "GET /a");
    client.expect_close();
}

#[test]
fn expect_100_continue_goes_end_to_end() {
    let origin = Origin::script(|mut conn, _| {
        let mut request = conn.head().unwrap();
        assert_eq!(request.header("expect"), Some("100-continue"));
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(conn.body(&mut request));
        conn.reply("200 OK", std::str::from_utf8(&request.body).unwrap());
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("body");
    assert_eq!(client.response().text(), "body");
}

#[test]
fn an_origin_may_refuse_an_expectation() {
    let origin = Origin::script(|mut conn, _| {
        conn.head();
        conn.send("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "no"));
}

#[test]
fn interim_responses_pass_to_who_understands_them() {
    let origin = Origin::replying(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.response();
    assert_eq!((hints.status, hints.header("link")), (103, Some("</a>")));
    assert_eq!(client.response().status, 102);
    assert_eq!(client.response().text(), "ok");
    let mut old = proxy.client();
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.response().status, 200);
}

#[test]
fn upgrade_becomes_a_tunnel_with_the_bytes_read_ahead() {
    let origin = Origin::script(|mut conn, _| {
        let request = conn.request().unwrap();
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst");
        let mut got = conn.take();
        while got.len() < 9 {
            assert!(conn.fill());
            got.extend(conn.take());
        }
        conn.send(got);
        conn.close();
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nearly");
    let response = client.response();
    assert_eq!((response.status, response.header("upgrade")), (101, Some("websocket")));
    assert_eq!(client.raw(5), b"first");
    client.send("late");
    assert_eq!(client.raw(9), b"earlylate");
    client.expect_close();
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::script(|mut conn, _| {
        conn.head();
        conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        // It goes on reading, as servers that mean well do.
        while conn.fill() {
            conn.take();
        }
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart");
    let response = client.response();
    assert_eq!((response.status, response.text()), (403, "no"));
}

#[test]
fn absolute_and_asterisk_forms_are_understood() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET http://other.example/p?q HTTP/1.1\r\nHost: ignored\r\n\r\n");
    assert_eq!(client.response().text(), "GET /p?q");
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "OPTIONS *");
    let requests = origin.requests();
    assert_eq!(requests[0].header("host"), Some("other.example"));
}

#[test]
fn max_forwards_is_counted_down() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.requests().len(), 0);
    client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n");
    client.response();
    assert_eq!(origin.request().header("max-forwards"), Some("2"));
}

#[test]
fn every_answer_has_one_date() {
    let origin = Origin::replying(|request| {
        let date = if request.target == "/dated" { "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" } else { "" };
        format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n").into_bytes()
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    assert_eq!(client.get("/dated").header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    for raw in ["GET /undated HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        client.send(raw);
        let response = client.response();
        let date = response.header("date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT") && !date.contains("1994"), "{date}");
    }
}

#[test]
fn a_body_until_close_is_passed_on_whole() {
    let origin = Origin::closing("HTTP/1.1 200 OK\r\n\r\nall of it");
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "all of it");
    // To a client that understands chunks the connection stays usable.
    assert_eq!(client.get("/").text(), "all of it");
}

#[test]
fn unix_sockets_are_endpoints() {
    let directory = crate::support::proxy::Directory::new();
    let path = directory.0.join("origin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").unwrap();
            }
        }
    });
    let proxy = Proxy::to(&format!("unix:{}", path.display()));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "unix");
    assert_eq!(client.get("/").text(), "unix");
}

#[test]
fn idle_connections_survive_quiet_times() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client: Client = proxy.client();
    for index in 0..3 {
        assert_eq!(client.get(&format!("/{index}")).status, 200);
        // Longer than a connection keeps its buffer.
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(proxy.metric("ringway_worker_buffers_in_use", &[]), 0.0);
}

#[test]
fn a_cut_answer_is_never_a_short_success() {
    for (head, body) in [
        ("Content-Length: 100\r\n", "only this"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhel"),
    ] {
        let origin = Origin::closing(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"));
        let proxy = Proxy::to(&origin.address);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.response_to("GET") {
            Err(Ended::Reset(_) | Ended::Truncated(_)) => {}
            other => panic!("{head}{body}: {other:?}"),
        }
        proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"eof\""], 1.0);
    }
}

#[test]
fn every_byte_of_a_client_is_counted_as_it_passes() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let bytes = |direction: &str| proxy.metric("ringway_bytes_total", &[&format!("direction=\"{direction}\"")]);
    let mut client = proxy.client();
    let request = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{}", "b".repeat(200_000));
    client.send(&request);
    assert_eq!(client.response().text(), "POST /x");
    crate::support::eventually("the request is counted", || bytes("in") == request.len() as f64);
    // A second connection reads all that comes, and so knows its length.
    crate::support::eventually("the first answer is counted", || bytes("out") > 50.0);
    let before = bytes("out");
    let mut other = proxy.client();
    other.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = other.rest().unwrap();
    crate::support::eventually("the second too", || bytes("out") - before == answer.len() as f64);
    // The first one is still open.
    proxy.expect_metric("ringway_connections_active", &[], 1.0);
}
