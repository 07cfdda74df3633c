//! A seeded simulation of connections of HTTP/2: a client and a server, both [`Connection`]s, over pipes that deliver in
//! random pieces, with blocks of any size, readers that stall, windows that run out and change, and streams that are
//! taken back.
//!
//! The invariants: the bytes of a stream arrive in order and whole, unless it was reset; no stream has more waiting than
//! its window; nobody ever sees the other break the protocol; in the end no stream is left, and a connection that is to
//! end does.
//!
//! `RINGWAY_SIM_SEED=0x2a cargo test -p ringway-core --test http2_sim` replays one seed.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod random;

use std::collections::{BTreeMap, VecDeque};

use ringway_core::http2::frame::{Code, DEFAULT_WINDOW, FrameHeader};
use ringway_core::http2::{
    Connection, End, Event, Incoming, Key, Limits, Outbound, PseudoField, Refusal, Reset, Role, Spares,
};

use self::random::Random;

/// A block that frames are written into.
struct Block {
    bytes: Vec<u8>,
    capacity: usize,
}

impl Outbound for Block {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more than there is room for");
        self.bytes.extend_from_slice(bytes);
    }
}

/// A message on its way in one direction.
#[derive(Default)]
struct Message {
    /// Bytes that there will be.
    length: usize,
    trailers: bool,
    begun: bool,
    sent: usize,
    ended: bool,
    read: usize,
    unreleased: usize,
    read_end: bool,
}

/// One end.
struct Side {
    connection: Connection<Vec<u8>, ()>,
    block: Block,
    spares: Spares,
    /// What has left it.
    pipe: VecDeque<u8>,
    /// By stream.
    keys: BTreeMap<u32, Key>,
}

impl Side {
    fn new(role: Role) -> Self {
        let mut block = Block { bytes: Vec::new(), capacity: 1000 };
        let limits =
            Limits { streams: 8, header_list: 8192, stream_window: 65_535, window: 100_000, provoked_resets: 0 };
        let connection = Connection::new(role, limits, &mut block);
        Self { connection, block, spares: Spares::default(), pipe: VecDeque::new(), keys: BTreeMap::new() }
    }

    /// Lets the block leave, for one of another size.
    fn leave(&mut self, random: &mut Random) {
        self.pipe.extend(self.block.bytes.drain(..));
        self.block.capacity = [200, 1500, 20_000, 66 << 10][random.below(4)];
        self.connection.pump(&mut self.block);
    }

    fn is_at_a_boundary(&self) -> bool {
        self.pipe.is_empty() && self.block.bytes.is_empty() && self.connection.is_flushed()
    }
}

fn pattern(id: u32, at: usize) -> u8 {
    u8::try_from((at * 7 + id as usize * 31 + at / 251) % 256).unwrap()
}

struct Sim {
    random: Random,
    client: Side,
    server: Side,
    /// Requests and answers, by stream.
    up: BTreeMap<u32, Message>,
    down: BTreeMap<u32, Message>,
    /// Streams that one side has reset.
    reset: Vec<u32>,
    /// Streams that were opened before the server could say how many there may be.
    early: Vec<u32>,
    finished: usize,
    quiet: bool,
}

