//! One TLS connection without its socket: records go in and out by buffers, plaintext by the caller's.
//!
//! `rt::Stream` moves the bytes. A session holds ciphertext only between a read that brought more than was asked for
//! and the call that takes the rest; while a connection waits it holds none, and neither does the library beyond the
//! four KiB of its record assembler.

use std::io::{self, Read as _, Write as _};

use rustls::{Connection, HandshakeKind, ProtocolVersion};

use crate::buffer::Buf;

/// A connection's state.
#[derive(Debug)]
pub struct Session {
    conn: Connection,
    /// Records that have been read and not yet processed; never empty.
    raw: Option<Buf>,
    /// Plaintext may be waiting: the last caller had no room for more.
    more: bool,
    /// The transport has ended.
    eof: bool,
    /// What the peer has done wrong; nothing is read after it.
    fault: Option<rustls::Error>,
    /// Records are on their way to the socket: none may be put in between.
    pub(crate) writing: bool,
    /// Records that the socket did not take when they were offered to it in passing.
    unsent: Vec<u8>,
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

impl Session {
    /// Around a connection that has not exchanged anything yet.
    pub fn new(conn: impl Into<Connection>) -> Self {
        let mut conn = conn.into();
        // What is encrypted is bounded by the buffers of whoever writes.
        conn.set_buffer_limit(None);
        Self { conn, raw: None, more: false, eof: false, fault: None, writing: false, unsent: Vec::new() }
    }

    /// Gives it records that were read.
    pub fn feed(&mut self, raw: Buf) {
        debug_assert!(self.raw.is_none(), "what was read is taken before more is read");
        self.raw = (!raw.is_empty()).then_some(raw);
    }

    /// The transport has ended.
    pub fn end(&mut self) {
        self.eof = true;
    }

    /// Whether [`Session::take`] might find something without another read.
    pub fn has_bytes(&self) -> bool {
        self.more || self.raw.is_some()
    }

    /// Moves plaintext into the room of `into`, of which there must be some. An end of the transport without the
    /// peer's close_notify is `UnexpectedEof` (RFC 8446 section 6.1: truncation), a record that breaks the protocol
    /// `InvalidData`; the alert for the latter is among the records to send.
    pub fn take(&mut self, into: &mut Buf) -> io::Result<Taken> {
        self.more = false;
        let mut total = 0;
        loop {
            match self.conn.reader().read(into.room_mut()) {
                Ok(0) => {
                    self.raw = None;
                    return Ok(if total > 0 { Taken::Bytes(total) } else { Taken::End });
                }
                Ok(n) => {
                    into.filled(n);
                    total += n;
                    if into.room() == 0 {
                        self.more = true;
                        return Ok(Taken::Bytes(total));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.process() {
                Ok(true) => {}
                Ok(false) if total > 0 => return Ok(Taken::Bytes(total)),
                Ok(false) if self.eof => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(false) => return Ok(Taken::Nothing),
                Err(_) if total > 0 => {
                    // What came before the fault is good; the fault is found again by the next call.
                    self.more = true;
                    return Ok(Taken::Bytes(total));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Processes records until the handshake is over or more are needed; says whether it is over.
    pub fn advance(&mut self) -> Result<bool, rustls::Error> {
        while self.conn.is_handshaking() {
            if !self.process()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Processes a piece of what was read; `false` when there is none.
    fn process(&mut self) -> Result<bool, rustls::Error> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let processed = self.process_some();
        if let Err(fault) = &processed {
            self.fault = Some(fault.clone());
            self.raw = None;
        }
        processed
    }

    fn process_some(&mut self) -> Result<bool, rustls::Error> {
        let Some(raw) = &mut self.raw else { return Ok(false) };
        let mut rest = raw.data();
        let before = rest.len();
        let read = self.conn.read_tls(&mut rest);
        let taken = before - rest.len();
        raw.consume(taken);
        if raw.is_empty() || taken == 0 {
            // Nothing is taken once the peer has closed; what it sends behind that means nothing.
            self.raw = None;
        }
        if read.is_err() {
            return Err(rustls::Error::General("a record without end".to_owned()));
        }
        self.conn.process_new_packets()?;
        Ok(true)
    }

    /// Encrypts.
    pub fn encrypt(&mut self, plain: &[u8]) -> io::Result<()> {
        self.conn.writer().write_all(plain)
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        self.conn.send_close_notify();
    }

    /// Moves records that are to be sent into the room of `out`; whether there were any.
    pub fn records(&mut self, out: &mut Buf) -> bool {
        if !self.unsent.is_empty() {
            let n = self.unsent.len().min(out.room());
            let fits = out.push(&self.unsent[..n]);
            debug_assert!(fits, "no more than there is room for");
            self.unsent.drain(..n);
        }
        while self.conn.wants_write() && out.room() > 0 {
            // Copying into a buffer does not fail.
            let _copied = self.conn.write_tls(&mut Room(out));
        }
        !out.is_empty()
    }

    /// Takes records back that were not sent; they go first.
    pub fn unsent(&mut self, rest: &[u8]) {
        self.unsent.splice(0..0, rest.iter().copied());
    }

    /// Whether there are records to send that nobody is sending.
    pub fn wants_write(&self) -> bool {
        !self.writing && self.conn.wants_write()
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<Version> {
        match self.conn.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn.alpn_protocol()
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The library's connection.
    pub fn connection(&self) -> &Connection {
        &self.conn
    }
}

/// A buffer's room as something to write to.
struct Room<'b>(&'b mut Buf);

impl io::Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.room_mut();
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.0.filled(n);
        Ok(n)
    }

    fn write_vectored(&mut self, all: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for bytes in all {
            let n = self.write(bytes)?;
            total += n;
            if n < bytes.len() {
                break;
            }
        }
        Ok(total)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
