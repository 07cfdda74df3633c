//! Bodies: where they end, and chunks taken apart (RFC 9112 section 7.1).
//!
//! A decoder is fed whatever has arrived, in a buffer it may rearrange: the payload of several chunks is moved together
//! so that it can be sent on as one. Payload of a single chunk, or of a body that is not chunked, does not move.

use std::ops::Range;

use super::authorize::is_one_variable;
use super::request;
use super::response;
use crate::http::{is_forbidden_trailer, is_token, trim};

/// Between two chunks, and behind the trailer section.
pub const CRLF: &[u8] = b"\r\n";

/// The last chunk, before the trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n";

/// A chunk's size line, extensions included.
const LINE_LIMIT: u32 = 4096;

/// A trailer section.
const TRAILER_LIMIT: usize = 8 << 10;

/// Framing bytes allowed beyond 16 per chunk and one per payload byte: what a body of one-byte chunks with extensions
/// could cost (CVE-2023-39326) is bounded by this.
const OVERHEAD_LIMIT: u64 = 16 << 10;

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk's size, its end, or a trailer field is malformed.
    Malformed,
    /// Chunk extensions or trailers beyond their limits.
    TooMuchFraming,
    /// The stream ended inside the body.
    Truncated,
    /// The caller has no room to lay the body out. Not the peer's fault.
    NoRoom,
}

/// What a decoder made of the bytes it was fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The payload, inside the first `consumed` bytes.
    pub data: Range<usize>,
    /// Bytes that belong to this body and are used up.
    pub consumed: usize,
    /// The body is complete; what follows belongs to the next message.
    pub done: bool,
}

/// Finds the end of one body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    trailers: Vec<u8>,
    /// Names of trailer fields that are not passed on.
    withheld: Option<Box<[Vec<u8>]>>,
}

#[derive(Debug)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Chunked),
    /// In frames, which say where it ends; `left` is what Content-Length still announces.
    Frames {
        left: Option<u64>,
        ended: bool,
    },
}

#[derive(Debug, Default)]
struct Chunked {
    at: At,
    /// Bytes of the current size line.
    line: u32,
    overhead: u64,
    /// Unparsed trailer lines.
    trailer: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a size's first digit.
    #[default]
    SizeStart,
    /// In a size's digits.
    Size(u64),
    /// In extensions, which are dropped.
    Extension(u64),
    /// In the quoted string of an extension; `true` behind a backslash.
    Quoted(u64, bool),
    /// Behind the CR of a size line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
}

impl BodyDecoder {
    /// Of a message without a body.
    pub fn none() -> Self {
        Self { state: State::Done, trailers: Vec::new(), withheld: None }
    }

    /// Of a request.
    pub fn request(framing: request::Framing) -> Self {
        let state = match framing {
            request::Framing::None | request::Framing::Length(0) => State::Done,
            request::Framing::Length(length) => State::Length(length),
            request::Framing::Chunked => State::Chunked(Chunked::default()),
        };
        Self { state, trailers: Vec::new(), withheld: None }
    }

    /// Of a response.
    pub fn response(framing: response::Framing) -> Self {
        let state = match framing {
            response::Framing::None(_) | response::Framing::Length(0) => State::Done,
            response::Framing::Length(length) => State::Length(length),
            response::Framing::Chunked => State::Chunked(Chunked::default()),
            response::Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: Vec::new(), withheld: None }
    }

    /// Of a response that comes in frames (HTTP/2). It ends by [`BodyDecoder::end_of_frames`].
    pub fn frames(framing: response::Framing) -> Self {
        let left = match framing {
            response::Framing::None(_) => return Self::none(),
            response::Framing::Length(length) => Some(length),
            response::Framing::Chunked | response::Framing::UntilClose => None,
        };
        Self { state: State::Frames { left, ended: false }, trailers: Vec::new(), withheld: None }
    }

    /// Trailer fields of these names (in lower case) are not passed on either, nor those that a backend which reads fields as
    /// variables (CGI) would take for them: what somebody else says of a request is not the client's to say at its end.
    pub fn withholding(mut self, names: Vec<Vec<u8>>) -> Self {
        self.withheld = (!names.is_empty()).then(|| names.into());
        self
    }

