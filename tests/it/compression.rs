//! ResponsePolicy `compression`: answers in the coding that their client likes best.

use std::io::Read as _;
use std::sync::{Arc, Mutex, mpsc};

use crate::support::client::{Client, Response, find};
use crate::support::h2::H2;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, gateway};

fn yaml(spec: &str, origins: &[&str]) -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n"
        + &backend("origin", origins)
        + &format!(
            "---\napiVersion: ringway.dev/v1alpha1\nkind: ResponsePolicy\nmetadata: {{name: small}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: all}}]\n  compression: {spec}\n"
        )
}

fn text(length: usize) -> String {
    let mut all = String::new();
    for n in 0_u32.. {
        if all.len() >= length {
            break;
        }
        all += &format!("line {}\n", n.wrapping_mul(n) % 1013);
    }
    all.truncate(length);
    all
}

/// What can be read of a body that may be cut.
fn decoded(coding: &str, body: &[u8]) -> String {
    let mut from: Box<dyn std::io::Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(body).unwrap()),
        other => panic!("no such coding: {other}"),
    };
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut piece) {
        all.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(all).unwrap()
}

fn ask(client: &mut Client, target: &str, fields: &str) -> Response {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x.org\r\n{fields}\r\n"));
    client.response()
}

/// Answers with 20,000 bytes of text; `/s` in chunks, other fields after `?`.
fn origin() -> Origin {
    Origin::replying(|request| {
        let (path, fields) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let fields = fields.replace("%20", " ").replace("%22", "\"").replace('&', "\r\n");
        let fields = if fields.is_empty() { "X: y" } else { &fields };
        let body = text(20_000);
        let kind =
            if fields.to_lowercase().contains("content-type") { "X-No: type" } else { "Content-Type: text/plain" };
        let head = format!("HTTP/1.1 200 OK\r\n{kind}\r\n{fields}\r\n");
        match path {
            "/s" => {
                let chunks: String = body.as_bytes().chunks(700).map(|chunk| {
                    format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap())
                }).collect();
                format!("{head}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{chunks}0\r\nX-Sum: 7\r\n\r\n")
            }
            "/206" => format!("HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-19999/30000\r\nContent-Length: 20000\r\n\r\n{body}"),
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Type: text/plain\r\nETag: \"a\"\r\n\r\n".to_owned(),
            "/short" => format!("{head}Content-Length: 1023\r\n\r\n{}", &body[..1023]),
            "/500" => format!("HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nContent-Length: 20000\r\n\r\n{body}"),
            _ if request.method == "HEAD" => format!("{head}Content-Length: 20000\r\n\r\n"),
            _ => format!("{head}Content-Length: 20000\r\n\r\n{body}"),
        }
        .into_bytes()
    })
}

