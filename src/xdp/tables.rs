//! Which tables there are and who uses them. Services with the same servers at the same weights share one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use ringway_core::balance::{Maglev, Member, TableSize};
use ringway_core::dsr::SLOTS;
use ringway_core::dsr::abi::NO_SERVER;

/// Identity and weight of a table's members: by identity, with the server's number.
pub(super) type Members = BTreeMap<String, (u16, u32)>;

/// A table that nobody uses is written to again after this long at the earliest: a frame on its way still reads it.
const QUIET: Duration = Duration::from_secs(1);

/// Places for tables in the map.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: HashMap<Members, u32>,
    users: HashMap<u32, (Option<Members>, u32)>,
    free: VecDeque<(Option<Instant>, u32)>,
    capacity: u32,
    /// Tables that were filled since the start.
    pub(super) built: u64,
}

/// What a service gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A table that is there.
    Shared(u32),
    /// A table to be filled.
    Fresh(u32),
    /// There is no room.
    Full,
}

impl Tables {
    /// Room for this many; those `in_use` were found there.
    pub(super) fn new(capacity: u32, in_use: impl IntoIterator<Item = u32>) -> Self {
        let mut tables = Self { capacity, ..Self::default() };
        for index in in_use {
            tables.users.entry(index).or_insert((None, 0)).1 += 1;
        }
        tables.free =
            (0..capacity).filter(|index| !tables.users.contains_key(index)).map(|index| (None, index)).collect();
        tables
    }

    /// The map has become larger.
    pub(super) fn grow(&mut self, capacity: u32) {
        // In front of those that rest.
        (self.capacity..capacity).rev().for_each(|index| self.free.push_front((None, index)));
        self.capacity = capacity;
    }

    /// One more user of the table with these members.
    pub(super) fn take(&mut self, members: &Members, now: Instant) -> Place {
        if let Some(index) = self.known.get(members) {
            self.users.get_mut(index).expect("a known table has users").1 += 1;
            return Place::Shared(*index);
        }
        match self.free.front() {
            Some((since, _)) if since.is_none_or(|since| now.duration_since(since) >= QUIET) => {}
            _ => return Place::Full,
        }
        let (_, index) = self.free.pop_front().expect("looked at above");
        self.known.insert(members.clone(), index);
        self.users.insert(index, (Some(members.clone()), 1));
        self.built += 1;
        Place::Fresh(index)
    }

    /// One user less.
    pub(super) fn release(&mut self, index: u32, now: Instant) {
        let Some((members, users)) = self.users.get_mut(&index) else { return };
        *users -= 1;
        if *users == 0 {
            if let Some(members) = members.take() {
                self.known.remove(&members);
            }
            self.users.remove(&index);
            self.free.push_back((Some(now), index));
        }
    }

    /// How many are in use.
    pub(super) fn used(&self) -> usize {
        self.users.len()
    }
}

/// A table's slots; all empty when no member has a weight.
pub(super) fn fill(members: &Members) -> Vec<u16> {
    let list: Vec<Member<'_>> =
        members.iter().map(|(key, (_, weight))| Member { key: key.as_bytes(), weight: *weight }).collect();
    let numbers: Vec<u16> = members.values().map(|(number, _)| *number).collect();
    match Maglev::build(&list, TableSize::DEFAULT) {
        Some(table) => table.slots().iter().map(|place| numbers[usize::from(*place)]).collect(),
        None => vec![NO_SERVER; SLOTS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(&str, u16, u32)]) -> Members {
        all.iter().map(|(key, number, weight)| ((*key).to_owned(), (*number, *weight))).collect()
    }

    #[test]
    fn equal_members_share_and_freed_places_rest() {
        let now = Instant::now();
        let mut tables = Tables::new(3, [1]);
        let (a, b) = (members(&[("a", 0, 1)]), members(&[("b", 1, 1)]));
        assert_eq!(tables.take(&a, now), Place::Fresh(0));
        assert_eq!(tables.take(&a, now), Place::Shared(0));
        assert_eq!(tables.take(&b, now), Place::Fresh(2));
        let c = members(&[("c", 2, 1)]);
        assert_eq!(tables.take(&c, now), Place::Full);
        tables.release(1, now);
        assert_eq!(tables.take(&c, now), Place::Full);
        assert_eq!(tables.take(&c, now + QUIET), Place::Fresh(1));
        tables.release(0, now);
        assert_eq!(tables.take(&a, now), Place::Shared(0));
        tables.grow(4);
        assert_eq!(tables.take(&members(&[("d", 3, 1)]), now), Place::Fresh(3));
        assert_eq!((tables.used(), tables.built), (4, 4));
    }

    #[test]
    fn slots_hold_numbers_not_places() {
        let slots = fill(&members(&[("a", 40, 1), ("b", 7, 1), ("c", 9, 0)]));
        assert!(slots.iter().all(|slot| [40, 7].contains(slot)));
        assert_eq!(fill(&members(&[("a", 1, 0)])), vec![NO_SERVER; SLOTS]);
    }
}
