//! Field sections that have come: of requests, of answers, and trailers (RFC 9113 sections 8.1 to 8.3).
//!
//! Each kind takes the fields one by one, as they come out of HPACK, and remembers what is wrong: the whole section has
//! to be taken, since the next one may refer to its fields. What is over the limit is counted and not kept.

use crate::http::{Tag, classify_request, classify_response, is_forbidden_trailer, trim};
use crate::http1::encode::reason_of;
use crate::http1::framing::content_length;

/// What a field costs beyond its bytes (section 6.5.2).
const OVERHEAD: usize = 32;

/// Over the limit by this much, a section costs too much even to be refused.
const ABUSE: usize = 4;

/// Bytes of a trailer section in lines.
pub const TRAILER_LIMIT: usize = 8 << 10;

/// What a section is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// An error of its stream (section 8.1.1).
    Malformed,
    /// Larger than this side has said that it takes.
    TooLarge,
    /// So large that the connection has to end.
    Abuse,
}

/// Counts what a section costs.
#[derive(Debug, Clone, Copy)]
struct Size {
    bytes: usize,
    limit: usize,
}

impl Size {
    /// Whether a field may be kept.
    fn takes(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(name.len() + value.len() + OVERHEAD);
        self.bytes <= self.limit
    }

    fn verdict(self, malformed: bool) -> Verdict {
        match self.bytes {
            bytes if bytes > self.limit.saturating_mul(ABUSE) => Verdict::Abuse,
            _ if malformed => Verdict::Malformed,
            bytes if bytes > self.limit => Verdict::TooLarge,
            _ => Verdict::Good,
        }
    }
}

/// What a request says outside of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PseudoField {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:protocol` (RFC 8441 section 4)
    Protocol,
}

/// The fields of a head, in two pieces of memory whatever their number.
#[derive(Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// Of a request.
    pseudo: [Option<(u32, u32)>; 5],
    /// Of an answer, or 0.
    status: u16,
}

/// Where a field's name begins and ends, where its value behind that ends, and what it is to a proxy.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    middle: u32,
    end: u32,
    tag: Tag,
}

impl Fields {
    /// A pseudo-header field.
    pub fn pseudo(&self, field: PseudoField) -> Option<&[u8]> {
        self.pseudo[field as usize].map(|(start, end)| &self.bytes[start as usize..end as usize])
    }

