//! The same bytes through ringway, nginx and haproxy to one recording origin, and where they differ.
//!
//! The table that is printed is for reading: nginx and haproxy are what operators come from, so every difference should
//! have a reason. What is asserted is about ringway alone: it never passes on what a case says it must not.
//! nginx or haproxy that is not installed is named and left out.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod cases;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cases::{CASES, Case, Must};

/// Kills its process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// An address that nothing else uses, from the process's id.
fn address(last: u8) -> String {
    let process = std::process::id();
    format!("127.{}.{}.{last}", 1 + process % 250, 254 - process / 250 % 64)
}

/// Records the bytes of every connection and answers each thing that ends like a head.
fn origin(address: &str) -> Arc<Mutex<Vec<u8>>> {
    let listener = TcpListener::bind(format!("{address}:9000")).unwrap();
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let recorded = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let recorded = Arc::clone(&recorded);
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                let mut pending = Vec::new();
                while let Ok(n) = stream.read(&mut buffer) {
                    if n == 0 {
                        break;
                    }
                    recorded.lock().unwrap().extend_from_slice(&buffer[..n]);
                    pending.extend_from_slice(&buffer[..n]);
                    if pending.windows(4).any(|window| window == b"\r\n\r\n") {
                        pending.clear();
                        if stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                            .is_err()
                        {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                        break;
                    }
                }
            });
        }
    });
    seen
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|directory| PathBuf::from(directory).join(name)).find(|path| path.is_file())
}

/// The contenders that are there: name, address, process.
fn contenders(scratch: &Scratch, origin: &str) -> Vec<(&'static str, String, Running)> {
    let write = |name: &str, text: String| {
        let path = scratch.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let start = |command: &mut Command| {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let mut found = Vec::new();
    let ip = address(2);
    let config = write(
        "ringway.yaml",
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  gatewayClassName: ringway\n  addresses: [{{value: {ip}}}]\n  listeners: [{{name: web, port: 8080, protocol: HTTP}}]\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules: [{{backendRefs: [{{group: ringway.dev, kind: Backend, name: origin}}]}}]\n---\napiVersion: ringway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: origin}}\nspec: {{endpoints: [{{ip: {origin}, port: 9000}}]}}\n"
        ),
    );
    let socket = format!("unix:{}", scratch.0.join("admin.sock").display());
    let ringway = start(
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["run", "--workers", "1", "--no-pin", "--admin", &socket, "--config"])
            .arg(config),
    );
    found.push(("ringway", format!("{ip}:8080"), ringway));
    match installed("nginx") {
        Some(nginx) => {
            let ip = address(3);
            let directory = scratch.0.display();
            let text = format!(
                "daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n server {{ listen {ip}:8080; location / {{ proxy_pass http://{origin}:9000; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_request_buffering off; }} }} }}\n"
            );
            let config = write("nginx.conf", text);
            found.push(("nginx", format!("{ip}:8080"), start(Command::new(nginx).arg("-c").arg(config))));
        }
        None => println!("nginx is not installed and left out"),
    }
    match installed("haproxy") {
        Some(haproxy) => {
            let ip = address(4);
            let text = format!(
                "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 2s\n  timeout server 2s\nfrontend web\n  bind {ip}:8080\n  default_backend origin\nbackend origin\n  server a {origin}:9000\n"
            );
            let config = write("haproxy.cfg", text);
            found.push((
                "haproxy",
                format!("{ip}:8080"),
                start(Command::new(haproxy).args(["-db", "-q", "-f"]).arg(config)),
            ));
        }
        None => println!("haproxy is not installed and left out"),
    }
    for (name, address, _) in &found {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "{name} does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    found
}

/// What a contender did with a case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// Statuses of the answers, in order.
    statuses: Vec<u16>,
    /// What reached the origin.
    forwarded: String,
    /// It began with a SETTINGS frame of HTTP/2.
    http2: bool,
}

fn run(case: &Case, address: &str, seen: &Mutex<Vec<u8>>) -> Outcome {
    seen.lock().unwrap().clear();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let mut answer = Vec::new();
    // It may be closed before everything is sent.
    let _sent = stream.write_all(case.bytes);
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    drop(stream);
    std::thread::sleep(Duration::from_millis(10));
    let text = String::from_utf8_lossy(&answer);
    let statuses =
        text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect();
    let http2 = answer.get(3..9).is_some_and(|header| header == [4, 0, 0, 0, 0, 0]);
    Outcome { statuses, http2, forwarded: String::from_utf8_lossy(&seen.lock().unwrap()).into_owned() }
}

fn short(outcome: &Outcome) -> String {
    let statuses: Vec<String> = outcome.statuses.iter().map(ToString::to_string).collect();
    let requests = outcome.forwarded.matches(" HTTP/1.").count();
    format!(
        "{}{}",
        if outcome.http2 {
            "HTTP/2".to_owned()
        } else if statuses.is_empty() {
            "-".to_owned()
        } else {
            statuses.join("+")
        },
        if requests > 0 { format!(" ({requests} fwd)") } else { String::new() }
    )
}

#[test]
fn differences() {
    let scratch = Scratch(std::env::temp_dir().join(format!("ringway-conformance-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).unwrap();
    let origin_address = address(1);
    let seen = origin(&origin_address);
    let contenders = contenders(&scratch, &origin_address);
    print!("{:44}", "case");
    for (name, ..) in &contenders {
        print!(" {name:20}");
    }
    println!();
    let mut failures = Vec::new();
    let mut differ = 0;
    for case in CASES {
        let outcomes: Vec<Outcome> = contenders.iter().map(|(_, address, _)| run(case, address, &seen)).collect();
        let shorts: Vec<String> = outcomes.iter().map(short).collect();
        let differs = shorts.iter().any(|each| *each != shorts[0]);
        differ += usize::from(differs);
        print!("{:44}", case.name);
        for each in &shorts {
            print!(" {each:20}");
        }
        println!("{}", if differs { " *" } else { "" });
        let ringway = &outcomes[0];
        let good = match case.must {
            Must::Refuse(status) => ringway.forwarded.is_empty() && ringway.statuses == [status],
            Must::SpeakHttp2 => ringway.http2 && ringway.forwarded.is_empty(),
            Must::Pass => ringway.statuses == [200] && ringway.forwarded.matches(" HTTP/1.1\r\n").count() == 1,
            Must::PassWithout(part) => {
                ringway.statuses.first() == Some(&200) && !ringway.forwarded.to_lowercase().contains(part)
            }
        };
        if !good {
            failures.push(format!("{}: {:?}, forwarded {:?}", case.name, ringway.statuses, ringway.forwarded));
        }
    }
    println!("{} cases, {differ} on which they differ", CASES.len());
    assert!(failures.is_empty(), "{failures:#?}");
}
