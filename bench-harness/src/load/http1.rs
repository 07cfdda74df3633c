//! HTTP/1.1 as a client, with a parser of its own: it must not share a mistake with the proxy that it measures.
//!
//! Every request carries an id that no other has, in `X-Bench-Id`. Its answer must carry the same in that field, in the
//! first 16 bytes of the body (where there are 16) and in the last 16 (where there are 32).

use std::io;

use memchr::memmem;

use super::tls::Stream;
use super::worker::Worker;
use super::{Fault, connect_error};
use crate::rt::{self, Room};

/// Hexadecimal digits of an id.
pub(crate) const ID: usize = 16;

/// The field that carries it.
pub(crate) const ID_FIELD: &str = "X-Bench-Id";

/// The id as it is sent.
pub(crate) fn id_text(id: u64) -> [u8; ID] {
    let mut text = [0; ID];
    for (at, digit) in text.iter_mut().enumerate() {
        let nibble = (id >> (60 - 4 * at)) & 15;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
    }
    text
}

/// A value for `{n}`, below `vary`. Fibonacci hashing: neighbours in time are far apart, and every value comes equally
/// often.
pub(super) fn spread(id: u64, vary: u64) -> u128 {
    (u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(vary)) >> 64
}

pub(super) type Outcome<T> = Result<T, (Fault, String)>;

/// Requests, made from a template.
#[derive(Debug)]
struct Requests {
    /// A request whose id is still to be filled in.
    template: Vec<u8>,
    id_at: usize,
    /// The path's parts around `{n}`, if it has one, and what follows the path.
    varied: Option<(String, String, Vec<u8>)>,
    vary: u64,
}

impl Requests {
    fn new(worker: &Worker) -> Self {
        let plan = &worker.plan;
        let path = plan.path.replace("{body}", &plan.body.to_string());
        let mut rest = format!(" HTTP/1.1\r\nHost: {}\r\n", plan.host);
        for header in &plan.header {
            rest.push_str(header);
            rest.push_str("\r\n");
        }
        if plan.connection_per_request {
            rest.push_str("Connection: close\r\n");
        }
        rest.push_str(ID_FIELD);
        rest.push_str(": ");
        let varied = path.split_once("{n}").filter(|_| plan.vary > 1);
        let varied = varied.map(|(before, after)| (before.to_owned(), after.to_owned(), rest.clone().into_bytes()));
        let mut template = format!("GET {}{rest}", path.replace("{n}", "0")).into_bytes();
        let id_at = template.len();
        template.extend([b'0'; ID]);
        template.extend(b"\r\n\r\n");
        Self { template, id_at, varied, vary: plan.vary }
    }

    fn append(&mut self, id: u64, to: &mut Vec<u8>) {
        match &self.varied {
            None => {
                self.template[self.id_at..self.id_at + ID].copy_from_slice(&id_text(id));
                to.extend_from_slice(&self.template);
            }
            Some((before, after, rest)) => {
                let n = spread(id, self.vary);
                to.extend_from_slice(b"GET ");
                to.extend_from_slice(before.as_bytes());
                to.extend_from_slice(n.to_string().as_bytes());
                to.extend_from_slice(after.as_bytes());
                to.extend_from_slice(rest);
                to.extend_from_slice(&id_text(id));
                to.extend_from_slice(b"\r\n\r\n");
            }
        }
    }
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// What matters of an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    id: Option<[u8; ID]>,
    close: bool,
}

/// Reads a head that ends with its empty line.
fn parse_head(head: &[u8]) -> Result<Head, &'static str> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().unwrap_or_default();
    let (Some(version), Some(code)) = (status.get(..9), status.get(9..12)) else { return Err("a short status line") };
    let close = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err("no HTTP/1 status line"),
    };
    let status = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok()).ok_or("no status code")?;
    let mut found = Head { status, framing: Framing::UntilClose, id: None, close };
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or("a field without a colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(ID_FIELD.as_bytes()) {
            if found.id.is_some() {
                return Err("two ids");
            }
            found.id = Some(value.try_into().map_err(|_not_16| "an id of another length")?);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            if found.framing != Framing::UntilClose {
                return Err("two framings of the body");
            }
            found.framing = Framing::Length(length.ok_or("no number in Content-Length")?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if found.framing != Framing::UntilClose || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer coding other than chunked, or two framings");
            }
            found.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") {
            found.close |= value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(found)
}

