//! Address ranges with an answer each: the longest prefix that holds an address decides.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::http1::request::RequestHead;
use crate::model::ClientPolicy;

/// Answers by address range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixMap {
    v4: Vec<(u8, HashMap<u32, bool>)>,
    v6: Vec<(u8, HashMap<u128, bool>)>,
}

impl PrefixMap {
    /// From ranges; where one is given twice with both answers, `false` counts.
    pub fn new(ranges: impl IntoIterator<Item = (IpNet, bool)>) -> Self {
        let mut map = Self::default();
        for (range, answer) in ranges {
            match range {
                IpNet::V4(net) => insert(&mut map.v4, net.prefix_len(), net.network().to_bits(), answer),
                IpNet::V6(net) => insert(&mut map.v6, net.prefix_len(), net.network().to_bits(), answer),
            }
        }
        map.v4.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        map.v6.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        map
    }

    /// What the longest range that holds an address says. An IPv4 address in IPv6's form is one of IPv4.
    pub fn get(&self, address: IpAddr) -> Option<bool> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                let masked = |len: u8| if len == 0 { 0 } else { bits & (u32::MAX << (32 - u32::from(len))) };
                self.v4.iter().find_map(|(len, answers)| answers.get(&masked(*len)).copied())
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let masked = |len: u8| if len == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(len))) };
                self.v6.iter().find_map(|(len, answers)| answers.get(&masked(*len)).copied())
            }
        }
    }

    /// All ranges, longest first.
    pub fn ranges(&self) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        for (len, answers) in &self.v4 {
            all.extend(
                answers
                    .iter()
                    .map(|(bits, answer)| (format!("{}/{len}", std::net::Ipv4Addr::from_bits(*bits)), *answer)),
            );
        }
        for (len, answers) in &self.v6 {
            all.extend(
                answers
                    .iter()
                    .map(|(bits, answer)| (format!("{}/{len}", std::net::Ipv6Addr::from_bits(*bits)), *answer)),
            );
        }
        all.sort();
        all
    }
}

fn insert<B: std::hash::Hash + Eq>(lens: &mut Vec<(u8, HashMap<B, bool>)>, len: u8, bits: B, answer: bool) {
    let at = lens.iter().position(|(known, _)| *known == len).unwrap_or_else(|| {
        lens.push((len, HashMap::new()));
        lens.len() - 1
    });
    lens[at].1.entry(bits).and_modify(|known| *known &= answer).or_insert(answer);
}

/// What of an address tells clients apart: all of one of IPv4, and of one of IPv6 the network of 64 bits, of which a
/// client has every address it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey {
    bytes: [u8; 8],
    len: usize,
}

impl ClientKey {
    /// Of an address; one of IPv4 in IPv6's form is one of IPv4.
    pub fn of(address: IpAddr) -> Self {
        let (bytes, len) = match address.to_canonical() {
            IpAddr::V4(address) => (u64::from(address.to_bits()) << 32, 4),
            IpAddr::V6(address) => (u64::try_from(address.to_bits() >> 64).expect("64 bits are left"), 8),
        };
        Self { bytes: bytes.to_be_bytes(), len }
    }

    /// As bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Whose request it is, by what the policy believes of `X-Forwarded-For`.
pub fn of_request(peer: IpAddr, policy: &ClientPolicy, head: &RequestHead<'_>) -> IpAddr {
    if policy.trusted.is_empty() && policy.trusted_hops.is_none() {
        return peer;
    }
    let lines: Vec<&[u8]> = head.named("x-forwarded-for").collect();
    match policy.trusted_hops {
        Some(hops) => client_ip_by_hops(peer, hops, lines.into_iter()),
        None => client_ip(peer, &policy.trusted, lines.into_iter()),
    }
}

/// Whose request it is: the peer's, or, where the peer is believed, that of the last address in `X-Forwarded-For` that
/// is not believed itself. What is no address ends the search at what is known by then.
pub fn client_ip<'v>(
    peer: IpAddr,
    trusted: &[IpNet],
    forwarded_for: impl DoubleEndedIterator<Item = &'v [u8]>,
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut known = peer.to_canonical();
    for line in forwarded_for.rev() {
        let members: Vec<&[u8]> = crate::http::list(line).collect();
        for member in members.into_iter().rev() {
            if !is_trusted(known) {
                return known;
            }
            match parse(member) {
                Some(address) => known = address.to_canonical(),
                None => return known,
            }
        }
    }
    known
}

