//! Bad input in HTTP/2: what would split a message of HTTP/1.1, and floods, each with a neighbour that must not feel it.

use std::time::{Duration, Instant};

use crate::support::h2::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Ended, H2, HEADERS, PING, PRIORITY,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, post,
};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config, policy};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn recording() -> Origin {
    Origin::replying(|_| OK.as_bytes().to_vec())
}

fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    for (name, value) in more {
        match fields.iter_mut().find(|(known, _)| known == name && name.starts_with(':')) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// CVE-2021-33193, CVE-2023-25690 and their like: nothing of a request of HTTP/2 becomes a line of its own.
#[test]
fn what_would_split_a_message_is_a_stream_error() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut neighbour = H2::connect(&proxy.address);
    let cases: &[&[(&str, &str)]] = &[
        &[("a", "b\r\nx: y")],
        &[("a", "b\nx: y")],
        &[("a", "b\0c")],
        &[("a", "b\u{7f}c")],
        &[("a", " b")],
        &[("a", "b\t")],
        &[("a b", "c")],
        &[("a:", "c")],
        &[("a\r\nx", "c")],
        &[("A", "c")],
        &[("", "c")],
        &[(":method", "GET / HTTP/1.1\r\nx: y")],
        &[(":method", "G T")],
        &[(":method", "")],
        &[(":path", "/ HTTP/1.1\r\nx: y")],
        &[(":path", "")],
        &[(":authority", "a\r\nx: y")],
        &[(":authority", "a b")],
        &[(":authority", "u@a")],
        &[("host", "b.example")],
        &[("connection", "close")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("content-length", "5")],
        &[("content-length", "+0")],
        &[("content-length", "0"), ("content-length", "1")],
        &[(":unknown", "x")],
    ];
    for case in cases {
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&with(get("/bad"), case), true);
        // An error of the stream, or of the connection where the codec takes no such bytes.
        match client.answer(stream).ended {
            Some(Ended::Reset(code)) => assert_eq!(code, PROTOCOL_ERROR, "{case:?}"),
            ended => assert!(ended == Some(Ended::Cut) && !client.goaways.is_empty(), "{case:?}: {ended:?}"),
        }
        let stream = neighbour.get("/good");
        assert_eq!(neighbour.answer(stream).status(), 200, "after {case:?}");
    }
    assert!(origin.requests().iter().all(|request| request.target == "/good"));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"malformed_head\""], 1.0);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_host\""], 1.0);
}

#[test]
fn what_is_understood_and_not_served_is_answered() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let long = format!("/{}", "x".repeat(17 << 10));
    let cases: [(&[(&str, &str)], u16); 6] = [
        (&[(":path", "/%00")], 400),
        (&[(":path", "/../..")], 400),
        (&[(":path", &long)], 414),
        (&[(":method", "TRACE")], 405),
        (&[("expect", "200-ok")], 417),
        (&[(":path", "*")], 400),
    ];
    for (case, status) in cases {
        let stream = client.open(&with(get("/bad"), case), true);
        assert_eq!(client.answer(stream).status(), status, "{:?}", case[0].0);
    }
    assert_eq!(origin.requests(), []);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"uri_too_long\""], 1.0);
}

/// CVE-2021-21295: a body that is not what Content-Length says never reaches an origin as another request.
#[test]
fn bodies_that_are_not_as_long_as_they_say_are_stream_errors() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let smuggled = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    for (length, body) in [("3", &smuggled[..]), ("100", smuggled), ("1", b""), ("0", smuggled)] {
        let mut client = H2::connect(&proxy.address);
        let stream = client.open(&with(post("/"), &[("content-length", length)]), false);
        client.frame(DATA, END_STREAM, stream, body);
        assert_eq!(client.answer(stream).ended, Some(Ended::Reset(PROTOCOL_ERROR)), "{length}");
        let stream = client.get("/good");
        assert_eq!(client.answer(stream).status(), 200);
    }
    let mut client = proxy.client();
    assert_eq!(client.get("/good").status, 200);
    // One that says that it has no body may have been on its way when the body came.
    let rest: Vec<_> = origin.requests().into_iter().filter(|request| request.target != "/good").collect();
    assert!(
        rest.iter().all(|request| request.target == "/" && request.header("content-length") == Some("0")),
        "{rest:?}"
    );
}

