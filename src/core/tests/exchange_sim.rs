//! A seeded simulation of exchanges: clients that pipeline, a proxy made of the core's parts, origins that answer in
//! every way, early, cut or wrong, and links that deliver in random pieces.
//!
//! The proxy here is the shell's logic without its sockets: it is driven by the same decisions ([`Exchange`]), parsers
//! and encoders. What arrives at either end is read by decoders of the test's own. The invariants: answers come in
//! order and belong to their requests; bodies are intact; what was cut is never whole; an origin's connection is used
//! again only at a message boundary.
//!
//! `RINGWAY_SIM_SEED=0x2a cargo test -p ringway-core --test exchange_sim` replays one seed.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod random;

use ringway_core::http::{Date, Method};
use ringway_core::http1::FieldStorage;
use ringway_core::http1::body::{BodyDecoder, CRLF, LAST_CHUNK, chunk_header};
use ringway_core::http1::encode::{self, Reply, RequestContext};
use ringway_core::http1::exchange::{After, Exchange, FailurePlan, HeadPlan, UpstreamFault};
use ringway_core::http1::request::{Framing, parse_request};
use ringway_core::http1::response::parse_response;
use ringway_core::model::{ClientLimits, ClientPolicy, Filters};
use ringway_core::route::Matched;

use self::random::Random;

/// A request as the client means it.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    id: usize,
    body: Vec<u8>,
    chunked: bool,
    old: bool,
    close: bool,
}

/// How an origin answers one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Length,
    Chunked,
    UntilClose,
    NoContent,
    /// Ends in the head or the body.
    Cut,
    /// Says nothing and closes.
    Silent,
    /// Not HTTP.
    Garbage,
}

fn ask(random: &mut Random, id: usize) -> Asked {
    let method = ["GET", "HEAD", "POST", "PUT", "DELETE"][random.below(5)];
    let has_body = matches!(method, "POST" | "PUT");
    Asked {
        method,
        id,
        body: if has_body {
            (0..random.below(300)).map(|index| b'a' + u8::try_from((index + id) % 26).unwrap()).collect()
        } else {
            Vec::new()
        },
        chunked: has_body && random.chance(2),
        old: random.chance(12),
        close: random.chance(12),
    }
}

fn chunked(random: &mut Random, body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    while !rest.is_empty() {
        let take = 1 + random.below(rest.len());
        let extension = if random.chance(4) { ";e=\"x\"" } else { "" };
        out.extend_from_slice(format!("{take:X}{extension}\r\n").as_bytes());
        out.extend_from_slice(&rest[..take]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[take..];
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

fn write_request(random: &mut Random, asked: &Asked) -> Vec<u8> {
    let chunked_body = asked.chunked && !asked.old;
    let mut out =
        format!("{} /{} HTTP/1.{}\r\nHost: sim\r\n", asked.method, asked.id, u8::from(!asked.old)).into_bytes();
    if asked.close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    if chunked_body {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        chunked(random, &asked.body, &mut out);
    } else {
        if !asked.body.is_empty() {
            out.extend_from_slice(format!("Content-Length: {}\r\n", asked.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&asked.body);
    }
    out
}

fn answer_body(id: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| b'A' + u8::try_from((index + id) % 26).unwrap()).collect()
}

/// The bytes an origin sends for request `id`, and whether it closes after them.
fn write_answer(random: &mut Random, manner: Manner, id: usize, head: bool) -> (Vec<u8>, bool) {
    let body = answer_body(id, random.below(400));
    let mut out = Vec::new();
    for _ in 0..random.below(3) {
        out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    }
    match manner {
        Manner::Silent => return (Vec::new(), true),
        Manner::Garbage => return (b"SSH-2.0-x\r\n".to_vec(), true),
        Manner::NoContent => {
            out.extend_from_slice(format!("HTTP/1.1 204 None\r\nX-Id: {id}\r\n\r\n").as_bytes());
            return (out, false);
        }
        Manner::UntilClose => {
            out.extend_from_slice(format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Len: {}\r\n\r\n", body.len()).as_bytes());
            if !head {
                out.extend_from_slice(&body);
            }
            return (out, true);
        }
        Manner::Chunked => {
            out.extend_from_slice(
                format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Len: {}\r\nTransfer-Encoding: chunked\r\n\r\n", body.len())
                    .as_bytes(),
            );
            if !head {
                chunked(random, &body, &mut out);
            }
        }
        Manner::Length | Manner::Cut => {
            out.extend_from_slice(
                format!(
                    "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Len: {}\r\nContent-Length: {}\r\n\r\n",
                    body.len(),
                    body.len()
                )
                .as_bytes(),
            );
            if !head {
                out.extend_from_slice(&body);
            }
        }
    }
    if manner == Manner::Cut {
        out.truncate(random.below(out.len()));
        return (out, true);
    }
    (out, random.chance(8))
}

/// What the origin makes of one request's bytes: (target, body). Written for what an encoder may legally produce.
fn read_forwarded(bytes: &[u8]) -> (String, Vec<u8>) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").expect("a whole head");
    let mut lines = head.split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let fields: Vec<(String, &str)> =
        lines.map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value)).unwrap()).collect();
    let get = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    assert!(get("content-length").is_none() || get("transfer-encoding").is_none(), "both framings: {head}");
    if get("transfer-encoding").is_some() {
        let mut body = Vec::new();
        let mut rest = rest;
        loop {
            let (size, after) = rest.split_once("\r\n").unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                assert_eq!(after, "\r\n");
                return (target, body);
            }
            body.extend_from_slice(&after.as_bytes()[..size]);
            rest = after[size..].strip_prefix("\r\n").unwrap();
        }
    }
    let length = get("content-length").map_or(0, |value| value.parse().unwrap());
    assert_eq!(rest.len(), length, "bytes beyond the body: {rest:?}");
    (target, rest.as_bytes().to_vec())
}

