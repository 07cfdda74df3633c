//! Probes of servers at the VIP.
//!
//! The stack owns the VIP, so a socket that connects to it stays on this machine. A probe is therefore made of frames:
//! sent to the server's MAC address from an address of ours, through a packet socket, with the answers read there too.
//! The stack sees the answers as coming from an address of its own and ignores them (IPv4), or resets them towards
//! itself (IPv6); neither reaches the server. Compared with a namespace for probes there is nothing to set up, no
//! address to set aside, and what is probed is exactly the way that flows go.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ringway_core::balance::hash;
use ringway_core::dsr::{VipKey, segment};
use ringway_core::health::{Changed, Checker, Conversation, Next, ProbeError};
use ringway_core::model::DsrService;

use crate::sys::packet::{Filter, PacketSocket};

use super::engine::{Engine, Way};

/// Probes come from these ports: above what the kernel gives to sockets by default.
const PORTS: std::ops::Range<u16> = 61_000..65_000;
/// A SYN that is not answered is repeated after this long.
const REPEAT: Duration = Duration::from_millis(300);
/// Probes under way at one time; further ones wait, which stretches the interval.
const MAX_UNDER_WAY: usize = 2048;

/// TCP over IPv4 without options or IPv6, to one of our ports.
const FILTER: [Filter; 13] = [
    (0x28, 0, 0, 12),
    (0x15, 0, 4, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 8, 6),
    (0x28, 0, 0, 36),
    (0x35, 5, 6, PORTS.start as u32),
    (0x15, 0, 5, 0x86dd),
    (0x30, 0, 0, 20),
    (0x15, 0, 3, 6),
    (0x28, 0, 0, 56),
    (0x35, 0, 1, PORTS.start as u32),
    (0x06, 0, 0, 0xffff),
    (0x06, 0, 0, 0),
];

/// A server's state has changed.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) service: VipKey,
    pub(super) ip: IpAddr,
    pub(super) healthy: bool,
    /// Why the last probe failed.
    pub(super) why: Option<String>,
}

#[derive(Debug)]
struct Target {
    vip: SocketAddr,
    checker: Checker,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    conversation: Conversation,
    way: Way,
    repeat: Option<Instant>,
}

/// All targets.
#[derive(Debug)]
pub(super) struct Prober {
    start: Instant,
    targets: BTreeMap<(VipKey, IpAddr), Target>,
    sockets: HashMap<u32, PacketSocket>,
    /// By our port.
    by_port: HashMap<u16, (VipKey, IpAddr)>,
    next_port: u16,
    next_sequence: u64,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            targets: BTreeMap::new(),
            sockets: HashMap::new(),
            by_port: HashMap::new(),
            next_port: PORTS.start,
            next_sequence: u64::from(std::process::id()),
        }
    }
}

impl Prober {
    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// Checks the servers of these services. What is known about those that were checked before stays.
    pub(super) fn set(&mut self, services: &[DsrService], now: Instant) {
        let mut old = std::mem::take(&mut self.targets);
        for service in services {
            let Some(check) = &service.health else { continue };
            let key = VipKey::new(service.vip, service.transport);
            for server in service.servers.iter().filter(|server| server.weight > 0) {
                let id = (key, server.ip);
                let target = match old.remove(&id) {
                    Some(mut target) => {
                        target.checker.set_check(check.clone());
                        target
                    }
                    None => {
                        let seed = hash::bytes(format!("{id:?}").as_bytes());
                        let checker = Checker::new(check.clone(), self.since_start(now), seed);
                        Target { vip: service.vip, checker, under_way: None }
                    }
                };
                self.targets.insert(id, target);
            }
        }
        self.by_port.retain(|_, id| self.targets.contains_key(id));
    }

