//! TCP routes.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, gateway};

pub fn config(split: &str, backends: &str) -> String {
    gateway("  - {name: raw, port: 8080, protocol: TCP}\n")
        + &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: raw}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules: [{{backendRefs: [{split}]}}]\n"
        )
        + backends
}

pub const ONE: &str = "{group: ringway.dev, kind: Backend, name: origin}";

#[test]
fn bytes_pass_both_ways_whole() {
    let origin = Origin::script(|mut conn, _| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = conn.stream.read(&mut buffer) {
            if n == 0 || conn.stream.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    let sent: Vec<u8> =
        (0..2_000_000_u32).map(|index| u8::try_from(index.wrapping_mul(40_503) >> 8 & 255).unwrap()).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let got = client.rest().unwrap();
    sender.join().unwrap();
    assert!(got == sent);
    proxy.expect_metric("ringway_bytes_total", &["direction=\"in\""], 2_000_000.0);
}

#[test]
fn half_close_is_passed_on() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
        conn.stream.write_all(format!("got {}", all.len()).as_bytes()).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("twelve bytes");
    client.finish();
    assert_eq!(client.rest().unwrap(), b"got 12");
}

#[test]
fn resets_are_passed_on() {
    let origin = Origin::script(|conn, _| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        conn.abort();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("x");
    assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))));

    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        let mut byte = [0; 1];
        conn.stream.read_exact(&mut byte).unwrap();
        sender.send(conn.stream.read(&mut byte).map_err(|error| error.kind())).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("x");
    std::thread::sleep(std::time::Duration::from_millis(100));
    client.abort();
    let seen = receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(seen, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn what_has_no_endpoint_is_reset() {
    let missing = "{group: ringway.dev, kind: Backend, name: nobody}";
    for (split, backends) in
        [(missing, String::new()), (ONE, backend("origin", &[])), (ONE, backend("origin", &["127.0.0.1:1"]))]
    {
        let proxy = Proxy::start(&config(split, &backends));
        // The reset may come so early that connecting itself reports it.
        if let Ok(mut client) = crate::support::client::Client::try_connect(&proxy.address) {
            client.try_send("x");
            assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))), "{split} {backends}");
        }
    }
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    let origin = Origin::script(|mut conn, _| {
        conn.stream.write_all(b"hello").unwrap();
    });
    let dead = format!("{}:9", crate::support::address());
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&dead, &origin.address])));
    for _ in 0..6 {
        assert_eq!(proxy.client().rest().unwrap(), b"hello");
    }
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""], 1.0);
}

#[test]
fn weights_are_kept() {
    let one = Origin::script(|mut conn, _| drop(conn.stream.write_all(b"1")));
    let two = Origin::script(|mut conn, _| drop(conn.stream.write_all(b"2")));
    let split = "{group: ringway.dev, kind: Backend, name: one, weight: 3}, {group: ringway.dev, kind: Backend, name: two, weight: 1}";
    let proxy = Proxy::start(&config(split, &(backend("one", &[&one.address]) + &backend("two", &[&two.address]))));
    let ones = (0..40).filter(|_| proxy.client().rest().unwrap() == b"1").count();
    assert!((27..=33).contains(&ones), "{ones}");
}

#[test]
fn the_built_in_echo_returns_bytes() {
    let proxy = Proxy::start(&config(ONE, &backend("origin", &["echo"])));
    let mut client = proxy.client();
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
    client.finish();
    client.expect_close();
}

#[test]
fn idle_connections_end() {
    let yaml = config(ONE, &backend("origin", &["echo"]))
        + &crate::support::proxy::policy("  timeout: {tcp: {idleTimeout: 300ms}}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("hi");
    client.raw(2);
    assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"idle_timeout\""], 1.0);
}
