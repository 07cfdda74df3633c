//! The desired state, made so: services, servers, tables, programs at interfaces, the guard rule.
//!
//! Everything that forwards is in the kernel and pinned: it goes on when this process ends, and the next one finds it
//! by its pins, takes it over, and changes what is different. [`Engine::apply`] may be called with the same services
//! any number of times.

mod pins;
mod ports;
mod servers;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway_core::dsr::abi::{FlowValue, SOURCE_IP, STATELESS, VERSION, VipValue};
use ringway_core::dsr::{FlowKey, Hashing, Transport, VipKey};
use ringway_core::model::{DsrMode, DsrService};

use crate::sys::bpf;
use crate::sys::netlink::{Change, Interface, Netlink};

pub use pins::{detach_all, link_path};
pub(super) use servers::Way;
pub use view::{FlowView, ServerState, ServerView, ServiceView};

use pins::{prepare_directory, remove_directory};
use ports::Port;
use servers::Known;

use super::guard::Guard;
use super::maps::{MAX_INTERFACES, MAX_SERVERS, MAX_VIPS, Maps, Sizes};
use super::program;
use super::tables::{self, Members, Place, Tables};

/// Where things are pinned unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/ringway";
/// Tables that there is room for at first: 2 MiB.
const FIRST_TABLES: u32 = 64;
/// Everything is compared with the kernel's state this often.
const RECONCILE: Duration = Duration::from_secs(10);

/// Why direct server return does not work as configured.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A system call.
    #[error("{what}: {error}{}", hint(error))]
    System {
        /// What was tried.
        what: String,
        /// The answer.
        error: io::Error,
    },
    /// A program was not taken.
    #[error(transparent)]
    Load(#[from] bpf::LoadError),
    /// Something that is configured is not there.
    #[error("{0}")]
    Missing(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; direct server return needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; `ringway doctor dsr` says more"
        }
        _ => "",
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> EngineError {
    let what = what.into();
    move |error| EngineError::System { what, error }
}

/// A service that is in the maps.
#[derive(Debug)]
struct Live {
    config: DsrService,
    value: VipValue,
    unhealthy: HashSet<IpAddr>,
    panic: bool,
}

/// Flows of a server that are cut when the time has come.
#[derive(Debug, Clone)]
struct Drain {
    /// Of this service only.
    vip: Option<VipKey>,
    ip: IpAddr,
    at: Instant,
}

/// Direct server return in this network namespace.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    maps: Maps,
    netlink: Netlink,
    watch: Netlink,
    ports: BTreeMap<String, Port>,
    wanted_ports: BTreeMap<String, DsrMode>,
    services: BTreeMap<VipKey, Live>,
    servers: HashMap<IpAddr, Known>,
    interfaces: HashMap<u32, Interface>,
    addresses: Vec<(u32, IpAddr, u8)>,
    tables: Tables,
    drains: Vec<Drain>,
    guard: Guard,
    guard_error: Option<String>,
    next_reconcile: Instant,
    adopted: bool,
}

impl Engine {
    /// Takes over what is pinned in the directory, or starts with nothing.
    pub fn open(directory: &Path) -> Result<Self, EngineError> {
        prepare_directory(directory)?;
        let maps_directory = directory.join(format!("v{VERSION}"));
        let open = Maps::open(&maps_directory).map_err(system("cannot open the pinned maps"))?;
        let adopted = open.is_some();
        let maps = match open {
            Some(maps) => maps,
            None => {
                let maps =
                    Maps::create(Sizes { tables: FIRST_TABLES, flows: 1 }).map_err(system("cannot make maps"))?;
                std::fs::create_dir_all(&maps_directory).map_err(system("cannot make the directory of the pins"))?;
                maps
            }
        };
        let found = maps.vips().map_err(system("cannot read the services"))?;
        let tables = Tables::new(maps.sizes().tables, found.values().map(|value| value.table));
        let servers: HashMap<IpAddr, Known> = maps
            .servers()
            .into_iter()
            .filter_map(|(ip, number)| Some((ip, Known { number, value: maps.server(number)? })))
            .collect();
        let services = found.into_iter().filter_map(|(key, value)| {
            let (vip, transport) = key.parts()?;
            Some((key, Live { config: placeholder(vip, transport), value, unhealthy: HashSet::new(), panic: false }))
        });
        let mut engine = Self {
            directory: directory.to_owned(),
            services: services.collect(),
            maps,
            netlink: Netlink::open().map_err(system("cannot open netlink"))?,
            watch: Netlink::watch().map_err(system("cannot watch neighbours"))?,
            ports: BTreeMap::new(),
            wanted_ports: BTreeMap::new(),
            servers,
            interfaces: HashMap::new(),
            addresses: Vec::new(),
            tables,
            drains: Vec::new(),
            guard: Guard::default(),
            guard_error: None,
            next_reconcile: Instant::now() + RECONCILE,
            adopted,
        };
        engine.read_interfaces()?;
        Ok(engine)
    }

