//! Encrypted streams: what reading and writing is where a [`Session`] stands between.

use std::cell::RefCell;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;

use rustix::net::Shutdown;

use super::{Reader, Stream, Writer};
use crate::buffer::{Buf, Class};
use crate::rt::deadline::Tick;
use crate::sys::{self, PeerState};
use crate::tls::{Session, Taken};

impl Stream {
    /// The TLS session, when the stream is encrypted. Borrow it between suspension points only.
    pub fn tls(&self) -> Option<&RefCell<Session>> {
        self.wr.tls.as_deref()
    }

    /// Encrypts the stream: runs the session's handshake until `by`, then reads and writes go through it. Records that
    /// were read already have been fed to the session.
    ///
    /// When it fails the peer has been sent the alert that says why, where there is one.
    pub async fn handshake(&mut self, session: Session, by: Tick) -> Result<(), HandshakeError> {
        let session = Rc::new(RefCell::new(session));
        self.wr.deadline.arm(by, Shutdown::Both);
        let shaken = self.shake(&session).await;
        let late = self.wr.deadline.disarm();
        match shaken {
            Err(HandshakeError::Transport(_)) if late => Err(HandshakeError::Late),
            Err(error) => Err(error),
            Ok(()) => {
                self.rd.tls = Some(Rc::clone(&session));
                self.wr.tls = Some(session);
                Ok(())
            }
        }
    }

