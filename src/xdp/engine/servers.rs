//! Servers: where they are, kept true by the kernel's own neighbour table.
//!
//! A server keeps its number in the maps for as long as anything refers to it, so tables hold numbers and a new MAC
//! address changes one entry.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringway_core::dsr::abi::ServerValue;

use crate::sys::netlink::Neighbour;
use crate::xdp::maps::MAX_SERVERS;

use super::{Drain, Engine, EngineError, system};

/// How long servers that were not known before are waited for.
const FIRST_ANSWERS: Duration = Duration::from_millis(300);

/// A server that is in the maps.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) number: u16,
    pub(super) value: ServerValue,
}

/// How a frame gets to a server.
#[derive(Debug, Clone, Copy)]
pub(in crate::xdp) struct Way {
    pub(in crate::xdp) ifindex: u32,
    pub(in crate::xdp) source: IpAddr,
    pub(in crate::xdp) source_mac: [u8; 6],
    pub(in crate::xdp) mac: [u8; 6],
}

impl Engine {
    pub(super) fn add_servers(&mut self, ips: &BTreeSet<IpAddr>) -> Result<(), EngineError> {
        let neighbours = self.resolve(ips)?;
        let mut taken: HashSet<u16> = self.servers.values().map(|known| known.number).collect();
        for ip in ips {
            let way = self.interface_to(*ip);
            let old = self.servers.get(ip);
            if let Err(why) = &way
                && old.is_none_or(|known| known.value.reachable)
            {
                tracing::warn!(server = %ip, why, "frames cannot be sent to a server");
            }
            let number = match old {
                Some(known) => known.number,
                None => {
                    let max = u16::try_from(MAX_SERVERS).expect("fits");
                    let number = (0..max).find(|number| !taken.contains(number));
                    let number = number.ok_or_else(|| EngineError::Missing("no room for another server".into()))?;
                    taken.insert(number);
                    self.maps.reset_server_stats(number).map_err(system("cannot reset counters"))?;
                    number
                }
            };
            // What was known stays known until something else is.
            let mut value = old
                .map_or(ServerValue { mac: [0; 6], reachable: false, source: [0; 6], ifindex: 0, ip: *ip }, |known| {
                    known.value
                });
            if let Ok(ifindex) = way {
                value.ifindex = ifindex;
                value.source = self.interfaces.get(&ifindex).and_then(|each| each.mac).unwrap_or_default();
                let entry = neighbours.iter().find(|each| each.ip == *ip && each.ifindex == ifindex);
                if let Some(mac) = entry.and_then(|each| each.mac) {
                    (value.mac, value.reachable) = (mac, true);
                }
                self.maps.allow_outgoing(ifindex).map_err(system("cannot allow an interface"))?;
            } else {
                value.reachable = false;
            }
            if old.is_none_or(|known| known.value != value) {
                self.maps.set_server(number, Some(&value));
            }
            self.servers.insert(*ip, Known { number, value });
        }
        Ok(())
    }

