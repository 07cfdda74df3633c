//! Hashes of flows and keys, the same in every process of every version and in the XDP program.
//!
//! Balancers side by side have to agree on them, so neither the function nor its seed may change. A step is a
//! multiplication and two exclusive ors over 64 bits, which eBPF can do as well. Nothing here is meant to withstand
//! somebody who wants collisions: who chooses its own key may choose its endpoint.

use std::net::{IpAddr, SocketAddr};

/// Where every hash starts.
pub const SEED: u64 = 0x7269_6e67_7761_7931;
/// What every step multiplies with: odd, and its bits are half ones.
pub const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;

/// Takes one more word in.
#[inline]
pub const fn step(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ mixed >> 32
}

/// Spreads the last words over all bits: one step is too few for what stands in the upper bits of a word, as the last
/// byte of an address does.
#[inline]
pub const fn finish(hash: u64) -> u64 {
    step(step(hash, 0), 0)
}

/// An address as two words, the way a little-endian machine loads the 16 bytes of an IPv6 header; an IPv4 address is
/// mapped (`::ffff:a.b.c.d`).
#[inline]
pub fn address_words(ip: IpAddr) -> [u64; 2] {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (high, low) = bytes.split_at(8);
    [word(high), word(low)]
}

/// Both ports in network order, source first, as the first four bytes of a TCP or UDP header are loaded, and the
/// protocol's number above them.
#[inline]
pub fn port_word(source: u16, destination: u16, protocol: u8) -> u64 {
    u64::from(source.swap_bytes()) | u64::from(destination.swap_bytes()) << 16 | u64::from(protocol) << 32
}

/// Of a client's address.
#[inline]
pub fn source_ip(ip: IpAddr) -> u64 {
    let [high, low] = address_words(ip);
    finish(step(step(SEED, high), low))
}

/// Of a flow: both addresses and ports, and the protocol's number (6 TCP, 17 UDP).
#[inline]
pub fn five_tuple(source: SocketAddr, destination: SocketAddr, protocol: u8) -> u64 {
    let mut hash = SEED;
    for word in address_words(source.ip()).into_iter().chain(address_words(destination.ip())) {
        hash = step(hash, word);
    }
    finish(step(hash, port_word(source.port(), destination.port(), protocol)))
}

/// Of a text: a header's value, a path, an endpoint's identity.
pub fn bytes(bytes: &[u8]) -> u64 {
    with_seed(SEED, bytes)
}

/// The same from another start, for a second hash of one text.
pub fn with_seed(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = step(hash, word(chunk));
    }
    // The length keeps texts apart that differ by zeroes at their end.
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    finish(step(step(hash, u64::from_le_bytes(last)), bytes.len() as u64))
}

fn word(eight: &[u8]) -> u64 {
    u64::from_le_bytes(eight.try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        let source: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        let destination: SocketAddr = "198.51.100.7:443".parse().unwrap();
        assert_eq!(port_word(0x1234, 0x5678, 6), 0x0006_7856_3412);
        assert_eq!(address_words(source.ip()), [0, 0x0102_00c0_ffff_0000]);
        assert_eq!(
            [
                five_tuple(source, destination, 6),
                source_ip(source.ip()),
                source_ip("2001:db8::1".parse().unwrap()),
                bytes(b""),
                bytes(b"/index.html"),
            ],
            [
                7_710_399_015_206_513_388,
                3_368_975_332_127_709_963,
                4_922_904_220_913_892_810,
                9_220_938_701_649_269_702,
                12_508_572_795_103_479_385
            ]
        );
    }

    #[test]
    fn texts_that_differ_by_zeroes_differ() {
        let all: std::collections::HashSet<u64> = (0..32).map(|len| bytes(&vec![0; len])).collect();
        assert_eq!(all.len(), 32);
    }

    /// Ports and addresses that count up, as those of real clients do, fill 64 buckets evenly by their high bits.
    #[test]
    fn neighbours_spread() {
        let destination: SocketAddr = "198.51.100.7:443".parse().unwrap();
        let flows = (0..64_000_u32).map(|n| {
            let source = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + n / 64), 1024 + (n % 64) as u16));
            five_tuple(source, destination, 6)
        });
        let sources = (0..64_000_u32).map(|n| source_ip(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()));
        let texts = (0..64_000_u32).map(|n| bytes(format!("user-{n}").as_bytes()));
        for (name, hashes) in
            [("flows", flows.collect::<Vec<_>>()), ("sources", sources.collect()), ("texts", texts.collect())]
        {
            let mut buckets = [0_i64; 64];
            for hash in hashes {
                buckets[(hash >> 58) as usize] += 1;
            }
            // Chi-squared with 63 degrees of freedom: above 120 once in a hundred thousand times.
            let chi: i64 = buckets.iter().map(|count| (count - 1000) * (count - 1000)).sum();
            assert!(chi < 120 * 1000, "{name}: {buckets:?}");
        }
    }
}