/// CVE-2022-41721: an upgrade to h2c is not taken, and what looks like one is not passed on.
#[test]
fn h2c_by_upgrade_is_not_taken() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let request = origin.request();
    assert_eq!((request.header("upgrade"), request.header("http2-settings")), (None, None));
    // Nor is HTTP/2 spoken behind it.
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.response().status >= 400);
    client.expect_close();
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn large_heads_are_refused() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let many: Vec<(String, String)> = (0..130).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let stream = client.open(&with(get("/"), &many), true);
    assert_eq!(client.answer(stream).status(), 431);
    // Beyond what SETTINGS_MAX_HEADER_LIST_SIZE says.
    let long = "x".repeat(9000);
    let fields = with(get("/"), &[("x", long.as_str()); 8]);
    let bytes = block(&fields);
    let mut pieces = bytes.chunks(16_384);
    let stream = stream + 2;
    client.frame(HEADERS, END_STREAM, stream, pieces.next().unwrap());
    for piece in pieces {
        client.frame(CONTINUATION, 0, stream, piece);
    }
    client.frame(CONTINUATION, END_HEADERS, stream, &[]);
    let answer = client.answer(stream);
    assert!(answer.status() == 431 || matches!(answer.ended, Some(Ended::Reset(_) | Ended::Cut)), "{answer:?}");
    assert_eq!(origin.requests(), []);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"head_too_large\""], 1.0);
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        // Nothing is answered.
        while conn.fill() {}
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    client.settle();
    let ids: Vec<u32> = (0..129).map(|_| client.open(&post("/"), false)).collect();
    assert_eq!(client.answer(ids[128]).ended, Some(Ended::Reset(REFUSED_STREAM)));
    assert!(ids[..128].iter().all(|id| !client.answers.contains_key(id)));
}

/// A flood on one connection of a core ends with that connection, and its neighbour is served meanwhile.
fn flood(origin: &Origin, reason: &str, attack: impl FnOnce(&mut H2)) {
    flood_with(origin, "", reason, attack);
}

/// The same with a ClientPolicy. A neighbour that is starved does not get its answers within its socket's 10 seconds.
fn flood_with(origin: &Origin, more: &str, reason: &str, attack: impl FnOnce(&mut H2)) {
    let yaml = config(&[&origin.address], "") + more;
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let mut neighbour = H2::connect(&proxy.address);
    let address = proxy.address.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let served = std::thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        loop {
            let started = Instant::now();
            let stream = neighbour.get("/good");
            assert_eq!(neighbour.answer(stream).status(), 200);
            slowest = slowest.max(started.elapsed());
            count += 1;
            if count == 1 {
                begin.send(()).unwrap();
            }
            // One more behind the end of the attack.
            if count > 1 && stopped.try_recv().is_ok() {
                break;
            }
        }
        (count, slowest)
    });
    begun.recv().unwrap();
    let mut client = H2::connect(&address);
    attack(&mut client);
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM), "{reason}");
    stop.send(()).unwrap();
    let (count, slowest): (u32, Duration) = served.join().unwrap();
    assert!(count > 1 && slowest < Duration::from_secs(5), "{count} answers, the slowest after {slowest:?}");
    eprintln!("{reason}: {count} answers to the neighbour, the slowest after {slowest:?}");
    proxy.expect_metric("ringway_downstream_errors_total", &[&format!("reason=\"{reason}")], 1.0);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

/// Sends in portions that a server which has had enough may no longer take.
fn pour(client: &mut H2, count: usize, mut piece: impl FnMut(usize) -> Vec<u8>) {
    for start in (0..count).step_by(100) {
        let bytes: Vec<u8> = (start..start + 100).flat_map(&mut piece).collect();
        if !client.try_send(&bytes) {
            return;
        }
    }
}

