use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::abi::{Counter, FlowValue, ServerValue, VipValue};
use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn layouts_come_back_as_they_went() {
    for ip in ["10.0.0.1", "fd00::1"] {
        let server = ServerValue {
            mac: [1, 2, 3, 4, 5, 6],
            reachable: true,
            source: [7; 6],
            ifindex: 9,
            ip: ip.parse().unwrap(),
        };
        assert_eq!(ServerValue::decode(&server.encode()), Some(server));
    }
    assert_eq!(ServerValue::decode(&[0; 5]), None);
    let vip = VipValue { table: 1, stats: 2, flags: 3, cap: 4 };
    assert_eq!(VipValue::decode(&vip.encode()), vip);
    let flow = FlowValue { server: 7, seen: u64::MAX - 1 };
    assert_eq!(FlowValue::decode(&flow.encode()), flow);
    for (vip, client) in [("10.0.0.100:80", "192.0.2.1:4000"), ("[fd00::100]:53", "[fd00::1]:4000")] {
        let key = FlowKey::new(address(client), address(vip), Transport::Udp);
        assert_eq!(key.client(), address(client));
        assert_eq!(key.vip().parts(), Some((address(vip), Transport::Udp)));
    }
}

#[test]
fn an_ipv4_vip_is_not_the_ipv6_one_that_it_is_mapped_to() {
    let v4 = VipKey::new(address("10.77.0.100:80"), Transport::Tcp);
    let v6 = VipKey::new(address("[::ffff:10.77.0.100]:80"), Transport::Tcp);
    assert_eq!(v4.0[..16], v6.0[..16]);
    assert_ne!(v4, v6);
}

#[test]
fn tables_have_the_size_that_the_program_scales_to() {
    assert_eq!(crate::balance::TableSize::DEFAULT.get() as usize, SLOTS);
}

#[test]
fn slots_are_chosen_evenly() {
    let mut counts = [0_u32; 16];
    for client in 0..64_000_u32 {
        let [_, _, high, low] = client.to_be_bytes();
        let client = SocketAddr::from(([10, 1, high, low], 1024 + u16::from(low)));
        let key = FlowKey::new(client, address("10.0.0.100:80"), Transport::Tcp);
        counts[pick(&key, Hashing::FiveTuple) * 16 / SLOTS] += 1;
    }
    assert!(counts.iter().all(|count| (3_700..4_300).contains(count)), "{counts:?}");
}

#[test]
fn the_source_alone_decides_where_that_is_wanted() {
    let slot = |client, vip, hashing| pick(&FlowKey::new(address(client), address(vip), Transport::Tcp), hashing);
    let (one, two) = ("192.0.2.1:1000", "192.0.2.1:2000");
    assert_eq!(slot(one, "10.0.0.100:80", Hashing::SourceIp), slot(two, "10.0.0.101:443", Hashing::SourceIp));
    assert_ne!(slot(one, "10.0.0.100:80", Hashing::FiveTuple), slot(two, "10.0.0.100:80", Hashing::FiveTuple));
}

fn reference() -> Reference {
    let vip = VipKey::new(address("10.0.0.100:80"), Transport::Tcp);
    let server = |last| Server { mac: [2, 0, 0, 0, 1, last], reachable: true, source: [2, 0, 0, 0, 0, 2], ifindex: 1 };
    Reference {
        mac: [2, 0, 0, 0, 0, 2],
        ifindex: 1,
        outgoing: HashSet::new(),
        services: HashMap::from([(vip, Service { table: 0, flags: 0 })]),
        tables: vec![(0..SLOTS).map(|slot| u16::from(slot % 2 == 1)).collect()],
        servers: vec![server(0), server(1)],
        flows: HashMap::new(),
        counters: [0; Counter::ALL.len()],
    }
}

fn segment(flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 10, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 10, 0, 0, 100]);
    frame.extend([0x10, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

#[test]
fn a_flow_keeps_its_server_when_the_table_changes() {
    let mut reference = reference();
    let mut syn = segment(0x02);
    assert_eq!(reference.forward(&mut syn), Verdict::Transmit);
    let chosen = syn[..6].to_owned();
    let other = u16::from(chosen[5] == 0);
    reference.tables[0].fill(other);
    let mut ack = segment(0x10);
    assert_eq!(reference.forward(&mut ack), Verdict::Transmit);
    assert_eq!(ack[..6], chosen);
    // A new connection between the same ports is a new flow.
    let mut again = segment(0x02);
    assert_eq!(reference.forward(&mut again), Verdict::Transmit);
    assert_ne!(again[..6], chosen);
}

#[test]
fn every_prefix_is_judged() {
    let mut reference = reference();
    let frame = segment(0x02);
    for length in 0..frame.len() {
        assert_eq!(reference.forward(&mut frame[..length].to_owned()), Verdict::Pass, "{length} bytes");
    }
    assert_eq!(reference.counters[Counter::PassMalformed as usize], 20);
}
