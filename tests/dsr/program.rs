//! The program that the kernel runs against the reference in Rust, by BPF_PROG_TEST_RUN: no interface is involved.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use ringway::sys::bpf;
use ringway::xdp::maps::{Maps, Sizes};
use ringway::xdp::program;
use ringway_core::dsr::abi::{Counter, NO_SERVER, SOURCE_IP, STATELESS, ServerValue, VipValue};
use ringway_core::dsr::{FlowKey, Reference, SLOTS, Server, Service, Transport, Verdict, VipKey};

use crate::frames::{self, ACK, BALANCER, SYN};
use crate::support::{Random, can_run};

/// Frames of BPF_PROG_TEST_RUN come in by the loopback interface, the first of every namespace.
const LOOPBACK: u32 = 1;
/// No interface has it.
const NOWHERE: u32 = 0x7fff_fff0;

fn clients() -> Vec<SocketAddr> {
    ["10.0.0.1:0", "10.0.0.2:0", "203.0.113.9:0", "[fd00::1]:0", "[fd00::2]:0", "[2001:db8::77]:0"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

struct Bench {
    maps: Maps,
    program: OwnedFd,
    reference: Reference,
}

impl Bench {
    /// Eight services of both families and protocols, one of each kind, over servers of which some are unreachable or
    /// behind another interface.
    fn new(flows: u32) -> Self {
        let maps = Maps::create(Sizes { tables: 8, flows }).unwrap();
        let mut reference = Reference {
            mac: BALANCER,
            ifindex: LOOPBACK,
            outgoing: HashSet::new(),
            services: HashMap::new(),
            tables: Vec::new(),
            servers: Vec::new(),
            flows: HashMap::new(),
            counters: [0; Counter::ALL.len()],
        };
        for number in 0..10_u8 {
            let server = ServerValue {
                mac: [2, 0, 0, 0, 1, 0x80 | number],
                reachable: number != 4,
                source: if number == 5 { [2, 0, 0, 0, 2, 5] } else { BALANCER },
                ifindex: if number == 5 { NOWHERE } else { LOOPBACK },
                ip: [10, 0, 1, number].into(),
            };
            maps.set_server(number.into(), Some(&server));
            assert_eq!(maps.server(number.into()), Some(server));
            let ServerValue { mac, reachable, source, ifindex, .. } = server;
            reference.servers.push(Server { mac, reachable, source, ifindex });
        }
        let table = |slot: fn(usize) -> usize| -> Vec<u16> {
            (0..SLOTS).map(|index| u16::try_from(slot(index)).unwrap()).collect()
        };
        reference.tables.push(table(|index| index * 7 % 4));
        reference.tables.push(table(|index| index % 10));
        reference.tables.push(vec![NO_SERVER; SLOTS]);
        reference.tables.push(table(|index| if index % 3 == 0 { usize::from(NO_SERVER) } else { index % 4 + 6 }));
        for (index, slots) in reference.tables.iter().enumerate() {
            maps.set_table(u32::try_from(index).unwrap(), slots);
            assert_eq!(maps.table(u32::try_from(index).unwrap()), *slots);
        }
        let services = [
            ("10.0.0.100:80", Transport::Tcp, 0, 0),
            ("10.0.0.100:80", Transport::Udp, 1, 0),
            ("10.0.0.100:443", Transport::Tcp, 1, SOURCE_IP),
            ("10.0.0.101:53", Transport::Udp, 3, STATELESS),
            ("[fd00::100]:80", Transport::Tcp, 1, 0),
            ("[fd00::100]:80", Transport::Udp, 0, STATELESS | SOURCE_IP),
            ("[fd00::100]:443", Transport::Tcp, 3, 0),
            ("[fd00::101]:53", Transport::Udp, 2, 0),
        ];
        for (index, (vip, transport, table, flags)) in services.into_iter().enumerate() {
            let key = VipKey::new(vip.parse().unwrap(), transport);
            let value = VipValue { table, stats: u32::try_from(index).unwrap(), flags, cap: 0 };
            maps.set_vip(key, value).unwrap();
            reference.services.insert(key, Service { table: table as usize, flags });
        }
        let code = program::emit(&maps, BALANCER);
        eprintln!("{} instructions", code.len());
        let program = bpf::load_xdp(&code, "ringway_dsr").unwrap_or_else(|error| panic!("{error}"));
        Self { maps, program, reference }
    }

    fn run(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let tested = bpf::test_run(self.program.as_fd(), frame, 1).unwrap();
        let verdict = match tested.verdict {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Transmit,
            4 => Verdict::Redirect,
            other => panic!("verdict {other} for {frame:02x?}"),
        };
        (verdict, tested.packet)
    }

    fn nanoseconds(&self, frame: &[u8]) -> u32 {
        let mut runs: Vec<u32> =
            (0..5).map(|_| bpf::test_run(self.program.as_fd(), frame, 200_000).unwrap().nanoseconds).collect();
        runs.sort_unstable();
        runs[2]
    }
}

/// `RINGWAY_DSR_FRAMES` and `RINGWAY_SIM_SEED` change how many and which.
#[test]
fn the_program_and_the_reference_agree_on_a_million_frames() {
    if !can_run("program::the_program_and_the_reference_agree_on_a_million_frames") {
        return;
    }
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => text.parse().unwrap(),
        },
        Err(_) => default,
    };
    let frames = number("RINGWAY_DSR_FRAMES", 1_000_000);
    let seed = number("RINGWAY_SIM_SEED", 0x5eed_d5a0);
    eprintln!("seed {seed:#x}");
    let mut bench = Bench::new(1 << 18);
    let clients = clients();
    let mut vips: Vec<SocketAddr> = bench.reference.services.keys().map(|key| key.parts().unwrap().0).collect();
    vips.sort_unstable();
    vips.dedup();
    vips.extend(["10.0.0.7:80".parse::<SocketAddr>().unwrap(), "[fd00::7]:80".parse().unwrap()]);
    let mut random = Random(seed);
    for number in 0..frames {
        // Servers come and go, tables change.
        if random.once_in(5_000) {
            let index = random.below(10);
            let server = &mut bench.reference.servers[index];
            server.reachable = !server.reachable;
            let index = u16::try_from(index).unwrap();
            let mut value = bench.maps.server(index).unwrap();
            value.reachable = server.reachable;
            bench.maps.set_server(index, Some(&value));
        }
        if random.once_in(20_000) {
            let table = random.below(4);
            let slots: Vec<u16> = (0..SLOTS).map(|_| u16::try_from(random.below(12)).unwrap()).collect();
            bench.maps.set_table(u32::try_from(table).unwrap(), &slots);
            bench.reference.tables[table] = slots;
        }
        let frame = frames::any(&mut random, &clients, &vips);
        let mut wanted = frame.clone();
        let verdict = bench.reference.forward(&mut wanted);
        let found = bench.run(&frame);
        assert_eq!(found, (verdict, wanted), "frame {number} of seed {seed:#x}: {frame:02x?}");
    }
    let counters = bench.maps.counters().unwrap();
    for (counter, (found, wanted)) in Counter::ALL.iter().zip(counters.iter().zip(bench.reference.counters)) {
        eprintln!("{:18} {found}", counter.as_str());
        assert_eq!(*found, wanted, "{}", counter.as_str());
        let never = [Counter::DropError, Counter::FlowFailed, Counter::FlowCapped];
        assert!(*found > 0 || never.contains(counter) || frames < 1_000_000, "{} never happened", counter.as_str());
    }
    let mut flows = HashMap::new();
    bench.maps.scan_flows(|key, value| assert!(flows.insert(key, value.server).is_none())).unwrap();
    assert_eq!(flows.len(), bench.reference.flows.len());
    assert!(bench.reference.flows.iter().all(|(key, server)| flows.get(key) == Some(&u32::from(*server))));
    eprintln!("{} flows", flows.len());
}

