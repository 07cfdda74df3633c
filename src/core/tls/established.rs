//! What may come once a handshake is over: data, alerts, and the few handshake messages that are left.

use super::record::{ContentType, Fault};

/// The message by which a side changes the keys that it sends by, without asking the other to do so as well
/// (RFC 8446 section 4.6.3).
pub const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Records without anything in them that may come in a row.
const EMPTY: u8 = 32;
/// Handshake messages that may come without data between them.
const MESSAGES: u8 = 32;
/// Warnings that are let pass.
const WARNINGS: u8 = 4;
/// The longest ticket (RFC 8446 section 4.6.1): one that is longer is nobody's.
const MAX_TICKET: usize = 0xffff;
/// The longest hello that is let pass, to be told that there is no other handshake.
const MAX_HELLO: usize = 16 << 10;

/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE_TYPE: u8 = 24;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that began it.
    Client,
    /// The other.
    Server,
}

/// The peer's side of an established connection.
#[derive(Debug)]
pub struct Peer {
    /// This side, which is not the peer's.
    side: Side,
    tls13: bool,
    /// A handshake message whose rest is to come in the next record.
    begun: Vec<u8>,
    empty: u8,
    messages: u8,
    warnings: u8,
    /// It has asked for another handshake, and has been told that there is none.
    refused: bool,
}

/// What a record has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Data: the record's text, which is not empty.
    Data,
    /// Nothing that is to be answered.
    Nothing,
    /// The peer will send no more.
    End,
    /// Its next record comes under its next key.
    Update {
        /// So must ours, before our next data.
        answer: bool,
    },
    /// It wants another handshake (TLS 1.2), and is to be told by a warning that there is none.
    Renegotiation,
}

impl Peer {
    /// After its handshake.
    pub fn new(side: Side, tls13: bool) -> Self {
        Self { side, tls13, begun: Vec::new(), empty: 0, messages: 0, warnings: 0, refused: false }
    }

    /// Takes the text of a record. Tickets are given to `ticket`, which says whether it could read them.
    ///
    /// # Errors
    ///
    /// What is refused; nothing may be read after it.
    pub fn hear(
        &mut self,
        content: ContentType,
        text: &[u8],
        ticket: impl FnMut(&[u8]) -> bool,
    ) -> Result<Heard, Fault> {
        if !self.begun.is_empty() && content != ContentType::Handshake {
            return Err(Fault::Unexpected("a record amid a handshake message"));
        }
        match content {
            ContentType::ApplicationData if text.is_empty() => {
                self.empty += 1;
                if self.empty > EMPTY {
                    return Err(Fault::Unexpected("too many empty records"));
                }
                Ok(Heard::Nothing)
            }
            ContentType::ApplicationData => {
                (self.empty, self.messages) = (0, 0);
                Ok(Heard::Data)
            }
            ContentType::Alert => self.alert(text),
            ContentType::Handshake if text.is_empty() => Err(Fault::Unexpected("a handshake record without content")),
            ContentType::Handshake => self.handshake(text, ticket),
            ContentType::ChangeCipherSpec => Err(Fault::Unexpected("a change_cipher_spec after the handshake")),
        }
    }

    fn alert(&mut self, text: &[u8]) -> Result<Heard, Fault> {
        let &[level, alert] = text else { return Err(Fault::Decode("an alert of another length")) };
        if alert == CLOSE_NOTIFY {
            return Ok(Heard::End);
        }
        // TLS 1.3 knows no other warning, whatever the level says (RFC 8446 section 6).
        let warning = if self.tls13 { alert == USER_CANCELED } else { level == 1 };
        if !warning {
            return Err(Fault::Alert(alert));
        }
        self.warnings += 1;
        if self.warnings > WARNINGS {
            return Err(Fault::Unexpected("too many warnings"));
        }
        Ok(Heard::Nothing)
    }

    fn handshake(&mut self, text: &[u8], ticket: impl FnMut(&[u8]) -> bool) -> Result<Heard, Fault> {
        if self.begun.is_empty() {
            let rest = self.messages(text, ticket);
            return rest.map(|(heard, rest)| {
                self.begun = rest.to_vec();
                heard
            });
        }
        let mut joined = std::mem::take(&mut self.begun);
        joined.extend_from_slice(text);
        let (heard, rest) = self.messages(&joined, ticket)?;
        let taken = joined.len() - rest.len();
        joined.drain(..taken);
        if !joined.is_empty() {
            self.begun = joined;
        }
        Ok(heard)
    }

    /// Takes the whole messages; returns the beginning of one that is not.
    fn messages<'t>(
        &mut self,
        mut text: &'t [u8],
        mut ticket: impl FnMut(&[u8]) -> bool,
    ) -> Result<(Heard, &'t [u8]), Fault> {
        let mut heard = Heard::Nothing;
        while let Some(kind) = text.first() {
            let longest = match (*kind, self.side, self.tls13) {
                (KEY_UPDATE_TYPE, _, true) => 1,
                (NEW_SESSION_TICKET, Side::Client, true) => MAX_TICKET,
                (CLIENT_HELLO, Side::Server, false) => MAX_HELLO,
                (HELLO_REQUEST, Side::Client, false) => 0,
                _ => return Err(Fault::Unexpected("a handshake message after the handshake")),
            };
            let Some(header) = text.first_chunk::<MESSAGE_HEADER>() else { break };
            let len = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
            if len > longest || (longest == 1 && len == 0) {
                return Err(Fault::Decode("a handshake message of another length"));
            }
            let Some((message, rest)) = text[MESSAGE_HEADER..].split_at_checked(len) else { break };
            self.messages += 1;
            if self.messages > MESSAGES {
                return Err(Fault::Unexpected("too many handshake messages without data"));
            }
            match *kind {
                KEY_UPDATE_TYPE if !rest.is_empty() => {
                    return Err(Fault::Unexpected("a handshake message under two keys"));
                }
                KEY_UPDATE_TYPE => match message {
                    [0] => heard = Heard::Update { answer: false },
                    [1] => heard = Heard::Update { answer: true },
                    _ => return Err(Fault::IllegalParameter("a key update that asks for neither")),
                },
                NEW_SESSION_TICKET => {
                    if !ticket(message) {
                        return Err(Fault::Decode("a ticket that cannot be read"));
                    }
                }
                _ if self.refused => return Err(Fault::Unexpected("another attempt to renegotiate")),
                _ => {
                    self.refused = true;
                    heard = Heard::Renegotiation;
                }
            }
            text = rest;
        }
        Ok((heard, text))
    }
}