fn length(random: &mut Random) -> usize {
    match random.below(6) {
        0 => 0,
        1 | 2 => 1 + random.below(100),
        3 | 4 => random.below(30_000),
        _ => random.below(300_000),
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            client: Side::new(Role::Client),
            server: Side::new(Role::Server),
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            reset: Vec::new(),
            early: Vec::new(),
            finished: 0,
            quiet: false,
        }
    }

    fn open(&mut self) {
        let message = Message {
            length: length(&mut self.random),
            trailers: self.random.chance(4),
            begun: true,
            ..Message::default()
        };
        let end = message.length == 0 && !message.trailers;
        let host = "x".repeat(1 + self.random.below(400));
        let declared =
            if self.random.chance(2) { format!("Content-Length: {}\r\n", message.length) } else { String::new() };
        let head = format!("POST /{} HTTP/1.1\r\nHost: {host}\r\n{declared}\r\n", self.random.below(1000));
        let Side { connection, block, spares, keys, .. } = &mut self.client;
        match connection.request(head.as_bytes(), b"http", end, spares, block) {
            Ok(key) => {
                keys.insert(key.id(), key);
                if connection.peer_streams().is_none() {
                    self.early.push(key.id());
                }
                self.up.insert(key.id(), Message { ended: end, ..message });
                let message =
                    Message { length: length(&mut self.random), trailers: self.random.chance(4), ..Message::default() };
                self.down.insert(key.id(), message);
            }
            Err(refusal) => assert_eq!(refusal, Refusal::Full),
        }
    }

    /// Sends of one message as much as can be.
    fn send(&mut self, from_client: bool) {
        let (side, messages) =
            if from_client { (&mut self.client, &mut self.up) } else { (&mut self.server, &mut self.down) };
        let Some((&id, &key)) = side.keys.iter().nth(self.random.below(side.keys.len().max(1))) else { return };
        let Some(message) = messages.get_mut(&id).filter(|message| !message.ended) else { return };
        let Side { connection, block, .. } = side;
        if connection.reset_by(key).is_some() || connection.is_parked(key) == Ok(true) {
            return;
        }
        if !message.begun {
            for _ in 0..self.random.below(3) {
                connection.interim(key, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", block).unwrap();
            }
            let end = message.length == 0 && !message.trailers;
            let head = format!("HTTP/1.1 200 OK\r\nX-Length: {}\r\nContent-Length: {0}\r\n\r\n", message.length);
            connection.respond(key, head.as_bytes(), end, block).unwrap();
            (message.begun, message.ended) = (true, end);
            return;
        }
        let now = (1 + self.random.below(70_000)).min(message.length - message.sent);
        if now > 0 {
            let bytes: Vec<u8> = (message.sent..message.sent + now).map(|at| pattern(id, at)).collect();
            let last = message.sent + now == message.length && !message.trailers;
            let sent = connection.send(key, &bytes, last, block).unwrap();
            if sent < now {
                connection.park(key, bytes, sent, last);
            }
            message.sent += now;
            message.ended = last;
        } else if message.trailers {
            connection.send_trailers(key, b"x-end: 1\r\n", block).unwrap();
            message.ended = true;
        } else {
            connection.finish(key, block).unwrap();
            message.ended = true;
        }
    }

    /// Reads of one message what there is, or some of it.
    fn read(&mut self, at_client: bool) {
        let (side, messages) =
            if at_client { (&mut self.client, &mut self.down) } else { (&mut self.server, &mut self.up) };
        let Some((&id, &key)) = side.keys.iter().nth(self.random.below(side.keys.len().max(1))) else { return };
        let Side { connection, block, .. } = side;
        let message = messages.get_mut(&id).unwrap();
        match connection.incoming(key) {
            Incoming::Head => {
                assert!(connection.take_head(key).is_some_and(|head| head.status() >= 100));
            }
            Incoming::Data => {
                let data = connection.data(key);
                assert!(data.len() <= DEFAULT_WINDOW as usize, "more waits than the window");
                let taken = if self.quiet { data.len() } else { 1 + self.random.below(data.len()) };
                for (at, byte) in data[..taken].iter().enumerate() {
                    assert_eq!(*byte, pattern(id, message.read + at), "stream {id} at {}", message.read + at);
                }
                connection.consume(key, taken);
                message.read += taken;
                message.unreleased += taken;
                if self.quiet || self.random.chance(2) {
                    connection.release(key, std::mem::take(&mut message.unreleased), block);
                }
            }
            Incoming::End if !message.read_end => {
                assert_eq!(message.read, message.length, "stream {id} is short");
                let trailers = connection.take_trailers(key);
                assert_eq!(trailers, if message.trailers { &b"x-end: 1\r\n"[..] } else { b"" });
                connection.release(key, std::mem::take(&mut message.unreleased), block);
                message.read_end = true;
            }
            Incoming::Reset(reset) => {
                let refused = reset == Reset::Remote(Code::REFUSED_STREAM) && self.early.contains(&id);
                assert!(refused || self.reset.contains(&id), "stream {id} was reset by nobody: {reset:?}");
            }
            Incoming::Nothing => connection.release(key, std::mem::take(&mut message.unreleased), block),
            Incoming::End => {}
        }
    }

    /// Lets go of what is over.
    fn let_go(&mut self) {
        for at_client in [true, false] {
            let (side, sent, came) = if at_client {
                (&mut self.client, &self.up, &self.down)
            } else {
                (&mut self.server, &self.down, &self.up)
            };
            let Side { connection, block, spares, keys, .. } = side;
            keys.retain(|id, key| {
                let whole = sent[id].ended && came[id].read_end && connection.is_parked(*key) != Ok(true);
                let cut = connection.reset_by(*key).is_some()
                    && (came[id].read_end || matches!(connection.incoming(*key), Incoming::Reset(_)));
                if whole || cut {
                    connection.let_go(*key, spares, block);
                    self.finished += usize::from(whole && at_client);
                }
                !(whole || cut)
            });
        }
    }

    fn take_back(&mut self) {
        let side = if self.random.chance(2) { &mut self.client } else { &mut self.server };
        let Some((&id, &key)) = side.keys.iter().nth(self.random.below(side.keys.len().max(1))) else { return };
        self.reset.push(id);
        side.connection.reset(key, Code::CANCEL, &mut side.block);
    }

    fn deliver(&mut self, to_client: bool) {
        let (from, to) =
            if to_client { (&mut self.server, &mut self.client) } else { (&mut self.client, &mut self.server) };
        let bytes = match self.random.below(3) {
            0 => 1 + self.random.below(20),
            1 => 1 + self.random.below(3000),
            _ => from.pipe.len(),
        };
        let bytes: Vec<u8> = from.pipe.drain(..bytes.min(from.pipe.len())).collect();
        let taken = to.connection.receive(&bytes, 0, &mut to.spares, &mut to.block);
        bytes[taken..].iter().rev().for_each(|byte| from.pipe.push_front(*byte));
        while let Some(event) = to.connection.next_event() {
            if let Event::Request(key) = event
                && let Some((fields, _)) = to.connection.take_request(key, &mut to.spares)
            {
                assert_eq!(fields.pseudo(PseudoField::Method), Some(&b"POST"[..]));
                to.spares.put_fields(fields);
                to.keys.insert(key.id(), key);
            }
        }
    }

    /// The client changes what windows of streams begin with, never beyond what it takes.
    fn change_settings(&mut self, window: u32) {
        if self.client.is_at_a_boundary() {
            self.client.pipe.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
            self.client.pipe.extend(window.to_be_bytes());
        }
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0 | 1 if !self.quiet => self.open(),
            2..=4 => self.send(true),
            5..=7 => self.send(false),
            8..=10 => self.read(true),
            11..=13 => self.read(false),
            14 => self.client.leave(&mut self.random),
            15 => self.server.leave(&mut self.random),
            16..=18 => self.deliver(true),
            19..=21 => self.deliver(false),
            22 => self.let_go(),
            23 if !self.quiet && self.random.chance(8) => self.take_back(),
            _ if !self.quiet && self.random.chance(20) => {
                let window = u32::try_from(self.random.below(DEFAULT_WINDOW as usize + 1)).unwrap();
                self.change_settings(window);
            }
            _ => {}
        }
        let ends = [self.client.connection.end(), self.server.connection.end()];
        assert_eq!(ends, [None, None], "somebody broke the protocol");
    }
}

