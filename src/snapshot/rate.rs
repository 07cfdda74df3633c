//! What rate limits have counted, over all cores and across reloads.
//!
//! A limit's keys are in a table of fixed size: a key's hash chooses eight places, and it has one of them. The table of keys is
//! shared, and written when a key comes that is not there; what has passed is counted by each core for itself, in cells that
//! only it writes and the others read (`core::rate` says what that is worth). A place says which cores have cells for
//! its key, so a decision reads its own cell and those of cores that serve the same key. A key that is not in debt is
//! forgotten for another; where all eight are, the one that has least to wait makes room.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};
use std::time::Instant;

use ringway_core::model::RateLimit;
use ringway_core::rate::{Gcra, Share};

const WAYS: usize = 8;

/// Cells that are made at once: 32 KiB.
const PIECE: usize = 1024;

/// A key, and who counts for it.
#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    /// Cores that have let something of it pass: bit `n` is core `n`, and those that are 64 further.
    cores: AtomicU64,
    /// Counts the keys that have been here: what cells say is of one of them.
    tenure: AtomicU64,
}

impl Place {
    /// Another key's from now on. Who sees the key before its tenure counts for the one that has gone.
    fn taken(&self) {
        self.cores.store(0, Ordering::Release);
        self.tenure.fetch_add(1, Ordering::Release);
    }
}

/// What a core has let pass of the key at a place. `tenure` is written last and cleared first, so that nobody takes one
/// key's numbers for another's.
#[derive(Debug)]
#[repr(align(32))]
struct Cell {
    tenure: AtomicU64,
    passed: AtomicU64,
    base: AtomicI64,
}

impl Default for Cell {
    fn default() -> Self {
        Self { tenure: AtomicU64::new(0), passed: AtomicU64::new(0), base: AtomicI64::new(i64::MIN) }
    }
}

impl Cell {
    /// What it says of a key.
    fn share(&self, tenure: u64) -> Share {
        if self.tenure.load(Ordering::Acquire) != tenure {
            return Share::NONE;
        }
        let passed = self.passed.load(Ordering::Acquire);
        let share = Share { passed, base: self.base.load(Ordering::Relaxed) };
        fence(Ordering::Acquire);
        if self.tenure.load(Ordering::Relaxed) == tenure { share } else { Share::NONE }
    }

    /// Only the core that it belongs to says something.
    fn say(&self, tenure: u64, share: Share) {
        let other = self.tenure.load(Ordering::Relaxed) != tenure;
        if other {
            self.tenure.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
        }
        self.base.store(share.base, Ordering::Relaxed);
        self.passed.store(share.passed, Ordering::Release);
        if other {
            self.tenure.store(tenure, Ordering::Release);
        }
    }
}

/// A core's cells, made where they are first needed.
type Cells = Box<[OnceLock<Box<[Cell]>>]>;

/// A limit's keys.
#[derive(Debug)]
pub struct RateTable {
    /// What it is for.
    pub limit: RateLimit,
    pace: Gcra,
    started: Instant,
    seed: RandomState,
    places: Box<[Place]>,
    cores: Box<[Cells]>,
}

impl RateTable {
    /// Empty, for as many cores.
    pub fn new(limit: RateLimit, cores: usize) -> Self {
        let places = (limit.keys / WAYS).next_power_of_two() * WAYS;
        let nanos = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let pace = Gcra::new(limit.requests, nanos, limit.burst);
        let cells = || std::iter::repeat_with(OnceLock::new).take(places.div_ceil(PIECE)).collect();
        Self {
            limit,
            pace,
            started: Instant::now(),
            seed: RandomState::new(),
            places: std::iter::repeat_with(Place::default).take(places).collect(),
            cores: std::iter::repeat_with(cells).take(cores.max(1)).collect(),
        }
    }

    /// Judges a request of a key on a core; how long until one would pass, in nanoseconds, if this may not.
    pub fn judge(&self, core: usize, key: &[u8], at: Instant) -> Result<(), u64> {
        // Keys come from the network, so their hash is seeded; 0 is an empty place.
        let hash = self.seed.hash_one(key);
        let key = hash | 1;
        let set = usize::try_from(hash >> 32).expect("32 bits are left") % (self.places.len() / WAYS) * WAYS;
        let since = at.saturating_duration_since(self.started).as_nanos();
        let now = u64::try_from(since).unwrap_or(u64::MAX);
        let index = self.place(set, key, now);
        let place = &self.places[index];
        let tenure = place.tenure.load(Ordering::Acquire);
        let known = place.cores.load(Ordering::Acquire);
        let cell = self.own(core, index);
        let share = self.pace.judge(cell.share(tenure), self.shares(index, tenure, known, Some(core)), now)?;
        cell.say(tenure, share);
        let bit = 1 << (core % 64);
        if known & bit == 0 {
            place.cores.fetch_or(bit, Ordering::Release);
        }
        Ok(())
    }

    fn own(&self, core: usize, index: usize) -> &Cell {
        let piece = self.cores[core][index / PIECE].get_or_init(|| {
            let length = PIECE.min(self.places.len());
            std::iter::repeat_with(Cell::default).take(length).collect()
        });
        &piece[index % PIECE]
    }

