//! HTTP/2 from clients, by prior knowledge and by ALPN, to origins that speak HTTP/1.1.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support::eventually;
use crate::support::h2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, Ended, H2, HEADERS, NO_ERROR, WINDOW_UPDATE, block, post,
};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, config, gateway};
use crate::support::tls::{Authority, ClientOptions, Connector};
use crate::tls::https;

fn split(origins: &[(&str, &str)]) -> String {
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n");
    yaml += "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n";
    for (name, _) in origins {
        yaml += &format!(
            "  - matches: [{{path: {{value: /{name}}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: {name}}}]\n"
        );
    }
    origins.iter().for_each(|(name, address)| yaml += &backend(name, &[address]));
    yaml
}

#[test]
fn streams_go_to_different_backends_at_once() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = Origin::replying(move |_| {
        held.lock().unwrap().recv().unwrap();
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec()
    });
    let fast = Origin::echo();
    let proxy = Proxy::start(&split(&[("slow", &slow.address), ("fast", &fast.address), ("echo", "echo")]));
    let mut client = H2::connect(&proxy.address);
    let first = client.get("/slow/1");
    let others: Vec<(u32, String)> =
        (0..20).map(|n| format!("/fast/{n}")).map(|path| (client.get(&path), path)).collect();
    let echoed = client.get("/echo/x");
    for (stream, path) in others {
        let answer = client.answer(stream);
        assert_eq!((answer.status(), answer.text()), (200, format!("GET {path}").as_str()));
    }
    assert!(client.answer(echoed).text().contains("\"path\":\"/echo/x\""));
    assert!(!client.answers.contains_key(&first));
    release.send(()).unwrap();
    assert_eq!(client.answer(first).text(), "slow");
}

#[test]
fn requests_are_written_anew_for_http_1() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.example:8080"),
        (":path", "/a/../b?c"),
        ("cookie", "a=1"),
        ("x-forwarded-for", "1.2.3.4"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("priority", "u=1"),
    ];
    let stream = client.open(&fields, true);
    assert_eq!(client.answer(stream).status(), 200);
    let request = origin.request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/b?c"));
    assert_eq!(request.headers("host"), ["a.example:8080"]);
    assert_eq!(request.headers("cookie"), ["a=1; b=2"]);
    assert_eq!(request.headers("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.headers("te"), ["trailers"]);
    assert_eq!(request.headers("priority"), ["u=1"]);
    assert_eq!(request.headers("via"), ["2.0 ringway"]);
    assert_eq!(request.headers("transfer-encoding"), Vec::<&str>::new());
    proxy.expect_metric("ringway_requests_total", &["code=\"2xx\""], 1.0);
}

#[test]
fn bodies_and_trailers_pass_in_both_directions() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::script(move |mut conn, _| {
        // The request as it comes, to the end of its trailers.
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"x-sum: 1\r\n\r\n") {
            if !conn.fill() {
                break;
            }
            bytes.extend(conn.take());
        }
        tell.lock().unwrap().send(bytes).unwrap();
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-End: 1\r\n\r\n");
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let stream = client.open(&post("/"), false);
    client.frame(DATA, 0, stream, b"hello");
    client.frame(DATA, 0, stream, b"");
    client.frame(DATA, 0, stream, &[b'x'; 10_000]);
    client.frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&[("x-sum", "1"), ("content-length", "3")]));
    let answer = client.answer(stream);
    // An interim head, the head, and trailers.
    assert_eq!(answer.heads[..2], [103, 200]);
    assert_eq!((answer.heads.len(), answer.text(), &answer.ended), (3, "hello world", &Some(Ended::Whole)));
    let bytes = String::from_utf8(told.recv().unwrap()).unwrap();
    assert!(bytes.contains("transfer-encoding: chunked\r\n") && !bytes.contains("content-length"), "{bytes}");
    assert!(bytes.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{bytes}");
}

#[test]
fn credit_is_given_for_what_the_client_has_taken() {
    let origin = Origin::replying(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 1_000_000, b'x');
        answer
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    client.generous = false;
    let stream = client.get("/");
    while client.answers.get(&stream).is_none_or(|answer| answer.body.len() < 65_535) {
        assert!(client.step());
    }
    // The window is used up. A neighbour's is another matter.
    client.frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
    let other = client.open(&[(":method", "HEAD"), (":scheme", "http"), (":authority", "a"), (":path", "/")], true);
    assert_eq!(client.answer(other).status(), 200);
    assert_eq!(client.answers[&stream].body.len(), 65_535);
    client.frame(WINDOW_UPDATE, 0, stream, &2_000_000_u32.to_be_bytes());
    let answer = client.answer(stream);
    assert_eq!((answer.body.len(), answer.ended), (1_000_000, Some(Ended::Whole)));
}

