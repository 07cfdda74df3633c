//! Protected records (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3, RFC 5288, RFC 7905): everything but the cipher.

use std::fmt;

/// Bytes of a record's header.
pub const HEADER: usize = 5;
/// Plaintext of one record, at most (RFC 8446 section 5.1).
pub const MAX_PLAIN: usize = 1 << 14;
/// Bytes of an authentication tag, which is the same for all ciphers of ours.
pub const TAG: usize = 16;
/// What protection adds to a record's plaintext, at most: header, explicit nonce and tag of TLS 1.2 with AES-GCM.
pub const OVERHEAD: usize = HEADER + EXPLICIT + TAG;

/// Part of a nonce that TLS 1.2 sends along with AES-GCM.
const EXPLICIT: usize = 8;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// Nothing, once the handshake is over.
    ChangeCipherSpec,
    /// An alert.
    Alert,
    /// Handshake messages.
    Handshake,
    /// Data.
    ApplicationData,
}

impl ContentType {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            _ => return None,
        })
    }

    /// As it stands in records.
    pub const fn byte(self) -> u8 {
        match self {
            Self::ChangeCipherSpec => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }
}

/// What a peer has done wrong, or has said that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something that may not come there.
    Unexpected(&'static str),
    /// A record that is longer than any may be.
    Overflow,
    /// A record that does not decrypt.
    BadMac,
    /// Something that cannot be read.
    Decode(&'static str),
    /// A value that is not allowed.
    IllegalParameter(&'static str),
    /// Nothing can be encrypted any more: the keys have been used as often as they may be.
    Exhausted,
    /// The peer has broken off, by this alert.
    Alert(u8),
}

impl Fault {
    /// The alert that answers it (RFC 8446 section 6.2), where one does.
    pub const fn alert(self) -> Option<u8> {
        match self {
            Self::Unexpected(_) => Some(10),
            Self::BadMac => Some(20),
            Self::Overflow => Some(22),
            Self::IllegalParameter(_) => Some(47),
            Self::Decode(_) => Some(50),
            Self::Exhausted | Self::Alert(_) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(what) | Self::Decode(what) | Self::IllegalParameter(what) => f.write_str(what),
            Self::Overflow => f.write_str("a record that is too long"),
            Self::BadMac => f.write_str("a record that does not decrypt"),
            Self::Exhausted => f.write_str("the keys have been used up"),
            Self::Alert(alert) => write!(f, "the peer's alert {alert}"),
        }
    }
}

impl std::error::Error for Fault {}

/// How records are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS 1.3.
    Tls13,
    /// TLS 1.2 with AES-GCM, which sends a part of the nonce along.
    Tls12Explicit,
    /// TLS 1.2 with ChaCha20-Poly1305.
    Tls12Implicit,
}

/// What a cipher is given besides the key and the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// Used once per key.
    pub nonce: [u8; 12],
    additional: [u8; 13],
    additional_len: usize,
    prefix: [u8; HEADER + EXPLICIT],
    prefix_len: usize,
}

impl Inputs {
    /// What is authenticated without being encrypted.
    pub fn additional(&self) -> &[u8] {
        &self.additional[..self.additional_len]
    }

    /// What stands in front of the ciphertext.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix[..self.prefix_len]
    }
}

/// A whole record that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// For the cipher. The prefix is the record's own.
    pub inputs: Inputs,
    /// Its length, header included. The ciphertext and its tag end there.
    pub len: usize,
    /// What the header says it carries; TLS 1.3 says so within.
    outer: ContentType,
}

impl Protection {
    /// Bytes in front of the ciphertext.
    pub const fn prefix(self) -> usize {
        match self {
            Self::Tls13 | Self::Tls12Implicit => HEADER,
            Self::Tls12Explicit => HEADER + EXPLICIT,
        }
    }

    /// The byte that is encrypted behind the plaintext, where there is one: TLS 1.3's inner type.
    pub const fn inner(self, content: ContentType) -> Option<u8> {
        match self {
            Self::Tls13 => Some(content.byte()),
            Self::Tls12Explicit | Self::Tls12Implicit => None,
        }
    }

    /// What a record adds to its plaintext.
    pub const fn overhead(self) -> usize {
        self.prefix() + matches!(self, Self::Tls13) as usize + TAG
    }

