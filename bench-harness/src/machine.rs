//! This machine: its cores and limits, and how it describes itself in a result.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Failure, Result};

/// Descriptors that this process may open, after raising the soft limit to the hard one.
pub(crate) fn raise_descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _refused = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Refuses to begin what would run out of descriptors on the way.
pub(crate) fn need_descriptors(count: u64) -> Result<()> {
    let limit = raise_descriptors();
    if limit >= count {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{count} descriptors are needed and {limit} are allowed: raise the limit (ulimit -n {count})"
    )))
}

/// Pins the calling thread, and what it starts from then on, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    pin_to(&[core])
}

/// The same for several.
pub(crate) fn pin_to(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(Failure::new(format!("there is no core {core}")));
        }
        set.set(core);
    }
    sched_setaffinity(None, &set).context(|| format!("cannot run on core {cores:?}"))
}

/// Cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// What a reader has to know of the machine to judge figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// The hypervisor, where there is one.
    pub(crate) virtualization: Option<String>,
    pub(crate) governor: Option<String>,
    /// TCP's congestion control by default: some make bulk wait for timers. Older results do not have it.
    #[serde(default)]
    pub(crate) congestion_control: Option<String>,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let info = read("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kib = field(&read("/proc/meminfo").unwrap_or_default(), "MemTotal");
        let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
        let vendor = read("/sys/class/dmi/id/sys_vendor").map(|text| text.trim().to_owned());
        let guest = field(&info, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        Self {
            processor: field(&info, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: info.lines().filter(|line| line.starts_with("processor")).count().max(1),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            system: field(&read("/etc/os-release").unwrap_or_default(), "PRETTY_NAME").unwrap_or_default(),
            virtualization: guest.then(|| vendor.filter(|name| !name.is_empty()).unwrap_or_else(|| "yes".to_owned())),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(|text| text.trim().to_owned()),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").map(|text| text.trim().to_owned()),
        }
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let mut line = format!(
            "{}, {} cores, {} GiB, Linux {} ({})",
            self.processor, self.cores, self.memory_gib, self.kernel, self.system
        );
        if let Some(name) = &self.virtualization {
            line.push_str(if name == "yes" { ", virtual machine" } else { ", virtual machine on " });
            line.push_str(if name == "yes" { "" } else { name });
        }
        if let Some(governor) = &self.governor {
            line.push_str(&format!(", governor {governor}"));
        }
        if let Some(name) = &self.congestion_control {
            line.push_str(&format!(", TCP congestion control {name}"));
        }
        line
    }
}
