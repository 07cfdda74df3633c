//! Conversations of HTTP/2 cut at every byte, and what a peer may not send.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "../../../tests/fuzz/harness/http2_connection.rs"]
mod harness;
mod random;

use ringway_core::http2::flood::Flood;
use ringway_core::http2::frame::{Code, FrameHeader, HEADER, PREFACE};
use ringway_core::http2::hpack::{Decoder, Encoder};
use ringway_core::http2::{Connection, End, Event, Incoming, Key, Limits, Outbound, Reset, Role, Spares};

use self::random::Random;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    capacity: usize,
}

impl Outbound for Block {
    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.bytes.extend_from_slice(bytes);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = FrameHeader { length: payload.len(), kind, flags, stream }.bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    encoder.set_limit(0);
    encoder.begin(&mut out);
    // The update is allowed at the start of a block only, where it stands.
    fields.iter().for_each(|(name, value)| encoder.field(name.as_bytes(), value.as_bytes(), &mut out));
    out
}

fn get() -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")])
}

fn post(length: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", "/up"), ("host", "a"), ("content-length", length)])
}

/// One end, and what it has been told.
struct Peer {
    connection: Connection<Vec<u8>, ()>,
    out: Block,
    spares: Spares,
    log: Vec<String>,
    keys: Vec<Key>,
}

fn server() -> Peer {
    start(Role::Server)
}

fn start(role: Role) -> Peer {
    let mut out = Block { bytes: Vec::new(), capacity: 1 << 20 };
    let limits = Limits { streams: 4, header_list: 2000, stream_window: 65_535, window: 65_535, provoked_resets: 3 };
    let connection = Connection::new(role, limits, &mut out);
    Peer { connection, out, spares: Spares::default(), log: Vec::new(), keys: Vec::new() }
}

fn opened() -> Peer {
    let mut server = server();
    server.receive(PREFACE);
    server.receive(&frame(SETTINGS, 0, 0, &[]));
    server.out.bytes.clear();
    server
}

impl Peer {
    fn receive(&mut self, bytes: &[u8]) {
        let taken = self.connection.receive(bytes, 0, &mut self.spares, &mut self.out);
        assert_eq!(taken, bytes.len());
        while let Some(event) = self.connection.next_event() {
            match event {
                Event::Request(key) => {
                    let Some((fields, _ended)) = self.connection.take_request(key, &mut self.spares) else { continue };
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let fields: Vec<_> = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
                    self.log.push(format!("{}: request {fields:?}", key.id()));
                    self.keys.push(key);
                    self.look(key);
                }
                Event::Stream(key) => self.look(key),
            }
        }
        if let Some(end) = self.connection.end() {
            let end = format!("end {end:?}");
            if self.log.last() != Some(&end) {
                self.log.push(end);
            }
        }
    }

    /// Takes what has come, and puts pieces of one body together.
    fn look(&mut self, key: Key) {
        loop {
            let id = key.id();
            match self.connection.incoming(key) {
                Incoming::Nothing => return,
                Incoming::Head => {
                    let mut head = Vec::new();
                    self.connection.take_head(key).unwrap().write_lines(&mut head);
                    self.log.push(format!("{id}: {:?}", String::from_utf8(head).unwrap()));
                }
                Incoming::Data => {
                    let data = String::from_utf8(self.connection.data(key).to_vec()).unwrap();
                    self.connection.consume(key, data.len());
                    self.connection.release(key, data.len(), &mut self.out);
                    let of_stream = |line: &&mut String| line.starts_with(&format!("{id}: "));
                    match self.log.iter_mut().rev().find(of_stream) {
                        Some(last) if last.starts_with(&format!("{id}: data ")) => last.push_str(&data),
                        _ => self.log.push(format!("{id}: data {data}")),
                    }
                }
                Incoming::End => {
                    let trailers = self.connection.take_trailers(key);
                    let end = format!("{id}: end {:?}", String::from_utf8(trailers).unwrap());
                    if !self.log.iter().any(|line| line.starts_with(&format!("{id}: end"))) {
                        self.log.push(end);
                    }
                    return;
                }
                Incoming::Reset(reset) => {
                    let line = format!("{id}: {reset:?}");
                    if !self.log.contains(&line) {
                        self.log.push(line);
                    }
                    return;
                }
            }
        }
    }

