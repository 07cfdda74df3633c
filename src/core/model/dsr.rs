//! Services whose answers do not come back through us.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dsr::{Hashing, Transport};
use crate::health::ActiveCheck;

/// Where the XDP program of an interface runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DsrMode {
    /// In the driver where that works, else in the stack.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

impl DsrMode {
    /// As configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Native => "Native",
            Self::Generic => "Generic",
        }
    }
}

/// A virtual address, port and protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct DsrService {
    /// The listener, as `namespace/gateway/listener`.
    pub name: String,
    /// The address that clients connect to, and that every server has too.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub transport: Transport,
    /// The interface that requests come in by.
    pub interface: String,
    /// Where the program runs there.
    pub mode: DsrMode,
    /// What decides about a flow's server.
    pub hashing: Hashing,
    /// Flows are not remembered: a change of the servers may move some.
    pub stateless: bool,
    /// Flows that are remembered, of all services together: the largest value of any counts.
    pub max_flows: u32,
    /// New flows that are remembered per second; 0: all. What is over it is forwarded without being remembered.
    pub new_flows_per_second: u32,
    /// How long flows of a server that was taken out may go on.
    pub drain: Duration,
    /// How servers are checked; none: only whether they answer on the network.
    pub health: Option<ActiveCheck>,
    /// In the order of the files, each once.
    pub servers: Vec<DsrServer>,
}

/// A server, which listens on the VIP and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DsrServer {
    /// Its own address, on a network that the balancer is on too.
    pub ip: IpAddr,
    /// Its share; 0 drains it.
    pub weight: u32,
}
