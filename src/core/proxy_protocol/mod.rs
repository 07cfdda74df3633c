//! The PROXY protocol, versions 1 and 2 (haproxy's `doc/proxy-protocol.txt`): who the client of a connection is, said
//! by a proxy in front of its first byte.
//!
//! Reading has three outcomes, decided from the front: [`parse`] asks for more only as long as what is there could
//! still become a header, and never for more than the limit that it is given. Whether a peer may say such a thing is
//! its caller's affair.

mod crc32c;
#[cfg(test)]
mod tests;
mod tlv;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use tlv::{PP2_CLIENT_CERT_CONN, PP2_CLIENT_CERT_SESS, PP2_CLIENT_SSL, Ssl, Tlv, Tlvs};
pub use v2::{Extras, SslInfo};

/// Longest header of version 1, its line end included.
pub const V1_MAX: usize = 107;
/// The first bytes of version 2.
pub const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 2 has in front of its addresses.
pub const V2_FIXED: usize = 16;
/// Longest header of version 2 that its 16-bit length allows.
pub const V2_MAX: usize = V2_FIXED + u16::MAX as usize;

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'b> {
    /// Bytes that it takes.
    pub len: usize,
    /// Whose connection it is.
    pub origin: Origin,
    /// What else version 2 says.
    pub tlvs: Tlvs<'b>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The proxy's own (LOCAL): a health check. The connection's real ends count.
    Local,
    /// Unknown, or of a kind that has no IP addresses. The connection's real ends count.
    Unknown,
    /// A client's, over TCP.
    Stream {
        /// Its end.
        source: SocketAddr,
        /// The end that it talks to.
        destination: SocketAddr,
    },
    /// A client's, over UDP.
    Datagram {
        /// Its end.
        source: SocketAddr,
        /// The end that it talks to.
        destination: SocketAddr,
    },
}

impl Origin {
    /// The client's end and the one it talks to, where they are known.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match *self {
            Self::Local | Self::Unknown => None,
            Self::Stream { source, destination } | Self::Datagram { source, destination } => {
                Some((source, destination))
            }
        }
    }
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// What is there begins differently: it is something else.
    NotProxy,
    /// It begins as a header does, and is none.
    Malformed,
    /// It is longer than allowed.
    TooLong,
    /// Its checksum is wrong.
    Checksum,
}

/// A header at the front of `bytes`; `None` while more of it is to come. One of version 2 may be `max` bytes long.
pub fn parse(bytes: &[u8], max: usize) -> Result<Option<Header<'_>>, HeaderError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes, max),
        Some(_) => Err(HeaderError::NotProxy),
    }
}

/// Writes a header of version 1.
pub fn write_v1(origin: &Origin, out: &mut Vec<u8>) {
    v1::write(origin, out);
}

/// Writes a header of version 2.
pub fn write_v2(origin: &Origin, extras: &Extras<'_>, out: &mut Vec<u8>) {
    v2::write(origin, extras, out);
}

/// Whether `bytes` go on as `whole` does, as far as they reach.
fn is_start_of(bytes: &[u8], whole: &[u8]) -> bool {
    let len = bytes.len().min(whole.len());
    bytes[..len] == whole[..len]
}
