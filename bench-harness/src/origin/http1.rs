//! HTTP/1.1 as a server: fixed bodies that carry their request's id.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use memchr::memmem;
use monoio::buf::IoBuf as _;
use monoio::io::AsyncWriteRent as _;
use monoio::net::TcpStream;

use super::{Lie, Options};
use crate::rt;

pub(super) const ID: usize = 16;

/// What bodies are made of; large enough that a mebibyte takes few writes, small enough to stay in the cache.
pub(super) static FILL: [u8; 256 << 10] = [b'x'; 256 << 10];

/// The largest body that is copied into the buffer of its head, to leave in one write.
const COPIED: usize = 64 << 10;

/// How answers are made.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) delay: Duration,
    chunked: bool,
    lie: Option<Lie>,
    answered: Cell<u64>,
}

impl Settings {
    pub(super) fn new(options: &Options) -> Self {
        let delay = Duration::from_millis(options.delay);
        Self { delay, chunked: options.chunked, lie: options.lie, answered: Cell::new(0) }
    }

    /// Whether this answer is to be wrong.
    pub(super) fn lies(&self) -> Option<Lie> {
        let lie = self.lie?;
        self.answered.set(self.answered.get() + 1);
        self.answered.get().is_multiple_of(100).then_some(lie)
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    size: usize,
    id: [u8; ID],
    delay: Duration,
    chunked: bool,
    close: bool,
    /// Bytes of the request's own body.
    upload: usize,
}

fn parse(head: &[u8], settings: &Settings) -> Option<Asked> {
    let line_end = memchr::memchr(b'\r', head)?;
    let mut words = head[..line_end].split(|&byte| byte == b' ');
    let (_method, target, version) = (words.next()?, words.next()?, words.next()?);
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let size = path.rsplit(|&byte| byte == b'/').next()?;
    let mut asked = Asked {
        size: std::str::from_utf8(size).ok()?.parse().ok()?,
        id: [b'0'; ID],
        delay: settings.delay,
        chunked: settings.chunked,
        close: version == b"HTTP/1.0",
        upload: 0,
    };
    for option in query.split(|&byte| byte == b'&') {
        match option.strip_prefix(b"delay=") {
            Some(ms) => asked.delay = Duration::from_millis(std::str::from_utf8(ms).ok()?.parse().ok()?),
            None => asked.chunked |= option == b"chunked",
        }
    }
    let mut rest = &head[line_end + 2..];
    while let Some(end) = memchr::memchr(b'\r', rest).filter(|&end| end > 0) {
        let line = &rest[..end];
        rest = rest.get(end + 2..)?;
        // Lengths first: most fields of a request are none of these.
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"x-bench-id") => asked.id = value.try_into().ok()?,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                if value.eq_ignore_ascii_case(b"close") {
                    asked.close = true;
                } else if value.eq_ignore_ascii_case(b"keep-alive") {
                    asked.close = false;
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                asked.upload = std::str::from_utf8(value).ok()?.parse().ok()?;
            }
            _ => {}
        }
    }
    Some(asked)
}

/// Appends an answer. Of a body too large to copy, what comes behind the first bytes is left to the caller: the count
/// of bytes that are to follow, the last 16 of them the id again.
fn append(asked: &Asked, lie: Option<Lie>, out: &mut Vec<u8>) -> usize {
    let mut head_id = asked.id;
    let mut body_id = asked.id;
    match lie {
        Some(Lie::HeadId) => head_id = *b"ffffffffffffffff",
        Some(Lie::BodyId) => body_id = *b"ffffffffffffffff",
        _ => {}
    }
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    if asked.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    } else {
        out.extend_from_slice(b"Content-Length: ");
        append_number(asked.size, out);
        out.extend_from_slice(b"\r\n");
    }
    if asked.close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"Content-Type: application/octet-stream\r\nX-Bench-Id: ");
    out.extend_from_slice(&head_id);
    out.extend_from_slice(b"\r\n\r\n");
    if asked.chunked {
        let mut body = Vec::with_capacity(asked.size);
        append_body(asked.size, &asked.id, &body_id, &mut body);
        for chunk in body.chunks(4096) {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        return 0;
    }
    if asked.size > COPIED {
        out.extend_from_slice(&asked.id);
        out.extend_from_slice(&FILL[..COPIED - ID]);
        return asked.size - COPIED;
    }
    append_body(asked.size, &asked.id, &body_id, out);
    if lie == Some(Lie::ShortBody) {
        out.pop();
    }
    0
}

