//! Limits of a backend on requests and connections, over all cores, and the queue in front of them.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::balance::policy;
use crate::support::client::{Client, Ended};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, config, gateway};

/// An origin whose answers wait for the gate to open, and that knows how many it has worked on at once.
struct Held {
    origin: Origin,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Held {
    fn new() -> Self {
        let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let shut = Arc::clone(&gate);
        let origin = Origin::script(move |mut conn, seen| {
            while let Some(request) = conn.request() {
                seen.lock().unwrap().push(request);
                let guard = shut.0.lock().unwrap();
                drop(shut.1.wait_while(guard, |open| !*open).unwrap());
                conn.reply("200 OK", "ok");
            }
        });
        Self { origin, gate }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

fn asking(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

fn limited(address: &str, spec: &str) -> String {
    config(&[address], "") + &policy(&format!("  circuitBreaker: {{{spec}}}\n"))
}

fn pending(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_upstream_pending", &[])
}

#[test]
fn what_is_over_the_limit_waits_and_what_is_over_the_queue_is_503() {
    let held = Held::new();
    let spec = "maxParallelRequests: 2, maxPendingRequests: 1, pendingTimeout: 30s";
    let proxy = Proxy::start(&limited(&held.origin.address, spec));
    let mut served: Vec<Client> = (0..2).map(|_| asking(&proxy)).collect();
    eventually("two are with the origin", || held.origin.requests().len() == 2);
    served.push(asking(&proxy));
    eventually("one waits", || pending(&proxy) == 1.0);
    assert_eq!(asking(&proxy).response().status, 503);
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"overflow\""], 1.0);
    // Limits and who waits are the same after a reload, connection settings or not.
    proxy.reload(&(limited(&held.origin.address, spec) + "  connection: {maxIdle: 7}\n"));
    assert_eq!(asking(&proxy).response().status, 503);
    assert_eq!(held.origin.requests().len(), 2);
    held.open();
    assert!(served.iter_mut().all(|client| client.response().status == 200));
    eventually("nobody waits", || pending(&proxy) == 0.0);
    assert_eq!(asking(&proxy).response().status, 200);
}

#[test]
fn waiting_has_an_end() {
    let held = Held::new();
    let spec = "maxParallelRequests: 1, pendingTimeout: 200ms";
    let proxy = Proxy::start(&limited(&held.origin.address, spec));
    let mut first = asking(&proxy);
    eventually("one is with the origin", || held.origin.requests().len() == 1);
    let mut others: Vec<Client> = (0..4).map(|_| asking(&proxy)).collect();
    assert!(others.iter_mut().all(|client| client.response().status == 503));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"pending_timeout\""], 4.0);
    held.open();
    assert_eq!(first.response().status, 200);
    assert_eq!(others[0].get("/").status, 200);
}

/// An origin that knows the most requests and connections that it has had at once.
fn counting(most: &'static [AtomicUsize; 2]) -> Origin {
    static NOW: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    let offset = if std::ptr::eq(most, &REQUESTS) { 0 } else { 2 };
    let enter = move |kind: usize| {
        let now = NOW[offset + kind].fetch_add(1, Ordering::SeqCst) + 1;
        most[kind].fetch_max(now, Ordering::SeqCst);
    };
    let leave = move |kind: usize| NOW[offset + kind].fetch_sub(1, Ordering::SeqCst);
    Origin::script(move |mut conn, _| {
        enter(1);
        while conn.request().is_some() {
            enter(0);
            std::thread::sleep(Duration::from_millis(2));
            leave(0);
            conn.reply("200 OK", "ok");
        }
        leave(1);
    })
}

static REQUESTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static CONNECTIONS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// 16 clients ask 20 times each through two cores.
fn crowd(proxy: &Proxy) {
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..20 {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
    });
}

#[test]
fn no_more_requests_than_the_limit_whatever_the_cores() {
    let origin = counting(&REQUESTS);
    let proxy = Proxy::start(&limited(&origin.address, "maxParallelRequests: 3, pendingTimeout: 30s"));
    crowd(&proxy);
    let most = REQUESTS[0].load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
    assert_eq!(pending(&proxy), 0.0);
}

#[test]
fn no_more_connections_than_the_limit_whatever_the_cores() {
    let origin = counting(&CONNECTIONS);
    let proxy = Proxy::start(&limited(&origin.address, "maxConnections: 3, pendingTimeout: 30s"));
    crowd(&proxy);
    assert_eq!(pending(&proxy), 0.0);
    // A connection that was given up is closed a moment before the origin has seen it.
    let most = CONNECTIONS[1].load(Ordering::SeqCst);
    assert!((2..=3 + 1).contains(&most), "{most} at once");
}

#[test]
fn tcp_connections_wait_too() {
    let origin = Origin::script(|mut conn, _| {
        conn.send("hello");
        let mut all = Vec::new();
        // Until the client goes.
        let _end = conn.stream.read_to_end(&mut all);
    });
    let yaml = |timeout: &str| {
        gateway("  - {name: raw, port: 8080, protocol: TCP}\n")
            + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n"
            + &backend("origin", &[&origin.address])
            + &policy(&format!("  circuitBreaker: {{maxConnections: 1, pendingTimeout: {timeout}}}\n"))
    };
    let proxy = Proxy::with(&yaml("30s"), &Options::default());
    let greeted = |client: &mut Client| {
        let mut hello = [0; 5];
        client.stream.read_exact(&mut hello).is_ok() && &hello == b"hello"
    };
    let mut first = proxy.client();
    assert!(greeted(&mut first));
    let mut second = proxy.client();
    eventually("one waits", || pending(&proxy) == 1.0);
    drop(first);
    assert!(greeted(&mut second));
    // It is turned away when no place becomes free.
    proxy.reload(&yaml("200ms"));
    assert!(matches!(proxy.client().rest(), Err(Ended::Reset(_))));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"pending_timeout\""], 1.0);
}