    /// The interface that a server is a neighbour at, or why it is none. That may be so for as long as a link is down.
    fn interface_to(&mut self, ip: IpAddr) -> Result<u32, String> {
        match self.netlink.route(ip) {
            Ok(route) if route.local => Err("it is an address of this machine".to_owned()),
            Ok(route) if route.gateway => Err("it is behind a router".to_owned()),
            Ok(route) => Ok(route.ifindex),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks for the MAC addresses of servers. For those that were not known before it waits a little: a table that is
    /// filled once is better than one per answer.
    fn resolve(&mut self, ips: &BTreeSet<IpAddr>) -> Result<Vec<Neighbour>, EngineError> {
        let known = self.netlink.neighbours().map_err(system("cannot list the neighbours"))?;
        // The kernel would take what was set by hand for something to be asked for.
        let by_hand: HashSet<IpAddr> = known.iter().filter(|each| each.permanent).map(|each| each.ip).collect();
        for ip in ips.difference(&by_hand.into_iter().collect()) {
            // Without a way there is nobody to ask.
            let Ok(ifindex) = self.interface_to(*ip) else { continue };
            if let Err(error) = self.netlink.manage_neighbour(ifindex, *ip) {
                tracing::warn!(server = %ip, %error, "its MAC address is not kept fresh");
            }
        }
        let fresh: Vec<&IpAddr> = ips.iter().filter(|ip| !self.servers.contains_key(ip)).collect();
        let end = Instant::now() + FIRST_ANSWERS;
        loop {
            let found = self.netlink.neighbours().map_err(system("cannot list the neighbours"))?;
            let known = |ip: &IpAddr| found.iter().any(|each| each.ip == *ip && each.mac.is_some());
            if fresh.iter().all(|ip| known(ip)) || Instant::now() >= end {
                return Ok(found);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Frees the places of servers that nobody refers to and whose flows have ended.
    pub(super) fn free_servers(&mut self, now: Instant) {
        let mut used: HashSet<IpAddr> =
            self.services.values().flat_map(|live| &live.config.servers).map(|server| server.ip).collect();
        used.extend(self.drains.iter().map(|drain| drain.ip));
        // An adopted server that nobody wants any more drains for all services.
        let orphans: Vec<IpAddr> = self.servers.keys().filter(|ip| !used.contains(ip)).copied().collect();
        for ip in orphans {
            if self.adopted {
                self.drains.push(Drain { vip: None, ip, at: now + Duration::from_secs(300) });
            } else if let Some(known) = self.servers.remove(&ip) {
                self.maps.set_server(known.number, None);
            }
        }
        // Only what was found at the start can be an orphan with flows.
        self.adopted = false;
    }

    /// Writes what has changed about a neighbour; whether it can be reached or not any more.
    pub(super) fn neighbour(&mut self, change: &Neighbour) -> bool {
        let Some(known) = self.servers.get_mut(&change.ip) else { return false };
        if known.value.ifindex != change.ifindex {
            return false;
        }
        let mut value = known.value;
        match change.mac {
            Some(mac) => {
                value.mac = mac;
                value.reachable = true;
            }
            // While it is asked again, what is known is used on.
            None if change.failed => value.reachable = false,
            None => {}
        }
        if value == known.value {
            return false;
        }
        if value.reachable != known.value.reachable {
            tracing::info!(server = %change.ip, reachable = value.reachable, "server");
        }
        let changed = value.reachable != known.value.reachable;
        known.value = value;
        self.maps.set_server(known.number, Some(&value));
        changed
    }

    /// How a frame gets to a server; `None`: its MAC address is not known. An error: this machine has no address on its
    /// network.
    pub(in crate::xdp) fn way(&self, ip: IpAddr) -> io::Result<Option<Way>> {
        let known = self.servers.get(&ip).filter(|known| known.value.reachable);
        let Some(Known { value, .. }) = known else { return Ok(None) };
        let vips: HashSet<IpAddr> = self.services.values().map(|live| live.config.vip.ip()).collect();
        // The address with the longest prefix that both are in, but not a VIP: answers would go to the servers.
        let own = self.addresses.iter().filter(|(ifindex, own, prefix)| {
            *ifindex == value.ifindex && !vips.contains(own) && same_network(*own, ip, *prefix)
        });
        let own = own.max_by_key(|(_, _, prefix)| *prefix).map(|(_, own, _)| *own);
        let source = own.ok_or_else(|| io::Error::other("this machine has no address on its network"))?;
        Ok(Some(Way { ifindex: value.ifindex, source, source_mac: value.source, mac: value.mac }))
    }
}

/// Whether two addresses have these many first bits in common.
fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(prefix.min(32))).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(prefix.min(128))).unwrap_or(0) == 0
        }
        _ => false,
    }
}
