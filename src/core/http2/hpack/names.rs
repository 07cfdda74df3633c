//! The static table (RFC 7541 appendix A), and what is known of fields by their names.

use super::huffman::low;

/// How many entries the static table has.
pub(super) const COUNT: usize = 61;

/// The static table; index 1 is its first entry.
#[rustfmt::skip]
pub(super) const STATIC: [(&[u8], &[u8]); COUNT] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// How a field is written, as long as the table does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// What comes again: into the table, unless it turns out to differ each time.
    Recurs,
    /// Differs from second to second, and not within one: into the table, whatever was there.
    Ticks,
    /// Differs each time: into the table once, for its name's sake.
    Varies,
    /// Differs each time, and the static table has its name: never into the table.
    Passes,
    /// A secret (section 7.1.3): never into any table, here or behind.
    Secret,
    /// A cookie: a secret where it is short enough to be guessed.
    Cookie,
}

/// A name that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) name: &'static [u8],
    /// The first index of it in the static table, 0 if there is none.
    pub(super) index: u8,
    /// How many entries of the static table have it and a value.
    pub(super) values: u8,
    pub(super) policy: Policy,
}

/// Names that are not treated as what recurs.
const POLICIES: [(&[u8], Policy); 31] = [
    (b":path", Policy::Passes),
    (b"age", Policy::Passes),
    (b"content-length", Policy::Passes),
    (b"content-location", Policy::Passes),
    (b"content-range", Policy::Passes),
    (b"etag", Policy::Passes),
    (b"expires", Policy::Ticks),
    (b"date", Policy::Ticks),
    (b"if-match", Policy::Passes),
    (b"if-modified-since", Policy::Passes),
    (b"if-none-match", Policy::Passes),
    (b"if-range", Policy::Passes),
    (b"if-unmodified-since", Policy::Passes),
    (b"last-modified", Policy::Passes),
    (b"location", Policy::Passes),
    (b"range", Policy::Passes),
    (b"retry-after", Policy::Passes),
    (b"authorization", Policy::Secret),
    (b"proxy-authorization", Policy::Secret),
    (b"set-cookie", Policy::Secret),
    (b"cookie", Policy::Cookie),
    (b"x-request-id", Policy::Varies),
    (b"x-correlation-id", Policy::Varies),
    (b"x-amzn-trace-id", Policy::Varies),
    (b"x-b3-traceid", Policy::Varies),
    (b"x-b3-spanid", Policy::Varies),
    (b"x-envoy-upstream-service-time", Policy::Varies),
    (b"x-runtime", Policy::Varies),
    (b"traceparent", Policy::Varies),
    (b"grpc-timeout", Policy::Varies),
    (b"cf-ray", Policy::Varies),
];

/// A power of two, several times the number of names.
const SLOTS: usize = 256;

/// Known names by their hash; a name whose slot is taken is in the next that is free.
static KNOWN: [Option<Known>; SLOTS] = known_names();

const fn known_names() -> [Option<Known>; SLOTS] {
    let mut slots = [None; SLOTS];
    let mut at = 0;
    while at < COUNT {
        let (name, value) = STATIC[at];
        let slot = slot_of(&slots, name);
        #[expect(clippy::cast_possible_truncation, reason = "at most 61")]
        let (index, values) = match slots[slot] {
            None => (at as u8 + 1, !value.is_empty() as u8),
            Some(Known { index, values, .. }) => (index, values + 1),
        };
        slots[slot] = Some(Known { name, index, values, policy: Policy::Recurs });
        at += 1;
    }
    let mut at = 0;
    while at < POLICIES.len() {
        let (name, policy) = POLICIES[at];
        let slot = slot_of(&slots, name);
        let (index, values) = match slots[slot] {
            None => (0, 0),
            Some(Known { index, values, .. }) => (index, values),
        };
        slots[slot] = Some(Known { name, index, values, policy });
        at += 1;
    }
    slots
}

const fn slot_of(slots: &[Option<Known>; SLOTS], name: &[u8]) -> usize {
    let mut slot = hash(name) as usize & (SLOTS - 1);
    while let Some(known) = slots[slot] {
        if same(known.name, name) {
            break;
        }
        slot = (slot + 1) & (SLOTS - 1);
    }
    slot
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// What is known of a name in lower case; `hash` is that of the name.
pub(super) fn known(name: &[u8], hash: u32) -> Option<&'static Known> {
    let mut slot = hash as usize & (SLOTS - 1);
    while let Some(known) = &KNOWN[slot] {
        if known.name == name {
            return Some(known);
        }
        slot = (slot + 1) & (SLOTS - 1);
    }
    None
}

/// A hash of a name or a value. Nobody's table may be read from it, and what collides costs no more than the limit on
/// how many entries are looked at, so that it needs no secret.
pub(super) const fn hash(text: &[u8]) -> u32 {
    // 2^64 divided by the golden ratio, and another odd number.
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0xe703_7ed1_a0b4_28db;
    let mut state = text.len() as u64 ^ FIRST;
    let (mut one, mut two) = (0, 0);
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        let mut rest = text;
        while let Some((sixteen, behind)) = rest.split_first_chunk::<16>() {
            let (one, two) = sixteen.split_at(8);
            if let (Some(one), Some(two)) = (one.first_chunk::<8>(), two.first_chunk::<8>()) {
                state = mix(u64::from_le_bytes(*one) ^ state, u64::from_le_bytes(*two) ^ SECOND);
            }
            rest = behind;
        }
        // The last sixteen: what of them has been mixed already does no harm.
        two = u64::from_le_bytes(*last);
        one = match text.last_chunk::<16>() {
            Some(sixteen) => match sixteen.first_chunk::<8>() {
                Some(eight) => u64::from_le_bytes(*eight),
                None => 0,
            },
            None => u64::from_le_bytes(*first),
        };
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (one, two) = (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64);
    } else if !text.is_empty() {
        one = (text[0] as u64) << 16 | (text[text.len() / 2] as u64) << 8 | text[text.len() - 1] as u64;
    }
    state = mix(one ^ state, two ^ SECOND);
    low(state ^ state >> 32)
}

const fn mix(one: u64, two: u64) -> u64 {
    let product = one as u128 * two as u128;
    #[expect(clippy::cast_possible_truncation, reason = "both halves, one after the other")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}