/// An answer as the client reads it: status, id, body; `None` when it is cut.
struct Read {
    status: u16,
    id: Option<usize>,
    body: Vec<u8>,
    announced: Option<usize>,
    used: usize,
}

fn read_answer(bytes: &[u8], head_only: bool, ended: bool) -> Option<Read> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end - 4]).unwrap();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap()[9..12].parse().unwrap();
    let fields: Vec<(String, &str)> =
        lines.map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value)).unwrap()).collect();
    let get = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let mut read = Read {
        status,
        id: get("x-id").map(|value| value.parse().unwrap()),
        body: Vec::new(),
        announced: get("x-len").map(|value| value.parse().unwrap()),
        used: end,
    };
    if status < 200 || status == 204 || head_only {
        return Some(read);
    }
    if get("transfer-encoding").is_some() {
        let mut at = end;
        loop {
            let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
            at += line + 2;
            if bytes.len() < at + size + 2 {
                return None;
            }
            read.body.extend_from_slice(&bytes[at..at + size]);
            assert_eq!(&bytes[at + size..at + size + 2], b"\r\n");
            at += size + 2;
            if size == 0 {
                read.used = at;
                return Some(read);
            }
        }
    }
    match get("content-length") {
        Some(value) => {
            let length: usize = value.parse().unwrap();
            if bytes.len() < end + length {
                return None;
            }
            read.body = bytes[end..end + length].to_vec();
            read.used = end + length;
            Some(read)
        }
        None if ended => {
            read.body = bytes[end..].to_vec();
            read.used = bytes.len();
            Some(read)
        }
        None => None,
    }
}

/// What came of one exchange.
struct Outcome {
    /// Bytes for the client.
    down: Vec<u8>,
    /// The client's connection ends, by a cut if `cut`.
    close: bool,
    cut: bool,
    /// The answer reached the client whole and was the origin's.
    passed: bool,
}

/// Feeds `bytes` to `decoder` in random pieces; the payload, the bytes used, and whether the body is whole.
fn decode_in_pieces(
    random: &mut Random,
    decoder: &mut BodyDecoder,
    bytes: &[u8],
) -> Result<(Vec<u8>, usize, bool), ()> {
    let (mut payload, mut used) = (Vec::new(), 0);
    if decoder.is_done() {
        return Ok((payload, 0, true));
    }
    while used < bytes.len() {
        let take = 1 + random.below(bytes.len() - used);
        let mut piece = bytes[used..used + take].to_vec();
        let decoded = decoder.decode(&mut piece).ok().ok_or(())?;
        payload.extend_from_slice(&piece[decoded.data]);
        used += decoded.consumed;
        if decoded.done {
            return Ok((payload, used, true));
        }
    }
    Ok((payload, used, false))
}

