//! The maps, with their types.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use ringway_core::dsr::abi::{
    self, Counter, FlowValue, SERVER_STATS, SERVER_VALUE, STATS, ServerValue, TABLE_VALUE, VIP_STATS, VIP_VALUE,
    VipValue,
};
use ringway_core::dsr::{FlowKey, SLOTS, VipKey};

use crate::sys::bpf::{self, MMAPABLE, Map, MapKind, MapSpec, Memory, NO_PREALLOC};

/// Services at most.
pub const MAX_VIPS: u32 = 4096;
/// Servers at most; their numbers have to fit a slot.
pub const MAX_SERVERS: u32 = 4096;
const _: () = assert!(MAX_SERVERS < abi::NO_SERVER as u32);
/// Interfaces at most.
pub const MAX_INTERFACES: u32 = 64;

/// A map that programs refer to by its descriptor.
#[derive(Debug)]
pub struct Handle(Map);

impl Handle {
    pub(super) fn raw(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

/// Sizes that depend on the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Different tables that can be there at one time; 32 KiB each.
    pub tables: u32,
    /// Flows that are remembered; about 128 bytes each.
    pub flows: u32,
}

/// What was counted for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VipStats {
    /// Frames forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that were remembered.
    pub flows: u64,
    /// New flows over the cap: forwarded, but not remembered.
    pub capped: u64,
}

/// What was counted for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerStats {
    /// Frames forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Every map of the program.
#[derive(Debug)]
pub struct Maps {
    pub(super) vips: Handle,
    pub(super) tables: Handle,
    pub(super) servers: Handle,
    pub(super) flows: Handle,
    pub(super) stats: Handle,
    pub(super) vip_stats: Handle,
    pub(super) server_stats: Handle,
    pub(super) outgoing: Handle,
    table_memory: Memory,
    server_memory: Memory,
}

fn specs(sizes: Sizes) -> [MapSpec; 8] {
    let spec = |name, kind, key: usize, value: usize, entries, flags| {
        let size = |bytes| u32::try_from(bytes).expect("small sizes");
        MapSpec { name, kind, key: size(key), value: size(value), entries, flags }
    };
    [
        spec("vips", MapKind::Hash, abi::VIP_KEY, VIP_VALUE, MAX_VIPS, NO_PREALLOC),
        spec("tables", MapKind::Array, 4, TABLE_VALUE, sizes.tables, MMAPABLE),
        spec("servers", MapKind::Array, 4, SERVER_VALUE, MAX_SERVERS, MMAPABLE),
        spec("flows", MapKind::LruHash, abi::FLOW_KEY, abi::FLOW_VALUE, sizes.flows, 0),
        spec("stats", MapKind::PerCpuArray, 4, STATS, 1, 0),
        spec("vip_stats", MapKind::PerCpuArray, 4, VIP_STATS, MAX_VIPS, 0),
        spec("server_stats", MapKind::PerCpuArray, 4, SERVER_STATS, MAX_SERVERS, 0),
        spec("outgoing", MapKind::DevMapHash, 4, 4, MAX_INTERFACES, 0),
    ]
}

impl Maps {
    /// New, empty ones.
    pub fn create(sizes: Sizes) -> io::Result<Self> {
        let made: Vec<Map> = specs(sizes).into_iter().map(Map::create).collect::<io::Result<_>>()?;
        Self::assemble(made)
    }

