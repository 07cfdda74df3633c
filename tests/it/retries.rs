//! Retry budgets: how much of what a backend gets may be sent again, over all cores.

use crate::support::client::Response;
use crate::support::h2::H2;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, gateway};

/// Everything goes to Backend `app`, and 500 is retried.
fn config(endpoints: &[&str], attempts: u32, constraint: &str) -> String {
    let route = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: app}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - retry: {{codes: [500], attempts: {attempts}, backoff: 1ms}}\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: app}}]\n"
    );
    let policy = format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: app}}\nspec:\n  targetRefs: [{{group: ringway.dev, kind: Backend, name: app}}]\n  loadBalancer: {{type: RoundRobin}}\n  retryConstraint: {constraint}\n"
    );
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &route + &backend("app", endpoints) + &policy
}

fn start(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 4, ..Options::default() })
}

/// Answers 500 to everything under `/bad`.
fn origin() -> Origin {
    Origin::replying(|request| {
        let status = if request.target.starts_with("/bad") { "500 Oh" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi").into_bytes()
    })
}

fn ask(proxy: &Proxy, path: &str) -> Response {
    proxy.client().get(path)
}

#[test]
fn a_spent_budget_answers_503_on_all_cores_and_in_both_versions() {
    let origin = origin();
    let spec = "{budget: {percent: 0, interval: 1h}, minRetryRate: {count: 3, interval: 1h}}";
    let yaml = config(&[&origin.address], 2, spec);
    let proxy = start(&yaml);
    let statuses: Vec<u16> = (0..5).map(|_| ask(&proxy, "/bad").status).collect();
    assert_eq!(statuses, [500, 503, 503, 503, 503]);
    assert_eq!(origin.requests().len(), 5 + 3);
    let mut client = H2::connect(&proxy.address);
    let stream = client.get("/bad");
    assert_eq!(client.answer(stream).status(), 503);
    // The connection goes on, and so does what need not be sent again.
    let mut client = proxy.client();
    for (path, status) in [("/bad", 503), ("/fine", 200), ("/bad", 503)] {
        assert_eq!(client.get(path).status, status, "{path}");
    }
    proxy.expect_metric("ringway_upstream_retries_total", &["backend=\"Backend/default/app\""], 3.0);
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"retry_overflow\""], 7.0);
    // A reload that leaves it as it is forgets nothing.
    proxy.reload(&(yaml + &backend("more", &["echo"])));
    assert_eq!(ask(&proxy, "/bad").status, 503);
    proxy.reload(&config(&[&origin.address], 2, "{budget: {percent: 100}}"));
    assert!((0..20).all(|_| ask(&proxy, "/bad").status == 500));
}

#[test]
fn a_budget_is_a_share_of_the_requests() {
    let origin = origin();
    let spec = "{budget: {percent: 20, interval: 1h}, minRetryRate: {count: 1, interval: 1h}}";
    let proxy = start(&config(&[&origin.address], 1, spec));
    assert!((0..10).all(|_| ask(&proxy, "/").status == 200));
    // With k requests that failed, r of which were sent again: 5 (r + 1) <= 10 + k + r + 1.
    let statuses: Vec<u16> = (0..10).map(|_| ask(&proxy, "/bad").status).collect();
    assert_eq!(statuses, [500, 500, 500, 503, 503, 500, 503, 503, 503, 500]);
}

#[test]
fn the_default_budget_lets_ten_retries_a_second_pass() {
    let origin = origin();
    let proxy = start(&config(&[&origin.address], 1000, "{}"));
    let answer = ask(&proxy, "/bad");
    assert_eq!(answer.status, 503);
    // Ten, or more where the second passes meanwhile; far from the thousand that the route would send.
    let sent = origin.requests().len();
    assert!((11..200).contains(&sent), "{sent}");
}

#[test]
fn connections_that_fail_before_anything_is_sent_cost_no_budget() {
    let origin = origin();
    let dead = format!("{}:9999", crate::support::address());
    let spec = "{budget: {percent: 0}, minRetryRate: {count: 1, interval: 1h}}";
    let proxy = start(&config(&[&origin.address, &dead], 1, spec));
    assert!((0..20).all(|_| ask(&proxy, "/").status == 200));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""], 1.0);
    assert_eq!(proxy.metric("ringway_upstream_retries_total", &[]), 0.0);
    assert_eq!((ask(&proxy, "/bad").status, ask(&proxy, "/bad").status), (500, 503));
    assert!((0..20).all(|_| ask(&proxy, "/").status == 200));
}

#[test]
fn faults_beyond_the_budget_are_503_too() {
    let closing = Origin::closing("");
    let spec = "{budget: {percent: 0}, minRetryRate: {count: 1, interval: 1h}}";
    let proxy = start(&config(&[&closing.address], 1, spec));
    assert_eq!((ask(&proxy, "/").status, ask(&proxy, "/").status), (502, 503));
}