    /// Frames that have been written.
    fn told(&mut self) -> Vec<(u8, u32, Vec<u8>)> {
        let bytes = std::mem::take(&mut self.out.bytes);
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let header = FrameHeader::parse(header);
            frames.push((header.kind, header.stream, rest[HEADER..HEADER + header.length].to_vec()));
            rest = &rest[HEADER + header.length..];
        }
        frames
    }

    fn resets(&mut self) -> Vec<(u32, u32)> {
        let code = |payload: &[u8]| u32::from_be_bytes(payload.try_into().unwrap());
        let frames = self.told().into_iter();
        frames.filter(|(kind, ..)| *kind == RST_STREAM).map(|(_, id, payload)| (id, code(&payload))).collect()
    }
}

/// What a client says, valid, with everything that may be cut.
fn conversation() -> Vec<u8> {
    let (head, tail) = (get(), block(&[("x-end", "1")]));
    let (first, rest) = head.split_at(5);
    let (second, third) = rest.split_at(4);
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 100]),
        frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes()),
        frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 7]),
        frame(HEADERS, END_STREAM, 1, first),
        frame(CONTINUATION, 0, 1, second),
        frame(CONTINUATION, END_HEADERS, 1, third),
        frame(
            HEADERS,
            END_HEADERS | PADDED | WITH_PRIORITY,
            3,
            &[&[3, 0, 0, 0, 1, 5][..], &post("11"), b"pad"].concat(),
        ),
        frame(DATA, 0, 3, b"hello"),
        frame(PING, 0, 0, b"12345678"),
        frame(DATA, PADDED, 3, b"\x04 worldpadd"),
        frame(0x77, 0xff, 3, b"unknown"),
        frame(DATA, PADDED, 3, b"\0"),
        frame(HEADERS, END_STREAM | END_HEADERS, 3, &tail),
        frame(HEADERS, END_HEADERS, 5, &post("7")),
        frame(DATA, 0, 5, b"cut"),
        frame(WINDOW_UPDATE, 0, 5, &5_u32.to_be_bytes()),
        frame(RST_STREAM, 0, 5, &8_u32.to_be_bytes()),
        frame(SETTINGS, 1, 0, &[]),
        frame(GOAWAY, 0, 0, &[0; 12]),
    ]
    .concat()
}

#[test]
fn a_conversation_cut_at_every_byte_says_the_same() {
    let bytes = conversation();
    let mut whole = server();
    whole.receive(&bytes);
    let told = whole.told();
    assert_eq!(
        whole.log,
        [
            "1: request []",
            "1: end \"\"",
            "3: request [(\"host\", \"a\"), (\"content-length\", \"11\")]",
            "3: data hello world",
            "3: end \"x-end: 1\\r\\n\"",
            // Taken back before it was looked at.
        ]
    );
    for cut in 1..bytes.len() {
        let mut server = server();
        server.receive(&bytes[..cut]);
        server.receive(&bytes[cut..]);
        let mut log = server.log.clone();
        // What came of the fifth stream before it was taken back is seen where it ended a piece.
        log.retain(|line| !line.starts_with("5: "));
        assert_eq!(log, whole.log, "cut at {cut}");
        assert_eq!(server.told(), told, "cut at {cut}");
    }
    let mut server = server();
    bytes.iter().for_each(|byte| server.receive(&[*byte]));
    server.log.retain(|line| !line.starts_with("5: "));
    assert_eq!(server.log, whole.log);
    assert_eq!(server.told(), told);
}

#[test]
fn an_answer_cut_at_every_byte_says_the_same() {
    let bytes = [
        frame(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1]),
        frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103"), ("link", "x")])),
        frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200"), ("content-length", "5")])),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&[(":status", "204")])),
        frame(DATA, 0, 1, b"hel"),
        frame(DATA, PADDED, 1, b"\x02lo--"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("grpc-status", "0")])),
        frame(RST_STREAM, 0, 5, &7_u32.to_be_bytes()),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]),
    ]
    .concat();
    let start = || {
        let mut client = start(Role::Client);
        for _ in 0..4 {
            let Peer { connection, spares, out, keys, .. } = &mut client;
            let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            keys.push(connection.request(head, b"http", true, spares, out).unwrap());
        }
        client
    };
    let expected = [
        "1: \"HTTP/1.1 103 Early Hints\\r\\nlink: x\\r\\n\\r\\n\"",
        "1: \"HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n\\r\\n\"",
        "1: data hello",
        "1: end \"grpc-status: 0\\r\\n\"",
        "3: \"HTTP/1.1 204 No Content\\r\\n\\r\\n\"",
        "3: end \"\"",
        "5: Remote(Code(7))",
        "7: GoneAway",
        "end Done",
    ];
    for cut in 0..bytes.len() {
        let mut client = start();
        client.receive(&bytes[..cut]);
        client.receive(&bytes[cut..]);
        // Streams have no order among them.
        client.log.sort_by_key(|line| line.split(':').next().map(str::to_owned));
        assert_eq!(client.log, expected, "cut at {cut}");
        assert!(client.connection.takes_connect());
    }
}

