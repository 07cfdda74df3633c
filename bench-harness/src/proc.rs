//! What the kernel knows of processes and cores: CPU time, memory, how busy a core was.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::sys;

/// Seconds per tick of `/proc/PID/stat`.
fn tick() -> f64 {
    1.0 / rustix::param::clock_ticks_per_second() as f64
}

/// A process and its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        at += 1;
        // Each thread has its own list of children.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// CPU seconds that a process tree has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cpu {
    /// User and system, exact.
    pub(crate) total: f64,
    /// The user part, in ticks of the kernel: for its share only.
    pub(crate) user: f64,
    /// The system part, likewise.
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total: (self.total - before.total).max(0.0),
            user: (self.user - before.user).max(0.0),
            system: (self.system - before.system).max(0.0),
        }
    }
}

/// CPU time of a process tree: every process that lives in it, exact, and children that ended and were waited for.
pub(crate) fn cpu(root: u32) -> Cpu {
    let mut sum = Cpu::default();
    for pid in tree(root) {
        if let Ok(time) = sys::process_cpu_time(pid) {
            sum.total += time.as_secs_f64();
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // Fields are counted from behind the name, which may hold anything.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) as f64 * tick();
        let (user, system, ended_user, ended_system) = (ticks(11), ticks(12), ticks(13), ticks(14));
        sum.total += ended_user + ended_system;
        sum.user += user + ended_user;
        sum.system += system + ended_system;
    }
    sum
}

/// Memory of a process tree, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Resident anonymous memory: heap, stacks, buffers.
    pub(crate) anonymous: u64,
    /// Proportional set size: all resident memory, what is shared divided among those who share it.
    pub(crate) pss: u64,
}

pub(crate) fn memory(root: u32) -> Memory {
    let mut sum = Memory::default();
    for pid in tree(root) {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
            kib * 1024
        };
        sum.anonymous += field("status", "RssAnon");
        sum.pss += field("smaps_rollup", "Pss");
    }
    sum
}

/// Ticks of one core so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreTicks {
    core: usize,
    busy: u64,
    steal: u64,
    all: u64,
}

/// How busy a core was between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoreUse {
    pub(crate) core: usize,
    /// Share of the time that it did anything, 0 to 1.
    pub(crate) busy: f64,
    /// Share that the hypervisor gave to others.
    pub(crate) steal: f64,
}

fn parse_cores(stat: &str) -> Vec<CoreTicks> {
    let mut found = Vec::new();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let Some(core) = words.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok()) else { continue };
        // user nice system idle iowait irq softirq steal; guest time is part of user time.
        let ticks: Vec<u64> = words.take(8).map(|word| word.parse().unwrap_or(0)).collect();
        let [user, nice, system, idle, wait, irq, soft, steal] = ticks[..] else { continue };
        let busy = user + nice + system + irq + soft;
        found.push(CoreTicks { core, busy, steal, all: busy + idle + wait + steal });
    }
    found
}

pub(crate) fn cores() -> Vec<CoreTicks> {
    parse_cores(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

pub(crate) fn cores_since(after: &[CoreTicks], before: &[CoreTicks]) -> Vec<CoreUse> {
    let pairs = after.iter().filter_map(|now| Some((now, before.iter().find(|then| then.core == now.core)?)));
    pairs
        .map(|(now, then)| {
            let all = now.all.saturating_sub(then.all).max(1) as f64;
            let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / all;
            CoreUse { core: now.core, busy: share(now.busy, then.busy), steal: share(now.steal, then.steal) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_share_of_a_core() {
        let before = parse_cores("cpu  1 1 1 1 1 1 1 1 0 0\ncpu1 100 0 100 200 0 0 0 0 0 0\nintr 5\n");
        let after = parse_cores("cpu1 130 0 120 240 0 0 0 10 0 0\n");
        let found = cores_since(&after, &before);
        assert_eq!(found, [CoreUse { core: 1, busy: 0.5, steal: 0.1 }]);
    }

    #[test]
    fn cpu_time_of_this_process_grows_and_includes_threads() {
        let before = cpu(std::process::id());
        let work = || {
            let begin = std::time::Instant::now();
            let mut sum = 0_u64;
            while begin.elapsed() < std::time::Duration::from_millis(20) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        };
        // The thread has ended when the time is read: its share must not be lost.
        std::thread::spawn(work).join().unwrap();
        assert!(cpu(std::process::id()).since(before).total > 0.001);
        assert!(memory(std::process::id()).anonymous > 0);
        assert!(tree(std::process::id()).contains(&std::process::id()));
    }
}
