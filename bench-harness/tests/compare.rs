//! The harness as its users run it: a tiny comparison, wrong answers, and everything that it must refuse.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

const HARNESS: &str = env!("CARGO_BIN_EXE_bench-harness");

/// An address that nobody listens on: its port is below those that comparisons look for, and those that clients are given.
fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 12_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 4_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// A directory of a test's own, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("harness-test-{name}-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A contender that passes bytes on by the harness's own means: what a test of the harness needs of a proxy.
    fn contender(&self, name: &str, program: &str, arguments: &str) {
        let text =
            format!("title = '{name}'\nprogram = '{program}'\narguments = {arguments}\nserves = ['http', 'tcp']\n");
        self.write(&format!("contenders/{name}/contender.toml"), &text);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// A place with `direct` and two contenders: a second origin each, which answers in place of a proxy.
fn stage(name: &str) -> Place {
    let place = Place::new(name);
    place.write("contenders/direct/contender.toml", "title = 'direct'\nserves = ['http', 'tcp']\n");
    for (contender, more) in [("quick", ""), ("slow", ", '--delay', '1'")] {
        let arguments = format!("['origin', '--http', '{{{{ listen_ip }}}}:{{{{ listen_port }}}}'{more}]");
        place.contender(contender, HARNESS, &arguments);
    }
    place.write(
        "tiny.toml",
        "title = 'Tiny'\nwhy = 'A test.'\nprotocol = 'http1'\nrounds = 6\nseconds = 0.1\nwarmup = 0.02\n\
         load = { connections = 4 }\n[[case]]\nname = 'a'\n[[case]]\nname = 'b'\nload = { body = 70000, pipeline = 2 }\n",
    );
    place
}

fn compare(place: &Place, arguments: &[&str]) -> Output {
    Command::new(HARNESS)
        .arg("compare")
        .args(["--contenders", "contenders", "--out", "out"])
        .args(if arguments.contains(&"--scenario") { &[][..] } else { &["--scenario", "tiny.toml"] })
        .args(arguments)
        .current_dir(&place.0)
        .output()
        .unwrap()
}

/// One clear line, exit code 2, and nothing left running.
fn refused(place: &Place, output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(last.starts_with("bench-harness: ") && last.contains(expected), "{said}");
    nothing_runs(place);
}

/// No process has the place as its directory: everything that a comparison starts inherits it.
fn nothing_runs(place: &Place) {
    let here = place.0.canonicalize().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(directory) = std::fs::read_link(entry.path().join("cwd")) {
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            assert!(directory != here, "left running: {}", command.replace('\0', " "));
        }
    }
}

