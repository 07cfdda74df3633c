//! One TLS connection without its socket: records go in and out by buffers, plaintext by the caller's.
//!
//! `rt::Stream` moves the bytes. rustls shakes hands, by its unbuffered interface: its buffered one keeps 4 KiB per
//! connection for incoming records. When it is done the records are our own ([`Records`]): they are opened where they
//! were read, and sealed where their plaintext stands.
//!
//! A session holds ciphertext only between a read that brought more than was asked for, or less than a record, and the
//! call that takes the rest.

use std::fmt;
use std::io;

use ringway_core::tls::established::Heard;
use ringway_core::tls::record::{ContentType, Fault, HEADER, MAX_PLAIN, OVERHEAD};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

use super::records::Records;
use crate::buffer::{Buf, Class, Laced};

/// An alert's levels (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const NO_RENEGOTIATION: u8 = 100;

/// Who makes and reads records.
enum Conn {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    /// The handshake is over.
    Established(Box<Records>),
    /// The handshake has failed where it was over for the library.
    Failed,
}

/// A connection's state.
pub struct Session {
    conn: Conn,
    /// What the handshake has come to.
    agreed: Option<Agreed>,
    /// Records that have been read and not yet processed, behind plaintext that the last caller had no room for; never
    /// empty.
    raw: Option<Buf>,
    /// How far into `raw` the library has seen: the end of a record. Whoever established the connection must not see
    /// records that come after.
    shown: usize,
    /// `raw` has been looked at, and more is needed.
    starved: bool,
    /// Plaintext at the front of `raw`, and what follows it of its record.
    opened: (usize, usize),
    /// There may be more to take: the last caller had no room, or there is an end or a fault behind what it got.
    more: bool,
    /// The peer has said that it will send no more.
    closed: bool,
    /// So have we.
    finished: bool,
    /// The transport has ended.
    eof: bool,
    /// What the peer has done wrong; nothing is read after it.
    fault: Option<Fault>,
    /// Records are on their way to the socket: none may be put in between.
    pub(crate) writing: bool,
    /// Records that are no data's, and such as the socket did not take when they were offered to it in passing.
    unsent: Vec<u8>,
}

/// What a handshake has come to.
#[derive(Debug)]
struct Agreed {
    version: Version,
    suite: CipherSuite,
    resumed: bool,
    alpn: Option<Box<[u8]>>,
    /// Those of a client that has shown some.
    certificates: Option<Box<[CertificateDer<'static>]>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.closed).field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// What one call of the library came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It may have more to say or to do.
    Again,
    /// It needs another record.
    Needs,
    /// It could send data, and needs another record if the handshake is not over.
    Open,
    /// The peer has closed its direction.
    Ended,
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
        Self::new(Conn::Client(Box::new(conn)))
    }
}

impl From<UnbufferedServerConnection> for Session {
    fn from(conn: UnbufferedServerConnection) -> Self {
        Self::new(Conn::Server(Box::new(conn)))
    }
}

impl Session {
    /// Around a connection that has not exchanged anything yet.
    fn new(conn: Conn) -> Self {
        Self {
            conn,
            agreed: None,
            raw: None,
            shown: 0,
            starved: false,
            opened: (0, 0),
            more: false,
            closed: false,
            finished: false,
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
            self.fail(Fault::Decode("a handshake message without end"));
        }
    }

    /// The beginning of a record, to read the rest of it behind it and to feed both: there is room for the rest.
    pub fn partial(&mut self) -> Option<Buf> {
        if !self.starved || !matches!(self.conn, Conn::Established(_)) {
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
        self.more || (self.raw.is_some() && !self.starved)
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
            if self.fault.is_none() && !self.closed && self.open_next() {
                continue;
            }
            if total > 0 {
                // What came before an end or a fault is good; that is found again by the next call.
                self.more = self.fault.is_some() || self.closed;
                return Ok(Taken::Bytes(total));
            }
            return match self.fault {
                Some(fault) => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
                None if self.closed => Ok(Taken::End),
                None if self.eof => Err(io::ErrorKind::UnexpectedEof.into()),
                None => Ok(Taken::Nothing),
            };
        }
    }

    /// Moves what has been opened into `into`.
    fn unpack(&mut self, into: &mut Buf) -> usize {
        let (left, behind) = self.opened;
        let Some(raw) = self.raw.as_mut().filter(|_| left > 0) else { return 0 };
        let n = left.min(into.room());
        let fits = into.push(&raw.data()[..n]);
        debug_assert!(fits, "no more than there is room for");
        if n < left {
            raw.consume(n);
            self.opened.0 -= n;
        } else {
            self.discard(n + behind);
        }
        n
    }

    /// Takes bytes off the front of `raw` that are done with.
    fn discard(&mut self, n: usize) {
        self.opened = (0, 0);
        if let Some(raw) = &mut self.raw {
            raw.consume(n);
            if raw.is_empty() {
                self.raw = None;
            }
        }
    }