    /// When [`Prober::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let checkers = self.targets.values().map(|target| self.start + target.checker.deadline());
        let repeats = self.targets.values().filter_map(|target| target.under_way.as_ref()?.repeat);
        checkers.chain(repeats).min()
    }

    /// Where answers come in.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.values().map(AsFd::as_fd).collect()
    }

    /// Why checks fail at the moment.
    pub(super) fn failures(&self) -> HashMap<(VipKey, IpAddr), String> {
        let failing =
            self.targets.iter().filter_map(|(id, target)| Some((*id, target.checker.last_error()?.to_string())));
        failing.collect()
    }

    /// Reads answers, lets time pass, makes the probes that are due.
    pub(super) fn tick(&mut self, engine: &Engine, now: Instant) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        self.receive(now, &mut verdicts);
        let at = self.since_start(now);
        let ids: Vec<(VipKey, IpAddr)> = self.targets.keys().copied().collect();
        for id in ids {
            let target = self.targets.get_mut(&id).expect("just listed");
            if let Some(under_way) = &mut target.under_way
                && under_way.repeat.is_some_and(|repeat| repeat <= now)
            {
                under_way.repeat = (!under_way.conversation.is_open()).then(|| now + REPEAT);
                if under_way.repeat.is_some() {
                    let open = under_way.conversation.open();
                    // What is not sent is repeated or times out.
                    let _lost = transmit(&self.sockets, under_way, &open);
                }
            }
            if target.checker.deadline() > at || (target.under_way.is_none() && self.by_port.len() >= MAX_UNDER_WAY) {
                continue;
            }
            let (probe, changed) = target.checker.poll(at);
            if !probe {
                // It was overdue.
                self.finish(id);
                self.verdict(id, changed, &mut verdicts);
                continue;
            }
            match self.begin(id, engine, now) {
                Ok(true) => {}
                // What cannot be reached gets nothing anyway, and is healthy or not when it can.
                Ok(false) => self.targets.get_mut(&id).expect("just listed").checker.skip(at),
                Err(error) => {
                    self.finish(id);
                    let target = self.targets.get_mut(&id).expect("just listed");
                    let changed = target.checker.failed(at, ProbeError::Local(error.to_string()));
                    self.verdict(id, changed, &mut verdicts);
                }
            }
        }
        verdicts
    }

    fn verdict(&self, id: (VipKey, IpAddr), changed: Option<Changed>, verdicts: &mut Vec<Verdict>) {
        let Some(changed) = changed else { return };
        let why = self.targets[&id].checker.last_error().map(ToString::to_string);
        let healthy = changed == Changed::Healthy;
        verdicts.push(Verdict { service: id.0, ip: id.1, healthy, why: why.filter(|_| !healthy) });
    }

    fn finish(&mut self, id: (VipKey, IpAddr)) {
        if let Some(target) = self.targets.get_mut(&id) {
            target.under_way = None;
        }
        self.by_port.retain(|_, other| *other != id);
    }

    fn begin(&mut self, id: (VipKey, IpAddr), engine: &Engine, now: Instant) -> io::Result<bool> {
        let Some(way) = engine.way(id.1)? else { return Ok(false) };
        if let Entry::Vacant(place) = self.sockets.entry(way.ifindex) {
            place.insert(PacketSocket::open(way.ifindex, &FILTER)?);
        }
        while self.by_port.contains_key(&self.next_port) {
            self.next_port = next_port(self.next_port);
        }
        let port = self.next_port;
        self.next_port = next_port(port);
        self.next_sequence = hash::step(self.next_sequence, port.into());
        let sequence = u32::try_from(self.next_sequence >> 32).expect("32 bits");
        let target = self.targets.get_mut(&id).expect("the caller has it");
        let check = target.checker.check();
        let destination = SocketAddr::new(target.vip.ip(), check.port.unwrap_or_else(|| target.vip.port()));
        let conversation =
            Conversation::new(SocketAddr::new(way.source, port), destination, check.probe.clone(), sequence);
        let open = conversation.open();
        let under_way = UnderWay { conversation, way, repeat: Some(now + REPEAT) };
        transmit(&self.sockets, &under_way, &open)?;
        target.under_way = Some(under_way);
        self.by_port.insert(port, id);
        Ok(true)
    }

    fn receive(&mut self, now: Instant, verdicts: &mut Vec<Verdict>) {
        let mut buffer = vec![0; 1 << 16];
        let at = self.since_start(now);
        let mut done = Vec::new();
        for socket in self.sockets.values() {
            while let Ok(Some(frame)) = socket.receive(&mut buffer) {
                let Some(segment) = segment::decode(frame) else { continue };
                let Some(id) = self.by_port.get(&segment.destination.port()) else { continue };
                let Some(target) = self.targets.get_mut(id) else { continue };
                let Some(under_way) = &mut target.under_way else { continue };
                match under_way.conversation.receive(&segment) {
                    Next::Wait => {}
                    Next::Send(outgoing) => {
                        let _lost = transmit(&self.sockets, under_way, &outgoing);
                    }
                    Next::Done(result, outgoing) => {
                        if let Some(outgoing) = outgoing {
                            let _lost = transmit(&self.sockets, under_way, &outgoing);
                        }
                        let changed = match result {
                            Ok(()) => target.checker.succeeded(at),
                            Err(error) => target.checker.failed(at, error),
                        };
                        target.under_way = None;
                        done.push((*id, changed));
                    }
                }
            }
        }
        for (id, changed) in done {
            self.finish(id);
            self.verdict(id, changed, verdicts);
        }
    }
}

fn next_port(port: u16) -> u16 {
    if port + 1 < PORTS.end { port + 1 } else { PORTS.start }
}

fn transmit(
    sockets: &HashMap<u32, PacketSocket>,
    under_way: &UnderWay,
    outgoing: &ringway_core::health::Outgoing,
) -> io::Result<()> {
    let Way { ifindex, source_mac, mac, .. } = under_way.way;
    let frame = under_way.conversation.segment(outgoing).encode(source_mac, mac);
    sockets[&ifindex].send(&frame)
}
