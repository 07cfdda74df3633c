//! gRPC: a client and servers of grpcio, in all four kinds of calls.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::h2::{DATA, END_HEADERS, END_STREAM, Ended, GOAWAY, H2, HEADERS, block, frame};
use crate::support::proxy::{Proxy, backend, gateway};

/// A server; ended when dropped.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn start(python: &str, name: &str) -> Self {
        let ip = crate::support::address();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_server.py");
        let mut child = Command::new(python).args([script, &ip, name]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: format!("{ip}:{}", line.trim()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn rule(service: &str, more: &str, to: &str) -> String {
    format!(
        "  - matches: [{{method: {{service: {service}}}{more}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]\n"
    )
}

fn config(main: &str, canary: &str, down: &str) -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: calls}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n"
        + &rule("test.Service", ", headers: [{name: x-canary, value: \"yes\"}]", "canary")
        + &rule("test.Service", "", "main")
        + &rule("test.Nowhere", "", "nowhere")
        + &rule("test.Down", "", "down")
        + &backend("main", &[main])
        + &backend("canary", &[canary])
        + &backend("down", &[down])
}

#[test]
fn calls_of_all_kinds() {
    let Some(python) = crate::support::python("grpc") else { return };
    let (main, canary) = (Server::start(&python, "main"), Server::start(&python, "canary"));
    let down = format!("{}:1", crate::support::address());
    let proxy = Proxy::start(&config(&main.address, &canary.address, &down));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_client.py");
    let output = Command::new(&python).args([script, &proxy.address]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.starts_with("done"), "{said}");
    let name = "ringway_grpc_requests_total";
    for (status, at_least) in [("0", 15.0), ("3", 1.0), ("12", 1.0), ("14", 2.0), ("1", 1.0)] {
        proxy.expect_metric(name, &["GRPCRoute/default/calls", &format!("grpc_status=\"{status}\"")], at_least);
    }
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

/// Errors of the proxy's own are heads that end the stream; who is no gRPC client gets them as in HTTP.
#[test]
fn errors_are_trailers_only() {
    let down = format!("{}:1", crate::support::address());
    let proxy = Proxy::start(&config(&down, &down, &down));
    let mut client = H2::connect(&proxy.address);
    let fields = |content_type| {
        vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", "/test.Unknown/Call"),
            ("content-type", content_type),
            ("te", "trailers"),
        ]
    };
    for (content_type, status) in [("application/grpc", 200), ("application/grpc+json", 200), ("text/plain", 404)] {
        let stream = client.open(&fields(content_type), false);
        client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
        let answer = client.answer(stream);
        assert_eq!(answer.status(), status, "{content_type}");
        assert_eq!(answer.body.is_empty(), status == 200, "{content_type}");
    }
}

/// A call's own deadline ends what waits for a server that says nothing.
#[test]
fn a_deadline_is_kept_here_too() {
    let origin = std::net::TcpListener::bind(format!("{}:0", crate::support::address())).unwrap();
    let address = origin.local_addr().unwrap().to_string();
    let proxy = Proxy::start(&config(&address, &address, &address));
    let mut client = H2::connect(&proxy.address);
    let mut fields = crate::support::h2::post("/test.Service/Call");
    fields.extend([("content-type", "application/grpc"), ("grpc-timeout", "200m"), ("te", "trailers")]);
    let stream = client.open(&fields, false);
    client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
    assert_eq!(client.answer(stream).status(), 200);
    proxy.expect_metric("ringway_grpc_requests_total", &["grpc_status=\"4\""], 1.0);
}

