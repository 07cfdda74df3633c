//! Requests of HTTP/2 that are taken back before they have been sent: nothing is waited for any more.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::external_auth;
use crate::http2_upstream::HTTP2;
use crate::support::h2::{CANCEL, H2};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, config, sum};
use crate::support::{black_hole, eventually};

fn patient(address: &str, spec: &str) -> String {
    config(&[address], "").replace("spec: {endpoints", &format!("spec: {{{spec}endpoints"))
        + "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: patient}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  timeout: {tcp: {connectTimeout: 120s}}\n"
}

/// Requests that are taken back while their connection is not there yet have nothing in flight, and their attempts to
/// connect are ended, but for a few.
#[test]
fn requests_that_are_taken_back_wait_for_no_connection() {
    for spec in ["", &format!("appProtocol: {HTTP2}, ")] {
        let (hole, _stuffing) = black_hole();
        let yaml = patient(&hole.local_addr().unwrap().to_string(), spec);
        let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Default::default() });
        let mut client = H2::connect(&proxy.address);
        client.settle();
        let descriptors = proxy.descriptors();
        for round in 1..=3 {
            let streams: Vec<u32> = (0..60).map(|_| client.get("/")).collect();
            client.settle();
            let in_flight = || proxy.metric("ringway_upstream_in_flight", &[]);
            eventually("all wait for a connection", || in_flight() == 60.0);
            streams.iter().for_each(|stream| client.reset(*stream, CANCEL));
            eventually("nothing is in flight", || in_flight() == 0.0);
            proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 60.0 * f64::from(round));
        }
        let left = || proxy.descriptors().saturating_sub(descriptors);
        eventually("attempts are ended", || left() <= 20);
        assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
    }
}

/// An attempt to connect goes on when its request is given up, so that clients which do not wait as long as that takes
/// are served by the next.
#[test]
fn a_connection_that_comes_late_is_kept() {
    let (hole, stuffing) = black_hole();
    let yaml = patient(&hole.local_addr().unwrap().to_string(), "");
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Default::default() });
    let mut client = H2::connect(&proxy.address);
    let stream = client.get("/");
    client.settle();
    eventually("it waits for a connection", || proxy.metric("ringway_upstream_in_flight", &[]) == 1.0);
    client.reset(stream, CANCEL);
    eventually("nothing is in flight", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
    let (before, accepted) = (stuffing.len(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for mut stream in hole.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut byte = [0; 4096];
                while stream.read(&mut byte).is_ok_and(|read| read > 0) {
                    let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            });
        }
    });
    eventually("it comes", || accepted.load(Ordering::SeqCst) > before);
    eventually("it is kept", || sum(&proxy.metrics(), "ringway_worker_pool_idle", &[]) == 1.0);
    let stream = client.get("/");
    assert_eq!(client.answer(stream).text(), "ok");
    assert_eq!(accepted.load(Ordering::SeqCst), before + 1);
}

/// The same of those that wait for a connection to the server of an ExternalAuth filter.
#[test]
fn a_client_that_leaves_waits_for_no_connection_to_the_server() {
    let app = Origin::echo();
    let (hole, _stuffing) = black_hole();
    let patient = "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: patient}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: auth}]\n  timeout: {tcp: {connectTimeout: 120s}}\n";
    let proxy = external_auth::start(
        &(external_auth::config(&hole.local_addr().unwrap().to_string(), &app.address, "") + patient),
    );
    let mut client = H2::connect(&proxy.address);
    let streams: Vec<u32> = (0..40).map(|_| client.get("/a")).collect();
    client.settle();
    let in_flight = || proxy.metric("ringway_upstream_in_flight", &["backend=\"Backend/default/auth\""]);
    eventually("all wait for a connection", || in_flight() == 40.0);
    streams.iter().for_each(|stream| client.reset(*stream, CANCEL));
    eventually("nothing is in flight", || in_flight() == 0.0);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 40.0);
    external_auth::expect_results(&proxy, [("allowed", 0.0), ("denied", 0.0), ("error", 0.0)]);
}
