//! Which endpoint a request or connection goes to.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::sync::{Arc, Condvar, Mutex};

use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, config, gateway};

/// Answers with its own name.
fn named(name: &str) -> Origin {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes();
    Origin::replying(move |_| answer.clone())
}

fn five() -> Vec<Origin> {
    ["a", "b", "c", "d", "e"].map(named).into()
}

/// A BackendPolicy for the Backend of [`config`].
pub fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: origin}}\nspec:\n  targetRefs: [{{group: ringway.dev, kind: Backend, name: origin}}]\n{spec}"
    )
}

fn proxy(origins: &[Origin], spec: &str, workers: u32) -> Proxy {
    let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
    let yaml = config(&addresses, "") + &policy(spec);
    Proxy::with(&yaml, &Options { workers, ..Options::default() })
}

/// Who answers a request, asked on a connection of its own.
fn asked(proxy: &Proxy, target: &str, fields: &str) -> String {
    let mut client = proxy.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response().text().to_owned()
}

#[test]
fn round_robin_takes_turns() {
    let origins = five();
    let proxy = proxy(&origins, "  loadBalancer: {type: RoundRobin}\n", 1);
    let mut client = proxy.client();
    for _ in 0..3 {
        let round: HashSet<String> = (0..5).map(|_| client.get("/").text().to_owned()).collect();
        assert_eq!(round.len(), 5, "{round:?}");
    }
}

#[test]
fn least_request_takes_turns_while_idle_and_random_does_not() {
    let origins = five();
    let rounds = |spec: &str| {
        let proxy = proxy(&origins, spec, 1);
        let mut client = proxy.client();
        (0..20).filter(|_| (0..5).map(|_| client.get("/").text().to_owned()).collect::<HashSet<_>>().len() == 5).count()
    };
    assert_eq!(rounds("  loadBalancer: {type: LeastRequest}\n"), 20);
    assert_eq!(rounds("  retry: {numRetries: 1}\n"), 20);
    // All five differ in a round in 4 % of the cases.
    assert!(rounds("  loadBalancer: {type: Random}\n") < 10);
}

#[test]
fn peak_ewma_keeps_away_from_an_endpoint_that_turned_slow() {
    let slow = Origin::replying(|_| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec()
    });
    let origins = [slow, named("fast")];
    let slow_answers = |spec: &str| {
        let proxy = proxy(&origins, spec, 1);
        let mut client = proxy.client();
        (0..20).filter(|_| client.get("/").text() == "slow").count()
    };
    // One request at a time: load alone sees no difference and takes turns.
    assert_eq!(slow_answers("  loadBalancer: {type: LeastRequest}\n"), 10);
    // Its first answer tells; it is forgotten within tens of seconds.
    let tried = slow_answers("  loadBalancer: {type: PeakEwma}\n");
    assert!((1..=3).contains(&tried), "{tried}");
}

/// Holds answers back until it is told to go on.
fn held(gate: &Arc<(Mutex<bool>, Condvar)>) -> Origin {
    let gate = Arc::clone(gate);
    Origin::replying(move |_| {
        let guard = gate.0.lock().unwrap();
        drop(gate.1.wait_while(guard, |open| !*open).unwrap());
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld".to_vec()
    })
}

#[test]
fn least_request_knows_what_other_cores_have_in_flight() {
    for spec in ["  loadBalancer: {type: LeastRequest}\n", "  loadBalancer: {type: PeakEwma}\n"] {
        let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let origins = [held(&gate), named("free")];
        let proxy = proxy(&origins, spec, 2);
        // Connections are spread over both cores; whichever has met the busy endpoint, the other one knows.
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let mut client = proxy.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            waiting.push(client);
            crate::support::eventually("the request is given to an endpoint", || {
                let metrics = proxy.metrics();
                let count = |name| crate::support::proxy::sum(&metrics, name, &["Backend/default/origin"]);
                count("ringway_upstream_requests_total") >= waiting.len() as f64
                    && count("ringway_upstream_in_flight") <= 1.0
            });
        }
        assert_eq!(origins[0].requests().len() + origins[1].requests().len(), 8 - 1);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        let answers: Vec<String> = waiting.iter_mut().map(|client| client.response().text().to_owned()).collect();
        assert_eq!(answers.iter().filter(|answer| *answer == "held").count(), 1, "{answers:?}");
        proxy.expect_metric("ringway_upstream_in_flight", &["Backend/default/origin"], 0.0);
    }
}