#[test]
fn a_head_that_does_not_decode_leaves_nothing() {
    let mut client = start(Role::Client);
    let Peer { connection, spares, out, .. } = &mut client;
    let key = connection.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"http", true, spares, out).unwrap();
    let mut head = block(&[(":status", "200"), ("a", "b")]);
    head.push(0x80);
    let bytes = [frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &head)].concat();
    connection.receive(&bytes, 0, spares, out);
    assert_eq!(connection.end(), Some(End::Protocol(Code::COMPRESSION_ERROR)));
    assert_eq!(connection.incoming(key), Incoming::Reset(Reset::Connection));
}

fn broken(frames: &[Vec<u8>]) -> Option<End> {
    let mut server = opened();
    server.receive(&frames.concat());
    let end = server.connection.end();
    if let Some(End::Protocol(code)) = end {
        let goaway = server.told().into_iter().find(|(kind, ..)| *kind == GOAWAY).unwrap();
        assert_eq!(goaway.2[4..], code.0.to_be_bytes());
    }
    end
}

#[test]
fn what_breaks_a_connection() {
    let open = || frame(HEADERS, END_HEADERS, 1, &post("100"));
    let cases: Vec<(&str, Vec<Vec<u8>>, Code)> = vec![
        ("DATA of the connection", vec![frame(DATA, 0, 0, b"x")], Code::PROTOCOL_ERROR),
        ("DATA of an idle stream", vec![frame(DATA, 0, 1, b"x")], Code::PROTOCOL_ERROR),
        ("padding beyond the frame", vec![open(), frame(DATA, PADDED, 1, b"\x05abcd")], Code::PROTOCOL_ERROR),
        ("no padding length", vec![open(), frame(DATA, PADDED, 1, b"")], Code::FRAME_SIZE_ERROR),
        ("HEADERS of the connection", vec![frame(HEADERS, END_HEADERS, 0, &get())], Code::PROTOCOL_ERROR),
        ("a stream of the server's", vec![frame(HEADERS, END_HEADERS, 2, &get())], Code::PROTOCOL_ERROR),
        (
            "a lower stream",
            vec![frame(HEADERS, END_HEADERS, 5, &get()), frame(HEADERS, END_HEADERS, 3, &get())],
            Code::PROTOCOL_ERROR,
        ),
        ("no HPACK", vec![frame(HEADERS, END_HEADERS, 1, &[0x80])], Code::COMPRESSION_ERROR),
        ("PRIORITY of the connection", vec![frame(PRIORITY, 0, 0, &[0; 5])], Code::PROTOCOL_ERROR),
        ("PRIORITY on itself", vec![frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 0])], Code::PROTOCOL_ERROR),
        ("PRIORITY of another size", vec![frame(PRIORITY, 0, 3, &[0; 4])], Code::FRAME_SIZE_ERROR),
        ("RST_STREAM of the connection", vec![frame(RST_STREAM, 0, 0, &[0; 4])], Code::PROTOCOL_ERROR),
        ("RST_STREAM of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], Code::PROTOCOL_ERROR),
        ("RST_STREAM of another size", vec![open(), frame(RST_STREAM, 0, 1, &[0; 3])], Code::FRAME_SIZE_ERROR),
        ("SETTINGS of a stream", vec![frame(SETTINGS, 0, 1, &[])], Code::PROTOCOL_ERROR),
        ("SETTINGS of another size", vec![frame(SETTINGS, 0, 0, &[0; 5])], Code::FRAME_SIZE_ERROR),
        ("an ACK that says something", vec![frame(SETTINGS, 1, 0, &[0; 6])], Code::FRAME_SIZE_ERROR),
        ("a window too large", vec![frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], Code::FLOW_CONTROL_ERROR),
        ("PUSH_PROMISE", vec![open(), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])], Code::PROTOCOL_ERROR),
        ("PING of a stream", vec![frame(PING, 0, 1, &[0; 8])], Code::PROTOCOL_ERROR),
        ("PING of another size", vec![frame(PING, 0, 0, &[0; 7])], Code::FRAME_SIZE_ERROR),
        ("GOAWAY of a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Code::PROTOCOL_ERROR),
        ("GOAWAY too short", vec![frame(GOAWAY, 0, 0, &[0; 7])], Code::FRAME_SIZE_ERROR),
        ("no credit for the connection", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], Code::PROTOCOL_ERROR),
        ("too much credit", vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])], Code::FLOW_CONTROL_ERROR),
        ("credit for an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], Code::PROTOCOL_ERROR),
        ("credit of another size", vec![frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])], Code::FRAME_SIZE_ERROR),
        ("CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, &get())], Code::PROTOCOL_ERROR),
        (
            "a frame within a block",
            vec![frame(HEADERS, 0, 1, &get()), frame(PING, 0, 0, &[0; 8])],
            Code::PROTOCOL_ERROR,
        ),
        (
            "CONTINUATION of another stream",
            vec![frame(HEADERS, 0, 1, &get()), frame(CONTINUATION, END_HEADERS, 3, &[])],
            Code::PROTOCOL_ERROR,
        ),
        ("a frame too large", vec![open(), frame(DATA, 0, 1, &[0; 16_385])], Code::FRAME_SIZE_ERROR),
    ];
    for (what, frames, code) in cases {
        assert_eq!(broken(&frames), Some(End::Protocol(code)), "{what}");
    }
    let mut server = server();
    server.receive(b"PRI * HTTP/2.0\r\n\r\nXX");
    assert_eq!(server.connection.end(), Some(End::Protocol(Code::PROTOCOL_ERROR)));
    let mut server = self::server();
    server.receive(PREFACE);
    server.receive(&frame(PING, 0, 0, &[0; 8]));
    assert_eq!(server.connection.end(), Some(End::Protocol(Code::PROTOCOL_ERROR)), "SETTINGS come first");
}

