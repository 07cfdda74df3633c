//! Reloads: what changes, what stays, and what a bad file does.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Directory, Options, Proxy, backend, config, gateway};

#[test]
fn reloads_under_load_fail_no_request() {
    let one = Origin::echo();
    let two = Origin::echo();
    let proxy = Proxy::to(&one.address);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (address, stop, answered) = (proxy.address.clone(), Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(&address);
                    // Some connections live through many reloads, others are new.
                    for index in 0..if number == 0 { 100_000 } else { 20 } {
                        let response = client.get(&format!("/{index}"));
                        assert_eq!((response.status, response.text()), (200, format!("GET /{index}").as_str()));
                        answered.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    for round in 0..30 {
        let origin = if round % 2 == 0 { &two } else { &one };
        proxy.reload(&config(&[&origin.address], ""));
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 100);
    assert!(two.connections() > 0);
    // Every reload counts. The watcher, which may see a file between its writing and the request to read it, adds its own.
    assert!(proxy.metric("ringway_config_generation", &[]) >= 31.0);
}

#[test]
fn files_are_watched() {
    let one = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none".to_vec());
    let two = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo".to_vec());
    let proxy = Proxy::to(&one.address);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "one");
    proxy.write_config(&config(&[&two.address], ""));
    eventually("the new file is served", || client.get("/").text() == "two");
}

#[test]
fn directories_are_watched_with_what_is_made_in_them() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none".to_vec());
    let tree = Directory::new();
    let arguments = vec!["--config".to_owned(), tree.0.display().to_string()];
    let no_routes = gateway("  - {name: web, port: 8080, protocol: HTTP}\n");
    let proxy = Proxy::with(&no_routes, &Options { arguments, ..Options::default() });
    assert_eq!(proxy.client().get("/").status, 404);
    let (_, routes) =
        config(&[&origin.address], "").split_once("---\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let below = tree.0.join("team/site");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("routes.yaml"), routes).unwrap();
    eventually("the new file is served", || proxy.client().get("/").status == 200);
    std::fs::remove_file(below.join("routes.yaml")).unwrap();
    eventually("the file's routes are gone", || proxy.client().get("/").status == 404);
}

#[test]
fn who_reads_or_logs_beside_the_configuration_wakes_nobody() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let wakes = || thread_switches(&proxy, "watch");
    let file = proxy.directory.0.join("config.yaml");
    let mut log = std::fs::File::create(proxy.directory.0.join("other.log")).unwrap();
    let before = wakes();
    for _ in 0..500 {
        std::fs::read(&file).unwrap();
        writeln!(log, "a line").unwrap();
    }
    assert!(wakes() - before < 50, "{} wake-ups for 500 reads and writes", wakes() - before);
}

/// How often a thread of the proxy has waited.
fn thread_switches(proxy: &Proxy, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.child.id())).unwrap();
    let status = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .find(|status| status.starts_with(&format!("Name:\t{name}\n")))
        .unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn sighup_reloads() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    proxy.signal("HUP");
    eventually("a new generation", || proxy.metric("ringway_config_generation", &[]) == 2.0);
}

#[test]
fn a_bad_file_keeps_the_last_good_generation() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    proxy.write_config(&(config(&[&origin.address], "") + "---\nkind: nonsense\n"));
    let (status, body) = proxy.admin("POST", "/reload");
    assert_eq!(status, 409);
    assert!(body.contains("config.yaml:") && body.contains("error: `apiVersion` is missing"), "{body}");
    assert_eq!(client.get("/still").status, 200);
    assert!(proxy.metric("ringway_config_errors", &[]) > 0.0);
    assert_eq!(proxy.metric("ringway_config_generation", &[]), 1.0);
    proxy.reload(&config(&[&origin.address], ""));
    assert_eq!(proxy.metric("ringway_config_errors", &[]), 0.0);
    assert_eq!(client.get("/again").status, 200);
}

#[test]
fn a_port_that_cannot_be_bound_keeps_the_last_good_generation() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let busy = std::net::TcpListener::bind(format!("{}:8099", proxy.ip())).unwrap();
    let more = config(&[&origin.address], "").replace(
        "  - {name: web, port: 8080, protocol: HTTP}\n",
        "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: more, port: 8098, protocol: HTTP}\n  - {name: busy, port: 8099, protocol: HTTP}\n",
    );
    proxy.write_config(&more);
    let (status, body) = proxy.admin("POST", "/reload");
    assert_eq!(status, 409);
    assert!(body.contains(":8099 is in use by another process"), "{body}");
    assert_eq!(proxy.client().get("/").status, 200);
    assert!(std::net::TcpStream::connect(proxy.port(8098)).is_err(), "nothing of it is half applied");
    drop(busy);
    proxy.reload(&more);
    assert_eq!(Client::connect(&proxy.port(8099)).get("/").status, 200);
}