    /// An answer's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tagged().map(|(_, name, value)| (name, value))
    }

    /// The same, each with what it is to a proxy.
    pub(crate) fn tagged(&self) -> Tagged<'_> {
        Tagged { bytes: &self.bytes, spans: self.spans.iter() }
    }

    /// How many fields there are.
    pub(crate) fn count(&self) -> usize {
        self.spans.len()
    }

    /// How long an answer's head is as lines.
    pub(crate) fn lines_len(&self) -> usize {
        const AROUND: usize = b"HTTP/1.1 200 \r\n\r\n".len();
        AROUND + reason_of(self.status).len() + self.bytes.len() + 4 * self.spans.len()
    }

    /// Appends an answer's head, in lines of HTTP/1.1.
    pub fn write_lines(&self, out: &mut Vec<u8>) {
        let digit = |of: u16| b'0' + u8::try_from(self.status / of % 10).unwrap_or(0);
        let status = [digit(100), digit(10), digit(1)];
        for part in [&b"HTTP/1.1 "[..], &status, b" ", reason_of(self.status).as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
        for (name, value) in self.iter() {
            for part in [name, b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn push(&mut self, name: &[u8], value: &[u8], tag: Tag) {
        let start = self.end();
        self.bytes.extend_from_slice(name);
        let middle = self.end();
        self.bytes.extend_from_slice(value);
        self.spans.push(Span { start, middle, end: self.end(), tag });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        self.pseudo = [None; 5];
        self.status = 0;
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// What it takes, in bytes, whatever it has room for.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.spans.len() * size_of::<Span>()
    }

    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

/// The fields of a request, by name and value, as they are when they come in a head; there is no check of them.
impl<'f> FromIterator<(&'f [u8], &'f [u8])> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'f [u8], &'f [u8])>>(fields: I) -> Self {
        let mut all = Self::default();
        fields.into_iter().for_each(|(name, value)| all.push(name, value, classify_request(name)));
        all
    }
}

/// Fields, each with what it is to a proxy.
#[derive(Debug, Clone)]
pub(crate) struct Tagged<'f> {
    bytes: &'f [u8],
    spans: std::slice::Iter<'f, Span>,
}

impl<'f> Iterator for Tagged<'f> {
    type Item = (Tag, &'f [u8], &'f [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Span { start, middle, end, tag } = *self.spans.next()?;
        let [start, middle, end] = [start, middle, end].map(|at| at as usize);
        Some((tag, &self.bytes[start..middle], &self.bytes[middle..end]))
    }
}

/// A request's.
#[derive(Debug)]
pub(super) struct RequestSection {
    fields: Box<Fields>,
    size: Size,
    malformed: bool,
    length: Option<u64>,
}

impl RequestSection {
    pub(super) fn new(mut room: Box<Fields>, limit: usize) -> Self {
        room.clear();
        Self { fields: room, size: Size { bytes: 0, limit }, malformed: false, length: None }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.size.takes(name, value) {
            return;
        }
        let fields = &mut self.fields;
        if let Some(name) = name.strip_prefix(b":") {
            let field = match name {
                b"method" => PseudoField::Method,
                b"scheme" => PseudoField::Scheme,
                b"authority" => PseudoField::Authority,
                b"path" => {
                    // What would end a request line is no path; what else is wrong with one can be answered.
                    self.malformed |= value.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
                    PseudoField::Path
                }
                b"protocol" => PseudoField::Protocol,
                _ => {
                    self.malformed = true;
                    return;
                }
            };
            let start = fields.end();
            fields.bytes.extend_from_slice(value);
            let end = fields.end();
            // They come once, and before all others (section 8.3).
            self.malformed |= !fields.spans.is_empty() || fields.pseudo[field as usize].replace((start, end)).is_some();
            return;
        }
        if name == b"content-length" {
            // What is wrong with one is found when the request is looked at.
            self.length = content_length(value);
        }
        fields.push(name, value, classify_request(name));
    }

    /// The fields, what they are, and what they say of the body's length.
    pub(super) fn end(self) -> (Box<Fields>, Verdict, Option<u64>) {
        let has = |field| self.fields.pseudo(field).is_some();
        let connect = self.fields.pseudo(PseudoField::Method) == Some(b"CONNECT");
        let complete = match (connect, has(PseudoField::Protocol)) {
            (true, false) => !has(PseudoField::Scheme) && !has(PseudoField::Path),
            (false, true) => false,
            _ => has(PseudoField::Scheme) && has(PseudoField::Path),
        };
        let empty = |field| self.fields.pseudo(field) == Some(b"");
        let malformed = self.malformed
            || !has(PseudoField::Method)
            || !complete
            || empty(PseudoField::Path)
            || empty(PseudoField::Scheme);
        // Of one that is too large, something may be missing here.
        let malformed = malformed && self.size.bytes <= self.size.limit || self.malformed;
        let verdict = self.size.verdict(malformed);
        (self.fields, verdict, self.length)
    }
}

/// An answer's, in which all can be a line of HTTP/1.1.
#[derive(Debug)]
pub(super) struct ResponseSection {
    fields: Box<Fields>,
    size: Size,
    malformed: bool,
    length: Option<u64>,
}

impl ResponseSection {
    pub(super) fn new(mut room: Box<Fields>, limit: usize) -> Self {
        room.clear();
        Self { fields: room, size: Size { bytes: 0, limit }, malformed: false, length: None }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.size.takes(name, value) || self.malformed {
            return;
        }
        if name == b":status" {
            let status = match value {
                &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                    [a, b, c].iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
                }
                _ => 0,
            };
            // 101 is not of HTTP/2 (section 8.6).
            self.malformed |= status == 0 || status == 101 || self.fields.status != 0;
            self.fields.status = status;
            return;
        }
        if self.fields.status == 0 || !is_name(name) || !is_value(value) || is_about_connection(name) {
            self.malformed = true;
            return;
        }
        if name == b"content-length" {
            let length = content_length(value);
            self.malformed |= length.is_none() || self.length.is_some_and(|other| Some(other) != length);
            self.length = length;
        }
        self.fields.push(name, trim(value), classify_response(name));
    }

    /// The fields, what they are, and what they say of the body's length.
    pub(super) fn end(self) -> (Box<Fields>, Verdict, Option<u64>) {
        let verdict = self.size.verdict(self.malformed || self.fields.status == 0);
        (self.fields, verdict, self.length)
    }
}

/// Trailers, as lines. Those that must not or cannot be passed on are left out, as are those over the limit.
#[derive(Debug)]
pub(super) struct TrailerSection<'o> {
    lines: &'o mut Vec<u8>,
    size: Size,
    malformed: bool,
}

