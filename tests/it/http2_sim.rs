//! A seeded simulation of interleaved streams: one client per connection that opens, sends in pieces, withholds credit,
//! takes back and waits in an order that a seed decides; origins that answer at once, late, in pieces, too early, cut or
//! not at all. A model knows what every stream may end as. It drives the real interface of streams, at the client's side
//! and, chained, at the endpoint's, over loopback.
//!
//! `RINGWAY_SIM_SEED=0x2a cargo test --profile quick --test it http2_sim` replays one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::Random;
use crate::support::h2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, Ended, H2, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::origin::{Conn, Origin};
use crate::support::proxy::{Options, Proxy, config};

/// Steps of one connection.
const STEPS: usize = 400;

/// Streams at a time.
const STREAMS: usize = 24;

/// Bytes of a body, either way.
const LARGEST: usize = 150_000;

/// What the origin does, which the path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Reads the body and answers with its length and this many bytes.
    Whole,
    /// The same, in chunks with pauses.
    Chunks,
    /// Answers before the body has come.
    Early,
    /// Breaks off amid the answer.
    Cut,
    /// Breaks off before it.
    Silent,
}

/// A stream as the model knows it.
#[derive(Debug)]
struct Stream {
    manner: Manner,
    /// Bytes of the answer.
    answer: usize,
    /// Bytes of the body.
    body: usize,
    sent: usize,
    /// What the peer takes of this stream.
    window: usize,
    /// The request is whole.
    ended: bool,
    reset: bool,
    /// Bytes that came and were not credited.
    owed: usize,
    got: usize,
    status: u16,
}

fn pattern(at: usize) -> u8 {
    b'a' + u8::try_from(at % 23).unwrap()
}