#[test]
fn what_is_in_flight_is_known_across_reloads() {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let origins = [held(&gate), named("free")];
    let addresses = origins.each_ref().map(|origin| origin.address.as_str());
    let yaml = |spec: &str| config(&addresses, "") + &policy(spec);
    let proxy = Proxy::with(&yaml("  retry: {numRetries: 1}\n"), &Options { workers: 1, ..Options::default() });
    let mut waiting = Vec::new();
    while proxy.metric("ringway_upstream_in_flight", &[]) < 1.0 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Other connection settings: a new endpoint, but not a new count.
    proxy.reload(&yaml("  retry: {numRetries: 2}\n  connection: {maxIdle: 3}\n"));
    assert_eq!(proxy.metric("ringway_upstream_in_flight", &[]), 1.0);
    let mut client = proxy.client();
    assert!((0..20).all(|_| client.get("/").text() == "free"));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    crate::support::eventually("nothing is in flight", || proxy.metric("ringway_upstream_in_flight", &[]) == 0.0);
}

/// Values have one endpoint each, whichever core serves them, and not all the same one.
fn consistent(spec: &str, ask: impl Fn(&Proxy, usize) -> String) {
    let origins = five();
    let proxy = proxy(&origins, spec, 2);
    let first: Vec<String> = (0..20).map(|value| ask(&proxy, value)).collect();
    for _ in 0..3 {
        let again: Vec<String> = (0..20).map(|value| ask(&proxy, value)).collect();
        assert_eq!(first, again, "{spec}");
    }
    assert!(first.iter().collect::<HashSet<_>>().len() >= 3, "{spec}: {first:?}");
}

fn hash_of(what: &str) -> String {
    format!("  loadBalancer: {{type: ConsistentHash, consistentHash: {{{what}}}}}\n")
}

#[test]
fn consistent_hash_by_header_cookie_query_and_path() {
    consistent(&hash_of("type: Header, header: {name: X-User}"), |proxy, value| {
        asked(proxy, "/", &format!("X-User: {value}\r\n"))
    });
    consistent(
        &hash_of("type: Headers, headers: [{name: X-User}, {name: X-Tenant}], tableSize: 1021"),
        |proxy, value| asked(proxy, "/", &format!("X-Tenant: {value}\r\nX-User: 1\r\n")),
    );
    consistent(&hash_of("type: Cookie, cookie: {name: id}"), |proxy, value| {
        asked(proxy, "/", &format!("Cookie: x=1; id={value}\r\n"))
    });
    consistent(&hash_of("type: QueryParams, queryParams: [{name: u}]"), |proxy, value| {
        asked(proxy, &format!("/?x=1&u={value}"), "")
    });
    consistent(&hash_of("type: Path"), |proxy, value| asked(proxy, &format!("/{value}?x"), ""));
}

#[test]
fn without_the_hashed_value_any_endpoint_will_do() {
    let origins = five();
    let proxy = proxy(&origins, &hash_of("type: Header, header: {name: X-User}"), 1);
    let mut client = proxy.client();
    let met: HashSet<String> = (0..60).map(|_| client.get("/").text().to_owned()).collect();
    assert!(met.len() >= 4, "{met:?}");
}

