//! Records of an established connection, sealed and opened where they stand.
//!
//! The library shakes hands; what it agreed on is taken from it afterwards (`rustls::kernel`), because it moves every
//! byte twice, through a block that it allocates for each record. It still makes the next keys and keeps tickets.

use ringway_core::tls::established::{Heard, KEY_UPDATE, Peer, Side};
use ringway_core::tls::record::{ContentType, Fault, Inputs, MAX_PLAIN, Protection, TAG};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets, SupportedCipherSuite};

use super::cipher::Key;
use super::provider::Aes;

/// One direction.
struct Direction {
    key: Key,
    iv: [u8; 12],
    /// Number of the next record under this key.
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): &(u64, ConnectionTrafficSecrets), aes: Aes) -> Result<Self, Error> {
        let (key, iv) = Key::new(secrets, aes).ok_or_else(|| Error::General("an unknown cipher".to_owned()))?;
        Ok(Self { key, iv, sequence: *sequence })
    }
}

/// What the library is still asked for, in TLS 1.3.
enum Library {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// Both directions.
pub(super) struct Records {
    protection: Protection,
    aes: Aes,
    library: Option<Library>,
    peer: Peer,
    reads: Direction,
    writes: Direction,
    /// Records that one key may encrypt.
    limit: u64,
    /// The peer has asked for a change of our keys.
    asked: bool,
}

/// What the record at the front was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    pub(super) heard: Heard,
    /// Where its data stands, and how much there is of it.
    pub(super) at: usize,
    pub(super) data: usize,
    /// Its length.
    pub(super) len: usize,
}

impl Records {
    pub(super) fn of_client(conn: UnbufferedClientConnection) -> Result<Self, Error> {
        let (secrets, library) = conn.dangerous_into_kernel_connection()?;
        let suite = library.negotiated_cipher_suite();
        Self::new(suite, &secrets, Side::Client, || Library::Client(Box::new(library)))
    }

    pub(super) fn of_server(conn: UnbufferedServerConnection) -> Result<Self, Error> {
        let (secrets, library) = conn.dangerous_into_kernel_connection()?;
        let suite = library.negotiated_cipher_suite();
        Self::new(suite, &secrets, Side::Server, || Library::Server(Box::new(library)))
    }

    fn new(
        suite: SupportedCipherSuite,
        secrets: &ExtractedSecrets,
        side: Side,
        library: impl FnOnce() -> Library,
    ) -> Result<Self, Error> {
        let aes = Aes::of(suite);
        let (protection, limit) = match (suite, &secrets.tx.1) {
            (SupportedCipherSuite::Tls13(suite), _) => (Protection::Tls13, suite.common.confidentiality_limit),
            (SupportedCipherSuite::Tls12(suite), ConnectionTrafficSecrets::Chacha20Poly1305 { .. }) => {
                (Protection::Tls12Implicit, suite.common.confidentiality_limit)
            }
            (SupportedCipherSuite::Tls12(suite), _) => (Protection::Tls12Explicit, suite.common.confidentiality_limit),
        };
        let tls13 = protection == Protection::Tls13;
        Ok(Self {
            protection,
            aes,
            library: tls13.then(library),
            peer: Peer::new(side, tls13),
            reads: Direction::new(&secrets.rx, aes)?,
            writes: Direction::new(&secrets.tx, aes)?,
            limit,
            asked: false,
        })
    }

    /// What a record adds to its plaintext.
    pub(super) fn overhead(&self) -> usize {
        self.protection.overhead()
    }

    /// Opens the record that `raw` begins with; none where that is not whole.
    pub(super) fn open(&mut self, raw: &mut [u8]) -> Result<Option<Opened>, Fault> {
        let Self { protection, reads, .. } = self;
        let Some(record) = protection.arrived(&reads.iv, reads.sequence, raw)? else { return Ok(None) };
        let at = protection.prefix();
        let inputs = &record.inputs;
        let text = &mut raw[at..record.len];
        let len = reads.key.open(inputs.nonce, inputs.additional(), text).ok_or(Fault::BadMac)?;
        reads.sequence = reads.sequence.checked_add(1).ok_or(Fault::Exhausted)?;
        let (content, data) = protection.opened(&record, &text[..len])?;
        let library = &mut self.library;
        let heard = self.peer.hear(content, &text[..data], |ticket| match library {
            Some(Library::Client(library)) => library.handle_new_session_ticket(ticket).is_ok(),
            _ => false,
        })?;
        if let Heard::Update { answer } = heard {
            let next = match library {
                Some(Library::Client(library)) => library.update_rx_secret(),
                Some(Library::Server(library)) => library.update_rx_secret(),
                None => return Err(Fault::Exhausted),
            };
            self.reads = next.and_then(|next| Direction::new(&next, self.aes)).map_err(|_error| Fault::Exhausted)?;
            self.asked |= answer;
        }
        Ok(Some(Opened { heard, at, data: if heard == Heard::Data { data } else { 0 }, len: record.len }))
    }

    /// Whether so many more records may be encrypted, with new keys in between where there are such.
    pub(super) fn may_seal(&self, records: usize) -> bool {
        self.library.is_some() || self.writes.sequence.saturating_add(records as u64) <= self.limit
    }

