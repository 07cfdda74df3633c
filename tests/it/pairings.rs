//! What holds whichever versions of HTTP a request comes and goes in: every case runs in all four pairings. Endpoints of
//! HTTP/2 are the proxy itself on another port, in front of the same origin.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::support::eventually;
use crate::support::h2::{self, CANCEL, DATA, END_HEADERS, END_STREAM, H2, HEADERS, block};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Runs a case in every pairing.
fn everywhere(origin: &Origin, case: impl Fn(Version, &Proxy, &str)) {
    for up in [Version::One, Version::Two] {
        let proxy = match up {
            Version::One => Proxy::to(&origin.address),
            Version::Two => crate::http2_upstream::chained(&origin.address),
        };
        for down in [Version::One, Version::Two] {
            case(down, &proxy, &format!("HTTP/{down:?} to HTTP/{up:?}"));
        }
        assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    fields: &'a [(&'a str, &'a str)],
    /// None: there is none, and nothing says so.
    body: Option<&'a [u8]>,
    /// Without Content-Length, in pieces.
    pieces: bool,
    trailers: &'a [(&'a str, &'a str)],
}

const GET: Ask<'static> = Ask { method: "GET", path: "/", fields: &[], body: None, pieces: false, trailers: &[] };

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    interim: Vec<u16>,
    /// 0: none.
    status: u16,
    body: Vec<u8>,
    trailers: bool,
    /// It has come to its end.
    whole: bool,
}

fn ask(down: Version, proxy: &Proxy, ask: &Ask<'_>) -> Told {
    match down {
        Version::One => ask_1(proxy, ask),
        Version::Two => ask_2(proxy, ask),
    }
}

fn ask_1(proxy: &Proxy, ask: &Ask<'_>) -> Told {
    let mut client = proxy.client();
    let mut head = format!("{} {} HTTP/1.1\r\nHost: a.example\r\n", ask.method, ask.path);
    for (name, value) in ask.fields {
        head += &format!("{name}: {value}\r\n");
    }
    match ask.body {
        None => head += "\r\n",
        Some(_) if ask.pieces => head += "Transfer-Encoding: chunked\r\n\r\n",
        Some(body) => head += &format!("Content-Length: {}\r\n\r\n", body.len()),
    }
    client.send(head);
    // What an early answer makes of the rest is not the client's business.
    let body = ask.body.unwrap_or_default();
    if ask.pieces {
        let sent = body
            .chunks(10_000)
            .all(|piece| client.try_send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()));
        let trailers: String = ask.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let _ended = sent && client.try_send(format!("0\r\n{trailers}\r\n"));
    } else {
        client.try_send(body);
    }
    let mut told = Told { interim: Vec::new(), status: 0, body: Vec::new(), trailers: false, whole: false };
    while let Ok(answer) = client.response_to(ask.method) {
        if answer.status / 100 == 1 {
            told.interim.push(answer.status);
            continue;
        }
        let trailers = !answer.trailers.is_empty();
        return Told { status: answer.status, body: answer.body, trailers, whole: true, ..told };
    }
    told
}

fn ask_2(proxy: &Proxy, ask: &Ask<'_>) -> Told {
    let mut client = H2::connect(&proxy.address);
    let length = ask.body.unwrap_or_default().len().to_string();
    let mut fields =
        vec![(":method", ask.method), (":scheme", "http"), (":authority", "a.example"), (":path", ask.path)];
    fields.extend(ask.fields);
    if ask.body.is_some() && !ask.pieces {
        fields.push(("content-length", &length));
    }
    let stream = client.open(&fields, ask.body.is_none());
    if let Some(body) = ask.body {
        let (mut left, mut window) = (body, 65_535);
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(10_000).min(window));
            if now.is_empty() {
                // Credit comes with what is read; an answer may too.
                let Some(frame) = client.read() else { break };
                match frame.kind {
                    h2::WINDOW_UPDATE if frame.stream == stream => {
                        window += u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
                    }
                    h2::WINDOW_UPDATE | h2::SETTINGS => {}
                    _ => {
                        client.take(frame);
                        break;
                    }
                }
                continue;
            }
            window -= now.len();
            left = later;
            client.frame(DATA, if left.is_empty() && ask.trailers.is_empty() { END_STREAM } else { 0 }, stream, now);
        }
        if !ask.trailers.is_empty() {
            client.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(ask.trailers));
        } else if body.is_empty() {
            client.frame(DATA, END_STREAM, stream, b"");
        }
    }
    let answer = client.answer(stream);
    let finals = answer.heads.iter().filter(|status| **status >= 200 || **status == 0).count();
    Told {
        interim: answer.heads.iter().copied().filter(|status| *status / 100 == 1).collect(),
        status: answer.status(),
        body: answer.body,
        trailers: finals > 1,
        whole: answer.ended == Some(h2::Ended::Whole),
    }
}

