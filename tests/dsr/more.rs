//! Native mode, UDP, several balancers, many services.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ringway::sys::bpf::{self, Insn, Link, XdpMode};
use ringway::sys::netlink::Netlink;
use ringway::xdp::Dsr;
use ringway_core::dsr::{Hashing, Transport};
use ringway_core::model::{DsrMode, DsrServer, DsrService};

use crate::net::{Net, VIP4, VIP6, config, eventually, kept, sh};
use crate::support::can_run;

pub fn service(vip: SocketAddr, transport: Transport, servers: &[(IpAddr, u32)]) -> DsrService {
    DsrService {
        name: "default/edge/test".to_owned(),
        vip,
        transport,
        interface: "eth0".to_owned(),
        mode: DsrMode::Generic,
        hashing: Hashing::FiveTuple,
        stateless: false,
        max_flows: 65_536,
        new_flows_per_second: 0,
        drain: Duration::from_secs(300),
        health: None,
        servers: servers.iter().map(|(ip, weight)| DsrServer { ip: *ip, weight: *weight }).collect(),
    }
}

/// Which server answers a datagram.
fn ask(socket: &UdpSocket, vip: SocketAddr) -> String {
    let mut buffer = [0; 64];
    for _ in 0..5 {
        socket.send_to(b"who", vip).unwrap();
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            assert_eq!(from, vip);
            return String::from_utf8(buffer[..length].to_vec()).unwrap();
        }
    }
    panic!("no answer from {vip}");
}

#[test]
fn datagrams_of_a_flow_keep_their_server() {
    if !can_run("more::datagrams_of_a_flow_keep_their_server") {
        return;
    }
    let net = Net::usual();
    for (vip, servers, any) in [
        (format!("{VIP4}:53"), ["10.77.0.11", "10.77.0.12"], "0.0.0.0:0"),
        (format!("[{VIP6}]:53"), ["fd77::11", "fd77::12"], "[::]:0"),
    ] {
        let vip: SocketAddr = vip.parse().unwrap();
        for name in ["s1", "s2"] {
            let socket = net.within(name, move || UdpSocket::bind(vip).unwrap());
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    // The client may have gone.
                    let _sent = socket.send_to(name.as_bytes(), from);
                }
            });
        }
        let directory = net.directory.join("bpf").join("udp");
        let dsr = net.within("lb", move || Dsr::start(&directory).unwrap());
        let [one, two] = servers.map(|server| server.parse::<IpAddr>().unwrap());
        dsr.apply(&[service(vip, Transport::Udp, &[(one, 1), (two, 1)])]).unwrap();
        eventually("both servers are reachable", 10, || {
            let status = dsr.status().unwrap();
            status.services[0].servers.iter().all(|server| server.mac.is_some())
        });
        let sockets: Vec<UdpSocket> = net.within("c", move || {
            let open = |_| {
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                socket
            };
            (0..60).map(open).collect()
        });
        let chosen: Vec<String> = sockets.iter().map(|socket| ask(socket, vip)).collect();
        let of_first = chosen.iter().filter(|name| *name == "s1").count();
        assert!((10..=50).contains(&of_first), "{of_first} of 60");
        dsr.apply(&[service(vip, Transport::Udp, &[(one, 0), (two, 1)])]).unwrap();
        let still: Vec<String> = sockets.iter().map(|socket| ask(socket, vip)).collect();
        assert_eq!(still, chosen, "after a drain");
        // A drain that ends cuts what is left of it.
        let mut short = service(vip, Transport::Udp, &[(two, 1)]);
        short.drain = Duration::from_millis(1);
        dsr.apply(&[service(vip, Transport::Udp, &[(one, 1), (two, 1)])]).unwrap();
        dsr.apply(&[short]).unwrap();
        eventually("flows of the drained server go elsewhere", 10, || {
            sockets.iter().all(|socket| ask(socket, vip) == "s2")
        });
        dsr.detach().unwrap();
    }
}

