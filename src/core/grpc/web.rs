//! gRPC-Web (PROTOCOL-WEB.md of the gRPC project), which browsers speak: calls whose answers carry their trailers as the
//! last frame of the body, and which may be written in base64. Here they become calls of gRPC, and answers are written
//! back.

use super::{Call, UNKNOWN, status_in_lines};
use crate::http::trim;
use crate::http1::request::{Framing, RequestHead};

/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// Not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Base64 as it comes (RFC 4648 section 4). It may be in several pieces that are padded each for itself.
#[derive(Debug, Default)]
pub struct Base64 {
    /// Characters of a group of four that have come.
    have: u8,
    /// What of them is not a byte yet.
    bits: u8,
    /// The group ends in padding.
    padded: bool,
}

impl Base64 {
    /// Decodes in place; how many bytes stand at the front now.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<usize, Malformed> {
        let mut to = 0;
        for at in 0..buf.len() {
            let character = buf[at];
            if character == b'=' {
                if self.have < 2 {
                    return Err(Malformed);
                }
                self.padded = true;
                self.step();
                continue;
            }
            let value = sextet(character).filter(|_| !self.padded).ok_or(Malformed)?;
            let whole = match self.have {
                0 => None,
                1 => Some(self.bits | value >> 4),
                2 => Some(self.bits | value >> 2),
                _ => Some(self.bits | value),
            };
            self.bits = match self.have {
                0 => value << 2,
                1 => value << 4,
                2 => value << 6,
                _ => 0,
            };
            if let Some(byte) = whole {
                // No further than what has been read: a character is a byte at most.
                buf[to] = byte;
                to += 1;
            }
            self.step();
        }
        Ok(to)
    }

    fn step(&mut self) {
        self.have = (self.have + 1) % 4;
        if self.have == 0 {
            (self.padded, self.bits) = (false, 0);
        }
    }

    /// Whether it may end here.
    pub fn is_whole(&self) -> bool {
        self.have == 0
    }
}

fn sextet(character: u8) -> Option<u8> {
    Some(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Appends bytes in base64, padded.
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= group.len() { ALPHABET[index] } else { b'=' });
        }
    }
}

/// An answer of gRPC on its way to a client of gRPC-Web.
#[derive(Debug)]
pub struct Answer {
    call: Call,
    at: At,
    status: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Body,
    /// The head has said how the call ended, or the answer is not one of gRPC: what follows passes as it is.
    AsItIs,
    End,
}

impl Answer {
    /// To a call that is to be answered so.
    pub fn new(call: Call) -> Self {
        Self { call, at: At::Head, status: None }
    }

    /// Whether what comes is a head.
    pub fn awaits_head(&self) -> bool {
        self.at == At::Head
    }

    /// Whether bytes of the body become others.
    pub fn is_encoded(&self) -> bool {
        self.at == At::Body && self.call == Call::WebText
    }

    /// Whether a body that may be added to is on its way.
    pub fn is_open(&self) -> bool {
        self.at == At::Body
    }

    /// How the call ended, where the body's end has said it.
    pub fn status(&self) -> Option<u8> {
        self.status
    }

    /// A head as the client gets it; the lines of one of HTTP/1.1. `None`: as it is.
    pub fn head(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        let mut lines = head.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        if first.get(9) == Some(&b'1') {
            return None;
        }
        let named = |line: &[u8], name: &[u8]| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name).then(|| trim(value.trim_ascii_end()).to_vec())
        };
        let format = lines.clone().find_map(|line| named(line, b"content-type"));
        let Some((Call::Native, rest)) = format.as_deref().and_then(Call::split) else {
            self.at = At::AsItIs;
            return None;
        };
        let ended = lines.clone().any(|line| named(line, b"grpc-status").is_some());
        self.at = if ended { At::AsItIs } else { At::Body };
        let mut out = Vec::with_capacity(head.len() + 16);
        out.extend_from_slice(first);
        for line in lines {
            if named(line, b"content-type").is_some() {
                for part in [b"content-type: ", self.call.content_type().as_bytes(), rest, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            } else if named(line, b"content-length").is_none() || ended {
                out.extend_from_slice(line);
            }
        }
        Some(out)
    }

    /// Appends bytes of the body as the client gets them.
    pub fn body(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_encoded() {
            encode(bytes, out);
        } else {
            out.extend_from_slice(bytes);
        }
    }

    /// Appends what the trailers, given as lines, become behind the body, and says what is left of them.
    pub fn end(&mut self, trailers: Vec<u8>, out: &mut Vec<u8>) -> Vec<u8> {
        if self.at != At::Body {
            return trailers;
        }
        let mut frame = vec![TRAILERS, 0, 0, 0, 0];
        frame.extend_from_slice(&trailers);
        let status = status_in_lines(&trailers);
        if status.is_none() {
            // Who does not say how a call has ended has not ended it well.
            frame.extend_from_slice(b"grpc-status: 2\r\n");
        }
        let length = u32::try_from(frame.len() - 5).expect("trailers are limited");
        frame[1..5].copy_from_slice(&length.to_be_bytes());
        self.body(&frame, out);
        self.status = Some(status.unwrap_or(UNKNOWN));
        self.at = At::End;
        Vec::new()
    }
}