#[test]
fn an_upload_stops_where_the_origin_does_not_read() {
    let read = Arc::new(AtomicBool::new(false));
    let reads = Arc::clone(&read);
    let origin = Origin::script(move |mut conn, _| {
        let Some(mut request) = conn.head() else { return };
        while !reads.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(conn.body(&mut request));
        conn.reply("200 OK", &request.body.len().to_string());
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    client.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let stream = client.open(&post("/"), false);
    let (mut window, mut connection, mut sent) = (65_535_usize, 65_535_usize, 0_usize);
    // As long as there is credit within half a second.
    while sent < 256 << 20 {
        let now = window.min(connection).min(16_384);
        if now > 0 {
            client.frame(DATA, 0, stream, &vec![b'x'; now]);
            window -= now;
            connection -= now;
            sent += now;
            continue;
        }
        let Some(frame) = client.read() else { break };
        if frame.kind == WINDOW_UPDATE {
            let credit = u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
            *(if frame.stream == 0 { &mut connection } else { &mut window }) += credit;
        }
    }
    assert!(sent < 64 << 20, "the proxy took {sent} bytes that nobody reads");
    read.store(true, Ordering::SeqCst);
    client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.frame(DATA, END_STREAM, stream, b"");
    assert_eq!(client.answer(stream).text(), sent.to_string());
}

#[test]
fn a_clients_reset_ends_the_request_upstream() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::script(move |mut conn, _| {
        let Some(request) = conn.request() else { return };
        if request.target == "/begun" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        }
        tell.lock().unwrap().send(request.target).unwrap();
        // Nothing more is answered: the connection has to end.
        while conn.fill() {}
        tell.lock().unwrap().send("ended".to_owned()).unwrap();
    });
    let proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    for path in ["/awaited", "/begun"] {
        let stream = client.get(path);
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), path);
        client.reset(stream, CANCEL);
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "ended");
    }
    // With its body on the way.
    let stream = client.open(&post("/upload"), false);
    client.reset(stream, CANCEL);
    client.settle();
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 2.0);
}

#[test]
fn a_cut_answer_is_a_reset_and_never_a_short_success() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let origin = Origin::closing(cut);
        let proxy = Proxy::to(&origin.address);
        let mut client = H2::connect(&proxy.address);
        let stream = client.get("/");
        let ended = client.answer(stream).ended;
        assert!(matches!(ended, Some(Ended::Reset(code)) if code != NO_ERROR), "{cut:?}: {ended:?}");
        // Its neighbours do not feel it.
        client.settle();
    }
}

#[test]
fn what_is_answered_here_is_answered_in_http_2() {
    let down = format!("{}:1", crate::support::address());
    let proxy = Proxy::start(&split(&[("down", &down), ("echo", "echo")]));
    let mut client = H2::connect(&proxy.address);
    for (path, status) in [("/none", 404), ("/down", 502), ("/echo", 200)] {
        let stream = client.get(path);
        let answer = client.answer(stream);
        assert_eq!((answer.status(), answer.ended), (status, Some(Ended::Whole)), "{path}");
    }
    let stream = client.open(&post("/none"), false);
    let answer = client.answer(stream);
    assert_eq!(answer.status(), 404);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"no_route\""], 2.0);
}

#[test]
fn a_drain_says_goodbye_twice_and_lets_streams_finish() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::replying(move |_| {
        held.lock().unwrap().recv().unwrap();
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone".to_vec()
    });
    let mut proxy = Proxy::to(&origin.address);
    let mut client = H2::connect(&proxy.address);
    let stream = client.get("/");
    eventually("the request is there", || origin.connections() == 1);
    proxy.signal("TERM");
    while client.goaways.len() < 2 {
        assert!(client.step());
    }
    assert_eq!(client.goaways, [(NO_ERROR, 0x7fff_ffff), (NO_ERROR, stream)]);
    release.send(()).unwrap();
    let answer = client.answer(stream);
    assert_eq!((answer.text(), &answer.ended), ("done", &Some(Ended::Whole)));
    assert_eq!(client.goaway(), Some(NO_ERROR));
    drop(client);
    assert_eq!(proxy.wait(10), Some(0));
}

