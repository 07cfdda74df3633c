//! Direct server return: what the XDP program does with a frame, as plain code.
//!
//! Requests pass through us, answers go from the server straight to the client. A frame for a virtual address (VIP) gets
//! a server's MAC address and leaves again; nothing else in it changes. Which server: the one that the flow table
//! remembers, else the one at the flow's place in the service's Maglev table.
//!
//! [`abi`] is how the program and the process that runs it share memory; [`Reference`] is the program in Rust, which
//! the emitted one is tested against; [`pick`] is also how `ringway explain` says where a flow would go.

pub mod abi;
mod reference;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use reference::{Reference, Server, Service, Verdict};

use abi::{FLOW_KEY, VIP_KEY};

/// Slots of a service's table. A prime (Maglev, section 3.4); 100 servers then differ in load by less than 2 %.
pub const SLOTS: usize = 16_381;

/// Part of the flow's hash. Every balancer that may see a flow has to have the same.
pub const SEED: u64 = 0x7269_6e67_7761_7931;

/// A transport protocol by its IP number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

impl Transport {
    /// `TCP` or `UDP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// What of a flow decides about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Hashing {
    /// Both addresses, both ports and the protocol.
    #[default]
    FiveTuple,
    /// The client's address: everything of a client goes to one server, in all services with the same table.
    SourceIp,
}

/// A VIP: address, port and protocol, in the form of the maps' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipKey(pub [u8; VIP_KEY]);

/// A flow as the client opens it, in the form of the maps' keys. Its end is the key of the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey(pub [u8; FLOW_KEY]);

impl VipKey {
    /// Of an address.
    pub fn new(vip: SocketAddr, transport: Transport) -> Self {
        let mut key = [0; VIP_KEY];
        abi::put_ip(&mut key[..16], vip.ip());
        key[16..18].copy_from_slice(&vip.port().to_be_bytes());
        key[18] = transport as u8;
        key[19] = if vip.is_ipv4() { 4 } else { 6 };
        Self(key)
    }

    /// The address that it stands for; none for bytes that are no VIP.
    pub fn parts(&self) -> Option<(SocketAddr, Transport)> {
        let transport = match self.0[18] {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => return None,
        };
        let ip = abi::get_ip(&self.0[..16], self.0[19] == 4);
        Some((SocketAddr::new(ip, u16::from_be_bytes([self.0[16], self.0[17]])), transport))
    }
}

impl FlowKey {
    /// Of a client's address and the VIP that it talks to.
    pub fn new(client: SocketAddr, vip: SocketAddr, transport: Transport) -> Self {
        let mut key = [0; FLOW_KEY];
        abi::put_ip(&mut key[..16], client.ip());
        key[16..18].copy_from_slice(&client.port().to_be_bytes());
        key[20..].copy_from_slice(&VipKey::new(vip, transport).0);
        Self(key)
    }

    /// The VIP's key.
    pub fn vip(&self) -> VipKey {
        VipKey(self.0[20..].try_into().expect("the last 20 of 40 bytes"))
    }

    /// The client's address.
    pub fn client(&self) -> SocketAddr {
        let ip = abi::get_ip(&self.0[..16], self.0[39] == 4);
        SocketAddr::new(ip, u16::from_be_bytes([self.0[16], self.0[17]]))
    }
}

/// Mixes one word into a hash; the program has the same steps.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A flow's hash: five words, each mixed in by a multiplication, finished as MurmurHash3 does.
pub fn hash(key: &FlowKey, hashing: Hashing) -> u64 {
    let mut words = [0_u64; 5];
    for (word, bytes) in words.iter_mut().zip(key.0.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    }
    if hashing == Hashing::SourceIp {
        words[2..].fill(0);
    }
    let mut hash = SEED;
    for word in words {
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A flow's slot in a table.
pub fn pick(key: &FlowKey, hashing: Hashing) -> usize {
    let scaled = (hash(key, hashing) >> 32) * SLOTS as u64;
    usize::try_from(scaled >> 32).expect("less than SLOTS")
}