#[test]
fn what_is_an_error_of_its_stream() {
    let open = || frame(HEADERS, END_HEADERS, 1, &post("100"));
    let done = || frame(HEADERS, END_HEADERS | END_STREAM, 1, &get());
    let cases: Vec<(&str, Vec<Vec<u8>>, Code)> = vec![
        ("HEADERS behind the end", vec![done(), done()], Code::STREAM_CLOSED),
        ("DATA behind the end", vec![done(), frame(DATA, 0, 1, b"x")], Code::STREAM_CLOSED),
        ("no credit", vec![open(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])], Code::PROTOCOL_ERROR),
        ("too much credit", vec![open(), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])], Code::FLOW_CONTROL_ERROR),
        ("a body too long", vec![open(), frame(DATA, 0, 1, &[0; 101])], Code::PROTOCOL_ERROR),
        ("a body too short", vec![open(), frame(DATA, END_STREAM, 1, &[0; 99])], Code::PROTOCOL_ERROR),
        (
            "trailers before their time",
            vec![open(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &[])],
            Code::PROTOCOL_ERROR,
        ),
        ("trailers that are not the end", vec![open(), frame(HEADERS, END_HEADERS, 1, &[])], Code::PROTOCOL_ERROR),
        (
            "on itself",
            vec![frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 0][..], &get()].concat())],
            Code::PROTOCOL_ERROR,
        ),
        ("no method", vec![frame(HEADERS, END_HEADERS, 1, &block(&[(":path", "/")]))], Code::PROTOCOL_ERROR),
    ];
    for (what, frames, code) in cases {
        let mut server = opened();
        server.receive(&frames.concat());
        assert_eq!(server.resets(), [(1, code.0)], "{what}");
        // And no other's.
        server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get()));
        assert_eq!(server.connection.end(), None, "{what}");
        assert!(server.log.contains(&"3: request []".to_owned()), "{what}");
        // What was under way is no error.
        server.receive(&frame(DATA, END_STREAM, 1, b"late"));
        assert_eq!((server.resets(), server.connection.end()), (vec![], None), "{what}");
    }
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut server = opened();
    for id in [1, 3, 5, 7, 9] {
        server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, id, &get()));
    }
    assert_eq!((server.resets(), server.connection.open_streams()), (vec![(9, Code::REFUSED_STREAM.0)], 4));
    // One that ends makes room.
    let key = server.keys[0];
    server.connection.respond(key, b"HTTP/1.1 200 OK\r\n\r\n", true, &mut server.out).unwrap();
    server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 11, &get()));
    assert_eq!((server.resets(), server.connection.open_streams()), (vec![], 4));
}

