//! TCP segments as whole Ethernet frames, for probes that the network stack must not see: the stack owns the VIP, and
//! would keep what is sent there.

use std::net::{IpAddr, SocketAddr};

/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// PSH.
pub const PSH: u8 = 0x08;
/// ACK.
pub const ACK: u8 = 0x10;

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<'d> {
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledged.
    pub acknowledged: u32,
    /// Of [`SYN`] and the others.
    pub flags: u8,
    /// Data.
    pub data: &'d [u8],
}

/// The largest segment that is announced: it fits every IPv6 path.
const MSS: u16 = 1220;

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// The Internet checksum (RFC 1071) of what was summed.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Segment<'_> {
    /// The frame, with all checksums. Source and destination are of one family; data is at most 1,200 bytes.
    pub fn encode(&self, source_mac: [u8; 6], destination_mac: [u8; 6]) -> Vec<u8> {
        let data = &self.data[..self.data.len().min(1200)];
        let options: &[u8] = &[2, 4, MSS.to_be_bytes()[0], MSS.to_be_bytes()[1]];
        let options = if self.flags & SYN != 0 { options } else { &[] };
        let header = u8::try_from(20 + options.len()).expect("a small header");
        let mut tcp = Vec::with_capacity(1300);
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([header << 2, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let (source, destination) = (octets(self.source.ip()), octets(self.destination.ip()));
        let length = u16::try_from(tcp.len()).expect("a small segment");
        let checksum = fold(sum(&source) + sum(&destination) + 6 + u32::from(length) + sum(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [destination_mac, source_mac].concat();
        if self.source.is_ipv4() {
            frame.extend([0x08, 0x00]);
            let total = (length + 20).to_be_bytes();
            let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
            ip.extend(source);
            ip.extend(destination);
            let checksum = fold(sum(&ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(ip);
        } else {
            frame.extend([0x86, 0xdd]);
            let length = length.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, length[0], length[1], 6, 64]);
            frame.extend(source);
            frame.extend(destination);
        }
        frame.extend(tcp);
        frame
    }
}

/// Reads a frame; `None`: it is no whole TCP segment. Checksums are not looked at: offloads leave them out.
pub fn decode(frame: &[u8]) -> Option<Segment<'_>> {
    let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let ip = frame.get(14..34)?;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            if ip[0] != 0x45 || ip[9] != 6 {
                return None;
            }
            let source: [u8; 4] = ip[12..16].try_into().ok()?;
            let destination: [u8; 4] = ip[16..20].try_into().ok()?;
            (source.into(), destination.into(), frame.get(34..14 + total)?)
        }
        [0x86, 0xdd] => {
            let ip = frame.get(14..54)?;
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            if ip[6] != 6 {
                return None;
            }
            let source: [u8; 16] = ip[8..24].try_into().ok()?;
            let destination: [u8; 16] = ip[24..40].try_into().ok()?;
            (source.into(), destination.into(), frame.get(54..54 + length)?)
        }
        _ => return None,
    };
    let header = tcp.first_chunk::<20>()?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some(Segment {
        source: SocketAddr::new(source, u16::from_be_bytes([header[0], header[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([header[2], header[3]])),
        sequence: word(4),
        acknowledged: word(8),
        flags: header[13],
        data: tcp.get(usize::from(header[12] >> 4) * 4..).filter(|_| header[12] >> 4 >= 5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_back_and_every_prefix_is_judged() {
        for (source, destination) in [("10.0.0.1:61000", "10.0.0.100:80"), ("[fd00::1]:61001", "[fd00::100]:8080")] {
            for (flags, data) in [(SYN, &b""[..]), (ACK | PSH, b"GET / HTTP/1.1\r\n"), (RST | ACK, b"")] {
                let segment = Segment {
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                    sequence: 0xdead_beef,
                    acknowledged: 7,
                    flags,
                    data,
                };
                let frame = segment.encode([2; 6], [4; 6]);
                assert_eq!(decode(&frame), Some(segment.clone()));
                // Padding of short frames is not data.
                assert_eq!(decode(&[&frame[..], &[0; 6]].concat()), Some(segment));
                assert!((0..frame.len()).all(|length| decode(&frame[..length]).is_none()));
            }
        }
    }

    #[test]
    fn checksums_are_right() {
        let segment = Segment {
            source: "192.0.2.1:61000".parse().unwrap(),
            destination: "192.0.2.9:80".parse().unwrap(),
            sequence: 1,
            acknowledged: 0,
            flags: SYN,
            data: b"odd",
        };
        let frame = segment.encode([2; 6], [4; 6]);
        // What is summed with its checksum is all ones.
        assert_eq!(fold(sum(&frame[14..34])), 0);
        let length = u32::try_from(frame.len() - 34).unwrap();
        assert_eq!(fold(sum(&frame[26..34]) + 6 + length + sum(&frame[34..])), 0);
    }
}