impl<'o> TrailerSection<'o> {
    pub(super) fn new(lines: &'o mut Vec<u8>, limit: usize) -> Self {
        lines.clear();
        Self { lines, size: Size { bytes: 0, limit }, malformed: false }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.size.takes(name, value) {
            return;
        }
        // None of them is in a trailer section (section 8.1).
        self.malformed |= name.first() == Some(&b':') || name.iter().any(u8::is_ascii_uppercase);
        self.malformed |= is_about_connection(name);
        let passable = is_name(name) && !is_forbidden_trailer(name) && !value.iter().any(u8::is_ascii_control);
        if passable && self.lines.len() + name.len() + value.len() + 4 < TRAILER_LIMIT {
            for part in [name, b": ", value, b"\r\n"] {
                self.lines.extend_from_slice(part);
            }
        }
    }

    pub(super) fn end(self) -> Verdict {
        self.size.verdict(self.malformed)
    }
}

/// Of a section that nobody reads.
#[derive(Debug)]
pub(super) struct IgnoredSection(Size);

impl IgnoredSection {
    pub(super) fn new(limit: usize) -> Self {
        Self(Size { bytes: 0, limit })
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.takes(name, value);
    }

    pub(super) fn end(self) -> Verdict {
        self.0.verdict(false)
    }
}

/// What `token` of RFC 9110 is made of, in lower case; 0 for everything else.
const TOKEN: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    table
};

/// Whether it is a name, in any case.
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().fold(true, |good, byte| good & (TOKEN[usize::from(*byte)] != 0))
}

/// Whether it is a name, in lower case.
pub(super) fn is_name(name: &[u8]) -> bool {
    // NUL is no name's, and the table says of it what it is itself.
    let is_one = |byte: u8| TOKEN[usize::from(byte)] == byte;
    !name.is_empty() && name.iter().fold(true, |good, byte| good & is_one(*byte) & (*byte != 0))
}

