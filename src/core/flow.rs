//! Flows of datagrams: a bounded table from keys to flows, least recently used first out.
//!
//! A datagram has no connection, so whether a flow is over is a matter of time: what has been quiet for long enough is
//! over. Under a flood of sources the table is full of flows that will never see a second datagram; the oldest of them
//! makes room for the next, so memory is bounded and those who really talk stay.
//!
//! Time is whatever the caller counts, as in [`crate::deadline`].

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

const NONE: u32 = u32::MAX;

/// Names a flow for as long as it is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    slot: u32,
    serial: u32,
}

impl FlowId {
    /// As one number, for those who can keep no more.
    pub fn to_bits(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.slot)
    }

    /// Back from [`FlowId::to_bits`].
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a number")]
    pub fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, serial: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<K, V> {
    flow: Option<(K, V)>,
    serial: u32,
    last: u64,
    /// Used before and after this one; [`NONE`] at the ends.
    older: u32,
    newer: u32,
}

/// The table.
#[derive(Debug)]
pub struct FlowTable<K, V> {
    /// The hash is keyed at random: sources cannot choose to collide.
    by_key: HashMap<K, u32, RandomState>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

impl<K, V> Default for FlowTable<K, V> {
    fn default() -> Self {
        Self { by_key: HashMap::default(), slots: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE }
    }
}

impl<K: Eq + Hash + Clone, V> FlowTable<K, V> {
    /// Flows in it.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The flow of a key.
    pub fn find(&self, key: &K) -> Option<FlowId> {
        let slot = *self.by_key.get(key)?;
        Some(FlowId { slot, serial: self.slots[slot as usize].serial })
    }

    /// A flow, if it is still there.
    pub fn get(&self, id: FlowId) -> Option<(&K, &V)> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.serial == id.serial)?;
        slot.flow.as_ref().map(|(key, value)| (key, value))
    }

    /// Notes that a flow is in use at `now`: it is the last to go.
    pub fn touch(&mut self, id: FlowId, now: u64) {
        let index = id.slot as usize;
        if self.slots.get(index).is_none_or(|slot| slot.serial != id.serial || slot.flow.is_none()) {
            return;
        }
        self.slots[index].last = now;
        if self.newest != id.slot {
            self.unlink(id.slot);
            self.link_newest(id.slot);
        }
    }

    /// Puts a new flow in. The caller has looked for its key and made room.
    pub fn insert(&mut self, key: K, value: V, now: u64) -> FlowId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { flow: None, serial: 0, last: 0, older: NONE, newer: NONE });
            u32::try_from(self.slots.len() - 1).expect("fewer flows than 2^32")
        });
        let entry = &mut self.slots[slot as usize];
        entry.flow = Some((key.clone(), value));
        entry.last = now;
        let serial = entry.serial;
        self.link_newest(slot);
        let before = self.by_key.insert(key, slot);
        debug_assert!(before.is_none(), "a key has one flow");
        FlowId { slot, serial }
    }

    /// Takes a flow out.
    pub fn remove(&mut self, id: FlowId) -> Option<(K, V)> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?;
        let (key, value) = slot.flow.take()?;
        slot.serial = slot.serial.wrapping_add(1);
        self.unlink(id.slot);
        self.free.push(id.slot);
        self.by_key.remove(&key);
        Some((key, value))
    }

    /// Takes the least recently used flow out.
    pub fn evict(&mut self) -> Option<(K, V)> {
        let slot = self.slots.get(self.oldest as usize)?;
        self.remove(FlowId { slot: self.oldest, serial: slot.serial })
    }

    /// Takes one flow out that was last in use at or before `then`.
    pub fn expire(&mut self, then: u64) -> Option<(K, V)> {
        let slot = self.slots.get(self.oldest as usize)?;
        if slot.last > then {
            return None;
        }
        self.remove(FlowId { slot: self.oldest, serial: slot.serial })
    }

    /// Gives memory back that a flood took.
    pub fn shrink(&mut self) {
        if self.by_key.is_empty() {
            // Serials start again: no id of a flow is left by now.
            *self = Self::default();
        } else {
            self.by_key.shrink_to_fit();
        }
    }

    fn unlink(&mut self, slot: u32) {
        let (older, newer) = (self.slots[slot as usize].older, self.slots[slot as usize].newer);
        match self.slots.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let newest = std::mem::replace(&mut self.newest, slot);
        let entry = &mut self.slots[slot as usize];
        entry.older = newest;
        entry.newer = NONE;
        match self.slots.get_mut(newest as usize) {
            Some(entry) => entry.newer = slot,
            None => self.oldest = slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by a list in order of use.
    #[derive(Default)]
    struct Reference(Vec<(u8, u32, u64)>);

    #[test]
    fn random_operations_agree_with_a_list() {
        for seed in 0..200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state >> 33
            };
            let mut table = FlowTable::default();
            let mut list = Reference::default();
            let mut stale = Vec::new();
            for now in 0..400 {
                let key = u8::try_from(random() % 24).unwrap();
                let value = u32::try_from(now).unwrap();
                match random() % 6 {
                    0 | 1 => match table.find(&key) {
                        Some(id) => {
                            table.touch(id, now);
                            let at = list.0.iter().position(|flow| flow.0 == key).unwrap();
                            let flow = list.0.remove(at);
                            list.0.push((flow.0, flow.1, now));
                        }
                        None => {
                            let id = table.insert(key, value, now);
                            assert_eq!(FlowId::from_bits(id.to_bits()), id);
                            list.0.push((key, value, now));
                        }
                    },
                    2 => {
                        let gone = table.find(&key).and_then(|id| {
                            stale.push(id);
                            table.remove(id)
                        });
                        let at = list.0.iter().position(|flow| flow.0 == key);
                        assert_eq!(gone, at.map(|at| list.0.remove(at)).map(|flow| (flow.0, flow.1)), "seed {seed}");
                    }
                    3 => {
                        let gone = (!list.0.is_empty()).then(|| list.0.remove(0));
                        assert_eq!(table.evict(), gone.map(|flow| (flow.0, flow.1)), "seed {seed}");
                    }
                    4 => {
                        let then = now.saturating_sub(30);
                        let gone = list.0.first().is_some_and(|flow| flow.2 <= then).then(|| list.0.remove(0));
                        assert_eq!(table.expire(then), gone.map(|flow| (flow.0, flow.1)), "seed {seed}");
                    }
                    _ => {
                        for id in &stale {
                            assert_eq!(table.get(*id), None, "seed {seed}: an old name reaches a new flow");
                            table.touch(*id, now);
                        }
                        for flow in &list.0 {
                            let id = table.find(&flow.0).unwrap();
                            assert_eq!(table.get(id), Some((&flow.0, &flow.1)), "seed {seed}");
                        }
                    }
                }
                assert_eq!(table.len(), list.0.len(), "seed {seed}");
            }
            while let Some(flow) = table.evict() {
                let expected = list.0.remove(0);
                assert_eq!(flow, (expected.0, expected.1), "seed {seed}");
            }
            table.shrink();
            assert!(table.is_empty() && list.0.is_empty());
        }
    }
}
