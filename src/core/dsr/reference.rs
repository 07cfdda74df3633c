//! The program, in Rust: frame in, frame and verdict out.

use std::collections::{HashMap, HashSet};

use super::abi::{Counter, NO_SERVER, SOURCE_IP, STATELESS};
use super::{FlowKey, Hashing, VipKey, pick};

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped.
    Drop,
    /// To the network stack.
    Pass,
    /// Out where it came in.
    Transmit,
    /// Out of another interface.
    Redirect,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Index into [`Reference::tables`].
    pub table: usize,
    /// As in the ABI.
    pub flags: u32,
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Whether frames can be sent to it.
    pub reachable: bool,
    /// The MAC address that frames to it come from.
    pub source: [u8; 6],
    /// The interface that it is behind.
    pub ifindex: u32,
}

/// Everything that the program sees. New flows are not capped here.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The MAC address of the interface.
    pub mac: [u8; 6],
    /// The interface that frames come in by.
    pub ifindex: u32,
    /// Interfaces that frames may be sent out of.
    pub outgoing: HashSet<u32>,
    /// By VIP.
    pub services: HashMap<VipKey, Service>,
    /// Tables.
    pub tables: Vec<Vec<u16>>,
    /// Servers.
    pub servers: Vec<Server>,
    /// Remembered flows.
    pub flows: HashMap<FlowKey, u16>,
    /// By [`Counter`].
    pub counters: [u64; Counter::ALL.len()],
}

/// A frame that concerns a flow.
struct Packet {
    key: FlowKey,
    /// A TCP connection begins.
    syn: bool,
    /// It is an ICMP error about the flow.
    icmp: bool,
}

impl Reference {
    /// Judges a frame, and changes it as the program would.
    pub fn forward(&mut self, frame: &mut [u8]) -> Verdict {
        self.count(Counter::Received);
        let packet = match self.parse(frame) {
            Ok(packet) => packet,
            Err(reason) => return self.end(reason, Verdict::Pass),
        };
        let Some(service) = self.services.get(&packet.key.vip()).copied() else {
            return self.end(Counter::PassNoVip, Verdict::Pass);
        };
        if packet.icmp {
            self.count(Counter::Icmp);
        } else if packet.syn {
            self.count(Counter::Syn);
        }
        let stateless = service.flags & STATELESS != 0;
        let fresh = packet.syn && !packet.icmp;
        let known = if stateless || fresh { None } else { self.flows.get(&packet.key).copied() };
        let server = match known.and_then(|index| self.reachable(index)) {
            Some(server) => {
                self.count(Counter::FlowHit);
                server
            }
            None => {
                self.count(Counter::FlowMiss);
                let hashing = if service.flags & SOURCE_IP != 0 { Hashing::SourceIp } else { Hashing::FiveTuple };
                let index = self.tables[service.table][pick(&packet.key, hashing)];
                let Some(server) = self.reachable(index) else {
                    return self.end(Counter::DropNoServer, Verdict::Drop);
                };
                if !stateless && !packet.icmp {
                    self.flows.insert(packet.key, index);
                    self.count(Counter::FlowNew);
                }
                server
            }
        };
        frame[..6].copy_from_slice(&server.mac);
        frame[6..12].copy_from_slice(&server.source);
        if server.ifindex == self.ifindex {
            return self.end(Counter::Sent, Verdict::Transmit);
        }
        let out = self.outgoing.contains(&server.ifindex);
        self.end(Counter::Redirected, if out { Verdict::Redirect } else { Verdict::Drop })
    }

    fn count(&mut self, counter: Counter) {
        self.counters[counter as usize] += 1;
    }

    fn end(&mut self, counter: Counter, verdict: Verdict) -> Verdict {
        self.count(counter);
        verdict
    }

    fn reachable(&self, index: u16) -> Option<Server> {
        let server = (index != NO_SERVER).then(|| self.servers.get(usize::from(index)).copied()).flatten()?;
        server.reachable.then_some(server)
    }

