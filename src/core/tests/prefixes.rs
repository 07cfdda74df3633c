//! Every prefix of captured heads through every parser: more is needed, or the final answer has been reached. And
//! every way of cutting a body in two.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use ringway_core::http::Method;
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::request::{self, Framing, parse_request};
use ringway_core::http1::response::{self, parse_response};
use ringway_core::http1::{FieldStorage, HeadScanner};
use ringway_core::model::ClientLimits;

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    "GET /index.html?a=b&c=%20d HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    "POST /upload HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\nAccept-Encoding: gzip\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"140\"\r\nsec-ch-ua-mobile: ?0\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nCookie: a=b; c=d; e=\"f g\"\r\n\r\n",
    "PUT /x HTTP/1.1\r\nHost:example.com\r\nContent-Length:  5 \r\nExpect: 100-continue\r\nX-Empty:\r\nX-Tab:\ta\tb\t\r\n\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n",
    "GET http://a.example:81/p HTTP/1.1\r\nHost: ignored\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "PROPFIND /dav HTTP/1.1\r\nHost: [::1]:8080\r\nDepth: 1\r\nContent-Length: 0\r\n\r\n",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 04:26:13 GMT\r\nContent-Type: text/plain\r\nContent-Length: 32\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n",
    "HTTP/1.1 404 Not Found, really\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: https://example.com/?a=b#c\r\nContent-Length: 0\r\n\r\n",
];

fn limits() -> ClientLimits {
    ClientLimits::default()
}

/// A request as comparable text.
fn request_text(bytes: &[u8]) -> Result<Option<String>, request::RequestError> {
    let mut storage = FieldStorage::new();
    let head = parse_request(bytes, &mut storage, &limits())?;
    Ok(head.map(|head| {
        let fields: Vec<_> = head
            .fields()
            .map(|(name, value)| {
                (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned())
            })
            .collect();
        format!(
            "{} {:?} {} {:?} {:?} {:?} {} {fields:?}",
            head.len, head.method, head.host, head.path, head.query, head.body, head.keep_alive
        )
    }))
}

fn response_text(bytes: &[u8], method: Method) -> Result<Option<String>, response::ResponseError> {
    let mut storage = FieldStorage::new();
    let head = parse_response(bytes, &mut storage, method, &limits())?;
    Ok(head.map(|head| format!("{} {} {:?} {} {:?}", head.len, head.status, head.body, head.keep_alive, head.upgrade)))
}

#[test]
fn every_prefix_of_a_request() {
    for text in REQUESTS {
        let whole = request_text(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
        let whole = whole.unwrap_or_else(|| panic!("{text:?} is not whole"));
        assert!(whole.starts_with(&text.len().to_string()), "{whole}");
        let mut scanner = HeadScanner::new();
        for end in 1..text.len() {
            let part = &text.as_bytes()[..end];
            assert_eq!(request_text(part), Ok(None), "{:?}", &text[..end]);
            scanner.should_parse(part);
        }
        assert!(scanner.should_parse(text.as_bytes()), "the scanner hides the end of {text:?}");
        // What follows belongs to the next message.
        for behind in ["G", "GET / HTTP/1.1\r\n", "\0\0\0", "\r\n"] {
            assert_eq!(
                request_text(format!("{text}{behind}").as_bytes()),
                Ok(Some(whole.clone())),
                "{text:?}{behind:?}"
            );
        }
    }
}

#[test]
fn every_prefix_of_a_response() {
    for text in RESPONSES {
        for method in [Method::Get, Method::Head] {
            let whole = response_text(text.as_bytes(), method).unwrap_or_else(|_| panic!("{text:?}"));
            let whole = whole.unwrap_or_else(|| panic!("{text:?} is not whole"));
            for end in 1..text.len() {
                assert_eq!(response_text(&text.as_bytes()[..end], method), Ok(None), "{:?}", &text[..end]);
            }
            assert_eq!(response_text(format!("{text}HTTP/1.1 x").as_bytes(), method), Ok(Some(whole)));
        }
    }
}

/// The whole input's answer never comes from a part of it: a part that is refused stays refused.
#[test]
fn what_is_refused_early_stays_refused() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let whole = request_text(text.as_bytes()).unwrap_err();
        for end in 1..text.len() {
            if let Err(error) = request_text(&text.as_bytes()[..end]) {
                assert_eq!(error.status(), whole.status(), "{:?} of {text:?}", &text[..end]);
            }
        }
    }
}

fn decode(framing: Framing, parts: &[&[u8]]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::request(framing);
    let (mut payload, mut used) = (Vec::new(), 0);
    for part in parts {
        let mut buf = part.to_vec();
        let decoded = decoder.decode(&mut buf).ok()?;
        payload.extend_from_slice(&buf[decoded.data]);
        used += decoded.consumed;
        if decoded.done {
            return Some((payload, decoder.trailers().to_vec(), used));
        }
        assert_eq!(decoded.consumed, part.len(), "an unfinished body takes everything");
    }
    None
}

#[test]
fn every_two_cuts_of_a_chunked_body() {
    let body: &[u8] = b"5\r\nhello\r\n1;name=\"quo;\\\"ted\"\r\n \r\n00a ;x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nTransfer-Encoding: x\r\n\r\nGET /";
    let body = &body.to_vec();
    let plain: Vec<u8> = String::from_utf8(body.clone()).unwrap().replace("00a ;x", "00a;x").into_bytes();
    let whole = decode(Framing::Chunked, &[&plain]).unwrap();
    assert_eq!(whole, (b"hello 0123456789".to_vec(), b"X-Sum: 1\r\n".to_vec(), plain.len() - 5));
    for first in 0..plain.len() {
        for second in first..plain.len() {
            let parts = [&plain[..first], &plain[first..second], &plain[second..]];
            assert_eq!(decode(Framing::Chunked, &parts).as_ref(), Some(&whole), "cut at {first} and {second}");
        }
    }
    for end in 0..plain.len() - 5 {
        assert_eq!(decode(Framing::Chunked, &[&plain[..end]]), None, "a cut body is never whole: {end}");
    }
}

#[test]
fn bodies_with_a_length_end_where_they_say() {
    let stream = b"hello worldGET /";
    for cut in 0..stream.len() {
        let found = decode(Framing::Length(11), &[&stream[..cut], &stream[cut..]]).unwrap();
        assert_eq!((found.0.as_slice(), found.2), (&b"hello world"[..], 11));
    }
    assert_eq!(decode(Framing::Length(12), &[b"hello world"]), None);
}

#[test]
fn unclean_ends_are_errors() {
    for (framing, part) in
        [(Framing::Length(5), &b"hell"[..]), (Framing::Chunked, b"5\r\nhello\r\n"), (Framing::Chunked, b"0\r\n")]
    {
        let mut decoder = BodyDecoder::request(framing);
        assert!(!decoder.decode(&mut part.to_vec()).unwrap().done);
        assert!(decoder.end_of_stream().is_err(), "{framing:?}");
    }
    let mut decoder = BodyDecoder::response(response::Framing::UntilClose);
    assert!(!decoder.decode(&mut b"anything".to_vec()).unwrap().done);
    assert!(decoder.end_of_stream().is_ok());
}