    /// Opens the next record, if it is there, and does what it asks for; says whether to go on.
    fn open_next(&mut self) -> bool {
        let (Conn::Established(records), Some(raw)) = (&mut self.conn, &mut self.raw) else { return false };
        let opened = match records.open(raw.data_mut()) {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                self.starved = true;
                return false;
            }
            Err(fault) => {
                self.fail(fault);
                return false;
            }
        };
        if opened.heard == Heard::Data {
            raw.consume(opened.at);
            self.opened = (opened.data, opened.len - opened.at - opened.data);
            return true;
        }
        self.discard(opened.len);
        match opened.heard {
            Heard::End => {
                self.closed = true;
                self.raw = None;
                return false;
            }
            Heard::Renegotiation => self.say(WARNING, NO_RENEGOTIATION),
            // That our keys are to change as well is seen to when there is data to be sent.
            Heard::Data | Heard::Nothing | Heard::Update { .. } => {}
        }
        true
    }

    /// Nothing is read any more; the peer is told why.
    fn fail(&mut self, fault: Fault) {
        self.raw = None;
        self.opened = (0, 0);
        if let Some(alert) = fault.alert()
            && !self.finished
        {
            self.say(FATAL, alert);
        }
        self.finished = true;
        self.fault = Some(fault);
    }

    fn say(&mut self, level: u8, alert: u8) {
        if let Conn::Established(records) = &mut self.conn
            && let Ok(record) = records.sealed(ContentType::Alert, &[level, alert])
        {
            self.unsent.extend_from_slice(&record);
        }
    }

    /// Processes records until the handshake is over or more are needed; says whether it is over.
    pub fn advance(&mut self) -> Result<bool, rustls::Error> {
        loop {
            if let Some(fault) = self.fault {
                return Err(rustls::Error::General(fault.to_string()));
            }
            if matches!(self.conn, Conn::Established(_)) {
                return Ok(true);
            }
            let step = match self.step() {
                Ok(step) => step,
                Err(error) => {
                    // The alert, and what was to be sent before it. The library hands out what waits before it looks
                    // at records; it must not look at these again.
                    while self.library().is_some_and(CommonState::wants_write) && self.step().is_ok() {}
                    self.raw = None;
                    self.fault = Some(Fault::Unexpected("the handshake has failed"));
                    return Err(error);
                }
            };
            match step {
                Step::Again => {}
                Step::Open if self.library().is_some_and(|library| !library.is_handshaking()) => self.establish()?,
                Step::Needs | Step::Open => {
                    if !self.show() {
                        return Ok(false);
                    }
                }
                Step::Ended => {
                    self.closed = true;
                    self.raw = None;
                    return Ok(false);
                }
            }
        }
    }

    /// Calls the library once.
    fn step(&mut self) -> Result<Step, rustls::Error> {
        let window = match &mut self.raw {
            Some(raw) => {
                let shown = self.shown.min(raw.len());
                &mut raw.data_mut()[..shown]
            }
            None => &mut [],
        };
        let unsent = &mut self.unsent;
        let (discard, step) = match &mut self.conn {
            Conn::Client(conn) => handle(conn.process_tls_records(window), unsent),
            Conn::Server(conn) => handle(conn.process_tls_records(window), unsent),
            Conn::Established(_) | Conn::Failed => return Err(rustls::Error::HandshakeNotComplete),
        };
        self.shown -= discard;
        self.discard(discard);
        step
    }

    /// Shows the library another record; says whether there is any of it.
    fn show(&mut self) -> bool {
        let data = self.raw.as_ref().map_or(&[][..], Buf::data);
        let more = data.get(self.shown..).and_then(record_len);
        self.shown += more.unwrap_or(0);
        self.starved = more.is_none() && !data.is_empty();
        more.is_some()
    }

    /// The library has shaken hands; records are our own from here on.
    fn establish(&mut self) -> Result<(), rustls::Error> {
        let server = matches!(self.conn, Conn::Server(_));
        let Some(library) = self.library() else { return Ok(()) };
        let alpn = library.alpn_protocol().map(Box::from);
        let suite = library.negotiated_cipher_suite().ok_or(rustls::Error::HandshakeNotComplete)?;
        let version = match library.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        };
        let resumed = library.handshake_kind() == Some(HandshakeKind::Resumed);
        let certificates = library.peer_certificates().filter(|_| server).map(Box::from);
        let records = match std::mem::replace(&mut self.conn, Conn::Failed) {
            Conn::Client(conn) => Records::of_client(*conn)?,
            Conn::Server(conn) => Records::of_server(*conn)?,
            Conn::Established(_) | Conn::Failed => return Ok(()),
        };
        self.conn = Conn::Established(Box::new(records));
        self.agreed = Some(Agreed { version, suite: suite.suite(), resumed, alpn, certificates });
        self.starved = false;
        if self.shown > 0 {
            // A message has begun in the last record of the handshake, and would go on in others.
            self.shown = 0;
            self.fail(Fault::Unexpected("a handshake message after the handshake"));
        }
        Ok(())
    }

    /// The library, as long as it shakes hands.
    fn library(&self) -> Option<&CommonState> {
        Some(match &self.conn {
            Conn::Client(conn) => conn,
            Conn::Server(conn) => conn,
            Conn::Established(_) | Conn::Failed => return None,
        })
    }

    /// The records, for who may send data.
    fn writer(&mut self) -> Result<&mut Records, Fault> {
        match &mut self.conn {
            Conn::Established(records) if !self.finished => Ok(records),
            _ => Err(self.fault.unwrap_or(Fault::Unexpected("there is no connection to send on"))),
        }
    }

    /// Encrypts from the front of `plain` as much as there is room for in `out`, behind what was to be sent before it;
    /// returns how much.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<usize> {
        self.writer().map_err(io::Error::other)?;
        drain(&mut self.unsent, out);
        if !self.unsent.is_empty() {
            return Ok(0);
        }
        let mut left = plain;
        while !left.is_empty() {
            let sealed = self.writer().and_then(|records| {
                if let Some(record) = records.before_data()? {
                    // It fits where a record of data does, or goes before the next one.
                    return Ok(Some(record));
                }
                let n = left.len().min(MAX_PLAIN).min(out.room().saturating_sub(records.overhead()));
                if n > 0 {
                    let len = records.seal(ContentType::ApplicationData, &left[..n], out.room_mut())?;
                    out.filled(len);
                }
                left = &left[n..];
                Ok(None)
            });
            match sealed {
                Ok(Some(record)) => self.unsent.extend_from_slice(&record),
                Ok(None) => {}
                Err(_) if left.len() < plain.len() => break,
                Err(fault) => return Err(io::Error::other(fault)),
            }
            drain(&mut self.unsent, out);
            if !self.unsent.is_empty() || out.room() <= OVERHEAD {
                break;
            }
        }
        Ok(plain.len() - left.len())
    }

    /// Encrypts the first `len` bytes of the window where they stand, for one write together with what was to be sent
    /// before them; they are of no other use then. There must be another byte behind them in the buffer's block.
    pub fn encrypt_in_place(&mut self, plain: Buf, len: usize) -> (io::Result<()>, Laced) {
        let mut laced = Laced::new(plain);
        let ready = self
            .writer()
            .and_then(|records| if records.may_seal(len.div_ceil(MAX_PLAIN)) { Ok(()) } else { Err(Fault::Exhausted) });
        if let Err(fault) = ready {
            return (Err(io::Error::other(fault)), laced);
        }
        laced.put(&std::mem::take(&mut self.unsent));
        let encrypted = self.writer().and_then(|records| {
            let mut at = 0;
            while at < len {
                if let Some(record) = records.before_data()? {
                    laced.put(&record);
                }
                let n = (len - at).min(MAX_PLAIN);
                let buf = laced.buf_mut();
                let start = buf.mark() + at;
                let sealed = records.seal_in_place(buf.block_mut(), start, n)?;
                laced.put(sealed.before());
                laced.pass(n);
                laced.put(sealed.behind());
                at += n;
            }
            Ok(())
        });
        (encrypted.map_err(io::Error::other), laced)
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        // Where the handshake is not over, or has failed, there is nothing to end.
        if !self.finished {
            self.say(WARNING, CLOSE_NOTIFY);
            self.finished = matches!(self.conn, Conn::Established(_));
        }
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
        self.agreed.as_ref().map(|agreed| agreed.version)
    }

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.agreed.as_ref()?.alpn.as_deref()
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.resumed)
    }

    /// The name of the cipher suite that was agreed on.
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.agreed.as_ref()?.suite.as_str()
    }

    /// The certificates that a client has shown, its own first. They are given once: nobody asks again.
    pub fn take_certificates(&mut self) -> Option<Box<[CertificateDer<'static>]>> {
        self.agreed.as_mut()?.certificates.take()
    }
}

/// Carries out what the library says; returns how many bytes of the records it is done with.
fn handle<D>(status: UnbufferedStatus<'_, '_, D>, unsent: &mut Vec<u8>) -> (usize, Result<Step, rustls::Error>) {
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut record)) => {
            let at = unsent.len();
            let len = match record.encode(&mut []) {
                Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
            };
            unsent.resize(at + len, 0);
            // It fits: it said how long it is.
            let _written = record.encode(&mut unsent[at..]);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => Ok(Step::Needs),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Open),
        Ok(_) => Err(rustls::Error::General("data amid the handshake".to_owned())),
    };
    (status.discard, step)
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