/// The call of gRPC that one of gRPC-Web asks for, and its Content-Type. What is in base64 leaves as something shorter,
/// of a length that is not known yet.
pub fn request<'b>(call: Call, head: &RequestHead<'b>) -> (RequestHead<'b>, Vec<u8>) {
    let mut sent = RequestHead { te_trailers: true, ..head.clone() };
    if call == Call::WebText && !matches!(head.body, Framing::None | Framing::Length(0)) {
        sent.body = Framing::Chunked;
    }
    let format = head.named("content-type").next().and_then(Call::split).map_or(&b""[..], |(_, format)| format);
    (sent, [Call::Native.content_type().as_bytes(), format].concat())
}

/// How an answer is written: as the client says that it takes it, or else as it has written its call.
pub fn answer_to(call: Call, accept: Option<&[u8]>) -> Call {
    let mut kinds = accept.into_iter().flat_map(crate::http::list).filter_map(Call::of);
    kinds.find(|kind| *kind != Call::Native).unwrap_or(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let (mut decoder, mut text) = (Base64::default(), text.to_vec());
        let len = decoder.decode(&mut text)?;
        text.truncate(len);
        if decoder.is_whole() { Ok(text) } else { Err(Malformed) }
    }

    /// RFC 4648 section 10.
    #[test]
    fn vectors() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text.as_bytes());
            assert_eq!(decoded(text.as_bytes()), Ok(bytes.as_bytes().to_vec()));
        }
        for bad in ["Z", "Zg", "Zg=", "Zg=x", "=", "Z===", "Zm9v=", "Zm 9v", "Zm9v\n", "Zm-_"] {
            assert_eq!(decoded(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn pieces_and_cuts() {
        let bytes: Vec<u8> = (0..=255).collect();
        // Padded pieces behind each other.
        let mut text = Vec::new();
        let mut at = 0;
        for length in [1, 2, 3, 4, 5, 100, 141] {
            text.extend(base64(&bytes[at..at + length]));
            at += length;
        }
        assert_eq!(decoded(&text).unwrap(), bytes);
        for cut in 0..=text.len() {
            let mut decoder = Base64::default();
            let (mut head, mut tail) = (text[..cut].to_vec(), text[cut..].to_vec());
            let first = decoder.decode(&mut head).unwrap();
            let second = decoder.decode(&mut tail).unwrap();
            assert!(decoder.is_whole());
            assert_eq!([&head[..first], &tail[..second]].concat(), bytes, "cut at {cut}");
        }
        let mut decoder = Base64::default();
        let mut single = Vec::new();
        for byte in &text {
            let mut one = [*byte];
            let len = decoder.decode(&mut one).unwrap();
            single.extend_from_slice(&one[..len]);
        }
        assert_eq!(single, bytes);
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\ncontent-length: 5\r\nx: y\r\n\r\n";

    #[test]
    fn trailers_are_the_last_frame() {
        let mut answer = Answer::new(Call::Web);
        assert_eq!(answer.head(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"), None);
        assert!(answer.awaits_head());
        let head = answer.head(HEAD).unwrap();
        assert_eq!(head, b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\nx: y\r\n\r\n");
        let mut out = Vec::new();
        answer.body(b"\0\0\0\0\0", &mut out);
        assert_eq!(answer.end(b"grpc-status: 5\r\nx-a: b\r\n".to_vec(), &mut out), b"");
        assert_eq!(out, b"\0\0\0\0\0\x80\0\0\0\x18grpc-status: 5\r\nx-a: b\r\n");
        assert_eq!(answer.status(), Some(5));
    }

    #[test]
    fn in_base64() {
        let mut answer = Answer::new(Call::WebText);
        let head = answer.head(HEAD).unwrap();
        assert!(head.windows(31).any(|part| part == b"application/grpc-web-text+proto"));
        let mut out = Vec::new();
        answer.body(b"\0\0\0\0\x01a", &mut out);
        answer.body(b"b", &mut out);
        answer.end(Vec::new(), &mut out);
        assert_eq!(decoded(&out).unwrap(), b"\0\0\0\0\x01ab\x80\0\0\0\x10grpc-status: 2\r\n");
        assert_eq!(answer.status(), Some(UNKNOWN));
    }

    #[test]
    fn what_ends_in_its_head_and_what_is_no_answer_of_grpc() {
        let ended =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 12\r\ncontent-length: 0\r\n\r\n";
        let mut answer = Answer::new(Call::Web);
        let head = answer.head(ended).unwrap();
        let expected = "content-type: application/grpc-web\r\ngrpc-status: 12\r\ncontent-length: 0\r\n\r\n";
        assert!(head.ends_with(expected.as_bytes()));
        let mut out = Vec::new();
        assert_eq!(answer.end(b"a: b\r\n".to_vec(), &mut out), b"a: b\r\n");
        assert_eq!(out, b"");
        for other in ["HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let mut answer = Answer::new(Call::WebText);
            assert_eq!(answer.head(other.as_bytes()), None);
            assert!(!answer.is_encoded() && !answer.awaits_head());
        }
    }

    #[test]
    fn answers_are_as_they_are_asked_for() {
        for (call, accept, expected) in [
            (Call::Web, None, Call::Web),
            (Call::WebText, None, Call::WebText),
            (Call::WebText, Some("*/*"), Call::WebText),
            (Call::WebText, Some("application/grpc-web+proto"), Call::Web),
            (Call::Web, Some("text/plain, application/grpc-web-text"), Call::WebText),
        ] {
            assert_eq!(answer_to(call, accept.map(str::as_bytes)), expected, "{accept:?}");
        }
    }
}
