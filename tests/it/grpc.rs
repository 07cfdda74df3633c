//! gRPC: a client and servers of grpcio, in all four kinds of calls.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::h2::{DATA, END_STREAM, H2};
use crate::support::proxy::{Proxy, backend, gateway};

/// A server; ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(python: &str, name: &str) -> Self {
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
