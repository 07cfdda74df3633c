//! A client of HTTP/2 that sends whatever frames it is told to. Its heads are literals that use no table.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// What a frame says.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Whole,
    Reset(u32),
    /// By the connection's end.
    Cut,
}

/// What has come on a stream.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Of every head, trailers included; 0 where there is none.
    pub heads: Vec<u16>,
    pub body: Vec<u8>,
    pub ended: Option<Ended>,
}

impl Answer {
    /// The status of the final head.
    pub fn status(&self) -> u16 {
        self.heads.iter().copied().find(|status| *status >= 200).unwrap_or(0)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection.
pub struct H2<S = TcpStream> {
    pub stream: S,
    next: u32,
    /// What has come so far.
    pub answers: HashMap<u32, Answer>,
    /// Error codes and last streams of GOAWAY frames.
    pub goaways: Vec<(u32, u32)>,
    /// Connection's and streams' credit is given back as it is used.
    pub generous: bool,
    /// PINGs are answered.
    pub polite: bool,
    pongs: usize,
}

impl H2 {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> H2<S> {
    /// Sends the preface, with SETTINGS_HEADER_TABLE_SIZE 0, so that statuses can be read without a table.
    pub fn over(stream: S) -> Self {
        let answers = HashMap::new();
        let mut this = Self { stream, next: 1, answers, goaways: Vec::new(), generous: true, polite: true, pongs: 0 };
        this.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        this.frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        this
    }

    /// The other end: reads a client's preface and sends these settings.
    pub fn accept(stream: S, settings: &[u8]) -> Option<Self> {
        let answers = HashMap::new();
        let mut this = Self { stream, next: 2, answers, goaways: Vec::new(), generous: true, polite: true, pongs: 0 };
        let mut preface = [0; 24];
        this.stream.read_exact(&mut preface).ok()?;
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        this.frame(SETTINGS, 0, 0, settings);
        Some(this)
    }

    /// Reads until the head of a request has come; its stream.
    pub fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.read()?;
            match frame.kind {
                HEADERS => return Some(frame.stream),
                SETTINGS if frame.flags & ACK == 0 => {
                    self.try_send(&self::frame(SETTINGS, ACK, 0, &[]));
                }
                _ => {}
            }
        }
    }

    /// Answers a request with a body.
    pub fn reply(&mut self, stream: u32, status: &str, body: &[u8]) -> bool {
        self.try_send(&frame(HEADERS, END_HEADERS, stream, &block(&[(":status", status)])))
            && self.try_send(&frame(DATA, END_STREAM, stream, body))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Whether the bytes could be sent: a server that is flooded may have gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload));
    }

    /// Opens a stream.
    pub fn open(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        let id = self.next_stream();
        let end = if end { END_STREAM } else { 0 };
        let block = block(fields);
        let mut pieces = block.chunks(16_384).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.frame(kind, last | if kind == HEADERS { end } else { 0 }, id, piece);
            kind = CONTINUATION;
        }
        id
    }

    /// Asks for a path.
    pub fn get(&mut self, path: &str) -> u32 {
        self.open(&get(path), true)
    }

    pub fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// The next frame; none at the connection's end.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads a frame and takes note of it; whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(frame) = self.read() else { return false };
        self.take(frame);
        true
    }

    /// Takes note of a frame.
    pub fn take(&mut self, frame: Frame) {
        let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                self.try_send(&self::frame(SETTINGS, ACK, 0, &[]));
            }
            PING if frame.flags & ACK == 0 && self.polite => {
                self.try_send(&self::frame(PING, ACK, 0, &frame.payload));
            }
            PING if frame.payload == b"settling" => self.pongs += 1,
            GOAWAY => self.goaways.push((code(4), code(0))),
            RST_STREAM => self.answers.entry(frame.stream).or_default().ended = Some(Ended::Reset(code(0))),
            HEADERS => self.answers.entry(frame.stream).or_default().heads.push(status(&frame.payload)),
            DATA => {
                self.answers.entry(frame.stream).or_default().body.extend_from_slice(&frame.payload);
                if self.generous && !frame.payload.is_empty() {
                    let credit = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                    self.try_send(&self::frame(WINDOW_UPDATE, 0, 0, &credit));
                    if frame.flags & END_STREAM == 0 {
                        self.try_send(&self::frame(WINDOW_UPDATE, 0, frame.stream, &credit));
                    }
                }
            }
            _ => {}
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            self.answers.entry(frame.stream).or_default().ended.get_or_insert(Ended::Whole);
        }
    }

    /// Reads until a stream has ended.
    pub fn answer(&mut self, stream: u32) -> Answer {
        while self.answers.get(&stream).is_none_or(|answer| answer.ended.is_none()) {
            if !self.step() {
                self.answers.entry(stream).or_default().ended = Some(Ended::Cut);
            }
        }
        self.answers[&stream].clone()
    }

    /// Reads to the connection's end; the last GOAWAY's code.
    pub fn goaway(&mut self) -> Option<u32> {
        while self.step() {}
        self.goaways.last().map(|(code, _)| *code)
    }

    /// The next stream's number.
    pub fn next_stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Reads until a PING is answered: everything sent before it has been read.
    pub fn settle(&mut self) {
        self.frame(PING, 0, 0, b"settling");
        assert!(self.until_pong(), "the connection has ended");
    }

    /// Reads until `settling` is answered; whether it was.
    pub fn until_pong(&mut self) -> bool {
        let pongs = self.pongs;
        while self.pongs == pongs {
            if !self.step() {
                return false;
            }
        }
        true
    }
}

pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

pub fn post(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals without indexing (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(text.len(), &mut bytes);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn integer(number: usize, bytes: &mut Vec<u8>) {
    if number < 127 {
        return bytes.push(u8::try_from(number).unwrap());
    }
    bytes.push(127);
    let mut left = number - 127;
    while left >= 128 {
        bytes.push(u8::try_from(left % 128).unwrap() | 128);
        left /= 128;
    }
    bytes.push(u8::try_from(left).unwrap());
}

/// The status that a head begins with: an entry of the static table, or a literal with its name from there.
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size come first.
    let start = block.iter().position(|byte| byte >> 5 != 1).unwrap_or(block.len());
    match block[start..] {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, length, ..] => {
            let text = &block[start + 2..start + 2 + usize::from(length & 127)];
            if length & 128 == 0 { std::str::from_utf8(text).unwrap().parse().unwrap() } else { digits(text) }
        }
        _ => 0,
    }
}

/// Three digits in Huffman's code: 0 to 2 are five bits, 3 to 9 are six.
fn digits(text: &[u8]) -> u16 {
    let bits: Vec<u16> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let mut at = 0;
    let mut number = 0;
    for _ in 0..3 {
        let take = |from: usize, count: usize| bits[from..from + count].iter().fold(0, |n, bit| n * 2 + bit);
        let five = take(at, 5);
        let digit = if five < 3 { five } else { take(at, 6) - 0x19 + 3 };
        at += if five < 3 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    number
}