/// Answers with what has come, in chunks where the path says so.
fn mirror() -> Origin {
    Origin::replying(|request| {
        let trailers: String = request.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head_only = request.method == "HEAD";
        if request.target == "/chunks" {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in request.body.chunks(30_000) {
                answer.extend(format!("{:x}\r\n", piece.len()).bytes());
                answer.extend_from_slice(piece);
                answer.extend(b"\r\n");
            }
            answer.extend(format!("0\r\n{trailers}\r\n").bytes());
            return answer;
        }
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len().max(1)).into_bytes();
        if !head_only {
            answer.extend_from_slice(if request.body.is_empty() { b"-" } else { &request.body });
        }
        answer
    })
}

#[test]
fn bodies_pass_in_both_directions() {
    everywhere(&mirror(), |down, proxy, pairing| {
        for size in [0, 1, 5000, 70_000, 1_000_000] {
            let body: Vec<u8> = (0..size).map(|at| b'a' + u8::try_from(at % 23).unwrap()).collect();
            for (path, pieces) in [("/", false), ("/", true), ("/chunks", false), ("/chunks", true)] {
                let told = ask(down, proxy, &Ask { method: "POST", path, body: Some(&body), pieces, ..GET });
                let wanted = if body.is_empty() && path == "/" { b"-" } else { body.as_slice() };
                assert!(told.whole && told.status == 200, "{pairing}: {path} {size} {pieces}: {}", told.status);
                assert!(told.body == wanted, "{pairing}: {path} {size} {pieces}: {} bytes", told.body.len());
            }
        }
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    everywhere(&mirror(), |down, proxy, pairing| {
        for body in [&b"hello"[..], &[b'x'; 100_000]] {
            let trailers = &[("x-sum", "1")];
            let wanted = Ask {
                method: "POST",
                path: "/chunks",
                body: Some(body),
                pieces: true,
                trailers,
                fields: &[("te", "trailers")],
            };
            let told = ask(down, proxy, &wanted);
            assert!(told.whole && told.trailers && told.body == body, "{pairing}: {} {}", told.status, told.trailers);
            let told = ask(down, proxy, &Ask { trailers: &[], ..wanted });
            assert!(told.whole && !told.trailers, "{pairing}");
        }
    });
}

#[test]
fn interim_answers_pass() {
    let origin = Origin::replying(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    everywhere(&origin, |down, proxy, pairing| {
        let told = ask(down, proxy, &GET);
        assert_eq!((told.interim, told.status, told.body.as_slice()), (vec![103, 102], 200, &b"ok"[..]), "{pairing}");
    });
}

#[test]
fn early_answers_pass() {
    let origin = Origin::script(|mut conn, _| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch");
            // The rest is read, so that the answer is not lost to a reset.
            while conn.fill() {}
        }
    });
    everywhere(&origin, |down, proxy, pairing| {
        let body = vec![b'x'; 1_000_000];
        for pieces in [false, true] {
            let told = ask(down, proxy, &Ask { method: "POST", body: Some(&body), pieces, ..GET });
            assert_eq!((told.status, told.body.as_slice()), (413, &b"much"[..]), "{pairing}");
        }
    });
}

#[test]
fn expectations_are_met() {
    let origin = Origin::script(|mut conn, _| {
        while let Some(mut request) = conn.head() {
            assert_eq!(request.header("expect"), Some("100-continue"));
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            if !conn.body(&mut request) {
                return;
            }
            conn.reply("200 OK", &request.body.len().to_string());
        }
    });
    everywhere(&origin, |down, proxy, pairing| {
        let fields = &[("expect", "100-continue")];
        let told = ask(down, proxy, &Ask { method: "POST", body: Some(b"hello"), fields, ..GET });
        assert_eq!((told.interim, told.status, told.body.as_slice()), (vec![100], 200, &b"5"[..]), "{pairing}");
        let told = ask(down, proxy, &Ask { method: "POST", body: Some(b"hello"), fields: &[("expect", "x")], ..GET });
        assert_eq!(told.status, 417, "{pairing}");
    });
}

#[test]
fn head_and_connect() {
    everywhere(&mirror(), |down, proxy, pairing| {
        let told = ask(down, proxy, &Ask { method: "HEAD", ..GET });
        assert_eq!((told.status, told.body.len(), told.whole), (200, 0, true), "{pairing}");
    });
    everywhere(&mirror(), |down, proxy, pairing| match down {
        Version::One => {
            let mut client = proxy.client();
            client.send("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
            assert_eq!(client.response().status, 405, "{pairing}");
        }
        Version::Two => {
            let mut client = H2::connect(&proxy.address);
            let stream = client.open(&[(":method", "CONNECT"), (":authority", "a.example:80")], false);
            assert_eq!(client.answer(stream).status(), 405, "{pairing}");
        }
    });
}

/// An origin that breaks off before its answer is a 502, and amid it a cut; never a short success.
#[test]
fn an_origins_end_is_never_a_success() {
    for (bytes, status) in [
        ("", 502),
        ("HTTP/1.1 200 OK\r\nContent-Le", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200),
    ] {
        everywhere(&Origin::closing(bytes), |down, proxy, pairing| {
            for method in ["GET", "POST"] {
                let body = (method == "POST").then_some(&b"hello"[..]);
                let told = ask(down, proxy, &Ask { method, body, ..GET });
                match status {
                    502 => assert_eq!((told.status, told.whole), (502, true), "{pairing}: {method} {bytes:?}"),
                    // What is cut may also be answered 502, where nothing of it has left yet.
                    _ => assert!(!told.whole || told.status == 502, "{pairing}: {method} {bytes:?}: {told:?}"),
                }
            }
        });
    }
}

/// A client that takes its request back, at any point of it, ends it at the origin.
#[test]
fn a_clients_reset_reaches_the_origin() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::script(move |mut conn, _| {
        let Some(request) = conn.head() else { return };
        let say = |what: &str| tell.lock().unwrap().send(what.to_owned()).unwrap();
        if request.target == "/begun" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        }
        say(&request.target);
        while conn.fill() {}
        say("ended");
    });
    everywhere(&origin, |down, proxy, pairing| {
        let heard = |what: &str, path: &str| {
            let found = told
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|_| panic!("{pairing}: no {what} for {path}"));
            assert_eq!(found, what, "{pairing}");
        };
        for (method, path) in [("GET", "/awaited"), ("GET", "/begun"), ("POST", "/sending"), ("POST", "/sent")] {
            match down {
                Version::One => {
                    let mut client = proxy.client();
                    let more = match path {
                        "/sending" => "Content-Length: 100000\r\n\r\n",
                        "/sent" => "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                        _ => "\r\n",
                    };
                    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}"));
                    heard(path, path);
                    client.abort();
                }
                Version::Two => {
                    let mut client = H2::connect(&proxy.address);
                    let fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
                    let stream = client.open(&fields, method == "GET");
                    if path == "/sent" {
                        client.frame(DATA, END_STREAM, stream, b"x");
                    }
                    heard(path, path);
                    client.reset(stream, CANCEL);
                    // The connection is as good as before.
                    client.settle();
                }
            }
            heard("ended", path);
        }
    });
}