/// Whose request it is, where `hops` addresses from the right end of `X-Forwarded-For` are what proxies have put there:
/// the last of those. The peer's, where there are not so many, or where that is no address.
pub fn client_ip_by_hops<'v>(
    peer: IpAddr,
    hops: u32,
    forwarded_for: impl DoubleEndedIterator<Item = &'v [u8]>,
) -> IpAddr {
    let mut left = hops;
    for line in forwarded_for.rev() {
        let members: Vec<&[u8]> = crate::http::list(line).collect();
        for member in members.into_iter().rev() {
            left = left.saturating_sub(1);
            if left == 0 {
                return parse(member).unwrap_or(peer).to_canonical();
            }
        }
    }
    peer.to_canonical()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?.trim_matches('"');
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let ranges = [
            ("10.0.0.0/8", true),
            ("10.1.0.0/16", false),
            ("10.1.2.3/32", true),
            ("192.0.2.0/24", true),
            ("192.0.2.0/24", false),
            ("2001:db8::/32", true),
            ("2001:db8:1::/48", false),
            ("::/0", false),
        ];
        let map = PrefixMap::new(ranges.map(|(range, answer)| (range.parse().unwrap(), answer)));
        for (address, expected) in [
            ("10.9.9.9", Some(true)),
            ("10.1.9.9", Some(false)),
            ("10.1.2.3", Some(true)),
            ("::ffff:10.1.2.3", Some(true)),
            ("192.0.2.1", Some(false)),
            ("11.0.0.1", None),
            ("2001:db8::1", Some(true)),
            ("2001:db8:1::1", Some(false)),
            ("fe80::1", Some(false)),
        ] {
            assert_eq!(map.get(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(PrefixMap::default().get("10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn clients_are_told_apart_by_address_or_network() {
        let key = |address: &str| ClientKey::of(address.parse().unwrap());
        assert_eq!(key("192.0.2.1").as_bytes(), [192, 0, 2, 1]);
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8:1:2::1").as_bytes(), [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 2]);
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        // The network c000:201:: is no address of IPv4.
        assert_ne!(key("c000:201::"), key("192.0.2.1"));
    }

    #[test]
    fn clients_behind_trusted_proxies() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let ask = |peer: &str, lines: &[&str]| {
            client_ip(peer.parse().unwrap(), &trusted, lines.iter().map(|line| line.as_bytes())).to_string()
        };
        assert_eq!(ask("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(ask("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // What a client has put there itself is behind the first that is not believed.
        assert_eq!(ask("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(ask("10.0.0.1", &["203.0.113.9", "198.51.100.1:80", "[2001:db8::7]:9"]), "198.51.100.1");
        assert_eq!(ask("10.0.0.1", &["unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(ask("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(ask("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
    }

    #[test]
    fn clients_behind_a_number_of_proxies() {
        let ask = |hops: u32, lines: &[&str]| {
            client_ip_by_hops("10.0.0.9".parse().unwrap(), hops, lines.iter().map(|line| line.as_bytes())).to_string()
        };
        // The example of Envoy Gateway's documentation.
        let example = &["203.0.113.128, 203.0.113.10, 203.0.113.1"];
        assert_eq!((ask(1, example), ask(2, example)), ("203.0.113.1".to_owned(), "203.0.113.10".to_owned()));
        assert_eq!(ask(3, &["203.0.113.128", "203.0.113.10:80, [2001:db8::1]:9"]), "203.0.113.128");
        // Fewer than there should be: somebody has come past a proxy.
        assert_eq!(
            (ask(4, example), ask(1, &[]), ask(1, &["unknown"])),
            ("10.0.0.9".to_owned(), "10.0.0.9".to_owned(), "10.0.0.9".to_owned())
        );
    }
}
