//! Frames, written out byte by byte; nothing here is shared with what they are fed to.

use std::net::{IpAddr, SocketAddr};

use crate::support::Random;

/// The balancer's own MAC address in frames made here.
pub const BALANCER: [u8; 6] = [0x02, 0xf0, 0, 0, 0x80, 0x02];
pub const CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An IP packet with this payload.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match source {
        IpAddr::V4(_) => {
            let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            out.extend([0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        }
        IpAddr::V6(_) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            out.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
        }
    }
    out.extend(octets(source));
    out.extend(octets(destination));
    out.extend(payload);
    out
}

pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut out = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend(data);
    packet(source.ip(), destination.ip(), 6, &out)
}

pub fn udp(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut out = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    out.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(data);
    packet(source.ip(), destination.ip(), 17, &out)
}

/// An ICMP error from a router about a packet.
pub fn icmp_error(router: IpAddr, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let (to, protocol) = if about[0] >> 4 == 4 {
        (IpAddr::from(<[u8; 4]>::try_from(&about[12..16]).unwrap()), 1)
    } else {
        (IpAddr::from(<[u8; 16]>::try_from(&about[8..24]).unwrap()), 58)
    };
    let quoted = &about[..about.len().min(if protocol == 1 { 28 } else { 48 })];
    let mut out = vec![kind, code, 0, 0, 0, 0, 5, 0];
    out.extend(quoted);
    packet(router, to, protocol, &out)
}

/// In Ethernet, to the balancer.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&BALANCER[..], &CLIENT, &kind, packet].concat()
}

/// A frame that may be anything: mostly what a client sends, often with something wrong.
pub fn any(random: &mut Random, clients: &[SocketAddr], vips: &[SocketAddr]) -> Vec<u8> {
    let vip = *random.pick(vips);
    let same_family: Vec<SocketAddr> = clients.iter().filter(|each| each.is_ipv4() == vip.is_ipv4()).copied().collect();
    let mut client = *random.pick(&same_family);
    client.set_port(u16::try_from(1024 + random.below(64)).unwrap());
    let flags = *random.pick(&[SYN, ACK, ACK, ACK, SYN | ACK, 0x11, 0x04, 0x18, 0xff, 0x00, 0xc2]);
    let data: Vec<u8> = (0..random.below(40)).map(|_| random.byte()).collect();
    let mut out = match random.below(16) {
        0..=6 => tcp(client, vip, flags, &data),
        7..=9 => udp(client, vip, &data),
        10..=13 => {
            let about = if random.once_in(2) { tcp(vip, client, ACK, &[]) } else { udp(vip, client, &[]) };
            let router = random.pick(&same_family).ip();
            let kind = if vip.is_ipv4() { *random.pick(&[3, 3, 11, 12, 0, 8, 5]) } else { random.byte() % 7 };
            let mut error = icmp_error(router, kind, 4, &about);
            if random.once_in(8) {
                let more = error.len() / 2 + random.below(error.len() / 2);
                error[more] = random.byte();
            }
            error
        }
        14 => packet(client.ip(), vip.ip(), random.byte(), &data),
        _ => (0..20 + random.below(100)).map(|_| random.byte()).collect(),
    };
    // Something is wrong with the headers.
    if random.once_in(4) {
        for _ in 0..=random.below(3) {
            let place = random.below(out.len().min(70));
            out[place] ^= 1 << random.below(8);
        }
    }
    if random.once_in(16) {
        let place = random.below(out.len().min(100));
        out[place] = *random.pick(&[0, 1, 4, 6, 17, 44, 58, 60, 0x45, 0x46, 0x60, 0xff]);
    }
    let mut out = frame(&out);
    if random.once_in(12) {
        out.truncate(14 + random.below(out.len() - 13));
    }
    if random.once_in(32) {
        let place = random.below(14);
        out[place] ^= 1 << random.below(8);
    }
    out
}