fn origin() -> Origin {
    Origin::script(|mut conn: Conn, _| {
        while let Some(mut request) = conn.head() {
            let mut words = request.target[1..].split('/');
            let (manner, size) = (words.next().unwrap().to_owned(), words.next().unwrap().parse::<usize>().unwrap());
            if manner == "Early" {
                // What has not been read is the next request's for nobody: the connection ends.
                conn.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"));
                conn.send((0..size).map(pattern).collect::<Vec<u8>>());
                while conn.fill() {}
                return;
            }
            if !conn.body(&mut request) {
                return;
            }
            let right = request.body.iter().enumerate().all(|(at, byte)| *byte == pattern(at));
            let status = if right { "200 OK" } else { "400 Bad Request" };
            let bytes: Vec<u8> = (0..size).map(pattern).collect();
            let sent = match manner.as_str() {
                "Whole" => {
                    conn.send(format!(
                        "HTTP/1.1 {status}\r\nX-Body: {}\r\nContent-Length: {size}\r\n\r\n",
                        request.body.len()
                    )) && conn.send(bytes)
                }
                "Chunks" => {
                    conn.send(format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n"))
                        && bytes.chunks(20_000).all(|piece| {
                            std::thread::sleep(Duration::from_micros(300));
                            conn.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                        })
                        && conn.send("0\r\n\r\n")
                }
                "Cut" => {
                    conn.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", size + 1));
                    conn.send(bytes);
                    false
                }
                _ => false,
            };
            if !sent {
                return;
            }
        }
    })
}

/// A connection under simulation.
struct Run {
    client: H2,
    random: Random,
    streams: BTreeMap<u32, Stream>,
    /// What the peer takes of the connection.
    window: usize,
    /// Bytes of all streams that came and were not credited.
    owed: usize,
    finished: usize,
    taken_back: usize,
}

impl Run {
    fn new(address: &str, seed: u64) -> Self {
        let mut client = H2::connect(address);
        client.generous = false;
        Self {
            client,
            random: Random(seed),
            streams: BTreeMap::new(),
            window: 65_535,
            owed: 0,
            finished: 0,
            taken_back: 0,
        }
    }

    fn open(&mut self) {
        let manners =
            [Manner::Whole, Manner::Whole, Manner::Whole, Manner::Chunks, Manner::Early, Manner::Cut, Manner::Silent];
        let manner = manners[self.random.below(manners.len())];
        let sizes = [0, 1, 1000, 20_000, LARGEST];
        let answer = sizes[self.random.below(sizes.len())];
        let body = sizes[self.random.below(sizes.len())];
        let (path, length) = (format!("/{manner:?}/{answer}"), body.to_string());
        let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path.as_str())];
        if self.random.below(2) == 0 {
            fields.push(("content-length", &length));
        }
        let ended = body == 0 && self.random.below(2) == 0;
        let id = self.client.open(&fields, ended);
        let stream =
            Stream { manner, answer, body, sent: 0, window: 65_535, ended, reset: false, owed: 0, got: 0, status: 0 };
        self.streams.insert(id, stream);
    }

    /// A stream that is one of `which`.
    fn pick(&mut self, which: impl Fn(&Stream) -> bool) -> Option<u32> {
        let fitting: Vec<u32> = self.streams.iter().filter(|(_, each)| which(each)).map(|(id, _)| *id).collect();
        if fitting.is_empty() { None } else { Some(fitting[self.random.below(fitting.len())]) }
    }

    fn send(&mut self) {
        let Some(id) = self.pick(|stream| !stream.ended && !stream.reset) else { return };
        let most = [1, 100, 5000, 16_384][self.random.below(4)];
        let stream = self.streams.get_mut(&id).unwrap();
        let now = most.min(stream.body - stream.sent).min(stream.window).min(self.window);
        let ends = stream.sent + now == stream.body;
        if now == 0 && !ends {
            return;
        }
        let bytes: Vec<u8> = (stream.sent..stream.sent + now).map(pattern).collect();
        stream.sent += now;
        stream.window -= now;
        stream.ended = ends;
        self.window -= now;
        self.client.frame(DATA, if ends { END_STREAM } else { 0 }, id, &bytes);
    }

    /// Gives back some of the credit that is owed.
    fn credit(&mut self) {
        if self.owed > 0 {
            let credit = 1 + self.random.below(self.owed);
            self.owed -= credit;
            self.client.frame(WINDOW_UPDATE, 0, 0, &u32::try_from(credit).unwrap().to_be_bytes());
        }
        if let Some(id) = self.pick(|stream| stream.owed > 0 && !stream.reset) {
            let stream = self.streams.get_mut(&id).unwrap();
            let credit = std::mem::take(&mut stream.owed);
            self.client.frame(WINDOW_UPDATE, 0, id, &u32::try_from(credit).unwrap().to_be_bytes());
        }
    }

    fn take_back(&mut self) {
        if let Some(id) = self.pick(|stream| !stream.reset) {
            self.streams.get_mut(&id).unwrap().reset = true;
            self.client.reset(id, CANCEL);
            self.streams.remove(&id);
            self.taken_back += 1;
        }
    }

    /// Takes a frame, if there is one within a moment.
    fn receive(&mut self, patience: Duration) -> bool {
        let mut first = [0];
        self.client.stream.set_read_timeout(Some(patience)).unwrap();
        let there = matches!(self.client.stream.peek(&mut first), Ok(1));
        self.client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        if !there {
            return false;
        }
        let frame = self.client.read().expect("a whole frame");
        let ends = frame.flags & END_STREAM != 0;
        match frame.kind {
            SETTINGS if frame.flags == 0 => self.client.send(&self::frame(SETTINGS, 1, 0, &[])),
            WINDOW_UPDATE => {
                let credit = u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
                match self.streams.get_mut(&frame.stream) {
                    _ if frame.stream == 0 => self.window += credit,
                    Some(stream) => stream.window += credit,
                    None => {}
                }
            }
            HEADERS => {
                self.client.take(frame.clone());
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.status = self.client.answers[&frame.stream].status();
                }
            }
            DATA => {
                self.owed += frame.payload.len();
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    if stream.status == 200 {
                        let good = frame.payload.iter().enumerate().all(|(at, byte)| *byte == pattern(stream.got + at));
                        assert!(good, "foreign bytes on {}: {stream:?}", frame.stream);
                    }
                    stream.got += frame.payload.len();
                    stream.owed += frame.payload.len();
                }
            }
            RST_STREAM => self.client.take(frame.clone()),
            crate::support::h2::GOAWAY => panic!("the connection is ended: {:?}", frame.payload),
            _ => {}
        }
        if (ends && matches!(frame.kind, HEADERS | DATA)) || frame.kind == RST_STREAM {
            let whole = frame.kind != RST_STREAM;
            self.end(frame.stream, whole);
        }
        true
    }

    /// What a stream may end as.
    fn end(&mut self, id: u32, whole: bool) {
        if !whole && self.client.answers.get(&id).and_then(|answer| answer.ended.clone()) == Some(Ended::Reset(0)) {
            // What comes of the request behind its whole answer is not wanted.
            return;
        }
        let Some(stream) = self.streams.get(&id) else { return };
        let came_whole = whole && stream.status == 200 && stream.got == stream.answer;
        match stream.manner {
            Manner::Whole | Manner::Chunks => assert!(came_whole, "{id}: {whole} {stream:?}"),
            Manner::Early => {
                // The origin closes on what it has not read: an answer that is cut is said to be.
                assert!(came_whole || !whole || stream.status == 502, "{id}: {whole} {stream:?}");
            }
            Manner::Cut => {
                assert!(!whole || stream.status == 502, "{id}: a cut answer passed for a whole one: {stream:?}")
            }
            Manner::Silent => assert!(whole && stream.status == 502, "{id}: {whole} {stream:?}"),
        }
        if !stream.ended && whole {
            // Nobody waits for the rest.
            self.client.reset(id, CANCEL);
        }
        self.streams.remove(&id);
        self.finished += 1;
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 | 1 if self.streams.len() < STREAMS => self.open(),
            2..=6 => self.send(),
            7 | 8 => self.credit(),
            9 if self.random.below(6) == 0 => self.take_back(),
            _ => {
                for _ in 0..1 + self.random.below(8) {
                    self.receive(Duration::from_micros(200));
                }
            }
        }
    }

    /// Everything is sent, credited and read to the end.
    fn finish(&mut self) {
        let mut quiet = 0;
        while !self.streams.is_empty() {
            for _ in 0..STREAMS {
                self.send();
            }
            while self.owed > 0 || self.streams.values().any(|stream| stream.owed > 0) {
                self.credit();
            }
            let mut moved = false;
            while self.receive(Duration::from_millis(20)) {
                moved = true;
            }
            quiet = if moved { 0 } else { quiet + 1 };
            assert!(quiet < 500, "nothing moves: {:?}", self.streams);
        }
    }
}