#[test]
fn floods_end_the_connection() {
    // Provoked resets: three are allowed.
    let provoked = |count: u32| {
        let mut server = opened();
        for id in (0..count).map(|number| 2 * number + 1) {
            server.receive(&frame(HEADERS, END_HEADERS, id, &block(&[("a", "b")])));
        }
        server.connection.end()
    };
    assert_eq!((provoked(3), provoked(4)), (None, Some(End::Flood(Flood::Provoked))));
    let calm = Some(End::Protocol(Code::ENHANCE_YOUR_CALM));
    let open = || frame(HEADERS, END_HEADERS, 1, &post("100000"));
    // Empty frames, and pieces of a block.
    assert_eq!(broken(&[vec![open()], vec![frame(DATA, 0, 1, b""); 101]].concat()), Some(End::Flood(Flood::Empty)));
    let mut pieces = vec![frame(HEADERS, 0, 1, &get())];
    pieces.extend(vec![frame(CONTINUATION, 0, 1, b""); 17]);
    assert_eq!(broken(&pieces), calm);
    // A block of many references.
    let mut bomb = get();
    bomb.extend(vec![0x82; 8000]);
    assert_eq!(broken(&[frame(HEADERS, END_HEADERS, 1, &bomb)]), calm);
    // What is seen by the guard has a name.
    assert_eq!(broken(&vec![frame(PING, 0, 0, &[0; 8]); 1001]), Some(End::Flood(Flood::Ping)));
    // Small frames that nobody reads, and the same that somebody does.
    let mut server = opened();
    server.receive(&open());
    let drib = frame(DATA, 0, 1, b"x");
    server.receive(&drib.repeat(6000));
    assert_eq!(server.connection.end(), None);
    server.receive(&drib.repeat(6000));
    assert_eq!(server.connection.end(), None, "what has been read costs nothing any more");
    server.receive(&drib.repeat(6300));
    assert_eq!(server.connection.end(), calm);
}

#[test]
fn large_heads_are_answered() {
    let mut server = opened();
    let large = "x".repeat(2000);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("x", large.as_str())];
    server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)));
    let told = server.told();
    let [(HEADERS, 1, block)] = &told[..] else { panic!("{told:?}") };
    let mut status = Vec::new();
    Decoder::new(4096).decode(block, |_, value| status.extend_from_slice(value)).unwrap();
    assert_eq!(status, b"431");
    assert_eq!(server.connection.open_streams(), 0);
}

/// A peer that does not read the answers to what it sends is not read either.
#[test]
fn replies_are_bounded() {
    let mut server = opened();
    server.out.capacity = 100;
    let pings = frame(PING, 0, 0, b"12345678").repeat(999);
    // The rest is over the flood's allowance; time wins it back.
    let mut step = 0;
    let mut taken = 0;
    for _ in 0..10 {
        step += 1000;
        let Peer { connection, spares, out, .. } = &mut server;
        taken += connection.receive(&pings, step, spares, out);
    }
    assert!(server.connection.is_stuffed() && taken < 40_000, "{taken} bytes taken");
    assert_eq!(server.connection.end(), None);
    server.out.bytes.clear();
    server.out.capacity = 1 << 20;
    server.connection.pump(&mut server.out);
    assert!(!server.connection.is_stuffed() && server.connection.is_flushed());
    assert!(server.told().iter().all(|(kind, _, payload)| *kind == PING && payload == b"12345678"));
}

/// Streams take turns, a frame each, and one without a window keeps nobody waiting.
#[test]
fn streams_take_turns() {
    let mut server = opened();
    server.receive(&frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    for id in [1, 3, 5] {
        server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, id, &get()));
    }
    let Peer { connection, out, keys, .. } = &mut server;
    out.capacity = 300;
    for key in keys.iter() {
        connection.respond(*key, b"HTTP/1.1 200 OK\r\n\r\n", false, out).unwrap();
        let body = vec![b'x'; 40_000];
        let sent = connection.send(*key, &body, true, out).unwrap();
        assert_eq!(sent, 0, "no room");
        connection.park(*key, body, sent, true);
    }
    out.bytes.clear();
    out.capacity = 1 << 20;
    connection.pump(out);
    let order: Vec<(u32, usize)> =
        server.told().iter().filter(|(kind, ..)| *kind == DATA).map(|(_, id, payload)| (*id, payload.len())).collect();
    let round = |length: usize| [1, 3, 5].map(|id| (id, length));
    assert_eq!(order, [round(16_384), round(16_384), round(7232)].concat());
    assert_eq!(server.connection.open_streams(), 0);
}

