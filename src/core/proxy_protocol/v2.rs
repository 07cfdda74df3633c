//! Version 2: binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tlv::{self, put};
use super::{Header, HeaderError, Origin, Tlvs, V2_FIXED, V2_MAX, V2_SIGNATURE, is_start_of, v1};

/// Address families and transports.
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DGRAM: u8 = 2;

/// A header at the front of `bytes`, of at most `max` bytes.
pub(super) fn parse(bytes: &[u8], max: usize) -> Result<Option<Header<'_>>, HeaderError> {
    if !is_start_of(bytes, V2_SIGNATURE) {
        return Err(HeaderError::NotProxy);
    }
    // What is known already is judged before more is asked for.
    let Some(&version_command) = bytes.get(12) else { return Ok(None) };
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Malformed),
    };
    let Some(&kind) = bytes.get(13) else { return Ok(None) };
    let (family, transport) = (kind >> 4, kind & 15);
    if family > UNIX || transport > DGRAM {
        return Err(HeaderError::Malformed);
    }
    let Some(length) = bytes.get(14..16) else { return Ok(None) };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if len > max {
        return Err(HeaderError::TooLong);
    }
    let size = match family {
        INET => 12,
        INET6 => 36,
        UNIX => 216,
        _ => 0,
    };
    // A LOCAL header's addresses are to be skipped, whatever they are.
    if V2_FIXED + size > len && !local {
        return Err(HeaderError::Malformed);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    if local {
        return Ok(Some(Header { len, origin: Origin::Local, tlvs: Tlvs::NONE }));
    }
    let (addresses, rest) = header[V2_FIXED..].split_at(size);
    let ends = match family {
        INET => ends(addresses, |ip: [u8; 4]| IpAddr::V4(Ipv4Addr::from(ip))),
        INET6 => ends(addresses, |ip: [u8; 16]| IpAddr::V6(Ipv6Addr::from(ip))),
        _ => None,
    };
    let origin = match (transport, ends) {
        (STREAM, Some((source, destination))) => Origin::Stream { source, destination },
        (DGRAM, Some((source, destination))) => Origin::Datagram { source, destination },
        _ => Origin::Unknown,
    };
    Ok(Some(Header { len, origin, tlvs: Tlvs::check(rest, header)? }))
}

/// Two addresses and two ports.
fn ends<const N: usize>(bytes: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, ports) = rest.split_first_chunk::<N>()?;
    let [a, b, c, d] = *ports else { return None };
    let end = |address, high, low| SocketAddr::new(ip(address), u16::from_be_bytes([high, low]));
    Some((end(*source, a, b), end(*destination, c, d)))
}

/// What a header says besides the addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras<'e> {
    /// The protocol that was negotiated by ALPN.
    pub alpn: Option<&'e [u8]>,
    /// The name that the client asked for.
    pub authority: Option<&'e [u8]>,
    /// How the client's connection is encrypted.
    pub ssl: Option<SslInfo<'e>>,
    /// An identity of the connection; its first 128 bytes.
    pub unique_id: Option<&'e [u8]>,
    /// Add a checksum.
    pub crc32c: bool,
    /// Bytes of padding behind the rest, 3 or more if not 0.
    pub noop: usize,
}

/// How a client's connection is encrypted.
#[derive(Debug, Clone, Copy, Default)]
pub struct SslInfo<'e> {
    /// `PP2_CLIENT_*`.
    pub client: u8,
    /// Whether the client gave a certificate that was verified.
    pub verified: bool,
    /// `TLSv1.3` and the like.
    pub version: Option<&'e [u8]>,
    /// The cipher's name.
    pub cipher: Option<&'e [u8]>,
    /// The common name of the client's certificate.
    pub common_name: Option<&'e [u8]>,
    /// How the server's certificate is signed.
    pub signature_algorithm: Option<&'e [u8]>,
    /// The server's kind of key.
    pub key_algorithm: Option<&'e [u8]>,
}

/// Writes it. Ends of different families are written as IPv6, IPv4 ones mapped.
pub(super) fn write(origin: &Origin, extras: &Extras<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(V2_SIGNATURE);
    out.push(if *origin == Origin::Local { 0x20 } else { 0x21 });
    let transport = if matches!(origin, Origin::Datagram { .. }) { DGRAM } else { STREAM };
    // The length comes last.
    match origin.addresses().map(|(a, b)| (a, b, a.ip().to_canonical(), b.ip().to_canonical())) {
        None => out.extend_from_slice(&[0, 0, 0]),
        Some((source, destination, IpAddr::V4(from), IpAddr::V4(to))) => {
            out.extend_from_slice(&[INET << 4 | transport, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            ports(source, destination, out);
        }
        Some((source, destination, from, to)) => {
            out.extend_from_slice(&[INET6 << 4 | transport, 0, 0]);
            for ip in [from, to] {
                if let IpAddr::V6(ip) = v1::mapped(ip) {
                    out.extend_from_slice(&ip.octets());
                }
            }
            ports(source, destination, out);
        }
    }
    let addresses = out.len();
    let mut checksum = write_extras(extras, out);
    if out.len() - start > V2_MAX {
        // Nothing that is negotiated is that long: the addresses are what counts.
        out.truncate(addresses);
        checksum = None;
    }
    let length = u16::try_from(out.len() - start - V2_FIXED).expect("at most the greatest length");
    out[start + 14..start + 16].copy_from_slice(&length.to_be_bytes());
    if let Some(at) = checksum {
        let sum = super::crc32c::crc32c([&out[start..]]);
        out[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

fn ports(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// Where the checksum stands, if there is one.
fn write_extras(extras: &Extras<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let mut checksum = None;
    if extras.crc32c {
        put(tlv::CRC32C, &[0; 4], out);
        checksum = Some(out.len() - 4);
    }
    if let Some(alpn) = extras.alpn {
        put(tlv::ALPN, alpn, out);
    }
    if let Some(authority) = extras.authority {
        put(tlv::AUTHORITY, authority, out);
    }
    if let Some(id) = extras.unique_id {
        put(tlv::UNIQUE_ID, &id[..id.len().min(128)], out);
    }
    if let Some(ssl) = &extras.ssl {
        let mut value = vec![ssl.client];
        value.extend_from_slice(&u32::from(!ssl.verified).to_be_bytes());
        let parts = [
            (tlv::SSL_VERSION, ssl.version),
            (tlv::SSL_CN, ssl.common_name),
            (tlv::SSL_CIPHER, ssl.cipher),
            (tlv::SSL_SIG_ALG, ssl.signature_algorithm),
            (tlv::SSL_KEY_ALG, ssl.key_algorithm),
        ];
        for (kind, part) in parts {
            if let Some(part) = part {
                put(kind, part, &mut value);
            }
        }
        put(tlv::SSL, &value, out);
    }
    if extras.noop > 0 {
        put(tlv::NOOP, &vec![0; extras.noop.saturating_sub(3)], out);
    }
    checksum
}
