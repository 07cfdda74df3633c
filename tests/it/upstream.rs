//! Origins that fail: refused, reset, silent, lying, dying.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::Ended;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config};

fn single(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 1, ..Default::default() })
}

#[test]
fn a_refused_connection_is_502_and_another_endpoint_is_tried() {
    let dead = format!("{}:9", crate::support::address());
    let proxy = Proxy::to(&dead);
    assert_eq!(proxy.client().get("/").status, 502);
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""], 1.0);

    let origin = Origin::echo();
    let proxy = Proxy::start(&config(&[&dead, &origin.address], ""));
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/x").text(), "GET /x");
    }
}

/// What was answered is not the next request: neither the head that could not be sent nor a body that was.
#[test]
fn an_answered_request_is_not_answered_again() {
    let dead = format!("{}:9", crate::support::address());
    let proxy = Proxy::to(&dead);
    let mut client = proxy.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 502);
    assert_eq!(client.response().status, 502);
    assert_eq!(client.get("/3").status, 502);
    proxy.expect_metric("ringway_requests_total", &["5xx"], 3.0);
    assert_eq!(proxy.metric("ringway_requests_total", &["5xx"]), 3.0);

    // An origin that goes away in the middle of a body whose rest looks like a request.
    let origin = Origin::script(|mut conn, _| {
        conn.head();
        conn.abort();
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
    assert_eq!(client.response().status, 502);
    client.send("GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!matches!(client.rest(), Ok(bytes) if !bytes.is_empty()));
    assert_eq!(proxy.metric("ringway_requests_total", &["5xx"]), 1.0);
}

#[test]
fn every_endpoint_refusing_is_503() {
    let dead: Vec<String> = (0..2).map(|_| format!("{}:9", crate::support::address())).collect();
    let proxy = Proxy::start(&config(&[&dead[0], &dead[1]], ""));
    assert_eq!(proxy.client().get("/").status, 503);
}

#[test]
fn an_origin_that_closes_without_an_answer_is_502() {
    for reset in [false, true] {
        let origin = Origin::script(move |mut conn, _| {
            conn.request();
            if reset {
                conn.abort();
            }
        });
        let proxy = Proxy::to(&origin.address);
        let mut client = proxy.client();
        assert_eq!(client.get("/").status, 502);
        let reason = if reset { "reason=\"reset\"" } else { "reason=\"eof\"" };
        proxy.expect_metric("ringway_upstream_errors_total", &[reason], 1.0);
        // The client's connection is as good as before.
        assert_eq!(client.get("/").status, 502);
    }
}

/// Answers once on each connection and closes it while it is idle; counts what it is asked.
fn closes_after_one(count: &'static AtomicUsize) -> Origin {
    Origin::script(move |mut conn, _| {
        if conn.request().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            conn.reply("200 OK", "one");
            // The next request meets the close on its way.
            if conn.number == 0 {
                conn.head();
            }
        }
    })
}

#[test]
fn a_get_that_meets_a_closed_idle_connection_is_sent_again() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let origin = closes_after_one(&COUNT);
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/1").text(), "one");
    assert_eq!(client.get("/2").text(), "one");
    assert_eq!(COUNT.load(Ordering::SeqCst), 2);
}

#[test]
fn a_post_that_may_have_been_acted_on_is_not_sent_again() {
    let posts: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let origin = Origin::script(move |mut conn, _| {
        conn.request();
        conn.reply("200 OK", "one");
        if let Some(request) = conn.request() {
            assert_eq!(request.method, "POST");
            posts.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/1").text(), "one");
    client.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.response().status, 502);
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[test]
fn idle_connections_that_the_origin_closed_are_not_used() {
    let origin = Origin::script(|mut conn, _| {
        if conn.request().is_some() {
            conn.reply("200 OK", "one");
        }
    });
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    for _ in 0..5 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.response().text(), "one");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn malformed_answers_are_502() {
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let origin = Origin::closing(bad);
        let proxy = Proxy::to(&origin.address);
        assert_eq!(proxy.client().get("/").status, 502, "{bad:?}");
    }
}

#[test]
fn endless_answer_heads_are_502() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\n");
        while conn.send("X-More: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n") {}
    });
    let proxy = Proxy::to(&origin.address);
    assert_eq!(proxy.client().get("/").status, 502);
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"bad_response\""], 1.0);
}

#[test]
fn endless_interim_answers_are_502() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        while conn.send("HTTP/1.1 102 Processing\r\n\r\n") {}
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 502);
}

#[test]
fn an_origin_that_dies_in_a_body_cuts_the_client() {
    for (head, body) in [("Content-Length: 10", "12345"), ("Transfer-Encoding: chunked", "5\r\n12345\r\n")] {
        let origin = Origin::script(move |mut conn, _| {
            conn.request();
            conn.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
            std::thread::sleep(Duration::from_millis(100));
            conn.abort();
        });
        let proxy = Proxy::to(&origin.address);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.response_to("GET") {
            Err(Ended::Reset(_) | Ended::Truncated(_)) => {}
            other => panic!("{head}: {other:?}"),
        }
    }
}

#[test]
fn bytes_behind_an_answer_end_the_upstream_connection() {
    let origin = Origin::script(|mut conn, _| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        }
    });
    let proxy = single(&config(&[&origin.address], ""));
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn a_silent_origin_times_out() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
        std::thread::sleep(Duration::from_secs(5));
    });
    let yaml = config(&[&origin.address], "")
        + &crate::support::proxy::policy("  timeout: {http: {streamIdleTimeout: 300ms}}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(client.response_to("GET"), Err(Ended::Reset(_) | Ended::Truncated(_))));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"timeout\""], 1.0);
}

#[test]
fn the_pool_is_bounded_and_swept() {
    let origin = Origin::echo();
    let proxy = single(&config(&[&origin.address], ""));
    let mut clients: Vec<_> = (0..50).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        client.response();
    }
    crate::support::eventually("connections are kept", || proxy.metric("ringway_worker_pool_idle", &[]) > 0.0);
    assert!(proxy.metric("ringway_worker_pool_idle", &[]) <= 50.0);
}

/// Clients that were watched while they waited long for their answers leave as soon as they have them, many at a time.
/// The watches are dropped by then, but may hold their sockets for longer than it takes to find the end.
#[test]
fn clients_that_were_watched_leave_at_once() {
    let origin = Origin::script(|mut conn, _| {
        while conn.head().is_some() {
            std::thread::sleep(Duration::from_millis(400));
            if conn.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                break;
            }
        }
    });
    let proxy = single(&config(&[&origin.address], ""));
    for _ in 0..3 {
        let clients: Vec<_> = (0..300)
            .map(|_| {
                let mut client = proxy.client();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                client
            })
            .collect();
        std::thread::sleep(Duration::from_millis(250));
        // The proxy finds all answers at once.
        proxy.signal("STOP");
        std::thread::sleep(Duration::from_millis(400));
        std::thread::scope(|scope| {
            let mut clients = clients.into_iter();
            for _ in 0..30 {
                let some: Vec<_> = clients.by_ref().take(10).collect();
                scope.spawn(move || {
                    for mut client in some {
                        assert_eq!(client.response().text(), "ok");
                    }
                });
            }
            proxy.signal("CONT");
        });
    }
    let mut last = proxy.client();
    assert_eq!(last.get("/").status, 200);
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}