/// Compares the parts of a body that carry the id, as they pass.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) id: &'a [u8; ID],
    pub(super) expected: usize,
    pub(super) seen: usize,
    pub(super) right: bool,
}

impl Body<'_> {
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        if self.expected >= ID {
            self.compare(bytes, 0);
        }
        if self.expected >= 2 * ID {
            self.compare(bytes, self.expected - ID);
        }
        self.seen += bytes.len();
    }

    /// The part of `bytes` that lies where an id begins at `at`.
    fn compare(&mut self, bytes: &[u8], at: usize) {
        let (begin, end) = (at.max(self.seen), (at + ID).min(self.seen + bytes.len()));
        if begin < end {
            self.right &= bytes[begin - self.seen..end - self.seen] == self.id[begin - at..end - at];
        }
    }
}

/// A connection and what has been read from it.
#[derive(Debug)]
struct Open {
    stream: Stream,
    buffer: Room,
    from: usize,
    to: usize,
}

fn broken(error: &io::Error) -> (Fault, String) {
    (Fault::Broken, format!("the connection broke: {error}"))
}

fn malformed(why: &str) -> (Fault, String) {
    (Fault::Malformed, format!("a malformed answer: {why}"))
}

impl Open {
    async fn new(worker: &Worker, connection: usize) -> Outcome<Self> {
        let stream = Stream::open(worker, connection).await?;
        // One read takes a small answer, and large ones in pieces that stay in the processor's cache.
        let room = (worker.plan.body * worker.plan.pipeline + 1024).clamp(4096, 128 << 10);
        Ok(Self { stream, buffer: rt::room(room), from: 0, to: 0 })
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> Outcome<bool> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            if self.from == 0 {
                return Err(malformed("a head or line longer than the buffer"));
            }
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let (read, buffer) = self.stream.read(std::mem::take(&mut self.buffer), self.to).await;
        self.buffer = buffer;
        let read = read.map_err(|error| broken(&error))?;
        self.to += read;
        Ok(read > 0)
    }

    async fn need_more(&mut self) -> Outcome<()> {
        if self.fill().await? { Ok(()) } else { Err((Fault::Broken, "closed in the middle of an answer".to_owned())) }
    }