    /// What the cores that are `known` at a place say of its key, but for one.
    fn shares(&self, index: usize, tenure: u64, known: u64, but: Option<usize>) -> impl Iterator<Item = Share> {
        let others =
            if but.is_some_and(|core| known == 1 << (core % 64) && self.cores.len() <= 64) { 0 } else { known };
        let cores = if others == 0 { &[][..] } else { &self.cores[..] };
        cores.iter().enumerate().filter_map(move |(core, cells)| {
            if (others >> (core % 64)) & 1 == 0 || but == Some(core) {
                return None;
            }
            Some(cells[index / PIECE].get()?[index % PIECE].share(tenure))
        })
    }

    /// How far ahead of its pace the key at a place is.
    fn debt(&self, index: usize, now: u64) -> u64 {
        let place = &self.places[index];
        let tenure = place.tenure.load(Ordering::Acquire);
        self.pace.debt(self.shares(index, tenure, place.cores.load(Ordering::Acquire), None), now)
    }

    /// The place of a key, its own or one that it takes over.
    fn place(&self, set: usize, key: u64, now: u64) -> usize {
        let all = set..set + WAYS;
        if let Some(known) = all.clone().find(|index| self.places[*index].key.load(Ordering::Acquire) == key) {
            return known;
        }
        for index in all.clone() {
            let place = &self.places[index];
            let before = place.key.load(Ordering::Acquire);
            if self.debt(index, now) == 0
                && place.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                place.taken();
                return index;
            }
        }
        let least = all.min_by_key(|index| self.debt(*index, now)).expect("eight places");
        self.places[least].key.store(key, Ordering::Release);
        self.places[least].taken();
        least
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringway_core::access::PrefixMap;
    use ringway_core::model::RateKey;

    use super::*;

    fn table(requests: u64, burst: u64, keys: usize, cores: usize) -> RateTable {
        let limit = RateLimit {
            name: String::new(),
            requests,
            per: Duration::from_secs(1),
            burst,
            key: RateKey::ClientIp,
            exempt: PrefixMap::default(),
            keys,
        };
        RateTable::new(limit, cores)
    }

    #[test]
    fn threads_share_a_limit() {
        let table = table(1, 1000, 1024, 4);
        let at = Instant::now();
        let count = |core| (0..1000).filter(|_| table.judge(core, b"one", at).is_ok()).count();
        let count = &count;
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|core| scope.spawn(move || count(core))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // One more for each other core, and here, where a decision takes no longer than a store needs to be seen, a few.
        assert!((1000..1064).contains(&passed), "{passed}");
        assert!((0..4).all(|core| table.judge(core, b"one", at).is_err()));
    }

    #[test]
    fn a_key_has_its_whole_rate_on_any_core_and_the_same_over_all() {
        let at = Instant::now();
        for cores in [1, 3, 70] {
            let one = table(1, 20, 1024, cores);
            assert_eq!((0..50).filter(|_| one.judge(cores - 1, b"one", at).is_ok()).count(), 20);
            let all = table(1, 20, 1024, cores);
            assert_eq!((0..200).filter(|turn| all.judge(turn % cores, b"one", at).is_ok()).count(), 20, "{cores}");
        }
    }

    #[test]
    fn a_table_is_bounded_and_who_is_in_debt_stays() {
        let table = table(1, 1, 8, 2);
        let at = Instant::now();
        assert!(table.judge(0, b"one", at).is_ok());
        assert!(table.judge(1, b"one", at).is_err());
        for key in 2..9_u64 {
            assert!(table.judge(1, &key.to_le_bytes(), at).is_ok(), "{key}");
            assert!(table.judge(0, b"one", at).is_err());
        }
        // All eight are in debt: those that come now are new all the same, and owe nothing of what was there before.
        for key in 9..100_u64 {
            assert!(table.judge(0, &key.to_le_bytes(), at).is_ok(), "{key}");
            assert!(table.judge(1, &key.to_le_bytes(), at).is_err(), "{key}");
        }
        assert_eq!(table.places.len(), 8);
    }

    #[test]
    fn a_key_that_was_forgotten_begins_anew_on_every_core() {
        use std::time::Duration;
        let table = table(1, 5, 8, 2);
        let at = |seconds| table.started + Duration::from_secs(seconds);
        // A hundred passed on core 0, which are not held against it when it comes back by core 1.
        assert_eq!((0..100).filter(|turn| table.judge(0, b"one", at(*turn)).is_ok()).count(), 100);
        for key in 0..64_u64 {
            assert!(table.judge(1, &key.to_le_bytes(), at(1000 + key)).is_ok());
        }
        assert!(table.judge(1, b"one", at(2000)).is_ok());
        assert_eq!((0..9).filter(|_| table.judge(0, b"one", at(2000)).is_ok()).count(), 4);
        assert!(table.judge(1, b"one", at(2000)).is_err());
    }

    #[test]
    fn cells_are_made_where_something_is_counted() {
        let table = table(1, 1, 1 << 20, 4);
        assert!(table.judge(2, b"one", Instant::now()).is_ok());
        let made = |core: usize| table.cores[core].iter().filter(|piece| piece.get().is_some()).count();
        assert_eq!((0..4).map(made).collect::<Vec<_>>(), [0, 0, 1, 0]);
    }
}