#[test]
fn a_removed_listener_says_goodbye() {
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: other, port: 8081, protocol: HTTP}\n";
    let rest = config(&["echo"], "").split_once("---\n").map(|(_, rest)| format!("---\n{rest}")).unwrap();
    let proxy = Proxy::start(&(gateway(listeners) + &rest));
    let mut staying = H2::connect(&proxy.address);
    let mut going = H2::connect(&proxy.port(8081));
    for client in [&mut staying, &mut going] {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).status(), 200);
    }
    proxy.reload(&(gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &rest));
    assert_eq!(going.goaway(), Some(NO_ERROR));
    let stream = staying.get("/");
    assert_eq!(staying.answer(stream).status(), 200);
}

#[test]
fn by_alpn_over_tls() {
    let authority = Authority::new("ca");
    let origin = Origin::replying(|request| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", request.body.len(), "x".repeat(request.body.len()))
            .into_bytes()
    });
    let proxy = Proxy::start(&https(&authority, &[&origin.address]));
    let options = ClientOptions { alpn: &["h2", "http/1.1"], ..ClientOptions::default() };
    let connector = Connector::with(&authority, options);
    let mut client = H2::over(connector.client(&proxy.address, "site.example").stream);
    let ids: Vec<u32> = (0..20).map(|_| client.open(&post("/"), false)).collect();
    for (n, id) in ids.iter().enumerate() {
        client.frame(DATA, END_STREAM, *id, &vec![b'x'; 1000 + n]);
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(client.answer(*id).body.len(), 1000 + n);
    }
    // Who does not offer it speaks HTTP/1.1.
    let plain = ClientOptions { alpn: &["http/1.1"], ..ClientOptions::default() };
    assert_eq!(Connector::with(&authority, plain).client(&proxy.address, "site.example").get("/").status, 200);
    assert_eq!(Connector::new(&authority).client(&proxy.address, "site.example").get("/").status, 200);
}

/// Gateway API: a host whose listener is not the one that the server name chose.
#[test]
fn a_host_of_another_listener_is_misdirected() {
    let authority = Authority::new("ca");
    let listener = |name: &str| {
        format!(
            "  - {{name: {name}, port: 8080, protocol: HTTPS, hostname: {name}.example, tls: {{certificateRefs: [{{name: {name}}}]}}}}\n"
        )
    };
    let yaml = gateway(&(listener("a") + &listener("b")))
        + &crate::tls::route(&["echo"])
        + &authority.leaf(&["a.example"]).secret("a")
        + &authority.leaf(&["b.example"]).secret("b");
    let proxy = Proxy::start(&yaml);
    let connector = Connector::with(&authority, ClientOptions { alpn: &["h2"], ..ClientOptions::default() });
    let mut client = H2::over(connector.client(&proxy.address, "a.example").stream);
    for (host, status) in [("a.example", 200), ("b.example", 421), ("a.example", 200)] {
        let stream =
            client.open(&[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/")], true);
        assert_eq!(client.answer(stream).status(), status, "{host}");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"misdirected\""], 1.0);
}

#[test]
fn curl_nghttp_and_h2load() {
    let origin = Origin::replying(|request| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", request.body.len(), "x".repeat(request.body.len()))
            .into_bytes()
    });
    let proxy = Proxy::to(&origin.address);
    let url = format!("http://{}/", proxy.address);
    let body = proxy.directory.write("body", &"x".repeat(3_000_000));
    let run = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let at = format!("@{}", body.display());
    let form = "%{http_version} %{http_code} %{size_download}";
    for expect in ["expect:", "expect: 100-continue"] {
        let told = run(
            "curl",
            &[
                "-sS",
                "--http2-prior-knowledge",
                "-m",
                "20",
                "-o",
                "/dev/null",
                "-w",
                form,
                "-H",
                expect,
                "--data-binary",
                &at,
                &url,
            ],
        );
        assert_eq!(told, "2 200 3000000", "{expect}");
    }
    let told = run("curl", &["-sS", "--http2-prior-knowledge", "-m", "20", "-I", "-w", form, &url]);
    assert!(told.ends_with("2 200 0"), "{told}");
    let told = run("nghttp", &["-n", "-v", "-d", body.to_str().unwrap(), "--trailer=x-a: b", &url]);
    assert!(told.contains(":status: 200"), "{told}");
    let told = run("h2load", &["-n", "2000", "-c", "4", "-m", "32", &url]);
    assert!(told.contains("2000 succeeded, 0 failed"), "{told}");
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

/// A client that asks in HTTP/1.1 on the same port, in pieces that begin as the preface does.
#[test]
fn http_1_on_the_same_port() {
    let proxy = Proxy::to("echo");
    let mut client = proxy.client();
    for piece in ["P", "R", "OPFIND / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.response().json()["method"], "PROPFIND");
    let mut client = proxy.client();
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(client.response().status, 505);
}