    async fn head(&mut self) -> Outcome<Head> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.from..self.to];
            if let Some(end) = memmem::find(&unread[searched..], b"\r\n\r\n") {
                let end = searched + end + 4;
                let head = parse_head(&unread[..end]).map_err(malformed)?;
                self.from += end;
                return Ok(head);
            }
            searched = unread.len().saturating_sub(3);
            let nothing = unread.is_empty();
            if !self.fill().await? {
                let fault = if nothing { Fault::Retried } else { Fault::Broken };
                return Err((fault, "closed before an answer".to_owned()));
            }
        }
    }

    /// Passes `length` bytes of body on.
    async fn take(&mut self, mut length: usize, body: &mut Body<'_>) -> Outcome<()> {
        while length > 0 {
            if self.from == self.to {
                self.need_more().await?;
            }
            let part = length.min(self.to - self.from);
            body.pass(&self.buffer[self.from..self.from + part]);
            self.from += part;
            length -= part;
        }
        Ok(())
    }

    async fn line(&mut self) -> Outcome<String> {
        loop {
            let unread = &self.buffer[self.from..self.to];
            if let Some(end) = memmem::find(unread, b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.from += end + 2;
                return Ok(line);
            }
            self.need_more().await?;
        }
    }

    async fn chunks(&mut self, body: &mut Body<'_>) -> Outcome<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_no_number| malformed("no chunk size"))?;
            if size == 0 {
                // Trailers, up to an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            if body.seen + size > body.expected {
                return Err(malformed("a longer body than asked for"));
            }
            self.take(size, body).await?;
            if !self.line().await?.is_empty() {
                return Err(malformed("no end of a chunk"));
            }
        }
    }

    /// Reads the answer to one request; whether the connection ends with it.
    async fn answer(&mut self, id: u64, expected: usize) -> Outcome<bool> {
        let head = self.head().await?;
        if head.status != 200 {
            return Err((Fault::Status, format!("status {}", head.status)));
        }
        let id = id_text(id);
        let got = head.id.ok_or_else(|| malformed("no id"))?;
        let wrong = |what: &str| {
            let (sent, got) = (String::from_utf8_lossy(&id), String::from_utf8_lossy(&got));
            (Fault::Mismatch, format!("the answer to another request: {what} (sent {sent}, its head has {got})"))
        };
        if got != id {
            return Err(wrong("the id in its head is not the one sent"));
        }
        let mut body = Body { id: &id, expected, seen: 0, right: true };
        match head.framing {
            Framing::Length(length) if length == expected => self.take(length, &mut body).await?,
            Framing::Length(length) => {
                return Err(malformed(&format!("a body of {length} bytes where {expected} were asked for")));
            }
            Framing::Chunked => self.chunks(&mut body).await?,
            Framing::UntilClose => loop {
                let rest = self.to - self.from;
                self.take(rest, &mut body).await?;
                if !self.fill().await? {
                    break;
                }
            },
        }
        if body.seen != expected {
            return Err(malformed(&format!("a body of {} bytes where {expected} were asked for", body.seen)));
        }
        if !body.right {
            return Err(wrong("the id in its body is not the one sent"));
        }
        Ok(head.close || head.framing == Framing::UntilClose)
    }

    /// Waits for the end of the stream, so that the other side closes first and keeps what waiting TCP asks for.
    async fn finish(mut self) {
        while let Ok(true) = self.fill().await {
            (self.from, self.to) = (0, 0);
        }
    }
}

/// Requests that one connection has in flight, and the buffer they are written from.
#[derive(Debug)]
struct Batch {
    requests: Requests,
    ids: Vec<(u64, u64)>,
    out: Vec<u8>,
}

impl Batch {
    fn add(&mut self, id: u64, intended: u64) {
        self.ids.push((id, intended));
        self.requests.append(id, &mut self.out);
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.out.clear();
    }

    /// Writes all, reads all answers; whether the connection can be kept.
    async fn exchange(&mut self, worker: &Worker, open: &mut Open) -> Outcome<bool> {
        let len = self.out.len();
        let (written, out) = open.stream.write_all(std::mem::take(&mut self.out), len).await;
        self.out = out;
        // Where the other side has closed meanwhile, the end of the stream says more than the broken pipe.
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(broken(&error));
        }
        let mut keep = true;
        for &(id, intended) in &self.ids {
            if !keep {
                return Err((Fault::Broken, "closed with requests unanswered".to_owned()));
            }
            keep = !open.answer(id, worker.plan.body).await?;
            worker.answered(intended, worker.plan.body);
        }
        Ok(keep)
    }
}

