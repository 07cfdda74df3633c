//! Memory that the XDP program and the process share: keys, values, counters. The one place where their layout stands.
//!
//! Everything is little-endian except addresses and ports, which are as on the wire. A change of any layout is a change
//! of [`VERSION`]: a process that finds another version pinned makes new maps.

use std::net::{IpAddr, Ipv6Addr};

/// Of all layouts in this module.
pub const VERSION: u32 = 1;

/// Bytes of a VIP's key: address 16, port 2, protocol 1, family 1 (4 or 6).
pub const VIP_KEY: usize = 20;
/// Bytes of a flow's key: client's address 16, its port 2, zero 2, the VIP's key.
pub const FLOW_KEY: usize = 40;
/// Bytes of a [`VipValue`].
pub const VIP_VALUE: usize = 16;
/// Bytes of a [`FlowValue`].
pub const FLOW_VALUE: usize = 16;
/// Bytes of a [`ServerValue`].
pub const SERVER_VALUE: usize = 40;
/// Bytes of a table: a `u16` per slot, in whole words.
pub const TABLE_VALUE: usize = (super::SLOTS * 2).next_multiple_of(8);
/// Bytes of a service's counters on one processor: packets, bytes, new flows, flows over the cap, the cap's window,
/// new flows in it.
pub const VIP_STATS: usize = 48;
/// Bytes of a server's counters on one processor: packets, bytes.
pub const SERVER_STATS: usize = 16;

/// A slot that has no server.
pub const NO_SERVER: u16 = u16::MAX;

/// Flows are not remembered.
pub const STATELESS: u32 = 1;
/// The client's address alone decides.
pub const SOURCE_IP: u32 = 2;

/// Nanoseconds, as a power of two, in which new flows are counted for the cap: 1.07 s.
pub const WINDOW_SHIFT: u32 = 30;

/// A service, as the program finds it by its VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipValue {
    /// Its table.
    pub table: u32,
    /// Its counters.
    pub stats: u32,
    /// Of [`STATELESS`] and [`SOURCE_IP`].
    pub flags: u32,
    /// New flows that one processor remembers in a window; 0: all.
    pub cap: u32,
}

impl VipValue {
    /// As bytes.
    pub fn encode(&self) -> [u8; VIP_VALUE] {
        let mut out = [0; VIP_VALUE];
        for (bytes, word) in out.chunks_exact_mut(4).zip([self.table, self.stats, self.flags, self.cap]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; VIP_VALUE]) -> Self {
        Self { table: word(bytes, 0), stats: word(bytes, 4), flags: word(bytes, 8), cap: word(bytes, 12) }
    }
}

/// What is known about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowValue {
    /// Its server.
    pub server: u32,
    /// When it was last seen: nanoseconds of the monotonic clock, a few milliseconds coarse.
    pub seen: u64,
}

impl FlowValue {
    /// As bytes.
    pub fn encode(&self) -> [u8; FLOW_VALUE] {
        let mut out = [0; FLOW_VALUE];
        out[..4].copy_from_slice(&self.server.to_le_bytes());
        out[8..].copy_from_slice(&self.seen.to_le_bytes());
        out
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; FLOW_VALUE]) -> Self {
        Self { server: word(bytes, 0), seen: u64::from_le_bytes(bytes[8..].try_into().expect("8 bytes")) }
    }
}

/// A server. Written word by word while the program reads it, so what belongs together is in one word: the MAC address
/// and whether it is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerValue {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Whether frames can be sent to it.
    pub reachable: bool,
    /// The MAC address of the interface that it is behind.
    pub source: [u8; 6],
    /// That interface.
    pub ifindex: u32,
    /// Its address, which the program does not read: a process that takes over finds out by it who this is.
    pub ip: IpAddr,
}

impl ServerValue {
    /// As words, in the order in which they may be written.
    pub fn encode(&self) -> [u64; SERVER_VALUE / 8] {
        let mut bytes = [0_u8; SERVER_VALUE];
        bytes[..6].copy_from_slice(&self.mac);
        bytes[6] = u8::from(self.reachable);
        bytes[8..14].copy_from_slice(&self.source);
        bytes[16..20].copy_from_slice(&self.ifindex.to_le_bytes());
        bytes[20] = 1;
        put_ip(&mut bytes[24..40], self.ip);
        let mut words = [0; SERVER_VALUE / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        }
        words
    }

    /// From words; `None`: the place is free.
    pub fn decode(words: &[u64; SERVER_VALUE / 8]) -> Option<Self> {
        let mut bytes = [0_u8; SERVER_VALUE];
        for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        (bytes[20] == 1).then(|| Self {
            mac: bytes[..6].try_into().expect("6 bytes"),
            reachable: bytes[6] != 0,
            source: bytes[8..14].try_into().expect("6 bytes"),
            ifindex: word(&bytes, 16),
            ip: get_ip(&bytes[24..40]),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Writes an address into 16 bytes; an IPv4 one is mapped (`::ffff:a.b.c.d`).
pub fn put_ip(out: &mut [u8], ip: IpAddr) {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out[..16].copy_from_slice(&ip.octets());
}

/// Reads an address from 16 bytes.
pub fn get_ip(bytes: &[u8]) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("16 bytes")).to_canonical()
}

macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident = $label:literal, )*) => {
        /// What the program counts, by its place in the counters' value.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Counter { $( $(#[$meta])* $name, )* }

        impl Counter {
            /// All, in order.
            pub const ALL: [Self; [$( $label ),*].len()] = [$( Self::$name ),*];

            /// The label in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$name => $label, )* }
            }
        }
    };
}

counters! {
    /// Frames seen.
    Received = "received",
    /// Sent out of the interface that they came in by.
    Sent = "sent",
    /// Sent out of another.
    Redirected = "redirected",
    /// The flow was known.
    FlowHit = "flow_hit",
    /// The table was asked.
    FlowMiss = "flow_miss",
    /// A new flow is remembered.
    FlowNew = "flow_new",
    /// A new flow is not remembered: too many in this second.
    FlowCapped = "flow_capped",
    /// A new flow is not remembered: the kernel did not take it.
    FlowFailed = "flow_failed",
    /// A TCP connection begins.
    Syn = "syn",
    /// An ICMP error about a flow.
    Icmp = "icmp",
    /// For another host's MAC address; to the stack.
    PassOtherHost = "pass_other_host",
    /// Neither IP nor TCP, UDP or an ICMP error; to the stack.
    PassOther = "pass_other",
    /// For no VIP; to the stack.
    PassNoVip = "pass_no_vip",
    /// A fragment; to the stack.
    PassFragment = "pass_fragment",
    /// IPv4 options or IPv6 extension headers; to the stack.
    PassHeader = "pass_header",
    /// Too short for what its headers say; to the stack.
    PassMalformed = "pass_malformed",
    /// No server is reachable.
    DropNoServer = "drop_no_server",
    /// A map had no element where there has to be one.
    DropError = "drop_error",
}

/// Bytes of the counters' value.
pub const STATS: usize = Counter::ALL.len() * 8;