    /// What may be passed on of trailer lines that have come apart from the body, each with its CR LF.
    pub fn pass(&self, lines: Vec<u8>) -> Vec<u8> {
        if self.withheld.is_none() {
            return lines;
        }
        let name = |line: &[u8]| memchr::memchr(b':', line).unwrap_or(line.len());
        let kept = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| !self.withholds(&line[..name(line)]));
        kept.flatten().copied().collect()
    }

    fn withholds(&self, name: &[u8]) -> bool {
        self.withheld.as_ref().is_some_and(|all| all.iter().any(|known| is_one_variable(name, known)))
    }

    /// Nothing comes behind the bytes that are decoded next but these trailer lines.
    pub fn end_of_frames(&mut self, lines: Vec<u8>) {
        if let State::Frames { ended, .. } = &mut self.state {
            *ended = true;
            self.trailers = lines;
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Payload bytes that are still to come, where that is known beforehand.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::UntilClose | State::Chunked(_) | State::Frames { .. } => None,
        }
    }

    /// That many of the [`remaining`](Self::remaining) bytes have passed without being looked at.
    pub fn skip(&mut self, bytes: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// Field lines of the trailer section that may be passed on, each with its CR LF, without the empty line.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Takes what belongs to this body off the front of `buf`.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, BodyError> {
        match &mut self.state {
            State::Done => Ok(Decoded { data: 0..0, consumed: 0, done: true }),
            State::UntilClose => Ok(Decoded { data: 0..buf.len(), consumed: buf.len(), done: false }),
            State::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= take as u64;
                let done = *left == 0;
                if done {
                    self.state = State::Done;
                }
                Ok(Decoded { data: 0..take, consumed: take, done })
            }
            State::Frames { left, ended } => {
                let (all, done) = (buf.len(), *ended);
                if let Some(left) = left {
                    // The codec holds a body to its length; what is passed on with that length is counted all the same.
                    *left = left.checked_sub(all as u64).ok_or(BodyError::Malformed)?;
                    if done && *left > 0 {
                        return Err(BodyError::Truncated);
                    }
                }
                if done {
                    self.state = State::Done;
                }
                Ok(Decoded { data: 0..all, consumed: all, done })
            }
            State::Chunked(chunked) => {
                let (decoded, trailers) = chunked.decode(buf)?;
                if let Some(trailers) = trailers {
                    self.trailers = self.pass(trailers);
                    self.state = State::Done;
                }
                Ok(decoded)
            }
        }
    }

    /// The stream ended here.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) | State::Frames { .. } => Err(BodyError::Truncated),
        }
    }
}

