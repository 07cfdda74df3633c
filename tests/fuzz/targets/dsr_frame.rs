#![no_main]
//! Any frame: the reference of the XDP program judges it, changes nothing but MAC addresses, and does the same again.

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use ringway_core::dsr::abi::Counter;
use ringway_core::dsr::{FlowKey, Reference, SLOTS, Server, Service, Verdict, VipKey};

fuzz_target!(|bytes: &[u8]| {
    let mut reference = Reference {
        mac: [2, 0, 0, 0, 0, 2],
        ifindex: 1,
        outgoing: HashSet::new(),
        services: HashMap::new(),
        tables: vec![vec![0; SLOTS]],
        servers: vec![Server { mac: [2, 0, 0, 0, 1, 1], reachable: true, source: [2, 0, 0, 0, 0, 2], ifindex: 1 }],
        flows: HashMap::new(),
        counters: [0; Counter::ALL.len()],
    };
    let mut frame = bytes.to_vec();
    if let Some(destination) = frame.first_chunk_mut() {
        *destination = reference.mac;
    }
    // Whatever TCP or UDP flow the frame is of is one of a service: its last bytes say which.
    if let Some(key) = bytes.last_chunk::<40>() {
        reference.services.insert(VipKey(FlowKey(*key).vip().0), Service { table: 0, flags: 0 });
    }
    let before = frame.clone();
    let verdict = reference.forward(&mut frame);
    if verdict == Verdict::Transmit {
        assert_eq!(before[12..], frame[12..]);
        let mut again = before.clone();
        assert_eq!((reference.forward(&mut again), again), (verdict, frame));
    } else {
        assert_eq!(before, frame);
    }
});