#[test]
fn a_hash_of_the_source_keeps_a_client_and_one_of_the_flow_spreads_its_connections() {
    let origins = five();
    let mut met = HashSet::new();
    let by_source = proxy(&origins, &hash_of("type: SourceIP"), 2);
    met.extend((0..20).map(|_| asked(&by_source, "/", "")));
    assert_eq!(met.len(), 1);
    let by_flow = proxy(&origins, &hash_of("type: FiveTuple"), 2);
    met.extend((0..40).map(|_| asked(&by_flow, "/", "")));
    assert!(met.len() >= 4, "{met:?}");
    let mut client = by_flow.client();
    let one: HashSet<String> = (0..10).map(|_| client.get("/").text().to_owned()).collect();
    assert_eq!(one.len(), 1, "a connection has one flow");
}

#[test]
fn tcp_connections_are_hashed_too() {
    let origins: Vec<Origin> = (0..5)
        .map(|name| Origin::script(move |mut conn, _| drop(conn.stream.write_all(format!("{name}").as_bytes()))))
        .collect();
    let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
    let mut yaml = gateway("  - {name: raw, port: 8080, protocol: TCP}\n");
    yaml.push_str(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n",
    );
    write!(yaml, "{}{}", backend("origin", &addresses), policy(&hash_of("type: SourceIP"))).unwrap();
    let proxy = Proxy::start(&yaml);
    let meet = || {
        let mut name = String::new();
        proxy.client().stream.read_to_string(&mut name).unwrap();
        name
    };
    let met: HashSet<String> = (0..20).map(|_| meet()).collect();
    assert_eq!(met.len(), 1, "{met:?}");
}

#[test]
fn an_endpoint_that_comes_is_warmed_up() {
    let origins = five();
    let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
    let spec = policy("  loadBalancer: {type: RoundRobin, slowStart: {window: 10m}}\n");
    let proxy = Proxy::with(&(config(&addresses[..4], "") + &spec), &Options { workers: 1, ..Options::default() });
    let mut client = proxy.client();
    let mut count = |name: &str| (0..500).filter(|_| client.get("/").text() == name).count();
    assert_eq!(count("a"), 125, "all have come together");
    proxy.reload(&(config(&addresses, "") + &spec));
    let new = count("e");
    assert!((1..40).contains(&new), "{new} of 500 to an endpoint whose share is 100 and begins at 10");
}

#[test]
fn policies_of_routes_and_gateways_reach_their_backends() {
    let origins = five();
    let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
    let policy = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: for-{name}}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}]\n{spec}"
        )
    };
    let round_robin = "  loadBalancer: {type: RoundRobin}\n";
    let yaml = config(&addresses, "") + &policy("Gateway", "edge", &hash_of("type: SourceIP"));
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let mut client = proxy.client();
    let mut met = || (0..10).map(|_| client.get("/").text().to_owned()).collect::<HashSet<_>>().len();
    assert_eq!(met(), 1, "the Gateway's policy");
    proxy.reload(&(yaml + &policy("HTTPRoute", "all", round_robin)));
    assert_eq!(met(), 5, "the route's policy comes before the Gateway's");
    let (_, status) = proxy.admin("GET", "/status");
    assert!(status.contains("BackendPolicy") && status.contains("ancestors"), "{status}");
}

#[test]
fn refused_connections_go_to_as_many_endpoints_as_retries_are_allowed() {
    let dead: Vec<String> = (0..5).map(|_| format!("{}:9", crate::support::address())).collect();
    let addresses: Vec<&str> = dead.iter().map(String::as_str).collect();
    for (retries, attempts) in [(0, 1), (3, 4), (10, 5)] {
        let yaml = config(&addresses, "") + &policy(&format!("  retry: {{numRetries: {retries}}}\n"));
        let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
        assert_eq!(proxy.client().get("/").status, if attempts == 1 { 502 } else { 503 });
        proxy.expect_metric("ringway_upstream_errors_total", &["connect_refused"], f64::from(attempts));
        assert_eq!(proxy.metric("ringway_upstream_requests_total", &[]), f64::from(attempts));
    }
}