/// A cap on new flows bounds what is remembered; what is over it is forwarded all the same.
#[test]
fn new_flows_over_the_cap_are_forwarded_and_not_remembered() {
    if !can_run("program::new_flows_over_the_cap_are_forwarded_and_not_remembered") {
        return;
    }
    let bench = Bench::new(1 << 16);
    let vip: SocketAddr = "10.0.0.100:80".parse().unwrap();
    let value = VipValue { table: 0, stats: 0, flags: 0, cap: 50 };
    bench.maps.set_vip(VipKey::new(vip, Transport::Tcp), value).unwrap();
    for client in 0..1_000 {
        let client = SocketAddr::from(([10, 0, 0, 1], 1024 + client));
        assert_eq!(bench.run(&frames::frame(&frames::tcp(client, vip, SYN, &[]))).0, Verdict::Transmit);
    }
    let stats = bench.maps.vip_stats(0).unwrap();
    // Windows may turn and processors change on the way, but not for most of a thousand frames.
    let bound = 50 * 8 * u64::try_from(bpf::processors()).unwrap();
    assert_eq!(stats.packets, 1_000);
    assert_eq!(stats.flows + stats.capped, 1_000);
    assert!((50..bound).contains(&stats.flows), "{stats:?}");
    let mut remembered = 0;
    bench.maps.scan_flows(|_, _| remembered += 1).unwrap();
    assert_eq!(remembered, stats.flows);
}

