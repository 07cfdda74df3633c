//! The engine as it is seen from outside.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_core::dsr::abi::Counter;
use ringway_core::dsr::{FlowKey, Transport, pick};
use ringway_core::model::DsrService;

use crate::sys::bpf::XdpMode;
use crate::xdp::maps::{ServerStats, VipStats};

use super::{Engine, EngineError, system};

/// Why a server gets no new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It does.
    Up,
    /// Its weight is 0, or it has been taken out.
    Draining,
    /// Its MAC address is not known.
    Unreachable,
    /// Its checks fail.
    Unhealthy,
}

impl ServerState {
    /// As in metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A service's server as it is.
#[derive(Debug, Clone)]
pub struct ServerView {
    /// Its address.
    pub ip: IpAddr,
    /// As configured.
    pub weight: u32,
    /// What it gets.
    pub state: ServerState,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// What was sent to it, for all services.
    pub stats: ServerStats,
}

/// A service as it is.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// As configured.
    pub service: DsrService,
    /// What was counted.
    pub stats: VipStats,
    /// Its servers, those that drain included.
    pub servers: Vec<ServerView>,
    /// All of its servers are unhealthy, and so all are used.
    pub panic: bool,
}

/// A remembered flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// The client.
    pub client: SocketAddr,
    /// What it talks to.
    pub vip: SocketAddr,
    /// By which protocol.
    pub transport: Transport,
    /// Its server; none: that has gone.
    pub server: Option<IpAddr>,
    /// Since the last frame.
    pub idle: Duration,
}

impl Engine {
    /// All services.
    pub fn services(&self) -> Result<Vec<ServiceView>, EngineError> {
        let mut all = Vec::new();
        for (key, live) in &self.services {
            let mut servers = Vec::new();
            let listed = live.config.servers.iter().map(|server| (server.ip, server.weight));
            let leaving = self.drains.iter().filter(|drain| drain.vip == Some(*key)).map(|drain| (drain.ip, 0));
            for (ip, weight) in listed.chain(leaving) {
                let Some(known) = self.servers.get(&ip) else { continue };
                if servers.iter().any(|view: &ServerView| view.ip == ip) {
                    continue;
                }
                servers.push(ServerView {
                    ip,
                    weight,
                    state: self.state(live, ip, weight),
                    mac: known.value.reachable.then_some(known.value.mac),
                    stats: self.maps.server_stats(known.number).map_err(system("cannot read counters"))?,
                });
            }
            let stats = self.maps.vip_stats(live.value.stats).map_err(system("cannot read counters"))?;
            all.push(ServiceView { service: live.config.clone(), stats, servers, panic: live.panic });
        }
        Ok(all)
    }

    /// The program's counters.
    pub fn counters(&self) -> Result<[u64; Counter::ALL.len()], EngineError> {
        self.maps.counters().map_err(system("cannot read counters"))
    }

    /// Where programs are, with how they run.
    pub fn attached(&self) -> impl Iterator<Item = (&str, Option<XdpMode>)> {
        self.ports.iter().map(|(name, port)| (name.as_str(), port.mode))
    }

    /// Why there is no guard rule.
    pub fn guard_error(&self) -> Option<&str> {
        self.guard_error.as_deref()
    }

    /// Whether there is a guard rule.
    pub fn is_guarded(&self) -> bool {
        self.guard.is_set() && self.guard_error.is_none()
    }

    /// Tables that were filled since the start, and tables in use.
    pub fn tables(&self) -> (u64, usize) {
        (self.tables.built, self.tables.used())
    }

    /// Remembered flows: client, VIP, protocol, server, and how long ago each was last seen.
    pub fn flows(&self) -> Result<Vec<FlowView>, EngineError> {
        let by_number: HashMap<u32, IpAddr> =
            self.servers.iter().map(|(ip, known)| (u32::from(known.number), *ip)).collect();
        let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        let mut found = Vec::new();
        self.maps
            .scan_flows(|key, value| {
                if let Some((vip, transport)) = key.vip().parts() {
                    found.push(FlowView {
                        client: key.client(),
                        vip,
                        transport,
                        server: by_number.get(&value.server).copied(),
                        idle: Duration::from_nanos(now.saturating_sub(value.seen)),
                    });
                }
            })
            .map_err(system("cannot read the flows"))?;
        Ok(found)
    }

    /// How many flows are remembered, and how many could be.
    pub fn flow_count(&self) -> Result<(usize, u32), EngineError> {
        let mut count = 0;
        self.maps.scan_flows(|_, _| count += 1).map_err(system("cannot read the flows"))?;
        Ok((count, self.maps.sizes().flows))
    }

    /// Which server a flow goes to, and whether because it is remembered. The outer `None`: there is no such service.
    #[allow(clippy::option_option, reason = "no service, and no server, are two answers")]
    pub fn explain(
        &self,
        client: SocketAddr,
        vip: SocketAddr,
        transport: Transport,
    ) -> Result<Option<Option<(IpAddr, bool)>>, EngineError> {
        let key = FlowKey::new(client, vip, transport);
        let Some(live) = self.services.get(&key.vip()) else { return Ok(None) };
        let of = |number: u32| self.servers.iter().find(|(_, known)| u32::from(known.number) == number);
        if !live.config.stateless
            && let Some(flow) = self.maps.flow(key).map_err(system("cannot read a flow"))?
            && let Some((ip, known)) = of(flow.server)
            && known.value.reachable
        {
            return Ok(Some(Some((*ip, true))));
        }
        let slot = self.maps.table(live.value.table)[pick(&key, live.config.hashing)];
        Ok(Some(of(slot.into()).map(|(ip, _)| (*ip, false))))
    }
}

/// The clock that flows are stamped with.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
