//! What moves bytes between two streams: bulk, chatter, stalls, limits.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::client::{Client, Ended};
use crate::support::origin::{Conn, Origin};
use crate::support::proxy::{Options, Proxy, backend, policy};
use crate::support::{Random, black_hole, eventually};
use crate::tcp::{ONE, config};

/// The byte at a place of a stream.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 11 & 255).to_le_bytes()[0]
}

fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(byte).collect()
}

const CHUNK: usize = 256 << 10;

/// Sends `total` bytes of the pattern.
fn send(stream: &mut TcpStream, total: usize) -> std::io::Result<()> {
    (0..total).step_by(CHUNK).try_for_each(|at| stream.write_all(&pattern(at..(at + CHUNK).min(total))))
}

/// Reads to the end and compares; how many bytes came.
fn receive(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(at);
        }
        assert!(buffer[..n] == pattern(at..at + n), "bytes differ within {at}..{}", at + n);
        at += n;
    }
}

/// Sends 16 MiB to whoever connects and checks what it gets meanwhile.
fn both_ways(mut conn: Conn) {
    let mut reader = conn.stream.try_clone().unwrap();
    let received = std::thread::spawn(move || receive(&mut reader));
    let sent = send(&mut conn.stream, 16 << 20);
    let _closed = conn.stream.shutdown(Shutdown::Write);
    if sent.is_ok() {
        assert_eq!(received.join().unwrap().unwrap(), 24 << 20);
    }
}