fn append_body(size: usize, first: &[u8; ID], last: &[u8; ID], out: &mut Vec<u8>) {
    if size < ID {
        out.resize(out.len() + size, b'x');
    } else if size < 2 * ID {
        out.extend_from_slice(first);
        out.resize(out.len() + size - ID, b'x');
    } else {
        out.extend_from_slice(first);
        let mut left = size - 2 * ID;
        while left > 0 {
            let part = left.min(FILL.len());
            out.extend_from_slice(&FILL[..part]);
            left -= part;
        }
        out.extend_from_slice(last);
    }
}

fn append_number(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[left % 10];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Serves one connection.
pub(super) async fn connection(mut stream: TcpStream, settings: Rc<Settings>) {
    let _no_delay = stream.set_nodelay(true);
    let mut buffer = rt::room(4 << 10);
    let mut out = Vec::new();
    let (mut from, mut to) = (0, 0);
    let mut skip = 0;
    loop {
        // Answers to everything that has been read go out in one write.
        out.clear();
        let mut close = false;
        while from < to && !close {
            if skip > 0 {
                let part = skip.min(to - from);
                (from, skip) = (from + part, skip - part);
                continue;
            }
            let Some(end) = memmem::find(&buffer[from..to], b"\r\n\r\n") else { break };
            let Some(asked) = parse(&buffer[from..from + end + 4], &settings) else {
                let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                let len = refusal.len();
                let _gone = rt::write_all(&mut stream, refusal, len).await;
                return;
            };
            from += end + 4;
            skip = asked.upload;
            if !asked.delay.is_zero() {
                monoio::time::sleep(asked.delay).await;
            }
            let lie = settings.lies();
            let begin = out.len();
            let more = append(&asked, lie, &mut out);
            close = asked.close || lie == Some(Lie::ShortBody);
            if lie == Some(Lie::Swap) && begin > 0 {
                out.rotate_left(begin);
            }
            if more > 0 {
                let Ok(()) = large(&mut stream, &mut out, more, asked.id).await else { return };
            }
        }
        if !out.is_empty() {
            let len = out.len();
            let (written, back) = rt::write_all(&mut stream, std::mem::take(&mut out), len).await;
            out = back;
            if written.is_err() {
                return;
            }
        }
        if close {
            return;
        }
        if from == to {
            (from, to) = (0, 0);
        } else if from > 0 {
            buffer.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        } else if to == buffer.len() {
            if to >= 64 << 10 {
                return;
            }
            let mut larger = rt::room(2 * to);
            larger[..to].copy_from_slice(&buffer);
            buffer = larger;
        }
        let (read, back) = rt::read(&mut stream, buffer, to).await;
        buffer = back;
        match read {
            Ok(n @ 1..) => to += n,
            _ => return,
        }
        // The first request on a connection; no method of HTTP/1.1 begins so.
        if buffer[..to].starts_with(b"PRI * HTTP/2") {
            return super::http2::connection(stream, buffer[..to].to_vec(), settings).await;
        }
    }
}

/// Writes what is ready, and then `more` bytes of a large body.
async fn large(stream: &mut TcpStream, out: &mut Vec<u8>, more: usize, id: [u8; ID]) -> std::io::Result<()> {
    let len = out.len();
    let (written, back) = rt::write_all(stream, std::mem::take(out), len).await;
    *out = back;
    written?;
    out.clear();
    // The end travels in a buffer of its own, with enough in front that it is not a small segment.
    let end = more.min(4096);
    let mut left = more - end;
    while left > 0 {
        let (written, _) = stream.write((&FILL[..left.min(FILL.len())]).slice(..)).await;
        match written? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            n => left -= n,
        }
    }
    out.extend_from_slice(&FILL[..end.saturating_sub(ID)]);
    out.extend_from_slice(&id[ID - end.min(ID)..]);
    Ok(())
}