/// The trailers, as `grpc-status: 4`, at the end of what has begun.
#[test]
fn a_deadline_amid_an_answer_is_a_status() {
    let (address, _) = crate::http2_upstream::frames(crate::http2_upstream::PLAIN, |mut server, _| {
        while let Some(stream) = server.request() {
            let head = [(":status", "200"), ("content-type", "application/grpc")];
            server.frame(HEADERS, END_HEADERS, stream, &block(&head));
            server.frame(DATA, 0, stream, &[0, 0, 0, 0, 1, b'x']);
        }
    });
    let proxy = Proxy::start(&config(&address, &address, &address));
    let mut client = H2::connect(&proxy.address);
    let mut fields = crate::support::h2::post("/test.Service/Call");
    fields.extend([("content-type", "application/grpc"), ("grpc-timeout", "300m"), ("te", "trailers")]);
    let stream = client.open(&fields, false);
    client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
    let answer = client.answer(stream);
    assert_eq!((answer.heads.len(), answer.body.len(), &answer.ended), (2, 6, &Some(Ended::Whole)), "{answer:?}");
    proxy.expect_metric("ringway_grpc_requests_total", &["grpc_status=\"4\""], 1.0);
    // The same in gRPC-Web, on either version.
    let mut client = H2::connect(&proxy.address);
    let mut fields = crate::support::h2::post("/test.Service/Call");
    fields.extend([("content-type", "application/grpc-web"), ("grpc-timeout", "300m")]);
    let stream = client.open(&fields, false);
    client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
    let answer = client.answer(stream);
    let late = "grpc-status: 4\r\ngrpc-message: Deadline exceeded\r\n";
    assert_eq!(answer.body, [&[0, 0, 0, 0, 1, b'x', 0x80, 0, 0, 0, 49][..], late.as_bytes()].concat());
    let mut client = proxy.client();
    client.send("POST /test.Service/Call HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\nGrpc-Timeout: 300m\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0");
    let answer = client.response();
    assert!(answer.body.ends_with(late.as_bytes()), "{answer:?}");
    proxy.expect_metric("ringway_grpc_requests_total", &["grpc_status=\"4\""], 3.0);
}

/// An endpoint that is silent is unavailable; only the call's own time makes its deadline exceeded.
#[test]
fn an_endpoint_that_takes_too_long_is_unavailable() {
    let origin = std::net::TcpListener::bind(format!("{}:0", crate::support::address())).unwrap();
    let address = origin.local_addr().unwrap().to_string();
    let http = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: calls}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n  - timeouts: {backendRequest: 200ms, request: 10s}\n    backendRefs: [{group: ringway.dev, kind: Backend, name: silent}]\n";
    let proxy = Proxy::start(
        &(gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + http + &backend("silent", &[&address])),
    );
    let mut client = H2::connect(&proxy.address);
    let mut fields = crate::support::h2::post("/test.Service/Call");
    fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    let stream = client.open(&fields, true);
    assert_eq!(client.answer(stream).status(), 200);
    proxy.expect_metric("ringway_grpc_requests_total", &["grpc_status=\"14\""], 1.0);
}

/// A unary call whose message came with its head, without Content-Length, is sent again where the endpoint says that it
/// has not looked at it, as often as connections end.
#[test]
fn unary_calls_move_on_from_connections_that_end() {
    let (address, connections) = crate::http2_upstream::frames(crate::http2_upstream::PLAIN, |mut server, number| {
        let Some(stream) = server.request() else { return };
        if number < 6 {
            // Nothing has been looked at.
            server.frame(GOAWAY, 0, 0, &[0; 8]);
            while server.read().is_some() {}
            return;
        }
        let mut message = Vec::new();
        while let Some(frame) = server.read() {
            if frame.kind == DATA && frame.stream == stream {
                message.extend_from_slice(&frame.payload);
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        server.reply(stream, "200", &message);
        while server.read().is_some() {}
    });
    let proxy = Proxy::start(&config(&address, &address, &address));
    let mut client = H2::connect(&proxy.address);
    client.settle();
    let mut fields = crate::support::h2::post("/test.Service/Call");
    fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    let stream = client.next_stream();
    // In one write, as clients of gRPC send it.
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(&fields));
    bytes.extend(frame(DATA, END_STREAM, stream, b"\0\0\0\0\x05hello"));
    client.send(&bytes);
    let answer = client.answer(stream);
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"\0\0\0\0\x05hello"[..]));
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 7);
}