#[test]
fn bulk_is_spliced_both_ways_and_whole() {
    let origin = Origin::script(|conn, _| both_ways(conn));
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut down = proxy.client().stream;
            let mut up = down.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                send(&mut up, 24 << 20).unwrap();
                up.shutdown(Shutdown::Write).unwrap();
            });
            std::thread::spawn(move || {
                assert_eq!(receive(&mut down).unwrap(), 16 << 20);
                sender.join().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    proxy.expect_metric("ringway_bytes_total", &["direction=\"in\""], f64::from(4 * (24 << 20)));
    proxy.expect_metric("ringway_bytes_total", &["direction=\"out\""], f64::from(4 * (16 << 20)));
    // Not all of it: a direction begins by copying, and one that is read slowly is not bulk.
    proxy.expect_metric("ringway_spliced_bytes_total", &[], f64::from(16 << 20));
    eventually("buffers and pipes are given back", || {
        proxy.metric("ringway_worker_pipes_in_use", &[]) == 0.0
            && proxy.metric("ringway_worker_buffers_in_use", &[]) == 0.0
    });
}

#[test]
fn a_flow_that_turns_chatty_is_copied_again_and_ends_in_order() {
    let origin = Origin::script(|mut conn, _| {
        send(&mut conn.stream, 8 << 20).unwrap();
        let mut byte = [0];
        for at in 0..200 {
            conn.stream.read_exact(&mut byte).unwrap();
            conn.stream.write_all(&[byte[0].wrapping_add(1), self::byte(at)]).unwrap();
        }
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    assert!(client.raw(8 << 20) == pattern(0..8 << 20));
    for at in 0..200_u8 {
        client.send([at]);
        assert_eq!(client.raw(2), [at.wrapping_add(1), byte(at.into())]);
    }
    client.expect_close();
    proxy.expect_metric("ringway_spliced_bytes_total", &[], f64::from(1 << 20));
}

#[test]
fn a_reset_amid_bulk_is_passed_on() {
    let origin = Origin::script(|mut conn, _| {
        // What the client has not read yet is lost with the reset, as it is without a proxy.
        let _cut = send(&mut conn.stream, 6 << 20);
        conn.abort();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    assert!(matches!(proxy.client().rest(), Err(Ended::Reset(_))));

    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        let failed = send(&mut conn.stream, 1 << 30).unwrap_err();
        sender.send(failed.kind()).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.raw(6 << 20);
    client.abort();
    let seen = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(seen, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{seen}");
    eventually("pipes are given back", || proxy.metric("ringway_worker_pipes_in_use", &[]) == 0.0);
}

#[test]
fn a_side_that_never_reads_stops_the_other_and_is_reset() {
    let origin = Origin::script(|mut conn, _| {
        let _cut = send(&mut conn.stream, 1 << 30);
    });
    let yaml = config(ONE, &backend("origin", &[&origin.address])) + &policy("  timeout: {tcp: {idleTimeout: 2s}}\n");
    let proxy = Proxy::start(&yaml);
    let before = proxy.anonymous_kib();
    let clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    // Everybody's buffers fill up, and then nothing moves any more.
    std::thread::sleep(Duration::from_secs(1));
    let grown = proxy.anonymous_kib().saturating_sub(before);
    assert!(grown < 20 * 256, "{grown} KiB for 20 connections");
    eventually("all have been reset", || proxy.metric("ringway_connections_active", &[]) == 0.0);
    assert!(proxy.metric("ringway_downstream_errors_total", &["reason=\"idle_timeout\""]) >= 20.0);
    for mut client in clients {
        assert!(matches!(client.rest(), Err(Ended::Reset(_))));
    }
}

#[test]
fn running_out_of_pipes_falls_back_to_copying() {
    // The kernel bounds the pages of an unprivileged user's pipes, 64 MiB unless told otherwise.
    let origin = Origin::script(|mut conn, _| {
        let mut go = [0];
        send(&mut conn.stream, 4 << 20).unwrap();
        conn.stream.read_exact(&mut go).unwrap();
        send(&mut conn.stream, 4 << 20).unwrap();
    });
    let options = Options { workers: 1, unprivileged: true, ..Options::default() };
    let proxy = Proxy::with(&config(ONE, &backend("origin", &[&origin.address])), &options);
    let clients: Vec<Client> = (0..150).map(|_| proxy.client()).collect();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                assert!(client.raw(4 << 20) == pattern(0..4 << 20));
                client.send("g");
                assert!(client.rest().unwrap() == pattern(0..4 << 20));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    proxy.expect_metric("ringway_pipe_refusals_total", &[], 1.0);
    proxy.expect_metric("ringway_spliced_bytes_total", &[], 1.0);
    eventually("pipes are given back", || proxy.metric("ringway_worker_pipes_in_use", &[]) == 0.0);
}

#[test]
fn a_black_holed_endpoint_is_given_up_for_another() {
    let (hole, _stuffing) = black_hole();
    let address = hole.local_addr().unwrap().to_string();
    let origin = Origin::script(|mut conn, _| {
        conn.stream.write_all(b"hello").unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&address, &origin.address])));
    let timeouts = || proxy.metric("ringway_upstream_errors_total", &["reason=\"connect_timeout\""]);
    // Which endpoint is first is up to the balancer.
    eventually("the black hole is met", || {
        assert_eq!(proxy.client().rest().unwrap(), b"hello");
        timeouts() >= 1.0
    });
}

#[test]
fn a_storm_of_resets_leaves_nothing_behind() {
    let seed = 0x5eed_0005;
    eprintln!("seed {seed:#x}");
    let origin = Origin::script(|mut conn, _| {
        let _cut = send(&mut conn.stream, 2 << 20);
        if conn.number % 3 == 0 {
            conn.abort();
        }
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                let mut random = Random(seed + number);
                let mut sink = vec![0; 64 << 10];
                for _ in 0..300 {
                    // A reset may come before connecting has returned.
                    let Ok(mut client) = Client::try_connect(&address) else { continue };
                    client.try_send("x");
                    for _ in 0..random.below(24) {
                        if !matches!(client.stream.read(&mut sink), Ok(n) if n > 0) {
                            break;
                        }
                    }
                    client.abort();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("connections, buffers and pipes are given back", || {
        let metrics = proxy.metrics();
        ["ringway_connections_active", "ringway_worker_pipes_in_use", "ringway_worker_buffers_in_use"]
            .iter()
            .all(|name| crate::support::proxy::sum(&metrics, name, &[]) == 0.0)
    });
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}