    /// What a record that is sent with this number under a key needs, of `plain` bytes of plaintext, at most
    /// [`MAX_PLAIN`].
    pub fn outgoing(self, iv: &[u8; 12], sequence: u64, content: ContentType, plain: usize) -> Inputs {
        debug_assert!(plain <= MAX_PLAIN);
        let nonce = nonce(iv, sequence);
        let outer = if self == Self::Tls13 { ContentType::ApplicationData } else { content };
        let payload = self.overhead() - HEADER + plain;
        let mut prefix = [0; HEADER + EXPLICIT];
        prefix[..3].copy_from_slice(&[outer.byte(), 3, 3]);
        prefix[3..HEADER].copy_from_slice(&length(payload));
        if self == Self::Tls12Explicit {
            prefix[HEADER..].copy_from_slice(&nonce[12 - EXPLICIT..]);
        }
        self.inputs(nonce, prefix, sequence, plain)
    }

    /// The record that `data` begins with, where that is whole, which came with this number under a key.
    ///
    /// # Errors
    ///
    /// What its header alone is refused for is told as soon as that is there.
    pub fn arrived(self, iv: &[u8; 12], sequence: u64, data: &[u8]) -> Result<Option<Arrived>, Fault> {
        let Some(header) = data.first_chunk::<HEADER>() else { return Ok(None) };
        let outer = ContentType::of(header[0]).ok_or(Fault::Unexpected("a record of unknown type"))?;
        if outer == ContentType::ChangeCipherSpec || (self == Self::Tls13 && outer != ContentType::ApplicationData) {
            return Err(Fault::Unexpected("a record in plain"));
        }
        if header[1] != 3 {
            return Err(Fault::Decode("a record of another protocol"));
        }
        let payload = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if payload > MAX_PLAIN + if self == Self::Tls13 { 256 } else { 2048 } {
            return Err(Fault::Overflow);
        }
        let Some(plain) = (payload + HEADER).checked_sub(self.overhead()) else {
            return Err(Fault::BadMac);
        };
        let len = HEADER + payload;
        if data.len() < len {
            return Ok(None);
        }
        let mut prefix = [0; HEADER + EXPLICIT];
        prefix[..self.prefix()].copy_from_slice(&data[..self.prefix()]);
        let mut nonce = nonce(iv, sequence);
        if self == Self::Tls12Explicit {
            nonce[..12 - EXPLICIT].copy_from_slice(&iv[..12 - EXPLICIT]);
            nonce[12 - EXPLICIT..].copy_from_slice(&prefix[HEADER..]);
        }
        Ok(Some(Arrived { inputs: self.inputs(nonce, prefix, sequence, plain), len, outer }))
    }

    fn inputs(self, nonce: [u8; 12], prefix: [u8; HEADER + EXPLICIT], sequence: u64, plain: usize) -> Inputs {
        let mut additional = [0; 13];
        let additional_len = if self == Self::Tls13 {
            additional[..HEADER].copy_from_slice(&prefix[..HEADER]);
            HEADER
        } else {
            additional[..8].copy_from_slice(&sequence.to_be_bytes());
            additional[8..11].copy_from_slice(&prefix[..3]);
            additional[11..].copy_from_slice(&length(plain));
            additional.len()
        };
        Inputs { nonce, additional, additional_len, prefix, prefix_len: self.prefix() }
    }

    /// What a record's decrypted text is, and how much of its front is plaintext: TLS 1.3 has its type and padding
    /// behind it (RFC 8446 section 5.4).
    ///
    /// # Errors
    ///
    /// Too much of it, or nothing but padding.
    pub fn opened(self, record: &Arrived, text: &[u8]) -> Result<(ContentType, usize), Fault> {
        let (content, len) = match self {
            Self::Tls12Explicit | Self::Tls12Implicit => (record.outer, text.len()),
            Self::Tls13 => {
                if text.len() > MAX_PLAIN + 1 {
                    return Err(Fault::Overflow);
                }
                let at = text.iter().rposition(|byte| *byte != 0).ok_or(Fault::Unexpected("nothing but padding"))?;
                (ContentType::of(text[at]).ok_or(Fault::Unexpected("a record of unknown type"))?, at)
            }
        };
        if len > MAX_PLAIN {
            return Err(Fault::Overflow);
        }
        Ok((content, len))
    }
}

/// The initial vector and the number of the record, one over the other.
fn nonce(iv: &[u8; 12], sequence: u64) -> [u8; 12] {
    let mut nonce = *iv;
    nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, with)| *byte ^= with);
    nonce
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
