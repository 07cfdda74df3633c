//! What rate limits have counted, exactly over all cores and across reloads.
//!
//! A limit's keys are in a table of fixed size: a key's hash chooses eight places, and it has one of them. A place is two
//! numbers, the hash and when the key's next request is due, and is taken and moved on by compare-and-swap, so that two
//! cores contend only where they serve the same key. A key that is not in debt is forgotten for another; where all eight
//! are, the one that has least to wait makes room.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringway_core::model::RateLimit;
use ringway_core::rate::Gcra;

const WAYS: usize = 8;

#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    due: AtomicU64,
}

/// A limit's keys.
#[derive(Debug)]
pub struct RateTable {
    /// What it is for.
    pub limit: RateLimit,
    pace: Gcra,
    started: Instant,
    seed: RandomState,
    places: Box<[Place]>,
}

impl RateTable {
    /// Empty.
    pub fn new(limit: RateLimit) -> Self {
        let sets = (limit.keys / WAYS).next_power_of_two();
        let nanos = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let pace = Gcra::new(limit.requests, nanos, limit.burst);
        let places = std::iter::repeat_with(Place::default).take(sets * WAYS).collect();
        Self { limit, pace, started: Instant::now(), seed: RandomState::new(), places }
    }

    /// Judges a request of a key; how long until one would pass, in nanoseconds, if this may not.
    pub fn judge(&self, key: &[u8], at: Instant) -> Result<(), u64> {
        // Keys come from the network, so their hash is seeded; 0 is an empty place.
        let hash = self.seed.hash_one(key);
        let key = hash | 1;
        let sets = self.places.len() / WAYS;
        let set = usize::try_from(hash >> 32).expect("32 bits are left") % sets * WAYS;
        let places = &self.places[set..set + WAYS];
        let since = at.saturating_duration_since(self.started).as_nanos();
        let now = u64::try_from(since).unwrap_or(u64::MAX);
        let place = self.place(places, key, now);
        let mut wait = 0;
        let moved =
            place.due.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |due| match self.pace.judge(due, now) {
                Ok(next) => Some(next),
                Err(left) => {
                    wait = left;
                    None
                }
            });
        moved.map(drop).map_err(|_due| wait)
    }

    /// The place of a key, its own or one that it takes over.
    fn place<'t>(&self, places: &'t [Place], key: u64, now: u64) -> &'t Place {
        if let Some(known) = places.iter().find(|place| place.key.load(Ordering::Acquire) == key) {
            return known;
        }
        let due = |place: &&Place| place.due.load(Ordering::Relaxed);
        for place in places.iter().filter(|place| due(place) <= now) {
            let before = place.key.load(Ordering::Acquire);
            if place.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return place;
            }
        }
        let least = places.iter().min_by_key(due).expect("eight places");
        least.key.store(key, Ordering::Release);
        least.due.store(now, Ordering::Release);
        least
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringway_core::access::PrefixMap;
    use ringway_core::model::RateKey;

    use super::*;

    fn table(requests: u64, burst: u64, keys: usize) -> RateTable {
        RateTable::new(RateLimit {
            name: String::new(),
            requests,
            per: Duration::from_secs(1),
            burst,
            key: RateKey::ClientIp,
            exempt: PrefixMap::default(),
            keys,
        })
    }

    #[test]
    fn threads_share_a_limit() {
        let table = table(1, 1000, 1024);
        let at = Instant::now();
        let passed: usize = std::thread::scope(|scope| {
            let count = || (0..1000).filter(|_| table.judge(b"one", at).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn a_table_is_bounded_and_who_is_in_debt_stays() {
        let table = table(1, 1, 8);
        let at = Instant::now();
        assert!(table.judge(b"one", at).is_ok());
        assert!(table.judge(b"one", at).is_err());
        for key in 2..100_u64 {
            assert!(table.judge(&key.to_le_bytes(), at).is_ok(), "{key}");
        }
        assert_eq!(table.places.len(), 8);
    }
}
