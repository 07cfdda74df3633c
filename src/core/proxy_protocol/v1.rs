//! Version 1: a line of text (section 2.1).

use std::net::{IpAddr, SocketAddr};

use super::{Header, HeaderError, Origin, Tlvs, V1_MAX, is_start_of};

/// A header at the front of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    if !is_start_of(bytes, b"PROXY ") {
        return Err(HeaderError::NotProxy);
    }
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        // A line end is two bytes, so a CR at the very end may still become one.
        return if window.len() == V1_MAX { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(HeaderError::Malformed)?;
    let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii()).ok_or(HeaderError::Malformed)?;
    let origin = origin(line).ok_or(HeaderError::Malformed)?;
    Ok(Some(Header { len: end + 1, origin, tlvs: Tlvs::NONE }))
}

fn origin(line: &str) -> Option<Origin> {
    let mut words = line.split(' ');
    let (_proxy, family) = (words.next()?, words.next()?);
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Origin::Unknown);
    }
    let [source_ip, destination_ip] = [words.next()?, words.next()?].map(|text| address(family, text));
    let [source_port, destination_port] = [words.next()?, words.next()?].map(port);
    let source = SocketAddr::new(source_ip?, source_port?);
    let destination = SocketAddr::new(destination_ip?, destination_port?);
    words.next().is_none().then_some(Origin::Stream { source, destination })
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// Decimal without leading zeroes.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if digits { text.parse().ok() } else { None }
}

/// Writes it. Ends of different families are written as IPv6, IPv4 ones mapped.
pub(super) fn write(origin: &Origin, out: &mut Vec<u8>) {
    let line = match origin.addresses() {
        Some((source, destination)) => {
            let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
            let (family, from, to) = match (from, to) {
                (IpAddr::V4(_), IpAddr::V4(_)) => ("TCP4", from, to),
                _ => ("TCP6", mapped(from), mapped(to)),
            };
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
        None => "PROXY UNKNOWN\r\n".to_owned(),
    };
    out.extend_from_slice(line.as_bytes());
}

/// An address in IPv6.
pub(super) fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    }
}
