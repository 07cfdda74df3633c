//! Any bytes at a connection of HTTP/2: what the fuzz target `http2_connection` and the test `http2_frames` of the core
//! share.

use ringway_core::http2::frame::PREFACE;
use ringway_core::http2::{Connection, End, Event, Key, Limits, Outbound, Role, Spares};

struct Block(Vec<u8>);

impl Outbound for Block {
    fn room(&self) -> usize {
        (1_usize << 20).saturating_sub(self.0.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.0.extend_from_slice(bytes);
    }
}

/// How a connection ends that gets the bytes in pieces of a size, if it does, how many streams it has had, and what it
/// writes. Nothing is read of bodies: what waits is bounded by windows.
pub(crate) fn run(role: Role, bytes: &[u8], piece: usize) -> (Option<End>, usize, Vec<u8>) {
    let mut out = Block(Vec::new());
    let mut spares = Spares::default();
    let limits = Limits { streams: 8, header_list: 1000, stream_window: 65_535, window: 70_000, provoked_resets: 8 };
    let mut connection = Connection::<Vec<u8>, ()>::new(role, limits, &mut out);
    let mut keys: Vec<Key> = Vec::new();
    if role == Role::Client {
        for _ in 0..4 {
            let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            keys.extend(connection.request(head, b"http", true, &mut spares, &mut out));
        }
    } else {
        connection.receive(PREFACE, 0, &mut spares, &mut out);
    }
    let mut requests = Vec::new();
    for piece in bytes.chunks(piece) {
        connection.receive(piece, 0, &mut spares, &mut out);
    }
    while let Some(event) = connection.next_event() {
        if let Event::Request(key) = event {
            requests.push(key);
        }
    }
    for key in requests {
        if let Some((fields, _)) = connection.take_request(key, &mut spares) {
            assert!(fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 1000);
            spares.put_fields(fields);
            keys.push(key);
        }
    }
    let (end, streams) = (connection.end(), keys.len());
    let mut waits = 0;
    for key in &keys {
        waits += connection.data(*key).len();
        if let Some(fields) = connection.take_head(*key) {
            let mut head = Vec::new();
            fields.write_lines(&mut head);
            assert!(head.starts_with(b"HTTP/1.1 ") && head.ends_with(b"\r\n\r\n"));
        }
        let _answered = connection.respond(*key, b"HTTP/1.1 200 OK\r\na: b\r\n\r\n", false, &mut out);
        if let Ok(sent) = connection.send(*key, b"hello", true, &mut out)
            && sent < 5
        {
            connection.park(*key, b"hello".to_vec(), sent, true);
        }
    }
    assert!(waits <= 70_000, "{waits} bytes wait");
    connection.pump(&mut out);
    for key in keys {
        connection.let_go(key, &mut spares, &mut out);
    }
    assert_eq!(connection.open_streams(), 0);
    (end, streams, out.0)
}
