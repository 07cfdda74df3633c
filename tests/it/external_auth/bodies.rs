//! Bodies and trailers of requests that another server is asked about.

use std::time::Duration;

use super::{body_judge, config, judge, start};
use crate::support::client::Ended;
use crate::support::h2::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, block, post};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

#[test]
fn a_body_goes_along_where_it_is_to() {
    let (auth, app) = (body_judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ", forwardBody: {maxSize: 20000}"));
    let mut client = proxy.client();
    let long = "good".repeat(5000);
    let head = "POST /a HTTP/1.1\r\nHost: x\r\n";
    // With its head, behind it, in pieces, in chunks, with a request behind it.
    client.send(format!("{head}Content-Length: 7\r\n\r\ngoodbye"));
    assert_eq!(client.response().status, 200);
    client.send(format!("{head}Content-Length: {}\r\n\r\ngo", long.len()));
    std::thread::sleep(Duration::from_millis(50));
    for piece in long.as_bytes()[2..].chunks(7000) {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.response().status, 200);
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\ngoo\r\n"));
    std::thread::sleep(Duration::from_millis(20));
    client.send("2\r\nd!\r\n0\r\nX-Trailer: t\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 403, "without a body");
    client.send(format!("{head}Content-Length: 3\r\n\r\nbad"));
    assert_eq!(client.response().status, 403);
    // A client that waits until it is asked for the body.
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: 7\r\n\r\n"));
    assert_eq!(client.response().status, 100);
    client.send("goodbye");
    assert_eq!(client.response().status, 200);
    let bodies = |origin: &Origin| origin.requests().into_iter().map(|request| request.body).collect::<Vec<_>>();
    let passed: [&[u8]; 4] = [b"goodbye", long.as_bytes(), b"good!", b"goodbye"];
    assert_eq!(bodies(&app), passed);
    assert_eq!(bodies(&auth), [passed[0], passed[1], passed[2], b"", b"bad", passed[3]]);
    let asked = auth.requests();
    assert!(
        asked.iter().all(|request| request.header("transfer-encoding").is_none() && request.header("expect").is_none())
    );
    assert_eq!(app.requests()[2].trailers[0].0.to_lowercase(), "x-trailer");
    assert_eq!(app.requests()[3].header("expect"), None);
}

/// What the server alone may say is not said by a client behind its body: in chunks or frames, to endpoints of HTTP/1.1 and
/// HTTP/2, of which the second is a proxy of its own.
#[test]
fn trailers_cannot_say_what_the_server_says() {
    let (auth, app) = (judge(), Origin::echo());
    let behind = Proxy::to(&app.address);
    let (ip, port) = behind.address.rsplit_once(':').unwrap();
    let in_frames = format!("spec: {{appProtocol: kubernetes.io/h2c, endpoints: [{{ip: {ip}, port: {port}}}]");
    let plain = config(&auth.address, &app.address, ", http: {allowedResponseHeaders: [X-User, X-Role]}");
    let framed = config(&auth.address, "127.0.0.1:1", ", http: {allowedResponseHeaders: [X-User, X-Role]}")
        .replace("spec: {endpoints: [{ip: \"127.0.0.1\", port: 1}]", &in_frames);
    // The server has said one of the two, and nothing of the other.
    let trailers = [("x-user", "root"), ("x_user", "root"), ("x-role", "admin"), ("x-sum", "1")];
    for yaml in [&plain, &framed] {
        let proxy = start(yaml);
        let mut client = proxy.client();
        let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = "POST /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}2\r\nhi\r\n0\r\n{lines}\r\n"));
        assert_eq!(client.response().status, 200);
        client.send(format!("{head}2\r\nhi\r\n"));
        std::thread::sleep(Duration::from_millis(30));
        client.send(format!("0\r\n{lines}\r\n"));
        assert_eq!(client.response().status, 200);
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&[post("/a"), vec![("authorization", "Bearer good")]].concat(), false);
        client.frame(DATA, 0, stream, b"hi");
        client.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&trailers));
        assert_eq!(client.answer(stream).status(), 200);
    }
    let asked = app.requests();
    assert_eq!(asked.len(), 6);
    for request in asked {
        let names: Vec<String> = request.trailers.iter().map(|(name, _)| name.to_lowercase()).collect();
        assert_eq!((request.header("x-user"), names), (Some("me"), vec!["x-sum".to_owned()]));
    }
}

#[test]
fn a_body_that_is_too_long_or_broken_is_not_asked_for() {
    let (auth, app) = (body_judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ", forwardBody: {maxSize: 16}"));
    let head = "POST /a HTTP/1.1\r\nHost: x\r\n";
    for (rest, status) in [
        (format!("Content-Length: 17\r\n\r\n{}", "g".repeat(17)), 413),
        (format!("Transfer-Encoding: chunked\r\n\r\n11\r\n{}\r\n0\r\n\r\n", "g".repeat(17)), 413),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\ngoodX".to_owned(), 400),
        ("Expect: 100-continue\r\nContent-Length: 17\r\n\r\n".to_owned(), 413),
    ] {
        let mut client = proxy.client();
        client.send(format!("{head}{rest}"));
        assert_eq!(client.response().status, status, "{rest}");
        client.expect_close();
    }
    // Cut, and never whole: nobody is told anything.
    let mut client = proxy.client();
    client.send(format!("{head}Content-Length: 10\r\n\r\ngood"));
    client.finish();
    assert_eq!(client.response_to("GET"), Err(Ended::Closed));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_cut\""], 1.0);
    // In HTTP/2 as well.
    let mut client = H2::connect(&proxy.address);
    let stream = client.open(&post("/a"), false);
    client.frame(DATA, 0, stream, &[b'g'; 10]);
    client.frame(DATA, END_STREAM, stream, &[b'g'; 10]);
    assert_eq!(client.answer(stream).status(), 413);
    assert_eq!((auth.requests().len(), app.requests().len()), (0, 0));
}