/// One connection's work until the run ends.
pub(super) async fn connection(worker: &Worker, index: usize) {
    let mut batch = Batch { requests: Requests::new(worker), ids: Vec::new(), out: Vec::new() };
    if worker.plan.idle {
        return idle(worker, index, &mut batch).await;
    }
    let mut kept: Option<Open> = None;
    while let Some(intended) = worker.next(index).await {
        batch.clear();
        batch.add(worker.id(), intended);
        while batch.ids.len() < worker.plan.pipeline {
            let Some(intended) = worker.next(index).await else { break };
            batch.add(worker.id(), intended);
        }
        let mut result = match kept.take() {
            Some(mut open) => {
                let result = batch.exchange(worker, &mut open).await;
                result.map(|keep| keep.then_some(open))
            }
            None => fresh(worker, index, &mut batch).await,
        };
        if let Err((Fault::Retried, what)) = result {
            worker.fault(Fault::Retried, || what);
            result = match fresh(worker, index, &mut batch).await {
                Err((Fault::Retried, what)) => Err((Fault::Broken, what)),
                result => result,
            };
        }
        match result {
            Ok(open) => kept = open,
            Err((fault, what)) => {
                worker.fault(fault, || what);
                // Whoever refuses connections is not to be asked in a circle.
                monoio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

async fn fresh(worker: &Worker, index: usize, batch: &mut Batch) -> Outcome<Option<Open>> {
    let mut open = Open::new(worker, index).await?;
    let keep = batch.exchange(worker, &mut open).await.map_err(|(fault, what)| match fault {
        Fault::Retried => (Fault::Broken, what),
        fault => (fault, what),
    })?;
    if worker.plan.connection_per_request {
        open.finish().await;
        return Ok(None);
    }
    Ok(keep.then_some(open))
}

/// Waits until the run ends, and then until it is an idle connection's turn to ask once more: thousands at the same
/// moment would measure how the origin is overrun.
pub(super) async fn last_turn(worker: &Worker, index: usize) {
    worker.end(index).await;
    monoio::time::sleep(worker.plan.last_turn(index)).await;
}

/// Opens, asks once, stays idle until the run ends, and asks once more to prove that the connection is still there.
async fn idle(worker: &Worker, index: usize, batch: &mut Batch) {
    if !worker.turn(index).await {
        return;
    }
    let first = async {
        batch.add(worker.id(), worker.shared.now());
        let mut open = Open::new(worker, index).await?;
        let keep = batch.exchange(worker, &mut open).await?;
        open.buffer = Room::default();
        if keep { Ok(open) } else { Err((Fault::Broken, "an idle connection was not kept".to_owned())) }
    };
    let first = first.await;
    worker.opened();
    let mut open = match first {
        Ok(open) => open,
        Err((fault, what)) => return worker.fault(fault, || what),
    };
    last_turn(worker, index).await;
    open.buffer = rt::room(worker.plan.body + 1024);
    batch.clear();
    batch.add(worker.id(), worker.shared.now());
    if let Err((fault, _)) = batch.exchange(worker, &mut open).await {
        let fault = if fault == Fault::Retried { Fault::Broken } else { fault };
        worker.fault(fault, || "an idle connection did not live until the end".to_owned());
    }
}

impl Stream {
    pub(super) async fn open(worker: &Worker, connection: usize) -> Outcome<Self> {
        let target = worker.plan.target;
        let tcp = rt::connect(target, worker.source(connection))
            .await
            .map_err(|error| (Fault::Connect, connect_error(target, &error)))?;
        let Some(config) = &worker.tls else { return Ok(Self::Plain(tcp)) };
        let (stream, resumed) = Self::handshake(tcp, config, &worker.plan.host)
            .await
            .map_err(|error| (Fault::Handshake, format!("TLS handshake with {target}: {error}")))?;
        worker.handshake(resumed);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(&id_text(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[test]
    fn heads() {
        let text =
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-bench-ID:  0000000000000001 \r\nConnection: Close\r\n\r\n";
        let id = Some(*b"0000000000000001");
        assert_eq!(parse_head(text), Ok(Head { status: 200, framing: Framing::Length(5), id, close: true }));
        let text = b"HTTP/1.0 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse_head(text), Ok(Head { status: 404, framing: Framing::Chunked, id: None, close: true }));
        for text in [
            &b""[..],
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Bench-Id: 1\r\n\r\n",
        ] {
            assert!(parse_head(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_body_is_compared_however_it_is_cut() {
        let id = id_text(7);
        let mut whole = id.to_vec();
        whole.extend([b'x'; 40]);
        whole.extend(id);
        for cut in 0..=whole.len() {
            for wrong in [None, Some(0), Some(15), Some(16), Some(55), Some(56), Some(71)] {
                let mut bytes = whole.clone();
                if let Some(at) = wrong {
                    bytes[at] ^= 1;
                }
                let mut body = Body { id: &id, expected: whole.len(), seen: 0, right: true };
                body.pass(&bytes[..cut]);
                body.pass(&bytes[cut..]);
                let carries_id = wrong.is_some_and(|at| !(16..56).contains(&at));
                assert_eq!((body.seen, body.right), (whole.len(), !carries_id));
            }
        }
    }
}
