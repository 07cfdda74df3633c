//! Large bodies of HTTP/1.1, whose length is known: spliced from one connection to the other.

use std::io::Read as _;
use std::time::Duration;

use crate::support::client::{Client, Ended};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config, policy};

const MIB: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 11 & 255).to_le_bytes()[0]).collect()
}

fn post(len: usize) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n")
}

fn answer(len: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")
}

/// Answers with the body that it got.
fn mirror() -> Origin {
    Origin::script(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(answer(request.body.len()));
            conn.send(request.body);
        }
    })
}

fn single(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 1, ..Default::default() })
}

fn nothing_is_held(proxy: &Proxy) {
    eventually("buffers and pipes are given back", || {
        proxy.metric("ringway_worker_pipes_in_use", &[]) == 0.0
            && proxy.metric("ringway_worker_buffers_in_use", &[]) == 0.0
    });
}

#[test]
fn bodies_of_any_size_pass_whole_and_connections_are_kept() {
    let origin = mirror();
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    let mut sender = Client::over(client.stream.try_clone().unwrap());
    for len in [100 << 10, 8 * MIB, (128 << 10) + 1, 3 * MIB + 7, 5] {
        let body = pattern(len);
        let request = [post(len).as_bytes(), &body].concat();
        // The request behind it is read from where the body ends.
        let next = format!("{}abc", post(3));
        let sent = std::thread::scope(|scope| {
            let sent = scope.spawn(|| sender.try_send([&request, next.as_bytes()].concat()));
            assert!(client.response().body == body, "{len}");
            assert_eq!(client.response().text(), "abc", "{len}");
            sent.join().unwrap()
        });
        assert!(sent);
    }
    assert_eq!(origin.connections(), 1);
    // Both ways, and most of it: what came with the heads was copied.
    proxy.expect_metric("ringway_spliced_bytes_total", &[], f64::from(16 << 20));
    nothing_is_held(&proxy);
}

#[test]
fn an_answer_that_ends_early_is_cut() {
    for (abort, reason) in [(false, "eof"), (true, "reset")] {
        let origin = Origin::script(move |mut conn, _| {
            conn.request();
            conn.send(answer(8 * MIB));
            conn.send(pattern(4 * MIB));
            if abort {
                std::thread::sleep(Duration::from_millis(200));
                conn.abort();
            }
        });
        let proxy = Proxy::to(&origin.address);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(client.response_to("GET"), Err(Ended::Reset(_) | Ended::Truncated(_))));
        proxy.expect_metric("ringway_upstream_errors_total", &[&format!("reason=\"{reason}\"")], 1.0);
        nothing_is_held(&proxy);
    }
}

#[test]
fn a_slow_reader_gets_all_of_it_and_holds_a_pipe_at_most() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        conn.send(answer(24 * MIB));
        conn.send(pattern(24 * MIB));
    });
    let proxy = Proxy::to(&origin.address);
    let before = proxy.anonymous_kib();
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    std::thread::sleep(Duration::from_millis(700));
    let grown = proxy.anonymous_kib().saturating_sub(before);
    assert!(grown < 10 * 256, "{grown} KiB for 10 bodies");
    for client in &mut clients {
        assert!(client.response().body == pattern(24 * MIB));
    }
    nothing_is_held(&proxy);
}

#[test]
fn a_client_that_takes_nothing_or_goes_away_ends_the_exchange() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        conn.send(answer(1 << 30));
        while conn.send(pattern(MIB)) {}
    });
    let yaml = config(&[&origin.address], "") + &policy("  timeout: {http: {streamIdleTimeout: 500ms}}\n");
    let proxy = Proxy::start(&yaml);
    let aborted = || proxy.metric("ringway_downstream_errors_total", &["reason=\"aborted\""]);
    let mut silent = proxy.client();
    silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is given up", || aborted() == 1.0);
    let mut gone = proxy.client();
    gone.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gone.raw(3 * MIB);
    gone.abort();
    eventually("it has gone", || aborted() == 2.0);
    eventually("nothing is left", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
    nothing_is_held(&proxy);
}

#[test]
fn an_origin_that_stops_within_a_body_is_timed_out() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        conn.send(answer(8 * MIB));
        conn.send(pattern(4 * MIB));
        conn.request();
    });
    let yaml = config(&[&origin.address], "") + &policy("  timeout: {http: {streamIdleTimeout: 300ms}}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(client.response_to("GET"), Err(Ended::Reset(_) | Ended::Truncated(_))));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"timeout\""], 1.0);
    nothing_is_held(&proxy);
}

#[test]
fn bytes_behind_a_large_answer_end_the_upstream_connection() {
    let origin = Origin::script(|mut conn, _| {
        while conn.request().is_some() {
            let head = answer(MIB);
            conn.send([head.as_bytes(), &pattern(MIB), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"].concat());
        }
    });
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    for _ in 0..4 {
        assert!(client.get("/").body == pattern(MIB));
        // The rest may be on its way; a connection that was kept for so long is looked at before it is used.
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(origin.connections(), 4);
}

#[test]
fn uploads_that_are_cut_or_stop_reach_no_end() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        sender.send(conn.request().is_some()).unwrap();
    });
    let yaml = config(&[&origin.address], "") + &policy("  timeout: {http: {streamIdleTimeout: 1s}}\n");
    let proxy = Proxy::start(&yaml);
    let wait = Duration::from_secs(10);
    let mut cut = proxy.client();
    cut.send([post(8 * MIB).as_bytes(), &pattern(4 * MIB)].concat());
    cut.finish();
    assert!(matches!(cut.response_to("POST"), Err(Ended::Closed | Ended::Reset(_))));
    assert_eq!(receiver.recv_timeout(wait), Ok(false));
    let mut gone = proxy.client();
    gone.send([post(8 * MIB).as_bytes(), &pattern(4 * MIB)].concat());
    gone.abort();
    assert_eq!(receiver.recv_timeout(wait), Ok(false));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_cut\""], 2.0);
    let mut stopped = proxy.client();
    stopped.send([post(8 * MIB).as_bytes(), &pattern(4 * MIB)].concat());
    assert_eq!(stopped.response_to("POST").map(|response| response.status), Ok(408));
    assert_eq!(receiver.recv_timeout(wait), Ok(false));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"body_timeout\""], 1.0);
    nothing_is_held(&proxy);
}

#[test]
fn an_early_answer_calls_a_large_upload_off() {
    let origin = Origin::script(|mut conn, _| {
        conn.head();
        let mut some = vec![0; 300 << 10];
        conn.stream.read_exact(&mut some).unwrap();
        conn.reply("413 Content Too Large", "no");
        std::thread::sleep(Duration::from_millis(300));
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    // It waits for the answer with its body half sent.
    client.send([post(64 * MIB).as_bytes(), &pattern(MIB)].concat());
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "no"));
    eventually("the exchange is over", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
    nothing_is_held(&proxy);
}
