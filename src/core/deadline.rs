//! A coarse timer wheel for deadlines that are mostly moved before they pass.
//!
//! An entry is filed under the tick at which the wheel has to look at it. Moving its deadline later is one store: when
//! the wheel comes by, it files the entry again. Moving it earlier files it a second time; the older filing is
//! recognised by its serial and ignored. Deadlines beyond the wheel's span are looked at once per turn.
//!
//! Ticks are whatever the caller counts; nothing here reads a clock.

use std::num::NonZeroU32;

/// Slots of the wheel: with ticks of 50 ms, a turn takes 51 s.
const SLOTS: usize = 1024;

/// Not set.
const NEVER: u64 = u64::MAX;

/// In no slot.
const UNFILED: u16 = u16::MAX;

/// Names an entry: by its index and one, so that none takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU32);

impl Key {
    fn of(index: usize) -> Self {
        let number = u32::try_from(index + 1).expect("fewer entries than 2^32");
        Self(NonZeroU32::new(number).expect("not zero"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The wheel and its entries.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    slots: Box<[Vec<Filing>]>,
    /// Ticks up to this one have been looked at.
    now: u64,
    spare: Vec<Filing>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    deadline: u64,
    serial: u32,
    /// The slot of the newest filing, or [`UNFILED`]. It is looked at within a turn, so this says when.
    slot: u16,
}

#[derive(Debug, Clone, Copy)]
struct Filing {
    key: u32,
    serial: u32,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Wheel<T> {
    /// Empty, at tick 0.
    pub fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { entries: Vec::new(), free: Vec::new(), slots, now: 0, spare: Vec::new() }
    }

    /// Enters a value without a deadline.
    pub fn insert(&mut self, value: T) -> Key {
        match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.value = Some(value);
                Key::of(index as usize)
            }
            None => {
                self.entries.push(Entry { value: Some(value), deadline: NEVER, serial: 0, slot: UNFILED });
                Key::of(self.entries.len() - 1)
            }
        }
    }

    /// The value of an entry.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.index())?.value.as_mut()
    }

    /// Sets an entry's deadline: it passes when the wheel is advanced to `tick` or beyond.
    pub fn set(&mut self, key: Key, tick: u64) {
        let first = self.now + 1;
        let entry = &mut self.entries[key.index()];
        entry.deadline = tick;
        let filed = match entry.slot {
            UNFILED => NEVER,
            slot => first + (u64::from(slot) + SLOTS as u64 - first % SLOTS as u64) % SLOTS as u64,
        };
        if tick < filed {
            self.file(key.0.get() - 1, tick);
        }
    }

    /// Takes an entry's deadline away.
    pub fn clear(&mut self, key: Key) {
        self.entries[key.index()].deadline = NEVER;
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index())?;
        let value = entry.value.take()?;
        entry.deadline = NEVER;
        entry.slot = UNFILED;
        entry.serial = entry.serial.wrapping_add(1);
        self.free.push(key.0.get() - 1);
        Some(value)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn file(&mut self, index: u32, deadline: u64) {
        let entry = &mut self.entries[index as usize];
        // What is due already is looked at with the next tick, what is beyond a turn with this turn's last.
        let at = deadline.clamp(self.now + 1, self.now + SLOTS as u64 - 1);
        let slot = slot_of(at);
        entry.slot = u16::try_from(slot).expect("fewer slots than 2^16");
        entry.serial = entry.serial.wrapping_add(1);
        let slot = &mut self.slots[slot];
        slot.push(Filing { key: index, serial: entry.serial });
    }

    /// Moves on to tick `now` and calls `passed` with every entry whose deadline has passed; the deadline is gone then.
    pub fn advance(&mut self, now: u64, mut passed: impl FnMut(Key, &mut T)) {
        if now <= self.now {
            return;
        }
        // After a pause longer than a turn every slot is due once.
        let first = (self.now + 1).max(now.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=now {
            self.now = self.now.max(tick - 1);
            let mut due = std::mem::replace(&mut self.slots[slot_of(tick)], std::mem::take(&mut self.spare));
            self.now = tick;
            for filing in due.drain(..) {
                let entry = &mut self.entries[filing.key as usize];
                if entry.serial != filing.serial {
                    continue;
                }
                entry.slot = UNFILED;
                if entry.deadline <= now {
                    entry.deadline = NEVER;
                    if let Some(value) = &mut entry.value {
                        passed(Key::of(filing.key as usize), value);
                    }
                } else if entry.deadline != NEVER {
                    let deadline = entry.deadline;
                    self.file(filing.key, deadline);
                }
            }
            // The slot's own storage serves the next one; a burst's is given back.
            if due.capacity() <= 4096 {
                self.spare = due;
            }
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("less than SLOTS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Against a list that is searched from end to end.
    #[test]
    fn agrees_with_a_plain_list() {
        let seed = std::env::var("RINGWAY_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
        println!("RINGWAY_SIM_SEED={seed}");
        let mut state = seed;
        let mut wheel = Wheel::new();
        let mut list: HashMap<Key, Option<u64>> = HashMap::new();
        let mut keys = Vec::new();
        let mut now = 0;
        for step in 0..200_000_u64 {
            let pick = |state: &mut u64, keys: &Vec<Key>| {
                let index = usize::try_from(random(state) % keys.len() as u64).unwrap();
                (index, keys[index])
            };
            match random(&mut state) % 10 {
                0 => {
                    let key = wheel.insert(step);
                    assert_eq!(list.insert(key, None), None);
                    keys.push(key);
                }
                1..=4 if !keys.is_empty() => {
                    let (_, key) = pick(&mut state, &keys);
                    let span = [3, 50, 2_000, 50_000][usize::try_from(random(&mut state) % 4).unwrap()];
                    let at = now + random(&mut state) % span;
                    wheel.set(key, at);
                    list.insert(key, Some(at));
                }
                5 if !keys.is_empty() => {
                    let (_, key) = pick(&mut state, &keys);
                    wheel.clear(key);
                    list.insert(key, None);
                }
                6 if !keys.is_empty() => {
                    let (index, key) = pick(&mut state, &keys);
                    assert!(wheel.remove(key).is_some());
                    keys.swap_remove(index);
                    list.remove(&key);
                }
                7 if step % 1000 == 7 => now += random(&mut state) % 5_000,
                _ => now += 1,
            }
            let mut fired = Vec::new();
            wheel.advance(now, |key, _| fired.push(key));
            let mut expected: Vec<Key> = Vec::new();
            for (key, deadline) in &mut list {
                // A deadline that was set for a tick that had been looked at passes with the next one.
                if deadline.is_some_and(|at| at <= now) && fired.contains(key) {
                    *deadline = None;
                    expected.push(*key);
                }
            }
            assert_eq!(fired.len(), expected.len(), "step {step}");
            assert!(list.values().flatten().all(|at| *at + 1 > now), "late at step {step}");
            assert_eq!(wheel.len(), list.len());
        }
    }

    #[test]
    fn moving_a_deadline_later_files_nothing() {
        let mut wheel = Wheel::new();
        let key = wheel.insert(());
        for tick in 1..100_000 {
            wheel.set(key, tick + 200);
            wheel.advance(tick, |_, ()| panic!("passed"));
        }
        let filings: usize = wheel.slots.iter().map(Vec::len).sum();
        assert_eq!(filings, 1);
    }
}