/// Whether it can be a value in a line of HTTP/1.1.
pub(super) fn is_value(value: &[u8]) -> bool {
    // All of it is looked at, several bytes at a time.
    !value.iter().fold(false, |bad, byte| bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
}

/// Whether a field, in any case, is about a connection of HTTP/1.1 (section 8.2.2).
pub(super) fn is_about_connection(name: &[u8]) -> bool {
    let other: &[u8] = match name.len() {
        7 => b"upgrade",
        10 if name[0] | 0x20 == b'k' => b"keep-alive",
        10 => b"connection",
        16 => b"proxy-connection",
        17 => b"transfer-encoding",
        _ => return false,
    };
    name.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

    fn request(fields: &[(&str, &str)]) -> (Box<Fields>, Verdict, Option<u64>) {
        let mut section = RequestSection::new(Box::default(), 1000);
        fields.iter().for_each(|(name, value)| section.field(name.as_bytes(), value.as_bytes()));
        section.end()
    }

    fn response(fields: &[(&str, &str)]) -> (Verdict, String) {
        let mut section = ResponseSection::new(Box::default(), 1000);
        fields.iter().for_each(|(name, value)| section.field(name.as_bytes(), value.as_bytes()));
        let (fields, verdict, _) = section.end();
        let mut lines = Vec::new();
        fields.write_lines(&mut lines);
        assert_eq!(lines.len(), fields.lines_len());
        (verdict, String::from_utf8(lines).unwrap())
    }

    #[test]
    fn requests_are_kept_as_they_come() {
        let (fields, verdict, length) =
            request(&[&GET[..], &[("a", "1"), ("content-length", "7"), ("a", "")]].concat());
        assert_eq!((verdict, length), (Verdict::Good, Some(7)));
        assert_eq!(fields.pseudo(PseudoField::Path), Some(&b"/"[..]));
        assert_eq!(fields.pseudo(PseudoField::Protocol), None);
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"content-length", b"7"), (b"a", b"")]);
    }

    #[test]
    fn pseudo_headers_have_an_order_and_come_once() {
        let [method, scheme, authority, path] = GET;
        for bad in [
            &[method, scheme, authority][..],
            &[method, authority, path],
            &[scheme, authority, path],
            &[method, scheme, path, (":path", "/")],
            &[method, scheme, path, (":status", "200")],
            &[method, scheme, path, (":other", "")],
            &[method, scheme, ("a", "b"), path],
            &[method, scheme, (":path", "")],
            &[method, scheme, (":path", "/ HTTP/1.1\r\nx: y")],
            &[method, scheme, path, (":protocol", "websocket")],
            &[(":method", "CONNECT"), authority, path],
            &[(":method", "CONNECT"), (":protocol", "websocket"), authority],
        ] {
            assert_eq!(request(bad).1, Verdict::Malformed, "{bad:?}");
        }
        for good in [
            &[(":method", "CONNECT"), authority][..],
            &[(":method", "CONNECT"), (":protocol", "websocket"), scheme, path],
            &[method, scheme, path],
        ] {
            assert_eq!(request(good).1, Verdict::Good, "{good:?}");
        }
    }

    #[test]
    fn sizes_are_counted_as_the_peer_is_told() {
        let fill = |bytes: usize| "x".repeat(bytes);
        let used: usize = GET.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum();
        let with = |bytes: usize| request(&[&GET[..], &[("x", &fill(bytes))]].concat()).1;
        assert_eq!(with(1000 - used - 33), Verdict::Good);
        assert_eq!(with(1000 - used - 32), Verdict::TooLarge);
        assert_eq!(with(4000 - used - 33), Verdict::TooLarge);
        assert_eq!(with(4000 - used - 32), Verdict::Abuse);
        // Where pseudo-header fields come behind, they are not missed.
        assert_eq!(request(&[(":path", &fill(2000)), GET[0], GET[1]]).1, Verdict::TooLarge);
    }

    #[test]
    fn answers_become_lines() {
        let (verdict, lines) = response(&[(":status", "404"), ("x-a", "1"), ("x-a", " 2\t")]);
        assert_eq!(verdict, Verdict::Good);
        assert_eq!(lines, "HTTP/1.1 404 Not Found\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
        for bad in [
            &[("x-a", "1")][..],
            &[],
            &[(":status", "20")],
            &[(":status", "020")],
            &[(":status", "101")],
            &[(":status", "200"), (":status", "200")],
            &[("a", "b"), (":status", "200")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "200"), ("A", "b")],
            &[(":status", "200"), ("", "b")],
            &[(":status", "200"), ("a b", "b")],
            &[(":status", "200"), ("a", "b\r\nc: d")],
            &[(":status", "200"), ("a", "\0")],
            &[(":status", "200"), ("transfer-encoding", "chunked")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("content-length", "1"), ("content-length", "2")],
            &[(":status", "200"), ("content-length", "-1")],
        ] {
            assert_eq!(response(bad).0, Verdict::Malformed, "{bad:?}");
        }
        let long = "x".repeat(1000);
        assert_eq!(response(&[(":status", "200"), ("a", &long)]).0, Verdict::TooLarge);
    }

    #[test]
    fn trailers_that_may_pass() {
        let trailers = |fields: &[(&str, &str)]| {
            let mut lines = Vec::new();
            let mut section = TrailerSection::new(&mut lines, 1000);
            fields.iter().for_each(|(name, value)| section.field(name.as_bytes(), value.as_bytes()));
            (section.end(), String::from_utf8(lines).unwrap())
        };
        let (verdict, lines) = trailers(&[("grpc-status", "0"), ("content-length", "1"), ("x", "a\0"), ("y y", "z")]);
        assert_eq!((verdict, lines.as_str()), (Verdict::Good, "grpc-status: 0\r\n"));
        for bad in [":path", "Upper", "connection"] {
            assert_eq!(trailers(&[(bad, "x")]).0, Verdict::Malformed);
        }
    }
}
