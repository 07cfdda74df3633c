//! Heads as HTTP/1.1 writes them, which is how all are written here, in HPACK.
//!
//! What has been encoded has changed the encoder's table, and so has to be sent: where a field cannot be said it is left
//! out, the rest is encoded, and the caller is told. It sends the block and resets the stream.

use super::hpack::Encoder;
use super::section::{is_about_connection, is_token, is_value};
use crate::http::trim;

/// It is no head, or has something that cannot be said in HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unspeakable;

/// Where heads are encoded.
#[derive(Debug)]
pub(super) struct Writer<'w> {
    pub(super) encoder: &'w mut Encoder,
    pub(super) block: &'w mut Vec<u8>,
}

/// What a request's head asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'h> {
    method: &'h [u8],
    target: &'h [u8],
    authority: Option<&'h [u8]>,
    /// It is an extended CONNECT (RFC 8441).
    pub(super) connect: bool,
    fields: &'h [u8],
    /// Where the first of its fields end.
    ends: [u16; KNOWN_ENDS],
    known: usize,
}

/// How many of a request's lines are not looked for a second time.
const KNOWN_ENDS: usize = 24;

/// Lines up to an empty one.
#[derive(Debug, Clone, Copy)]
struct Lines<'l>(&'l [u8]);

impl<'l> Iterator for Lines<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        let end = crlf(self.0)?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 2..];
        (!line.is_empty()).then_some(line)
    }
}

/// Where the first line ends.
fn crlf(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'\r', &bytes[from..])?;
        if bytes.get(at + 1)? == &b'\n' {
            return Some(at);
        }
        from = at + 1;
    }
}

/// A field line's name and value.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], trim(&line[colon + 1..])))
}

/// The status of an answer's head.
pub(super) fn status(head: &[u8]) -> Result<u16, Unspeakable> {
    // `HTTP/1.1 200 reason`
    match head.get(9..12) {
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            Ok([a, b, c].iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
        }
        _ => Err(Unspeakable),
    }
}

