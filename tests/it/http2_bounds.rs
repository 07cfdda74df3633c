//! What connections of HTTP/2 hold of bodies, and who waits for whom.

use std::time::Duration;

use crate::external_auth;
use crate::support::eventually;
use crate::support::h2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, Ended, H2, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, post,
};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config, policy};

/// Bodies that are awaited whole, more of them than the connection's window holds: none waits for another's credit.
#[test]
fn bodies_that_go_along_do_not_wait_for_each_other() {
    let (auth, app) = (external_auth::body_judge(), Origin::echo());
    let window = policy("  http2: {initialConnectionWindowSize: 65535}\n");
    let proxy = external_auth::start(
        &(external_auth::config(&auth.address, &app.address, ", forwardBody: {maxSize: 49152}") + &window),
    );
    let mut client = H2::connect(&proxy.address);
    client.settle();
    let streams: Vec<u32> = (0..8).map(|_| client.open(&post("/a"), false)).collect();
    let mut credit = 65_535;
    for piece in [&b"good".repeat(3000)[..], &[b'g'; 12_000]] {
        for stream in &streams {
            while credit < piece.len() {
                let frame = client.read().expect("credit comes");
                if (frame.kind, frame.stream) == (WINDOW_UPDATE, 0) {
                    credit += u32::from_be_bytes(frame.payload[..].try_into().unwrap()) as usize;
                } else {
                    client.take(frame);
                }
            }
            credit -= piece.len();
            client.frame(DATA, if piece[1] == b'g' { END_STREAM } else { 0 }, *stream, piece);
        }
    }
    for stream in streams {
        assert_eq!(client.answer(stream).text(), "POST /a");
    }
    assert!(app.requests().iter().all(|request| request.body.len() == 24_000));
}

/// CVE-2019-9517: all the credit that there is, and a client that does not read. What is held is what is in hand, and the
/// neighbour on the same core is served.
#[test]
fn answers_that_are_not_read_take_bounded_memory() {
    let origin = Origin::replying(|request| {
        let size = if request.target == "/good" { 2 } else { 4 << 20 };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    });
    let proxy = Proxy::with(&config(&[&origin.address], ""), &Options { workers: 1, ..Options::default() });
    let before = proxy.anonymous_kib();
    let mut neighbour = H2::connect(&proxy.address);
    let clients: Vec<H2> = (0..4)
        .map(|_| {
            let mut client = H2::connect(&proxy.address);
            client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255]));
            client.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
            (0..100).for_each(|_| {
                client.get("/large");
            });
            let stream = neighbour.get("/good");
            assert_eq!(neighbour.answer(stream).status(), 200);
            client
        })
        .collect();
    eventually("all are asked for", || origin.requests().len() >= 404);
    std::thread::sleep(Duration::from_millis(500));
    // 400 answers of 4 MiB each.
    let held = proxy.anonymous_kib().saturating_sub(before);
    eprintln!("{held} KiB for 400 answers that are not read");
    assert!(held < 96 << 10, "{held} KiB");
    let stream = neighbour.get("/good");
    assert_eq!(neighbour.answer(stream).status(), 200);
    drop(clients);
    eventually("nothing is left", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
}

/// CVE-2026-26311: frames behind a reset in one packet, a thousand times. They belong to nobody, and no stream stays.
#[test]
fn data_behind_a_reset_leaves_nothing() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let proxy = Proxy::with(&config(&[&origin.address], ""), &Options { workers: 1, ..Options::default() });
    let mut neighbour = H2::connect(&proxy.address);
    for _ in 0..20 {
        let mut client = H2::connect(&proxy.address);
        for _ in 0..50 {
            let stream = client.next_stream();
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(&post("/a")));
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            bytes.extend(frame(DATA, END_STREAM, stream, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"));
            client.send(&bytes);
            // It is told that the stream is closed.
            assert_eq!(client.answer(stream).ended, Some(Ended::Reset(5)));
        }
        let stream = neighbour.get("/good");
        assert_eq!(neighbour.answer(stream).status(), 200);
    }
    eventually("nothing is in flight", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
    assert!(origin.requests().iter().all(|request| request.target == "/good"), "{:?}", origin.requests());
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}