/// CVE-2023-44487, at a pace at which every request is begun.
#[test]
fn patient_rapid_reset() {
    flood(&recording(), "h2_reset_flood", |client| {
        for _ in 0..20_000 {
            let stream = client.next_stream();
            if !client.try_send(&frame(HEADERS, END_HEADERS, stream, &block(&post("/good")))) {
                return;
            }
            let other = client.next_stream();
            if !client.try_send(&frame(HEADERS, END_HEADERS | END_STREAM, other, &block(&get("/good"))))
                || client.answer(other).status() != 200
                || !client.try_send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()))
            {
                return;
            }
        }
    });
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    flood(&recording(), "h2_", |client| {
        for _ in 0..100 {
            let stream = client.get("/good");
            client.answer(stream);
        }
        pour(client, 20_000, |n| {
            let id = u32::try_from(n).unwrap() * 2 + 1001;
            let mut bytes = frame(HEADERS, END_HEADERS, id, &block(&post("/good")));
            bytes.extend(frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes()));
            bytes
        });
    });
}

/// CVE-2025-8671: requests that have to be reset, here for windows that overflow.
#[test]
fn made_you_reset() {
    flood(&recording(), "h2_flood", |client| {
        pour(client, 5000, |n| {
            let id = u32::try_from(n).unwrap() * 2 + 1;
            let mut bytes = frame(HEADERS, END_HEADERS, id, &block(&post("/good")));
            bytes.extend(frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes()));
            bytes
        });
    });
}

/// CVE-2024-27316.
#[test]
fn continuation_flood() {
    flood(&recording(), "h2_flood", |client| {
        client.frame(HEADERS, END_STREAM, 1, &block(&get("/good")));
        pour(client, 10_000, |_| frame(CONTINUATION, 0, 1, &[]));
    });
}

/// CVE-2019-9512.
#[test]
fn ping_flood() {
    flood(&recording(), "h2_ping_flood", |client| pour(client, 20_000, |_| frame(PING, 0, 0, b"12345678")));
}

/// CVE-2019-9515.
#[test]
fn settings_flood() {
    flood(&recording(), "h2_settings_flood", |client| pour(client, 20_000, |_| frame(SETTINGS, 0, 0, &[])));
}

/// Acknowledgements of what was not sent.
#[test]
fn priority_and_unknown_frames() {
    flood(&recording(), "h2_frame_flood", |client| {
        pour(client, 20_000, |n| frame(if n % 2 == 0 { PRIORITY } else { 0x77 }, ACK, 1, &[0, 0, 0, 3, 1]));
    });
}

/// CVE-2019-9518.
#[test]
fn empty_frames() {
    flood(&recording(), "h2_flood", |client| {
        let stream = client.open(&post("/good"), false);
        pour(client, 5000, |_| frame(DATA, 0, stream, &[]));
    });
}

/// CVE-2026-47774: thousands of references to one large field, and of crumbs of a cookie.
#[test]
fn hpack_bombs_are_bounded() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    // A field of 4,000 bytes into the dynamic table, then thousands of references to it, one byte each.
    let mut bomb = block(&get("/bomb"));
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend(vec![0xbe; 10_000]);
    client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let answer = client.answer(1);
    assert!(answer.status() == 431 || matches!(answer.ended, Some(Ended::Reset(_) | Ended::Cut)), "{answer:?}");
    let mut client = H2::connect(&proxy.address);
    let crumbs = with(get("/bomb"), &[("cookie", ""); 3000]);
    let stream = client.open(&crumbs, true);
    let answer = client.answer(stream);
    assert!(answer.status() == 431 || matches!(answer.ended, Some(Ended::Reset(_) | Ended::Cut)), "{answer:?}");
    assert_eq!(origin.requests(), []);
    proxy.expect_metric("ringway_requests_total", &[], 0.0);
}

/// Answers that their client gives no credit for.
#[test]
fn a_window_that_stays_shut_is_given_up() {
    let origin = Origin::replying(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 300_000, b'x');
        answer
    });
    let yaml = config(&[&origin.address], "") + &policy("  timeout: {http: {streamIdleTimeout: 1s}}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = H2::connect(&proxy.address);
    client.generous = false;
    let stream = client.get("/");
    assert_eq!(client.answer(stream).ended, Some(Ended::Reset(CANCEL)));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"h2_stalled\""], 1.0);
}