    fn parse(&self, frame: &[u8]) -> Result<Packet, Counter> {
        let (ethernet, rest) = frame.split_at_checked(14).ok_or(Counter::PassOther)?;
        if frame.len() < 34 {
            return Err(Counter::PassOther);
        }
        if ethernet[..6] != self.mac {
            return Err(Counter::PassOtherHost);
        }
        match [ethernet[12], ethernet[13]] {
            [0x08, 0x00] => ipv4(rest),
            [0x86, 0xdd] => ipv6(rest),
            _ => Err(Counter::PassOther),
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn ipv4(packet: &[u8]) -> Result<Packet, Counter> {
    let (header, rest) = packet.split_at(20);
    if header[0] != 0x45 {
        return Err(Counter::PassHeader);
    }
    // More fragments follow, or this is not the first.
    if header[6] & 0x3f != 0 || header[7] != 0 {
        return Err(Counter::PassFragment);
    }
    let (source, destination) = (&header[12..16], &header[16..20]);
    match header[9] {
        1 => {
            let error = rest.get(..32).ok_or(Counter::PassMalformed)?;
            if !matches!(error[0], 3 | 11 | 12) {
                return Err(Counter::PassOther);
            }
            let inner = &error[8..];
            if inner[0] != 0x45 {
                return Err(Counter::PassHeader);
            }
            if inner[6] & 0x1f != 0 || inner[7] != 0 {
                return Err(Counter::PassFragment);
            }
            if !matches!(inner[9], TCP | UDP) || inner[12..16] != *destination {
                return Err(Counter::PassOther);
            }
            Ok(Packet {
                key: quoted(&inner[12..16], &inner[16..20], &inner[20..24], inner[9], 4),
                syn: false,
                icmp: true,
            })
        }
        protocol => transport(source, destination, protocol, rest, 4),
    }
}

fn ipv6(packet: &[u8]) -> Result<Packet, Counter> {
    let (header, rest) = packet.split_at_checked(40).ok_or(Counter::PassMalformed)?;
    if header[0] & 0xf0 != 0x60 {
        return Err(Counter::PassHeader);
    }
    let (source, destination) = (&header[8..24], &header[24..40]);
    match header[6] {
        44 => Err(Counter::PassFragment),
        0 | 43 | 51 | 60 => Err(Counter::PassHeader),
        58 => {
            let error = rest.get(..52).ok_or(Counter::PassMalformed)?;
            if !matches!(error[0], 1..=4) {
                return Err(Counter::PassOther);
            }
            let inner = &error[8..];
            if inner[0] & 0xf0 != 0x60 {
                return Err(Counter::PassHeader);
            }
            if !matches!(inner[6], TCP | UDP) || inner[8..24] != *destination {
                return Err(Counter::PassOther);
            }
            Ok(Packet {
                key: quoted(&inner[8..24], &inner[24..40], &inner[40..44], inner[6], 6),
                syn: false,
                icmp: true,
            })
        }
        protocol => transport(source, destination, protocol, rest, 6),
    }
}

fn transport(source: &[u8], vip: &[u8], protocol: u8, segment: &[u8], family: u8) -> Result<Packet, Counter> {
    let syn = match protocol {
        TCP => segment.get(..20).ok_or(Counter::PassMalformed)?[13] & 0x12 == 0x02,
        UDP => segment.get(..8).map(|_| false).ok_or(Counter::PassMalformed)?,
        _ => return Err(Counter::PassOther),
    };
    let key = key(source, &segment[..2], vip, &segment[2..4], protocol, family);
    Ok(Packet { key, syn, icmp: false })
}

/// The flow that a quoted header of ours belongs to: it went from the VIP to the client.
fn quoted(source: &[u8], destination: &[u8], ports: &[u8], protocol: u8, family: u8) -> FlowKey {
    key(destination, &ports[2..4], source, &ports[..2], protocol, family)
}

fn key(client: &[u8], client_port: &[u8], vip: &[u8], vip_port: &[u8], protocol: u8, family: u8) -> FlowKey {
    let mut key = FlowKey([0; 40]);
    for (place, address) in [(0, client), (20, vip)] {
        key.0[place + 16 - address.len()..place + 16].copy_from_slice(address);
        if family == 4 {
            key.0[place + 10..place + 12].fill(0xff);
        }
    }
    key.0[16..18].copy_from_slice(client_port);
    key.0[36..38].copy_from_slice(vip_port);
    key.0[38] = protocol;
    key.0[39] = family;
    key
}
