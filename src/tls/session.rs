//! One TLS connection without its socket: records go in and out by buffers, plaintext by the caller's.
//!
//! `rt::Stream` moves the bytes. The library's unbuffered interface is what makes a waiting connection small: records are
//! opened where they were read and written where they are sent from. Its buffered one keeps 4 KiB per connection for
//! incoming records: an idle connection took 10,060 bytes with it and takes 5,710 without, measured together. CPU per
//! request did not differ.
//!
//! A session holds ciphertext only between a read that brought more than was asked for, or less than a record, and the
//! call that takes the rest.

use std::fmt;
use std::io;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use crate::buffer::{Buf, Class};

/// Bytes in front of a record's payload.
const HEADER: usize = 5;
/// Plaintext of one record (RFC 8446 section 5.1).
const RECORD: usize = 16 << 10;
/// What a record adds to its plaintext, at most: header, nonce, content type and tag of every suite, rounded up.
const OVERHEAD: usize = 40;
/// Room for a key update that the library puts before the plaintext.
const RESERVE: usize = 128;

/// The library's connection.
enum Conn {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// A connection's state.
pub struct Session {
    conn: Conn,
    /// Records that have been read and not yet processed; never empty.
    raw: Option<Buf>,
    /// `raw` has been looked at, and more is needed.
    starved: bool,
    /// The library remembers no place in `raw`: it stands between handshake messages, and may be called without `raw`.
    between: bool,
    /// Plaintext that the last caller had no room for, from `plain_at` on.
    plain: Vec<u8>,
    plain_at: usize,
    /// There may be more to take: the last caller had no room, or there is an end or a fault behind what it got.
    more: bool,
    /// The peer has said that it will send no more.
    closed: bool,
    /// The transport has ended.
    eof: bool,
    /// What the peer has done wrong; nothing is read after it.
    fault: Option<rustls::Error>,
    /// Records are on their way to the socket: none may be put in between.
    pub(crate) writing: bool,
    /// Records of the library's own, and such as the socket did not take when they were offered to it in passing.
    unsent: Vec<u8>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.closed).field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// What the library is asked for.
enum Op<'a> {
    /// Plaintext, into the buffer as far as there is room.
    Read(Option<&'a mut Buf>),
    /// Records of as much of the plaintext as there is room for.
    Write(&'a [u8], &'a mut Buf),
    /// The alert that says that nothing more will be sent.
    Close,
}

/// What one call of the library came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// So much plaintext was put into the caller's buffer; what did not fit there is kept.
    Plain(usize),
    /// A record of the library's own waits to be sent, or was noted as such.
    Again,
    /// The peer has closed its direction.
    Ended,
    /// More records are needed.
    Idle,
    /// So much plaintext was encrypted, or the alert was queued.
    Wrote(usize),
}

/// What [`Session::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The peer has said that it will send no more.
    End,
    /// Nothing yet: more records are needed.
    Nothing,
}

/// The protocol's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

impl Version {
    /// As metrics and the echo write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl From<UnbufferedClientConnection> for Session {
    fn from(conn: UnbufferedClientConnection) -> Self {
        Self::new(Conn::Client(conn))
    }
}

impl From<UnbufferedServerConnection> for Session {
    fn from(conn: UnbufferedServerConnection) -> Self {
        Self::new(Conn::Server(conn))
    }
}

impl Session {
    /// Around a connection that has not exchanged anything yet.
    fn new(conn: Conn) -> Self {
        Self {
            conn,
            raw: None,
            starved: false,
            between: true,
            plain: Vec::new(),
            plain_at: 0,
            more: false,
            closed: false,
            eof: false,
            fault: None,
            writing: false,
            unsent: Vec::new(),
        }
    }

    /// Gives it records that were read, behind those that it has.
    pub fn feed(&mut self, raw: Buf) {
        if raw.is_empty() || self.closed || self.fault.is_some() {
            return;
        }
        self.starved = false;
        self.raw = match self.raw.take() {
            None => Some(raw),
            Some(old) => join(old, raw),
        };
        if self.raw.is_none() {
            self.fault = Some(rustls::Error::General("a handshake message without end".to_owned()));
        }
    }

    /// The beginning of a record, to read the rest of it behind it and to feed both: there is room for the rest.
    pub fn partial(&mut self) -> Option<Buf> {
        if !self.starved || !self.between {
            return None;
        }
        let mut raw = self.raw.take()?;
        self.starved = false;
        raw.compact();
        if record_len(raw.data()).unwrap_or(HEADER) <= raw.len() + raw.room() {
            return Some(raw);
        }
        let mut larger = Buf::new(Class::Body);
        let _fits = larger.push(raw.data());
        Some(larger)
    }

    /// Takes back what [`Session::partial`] gave, nothing having been read.
    pub fn keep(&mut self, partial: Buf) {
        self.feed(partial);
        self.starved = self.raw.is_some();
    }