    async fn shake(&mut self, session: &RefCell<Session>) -> Result<(), HandshakeError> {
        loop {
            let advanced = session.borrow_mut().advance();
            let flushed = self.wr.flush(session, None).await;
            match advanced {
                // What is left to send after the last message is an alert's or a ticket's.
                Err(error) => return Err(HandshakeError::Protocol(error)),
                Ok(done) => {
                    flushed.map_err(HandshakeError::Transport)?;
                    if done {
                        return Ok(());
                    }
                }
            }
            let (read, raw) = self.rd.read_raw(Buf::new(Class::Head)).await;
            match read {
                Ok(0) => return Err(HandshakeError::Transport(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => session.borrow_mut().feed(raw),
                Err(error) => return Err(HandshakeError::Transport(error)),
            }
        }
    }

    /// Whether the peer has neither sent anything nor ended the connection. Records that bring no plaintext, such as
    /// the tickets of TLS 1.3, are taken on the way.
    pub fn is_quiet(&self) -> bool {
        let state = sys::peer_state(self.fd());
        let Some(session) = &self.rd.tls else { return state == PeerState::Quiet };
        match state {
            PeerState::Quiet => !session.borrow().has_bytes(),
            PeerState::Data => {
                let mut session = session.borrow_mut();
                let mut raw = Buf::new(Class::Head);
                while let Ok(Some(n)) = sys::receive_now(self.fd(), raw.room_mut()) {
                    if n == 0 {
                        return false;
                    }
                    raw.filled(n);
                    if !session.has_bytes() {
                        session.feed(raw);
                    } else {
                        return false;
                    }
                    let mut plain = Buf::new(Class::Head);
                    if !matches!(session.take(&mut plain), Ok(Taken::Nothing)) {
                        return false;
                    }
                    raw = plain;
                }
                sys::peer_state(self.fd()) == PeerState::Quiet
            }
            PeerState::Ended | PeerState::Broken => false,
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took too long")]
    Late,
    /// The connection ended or broke.
    #[error("the connection broke: {0}")]
    Transport(io::Error),
    /// The peer did something that is refused.
    #[error("{0}")]
    Protocol(rustls::Error),
}

impl Reader {
    /// Reads through the session. While it waits, records arrive in the caller's buffer if that is empty, so that a
    /// waiting stream holds one buffer and not two.
    pub(super) async fn read_tls(&mut self, mut buf: Buf, quiet: Option<Tick>) -> (io::Result<Option<usize>>, Buf) {
        assert!(buf.room() > 0, "a read without room would look like the end of the stream");
        let Some(session) = self.tls.clone() else { return (Err(io::ErrorKind::Unsupported.into()), buf) };
        loop {
            let taken = session.borrow_mut().take(&mut buf);
            match taken {
                Ok(Taken::Bytes(n)) => return (Ok(Some(n)), buf),
                Ok(Taken::End) => return (Ok(Some(0)), buf),
                Ok(Taken::Nothing) => self.answer(&session),
                Err(error) => {
                    self.answer(&session);
                    return (Err(error), buf);
                }
            }
            let class = buf.class();
            let partial = session.borrow_mut().partial();
            let begun = partial.as_ref().map_or(0, Buf::len);
            let (raw, kept) = match partial {
                Some(raw) => (raw, Some(buf)),
                None if buf.is_empty() => {
                    let mut raw = buf;
                    raw.clear();
                    (raw, None)
                }
                None => (Buf::new(class), Some(buf)),
            };
            let (read, raw) = match quiet {
                None => {
                    let (read, raw) = self.read_raw(raw).await;
                    (read.map(Some), raw)
                }
                Some(quiet) => self.read_raw_unless_quiet(raw, quiet).await,
            };
            match read {
                Ok(Some(n)) => {
                    buf = kept.unwrap_or_else(|| Buf::new(class));
                    let mut session = session.borrow_mut();
                    if n == 0 { session.end() } else { session.feed(raw) }
                }
                read => {
                    let read = read.map(|_| None);
                    return match kept {
                        Some(buf) => {
                            if begun > 0 {
                                session.borrow_mut().keep(raw);
                            }
                            (read, buf)
                        }
                        None => (read, raw),
                    };
                }
            }
        }
    }

    /// Sends what reading has made the session want to say (an alert, the answer to a key update), if that is possible
    /// at once; otherwise it leaves with the next write.
    fn answer(&self, session: &RefCell<Session>) {
        let mut session = session.borrow_mut();
        if !session.wants_write() {
            return;
        }
        let mut out = Buf::new(Class::Head);
        if session.records(&mut out) {
            let sent = sys::send_now(self.deadline.fd(), out.data());
            session.unsent(&out.data()[sent..]);
        }
    }
}

impl Writer {
    /// Tells a TLS peer that nothing more comes, if it can be told without waiting: a connection that ends without is
    /// taken for cut. One that was reset or shut down takes no more bytes, so it stays cut.
    pub(super) fn say_goodbye(&self) {
        if let Some(session) = &self.tls
            && let Ok(mut session) = session.try_borrow_mut()
            && !session.writing
        {
            session.close();
            let mut out = Buf::new(Class::Head);
            if session.records(&mut out) {
                sys::send_now(self.deadline.fd(), out.data());
            }
        }
    }

    pub(super) async fn write_tls(
        &mut self,
        session: &RefCell<Session>,
        mut buf: Buf,
        len: usize,
    ) -> (io::Result<()>, Buf) {
        let class = Self::class_of(len);
        let mut left = len;
        session.borrow_mut().writing = true;
        let mut written = Ok(());
        while left > 0 && written.is_ok() {
            let mut out = Buf::new(class);
            let encrypted = session.borrow_mut().encrypt(&buf.data()[..left], &mut out);
            match encrypted {
                Ok(n) => {
                    buf.consume(n);
                    left -= n;
                }
                Err(error) => {
                    // No record has been cut, so that an alert may follow.
                    session.borrow_mut().writing = false;
                    return (Err(error), buf);
                }
            }
            let sent = out.len();
            written = self.write_raw_within(out, sent, self.stall).await.0;
        }
        // After a failure a record may have been cut: nothing may follow it.
        session.borrow_mut().writing = written.is_err();
        if written.is_ok() && session.borrow().wants_write() {
            written = self.flush(session, self.stall).await;
        }
        (written, buf)
    }

    /// Whether a write of so much is worth encrypting where it stands: more than goes into one small buffer.
    pub(super) fn in_place(&self, buf: &Buf, len: usize) -> bool {
        // The byte behind a record's makes place while that is encrypted.
        self.tls.is_some() && Self::class_of(len) == Class::Records && buf.goes_on_behind(len)
    }

    pub(super) async fn write_in_place(&mut self, buf: Buf, len: usize) -> (io::Result<()>, Buf) {
        let Some(session) = self.tls.clone() else { return (Err(io::ErrorKind::Unsupported.into()), buf) };
        let (encrypted, laced) = session.borrow_mut().encrypt_in_place(buf, len);
        if encrypted.is_err() {
            return (encrypted, laced.into_buf());
        }
        session.borrow_mut().writing = true;
        let (mut written, laced) = self.write_laced(laced, self.stall).await;
        let buf = laced.into_buf();
        // After a failure a record may have been cut: nothing may follow it.
        session.borrow_mut().writing = written.is_err();
        if written.is_ok() && session.borrow().wants_write() {
            written = self.flush(&session, self.stall).await;
        }
        (written, buf)
    }

    /// A record adds at most 29 bytes (TLS 1.2: 5 in front, 8 of nonce, 16 of tag) to 16 KiB of plaintext.
    fn class_of(len: usize) -> Class {
        const SMALL: usize = Class::Head.capacity() - 512;
        if len <= SMALL { Class::Head } else { Class::Records }
    }

    /// Sends the session's own records: of the handshake, alerts, answers to key updates.
    pub(super) async fn flush(&mut self, session: &RefCell<Session>, stall: Option<NonZeroU32>) -> io::Result<()> {
        session.borrow_mut().writing = true;
        let mut written = Ok(());
        while written.is_ok() {
            let mut out = Buf::new(Class::Head);
            if !session.borrow_mut().records(&mut out) {
                break;
            }
            let len = out.len();
            let (sent, _out) = self.write_raw_within(out, len, stall).await;
            written = sent;
        }
        // After a failure a record may have been cut: nothing may follow it.
        session.borrow_mut().writing = written.is_err();
        written
    }
}
