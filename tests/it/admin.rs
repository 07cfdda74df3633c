//! The admin server.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, command, config};

#[test]
fn status_config_and_health() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    assert_eq!(proxy.admin("GET", "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(proxy.admin("GET", "/readyz"), (200, "ready\n".to_owned()));
    let status: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/status").1).unwrap();
    assert_eq!((status["kind"].as_str(), status["ringway"]["generation"].as_u64()), (Some("List"), Some(1)));
    let kinds: Vec<&str> =
        status["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Gateway", "HTTPRoute"]);
    let effective: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/config").1).unwrap();
    assert_eq!(effective["sockets"][0]["bind"].as_str(), Some(proxy.address.as_str()));
    assert_eq!(proxy.admin("GET", "/nothing").0, 404);
    assert_eq!(proxy.admin("DELETE", "/config").0, 405);
    let socket = format!("unix:{}", proxy.socket().display());
    let (code, out, _) = command(&["status", "--admin", &socket], &proxy.directory.0);
    assert_eq!(code, 0);
    assert!(out.contains("HTTPRoute default/all at Gateway default/edge") && out.contains(&proxy.address), "{out}");
    let (code, out, _) = command(&["reload", "--admin", &socket], &proxy.directory.0);
    assert_eq!((code, out.as_str()), (0, "generation 2 is served\n"));
}

#[test]
fn tcp_is_read_only() {
    let origin = Origin::echo();
    let ip = crate::support::address();
    let options = Options { arguments: vec!["--admin".to_owned(), format!("{ip}:9901")], ..Default::default() };
    let proxy = Proxy::with(&config(&[&origin.address], ""), &options);
    let ask = |line: &str| {
        let mut client = Client::connect(&format!("{ip}:9901"));
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response()
    };
    assert_eq!(ask("GET /readyz").status, 200);
    assert!(ask("GET /metrics").text().contains("ringway_build_info{version="));
    assert_eq!(ask("POST /drain").status, 403);
    assert_eq!(ask("POST /reload").status, 403);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn metrics_count_what_happens() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    for _ in 0..10 {
        client.get("/");
    }
    proxy.expect_metric("ringway_requests_total", &["route=\"HTTPRoute/default/all\"", "code=\"2xx\""], 10.0);
    proxy.expect_metric("ringway_upstream_requests_total", &["backend=\"Backend/default/origin\""], 10.0);
    assert_eq!(proxy.metric("ringway_connections_total", &["listener=\"default/edge/web\""]), 1.0);
    assert_eq!(proxy.metric("ringway_connections_active", &["listener=\"default/edge/web\""]), 1.0);
    assert_eq!(proxy.metric("ringway_request_duration_seconds_count", &[]), 10.0);
    let metrics = proxy.metrics();
    for quantile in ["0.5", "0.9", "0.99", "0.999", "1"] {
        assert!(metrics.contains(&format!("quantile=\"{quantile}\"")), "{metrics}");
    }
    drop(client);
    crate::support::eventually("the connection is closed", || proxy.metric("ringway_connections_active", &[]) == 0.0);
}