impl Chunked {
    /// The payload of the chunks in `buf`, and the trailers once the body is complete.
    fn decode(&mut self, buf: &mut [u8]) -> Result<(Decoded, Option<Vec<u8>>), BodyError> {
        let mut at = 0;
        let mut data = 0..0;
        while at < buf.len() {
            if let At::Data(left) = self.at {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len() - at);
                if data.is_empty() {
                    data = at..at + take;
                } else {
                    buf.copy_within(at..at + take, data.end);
                    data.end += take;
                }
                at += take;
                self.at = if left == take as u64 { At::DataCr } else { At::Data(left - take as u64) };
                self.overhead = self.overhead.saturating_sub(take as u64);
                continue;
            }
            let byte = buf[at];
            at += 1;
            if self.at == At::Trailer {
                if self.trailer.len() >= TRAILER_LIMIT {
                    return Err(BodyError::TooMuchFraming);
                }
                self.trailer.push(byte);
                if byte == b'\n'
                    && let Some(trailers) = finish_trailers(&self.trailer)?
                {
                    return Ok((Decoded { data, consumed: at, done: true }, Some(trailers)));
                }
                continue;
            }
            self.at = self.step(byte)?;
        }
        Ok((Decoded { data, consumed: at, done: false }, None))
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<At, BodyError> {
        self.line += 1;
        self.overhead += 1;
        if self.line > LINE_LIMIT || self.overhead > OVERHEAD_LIMIT {
            return Err(BodyError::TooMuchFraming);
        }
        let next = match (self.at, byte) {
            (At::SizeStart, _) => At::Size(u64::from(hex(byte).ok_or(BodyError::Malformed)?)),
            (At::Size(size), b'\r') => At::SizeLf(size),
            (At::Size(size), b';') => At::Extension(size),
            // White space before an extension is bad but allowed (section 7.1.1); nothing but an extension may follow.
            (At::Size(size), _) => {
                let digit = hex(byte).ok_or(BodyError::Malformed)?;
                let shifted = size.checked_mul(16).ok_or(BodyError::Malformed)?;
                At::Size(shifted + u64::from(digit))
            }
            (At::Extension(size), b'\r') => At::SizeLf(size),
            (At::Extension(size), b'"') => At::Quoted(size, false),
            (At::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => At::Extension(size),
            (At::Quoted(size, true), b'\t' | b' '..=b'~' | 0x80..) => At::Quoted(size, false),
            (At::Quoted(size, false), b'"') => At::Extension(size),
            (At::Quoted(size, false), b'\\') => At::Quoted(size, true),
            (At::Quoted(size, false), b'\t' | b' '..=b'~' | 0x80..) => At::Quoted(size, false),
            (At::SizeLf(0), b'\n') => At::Trailer,
            (At::SizeLf(size), b'\n') => {
                // 16 bytes of framing are every chunk's due.
                self.overhead = self.overhead.saturating_sub(16);
                At::Data(size)
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::SizeStart
            }
            _ => return Err(BodyError::Malformed),
        };
        Ok(next)
    }
}

/// Trailers that may be passed on, if `section` ends with the empty line.
fn finish_trailers(section: &[u8]) -> Result<Option<Vec<u8>>, BodyError> {
    if section == CRLF {
        return Ok(Some(Vec::new()));
    }
    if !section.ends_with(b"\r\n") {
        return Err(BodyError::Malformed);
    }
    if !section.ends_with(b"\r\n\r\n") {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for line in section[..section.len() - 4].split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line).ok_or(BodyError::Malformed)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        let clean = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if !is_token(name) || !value.iter().all(clean) {
            return Err(BodyError::Malformed);
        }
        if !is_forbidden_trailer(name) {
            kept.extend_from_slice(name);
            kept.extend_from_slice(b": ");
            kept.extend_from_slice(value);
            kept.extend_from_slice(CRLF);
        }
    }
    Ok(Some(kept))
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The size line of a chunk of `size` bytes, at the end of `room`.
pub fn chunk_header(size: usize, room: &mut [u8; 18]) -> &[u8] {
    let mut at = room.len() - 2;
    room[at..].copy_from_slice(CRLF);
    let mut rest = size;
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(stream: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
        let mut decoder = BodyDecoder::request(request::Framing::Chunked);
        let (mut payload, mut used, mut from) = (Vec::new(), 0, 0);
        for &cut in cuts.iter().chain([&stream.len()]) {
            let mut part = stream[from..cut].to_vec();
            let decoded = decoder.decode(&mut part)?;
            payload.extend_from_slice(&part[decoded.data]);
            used += decoded.consumed;
            from = cut;
            if decoded.done {
                return Ok((payload, decoder.trailers().to_vec(), used));
            }
        }
        Err(BodyError::Truncated)
    }

    #[test]
    fn every_split_gives_the_same() {
        let stream =
            b"5;a=\"\\\";\";b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nServer-Timing:  a \r\nHost: x\r\n\r\nGET";
        let whole = decode_all(stream, &[]).unwrap();
        assert_eq!(whole, (b"hello world".to_vec(), b"Server-Timing: a\r\n".to_vec(), stream.len() - 3));
        for first in 0..stream.len() {
            for second in first..stream.len() {
                assert_eq!(decode_all(stream, &[first, second]), Ok(whole.clone()), "{first} {second}");
            }
        }
    }

    /// security: 10, 11, 14: laxness in chunk framing.
    #[test]
    fn refused_chunks() {
        let bad: [&[u8]; 17] = [
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5;\0\r\nhello\r\n",
            b"\r\nhello",
            b"g\r\n",
            b"10000000000000000\r\n",
            b"0\r\nBad Name: x\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n: b\r\n\r\n",
        ];
        for stream in bad {
            assert!(matches!(decode_all(stream, &[]), Err(BodyError::Malformed)), "{:?}", stream.escape_ascii());
        }
    }

    /// CVE-2023-39326: framing that dwarfs the payload.
    #[test]
    fn framing_is_bounded() {
        let extension = [b"1;".as_slice(), &[b'x'; 3000], b"\r\na\r\n"].concat().repeat(100);
        assert_eq!(decode_all(&extension, &[]), Err(BodyError::TooMuchFraming));
        let long = [b"1;".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(decode_all(&long, &[]), Err(BodyError::TooMuchFraming));
        let trailers = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(2000)].concat();
        assert_eq!(decode_all(&trailers, &[]), Err(BodyError::TooMuchFraming));
        let honest = [b"1\r\na\r\n".repeat(100_000), b"0\r\n\r\n".to_vec()].concat();
        assert_eq!(decode_all(&honest, &[]).map(|(payload, ..)| payload.len()), Ok(100_000));
    }

    #[test]
    fn lengths_and_ends() {
        let mut decoder = BodyDecoder::request(request::Framing::Length(5));
        assert_eq!(decoder.decode(&mut b"hel".to_vec()), Ok(Decoded { data: 0..3, consumed: 3, done: false }));
        assert_eq!(decoder.end_of_stream(), Err(BodyError::Truncated));
        assert_eq!(decoder.decode(&mut b"loGET".to_vec()), Ok(Decoded { data: 0..2, consumed: 2, done: true }));
        assert!(decoder.is_done());
        let mut open = BodyDecoder::response(response::Framing::UntilClose);
        assert_eq!(open.decode(&mut b"abc".to_vec()), Ok(Decoded { data: 0..3, consumed: 3, done: false }));
        assert_eq!(open.end_of_stream(), Ok(()));
    }

    #[test]
    fn frames_end_when_they_say_so() {
        let mut open = BodyDecoder::frames(response::Framing::UntilClose);
        assert_eq!(open.decode(&mut b"abc".to_vec()), Ok(Decoded { data: 0..3, consumed: 3, done: false }));
        assert_eq!(open.end_of_stream(), Err(BodyError::Truncated));
        open.end_of_frames(b"a: b\r\n".to_vec());
        assert_eq!(open.decode(&mut []), Ok(Decoded { data: 0..0, consumed: 0, done: true }));
        assert!(open.is_done());
        assert_eq!(open.trailers(), b"a: b\r\n");
        let mut short = BodyDecoder::frames(response::Framing::Length(4));
        short.end_of_frames(Vec::new());
        assert_eq!(short.decode(&mut b"abc".to_vec()), Err(BodyError::Truncated));
        let mut long = BodyDecoder::frames(response::Framing::Length(2));
        assert_eq!(long.decode(&mut b"abc".to_vec()), Err(BodyError::Malformed));
        assert!(BodyDecoder::frames(response::Framing::None(Some(5))).is_done());
    }

    #[test]
    fn size_lines() {
        assert_eq!(chunk_header(0, &mut [0; 18]), b"0\r\n");
        assert_eq!(chunk_header(65_536, &mut [0; 18]), b"10000\r\n");
        assert_eq!(chunk_header(usize::MAX, &mut [0; 18]), b"ffffffffffffffff\r\n");
    }

    #[test]
    fn trailers_that_are_anothers_word_are_withheld() {
        let names = || vec![b"x-user".to_vec()];
        let bytes = b"0\r\nX-User: root\r\nX_USER: root\r\nX-Users: a\r\nX-Sum: 1\r\n\r\n";
        let kept = b"X-Users: a\r\nX-Sum: 1\r\n";
        for cut in 0..bytes.len() {
            let mut decoder = BodyDecoder::request(request::Framing::Chunked).withholding(names());
            let (mut first, mut second) = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
            assert!(!decoder.decode(&mut first).unwrap().done);
            assert!(decoder.decode(&mut second).unwrap().done);
            assert_eq!(decoder.trailers(), kept);
        }
        let apart = b"x-user: root\r\nx_user: root\r\nX-Users: a\r\nX-Sum: 1\r\n".to_vec();
        assert_eq!(BodyDecoder::none().withholding(names()).pass(apart.clone()), kept);
        assert_eq!(BodyDecoder::none().withholding(Vec::new()).pass(apart.clone()), apart);
    }
}
