//! The dynamic table (RFC 7541 sections 2.3.2 and 4).
//!
//! The fields lie one behind the other in one buffer, oldest first, beside a ring of what says where each begins. The
//! buffer is never longer than the table's limit: when its end is reached, what is still in the table moves to the
//! front. A table that nothing was put into has no memory.

/// What an entry counts beside its octets (section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// Fewest octets and entries that memory is taken for.
const FEWEST_OCTETS: usize = 512;
const FEWEST_ENTRIES: usize = 8;

/// A dynamic table; `T` is what else its owner keeps of each entry.
#[derive(Debug)]
pub(super) struct Table<T> {
    octets: Vec<u8>,
    /// Where the oldest entry begins in `octets`.
    start: usize,
    /// A ring; an entry's place is its number modulo the length, which is a power of two.
    entries: Vec<Entry<T>>,
    /// How many entries there are.
    count: u32,
    /// The number of the entry to come.
    next: u32,
    /// As section 4.1 counts.
    size: usize,
    limit: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    /// Beginning in `octets`, counted from where it would be had nothing ever moved.
    at: u32,
    name: u32,
    value: u32,
    note: T,
}

impl<T: Copy + Default> Table<T> {
    pub(super) const fn new(limit: usize) -> Self {
        Self { octets: Vec::new(), start: 0, entries: Vec::new(), count: 0, next: 0, size: 0, limit }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// The number of the entry that is inserted next. Numbers go on from each entry to the next and wrap.
    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.octets.capacity() + self.entries.capacity() * size_of::<Entry<T>>()
    }

    /// Changes the limit and evicts what is over it.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.evict(0);
        if limit < self.octets.capacity() {
            self.octets.drain(..self.start);
            self.start = 0;
            self.octets.shrink_to(limit);
        }
        if self.count == 0 {
            self.entries = Vec::new();
        }
    }

    /// The `age`th newest entry, from 0.
    pub(super) fn get(&self, age: u32) -> Option<(&[u8], &[u8], T)> {
        if age >= self.count {
            return None;
        }
        let entry = &self.entries[self.place(self.next.wrapping_sub(1).wrapping_sub(age))];
        let at = self.start + entry.at.wrapping_sub(self.oldest().at) as usize;
        let (name, value) = (entry.name as usize, entry.value as usize);
        let (name, behind) = self.octets[at..].split_at(name);
        Some((name, &behind[..value], entry.note))
    }

    /// Puts an entry in front, having evicted what it has no room beside. One that is larger than the table empties it
    /// (section 4.4) and is not in it: then this is false.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], note: T) -> bool {
        let octets = name.len() + value.len();
        let size = octets + OVERHEAD;
        self.evict(size);
        if size > self.limit {
            return false;
        }
        if self.octets.len() + octets > self.octets.capacity() {
            self.make_room(octets);
        }
        if self.count as usize == self.entries.len() {
            self.grow();
        }
        let at = match self.count {
            0 => 0,
            _ => {
                let newest = &self.entries[self.place(self.next.wrapping_sub(1))];
                newest.at.wrapping_add(newest.name).wrapping_add(newest.value)
            }
        };
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(value);
        let place = self.place(self.next);
        self.entries[place] = Entry { at, name: narrow(name.len()), value: narrow(value.len()), note };
        self.next = self.next.wrapping_add(1);
        self.count += 1;
        self.size += size;
        true
    }

    /// Evicts the oldest until `size` more has room.
    fn evict(&mut self, size: usize) {
        while self.count > 0 && self.size + size > self.limit {
            let Entry { name, value, .. } = *self.oldest();
            let octets = (name + value) as usize;
            self.start += octets;
            self.size -= octets + OVERHEAD;
            self.count -= 1;
        }
        if self.count == 0 {
            self.start = 0;
            self.octets.clear();
        }
    }

    /// Moves what there is to the front, and takes more memory if that leaves little.
    #[cold]
    fn make_room(&mut self, octets: usize) {
        self.octets.drain(..self.start);
        self.start = 0;
        let capacity = self.octets.capacity();
        let wanted = self.octets.len() + octets;
        // With a quarter to spare, or else everything would move with every entry.
        if wanted + wanted / 4 > capacity && capacity < self.limit {
            let new = wanted.max(capacity * 2).max(FEWEST_OCTETS).min(self.limit);
            self.octets.reserve_exact(new - self.octets.len());
        }
    }

    #[cold]
    fn grow(&mut self) {
        let length = (self.entries.len() * 2).max(FEWEST_ENTRIES);
        let mut entries = vec![Entry { at: 0, name: 0, value: 0, note: T::default() }; length];
        for age in 1..=self.count {
            let number = self.next.wrapping_sub(age);
            entries[number as usize & (length - 1)] = self.entries[self.place(number)];
        }
        self.entries = entries;
    }

    fn oldest(&self) -> &Entry<T> {
        &self.entries[self.place(self.next.wrapping_sub(self.count))]
    }

    fn place(&self, number: u32) -> usize {
        number as usize & (self.entries.len() - 1)
    }
}

/// Lengths of what is in a table are below its limit, and that is below 2^31.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
