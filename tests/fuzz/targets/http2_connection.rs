//! Any bytes at a connection of HTTP/2, of either role: it ends or goes on, and says the same however they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_core::http2::{Connection, Event, Incoming, Key, Limits, Outbound, Role, Spares, frame::PREFACE};

struct Block(Vec<u8>);

impl Outbound for Block {
    fn room(&self) -> usize {
        (1 << 20_usize).saturating_sub(self.0.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.0.extend_from_slice(bytes);
    }
}

/// What is written about the bytes, in pieces of a size. Nothing is read of bodies: what waits is bounded by windows.
fn run(role: Role, bytes: &[u8], piece: usize) -> Vec<u8> {
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
    let mut waits = 0;
    for key in &keys {
        waits += connection.data(*key).len();
        if connection.incoming(*key) == Incoming::Head {
            let head = connection.head(*key);
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
    out.0
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let whole = run(role, bytes, usize::MAX);
    assert_eq!(run(role, bytes, 1 + usize::from(first >> 1)), whole);
});