/// A veth transmits natively to a peer that has a program: every port of the switch gets one that passes everything.
#[test]
fn native_mode_forwards() {
    if !can_run("more::native_mode_forwards") {
        return;
    }
    let net = Net::usual();
    net.exec("sw", "for port in p-c p-lb p-s1 p-s2; do ethtool -K $port tx off >/dev/null; done");
    let links = net.within("sw", || {
        const PASS: [Insn; 2] =
            [Insn { code: 0xb7, regs: 0, off: 0, imm: 2 }, Insn { code: 0x95, regs: 0, off: 0, imm: 0 }];
        let program = bpf::load_xdp(&PASS, "pass").unwrap();
        let interfaces = Netlink::open().unwrap().interfaces().unwrap();
        let ports = interfaces.iter().filter(|each| each.name.starts_with("p-"));
        ports.map(|each| Link::attach(program.as_fd(), each.index, XdpMode::Native).unwrap()).collect::<Vec<_>>()
    });
    for server in ["s1", "s2"] {
        net.serve(server, &format!("{VIP4}:80"));
        net.serve(server, &format!("[{VIP6}]:80"));
    }
    let ringway = net.ringway("lb", &config(&[("s1", 1), ("s2", 1)], "xdp: Native"));
    eventually("attached natively", 10, || ringway.status()["interfaces"][0]["mode"] == "native");
    let mut connections = Vec::new();
    for address in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        eventually("a connection comes through", 20, || net.try_connect(&address, 2).is_ok());
        connections.extend(net.connections(&address, 20));
        net.connect(&address).download(64 << 20);
    }
    assert_eq!(kept(&mut connections), 40);
    let before = ringway.frames("sent");
    assert_eq!(kept(&mut connections), 40);
    assert!(ringway.frames("sent") >= before + 40);
    drop(links);
}