fn simulate(seed: u64) -> (usize, usize) {
    let mut sim = Sim::new(seed);
    let steps = 200 + sim.random.below(2000);
    for _ in 0..steps {
        sim.step();
    }
    sim.quiet = true;
    for _ in 0..200 {
        sim.client.leave(&mut sim.random);
        sim.deliver(false);
    }
    sim.change_settings(DEFAULT_WINDOW);
    let mut turns = 0;
    while !sim.client.keys.is_empty() || !sim.server.keys.is_empty() || !sim.client.is_at_a_boundary() {
        for _ in 0..50 {
            sim.step();
        }
        turns += 1;
        assert!(turns < 20_000, "{} and {} streams do not end", sim.client.keys.len(), sim.server.keys.len());
    }
    assert_eq!((sim.client.connection.open_streams(), sim.server.connection.open_streams()), (0, 0));
    // What was taken back is the only thing that may have been cut.
    for key in &sim.reset {
        assert!(sim.up.contains_key(key));
    }
    let Sim { server, client, .. } = &mut sim;
    server.connection.go_away(&mut server.block);
    for _ in 0..100 {
        for to_client in [true, false] {
            let (from, to) = if to_client { (&mut *server, &mut *client) } else { (&mut *client, &mut *server) };
            from.block.capacity = 66 << 10;
            from.connection.pump(&mut from.block);
            let bytes = std::mem::take(&mut from.block.bytes);
            from.pipe.extend(bytes);
            let bytes: Vec<u8> = from.pipe.drain(..).collect();
            to.connection.receive(&bytes, 0, &mut to.spares, &mut to.block);
        }
    }
    // A client that has nothing under way leaves at once.
    assert_eq!((server.connection.end(), client.connection.end()), (None, Some(End::Done)));
    server.connection.closed(&mut server.block);
    assert_eq!(server.connection.end(), Some(End::Closed(false)));
    (sim.finished, sim.reset.len())
}