#[test]
fn a_goodbye_is_said_twice() {
    let mut server = opened();
    server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get()));
    server.connection.go_away(&mut server.out);
    let told = server.told();
    let [(GOAWAY, 0, goaway), (PING, 0, ping)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(goaway[..], [0x7f, 255, 255, 255, 0, 0, 0, 0]);
    // What was under way is served.
    server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get()));
    server.receive(&frame(PING, 1, 0, ping));
    let told = server.told();
    let [(GOAWAY, 0, goaway)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(goaway[..], [0, 0, 0, 3, 0, 0, 0, 0]);
    // What comes later is not looked at.
    server.receive(&frame(HEADERS, END_HEADERS, 5, &get()));
    server.receive(&frame(DATA, END_STREAM, 5, b"x"));
    assert_eq!((server.keys.len(), server.told()), (2, vec![]));
    for key in server.keys.clone() {
        assert_eq!(server.connection.end(), None);
        server.connection.respond(key, b"HTTP/1.1 200 OK\r\n\r\n", true, &mut server.out).unwrap();
    }
    assert_eq!(server.connection.end(), Some(End::Done));
}

/// An answer that is whole before its request is: the rest is not wanted (RFC 9113 section 8.1).
#[test]
fn what_nobody_holds_is_reset() {
    let mut server = opened();
    for id in [1, 3] {
        server.receive(&frame(HEADERS, END_HEADERS, id, &post("100")));
    }
    let Peer { connection, out, spares, keys, .. } = &mut server;
    connection.respond(keys[0], b"HTTP/1.1 413 Too Large\r\n\r\n", true, out).unwrap();
    for key in &*keys {
        connection.let_go(*key, spares, out);
    }
    assert_eq!(connection.open_streams(), 0);
    assert!(keys.iter().all(|key| connection.reset_by(*key) == Some(Reset::Connection)), "forgotten");
    assert_eq!(server.resets(), [(1, Code::NO_ERROR.0), (3, Code::CANCEL.0)]);
}

/// Frames of all kinds, most of them well formed, and then a byte or two that are others.
fn storm(random: &mut Random, role: Role) -> Vec<u8> {
    let mut bytes = frame(SETTINGS, 0, 0, &[]);
    let answer = || block(&[(":status", "200")]);
    for _ in 0..random.below(40) {
        let id = u32::try_from(1 + 2 * random.below(8)).unwrap();
        let flags = [0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS][random.below(4)];
        let data = vec![b'x'; random.below(300)];
        bytes.extend(match random.below(14) {
            0..=3 if role == Role::Client => frame(HEADERS, flags | END_HEADERS, id, &answer()),
            0..=2 => frame(HEADERS, flags | END_HEADERS, id, &get()),
            3 => frame(HEADERS, flags, id, &post("300")),
            4 | 5 => frame(DATA, flags & END_STREAM, id, &data),
            6 => frame(DATA, flags & END_STREAM | PADDED, id, &[&[5][..], &data, &[0; 5]].concat()),
            7 => frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()),
            8 => frame(WINDOW_UPDATE, 0, id - u32::from(random.below(2) == 0), &100_u32.to_be_bytes()),
            9 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, u8::try_from(random.below(256)).unwrap(), 0]),
            10 => frame(PING, 0, 0, b"12345678"),
            11 => frame(HEADERS, END_STREAM | END_HEADERS, id, &block(&[("x-end", "1")])),
            12 if random.below(8) == 0 => frame(GOAWAY, 0, 0, &[0; 8]),
            12 => frame(PRIORITY, 0, id, &[0, 0, 0, 20, 1]),
            _ => frame(CONTINUATION, flags, id, &[]),
        });
    }
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

#[test]
fn any_frames_say_the_same_however_they_come() {
    let (mut ended, mut streams) = (0, 0);
    for seed in 1..=3000 {
        let mut random = Random(seed);
        for role in [Role::Server, Role::Client] {
            let bytes = storm(&mut random, role);
            let whole = harness::run(role, &bytes, usize::MAX);
            let piece = 1 + random.below(40);
            assert_eq!(harness::run(role, &bytes, piece), whole, "seed {seed:#x}, {role:?}, pieces of {piece}");
            ended += usize::from(whole.0.is_some());
            streams += whole.1;
        }
    }
    assert!((1000..5900).contains(&ended) && streams > 6000, "{ended} ended, {streams} streams");
}

