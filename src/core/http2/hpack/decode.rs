//! Field blocks, read.

use super::huffman;
use super::names::{COUNT, STATIC};
use super::table::Table;
use super::{CompressionError, DEFAULT_LIMIT};

/// Octets that the room for strings may have between blocks.
const KEPT: usize = 1024;

/// Octets of an integer, the first included: what takes more is an error, and less does not overflow.
const INTEGER: usize = 5;

/// Decodes field blocks of one direction of a connection.
///
/// It has no memory until a block needs some, and then at most what the table's limit says for the fields, as much for
/// where they begin, and 1 KiB for strings.
#[derive(Debug)]
pub struct Decoder {
    table: Table<()>,
    limit: usize,
    /// Room for strings that do not lie in the block as they are: its whole length may be written to.
    room: Vec<u8>,
}

impl Decoder {
    /// `limit`: SETTINGS_HEADER_TABLE_SIZE that this side has announced, in octets (default 4096).
    ///
    /// The table begins with 4096 octets all the same, since that is what the peer's does until it has seen the setting
    /// (RFC 9113 section 6.5.2). No update may make it larger than `limit`.
    pub fn new(limit: usize) -> Self {
        // What is beyond could not be said by an integer of five octets.
        Self { table: Table::new(DEFAULT_LIMIT), limit: limit.min(1 << 28), room: Vec::new() }
    }

    /// Decodes a complete field block (HEADERS and CONTINUATION fragments joined). Each field goes to `field(name, value)`;
    /// the block is always decoded to its end, since the table must stay in step, unless it is a compression error. What
    /// the fields come to is the caller's to bound: one octet may stand for a field of 4 KiB. Nothing is allocated for
    /// them.
    ///
    /// # Errors
    ///
    /// What RFC 7541 calls a decoding error. The connection is of no use then.
    pub fn decode(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), CompressionError> {
        self.decode_marked(block, |name, value, _| field(name, value))
    }

    /// As [`Self::decode`]; the third argument is whether the field must not be indexed by anybody who hands it on
    /// (section 6.2.3), which is what [`super::Encoder::secret`] is for.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`].
    pub fn decode_marked(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), CompressionError> {
        let mut input = Input { rest: block };
        while let Some(first) = input.peek()
            && first >> 5 == 0b001
        {
            let limit = input.integer(5)?;
            if limit > self.limit {
                return Err(CompressionError);
            }
            self.table.set_limit(limit);
        }
        while let Some(first) = input.peek() {
            self.representation(first, &mut input, &mut field)?;
        }
        if self.room.len() > KEPT {
            self.room = Vec::new();
        }
        Ok(())
    }

    /// Memory held, in bytes.
    pub fn memory(&self) -> usize {
        self.table.memory() + self.room.capacity()
    }

    #[inline]
    fn representation(
        &mut self,
        first: u8,
        input: &mut Input<'_>,
        field: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), CompressionError> {
        let Self { table, room, .. } = self;
        let (prefix, indexing, secret) = match first {
            0x80.. => {
                let (name, value) = entry(table, input.integer(7)?)?;
                field(name, value, false);
                return Ok(());
            }
            0x40.. => (6, true, false),
            // A size update is only where a block begins.
            0x20.. => return Err(CompressionError),
            0x10.. => (4, false, true),
            _ => (4, false, false),
        };
        let mut used = 0;
        let name = match input.integer(prefix)? {
            0 => input.string(room, &mut used)?,
            index @ 1..=COUNT => Text::Whole(STATIC[index - 1].0),
            index => {
                // Copied, since what is inserted may evict it (section 4.4).
                let (name, _) = entry(table, index)?;
                make_room(room, name.len());
                room[..name.len()].copy_from_slice(name);
                used = name.len();
                Text::Room(0, used)
            }
        };
        let value = input.string(room, &mut used)?;
        let (name, value) = (name.get(room), value.get(room));
        field(name, value, secret);
        if indexing {
            table.insert(name, value, ());
        }
        Ok(())
    }
}

fn entry(table: &Table<()>, index: usize) -> Result<(&[u8], &[u8]), CompressionError> {
    match index {
        0 => Err(CompressionError),
        1..=COUNT => Ok(STATIC[index - 1]),
        _ => {
            let age = u32::try_from(index - COUNT - 1).unwrap_or(u32::MAX);
            table.get(age).map(|(name, value, ())| (name, value)).ok_or(CompressionError)
        }
    }
}

/// A string of a literal: it lies somewhere as it is, or in the room, from here to there.
#[derive(Clone, Copy)]
enum Text<'a> {
    Whole(&'a [u8]),
    Room(usize, usize),
}

impl<'a> Text<'a> {
    fn get(self, room: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Whole(text) => text,
            Self::Room(start, end) => &room[start..end],
        }
    }
}

/// What of a block is still to be read.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// An integer whose first octet has `prefix` bits for it (section 5.1).
    #[inline]
    fn integer(&mut self, prefix: u32) -> Result<usize, CompressionError> {
        let (first, behind) = self.rest.split_first().ok_or(CompressionError)?;
        let most = (1usize << prefix) - 1;
        let value = usize::from(*first) & most;
        self.rest = behind;
        if value < most { Ok(value) } else { self.long_integer(most) }
    }

    fn long_integer(&mut self, mut value: usize) -> Result<usize, CompressionError> {
        for (at, octet) in self.rest.iter().enumerate().take(INTEGER - 1) {
            value += usize::from(octet & 0x7f) << (7 * at);
            if octet & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(CompressionError)
    }

    /// A string (section 5.2). One that is coded is decoded to the room behind what is `used` of it.
    #[inline]
    fn string(&mut self, room: &mut Vec<u8>, used: &mut usize) -> Result<Text<'a>, CompressionError> {
        let coded = self.peek().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, behind) = self.rest.split_at_checked(length).ok_or(CompressionError)?;
        self.rest = behind;
        if !coded {
            return Ok(Text::Whole(text));
        }
        let start = *used;
        make_room(room, start + huffman::decoded_bound(length));
        *used += huffman::decode(text, &mut room[start..]).ok_or(CompressionError)?;
        Ok(Text::Room(start, *used))
    }
}

/// Makes the room this long at least.
fn make_room(room: &mut Vec<u8>, length: usize) {
    if room.len() < length {
        room.resize(length.next_power_of_two().max(64), 0);
    }
}
