//! Field blocks, written.

use super::DEFAULT_LIMIT;
use super::huffman;
use super::names::{self, COUNT, Known, Policy, STATIC};
use super::table::{OVERHEAD, Table};

/// The longest name that is looked up; longer ones are written as they are.
const NAME: usize = 64;

/// Chains of entries by the hash of their names, and as many by that of their names and values; a power of two.
const CHAINS: usize = 64;

/// How many entries of a chain are looked at.
const WALK: usize = 16;

/// How many values of a name the table takes one after the other: what has had more differs too often.
const VALUES: u8 = 4;

/// Of the values that are over [`VALUES`], one of so many goes into the table nonetheless, lest it grow old.
const REFRESH: u8 = 8;

/// A cookie below this length may be guessed octet by octet.
const SHORT_COOKIE: usize = 20;

/// The octets from which a string that does not enter the table is Huffman coded. In a loop over a path of 41 octets,
/// coding it took 100 ns longer than writing it as it is, and decoding it 260 ns longer than reading it so, for eleven
/// octets less on the wire; the shorter, the less there is to win. So short ones are left alone.
const CODED: usize = 64;

/// The first bits of a literal with incremental indexing.
const INDEXING: u8 = 0x40;

/// Encodes field blocks of one direction.
///
/// What a field needs is decided by its name: secrets are never indexed, what differs each time stays out of the table,
/// everything else goes into it. A name that nothing is known of is learnt: once the table has four values of it,
/// another one goes in only now and then.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Link>,
    /// By hash: the number of the newest entry, of a name in the first half, and of a field in the second. Empty until there
    /// is one.
    heads: Vec<u32>,
    /// Of the limits that the peer has set since the last block, the least, and the last.
    pending: Option<(usize, usize)>,
    /// Counts to [`REFRESH`].
    passed: u8,
    /// By hash: lines whose fields have been in the table, and which entry that was. Empty until there is one.
    lines: Vec<(u32, u32)>,
}

/// Lines that are remembered, a power of two.
const LINES: usize = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    name: u32,
    value: u32,
    /// The numbers of the next older entries of its chains, which may have been evicted.
    older_name: u32,
    older_field: u32,
    /// How many values its name has had in a row with this one.
    values: u8,
}

/// What the dynamic table has of a field.
#[derive(Debug, Default)]
struct Found {
    /// The age of an entry that is the field.
    field: Option<u32>,
    /// Index of an entry with its name.
    name: Option<usize>,
    /// How many values its name has had.
    values: u8,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// At the beginning of a connection: the peer's table is of 4096 octets until it says otherwise.
    pub const fn new() -> Self {
        Self { table: Table::new(DEFAULT_LIMIT), heads: Vec::new(), pending: None, passed: 0, lines: Vec::new() }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE; what is used is at most 4096. The next block begins with what this
    /// changes (RFC 7541 sections 4.2 and 6.3).
    pub fn set_limit(&mut self, octets: u32) {
        let limit = usize::try_from(octets).unwrap_or(usize::MAX).min(DEFAULT_LIMIT);
        let (least, last) = self.pending.unwrap_or_else(|| (self.table.limit(), self.table.limit()));
        if limit != last {
            self.pending = Some((least.min(limit), limit));
        }
    }

    /// Begins a block: writes pending table size updates.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some((least, last)) = self.pending.take() else { return };
        if least < last && least < self.table.limit() {
            self.table.set_limit(least);
            integer(least, 5, 0x20, out);
        }
        self.table.set_limit(last);
        integer(last, 5, 0x20, out);
        if self.table.count() == 0 {
            self.heads = Vec::new();
        }
    }

    /// Memory held, in bytes.
    pub fn memory(&self) -> usize {
        self.table.memory() + (self.heads.capacity() + 2 * self.lines.capacity()) * size_of::<u32>()
    }