/// Answers without a body end their streams, so only room holds their heads: a client that does not read is not read on.
#[test]
fn heads_that_are_not_read_are_bounded() {
    let mut server = opened();
    let long = format!("HTTP/1.1 307 x\r\nlocation: /{}\r\n\r\n", "a".repeat(4000));
    let mut asked = 0_u32;
    for id in (1..4001).step_by(2) {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, id, &get());
        server.out.capacity = server.out.bytes.len();
        let taken = server.connection.receive(&request, 0, &mut server.spares, &mut server.out);
        if taken < request.len() {
            break;
        }
        asked += 1;
        while let Some(event) = server.connection.next_event() {
            let Event::Request(key) = event else { continue };
            server.connection.take_request(key, &mut server.spares).unwrap();
            server.connection.respond(key, long.as_bytes(), true, &mut server.out).unwrap();
            server.connection.let_go(key, &mut server.spares, &mut server.out);
        }
    }
    assert!((10..=300).contains(&asked), "{asked} answers wait");
    assert!(server.connection.is_stuffed());
    // It goes on when they have been read.
    server.out.capacity = 8 << 20;
    server.connection.pump(&mut server.out);
    assert!(!server.connection.is_stuffed() && server.connection.end().is_none());
}

/// Streams that were reset are held until their requests have been given up, and no more of them than twice the limit.
#[test]
fn streams_that_were_reset_are_bounded() {
    let mut server = opened();
    let refused = [0, 0, 4, 3, 0];
    for id in (1..41).step_by(2) {
        server.receive(&frame(HEADERS, END_HEADERS, id, &post("5")));
        server.receive(&frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    assert_eq!(server.keys.len(), 8, "of four that may be open");
    assert!(server.out.bytes.windows(5).any(|bytes| bytes == refused), "the others are refused");
    assert_eq!(server.connection.end(), None);
}

/// What comes on streams that are over: an error where the peer knew that, and forgiven where it need not have, however
/// many streams there have been since.
#[test]
fn frames_on_streams_that_are_over() {
    let begun = || {
        let mut server = opened();
        for id in [1, 3, 5] {
            server.receive(&frame(HEADERS, END_HEADERS, id, &post("100")));
        }
        // The first is whole, the second reset here, and the third there.
        server.receive(&frame(DATA, END_STREAM, 1, &[b'x'; 100]));
        server.receive(&frame(RST_STREAM, 0, 5, &8_u32.to_be_bytes()));
        let Peer { connection, out, spares, keys, .. } = &mut server;
        connection.respond(keys[0], b"HTTP/1.1 200 OK\r\n\r\n", true, out).unwrap();
        connection.reset(keys[1], Code::CANCEL, out);
        keys.drain(..).for_each(|key| {
            connection.let_go(key, spares, out);
        });
        server
    };
    let trailers = |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &block(&[("x-end", "1")]));
    for late in [0, 1000] {
        let after = || {
            let mut server = begun();
            for id in (7..).step_by(2).take(late) {
                server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, id, &get()));
                let Peer { connection, out, spares, keys, .. } = &mut server;
                let key = keys.pop().unwrap();
                connection.respond(key, b"HTTP/1.1 200 OK\r\n\r\n", true, out).unwrap();
                connection.let_go(key, spares, out);
            }
            server.told();
            server
        };
        let mut server = after();
        for _ in 0..3 {
            server.receive(&[frame(DATA, 0, 3, b"late"), frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1])].concat());
        }
        server.receive(&[trailers(3), frame(RST_STREAM, 0, 3, &[0; 4])].concat());
        assert_eq!((server.resets(), server.connection.end()), (vec![], None), "{late} later");
        // Fields of the block that was thrown away have been learnt.
        server.receive(&frame(DATA, 0, 3, &[0; 16_384]));
        let credit = server.told().iter().any(|(kind, id, _)| (*kind, *id) == (WINDOW_UPDATE, 0));
        server.receive(&frame(DATA, 0, 3, &[0; 16_384]));
        let credit = credit || server.told().iter().any(|(kind, id, _)| (*kind, *id) == (WINDOW_UPDATE, 0));
        assert!(credit, "what is thrown away is given back");
        if late > 0 {
            continue;
        }
        for id in [1, 5] {
            let mut server = after();
            server.receive(&frame(DATA, 0, id, b"x"));
            assert_eq!((server.resets(), server.connection.end()), (vec![(id, Code::STREAM_CLOSED.0)], None));
            let mut server = after();
            server.receive(&trailers(id));
            assert_eq!(server.connection.end(), Some(End::Protocol(Code::STREAM_CLOSED)));
        }
    }
    // One that was passed over has never been open.
    let mut server = begun();
    server.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 21, &get()));
    server.receive(&trailers(9));
    assert_eq!(server.connection.end(), Some(End::Protocol(Code::PROTOCOL_ERROR)));
    // It is no way to keep a core busy either.
    let flooded = |bytes: &[u8]| {
        let mut server = begun();
        (0..30_000).for_each(|_| server.receive(bytes));
        server.connection.end()
    };
    assert_eq!(flooded(&frame(DATA, 0, 3, b"x")), Some(End::Flood(Flood::Late)));
    assert_eq!(flooded(&trailers(3)), Some(End::Flood(Flood::Late)));
}

