//! The Huffman code of string literals (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: shorter codes come first, and those of one length in the order of their symbols. So the
//! lengths say everything, and the tables are made of them when this is compiled.

use std::mem;

/// Length in bits of each octet's code.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code. EOS has this length too and is the last of all, so that it needs no entry anywhere.
const LONGEST: usize = 30;

/// The shortest code.
const SHORTEST: usize = 5;

/// Length of the codes that are found at one look.
const SHORT: usize = 8;

/// What the code is made of, as encoder and decoder want it.
struct Code {
    /// By octet: its code, flush right, and the length of it.
    codes: [(u32, u8); 256],
    /// By the next eight bits: the octet whose code they begin with and its length; 0 is a longer code.
    short: [(u8, u8); 1 << SHORT],
    /// By length: what the codes of this length are below, flush left in 32 bits.
    limits: [u32; LONGEST + 1],
    /// By length: what leads from a code, flush right, to its place in `octets`.
    places: [u32; LONGEST + 1],
    /// All octets in the order of their codes.
    octets: [u8; 256],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut made = Self {
            codes: [(0, 0); 256],
            short: [(0, 0); 1 << SHORT],
            limits: [0; LONGEST + 1],
            places: [0; LONGEST + 1],
            octets: [0; 256],
        };
        let (mut length, mut code, mut place) = (SHORTEST, 0u32, 0u32);
        while length <= LONGEST {
            made.places[length] = place.wrapping_sub(code);
            let mut octet = 0u8;
            loop {
                if LENGTHS[octet as usize] as usize == length {
                    made.codes[octet as usize] = (code, LENGTHS[octet as usize]);
                    made.octets[place as usize] = octet;
                    if length <= SHORT {
                        let first = (code as usize) << (SHORT - length);
                        let mut same = 0;
                        while same < 1 << (SHORT - length) {
                            made.short[first + same] = (octet, LENGTHS[octet as usize]);
                            same += 1;
                        }
                    }
                    code += 1;
                    place += 1;
                }
                if octet == u8::MAX {
                    break;
                }
                octet += 1;
            }
            made.limits[length] = code << (32 - length);
            code <<= 1;
            length += 1;
        }
        made
    }
}

/// The octets that `text` takes when it is coded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|octet| usize::from(LENGTHS[usize::from(*octet)])).sum();
    bits.div_ceil(8)
}

/// Writes `text`, which takes `len` octets as [`encoded_len`] says.
pub(super) fn encode(text: &[u8], len: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + len, 0);
    let mut rest = &mut out[start..];
    let (mut bits, mut count) = (0u64, 0u32);
    for octet in text {
        let (code, length) = CODE.codes[usize::from(*octet)];
        bits = bits << length | u64::from(code);
        count += u32::from(length);
        if count >= 32 {
            count -= 32;
            let Some((word, behind)) = mem::take(&mut rest).split_first_chunk_mut() else { return };
            *word = low(bits >> count).to_be_bytes();
            rest = behind;
        }
    }
    // Filled up with the beginning of EOS, which is ones only.
    let last = low(bits << (32 - count)) | u32::MAX.checked_shr(count).unwrap_or(0);
    for (octet, value) in rest.iter_mut().zip(last.to_be_bytes()) {
        *octet = value;
    }
}

/// The low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "which is what is wanted")]
pub(super) const fn low(bits: u64) -> u32 {
    bits as u32
}

/// The most octets that `coded` ones may stand for.
pub(super) const fn decoded_bound(coded: usize) -> usize {
    coded * 8 / SHORTEST
}

/// Decodes into `out`, which has at least [`decoded_bound`] octets, and returns how many they are. `None` is what is
/// no code: EOS, or an end that is more than seven bits or not EOS's beginning.
pub(super) fn decode(mut coded: &[u8], out: &mut [u8]) -> Option<usize> {
    // The next bits, flush left; `count` of them are there.
    let (mut bits, mut count) = (0u64, 0u32);
    let mut written = 0;
    // Short codes by fours, as long as there are bits for them.
    'words: loop {
        if let Some(word) = coded.first_chunk() {
            bits |= u64::from_be_bytes(*word) >> count;
            let octets = (64 - count) / 8;
            coded = &coded[octets as usize..];
            count += 8 * octets;
            if count < 64 {
                // What is of the octet that is not wholly there comes with the next word.
                bits &= !(u64::MAX >> count);
            }
        } else {
            while let Some((octet, behind)) = coded.split_first()
                && count <= 56
            {
                bits |= u64::from(*octet) << (56 - count);
                count += 8;
                coded = behind;
            }
            if count < 32 {
                break;
            }
        }
        for place in out.get_mut(written..written + 4)? {
            let (octet, length) = CODE.short[(bits >> (64 - SHORT)) as usize];
            if length == 0 {
                break 'words;
            }
            *place = octet;
            written += 1;
            bits <<= length;
            count -= u32::from(length);
        }
    }
    loop {
        if count < 32 {
            if let Some((word, behind)) = coded.split_first_chunk() {
                bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
                count += 32;
                coded = behind;
            } else {
                for octet in coded {
                    bits |= u64::from(*octet) << (56 - count);
                    count += 8;
                }
                coded = &[];
                break;
            }
        }
        // There are 32 bits at least: whatever comes is whole.
        let (octet, length) = next(bits)?;
        *out.get_mut(written)? = octet;
        written += 1;
        bits <<= length;
        count -= length;
    }
    debug_assert!(coded.is_empty());
    while count >= 8 || bits != u64::MAX.checked_shl(64 - count).unwrap_or(0) {
        let (octet, length) = next(bits)?;
        count = count.checked_sub(length)?;
        *out.get_mut(written)? = octet;
        written += 1;
        bits <<= length;
    }
    Some(written)
}

/// The octet whose code these bits begin with, and the length of it.
#[inline]
fn next(bits: u64) -> Option<(u8, u32)> {
    let (octet, length) = CODE.short[(bits >> (64 - SHORT)) as usize];
    if length > 0 { Some((octet, u32::from(length))) } else { next_long(bits) }
}

fn next_long(bits: u64) -> Option<(u8, u32)> {
    let word = low(bits >> 32);
    // Nothing is below the limit of the longest code but EOS.
    let length = (SHORT + 1..=LONGEST).find(|length| word < CODE.limits[*length])?;
    let place = (word >> (32 - length)).wrapping_add(CODE.places[length]);
    let octet = *CODE.octets.get(usize::try_from(place).ok()?)?;
    Some((octet, u32::try_from(length).ok()?))
}