#[test]
fn streams_arrive_whole_whatever_happens_to_their_bytes() {
    let seeds = match std::env::var("RINGWAY_SIM_SEED") {
        Ok(text) => vec![u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a seed in hexadecimal")],
        Err(_) => (1..=300).collect(),
    };
    let (mut finished, mut reset) = (0, 0);
    for seed in seeds {
        let done = std::panic::catch_unwind(|| simulate(seed));
        let (whole, cut) = done.unwrap_or_else(|_| panic!("seed {seed:#x}"));
        finished += whole;
        reset += cut;
    }
    eprintln!("{finished} exchanges, {reset} resets");
    assert!(finished > reset);
}

/// More streams than anybody remembers one by one.
const MEMORY: u32 = 300;

/// A busy connection, far away: its server answers most requests before their bodies have come, takes others back, and
/// thousands of frames that the client has sent by then find their streams over, with hundreds of others since. Nobody
/// has done anything wrong. How many came late, and how many of them when [`MEMORY`] streams had been opened since.
fn far(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let mut client = Side::new(Role::Client);
    let mut server = Side::new(Role::Server);
    let limits =
        Limits { streams: 1000, header_list: 8192, stream_window: 65_535, window: 1 << 24, provoked_resets: 0 };
    for (side, role) in [(&mut client, Role::Client), (&mut server, Role::Server)] {
        side.block = Block { bytes: Vec::new(), capacity: 64 << 20 };
        side.connection = Connection::new(role, limits, &mut side.block);
    }
    // What is under way, by the round in which it has been sent.
    let distance = 1 + random.below(16);
    let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
    let (mut late, mut forgotten, mut highest) = (0, 0, 0);
    let mut bodies: BTreeMap<u32, Key> = BTreeMap::new();
    for round in 0..150_u64 {
        for _ in 0..random.below(60) {
            let whole = random.chance(3);
            let Side { connection, block, spares, keys, .. } = &mut client;
            let head = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Field: some\r\n\r\n";
            if let Ok(key) = connection.request(head, b"http", whole, spares, block) {
                keys.insert(key.id(), key);
                if !whole {
                    bodies.insert(key.id(), key);
                }
            }
        }
        let Side { connection, block, .. } = &mut client;
        bodies.retain(|_, key| {
            if connection.reset_by(*key).is_some() {
                return false;
            }
            for _ in 0..random.below(4) {
                let bytes = vec![b'x'; 1 + random.below(600)];
                connection.send(*key, &bytes, false, block).unwrap();
            }
            let ends = random.chance(6);
            if ends && random.chance(2) {
                connection.send_trailers(*key, b"x-end: 1\r\n", block).unwrap();
            } else if ends {
                connection.finish(*key, block).unwrap();
            }
            !ends
        });
        let Side { connection, block, spares, keys, .. } = &mut client;
        keys.retain(|_, key| {
            let _head = connection.take_head(*key);
            let over = matches!(connection.incoming(*key), Incoming::End | Incoming::Reset(_)) || random.chance(30);
            if over {
                // Where it has been answered before its own end, or is not wanted any more, it ends here.
                bodies.remove(&key.id());
                connection.let_go(*key, spares, block);
            }
            !over
        });
        there.push_back(std::mem::take(&mut client.block.bytes));
        if there.len() > distance {
            let bytes = there.pop_front().unwrap();
            let mut rest = &bytes[if round == distance as u64 { 24 } else { 0 }..];
            while let Some(header) = rest.first_chunk() {
                let header = FrameHeader::parse(header);
                let over = header.stream != 0 && !server.keys.contains_key(&header.stream);
                let is_late = over && (header.kind == 0 || (header.kind == 1 && header.stream <= highest));
                late += usize::from(is_late);
                forgotten += usize::from(is_late && highest.saturating_sub(header.stream) > 2 * MEMORY);
                highest = highest.max(header.stream);
                rest = &rest[9 + header.length..];
            }
            let Side { connection, block, spares, keys, .. } = &mut server;
            assert_eq!(connection.receive(&bytes, round, spares, block), bytes.len());
            while let Some(event) = connection.next_event() {
                if let Event::Request(key) = event
                    && let Some((fields, _)) = connection.take_request(key, spares)
                {
                    spares.put_fields(fields);
                    keys.insert(key.id(), key);
                }
            }
        }
        let Side { connection, block, spares, keys, .. } = &mut server;
        keys.retain(|_, key| {
            let waits = connection.data(*key).len();
            connection.consume(*key, waits);
            connection.release(*key, waits, block);
            match random.below(4) {
                _ if connection.reset_by(*key).is_some() => {}
                0 => connection.reset(*key, Code::CANCEL, block),
                1 | 2 => connection.respond(*key, b"HTTP/1.1 200 OK\r\n\r\n", true, block).unwrap(),
                _ => return true,
            }
            connection.let_go(*key, spares, block);
            false
        });
        back.push_back(std::mem::take(&mut server.block.bytes));
        if back.len() > distance {
            let bytes = back.pop_front().unwrap();
            let Side { connection, block, spares, .. } = &mut client;
            assert_eq!(connection.receive(&bytes, round, spares, block), bytes.len());
            while connection.next_event().is_some() {}
        }
        let ends = [client.connection.end(), server.connection.end()];
        assert_eq!(ends, [None, None], "round {round}");
    }
    (late, forgotten)
}

#[test]
fn late_frames_end_no_connection() {
    let all = (1..=40).map(|seed| std::panic::catch_unwind(|| far(seed)).unwrap_or_else(|_| panic!("seed {seed:#x}")));
    let (late, forgotten) = all.fold((0, 0), |(late, forgotten), of| (late + of.0, forgotten + of.1));
    eprintln!("{late} late frames, {forgotten} of them of streams that were over long since");
    assert!(late > 20_000 && forgotten > 2000, "{late} {forgotten}");
}

/// What a peer has not looked at can be told from what it has.
#[test]
fn a_goaway_names_what_was_not_seen() {
    let mut block = Block { bytes: Vec::new(), capacity: 1 << 20 };
    let limits = Limits { streams: 8, header_list: 8192, stream_window: 65_535, window: 100_000, provoked_resets: 0 };
    let mut spares = Spares::default();
    let mut client = Connection::<Vec<u8>, ()>::new(Role::Client, limits, &mut block);
    let mut request = || client.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"http", true, &mut spares, &mut block);
    let keys = [request().unwrap(), request().unwrap()];
    let mut told = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    told.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    client.receive(&told, 0, &mut spares, &mut block);
    assert_eq!(keys.map(|key| client.reset_by(key)), [None, Some(Reset::GoneAway)]);
    assert!(client.takes_no_more());
}