    /// The transport has ended.
    pub fn end(&mut self) {
        self.eof = true;
    }

    /// Whether [`Session::take`] might find something without another read.
    pub fn has_bytes(&self) -> bool {
        self.more || !self.plain.is_empty() || (self.raw.is_some() && !self.starved)
    }

    /// Moves plaintext into the room of `into`, of which there must be some. An end of the transport without the
    /// peer's close_notify is `UnexpectedEof` (RFC 8446 section 6.1: truncation), a record that breaks the protocol
    /// `InvalidData`; the alert for the latter is among the records to send.
    pub fn take(&mut self, into: &mut Buf) -> io::Result<Taken> {
        self.more = false;
        let mut total = 0;
        loop {
            total += self.unpack(into);
            if into.room() == 0 {
                self.more = true;
                return Ok(Taken::Bytes(total));
            }
            let found = if self.closed {
                Ok(Event::Ended)
            } else if self.fault.is_none() && (self.raw.is_none() || self.starved) {
                Ok(Event::Idle)
            } else {
                self.drive(Op::Read(Some(into)))
            };
            match found {
                Ok(Event::Plain(n)) => total += n,
                Ok(Event::Idle) if total > 0 => return Ok(Taken::Bytes(total)),
                _ if total > 0 => {
                    // What came before the end or the fault is good; that is found again by the next call.
                    self.more = true;
                    return Ok(Taken::Bytes(total));
                }
                Ok(Event::Ended) => return Ok(Taken::End),
                Ok(_) if self.eof => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(Taken::Nothing),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Moves kept plaintext into `into`.
    fn unpack(&mut self, into: &mut Buf) -> usize {
        if self.plain.is_empty() {
            return 0;
        }
        let rest = &self.plain[self.plain_at..];
        let n = rest.len().min(into.room());
        let fits = into.push(&rest[..n]);
        debug_assert!(fits, "no more than there is room for");
        self.plain_at += n;
        if self.plain_at == self.plain.len() {
            self.plain = Vec::new();
            self.plain_at = 0;
        }
        n
    }

    /// Processes records until the handshake is over or more are needed; says whether it is over.
    pub fn advance(&mut self) -> Result<bool, rustls::Error> {
        while self.state().is_handshaking() {
            match self.drive(Op::Read(None))? {
                Event::Idle | Event::Ended => return Ok(!self.state().is_handshaking()),
                Event::Plain(_) | Event::Again | Event::Wrote(_) => {}
            }
        }
        Ok(true)
    }

    /// Calls the library until it has come to something.
    fn drive(&mut self, mut op: Op<'_>) -> Result<Event, rustls::Error> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        loop {
            // Who writes leaves alone what has been read, so that it need not be kept, except where the library has to
            // see a handshake message's beginning again.
            let look = matches!(op, Op::Read(_)) || !self.between;
            let event = match self.step(&mut op, look) {
                Ok(event) => event,
                Err(error) => {
                    // The alert, and what was to be sent before it. The library hands out what waits before it looks
                    // at records; it must not look at these again.
                    while self.state().wants_write() && self.step(&mut Op::Read(None), true).is_ok() {}
                    self.fault = Some(error.clone());
                    self.raw = None;
                    return Err(error);
                }
            };
            match event {
                Event::Again => continue,
                Event::Plain(_) => self.between = true,
                Event::Idle if look => {
                    let data = self.raw.as_ref().map_or(&[][..], Buf::data);
                    // A whole record that stays is part of a message whose rest is to come.
                    self.between = record_len(data).is_none_or(|len| len > data.len());
                    self.starved = self.raw.is_some();
                }
                Event::Ended => {
                    self.closed = true;
                    self.between = true;
                    self.raw = None;
                }
                Event::Idle | Event::Wrote(_) => {}
            }
            if !matches!((&op, event), (Op::Write(..) | Op::Close, Event::Plain(_) | Event::Ended)) {
                return Ok(event);
            }
        }
    }

    fn step(&mut self, op: &mut Op<'_>, look: bool) -> Result<Event, rustls::Error> {
        let window = match &mut self.raw {
            Some(raw) if look => raw.data_mut(),
            _ => &mut [],
        };
        let (plain, unsent) = (&mut self.plain, &mut self.unsent);
        let (discard, event) = match &mut self.conn {
            Conn::Client(conn) => handle(conn.process_tls_records(window), op, plain, unsent),
            Conn::Server(conn) => handle(conn.process_tls_records(window), op, plain, unsent),
        };
        if let Some(raw) = &mut self.raw {
            raw.consume(discard);
            if raw.is_empty() {
                self.raw = None;
            }
        }
        event
    }

    /// Encrypts from the front of `plain` as much as there is room for in `out`, behind what was to be sent before it;
    /// returns how much.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<usize> {
        match self.drive(Op::Write(plain, out)) {
            Ok(Event::Wrote(n)) => Ok(n),
            Ok(_) => Err(io::ErrorKind::NotConnected.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        // Where the handshake is not over, or has failed, there is nothing to end.
        let _said = self.drive(Op::Close);
    }

    /// Moves records that are to be sent into the room of `out`; whether there were any.
    pub fn records(&mut self, out: &mut Buf) -> bool {
        drain(&mut self.unsent, out);
        !out.is_empty()
    }

    /// Takes records back that were not sent; they go first.
    pub fn unsent(&mut self, rest: &[u8]) {
        self.unsent.splice(0..0, rest.iter().copied());
    }

    /// Whether there are records to send that nobody is sending.
    pub fn wants_write(&self) -> bool {
        !self.writing && !self.unsent.is_empty()
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<Version> {
        match self.state().protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What the library knows of the connection.
    pub fn state(&self) -> &CommonState {
        match &self.conn {
            Conn::Client(conn) => conn,
            Conn::Server(conn) => conn,
        }
    }
}

/// Carries out what the library says; returns how many bytes of the records it is done with.
fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    op: &mut Op<'_>,
    plain: &mut Vec<u8>,
    unsent: &mut Vec<u8>,
) -> (usize, Result<Event, rustls::Error>) {
    let mut discard = status.discard;
    let event = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut total = 0;
            let mut fault = None;
            while let Some(record) = traffic.next_record() {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => {
                        fault = Some(error);
                        break;
                    }
                };
                discard += record.discard;
                let mut payload = record.payload;
                if let Op::Read(Some(into)) = op
                    && plain.is_empty()
                {
                    let (now, later) = payload.split_at(payload.len().min(into.room()));
                    let fits = into.push(now);
                    debug_assert!(fits, "no more than there is room for");
                    total += now.len();
                    payload = later;
                }
                plain.extend_from_slice(payload);
            }
            fault.map_or(Ok(Event::Plain(total)), Err)
        }
        Ok(ConnectionState::EncodeTlsData(mut record)) => {
            let at = unsent.len();
            let len = match record.encode(&mut []) {
                Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
            };
            unsent.resize(at + len, 0);
            // It fits: it said how long it is.
            let _written = record.encode(&mut unsent[at..]);
            Ok(Event::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Event::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Event::Ended),
        Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => Ok(Event::Idle),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match op {
            Op::Read(_) => Ok(Event::Idle),
            Op::Close => {
                let mut alert = [0; RESERVE];
                match traffic.queue_close_notify(&mut alert) {
                    Ok(len) => {
                        unsent.extend_from_slice(&alert[..len]);
                        Ok(Event::Wrote(0))
                    }
                    Err(error) => Err(rustls::Error::General(error.to_string())),
                }
            }
            Op::Write(plain, out) => {
                drain(unsent, out);
                let mut n = fitting(out.room()).min(plain.len());
                loop {
                    if !unsent.is_empty() || n == 0 {
                        break Ok(Event::Wrote(0));
                    }
                    match traffic.encrypt(&plain[..n], out.room_mut()) {
                        Ok(len) => {
                            out.filled(len);
                            break Ok(Event::Wrote(n));
                        }
                        // The library was told to cut smaller records.
                        Err(EncryptError::InsufficientSize(_)) => n /= 2,
                        Err(error) => break Err(rustls::Error::General(error.to_string())),
                    }
                }
            }
        },
        Ok(_) => Err(rustls::Error::General("early data, which is off".to_owned())),
    };
    (discard, event)
}

/// Plaintext whose records fit into `room`.
const fn fitting(room: usize) -> usize {
    let room = room.saturating_sub(RESERVE);
    room / (RECORD + OVERHEAD) * RECORD + (room % (RECORD + OVERHEAD)).saturating_sub(OVERHEAD)
}

/// Length of the record that `data` begins with, its header included.
fn record_len(data: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = data else { return None };
    Some(HEADER + usize::from(u16::from_be_bytes([high, low])))
}

/// One buffer for both; none when they are longer than any.
fn join(mut old: Buf, new: Buf) -> Option<Buf> {
    old.compact();
    if old.push(new.data()) {
        return Some(old);
    }
    let all = old.len() + new.len();
    let class = [Class::Body, Class::Records].into_iter().find(|class| class.capacity() >= all)?;
    let mut joined = Buf::new(class);
    (joined.push(old.data()) && joined.push(new.data())).then_some(joined)
}

/// Moves what fits from `from` into `out`.
fn drain(from: &mut Vec<u8>, out: &mut Buf) {
    let n = from.len().min(out.room());
    let fits = out.push(&from[..n]);
    debug_assert!(fits, "no more than there is room for");
    if n == from.len() {
        // Its memory goes with it: a connection sends such records rarely.
        *from = Vec::new();
    } else {
        from.drain(..n);
    }
}

#[cfg(test)]
mod tests;
