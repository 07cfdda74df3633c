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
pub mod segment;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use reference::{Reference, Server, Service, Verdict};

use crate::balance::hash;

use abi::{FLOW_KEY, VIP_KEY};

/// Slots of a service's table: [`TableSize::DEFAULT`](crate::balance::TableSize::DEFAULT).
pub const SLOTS: usize = 16_381;

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
        Some((self.address(), transport))
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(abi::get_ip(&self.0[..16]), u16::from_be_bytes([self.0[16], self.0[17]]))
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
        SocketAddr::new(abi::get_ip(&self.0[..16]), u16::from_be_bytes([self.0[16], self.0[17]]))
    }
}

/// A flow's hash: the one that balances L7 traffic too, so a client's address means the same server there.
pub fn hash(key: &FlowKey, hashing: Hashing) -> u64 {
    let client = key.client();
    match hashing {
        Hashing::SourceIp => hash::source_ip(client.ip()),
        Hashing::FiveTuple => hash::five_tuple(client, key.vip().address(), key.0[38]),
    }
}

/// A flow's slot in a table.
pub fn pick(key: &FlowKey, hashing: Hashing) -> usize {
    let scaled = (hash(key, hashing) >> 32) * SLOTS as u64;
    usize::try_from(scaled >> 32).expect("less than SLOTS")
}