fn lay_out(payload: &[u8], framed: bool, out: &mut Vec<u8>) {
    if !framed {
        return out.extend_from_slice(payload);
    }
    if !payload.is_empty() {
        out.extend_from_slice(chunk_header(payload.len(), &mut [0; 18]));
        out.extend_from_slice(payload);
        out.extend_from_slice(CRLF);
    }
}

/// Runs one exchange the way the shell does. `manners` are those of the connections tried in turn.
fn exchange(random: &mut Random, asked: &Asked, wire: &[u8], manners: &[Manner]) -> Outcome {
    let limits = ClientLimits::default();
    let mut storage = FieldStorage::new();
    let head = parse_request(wire, &mut storage, &limits).unwrap().expect("a whole head");
    let mut state = Exchange::new(&head, false);
    let reply = Reply::to(&head, false);
    let policy = ClientPolicy::default();
    let context = RequestContext {
        client: "192.0.2.1",
        scheme: "http",
        trusted: false,
        policy: &policy,
        request_id: "id",
        client_certificate: None,
        host: None,
        content_type: None,
        granted: &[],
    };
    let mut forwarded = Vec::new();
    encode::request(&head, &Filters::default(), Matched::Prefix(""), &context, &mut forwarded);
    let mut decoder = BodyDecoder::request(head.body);
    let (body, used, whole) = decode_in_pieces(random, &mut decoder, &wire[head.len..]).unwrap();
    assert!(whole && head.len + used == wire.len(), "the request ends where it ends");
    assert_eq!(body, asked.body);
    let framed = head.body == Framing::Chunked;
    lay_out(&body, framed, &mut forwarded);
    if framed {
        forwarded.extend_from_slice(LAST_CHUNK);
        forwarded.extend_from_slice(CRLF);
    }
    for (attempt, manner) in manners.iter().enumerate() {
        let reused = attempt == 0 && random.chance(2);
        let (target, body) = read_forwarded(&forwarded);
        assert_eq!((target, &body), (format!("/{}", asked.id), &asked.body));
        state.request_complete();
        let (bytes, closes) = write_answer(random, *manner, asked.id, asked.method == "HEAD");
        let failed = |state: &mut Exchange, fault: UpstreamFault| {
            state.upstream_failed(fault, reused, attempt + 1 < manners.len())
        };
        let plan = match pass(random, &mut state, head.method, &bytes, closes) {
            Ok(outcome) => return outcome,
            Err((down, fault)) => match failed(&mut state, fault) {
                FailurePlan::CutDownstream => return Outcome { down, close: true, cut: true, passed: false },
                other => (down, other),
            },
        };
        match plan {
            (down, FailurePlan::Retry) => assert!(down.is_empty(), "nothing has reached the client before a retry"),
            (mut down, FailurePlan::Answer { status }) => {
                encode::error(status, reply, &Date::at(0), &mut down);
                return Outcome { down, close: reply.close, cut: false, passed: false };
            }
            (_, FailurePlan::CutDownstream) => unreachable!("returned above"),
        }
    }
    unreachable!("the last attempt is not retried")
}

/// Passes an origin's bytes on; `Err` with what has gone to the client when they break.
fn pass(
    random: &mut Random,
    state: &mut Exchange,
    method: Method,
    bytes: &[u8],
    closes: bool,
) -> Result<Outcome, (Vec<u8>, UpstreamFault)> {
    let limits = ClientLimits::default();
    let mut down = Vec::new();
    let mut at = 0;
    loop {
        let mut storage = FieldStorage::new();
        let parsed = parse_response(&bytes[at..], &mut storage, method, &limits);
        let Ok(parsed) = parsed else { return Err((down, UpstreamFault::BadHead)) };
        let Some(head) = parsed else { return Err((down, UpstreamFault::Eof)) };
        let Ok(plan) = state.response_head(&head) else { return Err((down, UpstreamFault::BadHead)) };
        at += head.len;
        match plan {
            HeadPlan::Interim { forward } => {
                if forward {
                    encode::response(
                        &head,
                        &Filters::default(),
                        encode::Added::default(),
                        &plan,
                        &Date::at(0),
                        &mut down,
                    );
                }
            }
            HeadPlan::Tunnel => unreachable!("nobody asks for an upgrade here"),
            HeadPlan::Final { .. } => {
                encode::response(&head, &Filters::default(), encode::Added::default(), &plan, &Date::at(0), &mut down);
                let mut decoder = BodyDecoder::response(head.body);
                let decoded = decode_in_pieces(random, &mut decoder, &bytes[at..]);
                let Ok((payload, used, mut whole)) = decoded else { return Err((down, UpstreamFault::BadBody)) };
                lay_out(&payload, plan.is_chunked(), &mut down);
                if !whole {
                    assert!(closes, "an origin that does not close sends whole answers");
                    whole = decoder.end_of_stream().is_ok();
                }
                if !whole {
                    return Err((down, UpstreamFault::Eof));
                }
                if plan.is_chunked() {
                    down.extend_from_slice(LAST_CHUNK);
                    down.extend_from_slice(CRLF);
                }
                state.response_complete();
                let finish = state.finish();
                if finish.upstream == After::Reuse {
                    assert_eq!(at + used, bytes.len(), "an endpoint's connection is kept at a message boundary only");
                    assert!(!matches!(head.body, ringway_core::http1::response::Framing::UntilClose));
                }
                return Ok(Outcome { down, close: finish.downstream == After::Close, cut: false, passed: true });
            }
        }
    }
}