#[test]
fn a_tiny_comparison_writes_json_html_and_markdown() {
    let place = stage("tiny");
    let output = compare(&place, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(place.0.join("out/tiny.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["format"], 1);
    assert_eq!(result["scenario"], "tiny");
    assert!(result["machine"]["cores"].as_u64().unwrap() > 0);
    let cases = result["cases"].as_array().unwrap();
    assert_eq!(cases.iter().map(|case| case["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    for case in cases {
        let contenders = case["contenders"].as_array().unwrap();
        let names: Vec<_> = contenders.iter().map(|each| each["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["direct", "quick", "slow"]);
        let mut starts = Vec::new();
        for contender in contenders {
            let rounds = contender["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 6);
            for (index, round) in rounds.iter().enumerate() {
                assert!(round["requests"].as_u64().unwrap() > 0, "{round}");
                assert_eq!(round["faults"].as_object().unwrap().len(), 0, "{round}");
                assert_eq!(round["cpu"].as_f64().unwrap() > 0.0, contender["direct"] == false, "{round}");
                let latency = |name: &str| round[name].as_f64().unwrap();
                assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99") && latency("p999") <= latency("max"));
                starts.push((round["at"].as_f64().unwrap(), index));
            }
            assert!(contender["curve"].as_array().unwrap().len() > 5);
        }
        // Interleaved: in the order of time, rounds never go back.
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(starts.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{starts:?}");
        let comparisons = case["comparisons"].as_array().unwrap();
        let find = |contender: &str, figure: &str| {
            comparisons.iter().find(|each| each["contender"] == contender && each["figure"] == figure).unwrap()
        };
        // The verdict follows from the six rounds, whatever they were: each of them has to say the same.
        let p50 = |name: &str| {
            let contender = contenders.iter().find(|each| each["name"] == name).unwrap();
            let rounds = contender["rounds"].as_array().unwrap();
            rounds.iter().map(|round| round["p50"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        let pairs: Vec<(f64, f64)> = p50("slow").into_iter().zip(p50("quick")).collect();
        let expected = if pairs.iter().all(|(slow, quick)| slow > quick) {
            "worse"
        } else if pairs.iter().all(|(slow, quick)| slow < quick) {
            "better"
        } else {
            "unresolved"
        };
        assert_eq!(find("slow", "p50")["peer"], "quick");
        if !find("slow", "p50")["ratio"].is_null() {
            assert_eq!(find("slow", "p50")["ratio"]["verdict"], expected);
        }
        assert_eq!(find("quick", "cpu")["ratio"]["rounds"], 6);
    }
    let markdown = std::fs::read_to_string(place.0.join("out/tiny.md")).unwrap();
    assert!(markdown.contains("CPU µs/request") && markdown.contains("Repeat: `cargo run"), "{markdown}");
    let html = std::fs::read_to_string(place.0.join("out/tiny.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("prefers-color-scheme"), "{html}");
    for outside in ["http://", "https://", "src=", "@import", "<script"] {
        assert!(!html.contains(outside), "the page is not self-contained: {outside}");
    }
    nothing_runs(&place);

    // The same result against itself: nothing changed.
    let file = place.0.join("out/tiny.json");
    let report = |arguments: &[&Path]| {
        Command::new(HARNESS).arg("report").args(arguments).current_dir(&place.0).output().unwrap()
    };
    let same = report(&[Path::new("--before"), &file, Path::new("--after"), &file]);
    assert!(same.status.success());
    let said = String::from_utf8(same.stdout).unwrap();
    assert!(said.contains("unresolved") && !said.contains("better") && !said.contains("worse"), "{said}");
    std::fs::remove_file(place.0.join("out/tiny.html")).unwrap();
    assert!(report(&[&place.0.join("out")]).status.success());
    assert!(place.0.join("out/tiny.html").exists());
    let other = place.write("other.json", "{\"format\": 99}");
    assert_eq!(report(&[&other]).status.code(), Some(2));
}

#[test]
fn wrong_names_are_refused() {
    let place = stage("names");
    refused(&place, &compare(&place, &["--contender", "quikc"]), "there is no contender quikc: is it quick?");
    refused(&place, &compare(&place, &["--contender", "quick", "quick"]), "two contenders are named quick");
    refused(&place, &compare(&place, &["--case", "c"]), "tiny has no case c: known are a, b");
    refused(&place, &compare(&place, &["--program", "quick"]), "expected CONTENDER=PATH");
    refused(&place, &compare(&place, &["--scenario", "none.toml"]), "cannot read the scenario none.toml");
    refused(&place, &compare(&place, &["--proxy-cores", "9999"]), "core 9999");
}

#[test]
fn a_missing_program_is_named_and_left_out() {
    let place = stage("missing");
    place.contender("absent", "/nowhere/absent", "[]");
    let output = compare(&place, &["--case", "a", "--rounds", "1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("absent is left out: /nowhere/absent is missing"), "{said}");
    let result: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.0.join("out/tiny.json")).unwrap()).unwrap();
    let contenders = result["cases"][0]["contenders"].as_array().unwrap();
    let absent = contenders.iter().find(|each| each["name"] == "absent").unwrap();
    assert_eq!(absent["skipped"], "/nowhere/absent is missing");
    // One round is no ground for a verdict.
    let comparisons = result["cases"][0]["comparisons"].as_array().unwrap();
    assert!(!comparisons.is_empty());
    assert!(comparisons.iter().all(|each| each["ratio"].is_null() || each["ratio"]["verdict"] == "unresolved"));
}

#[test]
fn a_contender_that_does_not_start_is_named_with_its_last_words() {
    let place = stage("start");
    place.contender("broken", "/bin/sh", "['-c', 'echo no such module >&2; exit 3']");
    refused(
        &place,
        &compare(&place, &["--contender", "broken", "quick"]),
        "broken did not start (exit status: 3): no such module",
    );
}

#[test]
fn a_port_in_use_is_named() {
    let place = stage("port");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let port = address.port().to_string();
    refused(&place, &compare(&place, &["--port", &port]), &format!("port {port} cannot be used"));
    let output =
        Command::new(HARNESS).args(["origin", "--http", &address.to_string()]).current_dir(&place.0).output().unwrap();
    refused(&place, &output, &format!("cannot listen on {address}"));
}

#[test]
fn an_origin_that_cannot_carry_the_rate_is_named() {
    let place = stage("rate");
    place.write(
        "tiny.toml",
        "title = 'T'\nwhy = 'W'\nprotocol = 'http1'\nseconds = 0.2\nwarmup = 0.02\norigin = { delay_ms = 20 }\n\
         load = { connections = 2, rate = 2000 }\n",
    );
    refused(&place, &compare(&place, &[]), "the origin is too slow: asked directly it answers");
}

#[test]
fn too_few_descriptors_are_named() {
    let place = stage("descriptors");
    let script =
        format!("ulimit -n 128; exec {HARNESS} compare --scenario tiny.toml --contenders contenders --out out");
    let output = Command::new("/bin/sh").args(["-c", &script]).current_dir(&place.0).output().unwrap();
    refused(&place, &output, "descriptors are needed and 128 are allowed: raise the limit (ulimit -n");
}

#[test]
fn an_interrupt_ends_everything_that_was_started() {
    let place = stage("interrupt");
    let mut child = Command::new(HARNESS)
        .args(["compare", "--scenario", "tiny.toml", "--contenders", "contenders", "--out", "out", "--seconds", "30"])
        .current_dir(&place.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until contenders run.
    let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    while children().split_whitespace().count() < 4 {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    nothing_runs(&place);
}

/// An origin that is ended with its test.
struct Origin {
    child: Child,
    http: String,
}

impl Origin {
    fn start(arguments: &[&str]) -> Self {
        loop {
            let free = free_address();
            let mut child = Command::new(HARNESS)
                .args(["origin", "--http", &free])
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            if line == "ready\n" {
                return Self { child, http: free };
            }
            // Somebody else took the port meanwhile.
            child.wait().unwrap();
        }
    }

    fn load(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
        let common = ["load", "--json", "--quiet", "--warmup", "0", "--target", &self.http];
        let few = if arguments.contains(&"--connections") { &[][..] } else { &["--connections", "4"] };
        let output = Command::new(HARNESS).args(common).args(few).args(arguments).output().unwrap();
        let outcome = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), outcome, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[test]
fn lies_of_the_origin_make_a_run_fail() {
    for (lie, arguments, expected) in [
        ("head-id", &[][..], "mismatch"),
        ("body-id", &[], "mismatch"),
        ("swap", &["--pipeline", "8"], "mismatch"),
        ("short-body", &[], "broken"),
    ] {
        let origin = Origin::start(&["--lie", lie]);
        let (code, outcome, said) = origin.load(&[&["--count", "2000"], arguments].concat());
        assert!(outcome["faults"][expected].as_u64().unwrap_or(0) >= 1, "{lie}: {outcome} {said}");
        if expected == "mismatch" {
            assert_eq!(code, Some(1), "{lie}: {said}");
            assert!(said.contains("wrong answers, so the figures are worth nothing"), "{lie}: {said}");
        }
    }
}

#[test]
fn a_comparison_with_a_lying_origin_fails() {
    let place = stage("lie");
    place.write(
        "tiny.toml",
        "title = 'T'\nwhy = 'W'\nprotocol = 'http1'\nseconds = 0.2\nwarmup = 0.02\norigin = { lie = 'head-id' }\n\
         load = { connections = 4 }\n",
    );
    let output = compare(&place, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the origin lies, so nothing can be measured"), "{said}");
    nothing_runs(&place);
}

#[test]
fn a_contender_that_lies_is_disqualified() {
    let place = stage("disqualified");
    let arguments = "['origin', '--http', '{{ listen_ip }}:{{ listen_port }}', '--lie', 'body-id']";
    place.contender("liar", HARNESS, arguments);
    let output = compare(&place, &["--case", "a", "--rounds", "2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().starts_with("bench-harness: liar: the answer to another request"), "{said}");
    let text = std::fs::read_to_string(place.0.join("out/tiny.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    let comparisons = result["cases"][0]["comparisons"].as_array().unwrap();
    assert!(comparisons.iter().all(|each| each["contender"] != "liar" && each["peer"] != "liar"), "{text}");
}

#[test]
fn every_kind_of_http_load_is_answered() {
    let origin = Origin::start(&[]);
    for arguments in [
        &["--count", "500"][..],
        &["--count", "500", "--pipeline", "16"],
        &["--count", "300", "--connection-per-request", "--source", "127.0.0.2,127.0.0.3"],
        &["--count", "20", "--body", "1000000"],
        &["--count", "100", "--body", "10000", "--path", "/{body}?chunked"],
        &["--count", "100", "--body", "0"],
        &["--count", "100", "--body", "20"],
        &["--count", "300", "--path", "/service-{n}/{body}", "--vary", "1000", "--threads", "2"],
    ] {
        let (code, outcome, said) = origin.load(arguments);
        let count: u64 = arguments[1].parse().unwrap();
        assert_eq!((code, outcome["requests"].as_u64()), (Some(0), Some(count)), "{arguments:?}: {said} {outcome}");
        assert_eq!(outcome["faults"].as_object().unwrap().len(), 0, "{arguments:?}: {outcome}");
    }
    let (code, outcome, said) = origin.load(&["--rate", "500", "--seconds", "0.5"]);
    assert_eq!(code, Some(0), "{said}");
    // What is due is fixed by the clock, not by the answers.
    let due = outcome["due"].as_u64().unwrap();
    assert!((200..=5000).contains(&due), "{outcome}");
    let (code, outcome, said) = origin.load(&["--idle", "--connections", "200", "--seconds", "0.2"]);
    assert_eq!((code, outcome["faults"].as_object().unwrap().len()), (Some(0), 0), "{said} {outcome}");
}

#[test]
fn streams_and_datagrams_come_back() {
    let (tcp, udp) = (free_address(), free_address());
    let _origin = Origin::start(&["--tcp", &tcp, "--udp", &udp, "--block", "4096"]);
    let bulk = ["--protocol", "tcp-bulk", "--body", "4096", "--seconds", "0.2", "--direction"];
    for (target, arguments) in [
        (&tcp, vec!["--protocol", "tcp-echo", "--count", "500"]),
        (&tcp, vec!["--protocol", "tcp-echo", "--count", "200", "--connection-per-request", "--body", "20000"]),
        (&tcp, [&bulk[..], &["down"]].concat()),
        (&tcp, [&bulk[..], &["up"]].concat()),
        (&tcp, [&bulk[..], &["both"]].concat()),
        (&udp, vec!["--protocol", "udp-echo", "--count", "500", "--body", "64"]),
        (&udp, vec!["--protocol", "udp-echo", "--count", "500", "--body", "64", "--pipeline", "8"]),
    ] {
        let output = Command::new(HARNESS)
            .args(["load", "--json", "--quiet", "--warmup", "0", "--connections", "4", "--target", target])
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(outcome["bytes"].as_u64().unwrap() > 0, "{arguments:?}: {outcome}");
        assert_eq!(outcome["faults"].as_object().unwrap().len(), 0, "{arguments:?}: {outcome}");
    }
}

#[test]
fn a_target_that_refuses_makes_a_run_fail() {
    let free = free_address();
    let output = Command::new(HARNESS)
        .args(["load", "--target", &free, "--seconds", "0.1", "--warmup", "0", "--quiet"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was answered: connect to"));
}

/// The shipped configuration of a real peer, TLS, and sessions that are resumed.
#[test]
fn a_real_peer_over_tls() {
    let place = stage("tls");
    let shipped = format!("{}/contenders", env!("CARGO_MANIFEST_DIR"));
    place.write(
        "tls.toml",
        "title = 'T'\nwhy = 'W'\nprotocol = 'http1'\nrounds = 1\nseconds = 0.3\nwarmup = 0.1\n\
         load = { connections = 4 }\n[[case]]\nname = 'kept'\ntls = 'full'\n[[case]]\nname = 'resumed'\ntls = 'resumed'\n\
         load = { connection_per_request = true }\n",
    );
    let output = Command::new(HARNESS)
        .args(["compare", "--scenario", "tls.toml", "--contender", "nginx", "--out", "out", "--contenders", &shipped])
        .current_dir(&place.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(place.0.join("out/tls.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (case, resumes) in [(0, false), (1, true)] {
        let contenders = result["cases"][case]["contenders"].as_array().unwrap();
        let nginx = contenders.iter().find(|each| each["name"] == "nginx").unwrap();
        assert!(nginx["skipped"].is_null(), "{nginx}");
        let round = &nginx["rounds"][0];
        assert_eq!(round["faults"].as_object().unwrap().len(), 0, "{round}");
        assert!(round["requests"].as_u64().unwrap() > 0 && round["handshakes"].as_u64().unwrap() > 0, "{round}");
        assert_eq!(round["resumed"].as_u64().unwrap() > 0, resumes, "{round}");
    }
    nothing_runs(&place);
}

#[test]
fn contenders_are_served_to_other_load_generators() {
    use std::io::{Read as _, Write as _};
    let place = stage("serve");
    let mut serving = Command::new(HARNESS)
        .args(["serve", "--contenders", "contenders", "--scenario", "tiny.toml", "--case", "b"])
        .current_dir(&place.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        BufReader::new(serving.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    let mut names = Vec::new();
    for line in &lines {
        let [name, pid, url] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        names.push(name);
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "{line}");
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.len() > 70_000, "{line}");
    }
    assert_eq!(names, ["direct", "quick", "slow"]);
    assert!(Command::new("kill").args(["-INT", &serving.id().to_string()]).status().unwrap().success());
    assert_eq!(serving.wait().unwrap().code(), Some(0));
    nothing_runs(&place);
}

#[test]
fn http2_and_grpc_are_compared_and_lies_in_them_are_found() {
    let place = stage("http2");
    for name in ["direct", "quick"] {
        let path = place.0.join(format!("contenders/{name}/contender.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("'http', 'tcp'", "'http', 'http2', 'grpc', 'tcp'")).unwrap();
    }
    let scenario = |name: &str, more: &str| {
        let text = format!(
            "title = 'T'\nwhy = 'W'\nrounds = 1\nseconds = 0.5\nwarmup = 0.02\n\
             load = {{ connections = 2, streams = 3 }}\n{more}"
        );
        place.write(name, &text);
    };
    scenario(
        "h2.toml",
        "[[case]]\nname = 'small'\nprotocol = 'http2'\n[[case]]\nname = 'large'\nprotocol = 'http2'\n\
         load.body = 300000\n[[case]]\nname = 'paced'\nprotocol = 'http2'\nload.rate = 200.0\n\
         [[case]]\nname = 'calls'\nprotocol = 'grpc'\n",
    );
    let output = compare(&place, &["--scenario", "h2.toml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("left out: does not serve http2"), "{said}");
    let text = std::fs::read_to_string(place.0.join("out/h2.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    for case in result["cases"].as_array().unwrap() {
        for contender in case["contenders"].as_array().unwrap().iter().filter(|each| each["name"] != "slow") {
            let round = &contender["rounds"][0];
            assert!(round["requests"].as_u64().unwrap() > 0, "{contender}");
            assert_eq!(round["faults"].as_object().unwrap().len(), 0, "{contender}");
        }
    }
    for lie in ["head-id", "body-id", "short-body"] {
        scenario("lie.toml", &format!("protocol = 'http2'\norigin.lie = '{lie}'\n"));
        let output = compare(&place, &["--scenario", "lie.toml", "--contender", "quick"]);
        assert!(!output.status.success(), "{lie}: {}", String::from_utf8_lossy(&output.stderr));
    }
    nothing_runs(&place);
}