/// CVE-2026-26311: frames behind a reset in one packet.
#[test]
fn data_behind_a_reset_is_no_request() {
    let origin = recording();
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&post("/a")));
    bytes.extend(frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
    bytes.extend(frame(DATA, END_STREAM, 1, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.send(&bytes);
    let mut client = H2::connect(&proxy.address);
    let stream = client.get("/good");
    assert_eq!(client.answer(stream).status(), 200);
    assert!(origin.requests().iter().all(|request| request.target != "/evil"));
}

/// Answers before the body has come, so that the stream is reset here.
fn early() -> Origin {
    Origin::script(|mut conn, _| {
        while conn.head().is_some() {
            conn.send(OK);
        }
    })
}

/// What the client has sent on a stream before it knew that it is over, however many streams there have been since.
#[test]
fn late_frames_are_forgiven() {
    let proxy = Proxy::to(&early().address);
    let mut client = H2::connect(&proxy.address);
    let early = client.open(&post("/"), false);
    assert_eq!(client.answer(early).status(), 200);
    for _ in 0..300 {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).status(), 200);
    }
    client.frame(DATA, 0, early, b"late");
    client.frame(WINDOW_UPDATE, 0, early, &[0, 0, 0, 1]);
    client.frame(HEADERS, END_STREAM | END_HEADERS, early, &block(&[("x-end", "1")]));
    client.frame(RST_STREAM, 0, early, &CANCEL.to_be_bytes());
    let stream = client.get("/");
    assert_eq!(client.answer(stream).status(), 200);
    assert_eq!(proxy.metric("ringway_downstream_errors_total", &["reason=\"h2_protocol\""]), 0.0);
}

/// The same without end.
#[test]
fn late_frame_flood() {
    for late in [frame(DATA, 0, 1, b"x"), frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[("x-end", "1")]))] {
        flood(&early(), "h2_flood", |client| {
            let stream = client.open(&post("/"), false);
            assert_eq!((stream, client.answer(stream).status()), (1, 200));
            pour(client, 200_000, |_| late.clone());
        });
    }
}

/// What breaks the protocol ends the connection and says so.
#[test]
fn a_broken_connection_is_told_why() {
    let proxy = Proxy::to("echo");
    let mut client = H2::connect(&proxy.address);
    client.frame(DATA, 0, 0, b"x");
    assert_eq!(client.goaway(), Some(PROTOCOL_ERROR));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"h2_protocol\""], 1.0);
}

/// CVE-2026-47774, by the hundred: heads over the limit, of references into the table or of crumbs of a cookie.
#[test]
fn hpack_bomb_flood() {
    let mut bomb = block(&get("/good"));
    // A field of 4,000 bytes into the dynamic table, then references to it, one byte each.
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend(vec![0xbe; 10_000]);
    // Crumbs as references to the static table's empty cookie.
    let mut crumbs = block(&get("/good"));
    crumbs.extend(vec![0xa0; 10_000]);
    for head in [bomb, crumbs] {
        flood(&recording(), "h2_flood", |client| {
            pour(client, 1000, |n| frame(HEADERS, END_HEADERS | END_STREAM, u32::try_from(n).unwrap() * 2 + 1, &head));
        });
    }
}

/// Malformed requests by the hundred.
#[test]
fn malformed_request_flood() {
    flood(&recording(), "h2_flood", |client| {
        pour(client, 5000, |n| {
            let fields = with(get("/good"), &[("transfer-encoding", "chunked")]);
            frame(HEADERS, END_HEADERS | END_STREAM, u32::try_from(n).unwrap() * 2 + 1, &block(&fields))
        });
    });
}

/// Requests by the thousand beyond those that may be open at a time.
#[test]
fn refused_request_flood() {
    flood(&recording(), "h2_flood", |client| {
        for _ in 0..128 {
            client.open(&with(post("/good"), &[("content-length", "1")]), false);
        }
        pour(client, 20_000, |n| {
            let id = u32::try_from(n).unwrap() * 2 + 1001;
            frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&get("/good")))
        });
    });
}

fn large(size: usize) -> Origin {
    Origin::replying(move |request| {
        let size = if request.target == "/good" { 2 } else { size };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    })
}