#[test]
fn a_client_gets_the_coding_that_it_likes_best() {
    let origin = origin();
    let proxy = Proxy::start(&yaml("{}", &[&origin.address]));
    let mut client = proxy.client();
    for (said, expected) in [
        ("gzip", Some("gzip")),
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip, deflate, zstd", Some("zstd")),
        ("gzip;q=0.9, br;q=0.1, zstd;q=0.2", Some("gzip")),
        ("*", Some("br")),
        ("br;q=0, *", Some("zstd")),
        ("identity;q=0, gzip;q=0.1", Some("gzip")),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("deflate", None),
        ("", None),
    ] {
        for path in ["/", "/s", "/500"] {
            let response = ask(&mut client, path, &format!("Accept-Encoding: {said}\r\n"));
            assert_eq!(response.status, if path == "/500" { 500 } else { 200 });
            assert_eq!(
                (response.header("content-encoding"), response.header("vary")),
                (expected, Some("accept-encoding")),
                "{said} {path}"
            );
            let body = match expected {
                Some(coding) => {
                    assert_eq!(
                        (response.header("content-length"), response.header("transfer-encoding")),
                        (None, Some("chunked"))
                    );
                    assert!(response.body.len() < 10_000);
                    decoded(coding, &response.body)
                }
                None => response.text().to_owned(),
            };
            assert!(body == text(20_000), "{said} {path}");
            if path == "/s" {
                assert_eq!(response.trailers, [("X-Sum".to_owned(), "7".to_owned())], "{said}");
            }
        }
    }
    // Nobody said anything.
    let response = ask(&mut client, "/", "");
    assert_eq!((response.header("content-encoding"), response.header("content-length")), (None, Some("20000")));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn what_is_left_as_it_is() {
    let origin = origin();
    let proxy = Proxy::start(&yaml("{}", &[&origin.address]));
    let mut client = proxy.client();
    for target in [
        "/?Content-Encoding:%20br",
        "/?Cache-Control:%20public,%20no-transform",
        "/?Content-Type:%20image/png",
        "/206",
        "/short",
    ] {
        let response = ask(&mut client, target, "Accept-Encoding: gzip\r\n");
        let expected = if target.contains("Encoding") { Some("br") } else { None };
        assert_eq!((response.header("content-encoding"), response.header("vary")), (expected, None), "{target}");
        let length = if target == "/short" { 1023 } else { 20_000 };
        assert!(response.text() == text(length), "{target}");
    }
    let response = ask(&mut client, "/304", "Accept-Encoding: gzip\r\n");
    assert_eq!(
        (response.status, response.header("etag"), response.header("content-encoding")),
        (304, Some("\"a\""), None)
    );
    client.send("HEAD / HTTP/1.1\r\nHost: x.org\r\nAccept-Encoding: gzip\r\n\r\n");
    let response = client.response_to("HEAD").unwrap();
    assert_eq!((response.header("content-length"), response.header("content-encoding")), (Some("20000"), None));
    // HTTP/1.0 has no chunks.
    client.send("GET / HTTP/1.0\r\nHost: x.org\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.response().header("content-encoding"), None);
}

#[test]
fn fields_that_tell_of_the_bytes_follow_them() {
    let origin = origin();
    let proxy = Proxy::start(&yaml("{}", &[&origin.address]));
    let mut client = proxy.client();
    let target = "/?ETag:%20%22v1%22&Accept-Ranges:%20bytes&Vary:%20Origin&Content-MD5:%20x&Digest:%20sha-256=x";
    let response = ask(&mut client, target, "Accept-Encoding: gzip\r\n");
    assert_eq!(response.header("etag"), Some("W/\"v1\""));
    for lost in ["accept-ranges", "content-md5", "digest", "content-length"] {
        assert_eq!(response.header(lost), None, "{lost}");
    }
    assert_eq!(response.headers("vary"), ["Origin", "accept-encoding"]);
    let response = ask(&mut client, target, "");
    assert_eq!((response.header("etag"), response.header("accept-ranges")), (Some("\"v1\""), Some("bytes")));
    for target in ["/?ETag:%20W/%22v2%22&Vary:%20Accept-Encoding,%20X", "/?ETag:%20W/%22v2%22&Vary:%20*"] {
        let response = ask(&mut client, target, "Accept-Encoding: br\r\n");
        assert_eq!((response.header("etag"), response.headers("vary").len()), (Some("W/\"v2\""), 1), "{target}");
    }
}

#[test]
fn settings_hold() {
    let origin = origin();
    let spec = "{compressors: [{type: Gzip, level: 9}, {type: Zstd, level: 1}], minContentLength: 1023, contentTypes: ['image/*']}";
    let proxy = Proxy::start(&yaml(spec, &[&origin.address]));
    let mut client = proxy.client();
    let all = "Accept-Encoding: br, zstd, gzip\r\n";
    for (target, expected) in [
        ("/", None),
        ("/short?Content-Type:%20image/x-portable-bitmap", Some("gzip")),
        ("/?Content-Type:%20IMAGE/PNG", Some("gzip")),
    ] {
        assert_eq!(ask(&mut client, target, all).header("content-encoding"), expected, "{target}");
    }
    proxy.reload(&yaml("{minContentLength: 0}", &[&origin.address]));
    assert_eq!(ask(&mut client, "/short", all).header("content-encoding"), Some("br"));
}

#[test]
fn events_pass_at_once() {
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let origin = Origin::script(move |mut conn, _| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            for n in 0..3 {
                told.lock().unwrap().recv().unwrap();
                conn.send(format!("9\r\ndata: {n}\n\n\r\n"));
            }
            conn.send("0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&yaml("{contentTypes: [text/event-stream]}", &[&origin.address]));
    for coding in ["gzip", "br", "zstd"] {
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: x.org\r\nAccept-Encoding: {coding}\r\n\r\n"));
        let mut seen = Vec::new();
        let mut expected = String::new();
        while find(&seen, b"\r\n\r\n").is_none() {
            seen.extend(client.raw(1));
        }
        let mut body = Vec::new();
        for n in 0..3 {
            tell.send(()).unwrap();
            expected += &format!("data: {n}\n\n");
            while decoded(coding, &body) != expected {
                body.extend(chunk(&mut client));
            }
        }
        while !chunk(&mut client).is_empty() {}
    }
}

fn chunk(client: &mut Client) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.raw(1));
    }
    let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
    let mut data = client.raw(size + 2);
    data.truncate(size);
    data
}

#[test]
fn long_bodies_and_http_2() {
    let body = Arc::new(text(3 << 20));
    let served = Arc::clone(&body);
    let origin = Origin::replying(move |request| {
        let framing = if request.target == "/close" {
            "Connection: close".to_owned()
        } else {
            format!("Content-Length: {}", served.len())
        };
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{framing}\r\n\r\n{served}").into_bytes()
    });
    let proxy = Proxy::start(&yaml("{}", &[&origin.address]));
    for coding in ["gzip", "br", "zstd"] {
        let response = ask(&mut proxy.client(), "/", &format!("Accept-Encoding: {coding}\r\n"));
        assert_eq!(response.header("content-encoding"), Some(coding));
        assert!(decoded(coding, &response.body) == *body, "{coding}");
        let mut client = H2::connect(&proxy.address);
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/"), ("accept-encoding", coding)];
        let stream = client.open(&fields, true);
        let answer = client.answer(stream);
        assert_eq!(answer.status(), 200);
        assert!(decoded(coding, &answer.body) == *body, "{coding} over HTTP/2");
    }
}

/// A body that is cut must not look whole.
#[test]
fn a_cut_body_is_cut() {
    let origin = Origin::closing(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20001\r\n\r\n{}",
        text(20_000)
    ));
    let proxy = Proxy::start(&yaml("{}", &[&origin.address]));
    for coding in ["gzip", "br", "zstd"] {
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: x.org\r\nAccept-Encoding: {coding}\r\n\r\n"));
        assert!(client.response_to("GET").is_err(), "{coding}");
    }
}