    /// Whether what an earlier process left was taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Where changes of the network are announced.
    pub fn watch_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// The interface with this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.values().find(|each| each.name == name)
    }

    fn read_interfaces(&mut self) -> Result<(), EngineError> {
        let all = self.netlink.interfaces().map_err(system("cannot list the interfaces"))?;
        self.interfaces = all.into_iter().map(|each| (each.index, each)).collect();
        self.addresses = self.netlink.addresses().map_err(system("cannot list the addresses"))?;
        Ok(())
    }

    /// Makes the desired state so. What fails leaves the rest as it was or as it shall be, and can be tried again.
    pub fn apply(&mut self, desired: &[DsrService], now: Instant) -> Result<(), EngineError> {
        if desired.len() > MAX_VIPS as usize {
            return Err(EngineError::Missing(format!("more than {MAX_VIPS} services with direct server return")));
        }
        let ips: BTreeSet<IpAddr> = desired.iter().flat_map(|each| &each.servers).map(|server| server.ip).collect();
        if ips.len() > MAX_SERVERS as usize / 2 {
            return Err(EngineError::Missing(format!("more than {} servers", MAX_SERVERS / 2)));
        }
        self.read_interfaces()?;
        let mut wanted: BTreeMap<String, DsrMode> = BTreeMap::new();
        for service in desired {
            wanted.insert(service.interface.clone(), service.mode);
        }
        if wanted.len() > MAX_INTERFACES as usize {
            return Err(EngineError::Missing(format!("more than {MAX_INTERFACES} interfaces")));
        }
        for name in wanted.keys() {
            let Some(found) = self.interface(name) else {
                return Err(EngineError::Missing(format!("there is no interface {name}")));
            };
            if found.mac.is_none() {
                return Err(EngineError::Missing(format!("interface {name} has no MAC address")));
            }
        }
        let flows = desired.iter().map(|each| each.max_flows).max().unwrap_or(1);
        self.resize(Sizes { flows, ..self.maps.sizes() })?;
        self.add_servers(&ips)?;
        self.wanted_ports = wanted;
        let keys: HashSet<VipKey> = desired.iter().map(|each| VipKey::new(each.vip, each.transport)).collect();
        for service in desired {
            self.put_service(service, now)?;
        }
        self.guard(desired.iter().map(|each| (each.vip, each.transport)).collect());
        self.attach()?;
        let gone: Vec<VipKey> = self.services.keys().filter(|key| !keys.contains(key)).copied().collect();
        for key in gone {
            self.remove_service(key, now)?;
        }
        self.free_servers(now);
        self.save()
    }

    fn guard(&mut self, vips: BTreeSet<(SocketAddr, Transport)>) {
        self.guard_error = self.guard.apply(vips).err().map(|error| error.to_string());
        if let Some(error) = &self.guard_error {
            tracing::warn!(%error, "no guard rule: what the program does not forward is answered by resets");
        }
    }

    /// Pins what is not pinned, and removes pins of other versions.
    fn save(&self) -> Result<(), EngineError> {
        let own = format!("v{VERSION}");
        self.maps.pin(&self.directory.join(&own)).map_err(system("cannot pin the maps"))?;
        let entries = std::fs::read_dir(&self.directory).map_err(system("cannot list the pins"))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('v') && name != own && entry.path().is_dir() {
                remove_directory(&entry.path()).map_err(system("cannot remove pins of another version"))?;
            }
        }
        Ok(())
    }

    fn resize(&mut self, sizes: Sizes) -> Result<(), EngineError> {
        if sizes == self.maps.sizes() {
            return Ok(());
        }
        self.maps.resize(sizes).map_err(system("cannot make larger maps"))?;
        self.tables.grow(sizes.tables);
        self.reload_programs()?;
        self.save()
    }

    fn reload_programs(&self) -> Result<(), EngineError> {
        for (name, port) in &self.ports {
            let program = bpf::load_xdp(&program::emit(&self.maps, port.mac), "ringway_dsr")?;
            port.link.update(program.as_fd()).map_err(system(format!("cannot change the program of {name}")))?;
        }
        Ok(())
    }

    // Services.

    fn put_service(&mut self, service: &DsrService, now: Instant) -> Result<(), EngineError> {
        let key = VipKey::new(service.vip, service.transport);
        let old: Vec<IpAddr> = self.services.get(&key).map_or_else(Vec::new, |live| {
            live.config.servers.iter().filter(|server| server.weight > 0).map(|server| server.ip).collect()
        });
        if !self.services.contains_key(&key) {
            let used: HashSet<u32> = self.services.values().map(|live| live.value.stats).collect();
            let stats = (0..MAX_VIPS).find(|index| !used.contains(index));
            let stats = stats.ok_or_else(|| EngineError::Missing("no room for another service".into()))?;
            self.maps.reset_vip_stats(stats).map_err(system("cannot reset counters"))?;
            let value = VipValue { table: u32::MAX, stats, flags: 0, cap: 0 };
            let live = Live { config: service.clone(), value, unhealthy: HashSet::new(), panic: false };
            self.services.insert(key, live);
        }
        let live = self.services.get_mut(&key).expect("inserted above");
        // One that was taken over: nobody knows when its drains began.
        let taken_over = live.config.name.is_empty();
        live.config = service.clone();
        let ips: HashSet<IpAddr> = service.servers.iter().map(|server| server.ip).collect();
        live.unhealthy.retain(|ip| ips.contains(ip) && service.health.is_some());
        // Servers that get nothing new from now on, and those that do again.
        let draining = service.servers.iter().filter(|server| taken_over && server.weight == 0);
        for ip in old.into_iter().chain(draining.map(|server| server.ip)) {
            if service.servers.iter().all(|server| server.ip != ip || server.weight == 0)
                && !self.drains.iter().any(|drain| drain.vip == Some(key) && drain.ip == ip)
            {
                self.drains.push(Drain { vip: Some(key), ip, at: now + service.drain });
            }
        }
        let active: HashSet<IpAddr> =
            service.servers.iter().filter(|server| server.weight > 0).map(|server| server.ip).collect();
        self.drains.retain(|drain| !active.contains(&drain.ip) || drain.vip.is_some_and(|vip| vip != key));
        self.refresh(key, now)
    }

    fn remove_service(&mut self, key: VipKey, now: Instant) -> Result<(), EngineError> {
        self.maps.remove_vip(key).map_err(system("cannot remove a service"))?;
        if let Some(live) = self.services.remove(&key) {
            self.tables.release(live.value.table, now);
        }
        self.drains.retain(|drain| drain.vip != Some(key));
        Ok(())
    }

    /// What each server of a service gets.
    fn state(&self, live: &Live, ip: IpAddr, weight: u32) -> ServerState {
        let reachable = self.servers.get(&ip).is_some_and(|known| known.value.reachable);
        match (weight, reachable, live.unhealthy.contains(&ip)) {
            (0, _, _) => ServerState::Draining,
            (_, false, _) => ServerState::Unreachable,
            (_, _, true) => ServerState::Unhealthy,
            _ => ServerState::Up,
        }
    }

    /// Gives a service the table that its servers' states ask for. Without a change it keeps the one that it has.
    fn refresh(&mut self, key: VipKey, now: Instant) -> Result<(), EngineError> {
        let live = &self.services[&key];
        let members = |wanted: &[ServerState]| -> Members {
            let servers = live.config.servers.iter();
            let good = servers.filter(|server| wanted.contains(&self.state(live, server.ip, server.weight)));
            good.map(|server| (server.ip.to_string(), (self.servers[&server.ip].number, server.weight))).collect()
        };
        let mut chosen = members(&[ServerState::Up]);
        // When every check fails, the checks are the likelier culprit.
        let panic = chosen.is_empty() && !live.unhealthy.is_empty();
        if panic {
            chosen = members(&[ServerState::Up, ServerState::Unhealthy]);
        }
        let config = &live.config;
        let processors = u32::try_from(bpf::processors()).unwrap_or(1);
        let mut flags = 0;
        flags |= if config.stateless { STATELESS } else { 0 };
        flags |= if config.hashing == Hashing::SourceIp { SOURCE_IP } else { 0 };
        let cap = config.new_flows_per_second.div_ceil(processors);
        let old = live.value;
        let table = match self.tables.take(&chosen, now) {
            Place::Shared(table) => table,
            Place::Fresh(table) => {
                self.maps.set_table(table, &tables::fill(&chosen));
                table
            }
            Place::Full => {
                let sizes = self.maps.sizes();
                self.resize(Sizes { tables: sizes.tables * 2, ..sizes })?;
                return self.refresh(key, now);
            }
        };
        let value = VipValue { table, flags, cap, ..old };
        if value != old {
            self.maps.set_vip(key, value).map_err(system("cannot set a service"))?;
        }
        // A new service has none yet; one that keeps its table has taken it a second time just now.
        self.tables.release(old.table, now);
        let live = self.services.get_mut(&key).expect("looked at above");
        live.value = value;
        if panic != live.panic {
            live.panic = panic;
            let service = &live.config.name;
            if panic {
                tracing::warn!(service, "no server is healthy: all that are reachable are used");
            }
        }
        Ok(())
    }

    fn refresh_where(&mut self, ips: &HashSet<IpAddr>, now: Instant) -> Result<(), EngineError> {
        let concerned =
            self.services.iter().filter(|(_, live)| live.config.servers.iter().any(|each| ips.contains(&each.ip)));
        let keys: Vec<VipKey> = concerned.map(|(key, _)| *key).collect();
        keys.into_iter().try_for_each(|key| self.refresh(key, now))
    }

    /// What the checks of a service's server say.
    pub fn set_health(&mut self, key: VipKey, ip: IpAddr, healthy: bool, now: Instant) -> Result<(), EngineError> {
        let Some(live) = self.services.get_mut(&key) else { return Ok(()) };
        let changed = if healthy { live.unhealthy.remove(&ip) } else { live.unhealthy.insert(ip) };
        if changed { self.refresh(key, now) } else { Ok(()) }
    }

    // What happens by itself.

    /// When [`Engine::tick`] has something to do.
    pub fn deadline(&self) -> Instant {
        let drains = self.drains.iter().map(|drain| drain.at).min();
        drains.map_or(self.next_reconcile, |at| at.min(self.next_reconcile))
    }

    /// Changes of the network, drains that are due, and now and then a look at everything.
    pub fn tick(&mut self, now: Instant) -> Result<(), EngineError> {
        let mut again = now >= self.next_reconcile;
        let mut changed = HashSet::new();
        for change in self.watch.changes().map_err(system("cannot read changes of the network"))? {
            match change {
                Change::Neighbour(neighbour) => {
                    if self.neighbour(&neighbour) {
                        changed.insert(neighbour.ip);
                    }
                }
                Change::Interface(interface) => {
                    let known = self.interfaces.get(&interface.index);
                    again |= known.is_none_or(|known| {
                        (known.mac, &known.name, known.running) != (interface.mac, &interface.name, interface.running)
                    });
                }
                Change::InterfaceGone(_) | Change::Lost => again = true,
            }
        }
        if again {
            self.next_reconcile = now + RECONCILE;
            self.read_interfaces()?;
            self.attach()?;
            let ips: BTreeSet<IpAddr> =
                self.services.values().flat_map(|live| &live.config.servers).map(|server| server.ip).collect();
            self.add_servers(&ips)?;
            let keys: Vec<VipKey> = self.services.keys().copied().collect();
            keys.into_iter().try_for_each(|key| self.refresh(key, now))?;
        } else if !changed.is_empty() {
            self.refresh_where(&changed, now)?;
        }
        self.end_drains(now)
    }

    fn end_drains(&mut self, now: Instant) -> Result<(), EngineError> {
        let (due, later) = std::mem::take(&mut self.drains).into_iter().partition(|drain| drain.at <= now);
        self.drains = later;
        let due: Vec<Drain> = due;
        if due.is_empty() {
            return Ok(());
        }
        let cut: HashSet<(Option<VipKey>, u32)> =
            due.iter().filter_map(|drain| Some((drain.vip, u32::from(self.servers.get(&drain.ip)?.number)))).collect();
        let mut flows = Vec::new();
        let visit = |key: FlowKey, value: FlowValue| {
            if cut.contains(&(Some(key.vip()), value.server)) || cut.contains(&(None, value.server)) {
                flows.push(key);
            }
        };
        self.maps.scan_flows(visit).map_err(system("cannot read the flows"))?;
        for key in &flows {
            self.maps.remove_flow(*key).map_err(system("cannot remove a flow"))?;
        }
        for drain in &due {
            tracing::info!(server = %drain.ip, "drain reached its deadline");
        }
        if !flows.is_empty() {
            tracing::warn!(flows = flows.len(), "flows of drained servers were cut");
        }
        self.free_servers(now);
        Ok(())
    }

    /// Ends forwarding: programs, pins and the guard rule go.
    pub fn detach(self) -> Result<(), EngineError> {
        drop(self.ports);
        detach_all(&self.directory)
    }
}

/// A service that was found in the maps, until it is known what it shall be.
fn placeholder(vip: SocketAddr, transport: Transport) -> DsrService {
    DsrService {
        name: String::new(),
        vip,
        transport,
        interface: String::new(),
        mode: DsrMode::Auto,
        hashing: Hashing::FiveTuple,
        stateless: false,
        max_flows: 1,
        new_flows_per_second: 0,
        drain: Duration::ZERO,
        health: None,
        servers: Vec::new(),
    }
}
