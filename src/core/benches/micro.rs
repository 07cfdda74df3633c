//! Instructions of the hot paths, counted by callgrind: the same count every time, whatever else the machine does.
//!
//!     perf/micro          # against the committed baseline
//!
//! Each function is what is counted; what it works on is made by its setup, which is not.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, missing_docs, reason = "a benchmark for people")]
#![allow(
    clippy::exit,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    reason = "in what gungraun's macros expand to"
)]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use ringway_core::balance::{Load, WeightedRoundRobin, least_request};
use ringway_core::http::{Date, Method};
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::encode::{self, RequestContext};
use ringway_core::http1::exchange::Exchange;
use ringway_core::http1::request::{Framing, parse_request};
use ringway_core::http1::response::parse_response;
use ringway_core::http1::{FieldStorage, HeadScanner};
use ringway_core::model::{
    Action, ClientLimits, ClientPolicy, Filters, HostPattern, HttpListener, HttpMatch, HttpRoute, HttpRule, PathMatch,
    RouteId, RouteTimeouts,
};
use ringway_core::route::{FieldLookup, Found, Matched, RequestKey, RouteTable};

const SMALL: &[u8] = b"GET /api/service-5/v1/item/5 HTTP/1.1\r\nHost: www.example.com\r\n\r\n";

const BROWSER: &[u8] = b"GET /api/service-5/v1/item/5?sort=name&page=2 HTTP/1.1\r\n\
Host: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.com/api/service-5/v1\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
Upgrade-Insecure-Requests: 1\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json\r\nContent-Length: 128\r\nConnection: keep-alive\r\nETag: \"5f3e-80\"\r\n\r\n";

#[library_benchmark]
#[bench::small(SMALL)]
#[bench::browser(BROWSER)]
fn request_head(head: &[u8]) -> bool {
    let mut scanner = HeadScanner::new();
    let whole = scanner.should_parse(black_box(head));
    let mut storage = FieldStorage::new();
    whole && parse_request(black_box(head), &mut storage, &ClientLimits::default()).unwrap().is_some()
}

#[library_benchmark]
#[bench::answer(ANSWER)]
fn response_head(head: &[u8]) -> bool {
    let mut storage = FieldStorage::new();
    parse_response(black_box(head), &mut storage, Method::Get, &ClientLimits::default()).unwrap().is_some()
}

// Parsing is in it, since a head borrows from what was parsed; `request_head` says how much that is.
#[library_benchmark]
#[bench::small(SMALL, Vec::with_capacity(4096))]
#[bench::browser(BROWSER, Vec::with_capacity(4096))]
fn request_parsed_and_encoded(head: &[u8], mut out: Vec<u8>) -> Vec<u8> {
    let policy = ClientPolicy::default();
    let mut storage = FieldStorage::new();
    let head = parse_request(black_box(head), &mut storage, &policy.limits).unwrap().unwrap();
    let context = RequestContext {
        client: "192.0.2.1",
        scheme: "http",
        trusted: false,
        policy: &policy,
        request_id: "58ffc407-6b60-47ed-a673-ef9a55630d63",
        client_certificate: None,
        host: None,
        content_type: None,
        granted: &[],
    };
    encode::request(&head, &Filters::default(), Matched::Prefix("/"), &context, &mut out);
    out
}

#[library_benchmark]
#[bench::answer(ANSWER, Vec::with_capacity(4096))]
fn response_parsed_and_encoded(bytes: &[u8], mut out: Vec<u8>) -> Vec<u8> {
    let limits = ClientLimits::default();
    let (mut asked, mut storage) = (FieldStorage::new(), FieldStorage::new());
    let request = parse_request(SMALL, &mut asked, &limits).unwrap().unwrap();
    let mut exchange = Exchange::new(&request, false);
    let head = parse_response(black_box(bytes), &mut storage, Method::Get, &limits).unwrap().unwrap();
    let plan = exchange.response_head(&head).unwrap();
    encode::response(&head, &Filters::default(), encode::Added::default(), &plan, &Date::at(0), &mut out);
    out
}

/// 64 KiB in chunks of this size.
fn chunks(size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..(64 << 10) / size {
        wire.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        wire.resize(wire.len() + size, b'x');
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[library_benchmark]
#[bench::of_4096_bytes(args = (4096), setup = chunks)]
#[bench::of_64_bytes(args = (64), setup = chunks)]
fn chunked_64_kib(mut wire: Vec<u8>) -> usize {
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    let (mut at, mut payload) = (0, 0);
    while !decoder.is_done() {
        let decoded = decoder.decode(black_box(&mut wire[at..])).unwrap();
        payload += decoded.data.len();
        at += decoded.consumed;
    }
    payload
}

struct NoFields;

impl FieldLookup for NoFields {
    fn values(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}
}

// Ten routes a host for every hundred, so that both hosts and paths have to be told apart.
fn routes(count: usize) -> RouteTable {
    let routes = (0..count)
        .map(|index| HttpRoute {
            grpc: false,
            id: RouteId(u32::try_from(index).unwrap()),
            hostnames: vec![HostPattern::Exact(format!("host-{}.example.com", index / 10))],
            rules: vec![HttpRule {
                matches: vec![HttpMatch {
                    path: PathMatch::Prefix(format!("/api/service-{}/v1", index % 10)),
                    ..HttpMatch::default()
                }],
                filters: Filters::default(),
                action: Action::Fail(500),
                timeouts: RouteTimeouts::default(),
                extras: None,
            }],
        })
        .collect();
    RouteTable::compile(&[HttpListener { name: "l".to_owned(), hostname: HostPattern::Any, routes, responses: None }])
}

#[library_benchmark]
#[bench::of_10(args = (10), setup = routes)]
#[bench::of_1000(args = (1_000), setup = routes)]
#[bench::of_10000(args = (10_000), setup = routes)]
fn route(table: RouteTable) -> (RouteTable, bool) {
    let key = RequestKey {
        host: black_box("host-0.example.com"),
        path: b"/api/service-5/v1/item/5",
        query: None,
        method: b"GET",
        fields: &NoFields,
    };
    let found = matches!(table.find(&key), Found::Rule { .. });
    (table, found)
}

#[library_benchmark]
#[bench::of_3(args = (&[1, 1, 1], 0), setup = WeightedRoundRobin::new)]
fn pick_round_robin(mut turn: WeightedRoundRobin) -> (WeightedRoundRobin, Option<usize>) {
    let picked = turn.next();
    (turn, picked)
}

#[library_benchmark]
#[bench::of_8([3, 1, 4, 1, 5, 9, 2, 6])]
fn pick_least_request(in_flight: [u32; 8]) -> usize {
    let load = |index: usize| Load { in_flight: in_flight[index], weight: 1 };
    least_request::pick(in_flight.len(), black_box(2), black_box(0x9e37_79b9_7f4a_7c15), load)
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        request_head,
        response_head,
        request_parsed_and_encoded,
        response_parsed_and_encoded,
        chunked_64_kib,
        route,
        pick_round_robin,
        pick_least_request
    ]
);

main!(library_benchmark_groups = hot_paths);
