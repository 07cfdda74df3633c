//! Consistent hashing by a table: Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights.
//!
//! Every member takes slots in the order of a permutation of its own, in turns, until the table is full. A table
//! depends on the members' keys and weights alone, not on the order in which they are given, so balancers side by side
//! and the two sides of a reload agree; when a member comes or goes, few slots of the others change their owner.
//! Looking a hash up is one load.

use super::hash;

/// How many slots a table has: a prime, so that every step walks through all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableSize(u32);

impl TableSize {
    /// 16,381: shares are within about 1 % of what they should be for 100 members.
    pub const DEFAULT: Self = Self(16_381);
    /// The largest allowed, as in Envoy.
    pub const MAX: u32 = 5_000_011;

    /// A prime between 2 and [`TableSize::MAX`].
    pub fn new(size: u32) -> Option<Self> {
        let is_prime =
            size >= 2 && (2..).take_while(|factor| factor * factor <= size).all(|factor| !size.is_multiple_of(factor));
        (is_prime && size <= Self::MAX).then_some(Self(size))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One member of a table.
#[derive(Debug, Clone, Copy)]
pub struct Member<'k> {
    /// What it is known by everywhere: its address and port as text, for example. Not its place in a list.
    pub key: &'k [u8],
    /// Its relative share; 0 takes none.
    pub weight: u32,
}

/// A table of slots, each with the index of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

/// A member while the table fills.
struct Turn {
    index: u16,
    next: u32,
    skip: u32,
    weight: u64,
    /// Has had slots worth this much.
    paid: u64,
}

impl Maglev {
    /// Fills a table; `None` when no member has a weight. Slots hold places in `members`.
    ///
    /// Members beyond the size of the table, and beyond the 65,536th, in the order of their keys, get no slot.
    pub fn build(members: &[Member<'_>], size: TableSize) -> Option<Self> {
        let mut turns = turns(members, size);
        let heaviest = turns.iter().map(|turn| turn.weight).max()?;
        let size = size.0 as usize;
        let mut slots = vec![0_u16; size].into_boxed_slice();
        let mut taken = vec![0_u64; size.div_ceil(64)];
        let mut left = size;
        // Round by round, a member of half the greatest weight has every second turn. Everybody has one in the first.
        for round in 1_u64.. {
            for turn in &mut turns {
                if round * turn.weight < turn.paid {
                    continue;
                }
                turn.paid += heaviest;
                let slot = free_slot(turn, &taken, size);
                taken[slot / 64] |= 1 << (slot % 64);
                slots[slot] = turn.index;
                left -= 1;
                if left == 0 {
                    return Some(Self { slots });
                }
            }
        }
        None
    }

    /// The member that a hash belongs to, as a place in the list that the table was built from.
    #[inline]
    pub fn get(&self, hash: u64) -> usize {
        usize::from(self.slots[self.slot(hash)])
    }

    /// The same among members that `usable` allows: the owner of the next slot that has such a one. Every hash whose
    /// member is not usable moves on by itself, so what one member gives up is spread over all.
    pub fn get_where(&self, hash: u64, mut usable: impl FnMut(usize) -> bool) -> Option<usize> {
        let at = self.slot(hash);
        let (before, after) = self.slots.split_at(at);
        after.iter().chain(before).map(|index| usize::from(*index)).find(|index| usable(*index))
    }

    /// The slot of a hash: its upper 32 bits, scaled. A multiplication and a shift also in eBPF.
    #[inline]
    pub fn slot(&self, hash: u64) -> usize {
        ((hash >> 32) as usize * self.slots.len()) >> 32
    }

    /// All slots.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

/// Who takes part, in the order of the keys.
fn turns(members: &[Member<'_>], size: TableSize) -> Vec<Turn> {
    let mut order: Vec<usize> = (0..members.len().min(1 << 16)).filter(|index| members[*index].weight > 0).collect();
    order.sort_unstable_by_key(|index| (members[*index].key, *index));
    order.truncate(size.0 as usize);
    let turn = |index: usize| {
        let Member { key, weight } = members[index];
        let offset = hash::with_seed(hash::SEED, key) % u64::from(size.0);
        let skip = hash::with_seed(!hash::SEED, key) % u64::from(size.0 - 1) + 1;
        Turn {
            index: u16::try_from(index).expect("at most 65,536 members"),
            next: u32::try_from(offset).expect("below the size"),
            skip: u32::try_from(skip).expect("below the size"),
            weight: u64::from(weight),
            paid: 0,
        }
    };
    order.into_iter().map(turn).collect()
}

/// The next slot of a member's permutation that is free. There is one.
#[inline]
fn free_slot(turn: &mut Turn, taken: &[u64], size: usize) -> usize {
    loop {
        let slot = turn.next as usize;
        let after = slot + turn.skip as usize;
        turn.next = u32::try_from(if after >= size { after - size } else { after }).expect("below the size");
        if taken[slot / 64] & 1 << (slot % 64) == 0 {
            return slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:8080", n / 250, n % 250)).collect()
    }

    fn table(members: &[(&str, u32)]) -> Maglev {
        let members: Vec<Member<'_>> =
            members.iter().map(|(key, weight)| Member { key: key.as_bytes(), weight: *weight }).collect();
        Maglev::build(&members, TableSize::DEFAULT).unwrap()
    }

    fn even(count: usize) -> Maglev {
        table(&keys(count).iter().map(|key| (key.as_str(), 1)).collect::<Vec<_>>())
    }

    fn shares(table: &Maglev, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for slot in table.slots() {
            shares[usize::from(*slot)] += 1;
        }
        shares
    }

    #[test]
    fn sizes_are_prime() {
        for good in [2, 3, 101, 16_381, 65_537, 5_000_011] {
            assert_eq!(TableSize::new(good).map(TableSize::get), Some(good));
        }
        for bad in [0, 1, 4, 16_384, 16_379 * 3, 5_000_012, u32::MAX] {
            assert_eq!(TableSize::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_are_shared_evenly() {
        for count in [1, 2, 3, 10, 100, 1000] {
            let shares = shares(&even(count), count);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count} members: {least} to {most}");
        }
    }

    #[test]
    fn slots_follow_weights() {
        let shares = shares(&table(&[("a", 1), ("b", 3), ("c", 0), ("d", 96)]), 4);
        let of = |weight: usize| 16_381 * weight / 100;
        for (share, weight) in shares.into_iter().zip([1, 3, 0, 96]) {
            assert!(share.abs_diff(of(weight)) <= 2, "{share} slots for {weight} %");
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let forward = table(&[("a", 1), ("b", 2), ("c", 3)]);
        let backward = table(&[("c", 3), ("b", 2), ("a", 1)]);
        let same = forward.slots().iter().zip(backward.slots()).all(|(a, b)| *a == 2 - *b);
        assert!(same);
    }

    #[test]
    fn nobody_is_no_table() {
        assert_eq!(Maglev::build(&[], TableSize::DEFAULT), None);
        assert_eq!(Maglev::build(&[Member { key: b"a", weight: 0 }], TableSize::DEFAULT), None);
    }

    /// What stays where it was when one of `count` members goes: all of its own slots move, and of the others' few.
    #[test]
    fn few_slots_move_when_a_member_goes() {
        for count in [5, 10, 100] {
            let keys = keys(count);
            let whole = even(count);
            for gone in [0, count / 2, count - 1] {
                let members: Vec<(&str, u32)> =
                    keys.iter().enumerate().map(|(n, key)| (key.as_str(), u32::from(n != gone))).collect();
                let rest = table(&members);
                let others = whole.slots().iter().zip(rest.slots()).filter(|(before, _)| usize::from(**before) != gone);
                let moved = others.filter(|(before, after)| before != after).count();
                assert!(moved * 100 < 16_381 * 5, "{moved} slots of survivors moved, {count} members, {gone} gone");
            }
        }
    }

    #[test]
    fn a_member_that_is_not_usable_gives_up_its_own_hashes_only() {
        let table = even(10);
        let mut taken_over = [0; 10];
        for n in 0..10_000_u64 {
            let hash = hash::bytes(&n.to_le_bytes());
            let before = table.get(hash);
            let after = table.get_where(hash, |index| index != 3).unwrap();
            if before == 3 {
                taken_over[after] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(taken_over.iter().enumerate().all(|(index, count)| (*count > 50) == (index != 3)), "{taken_over:?}");
        assert_eq!(table.get_where(7, |_| false), None);
    }

    /// The owner of every hash, so that a change of the algorithm does not pass unnoticed: it would part balancers.
    #[test]
    fn tables_never_change() {
        let table = table(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 2), ("[2001:db8::1]:80", 3)]);
        let bytes: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
        assert_eq!(hash::bytes(&bytes), 11_783_268_646_489_698_361);
    }
}
