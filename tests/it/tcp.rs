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

/// What a client has sent already travels with the connect, so a connect that fails must leave it for the next endpoint.
#[test]
fn first_bytes_reach_the_endpoint_that_takes_the_connection_once() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
        conn.stream.write_all(&all).unwrap();
    });
    let dead: Vec<String> = (0..2).map(|_| format!("{}:9", crate::support::address())).collect();
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&dead[0], &origin.address, &dead[1]])));
    for length in [1, 300, 8 << 10, 100 << 10] {
        for round in 0..6_u8 {
            let sent: Vec<u8> = (0..length).map(|index: usize| round.wrapping_add(index.to_le_bytes()[0])).collect();
            let mut client = proxy.client();
            client.send(&sent);
            client.finish();
            assert!(client.rest().unwrap() == sent, "{length} bytes, round {round}");
        }
    }
    assert!(proxy.metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""]) > 0.0);
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
    // Bytes are counted as they pass, not when the connection ends.
    for direction in ["in", "out"] {
        let label = format!("direction=\"{direction}\"");
        crate::support::eventually("they are counted", || proxy.metric("ringway_bytes_total", &[&label]) == 5.0);
    }
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

#[test]
fn a_deferred_accept_waits_for_the_first_bytes() {
    let yaml = config(ONE, &backend("origin", &["echo"]))
        + &crate::support::proxy::policy("  connection: {deferAccept: 20s}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(proxy.metric("ringway_connections_total", &[]), 0.0);
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
    proxy.expect_metric("ringway_connections_total", &[], 1.0);
}

#[test]
fn socket_options_bind_anew_and_a_wrong_interface_changes_nothing() {
    let plain = config(ONE, &backend("origin", &["echo"]));
    let with = |spec: &str| plain.clone() + &crate::support::proxy::policy(spec);
    let proxy = Proxy::start(&plain);
    let mut before = proxy.client();
    before.send("a");
    assert_eq!(before.raw(1), b"a");
    proxy.reload(&with("  connection: {backlog: 16, fastOpen: 16}\n  tcpKeepalive: {probes: 0}\n"));
    let mut client = proxy.client();
    client.send("b");
    assert_eq!(client.raw(1), b"b");
    proxy.write_config(&with("  connection: {bindToDevice: no-such-device}\n"));
    let (status, body) = proxy.admin("POST", "/reload");
    assert_eq!(status, 409, "{body}");
    let mut client = proxy.client();
    client.send("c");
    assert_eq!(client.raw(1), b"c");
    if crate::support::proxy::is_root() {
        proxy.reload(&with("  connection: {bindToDevice: lo}\n"));
        let mut client = proxy.client();
        client.send("d");
        assert_eq!(client.raw(1), b"d");
    }
    // An established connection has outlived all of it.
    before.send("e");
    assert_eq!(before.raw(1), b"e");
}

#[test]
fn requests_go_on_where_a_socket_is_bound_anew() {
    let origin = Origin::echo();
    let plain = crate::support::proxy::config(&[&origin.address], "");
    let proxy = Proxy::start(&plain);
    let mut client = proxy.client();
    for backlog in [100, 200, 100] {
        assert_eq!(client.get("/a").status, 200);
        proxy.reload(
            &(plain.clone() + &crate::support::proxy::policy(&format!("  connection: {{backlog: {backlog}}}\n"))),
        );
        assert_eq!(client.get("/b").status, 200);
        assert_eq!(proxy.client().get("/c").status, 200);
    }
}

#[test]
fn an_ipv6_only_listener_takes_no_ipv4() {
    let free = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let yaml = config(ONE, &backend("origin", &["echo"]))
        .replace("port: 8080", &format!("port: {port}"))
        .replace("  addresses: [{type: IPAddress, value: \"{ip}\"}]\n", "");
    let proxy = Proxy::start(&yaml);
    let is_served = |address: &str| {
        crate::support::client::Client::try_connect(&format!("{address}:{port}")).is_ok_and(|mut client| {
            client.try_send("x");
            client.raw(1) == b"x"
        })
    };
    assert!(is_served("127.0.0.1"));
    let ipv6 = is_served("[::1]");
    proxy.reload(&(yaml + &crate::support::proxy::policy("  connection: {ipv6Only: true}\n")));
    crate::support::eventually("IPv4 is refused", || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err()
    });
    assert_eq!(is_served("[::1]"), ipv6);
}

#[test]
fn no_queued_connection_is_lost_when_a_listener_ends() {
    // Clients keep coming while the process is told to drain: whoever was connected is served.
    let origin = Origin::script(|mut conn, _| {
        conn.stream.write_all(b"served").unwrap();
    });
    let mut proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                let mut served = 0;
                let mut lost = 0;
                while let Ok(mut client) = crate::support::client::Client::try_connect(&address) {
                    match client.rest() {
                        Ok(bytes) if bytes == b"served" => served += 1,
                        _ => lost += 1,
                    }
                }
                (served, lost)
            })
        })
        .collect();
    crate::support::eventually("some are served", || proxy.metric("ringway_connections_total", &[]) > 200.0);
    proxy.signal("TERM");
    let mut lost = 0;
    for thread in threads {
        let (served, gone) = thread.join().unwrap();
        assert!(served > 0);
        lost += gone;
    }
    assert_eq!(proxy.wait(40), Some(0));
    // The instant between the last look at the queue and the close remains: at most one for each client.
    assert!(lost <= 4, "{lost} lost");
}
