//! WebSocket in every pairing of HTTP/1.1 and HTTP/2 (RFC 6455, RFC 8441), with the `websockets` library at the ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::http2_upstream::{chain, chained};
use crate::support::eventually;
use crate::support::h2::{DATA, END_STREAM, Ended, H2};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, config};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/websocket.py");

/// A peer; ended when dropped.
struct Peer(Child, BufReader<std::process::ChildStdout>);

impl Peer {
    fn start(python: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(SCRIPT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn server(python: &str) -> (Peer, String) {
    let ip = crate::support::address();
    let mut peer = Peer::start(python, &["serve", &ip]);
    let port = peer.line();
    (peer, format!("{ip}:{port}"))
}

/// A whole conversation, with a reload in its middle.
fn converse(python: &str, proxy: &Proxy, yaml: &str) {
    let mut client = Peer::start(python, &["talk", &format!("ws://{}/chat", proxy.address)]);
    assert_eq!(client.line(), "talking");
    proxy.reload(yaml);
    client.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(client.line(), "done");
}

#[test]
fn http_1_to_http_1() {
    let Some(python) = crate::support::python("websockets") else { return };
    let (_server, address) = server(&python);
    let yaml = config(&[&address], "");
    let proxy = Proxy::start(&yaml);
    converse(&python, &proxy, &yaml);
    proxy.expect_metric("ringway_requests_total", &["code=\"1xx\""], 1.0);
}

/// From HTTP/1.1 to HTTP/2, and from there to HTTP/1.1 again.
#[test]
fn http_1_to_http_2_and_back() {
    let Some(python) = crate::support::python("websockets") else { return };
    let (_server, address) = server(&python);
    let proxy = chained(&address);
    converse(&python, &proxy, &chain(&address));
    proxy.expect_metric("ringway_requests_total", &["code=\"1xx\"", "outer"], 1.0);
    proxy.expect_metric("ringway_requests_total", &["code=\"1xx\"", "inner"], 1.0);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

fn connect<'f>() -> Vec<(&'f str, &'f str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ]
}

/// An origin that switches protocols and says everything twice.
fn twice() -> Origin {
    Origin::script(|mut conn, seen| {
        let Some(request) = conn.head() else { return };
        seen.lock().unwrap().push(request);
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhi ");
        while conn.fill() {
            let said = conn.take();
            conn.send([said.clone(), said].concat());
        }
        conn.close();
    })
}

/// From HTTP/2 to HTTP/1.1, and over another HTTP/2 to it.
#[test]
fn from_http_2() {
    let origin = twice();
    for proxy in [Proxy::to(&origin.address), chained(&origin.address)] {
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&connect(), false);
        client.frame(DATA, 0, stream, b"ab");
        while client.answers.get(&stream).is_none_or(|answer| answer.body.len() < 7) {
            assert!(client.step(), "{:?}", client.answers);
        }
        assert_eq!(client.answers[&stream].heads, [200]);
        assert_eq!(client.answers[&stream].text(), "hi abab");
        // Other streams go on beside it, and both directions end in order.
        client.settle();
        client.frame(DATA, END_STREAM, stream, b"c");
        let answer = client.answer(stream);
        assert_eq!((answer.text(), &answer.ended), ("hi ababcc", &Some(Ended::Whole)));
    }
    let request = origin.requests().remove(0);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/chat"));
    assert_eq!(request.headers("upgrade"), ["websocket"]);
    assert_eq!(request.headers("connection"), ["upgrade"]);
    assert_eq!(request.header("sec-websocket-key").map(str::len), Some(24));
}

/// A client that takes its stream back ends the connection at the other end, over any number of hops.
#[test]
fn a_reset_ends_the_tunnel() {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&ended);
    let origin = Origin::script(move |mut conn, _| {
        let Some(_request) = conn.head() else { return };
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi");
        while conn.fill() {}
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    for (number, proxy) in [Proxy::to(&origin.address), chained(&origin.address)].iter().enumerate() {
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&connect(), false);
        while client.answers.get(&stream).is_none_or(|answer| answer.body.len() < 2) {
            assert!(client.step());
        }
        client.reset(stream, crate::support::h2::CANCEL);
        client.settle();
        eventually("the origin's connection ends", || ended.load(std::sync::atomic::Ordering::SeqCst) > number);
    }
}

/// Only an upgrade is a success: an ordinary answer would be one too in HTTP/2.
#[test]
fn an_ordinary_answer_is_no_success() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec());
    let refusing = Origin::replying(|_| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec());
    for (address, status) in [(origin.address.as_str(), 502), ("echo", 501), (refusing.address.as_str(), 403)] {
        let proxy = Proxy::to(address);
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&connect(), false);
        assert_eq!(client.answer(stream).status(), status, "{address}");
        let mut other = connect();
        other[1].1 = "connect-udp";
        let stream = client.open(&other, false);
        assert_eq!(client.answer(stream).status(), 405);
        client.settle();
    }
}
