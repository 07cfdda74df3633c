//! Storms: descriptors that run out, connections without end, clients that go away at random points.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config};
use crate::support::{Random, eventually};

#[test]
fn ten_thousand_connections_leak_no_descriptor() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    proxy.client().get("/warm");
    let before = proxy.descriptors();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                for index in 0..2500 {
                    let mut client = Client::connect(&address);
                    match index % 4 {
                        0 => drop(client),
                        1 => {
                            client.send("GET /");
                            client.abort();
                        }
                        2 => {
                            client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
                            assert_eq!(client.response().status, 200);
                        }
                        _ => {
                            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                            client.abort();
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("connections are closed", || proxy.metric("ringway_connections_active", &[]) == 0.0);
    let idle = |proxy: &Proxy| proxy.metric("ringway_worker_pool_idle", &[]);
    eventually("descriptors are given back", || {
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let now = proxy.descriptors() as f64;
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let then = before as f64;
        now <= then + idle(&proxy)
    });
    assert!(proxy.metric("ringway_connections_total", &[]) >= 10_000.0);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

#[test]
fn running_out_of_descriptors_pauses_and_recovers() {
    let origin = Origin::echo();
    let options = Options { workers: 1, descriptors: Some(64), ..Default::default() };
    let proxy = Proxy::with(&config(&[&origin.address], ""), &options);
    let mut first = proxy.client();
    assert_eq!(first.get("/first").status, 200);
    let crowd: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(&proxy.address).ok()).collect();
    let paused = || {
        let metrics = proxy.metrics();
        ["connection_limit", "descriptors", "turned_away"]
            .iter()
            .map(|reason| {
                crate::support::proxy::sum(&metrics, "ringway_accept_errors_total", &[&format!("\"{reason}\"")])
            })
            .sum::<f64>()
    };
    eventually("accepting pauses", || paused() > 0.0);
    // What is connected is still served.
    assert_eq!(first.get("/still").status, 200);
    drop(crowd);
    let end = Instant::now() + Duration::from_secs(10);
    let recovered = || {
        let mut client = Client::try_connect(&proxy.address).ok()?;
        client.try_send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response_to("GET").ok()
    };
    while recovered().is_none_or(|response| response.status != 200) {
        assert!(Instant::now() < end, "it does not recover");
    }
}

#[test]
fn clients_that_go_away_at_random_points_leave_nothing_behind() {
    let seed = 0x5eed_0001;
    eprintln!("seed {seed:#x}");
    let origin = Origin::script(|mut conn, _| {
        while let Some(mut request) = conn.head() {
            if !conn.body(&mut request) {
                return;
            }
            let body = "x".repeat(100_000);
            if !conn.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n"))
            {
                return;
            }
        }
    });
    let proxy = Proxy::to(&origin.address);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                let mut random = Random(seed + number);
                let body = "y".repeat(200_000);
                for _ in 0..250 {
                    let mut client = Client::connect(&address);
                    let whole = match random.below(3) {
                        0 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3),
                        1 => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{body}"),
                        _ => format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n{body}\r\n0\r\n\r\n"),
                    };
                    let cut = random.below(whole.len() + 1);
                    client.try_send(&whole[..cut]);
                    if random.below(2) == 0 {
                        client.stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
                        let _some = client.response_to("GET");
                    }
                    if random.below(2) == 0 {
                        client.abort();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("connections are closed", || proxy.metric("ringway_connections_active", &[]) == 0.0);
    eventually("buffers are given back", || proxy.metric("ringway_worker_buffers_in_use", &[]) == 0.0);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
    assert_eq!(proxy.client().get("/after").status, 200);
}

#[test]
fn idle_connections_hold_no_buffer() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut clients: Vec<Client> = (0..200).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/");
    }
    eventually("buffers are given back", || proxy.metric("ringway_worker_buffers_in_use", &[]) == 0.0);
    assert_eq!(proxy.metric("ringway_connections_active", &[]), 200.0);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
}
