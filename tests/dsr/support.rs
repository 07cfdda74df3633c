//! What the tests share.

use std::sync::atomic::{AtomicU32, Ordering};

static LEFT_OUT: AtomicU32 = AtomicU32::new(0);

/// Whether this test can run here. Where it cannot, that is said; in CI as root it is a failure.
pub fn can_run(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    let capabilities = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    let (net_admin, sys_admin, bpf) = (1 << 12, 1 << 21, 1 << 39);
    let missing: u64 = (net_admin | sys_admin | bpf) & !capabilities;
    if missing == 0 {
        return true;
    }
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    let count = LEFT_OUT.fetch_add(1, Ordering::Relaxed) + 1;
    let what = format!("LEFT OUT ({count} so far): {test} needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN");
    assert!(!(root && std::env::var("CI").is_ok_and(|ci| ci == "true")), "{what}, and in CI as root nothing is");
    eprintln!("{what}");
    false
}

/// A small random generator (SplitMix64): the seed is printed by who uses it.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
