//! What a version 2 header says behind its addresses (section 2.2): type, length, value, in a row.

use super::HeaderError;

/// `PP2_TYPE_ALPN`.
pub(super) const ALPN: u8 = 0x01;
/// `PP2_TYPE_AUTHORITY`.
pub(super) const AUTHORITY: u8 = 0x02;
/// `PP2_TYPE_CRC32C`.
pub(super) const CRC32C: u8 = 0x03;
/// `PP2_TYPE_NOOP`.
pub(super) const NOOP: u8 = 0x04;
/// `PP2_TYPE_UNIQUE_ID`.
pub(super) const UNIQUE_ID: u8 = 0x05;
/// `PP2_TYPE_SSL`.
pub(super) const SSL: u8 = 0x20;
/// `PP2_SUBTYPE_SSL_VERSION`.
pub(super) const SSL_VERSION: u8 = 0x21;
/// `PP2_SUBTYPE_SSL_CN`.
pub(super) const SSL_CN: u8 = 0x22;
/// `PP2_SUBTYPE_SSL_CIPHER`.
pub(super) const SSL_CIPHER: u8 = 0x23;
/// `PP2_SUBTYPE_SSL_SIG_ALG`.
pub(super) const SSL_SIG_ALG: u8 = 0x24;
/// `PP2_SUBTYPE_SSL_KEY_ALG`.
pub(super) const SSL_KEY_ALG: u8 = 0x25;
/// `PP2_TYPE_NETNS`.
pub(super) const NETNS: u8 = 0x30;

/// Longest unique id.
const UNIQUE_ID_MAX: usize = 128;

/// The client used TLS.
pub const PP2_CLIENT_SSL: u8 = 0x01;
/// It gave a certificate on this connection.
pub const PP2_CLIENT_CERT_CONN: u8 = 0x02;
/// It gave one in this TLS session.
pub const PP2_CLIENT_CERT_SESS: u8 = 0x04;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tlv<'b> {
    /// The protocol that the client negotiated by ALPN.
    Alpn(&'b [u8]),
    /// The name that the client asked for.
    Authority(&'b [u8]),
    /// The header's checksum, which was right.
    Crc32c(u32),
    /// Padding.
    Noop,
    /// An identity of the connection, at most 128 bytes.
    UniqueId(&'b [u8]),
    /// How the client's connection was encrypted.
    Ssl(Ssl<'b>),
    /// The network namespace.
    Netns(&'b [u8]),
    /// Anything else.
    Other(u8, &'b [u8]),
}

/// How a client's connection was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssl<'b> {
    /// `PP2_CLIENT_*`.
    pub client: u8,
    /// 0 when the client gave a certificate and it was verified.
    pub verify: u32,
    parts: &'b [u8],
}

impl<'b> Ssl<'b> {
    /// `TLSv1.3` and the like.
    pub fn version(&self) -> Option<&'b [u8]> {
        self.part(SSL_VERSION)
    }

    /// The common name of the client's certificate.
    pub fn common_name(&self) -> Option<&'b [u8]> {
        self.part(SSL_CN)
    }

    /// The cipher's name.
    pub fn cipher(&self) -> Option<&'b [u8]> {
        self.part(SSL_CIPHER)
    }

    /// The algorithm by which the certificate that was given to the client is signed.
    pub fn signature_algorithm(&self) -> Option<&'b [u8]> {
        self.part(SSL_SIG_ALG)
    }

    /// The algorithm of that certificate's key.
    pub fn key_algorithm(&self) -> Option<&'b [u8]> {
        self.part(SSL_KEY_ALG)
    }

    fn part(&self, wanted: u8) -> Option<&'b [u8]> {
        let mut rest = self.parts;
        while let Some((kind, value, after)) = split(rest) {
            if kind == wanted {
                return Some(value);
            }
            rest = after;
        }
        None
    }
}

/// All of them. Their lengths have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlvs<'b> {
    bytes: &'b [u8],
}

impl<'b> Tlvs<'b> {
    /// None.
    pub const NONE: Self = Self { bytes: &[] };

    /// Checks the lengths, and the header's checksum if there is one. `header` is the whole header, whose end is
    /// `bytes`.
    pub(super) fn check(bytes: &'b [u8], header: &[u8]) -> Result<Self, HeaderError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (kind, value, after) = split(rest).ok_or(HeaderError::Malformed)?;
            match kind {
                CRC32C => {
                    let Ok(claimed) = value.try_into().map(u32::from_be_bytes) else {
                        return Err(HeaderError::Malformed);
                    };
                    let at = header.len() - after.len() - value.len();
                    let parts = [&header[..at], &[0; 4], &header[at + 4..]];
                    if super::crc32c::crc32c(parts) != claimed {
                        return Err(HeaderError::Checksum);
                    }
                }
                UNIQUE_ID if value.len() > UNIQUE_ID_MAX => return Err(HeaderError::Malformed),
                SSL => {
                    let mut parts = value.get(5..).ok_or(HeaderError::Malformed)?;
                    while !parts.is_empty() {
                        parts = split(parts).ok_or(HeaderError::Malformed)?.2;
                    }
                }
                _ => {}
            }
            rest = after;
        }
        Ok(Self { bytes })
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Tlv<'b>> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (kind, value, after) = split(rest)?;
            rest = after;
            Some(match kind {
                ALPN => Tlv::Alpn(value),
                AUTHORITY => Tlv::Authority(value),
                CRC32C => Tlv::Crc32c(value.try_into().map_or(0, u32::from_be_bytes)),
                NOOP => Tlv::Noop,
                UNIQUE_ID => Tlv::UniqueId(value),
                SSL => match value {
                    [client, a, b, c, d, parts @ ..] => {
                        Tlv::Ssl(Ssl { client: *client, verify: u32::from_be_bytes([*a, *b, *c, *d]), parts })
                    }
                    _ => Tlv::Other(kind, value),
                },
                NETNS => Tlv::Netns(value),
                _ => Tlv::Other(kind, value),
            })
        })
    }
}

/// Type, value, and what follows; `None` when there is not all of it.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, high, low, rest @ ..] = bytes else { return None };
    let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, after))
}

/// Writes one. A value over 65,535 bytes does not exist where it comes from; it is left out.
pub(super) fn put(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    if let Ok(len) = u16::try_from(value.len()) {
        out.push(kind);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(value);
    }
}