/// CVE-2019-9511 and CVE-2019-9517: credit for an answer byte by byte.
#[test]
fn window_update_dribble() {
    flood(&large(300_000), "h2_window_flood", |client| {
        client.generous = false;
        client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        let stream = client.get("/large");
        pour(client, 100_000, |_| frame(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes()));
    });
}

/// CVE-2019-9511 the other way: bodies that come byte by byte on many streams.
#[test]
fn dribbled_bodies() {
    flood(&recording(), "h2_flood", |client| {
        let streams: Vec<u32> =
            (0..100).map(|_| client.open(&with(post("/good"), &[("content-length", "100000")]), false)).collect();
        for _ in 0..1000 {
            let bytes: Vec<u8> = streams.iter().flat_map(|stream| frame(DATA, 0, *stream, b"x")).collect();
            if !client.try_send(&bytes) {
                return;
            }
        }
    });
}

const SHORT: &str = "  timeout: {http: {streamIdleTimeout: 1s}}\n";

/// Answers by the dozen that their client gives no credit for: each is given up, and then the connection is.
#[test]
fn zero_window_stalls() {
    flood_with(&large(300_000), &policy(SHORT), "h2_flood", |client| {
        client.generous = false;
        client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        (0..64).for_each(|_| {
            client.get("/large");
        });
    });
}

/// Streams that are opened and left: each is answered, and then the connection is given up.
#[test]
fn streams_opened_and_left() {
    flood_with(&recording(), &policy(SHORT), "h2_flood", |client| {
        (0..64).for_each(|_| {
            client.open(&with(post("/good"), &[("content-length", "5")]), false);
        });
    });
}

/// CVE-2021-32778: a connection's streams taken back all at once, again and again; none of it costs more with their
/// number, and nothing is left behind.
#[test]
fn streams_taken_back_all_at_once() {
    let origin = Origin::script(|mut conn, _| {
        while let Some(request) = conn.request() {
            if request.target == "/good" {
                conn.send(OK);
            }
        }
    });
    let proxy = Proxy::with(&config(&[&origin.address], ""), &Options { workers: 1, ..Options::default() });
    let mut neighbour = H2::connect(&proxy.address);
    for _ in 0..20 {
        let mut client = H2::connect(&proxy.address);
        client.settle();
        let streams: Vec<u32> = (0..120).map(|_| client.get("/hangs")).collect();
        client.settle();
        client
            .send(&streams.iter().flat_map(|id| frame(RST_STREAM, 0, *id, &CANCEL.to_be_bytes())).collect::<Vec<_>>());
        let stream = neighbour.get("/good");
        assert_eq!(neighbour.answer(stream).status(), 200);
        client.settle();
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 2400.0);
    crate::support::eventually("only the neighbour is left", || {
        crate::support::proxy::sum(&proxy.metrics(), "ringway_connections_active", &[]) <= 1.0
    });
}

/// CVE-2026-47774 and CVE-2026-49975: heads that are as large as they may be, of references to one field, pinned by a
/// window that stays shut.
#[test]
fn large_heads_behind_a_shut_window_take_bounded_memory() {
    let proxy = Proxy::with(&config(&[&large(1 << 20).address], ""), &Options { workers: 1, ..Options::default() });
    let before = proxy.anonymous_kib();
    let mut neighbour = H2::connect(&proxy.address);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = H2::connect(&proxy.address);
        client.generous = false;
        client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for number in 0..120 {
            let stream = client.next_stream();
            let mut head = block(&get("/large"));
            if number == 0 {
                // Into the dynamic table, once.
                head.extend([0x40, 1, b'x', 127, 0xd9, 2]);
                head.extend([b'y'; 472]);
            }
            head.extend(vec![0xbe; 100]);
            client.frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
        }
        client.settle();
        clients.push(client);
        let stream = neighbour.get("/good");
        assert_eq!(neighbour.answer(stream).status(), 200);
    }
    std::thread::sleep(Duration::from_millis(500));
    // 480 requests of 52 KB each, whose answers may have a block in hand: 64 KiB and some.
    let held = proxy.anonymous_kib().saturating_sub(before);
    eprintln!("{held} KiB for 480 requests behind shut windows");
    assert!(held < 96 << 10, "{held} KiB");
    let stream = neighbour.get("/good");
    assert_eq!(neighbour.answer(stream).status(), 200);
}
