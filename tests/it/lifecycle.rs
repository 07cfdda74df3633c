//! Start and end: ports, signals, drain, exit codes.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Directory, Options, Proxy, command, config, driver, spawn};
use crate::support::{address, eventually, port_of_every_address};

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let origin = Origin::script(|mut conn, _| {
        while conn.request().is_some() {
            std::thread::sleep(Duration::from_millis(700));
            conn.reply("200 OK", "late");
        }
    });
    let mut proxy = Proxy::to(&origin.address);
    let mut busy = proxy.client();
    let mut idle = proxy.client();
    idle.get("/warm");
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    proxy.signal("TERM");
    let response = busy.response();
    assert_eq!((response.text(), response.header("connection")), ("late", Some("close")));
    busy.expect_close();
    idle.expect_close();
    assert!(Client::try_connect(&proxy.address).is_err(), "nothing new is accepted");
    assert_eq!(proxy.wait(10), Some(0));
    assert!(!proxy.socket().exists(), "the admin socket is removed");
}

#[test]
fn a_request_that_comes_as_the_drain_begins_is_answered() {
    let origin = Origin::echo();
    let mut proxy = Proxy::to(&origin.address);
    let mut client = proxy.client();
    client.get("/warm");
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(proxy.wait(10), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let origin = Origin::script(|mut conn, _| {
        conn.request();
        std::thread::sleep(Duration::from_secs(20));
    });
    let mut proxy = Proxy::to(&origin.address);
    let mut busy = proxy.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(proxy.admin("GET", "/readyz").0, 503);
    proxy.signal("TERM");
    assert_eq!(proxy.wait(5), Some(1));
}

#[test]
fn the_drain_command_drains() {
    let origin = Origin::echo();
    let mut proxy = Proxy::to(&origin.address);
    let socket = format!("unix:{}", proxy.socket().display());
    let (code, out, _) = command(&["drain", "--admin", &socket], &proxy.directory.0);
    assert_eq!((code, out.starts_with("draining")), (0, true), "{out}");
    assert_eq!(proxy.wait(10), Some(0));
}

#[test]
fn a_port_in_use_is_found_even_among_ones_own_processes() {
    let origin = Origin::echo();
    let proxy = Proxy::to(&origin.address);
    let directory = Directory::new();
    directory.write("config.yaml", &config(&[&origin.address], "").replace("{ip}", proxy.ip()));
    let mut second = spawn(&directory, &Options::default());
    let status = second.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(directory.0.join("log")).unwrap();
    assert!(log.contains(&format!("{} is in use by another process", proxy.address)), "{log}");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn exit_codes() {
    let directory = Directory::new();
    directory.write("bad.yaml", "kind: Gateway\n");
    assert_eq!(command(&["run", "--config", "bad.yaml"], &directory.0).0, 64);
    assert_eq!(command(&["run", "--config", "missing.yaml"], &directory.0).0, 64);
    assert_eq!(command(&["run", "--no-such-flag"], &directory.0).0, 2);
    assert_eq!(command(&["check", "--config", "bad.yaml"], &directory.0).0, 64);
    assert_eq!(command(&["status", "--admin", "unix:nobody.sock"], &directory.0).0, 1);
    assert_eq!(command(&["--version"], &directory.0).0, 0);
}

#[test]
fn a_panic_free_start_without_any_listener() {
    let directory = Directory::new();
    directory.write("config.yaml", "# nothing yet\n");
    let mut child = spawn(&directory, &Options::default());
    let socket = directory.0.join("admin.sock");
    eventually("it runs", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_demo_is_the_quickstart_example() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart.yaml")).unwrap();
    let ip = address();
    let proxy = Proxy::with(&text.replace("127.0.0.1", &ip), &Options::default());
    let mut http = Client::connect(&format!("{ip}:8080"));
    let answer = http.get("/hello?x=1").json();
    assert_eq!((answer["path"].as_str(), answer["backend"].as_str()), (Some("/hello?x=1"), Some("echo")));
    assert_eq!((answer["method"].as_str(), answer["proto"].as_str()), (Some("GET"), Some("HTTP/1.1")));
    let mut raw = Client::connect(&format!("{ip}:8081"));
    raw.send("ping");
    assert_eq!(raw.raw(4), b"ping");
    drop(proxy);
}

#[test]
fn doctor_names_the_driver() {
    let directory = Directory::new();
    let ip = address();
    directory.write("config.yaml", &config(&["127.0.0.1:1"], "").replace("{ip}", &ip));
    let (code, out, error) = command(&["doctor", "--config", "config.yaml"], &directory.0);
    assert_eq!(code, 0, "{out}{error}");
    for subject in ["kernel", "io_uring", "descriptors", "backlog", "port"] {
        assert!(out.contains(subject), "{out}");
    }
    assert!(out.contains(&format!("{ip}:8080 is free")), "{out}");
    if driver() == "io_uring" {
        assert!(out.contains("can be had"), "{out}");
    }
}

/// A Gateway for every address, or an empty entry among its addresses, beside one that names an address.
#[test]
fn every_address_and_one_of_them_share_a_port() {
    let port = port_of_every_address();
    let gateway = crate::support::proxy::gateway(&format!("  - {{name: web, port: {port}, protocol: HTTP}}\n"));
    let yaml = gateway.replace("addresses: [", "addresses: [{type: IPAddress}, ") + &crate::tls::route(&["echo"]);
    let proxy = Proxy::start(&yaml);
    for address in [proxy.port(port), format!("127.0.0.1:{port}")] {
        assert_eq!(Client::connect(&address).get("/").status, 200, "{address}");
    }
}

#[test]
fn the_control_thread_lets_workers_go_first() {
    let proxy = Proxy::start(&config(&["echo"], ""));
    let nice = |task: &std::path::Path| -> i64 {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // The fields behind the name in parentheses begin with the third.
        let behind = stat.rsplit_once(')').unwrap().1;
        behind.split_whitespace().nth(19 - 3).unwrap().parse().unwrap()
    };
    let tasks = std::path::PathBuf::from(format!("/proc/{}/task", proxy.pid()));
    let control = tasks.join(proxy.pid().to_string());
    let worker = std::fs::read_dir(&tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0"));
    let worker = nice(&worker.unwrap());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while nice(&control) != (worker + 10).min(19) {
        assert!(std::time::Instant::now() < deadline, "{} and {worker}", nice(&control));
        std::thread::sleep(Duration::from_millis(10));
    }
}