#[test]
fn listeners_come_and_go_and_established_connections_stay() {
    let origin = Origin::echo();
    let two = |listeners: &str| {
        config(&[&origin.address], "").replace("  - {name: web, port: 8080, protocol: HTTP}\n", listeners)
    };
    let both = two("  - {name: web, port: 8080, protocol: HTTP}\n  - {name: other, port: 8082, protocol: HTTP}\n");
    let proxy = Proxy::start(&both);
    let mut kept = proxy.client();
    let mut idle = Client::connect(&proxy.port(8082));
    assert_eq!((kept.get("/").status, idle.get("/").status), (200, 200));
    proxy.reload(&two("  - {name: web, port: 8080, protocol: HTTP}\n"));
    assert_eq!(kept.get("/").status, 200);
    idle.expect_close();
    eventually("the port is free", || std::net::TcpStream::connect(proxy.port(8082)).is_err());
    proxy.reload(&both);
    assert_eq!(Client::connect(&proxy.port(8082)).get("/").status, 200);
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn a_tcp_connection_outlives_its_route() {
    let tcp = gateway("  - {name: web, port: 8080, protocol: TCP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]}]\n"
        + &backend("echo", &["echo"]);
    let proxy = Proxy::start(&tcp);
    let mut client = proxy.client();
    client.send("one");
    assert_eq!(client.raw(3), b"one");
    let origin = Origin::echo();
    // The same port speaks HTTP from now on.
    proxy.reload(&config(&[&origin.address], ""));
    client.send("two");
    assert_eq!(client.raw(3), b"two");
    eventually("new connections speak HTTP", || {
        let mut fresh = proxy.client();
        fresh.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        fresh.response_to("GET").is_ok_and(|response| response.status == 200)
    });
}

/// More backends than a worker builds or frees in one turn: what stays keeps its connections and figures, what changes
/// changes, what goes is gone.
#[test]
fn thousands_of_backends_change_hands() {
    let one = Origin::echo();
    let other = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother".to_vec());
    let yaml = |changed: &str, services: std::ops::Range<usize>| {
        let service = |number: usize| {
            let address = if number == 700 { changed } else { &one.address };
            let route = format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: s{number}}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - matches: [{{path: {{value: /s{number}}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: b{number}}}]\n"
            );
            route + &backend(&format!("b{number}"), &[address])
        };
        gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &services.map(service).collect::<String>()
    };
    let options = Options { workers: 1, ..Options::default() };
    let proxy = Proxy::with(&yaml(&one.address, 0..1400), &options);
    let mut client = proxy.client();
    for path in ["/s3/a", "/s700/a", "/s1399/a"] {
        assert_eq!(client.get(path).text(), format!("GET {path}"));
    }
    assert_eq!(one.connections(), 3);
    // Others stand where these stood: every number of a backend and a route is another one.
    proxy.reload(&yaml(&other.address, 1..1402));
    assert_eq!(client.get("/s3/b").text(), "GET /s3/b");
    assert_eq!(client.get("/s1399/b").text(), "GET /s1399/b");
    assert_eq!(client.get("/s700/b").text(), "other");
    assert_eq!(client.get("/s0/b").status, 404);
    assert_eq!(client.get("/s1401/b").text(), "GET /s1401/b");
    assert_eq!((one.connections(), other.connections()), (4, 1));
    for (route, count) in [("s3", 2.0), ("s700", 2.0), ("s1399", 2.0), ("s1401", 1.0)] {
        proxy.expect_metric("ringway_requests_total", &[&format!("route=\"HTTPRoute/default/{route}\"")], count);
    }
    let slowest = |route: &str| {
        let route = format!("route=\"HTTPRoute/default/{route}\"");
        proxy.metric("ringway_request_duration_seconds", &[&route, "quantile=\"1\""])
    };
    assert!(slowest("s3") > 0.0 && slowest("s1401") > 0.0);
    // Back to a few.
    proxy.reload(&yaml(&one.address, 3..4));
    assert_eq!((client.get("/s3/c").text(), client.get("/s700/c").status), ("GET /s3/c", 404));
    assert_eq!(one.connections(), 4);
}