    /// The record that has to go before the next data: that which changes our keys, where the peer has asked for it or
    /// they have been used often enough.
    pub(super) fn before_data(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        // The update itself is the last record under the old key.
        if !self.asked && self.writes.sequence.saturating_add(1) < self.limit {
            return Ok(None);
        }
        if self.library.is_none() {
            return if self.may_seal(1) { Ok(None) } else { Err(Fault::Exhausted) };
        }
        self.update().map(Some)
    }

    /// Changes our keys; the record says so.
    pub(super) fn update(&mut self) -> Result<Vec<u8>, Fault> {
        let record = self.sealed(ContentType::Handshake, &KEY_UPDATE)?;
        self.next_keys()?;
        Ok(record)
    }

    /// Goes on with other keys.
    pub(super) fn next_keys(&mut self) -> Result<(), Fault> {
        let next = match &mut self.library {
            Some(Library::Client(library)) => library.update_tx_secret(),
            Some(Library::Server(library)) => library.update_tx_secret(),
            None => return Err(Fault::Exhausted),
        };
        self.writes = next.and_then(|next| Direction::new(&next, self.aes)).map_err(|_error| Fault::Exhausted)?;
        self.asked = false;
        Ok(())
    }

    /// A record by itself, of few bytes.
    pub(super) fn sealed(&mut self, content: ContentType, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut record = vec![0; self.overhead() + plain.len()];
        let len = self.seal(content, plain, &mut record)?;
        debug_assert_eq!(len, record.len());
        Ok(record)
    }

    /// Writes a record of `plain` to `out`, where there is room for it; returns its length.
    pub(super) fn seal(&mut self, content: ContentType, plain: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let inputs = self.next(content, plain.len())?;
        let prefix = inputs.prefix();
        let (start, mut end) = (prefix.len(), prefix.len() + plain.len());
        out[..start].copy_from_slice(prefix);
        out[start..end].copy_from_slice(plain);
        if let Some(inner) = self.protection.inner(content) {
            out[end] = inner;
            end += 1;
        }
        let tag = self.writes.key.seal(inputs.nonce, inputs.additional(), &mut out[start..end]);
        out[end..end + TAG].copy_from_slice(&tag.ok_or(Fault::Exhausted)?);
        Ok(end + TAG)
    }

    /// Encrypts `len` bytes at `at` of `block` as data where they stand. There is another byte behind them, which stays as
    /// it is.
    pub(super) fn seal_in_place(&mut self, block: &mut [u8], at: usize, len: usize) -> Result<Sealed, Fault> {
        let content = ContentType::ApplicationData;
        let inputs = self.next(content, len)?;
        let (nonce, additional) = (inputs.nonce, inputs.additional());
        let end = at + len;
        let mut behind = [0; 1 + TAG];
        let (tag, from) = match self.protection.inner(content) {
            None => (self.writes.key.seal(nonce, additional, &mut block[at..end]), 1),
            Some(inner) => {
                // What is behind makes place for the type while that is encrypted.
                let kept = std::mem::replace(&mut block[end], inner);
                let tag = self.writes.key.seal(nonce, additional, &mut block[at..=end]);
                behind[0] = std::mem::replace(&mut block[end], kept);
                (tag, 0)
            }
        };
        behind[1..].copy_from_slice(&tag.ok_or(Fault::Exhausted)?);
        Ok(Sealed { inputs, behind, from })
    }

    /// What the next record takes; its number is used up by it.
    fn next(&mut self, content: ContentType, plain: usize) -> Result<Inputs, Fault> {
        debug_assert!(plain <= MAX_PLAIN);
        let Direction { iv, sequence, .. } = &mut self.writes;
        let inputs = self.protection.outgoing(iv, *sequence, content, plain);
        *sequence = sequence.checked_add(1).ok_or(Fault::Exhausted)?;
        Ok(inputs)
    }

    /// A record of TLS 1.3 whose text is this, with the type at its end and whatever is behind that.
    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "a test's")]
    pub(super) fn forged(&mut self, text: &[u8]) -> Vec<u8> {
        use ringway_core::tls::record::HEADER;
        let len = u16::try_from(text.len() + TAG).unwrap().to_be_bytes();
        let header = [23, 3, 3, len[0], len[1]];
        let inputs = self.next(ContentType::ApplicationData, 0).unwrap();
        let mut record = [&header, text].concat();
        let tag = self.writes.key.seal(inputs.nonce, &header, &mut record[HEADER..]).unwrap();
        record.extend_from_slice(&tag);
        record
    }

    /// Takes so many records for all that a key may encrypt.
    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }
}

/// A record's bytes that are not its data's.
pub(super) struct Sealed {
    inputs: Inputs,
    behind: [u8; 1 + TAG],
    from: usize,
}

impl Sealed {
    /// In front of the data.
    pub(super) fn before(&self) -> &[u8] {
        self.inputs.prefix()
    }

    /// Behind it.
    pub(super) fn behind(&self) -> &[u8] {
        &self.behind[self.from..]
    }
}