/// A call in gRPC-Web over HTTP/1.1; an answer that comes before the body has gone ends its connection.
fn web(proxy: &Proxy, path: &str, kind: &str, more: &str, body: &[u8]) -> crate::support::client::Response {
    let mut client = proxy.client();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-{kind}\r\nX-Grpc-Web: 1\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.send([head.as_bytes(), body].concat());
    client.response()
}

fn message(payload: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

/// What stands in a body: messages, and the trailers at its end.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let (payload, rest) = rest.split_at(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
        body = rest;
        if head[0] == 0x80 {
            assert!(body.is_empty(), "something behind the trailers");
            return (messages, String::from_utf8(payload.to_vec()).unwrap());
        }
        messages.push(payload.to_vec());
    }
    panic!("no trailers behind {messages:?}");
}

fn base64(text: &[u8]) -> Vec<u8> {
    // Pieces are padded each for itself.
    let mut out = Vec::new();
    for four in text.chunks(4) {
        let value = |at: usize| {
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            u32::try_from(alphabet.iter().position(|known| *known == four[at]).unwrap_or(0)).unwrap()
        };
        let bits = value(0) << 18 | value(1) << 12 | value(2) << 6 | value(3);
        let padding = four.iter().filter(|byte| **byte == b'=').count();
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    out
}

#[test]
fn grpc_web_over_http_1_and_2() {
    let Some(python) = crate::support::python("grpc") else { return };
    let (main, canary) = (Server::start(&python, "main"), Server::start(&python, "canary"));
    let down = format!("{}:1", crate::support::address());
    let proxy = Proxy::start(&config(&main.address, &canary.address, &down));

    let answer = web(&proxy, "/test.Service/Unary", "web+proto", "X-Meta: m\r\n", &message(b"abc"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc-web")));
    assert_eq!(answer.header("x-seen"), Some("m"));
    let (messages, trailers) = frames(&answer.body);
    assert_eq!(messages, [b"cba"]);
    assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("x-end: here\r\n"), "{trailers}");
    assert_eq!(answer.trailers, []);

    // Large messages, in both directions.
    for size in [1, 5000, 70_000, 1_000_000] {
        let answer = web(&proxy, "/test.Service/Unary", "web", "", &message(&vec![b'y'; size]));
        assert_eq!(frames(&answer.body).0[0].len(), size);
        let answer = web(&proxy, "/test.Service/Unary", "web", "", &message(format!("grow {size}").as_bytes()));
        assert_eq!(frames(&answer.body).0[0].len(), size);
    }

    // In base64: the request's group of four is cut by chunks, the answer's pieces are padded.
    let mut client = proxy.client();
    client.send("POST /test.Service/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["AAA", "AAANh", "Y", "mM="] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    client.send("0\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text"));
    assert_eq!(frames(&base64(&answer.body)).0, [b"cba"]);
    let answer = web(&proxy, "/test.Service/Down", "web-text", "", b"AAAAAAIyMA==");
    assert_eq!(frames(&base64(&answer.body)).0.len(), 20);
    let accept = "Accept: application/grpc-web-text\r\n";
    let answer = web(&proxy, "/test.Service/Unary", "web", accept, &message(b"grow 300000"));
    assert_eq!(frames(&base64(&answer.body)).0[0].len(), 300_000);

    // Errors of the server, of which some stand in the head, and of the proxy.
    let answer = web(&proxy, "/test.Service/Unary", "web", "", &message(b"fail"));
    let (messages, trailers) = frames(&answer.body);
    assert!(messages.is_empty() && trailers.contains("grpc-status: 3\r\n"), "{trailers}");
    for (path, status) in [("/test.Service/Missing", "12"), ("/test.Nowhere/Unary", "14"), ("/test.None/Unary", "12")] {
        for kind in ["web", "web-text"] {
            let answer = web(&proxy, path, kind, "", if kind == "web" { b"\0\0\0\0\0" } else { b"AAAAAAA=" });
            assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(status)), "{path}");
            assert_eq!(answer.header("content-type"), Some(format!("application/grpc-{kind}").as_str()), "{path}");
            assert!(answer.body.is_empty());
        }
    }

    // Over HTTP/2, several at once.
    let mut new = H2::connect(&proxy.address);
    let mut fields = crate::support::h2::post("/test.Service/Unary");
    fields.push(("content-type", "application/grpc-web"));
    let streams: Vec<u32> = (0..20).map(|_| new.open(&fields, false)).collect();
    for (n, stream) in streams.iter().enumerate() {
        new.frame(DATA, END_STREAM, *stream, &message(format!("grow {n}").as_bytes()));
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let answer = new.answer(stream);
        let (messages, trailers) = frames(&answer.body);
        assert_eq!((answer.heads.len(), messages[0].len()), (1, n));
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
    }
    let route = "GRPCRoute/default/calls";
    for (status, at_least) in [("0", 30.0), ("3", 1.0), ("12", 2.0), ("14", 2.0)] {
        proxy.expect_metric("ringway_grpc_requests_total", &[route, &format!("grpc_status=\"{status}\"")], at_least);
    }
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

/// What is not base64 where it should be is the client's fault.
#[test]
fn broken_base64_is_refused() {
    let origin = crate::http2_upstream::frames(crate::http2_upstream::PLAIN, |mut server, _| while server.step() {});
    let proxy = Proxy::start(&config(&origin.0, &origin.0, &origin.0));
    for bad in ["AAA", "A===", "AA A", "AAAA!AAA"] {
        let answer = web(&proxy, "/test.Service/Unary", "web-text", "", bad.as_bytes());
        assert_eq!(answer.header("grpc-status"), Some("13"), "{bad}");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_chunk\""], 4.0);
}

/// Pages of other origins ask first, and read how a call ended in heads too.
#[test]
fn grpc_web_with_cors() {
    let down = format!("{}:1", crate::support::address());
    let cors = "---\napiVersion: ringway.dev/v1alpha1\nkind: HTTPRouteFilter\nmetadata: {name: pages}\nspec:\n  cors: {allowOrigins: [\"https://app.example\"], allowMethods: [POST], allowHeaders: [content-type, x-grpc-web]}\n";
    let yaml = config(&down, &down, &down).replace(
        "{service: test.Service}}]\n    backendRefs",
        "{service: test.Service}}]\n    filters: [{type: ExtensionRef, extensionRef: {group: ringway.dev, kind: HTTPRouteFilter, name: pages}}]\n    backendRefs",
    ) + cors;
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("OPTIONS /test.Service/Unary HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("https://app.example")));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type, x-grpc-web"));
    let origin = "Origin: https://app.example\r\n";
    let answer = web(&proxy, "/test.Service/Unary", "web", origin, b"\0\0\0\0\0");
    assert_eq!(answer.header("grpc-status"), Some("14"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("grpc-status, grpc-message"));
    // Who does not ask for a call is not answered for one.
    client.send("OPTIONS /test.Down/Unary HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
    assert_eq!(client.response().status, 404);
}

/// The client that the gRPC project has for browsers, in both of its formats.
#[test]
fn grpc_web_by_its_own_client() {
    let Some(python) = crate::support::python("grpc") else { return };
    let Some(modules) = crate::support::node_modules("grpc-web") else { return };
    let (main, canary) = (Server::start(&python, "main"), Server::start(&python, "canary"));
    let down = format!("{}:1", crate::support::address());
    let proxy = Proxy::start(&config(&main.address, &canary.address, &down));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_web_client.js");
    let output = Command::new("node").env("NODE_PATH", modules).args([script, &proxy.address]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.starts_with("done"), "{said}");
    proxy.expect_metric("ringway_grpc_requests_total", &["grpc_status=\"0\""], 5.0);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}