/// Two balancers behind a router that spreads flows over them; the client's network has a smaller MTU than the servers
/// know of.
#[test]
fn flows_outlive_one_of_two_balancers() {
    if !can_run("more::flows_outlive_one_of_two_balancers") {
        return;
    }
    let mut net = Net::new();
    for (name, last) in [("r", 1), ("lb", 2), ("lb2", 3)] {
        net.member(name, last);
    }
    for (name, last) in [("s1", 11), ("s2", 12)] {
        net.server(name, last);
        net.ip(name, "route add default via 10.77.0.1");
        net.ip(name, "route add default via fd77::1");
        net.serve(name, &format!("{VIP4}:80"));
        net.serve(name, &format!("[{VIP6}]:80"));
    }
    for name in ["lb", "lb2"] {
        net.address(name, VIP4, VIP6, "eth0");
        net.exec(name, "sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        net.ip(name, "route add default via 10.77.0.1");
        net.ip(name, "route add default via fd77::1");
    }
    net.space("c");
    sh(&format!("ip -n {} link add far type veth peer name eth0 netns {}", net.name("r"), net.name("c")));
    for (name, device, last) in [("r", "far", 1), ("c", "eth0", 2)] {
        net.ip(name, &format!("link set {device} up"));
        net.ip(name, &format!("addr add 10.88.0.{last}/24 dev {device}"));
        net.ip(name, &format!("addr add fd88::{last}/64 dev {device} nodad"));
    }
    net.ip("c", "route add default via 10.88.0.1");
    net.ip("c", "route add default via fd88::1");
    net.ip("r", "link set far mtu 1400");
    net.exec("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1");
    net.exec("r", "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.fib_multipath_hash_policy=1");
    net.ip("r", "route add 10.77.0.100/32 nexthop via 10.77.0.2 nexthop via 10.77.0.3");
    net.ip("r", "-6 route add fd77::100/128 nexthop via fd77::2 nexthop via fd77::3");
    let balancers = ["lb", "lb2"].map(|name| net.ringway(name, &config(&[("s1", 1), ("s2", 1)], "xdp: Generic")));
    for each in &balancers {
        eventually("all servers are up", 15, || {
            let status = each.status();
            let services = status["services"].as_array().unwrap();
            let servers = services.iter().flat_map(|service| service["servers"].as_array().unwrap());
            servers.map(|server| server["state"] == "up").collect::<Vec<_>>() == [true; 4]
        });
    }
    let addresses = [format!("{VIP4}:80"), format!("[{VIP6}]:80")];
    let connect = |number: usize| {
        let address = &addresses[number % 2];
        net.connect_from("c", address, 5).unwrap_or_else(|error| panic!("{address}: {error}"))
    };
    let mut connections: Vec<_> = (0..200).map(connect).collect();
    let mut shares: HashMap<&str, u64> = HashMap::new();
    for (name, balancer) in ["lb", "lb2"].iter().zip(&balancers) {
        shares.insert(name, balancer.status()["flows"].as_u64().unwrap());
    }
    assert!(shares.values().all(|flows| *flows > 40), "{shares:?}");
    // A packet too large for the client's network: the error comes to the VIP, by way of either balancer.
    let icmp = |balancers: &[crate::net::Ringway; 2]| -> u64 { balancers.iter().map(|each| each.frames("icmp")).sum() };
    for connection in &mut connections[..2] {
        let before = icmp(&balancers);
        connection.download(8 << 20);
        assert!(icmp(&balancers) > before, "nothing was too large");
    }
    // The first one goes, and the router notices.
    net.ip("sw", "link set p-lb down");
    net.ip("r", "route replace 10.77.0.100/32 via 10.77.0.3");
    net.ip("r", "-6 route del fd77::100/128");
    net.ip("r", "-6 route add fd77::100/128 via fd77::3");
    assert_eq!(kept(&mut connections), 200);
}

#[test]
fn a_thousand_services_over_a_hundred_servers() {
    if !can_run("more::a_thousand_services_over_a_hundred_servers") {
        return;
    }
    let mut net = Net::new();
    net.member("lb", 2);
    let add: String = (0..100)
        .map(|n| format!("ip neigh add 10.77.0.{} lladdr 02:00:00:01:00:{n:02x} nud permanent dev eth0; ", 100 + n))
        .collect();
    net.exec("lb", &add);
    let servers = |heavy: usize, weight: u32| -> Vec<(IpAddr, u32)> {
        let of = |n: usize| if n == heavy { weight } else { 1 };
        (0..100).map(|n| (IpAddr::from([10, 77, 0, 100 + u8::try_from(n).unwrap()]), of(n))).collect()
    };
    // Every table is a different one: the worst case.
    let mut services: Vec<DsrService> = (0..1000_usize)
        .map(|n| {
            let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
            let vip = SocketAddr::from(([10, 200, high, low], 80));
            service(vip, Transport::Tcp, &servers(n % 100, 2 + u32::try_from(n / 100).unwrap()))
        })
        .collect();
    let directory = net.directory.join("bpf").join("many");
    let dsr = net.within("lb", move || Dsr::start(&directory).unwrap());
    let start = Instant::now();
    dsr.apply(&services).unwrap();
    eprintln!("1,000 services over 100 servers, 1,000 tables: {:?}", start.elapsed());
    let status = dsr.status().unwrap();
    assert_eq!((status.tables_built, status.tables, status.services.len()), (1000, 1000, 1000));
    assert!(status.services.iter().all(|each| each.servers.iter().all(|server| server.mac.is_some())));
    services[500].servers[0].weight = 77;
    let start = Instant::now();
    dsr.apply(&services).unwrap();
    eprintln!("one of them changed: {:?}", start.elapsed());
    assert_eq!(dsr.status().unwrap().tables_built, 1001, "only the table of the one that changed");
    dsr.apply(&services).unwrap();
    assert_eq!(dsr.status().unwrap().tables_built, 1001, "the same again changes nothing");
    dsr.detach().unwrap();
}