    /// A field by its whole line, `name: value` without the line's end, where [`Self::line_field`] has written it before
    /// and the table has it; else false. It needs no look at what it consists of, which was taken when it came first.
    #[inline]
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let is_it = |name: &[u8], value: &[u8]| {
            name.len() + value.len() + 2 == line.len()
                && line.split_at_checked(name.len()).is_some_and(|(its_name, rest)| {
                    rest.strip_prefix(b": ") == Some(value) && (its_name == name || its_name.eq_ignore_ascii_case(name))
                })
        };
        self.remembered(names::hash(line), is_it, out)
    }

    /// A field as [`Self::field`] writes it, for which [`Self::line`] is asked next time.
    pub fn line_field(&mut self, line: &[u8], name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if let Some(number) = self.write(name, value, out) {
            self.remember(names::hash(line), number);
        }
    }

    /// What a request says outside of its fields (RFC 9113 section 8.3.1), but for `:protocol`.
    pub fn request(&mut self, method: &[u8], scheme: &[u8], authority: &[u8], path: &[u8], out: &mut Vec<u8>) {
        match method {
            b"GET" => out.push(0x82),
            b"POST" => out.push(0x83),
            _ => self.field(b":method", method, out),
        }
        match scheme {
            b"http" => out.push(0x86),
            b"https" => out.push(0x87),
            _ => self.field(b":scheme", scheme, out),
        }
        // No line begins with a colon: what is remembered by it is no line's.
        let hash = names::hash(authority).rotate_left(7);
        let is_it = |name: &[u8], value: &[u8]| value == authority && name == b":authority";
        if !self.remembered(hash, is_it, out)
            && let Some(number) = self.write(b":authority", authority, out)
        {
            self.remember(hash, number);
        }
        match path {
            b"/" => out.push(0x84),
            b"/index.html" => out.push(0x85),
            _ => literal(4, b":path", path, 4, 0, out),
        }
    }

    /// Writes the field that is remembered by a hash, if it is the one.
    #[inline]
    fn remembered(&self, hash: u32, is_it: impl Fn(&[u8], &[u8]) -> bool, out: &mut Vec<u8>) -> bool {
        let Some(&(its, number)) = self.lines.get(hash as usize & (LINES - 1)) else { return false };
        if its != hash {
            return false;
        }
        let age = self.table.next().wrapping_sub(1).wrapping_sub(number);
        let found = self.table.get(age).is_some_and(|(name, value, _)| is_it(name, value));
        if found {
            integer(COUNT + 1 + age as usize, 7, 0x80, out);
        }
        found
    }

    fn remember(&mut self, hash: u32, number: u32) {
        if self.lines.is_empty() {
            self.lines = vec![(0, 0); LINES];
        }
        self.lines[hash as usize & (LINES - 1)] = (hash, number);
    }

    /// A status from 100 to 999.
    #[inline]
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digit = |of: u16| b'0' + u8::try_from(status / of % 10).unwrap_or(0);
                return self.field(b":status", &[digit(100), digit(10), digit(1)], out);
            }
        };
        out.push(0x80 | index);
    }

    /// A field; the name may be in any case and is written in lower case. Authorizations, cookies that are set and short
    /// cookies are never indexed (section 7.1.3). `:status`, `:method`, `:scheme`, `:path` and `:authority` are fields by
    /// these names.
    pub fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.write(name, value, out);
    }

    /// A field; the number of its entry in the table, if it has one.
    fn write(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let mut lower = [0; NAME];
        let Some(lower) = lower.get_mut(..name.len()) else {
            plain(name, value, 0, out);
            return None;
        };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let name = &*lower;
        let hash = names::hash(name);
        let known = names::known(name, hash);
        let (index, policy) = match known {
            None => (0, Policy::Recurs),
            Some(Known { index, values, policy, .. }) => {
                let first = usize::from(*index);
                for index in first..first + usize::from(*values) {
                    if STATIC[index - 1].1 == value {
                        integer(index, 7, 0x80, out);
                        return None;
                    }
                }
                (first, *policy)
            }
        };
        match policy {
            Policy::Secret => literal(index, name, value, 4, 0x10, out),
            Policy::Cookie if value.len() < SHORT_COOKIE => literal(index, name, value, 4, 0x10, out),
            Policy::Passes => literal(index, name, value, 4, 0, out),
            Policy::Recurs | Policy::Cookie | Policy::Ticks | Policy::Varies => {
                return self.indexed(index, name, hash, value, policy, out);
            }
        }
        None
    }

    /// A field that nobody on its way may index, as the peer that sent it has asked (section 6.2.3).
    pub fn secret(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut lower = [0; NAME];
        let Some(lower) = lower.get_mut(..name.len()) else { return plain(name, value, 0x10, out) };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let index = names::known(lower, names::hash(lower)).map_or(0, |known| usize::from(known.index));
        literal(index, lower, value, 4, 0x10, out);
    }

    /// A field that may be in the dynamic table; the number of its entry. `index` is its name's in the static one, or 0.
    fn indexed(
        &mut self,
        index: usize,
        name: &[u8],
        hash: u32,
        value: &[u8],
        policy: Policy,
        out: &mut Vec<u8>,
    ) -> Option<u32> {
        // What would take more than half of the table would have to come again soon to be worth what it evicts.
        if name.len() + value.len() + OVERHEAD > self.table.limit() / 2 {
            literal(index, name, value, 4, 0, out);
            return None;
        }
        let value_hash = names::hash(value);
        let found = self.find(name, hash, value, value_hash);
        if let Some(age) = found.field {
            integer(COUNT + 1 + age as usize, 7, 0x80, out);
            return Some(self.table.next().wrapping_sub(1).wrapping_sub(age));
        }
        let index = if index > 0 { index } else { found.name.unwrap_or(0) };
        let insert = match policy {
            Policy::Ticks => true,
            Policy::Varies => found.values == 0,
            _ if found.values < VALUES => true,
            _ => {
                self.passed = (self.passed + 1) % REFRESH;
                self.passed == 0
            }
        };
        if !insert {
            literal(index, name, value, 4, 0, out);
            return None;
        }
        literal(index, name, value, 6, INDEXING, out);
        let number = self.table.next();
        if self.heads.is_empty() {
            // One before the first entry there can be: none that is in the table.
            self.heads = vec![number.wrapping_sub(1); 2 * CHAINS];
        }
        let (of_name, of_field) = (name_chain(hash), field_chain(hash, value_hash));
        let link = Link {
            name: hash,
            value: value_hash,
            older_name: self.heads[of_name],
            older_field: self.heads[of_field],
            values: found.values.saturating_add(1),
        };
        if self.table.insert(name, value, link) {
            (self.heads[of_name], self.heads[of_field]) = (number, number);
        }
        Some(number)
    }

    fn find(&self, name: &[u8], hash: u32, value: &[u8], value_hash: u32) -> Found {
        if self.heads.is_empty() {
            return Found::default();
        }
        // What differs each time is not looked for among all that its name has had.
        let is_field = |its_name: &[u8], its_value: &[u8], link: &Link| {
            link.value == value_hash && link.name == hash && its_value == value && its_name == name
        };
        let chain = self.heads[field_chain(hash, value_hash)];
        if let Some((age, _)) = self.first(chain, |link| link.older_field, is_field) {
            return Found { field: Some(age), name: None, values: 0 };
        }
        let is_name = |its_name: &[u8], _: &[u8], link: &Link| link.name == hash && its_name == name;
        match self.first(self.heads[name_chain(hash)], |link| link.older_name, is_name) {
            Some((age, link)) => Found { field: None, name: Some(COUNT + 1 + age as usize), values: link.values },
            None => Found::default(),
        }
    }

    /// The first entry of a chain that is the one.
    #[inline]
    fn first(
        &self,
        head: u32,
        older: impl Fn(&Link) -> u32,
        is_it: impl Fn(&[u8], &[u8], &Link) -> bool,
    ) -> Option<(u32, Link)> {
        let newest = self.table.next().wrapping_sub(1);
        let mut age = newest.wrapping_sub(head);
        for _ in 0..WALK {
            let (name, value, link) = self.table.get(age)?;
            if is_it(name, value, &link) {
                return Some((age, link));
            }
            let next = newest.wrapping_sub(older(&link));
            // Numbers that have wrapped since may look like those of entries.
            if next <= age {
                return None;
            }
            age = next;
        }
        None
    }
}