fn simulate(proxy: &Proxy, seed: u64) -> (usize, usize) {
    let mut run = Run::new(&proxy.address, seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.finish();
    // The connection is as good as new.
    let block = block(&crate::support::h2::get("/Whole/5"));
    let stream = run.client.next_stream();
    run.client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
    run.client.generous = true;
    let answer = run.client.answer(stream);
    assert_eq!((answer.status(), answer.text()), (200, "abcde"));
    (run.finished, run.taken_back)
}

fn seeds() -> Vec<u64> {
    match std::env::var("RINGWAY_SIM_SEED") {
        Ok(text) => vec![u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a seed in hexadecimal")],
        Err(_) => (1..=4).collect(),
    }
}

fn simulation(proxy: &Proxy) {
    for seed in seeds() {
        eprintln!("seed {seed:#x}");
        let (finished, taken_back) = simulate(proxy, seed);
        eprintln!("seed {seed:#x}: {finished} streams ended, {taken_back} were taken back");
        assert!(finished > 10);
    }
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
    crate::support::eventually("nothing is left open", || {
        crate::support::proxy::sum(&proxy.metrics(), "ringway_connections_active", &["web"]) == 0.0
    });
}

#[test]
fn streams_interleave_towards_http_1() {
    let origin = origin();
    let one = Options { workers: 1, ..Options::default() };
    simulation(&Proxy::with(&config(&[&origin.address], ""), &one));
}

#[test]
fn streams_interleave_towards_http_2() {
    let origin = origin();
    let one = Options { workers: 1, ..Options::default() };
    simulation(&Proxy::with(&crate::http2_upstream::chain(&origin.address), &one));
}