/// A day of a connection, a request every second: now and then one is malformed, has a body that is too long, or comes with
/// an empty frame. A flood is a matter of rate.
#[test]
fn a_long_life_is_no_flood() {
    let mut server = opened();
    let mut id = 1;
    for second in 0..86_400 {
        let step = 20 * second;
        let mut say = |bytes: &[u8]| {
            let Peer { connection, spares, out, .. } = &mut server;
            out.bytes.clear();
            connection.receive(bytes, step, spares, out);
            while let Some(event) = connection.next_event() {
                let Event::Request(key) = event else { continue };
                if let Some((fields, _)) = connection.take_request(key, spares) {
                    spares.put_fields(fields);
                    connection.let_go(key, spares, out);
                }
            }
            assert_eq!(connection.end(), None, "second {second}");
        };
        match second % 4 {
            0 => say(&frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&[("a", "b")]))),
            1 => {
                say(&frame(HEADERS, END_HEADERS, id, &post("1")));
                say(&frame(DATA, 0, id, b""));
                say(&frame(DATA, END_STREAM, id, b"xyz"));
            }
            2 => {
                say(&frame(HEADERS, END_HEADERS, id, &post("9")));
                say(&frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
            }
            // Nothing but empty frames on one that is over.
            _ => (0..9).for_each(|_| say(&frame(DATA, 0, 3, b""))),
        }
        id += if second % 4 == 3 { 0 } else { 2 };
    }
}

/// Bodies that are awaited whole hold up nobody: a connection has its credit back, and once only.
#[test]
fn what_waits_for_more_can_be_lent() {
    let mut server = opened();
    for id in [1, 3, 5] {
        server.receive(&frame(HEADERS, END_HEADERS, id, &post("20000")));
    }
    let credit = |server: &mut Peer| -> u32 {
        let frames = server.told().into_iter().filter(|(kind, id, _)| (*kind, *id) == (WINDOW_UPDATE, 0));
        frames.map(|(.., payload)| u32::from_be_bytes(payload.try_into().unwrap())).sum()
    };
    let mut given = 0;
    let (first, second, third) = (server.keys[0], server.keys[1], server.keys[2]);
    for key in [first, second, third] {
        // Nobody takes it.
        let Peer { connection, spares, out, .. } = &mut server;
        connection.receive(&frame(DATA, 0, key.id(), &[0; 16_384]), 0, spares, out);
        connection.lend(key, out);
        connection.lend(key, out);
        given += credit(&mut server);
    }
    assert!(given >= 32_768, "{given}");
    let Peer { connection, spares, out, .. } = &mut server;
    // One is read, one given up, one ignored.
    connection.consume(first, 16_384);
    connection.release(first, 16_384, out);
    connection.let_go(second, spares, out);
    connection.ignore(third, out);
    // All else is as if nothing had been lent.
    for id in [7, 9, 11, 13] {
        connection.receive(&frame(HEADERS, END_HEADERS, id, &post("20000")), 0, spares, out);
        connection.receive(&frame(DATA, 0, id, &[0; 16_384]), 0, spares, out);
        while let Some(event) = connection.next_event() {
            if let Event::Request(key) = event {
                connection.take_request(key, spares).unwrap();
                connection.let_go(key, spares, out);
            }
        }
    }
    given += credit(&mut server);
    let came = 7 * 16_384;
    assert!(given <= came && given + 32_768 > came, "{given} of {came}");
}