fn manner(random: &mut Random) -> Manner {
    [
        Manner::Length,
        Manner::Length,
        Manner::Length,
        Manner::Chunked,
        Manner::Chunked,
        Manner::UntilClose,
        Manner::NoContent,
        Manner::Cut,
        Manner::Silent,
        Manner::Garbage,
    ][random.below(10)]
}

/// One client connection with several pipelined requests.
fn run(seed: u64) {
    let mut random = Random(seed);
    let asked: Vec<Asked> = (0..1 + random.below(6)).map(|id| ask(&mut random, id)).collect();
    let mut stream: Vec<u8> = Vec::new();
    let mut ends = Vec::new();
    for one in &asked {
        stream.extend(write_request(&mut random, one));
        ends.push(stream.len());
    }
    let mut down = Vec::new();
    let mut results = Vec::new();
    let mut from = 0;
    let mut ended = false;
    for (one, end) in asked.iter().zip(&ends) {
        // The proxy sees the whole pipeline and has to find the boundaries itself.
        let mut storage = FieldStorage::new();
        let head = parse_request(&stream[from..], &mut storage, &ClientLimits::default()).unwrap().unwrap();
        let mut decoder = BodyDecoder::request(head.body);
        let (_, used, whole) = decode_in_pieces(&mut random, &mut decoder, &stream[from + head.len..]).unwrap();
        assert!(whole && from + head.len + used == *end, "request {} ends in the wrong place", one.id);
        let manners: Vec<Manner> = (0..1 + random.below(3)).map(|_| manner(&mut random)).collect();
        let outcome = exchange(&mut random, one, &stream[from..*end], &manners);
        down.extend_from_slice(&outcome.down);
        results.push((one.clone(), outcome.passed, outcome.cut));
        from = *end;
        if outcome.close {
            ended = true;
            break;
        }
    }
    let mut at = 0;
    for (one, passed, cut) in &results {
        let last = one.id + 1 == results.len();
        let read = loop {
            // A cut shows as a reset: the client does not take the end for an end.
            match read_answer(&down[at..], one.method == "HEAD", ended && last && !cut) {
                Some(read) if read.status < 200 => {
                    assert!(!one.old, "interim answers are not for HTTP/1.0");
                    at += read.used;
                }
                other => break other,
            }
        };
        match read {
            None => assert!(*cut && last, "answer {} is cut though nothing was", one.id),
            Some(read) => {
                at += read.used;
                assert_eq!(read.id.is_some(), *passed || *cut, "{:?}", read.status);
                if *passed {
                    assert_eq!(read.id, Some(one.id), "an answer of another request");
                    if one.method != "HEAD" && read.status != 204 {
                        assert_eq!(read.body, answer_body(one.id, read.announced.unwrap()));
                    }
                } else if *cut {
                    panic!("answer {} was cut and looks whole", one.id);
                } else {
                    assert!(matches!(read.status, 502..=504), "{}", read.status);
                }
            }
        }
    }
    assert!(at == down.len() || results.last().unwrap().2, "bytes behind the last answer");
}

#[test]
fn exchanges_keep_their_promises() {
    if let Ok(seed) = std::env::var("RINGWAY_SIM_SEED") {
        return run(u64::from_str_radix(seed.trim_start_matches("0x"), 16).unwrap());
    }
    for seed in 0..20_000 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed:#x}: RINGWAY_SIM_SEED={seed:#x} replays it");
    }
}