/// The flow table is never larger than it was made, however many flows there are.
#[test]
fn a_full_flow_table_forgets_the_idle_first() {
    if !can_run("program::a_full_flow_table_forgets_the_idle_first") {
        return;
    }
    let bench = Bench::new(4096);
    let vip: SocketAddr = "10.0.0.100:80".parse().unwrap();
    let client = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 9, high, low], 2000))
    };
    let frame = |number, flags| frames::frame(&frames::tcp(client(number), vip, flags, &[]));
    // A flow that goes on while 40,000 others pass.
    bench.run(&frame(0, SYN));
    for number in 1..=40_000 {
        bench.run(&frame(number, SYN));
        if number % 50 == 0 {
            bench.run(&frame(0, ACK));
        }
    }
    let mut remembered = 0;
    bench.maps.scan_flows(|_, _| remembered += 1).unwrap();
    assert!((2_000..=4096).contains(&remembered), "{remembered}");
    let busy = bench.maps.flow(FlowKey::new(client(0), vip, Transport::Tcp)).unwrap();
    assert!(busy.is_some(), "a flow in use was forgotten before idle ones");
}

/// What a frame costs. Asserted only with `RINGWAY_DSR_COSTS` set: it is a measurement, for a quiet machine.
#[test]
fn costs_per_frame() {
    if !can_run("program::costs_per_frame") {
        return;
    }
    let bench = Bench::new(1 << 16);
    let vip: SocketAddr = "10.0.0.100:80".parse().unwrap();
    let client: SocketAddr = "10.0.0.1:2000".parse().unwrap();
    let syn = frames::frame(&frames::tcp(client, vip, SYN, &[]));
    let ack = frames::frame(&frames::tcp(client, vip, ACK, &[]));
    let elsewhere = frames::frame(&frames::tcp(client, "10.0.0.7:80".parse().unwrap(), ACK, &[]));
    // The kernel repeats with the frame that came out: every server gets the MAC address that is looked for.
    for index in 0..4 {
        let server = bench.maps.server(index).unwrap();
        bench.maps.set_server(index, Some(&ServerValue { mac: BALANCER, ..server }));
    }
    bench.run(&syn);
    let (hit, new, pass) = (bench.nanoseconds(&ack), bench.nanoseconds(&syn), bench.nanoseconds(&elsewhere));
    eprintln!("known flow {hit} ns, new flow {new} ns, not for a VIP {pass} ns");
    if std::env::var_os("RINGWAY_DSR_COSTS").is_some() {
        assert!(hit <= 150, "{hit} ns");
        assert!(new <= 400, "{new} ns");
    }
}