const fn name_chain(hash: u32) -> usize {
    hash as usize >> 8 & (CHAINS - 1)
}

const fn field_chain(hash: u32, value_hash: u32) -> usize {
    CHAINS + ((hash ^ value_hash.rotate_left(13)) as usize >> 8 & (CHAINS - 1))
}

/// A literal whose name is longer than what is looked up.
fn plain(name: &[u8], value: &[u8], kind: u8, out: &mut Vec<u8>) {
    literal(0, &name.to_ascii_lowercase(), value, 4, kind, out);
}

/// A literal (section 6.2); `index` 0 is a name that is written.
fn literal(index: usize, name: &[u8], value: &[u8], prefix: u32, kind: u8, out: &mut Vec<u8>) {
    integer(index, prefix, kind, out);
    // What enters the table is written once, whatever that costs.
    let once = kind == INDEXING;
    if index == 0 {
        string(name, once, out);
    }
    string(value, once, out);
}

fn string(text: &[u8], once: bool, out: &mut Vec<u8>) {
    if once || text.len() >= CODED {
        let coded = huffman::encoded_len(text);
        if coded < text.len() {
            integer(coded, 7, 0x80, out);
            huffman::encode(text, coded, out);
            return;
        }
    }
    integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// An integer behind the bits of `kind` (section 5.1).
#[inline]
fn integer(value: usize, prefix: u32, kind: u8, out: &mut Vec<u8>) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(kind | low(value));
    } else if value - most < 0x80 {
        out.extend_from_slice(&[kind | low(most), low(value - most)]);
    } else {
        long_integer(value - most, kind | low(most), out);
    }
}

#[cold]
fn long_integer(mut rest: usize, first: u8, out: &mut Vec<u8>) {
    out.push(first);
    while rest >= 0x80 {
        out.push(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    out.push(low(rest));
}

/// An octet's worth.
#[expect(clippy::cast_possible_truncation, reason = "all that is passed is below 256")]
const fn low(value: usize) -> u8 {
    value as u8
}