/// Copies of requests in both versions go to mirrors of both versions.
#[test]
fn mirrors_of_both_versions() {
    let (origin, one, two) = (mirror(), mirror(), mirror());
    // The mirror of HTTP/2 is the proxy's other listener.
    let filter = |name: &str| {
        format!(
            "    - {{type: RequestMirror, requestMirror: {{backendRef: {{group: ringway.dev, kind: Backend, name: {name}}}}}}}\n"
        )
    };
    let yaml = crate::http2_upstream::chain(&two.address).replace(
        "  rules:\n  - backendRefs: [{group: ringway.dev, kind: Backend, name: inner}]",
        &format!(
            "  rules:\n  - filters:\n{}{}    backendRefs: [{{group: ringway.dev, kind: Backend, name: first}}]",
            filter("one"),
            filter("inner")
        ),
    ) + &crate::support::proxy::backend("first", &[&origin.address])
        + &crate::support::proxy::backend("one", &[&one.address]);
    let proxy = Proxy::start(&yaml);
    let mut count = 0;
    for down in [Version::One, Version::Two] {
        for (method, body, pieces) in
            [("GET", None, false), ("POST", Some(&b"hello"[..]), false), ("POST", Some(&[b'x'; 30_000]), true)]
        {
            let told = ask(down, &proxy, &Ask { method, body, pieces, ..GET });
            assert_eq!((told.status, told.body.as_slice()), (200, body.unwrap_or(b"-")), "{down:?} {method}");
            count += 1;
            for copy in [&one, &two] {
                eventually("the copies come", || copy.requests().len() == count);
                let last = copy.requests().pop().unwrap();
                assert_eq!(
                    (last.method.as_str(), last.body.as_slice()),
                    (method, body.unwrap_or_default()),
                    "{down:?}"
                );
            }
        }
    }
}