impl<'h> Asked<'h> {
    /// What a request's head asks for.
    pub(super) fn read(head: &'h [u8]) -> Result<Self, Unspeakable> {
        // `GET /path HTTP/1.1`
        let start = crlf(head).ok_or(Unspeakable)?;
        let mut words = head[..start].split(|byte| *byte == b' ');
        let (method, target) = (words.next().ok_or(Unspeakable)?, words.next().ok_or(Unspeakable)?);
        let is_bad = |byte: u8| (byte <= b' ') | (byte == 0x7f);
        let sayable = |bytes: &[u8]| !bytes.is_empty() && !bytes.iter().fold(false, |bad, byte| bad | is_bad(*byte));
        if !sayable(target) || !is_token(method) {
            return Err(Unspeakable);
        }
        let fields = &head[start + 2..];
        let (ends, known) = ([0; KNOWN_ENDS], 0);
        let mut asked = Self { method, target, authority: None, connect: false, fields, ends, known };
        let mut at = 0;
        for (number, line) in Lines(fields).enumerate() {
            at += line.len() + 2;
            if let (Some(end), Ok(at)) = (asked.ends.get_mut(number), u16::try_from(at)) {
                (*end, asked.known) = (at, number + 1);
            }
            match line.first().map(u8::to_ascii_lowercase) {
                Some(b'h') => {
                    if let Some((name, value)) = field(line)
                        && name.eq_ignore_ascii_case(b"host")
                    {
                        asked.authority = sayable(value).then_some(value);
                    }
                }
                Some(b'u') => {
                    asked.connect |= field(line).is_some_and(|(name, value)| {
                        name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"websocket")
                    });
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The lines of its fields.
    fn lines(&self) -> impl Iterator<Item = &'h [u8]> {
        let mut from = 0;
        let known = self.ends[..self.known].iter().map(move |end| {
            let line = &self.fields[from..usize::from(*end) - 2];
            from = usize::from(*end);
            line
        });
        let behind = self.known.checked_sub(1).map_or(0, |last| usize::from(self.ends[last]));
        known.chain(Lines(&self.fields[behind..]))
    }

    /// Whether its answer has no body.
    pub(super) fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }
}

impl Writer<'_> {
    /// A request's head.
    pub(super) fn request(&mut self, asked: &Asked<'_>, scheme: &[u8]) -> Result<(), Unspeakable> {
        let Self { encoder, block } = self;
        encoder.begin(block);
        let method = if asked.connect { b"CONNECT" } else { asked.method };
        // A client of HTTP/1.0 need not name one.
        encoder.request(method, scheme, asked.authority.unwrap_or(b"localhost"), asked.target, block);
        if asked.connect {
            encoder.field(b":protocol", b"websocket", block);
        }
        // The key proves what the stream proves by itself. What is left out is never in the table.
        self.fields(asked.lines(), |name| {
            name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b"sec-websocket-key")
        })
    }

    /// An answer's head.
    pub(super) fn response(&mut self, status: u16, head: &[u8]) -> Result<(), Unspeakable> {
        let fields = Lines(crlf(head).map_or(&[], |start| &head[start + 2..]));
        self.encoder.begin(self.block);
        self.encoder.status(status, self.block);
        self.fields(fields, |_| false)
    }

    /// The head that accepts an extended CONNECT, from the 101 that HTTP/1.1 would send (RFC 8441 section 5.1).
    pub(super) fn accepted(&mut self, head: &[u8]) -> Result<(), Unspeakable> {
        let fields = Lines(crlf(head).map_or(&[], |start| &head[start + 2..]));
        self.encoder.begin(self.block);
        self.encoder.status(200, self.block);
        let mut said = Ok(());
        for line in fields {
            let is_proof = field(line).is_some_and(|(name, _)| name.eq_ignore_ascii_case(b"sec-websocket-accept"));
            if !is_proof && self.line(line, |_| false).is_err() {
                said = Err(Unspeakable);
            }
        }
        said
    }

    /// Trailers.
    pub(super) fn trailers(&mut self, lines: &[u8]) -> Result<(), Unspeakable> {
        self.encoder.begin(self.block);
        self.fields(Lines(lines), |_| false)
    }

    /// Fields; what is about a connection of HTTP/1.1 is left out (RFC 9113 section 8.2.2).
    fn fields<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l [u8]>,
        leave_out: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Unspeakable> {
        let mut said = Ok(());
        for line in lines {
            if self.line(line, &leave_out).is_err() {
                said = Err(Unspeakable);
            }
        }
        said
    }

    fn line(&mut self, line: &[u8], leave_out: impl Fn(&[u8]) -> bool) -> Result<(), Unspeakable> {
        let Self { encoder, block } = self;
        // Most have been said before, in the same words.
        if encoder.line(line, block) {
            return Ok(());
        }
        match field(line).filter(|(name, value)| is_token(name) && is_value(value)) {
            Some((name, _)) if is_about_connection(name) || leave_out(name) => {}
            Some((name, value)) => encoder.line_field(line, name, value, block),
            None => return Err(Unspeakable),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::Decoder;
    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<(), Unspeakable>) -> (bool, Vec<(String, String)>) {
        let (mut encoder, mut block) = (Encoder::new(), Vec::new());
        let said = write(&mut Writer { encoder: &mut encoder, block: &mut block }).is_ok();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields = Vec::new();
        Decoder::new(4096).decode(&block, |name, value| fields.push((text(name), text(value)))).unwrap();
        (said, fields)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requests_of_http_1_in_http_2() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: a.test:80\r\nX-A: 1\r\nte: trailers\r\nconnection: te\r\n\
                     transfer-encoding: chunked\r\n\r\nbody: x\r\n";
        let asked = Asked::read(head).unwrap();
        let (said, fields) = written(|writer| writer.request(&asked, b"http"));
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a.test:80"), (":path", "/a?b")];
        assert_eq!(fields, pairs(&[&pseudo[..], &[("x-a", "1"), ("te", "trailers")]].concat()));
        assert!(said && !asked.is_head() && !asked.connect);
        let head = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let (_, fields) = written(|writer| writer.request(&Asked::read(head).unwrap(), b"https"));
        let pseudo = [
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/chat"),
            (":protocol", "websocket"),
            ("sec-websocket-version", "13"),
        ];
        assert_eq!(fields, pairs(&pseudo));
        for bad in ["GET", "GET\r\n\r\n", "G T\r\n", "G:T / HTTP/1.1\r\n\r\n", "GET  HTTP/1.1\r\n\r\n"] {
            let asked = Asked::read(bad.as_bytes());
            assert!(asked.is_err() || bad == "G T\r\n", "{bad:?}");
        }
    }

    #[test]
    fn answers_of_http_1_in_http_2() {
        let head =
            b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nconnection: close\r\nx-a:  2 \r\nupgrade: x\r\n\r\nbody: x\r\n";
        assert_eq!(status(head), Ok(404));
        let (said, fields) = written(|writer| writer.response(404, head));
        assert!(said);
        assert_eq!(fields, pairs(&[(":status", "404"), ("x-a", "1"), ("x-a", "2")]));
        for bad in ["", "HTTP/1.1 40", "HTTP/1.1 40 x\r\n\r\n"] {
            assert_eq!(status(bad.as_bytes()), Err(Unspeakable), "{bad:?}");
        }
        for bad in ["a", "a b: c", ": c", "a: b\0"] {
            let head = format!("HTTP/1.1 200 x\r\n{bad}\r\nb: c\r\n\r\n");
            let (said, fields) = written(|writer| writer.response(200, head.as_bytes()));
            assert!(!said, "{bad:?}");
            assert_eq!(fields, pairs(&[(":status", "200"), ("b", "c")]));
        }
    }

    #[test]
    fn an_upgrade_is_accepted_with_200() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nA: b\r\n\r\n";
        let (_, fields) = written(|writer| writer.accepted(head));
        assert_eq!(fields, pairs(&[(":status", "200"), ("a", "b")]));
    }
}