    /// Those pinned in a directory; `None` if they are not all there, or not as this build has them.
    pub fn open(directory: &Path) -> io::Result<Option<Self>> {
        let mut found = Vec::new();
        for spec in specs(Sizes { tables: 0, flows: 0 }) {
            match Map::open(&directory.join(spec.name), spec) {
                Ok(Some(map)) => found.push(map),
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Self::assemble(found).map(Some)
    }

    fn assemble(maps: Vec<Map>) -> io::Result<Self> {
        let maps: [Map; 8] = maps.try_into().expect("as many as there are specs");
        let [vips, tables, servers, flows, stats, vip_stats, server_stats, outgoing] = maps.map(Handle);
        let (table_memory, server_memory) = (tables.0.mmap()?, servers.0.mmap()?);
        Ok(Self { vips, tables, servers, flows, stats, vip_stats, server_stats, outgoing, table_memory, server_memory })
    }

    /// Gives the tables or the flows another size: new maps with what was in the old ones. Programs that were loaded
    /// before go on with the old ones.
    pub fn resize(&mut self, sizes: Sizes) -> io::Result<()> {
        let had = self.sizes();
        let [_, tables, _, flows, ..] = specs(sizes);
        if sizes.tables != had.tables {
            let larger = Map::create(tables)?;
            let memory = larger.mmap()?;
            for (to, from) in memory.words().iter().zip(self.table_memory.words()) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            self.tables = Handle(larger);
            self.table_memory = memory;
        }
        if sizes.flows != had.flows {
            let other = Handle(Map::create(flows)?);
            let mut failed = None;
            self.scan_flows(|key, value| {
                if let Err(error) = other.0.update(&key.0, &value.encode()) {
                    failed = Some(error);
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            self.flows = other;
        }
        Ok(())
    }

    fn all(&self) -> [&Handle; 8] {
        [
            &self.vips,
            &self.tables,
            &self.servers,
            &self.flows,
            &self.stats,
            &self.vip_stats,
            &self.server_stats,
            &self.outgoing,
        ]
    }

    /// Pins them in a directory of bpffs, in place of what may be pinned there.
    pub fn pin(&self, directory: &Path) -> io::Result<()> {
        for map in self.all() {
            let path = directory.join(map.0.spec.name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bpf::pin(map.0.as_fd(), &path)?,
            }
        }
        Ok(())
    }

    /// The names of the files that [`Maps::pin`] makes.
    pub fn pin_names() -> impl Iterator<Item = &'static str> {
        specs(Sizes { tables: 0, flows: 0 }).into_iter().map(|spec| spec.name)
    }

    /// Their sizes.
    pub fn sizes(&self) -> Sizes {
        Sizes { tables: self.tables.0.spec.entries, flows: self.flows.0.spec.entries }
    }

    /// Writes a table. Whoever uses it sees each slot old or new.
    pub fn set_table(&self, index: u32, slots: &[u16]) {
        assert_eq!(slots.len(), SLOTS, "a table's size");
        let words = TABLE_VALUE / 8;
        let memory = &self.table_memory.words()[index as usize * words..][..words];
        for (word, slots) in memory.iter().zip(slots.chunks(4)) {
            let mut packed = [abi::NO_SERVER; 4];
            packed[..slots.len()].copy_from_slice(slots);
            let value = packed.iter().rev().fold(0, |value, slot| value << 16 | u64::from(*slot));
            word.store(value, Ordering::Relaxed);
        }
    }

    /// A table's slots.
    pub fn table(&self, index: u32) -> Vec<u16> {
        let words = TABLE_VALUE / 8;
        let memory = &self.table_memory.words()[index as usize * words..][..words];
        let slots = memory.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        let bytes: Vec<u8> = slots.collect();
        bytes.chunks_exact(2).take(SLOTS).map(|slot| u16::from_le_bytes([slot[0], slot[1]])).collect()
    }

    fn server_words(&self, index: u16) -> &[std::sync::atomic::AtomicU64] {
        &self.server_memory.words()[usize::from(index) * SERVER_VALUE / 8..][..SERVER_VALUE / 8]
    }

    /// Writes a server: where it is before its MAC address, which makes it reachable. `None` frees its place.
    pub fn set_server(&self, index: u16, server: Option<&ServerValue>) {
        let value = server.map_or([0; SERVER_VALUE / 8], ServerValue::encode);
        for (word, value) in self.server_words(index).iter().zip(value).rev() {
            word.store(value, Ordering::Release);
        }
    }

    /// A server; `None`: the place is free.
    pub fn server(&self, index: u16) -> Option<ServerValue> {
        let mut value = [0; SERVER_VALUE / 8];
        for (value, word) in value.iter_mut().zip(self.server_words(index)) {
            *value = word.load(Ordering::Acquire);
        }
        ServerValue::decode(&value)
    }

    /// The places of all servers.
    pub fn servers(&self) -> HashMap<IpAddr, u16> {
        let max = u16::try_from(MAX_SERVERS).expect("fits a slot");
        (0..max).filter_map(|index| Some((self.server(index)?.ip, index))).collect()
    }

    /// Adds a service or changes it, in one step.
    pub fn set_vip(&self, key: VipKey, value: VipValue) -> io::Result<()> {
        self.vips.0.update(&key.0, &value.encode())
    }

    /// Takes a service out.
    pub fn remove_vip(&self, key: VipKey) -> io::Result<()> {
        self.vips.0.delete(&key.0).map(drop)
    }

    /// All services.
    pub fn vips(&self) -> io::Result<HashMap<VipKey, VipValue>> {
        let mut found = HashMap::new();
        for key in self.vips.0.keys()? {
            let mut value = [0; VIP_VALUE];
            let key: [u8; abi::VIP_KEY] = key.as_slice().try_into().map_err(io::Error::other)?;
            if self.vips.0.lookup(&key, &mut value)? {
                found.insert(VipKey(key), VipValue::decode(&value));
            }
        }
        Ok(found)
    }

    /// Frames may be sent out of an interface.
    pub fn allow_outgoing(&self, ifindex: u32) -> io::Result<()> {
        self.outgoing.0.update(&ifindex.to_le_bytes(), &ifindex.to_le_bytes())
    }

    /// Visits every remembered flow.
    pub fn scan_flows(&self, mut visit: impl FnMut(FlowKey, FlowValue)) -> io::Result<()> {
        self.flows.0.scan(|key, value| {
            if let (Ok(key), Ok(value)) = (key.try_into(), value.try_into()) {
                visit(FlowKey(key), FlowValue::decode(value));
            }
        })
    }

    /// What is remembered about a flow.
    pub fn flow(&self, key: FlowKey) -> io::Result<Option<FlowValue>> {
        let mut value = [0; abi::FLOW_VALUE];
        Ok(self.flows.0.lookup(&key.0, &mut value)?.then(|| FlowValue::decode(&value)))
    }

    /// Remembers a flow.
    pub fn set_flow(&self, key: FlowKey, value: FlowValue) -> io::Result<()> {
        self.flows.0.update(&key.0, &value.encode())
    }

    /// Forgets a flow.
    pub fn remove_flow(&self, key: FlowKey) -> io::Result<()> {
        self.flows.0.delete(&key.0).map(drop)
    }

    /// The counters of all processors.
    pub fn counters(&self) -> io::Result<[u64; Counter::ALL.len()]> {
        sums(&self.stats.0, 0)
    }

    /// A service's counters, by its `stats` index.
    pub fn vip_stats(&self, index: u32) -> io::Result<VipStats> {
        let [packets, bytes, flows, capped, _, _] = sums(&self.vip_stats.0, index)?;
        Ok(VipStats { packets, bytes, flows, capped })
    }

    /// A server's counters.
    pub fn server_stats(&self, index: u16) -> io::Result<ServerStats> {
        let [packets, bytes] = sums(&self.server_stats.0, index.into())?;
        Ok(ServerStats { packets, bytes })
    }

    /// Starts a service's counters anew.
    pub fn reset_vip_stats(&self, index: u32) -> io::Result<()> {
        self.vip_stats.0.update(&index.to_le_bytes(), &vec![0; self.vip_stats.0.value_bytes()])
    }

    /// Starts a server's counters anew.
    pub fn reset_server_stats(&self, index: u16) -> io::Result<()> {
        let zeros = vec![0; self.server_stats.0.value_bytes()];
        self.server_stats.0.update(&u32::from(index).to_le_bytes(), &zeros)
    }
}

/// The sums over all processors of an element that is `N` counters.
fn sums<const N: usize>(map: &Map, index: u32) -> io::Result<[u64; N]> {
    let mut bytes = vec![0; map.value_bytes()];
    map.lookup(&index.to_le_bytes(), &mut bytes)?;
    let mut sums = [0_u64; N];
    for processor in bytes.chunks_exact(8 * N) {
        for (sum, bytes) in sums.iter_mut().zip(processor.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        }
    }
    Ok(sums)
}
