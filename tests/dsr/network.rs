//! What lies around the balancer: several interfaces, servers that change, gigabytes of datagrams, the doctor.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway::xdp::Dsr;
use ringway_core::dsr::Transport;

use crate::forwarding::watch_answers;
use crate::more::service;
use crate::net::{Net, VIP4, VIP6, config, eventually, kept};
use crate::support::can_run;

const BOTH: [(&str, u32); 2] = [("s1", 1), ("s2", 1)];

fn serve_everything(net: &Net) {
    for server in ["s1", "s2"] {
        net.serve(server, &format!("{VIP4}:80"));
        net.serve(server, &format!("[{VIP6}]:80"));
    }
}

/// Every server's MAC address and state.
fn servers(ringway: &crate::net::Ringway) -> Vec<(String, String)> {
    let status = ringway.status();
    let services = status["services"].as_array().unwrap().clone();
    let servers = services.iter().flat_map(|service| service["servers"].as_array().unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    servers.map(|server| (text(&server["mac"]), text(&server["state"]))).collect()
}

fn all_up(ringway: &crate::net::Ringway) {
    eventually("all servers are up", 15, || {
        let all = servers(ringway);
        all.len() == 4 && all.iter().all(|server| server.1 == "up")
    });
}

/// Requests come in by one network and go out to servers on another; answers go through a router.
#[test]
fn servers_behind_another_interface_get_redirected_frames() {
    if !can_run("network::servers_behind_another_interface_get_redirected_frames") {
        return;
    }
    let mut net = Net::new();
    net.ip("sw", "link add br1 type bridge");
    net.ip("sw", "link set br1 up");
    for (name, last) in [("c", 10), ("lb", 2), ("r", 1)] {
        net.member(name, last);
    }
    net.address("lb", VIP4, VIP6, "eth0");
    for (name, last) in [("lb", 2), ("r", 1)] {
        net.wire(name, "eth1", "br1", 78, last);
    }
    net.exec("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0");
    net.exec("r", "sysctl -qw net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0");
    for (name, last) in [("s1", 11), ("s2", 12)] {
        net.space(name);
        net.wire(name, "eth0", "br1", 78, last);
        net.behind_vip(name);
        net.ip(name, "route add default via 10.78.0.1");
        net.ip(name, "route add default via fd78::1");
    }
    serve_everything(&net);
    let yaml = config(&BOTH, "xdp: Generic").replace("ip: 10.77.", "ip: 10.78.").replace("ip: \"fd77", "ip: \"fd78");
    let ringway = net.ringway("lb", &yaml);
    all_up(&ringway);
    for address in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        let mut connections = net.connections(&address, 30);
        let first = connections.iter().filter(|each| each.server == "s1").count();
        assert!((1..30).contains(&first), "{first} of 30 at one of two");
        connections[0].download(32 << 20);
        assert_eq!(kept(&mut connections), 30);
    }
    assert!(ringway.frames("redirected") > 100);
    assert_eq!(ringway.frames("sent"), 0);
}

#[test]
fn a_server_may_get_another_mac_address() {
    if !can_run("network::a_server_may_get_another_mac_address") {
        return;
    }
    let net = Net::usual();
    serve_everything(&net);
    let ringway = net.ringway("lb", &config(&BOTH, "xdp: Generic"));
    all_up(&ringway);
    let mut connections = net.connections(&format!("{VIP4}:80"), 40);
    connections.extend(net.connections(&format!("[{VIP6}]:80"), 40));
    // As machines do that take over an address.
    net.exec("s1", "sysctl -qw net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1");
    net.ip("s1", "link set eth0 address 02:00:00:00:00:99");
    eventually("the new address is known", 20, || {
        servers(&ringway).iter().filter(|server| server.0 == "02:00:00:00:00:99").count() == 2
    });
    assert_eq!(kept(&mut connections), 80);
}

/// A link that is down takes its routes and neighbours with it, and no service: not when the configuration is read
/// meanwhile either.
#[test]
fn an_interface_may_go_down_and_come_back() {
    if !can_run("network::an_interface_may_go_down_and_come_back") {
        return;
    }
    let net = Net::usual();
    serve_everything(&net);
    net.exec("lb", "sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1");
    let ringway = net.ringway("lb", &config(&BOTH, "xdp: Generic"));
    all_up(&ringway);
    let mut connections = net.connections(&format!("{VIP4}:80"), 40);
    connections.extend(net.connections(&format!("[{VIP6}]:80"), 40));
    net.ip("lb", "link set eth0 down");
    ringway.reload(&config(&[("s1", 1), ("s2", 2)], "xdp: Generic"));
    eventually("no server can be reached", 15, || servers(&ringway).iter().all(|server| server.1 == "unreachable"));
    net.ip("lb", "link set eth0 up");
    ringway.reload(&config(&BOTH, "xdp: Generic"));
    all_up(&ringway);
    assert_eq!(kept(&mut connections), 80);
}

/// Datagrams of a block, of which a client asks for one after the other.
const BLOCK: u16 = 64;
const DATAGRAM: usize = 1400;

fn serve_blocks(socket: &UdpSocket) {
    let mut request = [0; 8];
    let mut datagram = [b'x'; DATAGRAM];
    while let Ok((length, from)) = socket.recv_from(&mut request) {
        datagram[..8].copy_from_slice(&request);
        for index in 0..BLOCK {
            datagram[8..10].copy_from_slice(&index.to_be_bytes());
            // The client may have gone, and asks again for what was lost.
            let _sent = socket.send_to(&datagram, from);
        }
        assert_eq!(length, 8);
    }
}

fn fetch_block(socket: &UdpSocket, vip: SocketAddr, number: u64) {
    let mut seen = vec![false; usize::from(BLOCK)];
    let mut datagram = [0; 2048];
    let mut missing = seen.len();
    for _ in 0..100 {
        socket.send_to(&number.to_be_bytes(), vip).unwrap();
        while missing > 0 {
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { break };
            assert_eq!((length, from), (DATAGRAM, vip));
            let place = &mut seen[usize::from(u16::from_be_bytes([datagram[8], datagram[9]]))];
            if datagram[..8] == number.to_be_bytes() && !*place {
                *place = true;
                missing -= 1;
            }
        }
        if missing == 0 {
            return;
        }
    }
    panic!("block {number} does not come");
}

#[test]
fn a_gigabyte_of_datagrams_passes_the_balancer_by() {
    if !can_run("network::a_gigabyte_of_datagrams_passes_the_balancer_by") {
        return;
    }
    let net = Net::usual();
    let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = watch_answers(&net, Arc::clone(&done), Arc::clone(&seen));
    for (vip, servers, any) in [
        (format!("{VIP4}:53"), ["10.77.0.11", "10.77.0.12"], "0.0.0.0:0"),
        (format!("[{VIP6}]:53"), ["fd77::11", "fd77::12"], "[::]:0"),
    ] {
        let vip: SocketAddr = vip.parse().unwrap();
        for name in ["s1", "s2"] {
            let socket = net.within(name, move || UdpSocket::bind(vip).unwrap());
            std::thread::spawn(move || serve_blocks(&socket));
        }
        let directory = net.directory.join("bpf").join("blocks");
        let dsr = net.within("lb", move || Dsr::start(&directory).unwrap());
        let servers = servers.map(|server| (server.parse::<IpAddr>().unwrap(), 1));
        dsr.apply(&[service(vip, Transport::Udp, &servers)]).unwrap();
        eventually("both servers are reachable", 10, || {
            dsr.status().unwrap().services[0].servers.iter().all(|server| server.mac.is_some())
        });
        let socket = net.within("c", move || UdpSocket::bind(any).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let bytes_of_block = u64::from(BLOCK) * DATAGRAM as u64;
        for number in 0..(1_u64 << 30).div_ceil(bytes_of_block) {
            fetch_block(&socket, vip, number);
        }
        let through = dsr.status().unwrap().services[0].stats.bytes;
        eprintln!("{vip}: 1 GiB of datagrams, {through} bytes through the balancer");
        assert!(through > 0 && through < (1 << 30) / 100, "{through} bytes went through the balancer");
        dsr.detach().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 0, "answers came by the balancer");
}

#[test]
fn the_doctor_names_what_is_missing_and_the_setup_mends_it() {
    if !can_run("network::the_doctor_names_what_is_missing_and_the_setup_mends_it") {
        return;
    }
    let mut net = Net::usual();
    serve_everything(&net);
    let binary = env!("CARGO_BIN_EXE_ringway");
    for vip in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        let (good, text) = net.run("s1", binary, &["doctor", "dsr", "--server", &vip]);
        assert!(good && text.contains("is at lo") && text.contains("something listens on port 80"), "{text}");
    }
    // A server that has been given the address where everybody sees it, and one that has nothing.
    net.member("s3", 13);
    net.exec("s3", "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0");
    let vip = format!("{VIP4}:80");
    let (good, text) = net.run("s3", binary, &["doctor", "dsr", "--server", &vip]);
    let fixes =
        ["`ip address add 10.77.0.100/32 dev lo`", "`sysctl -w net.ipv4.conf.all.arp_ignore=1`", "nothing listens"];
    assert!(!good && fixes.iter().all(|fix| text.contains(fix)), "{text}");
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/dsr-server-setup");
    let (good, text) = net.run("s3", setup, &[VIP4, VIP6]);
    assert!(good, "{text}");
    net.serve("s3", "0.0.0.0:80");
    let (good, text) = net.run("s3", binary, &["doctor", "dsr", "--server", &vip]);
    assert!(good, "{text}");
    let (good, text) = net.run("s3", setup, &["--undo", VIP4, VIP6]);
    assert!(good, "{text}");
    assert!(!net.run("s3", binary, &["doctor", "dsr", "--server", &vip]).0);

    let ringway = net.ringway("lb", &config(&BOTH, "xdp: Generic"));
    all_up(&ringway);
    let (yaml, pins) = (ringway.config(), ringway.bpf.display().to_string());
    let examine = || net.run("lb", binary, &["doctor", "dsr", "--config", &yaml, "--bpf-dir", &pins]);
    let (good, text) = examine();
    let parts = [
        "a program runs in the stack at eth0",
        "LRO is off at eth0",
        "link-eth0",
        "10.77.0.11 is a neighbour",
        "fd77::12",
    ];
    assert!(good && parts.iter().all(|part| text.contains(part)), "{text}");
    net.ip("lb", &format!("addr del {VIP4}/32 dev eth0"));
    net.ip("lb", "link set eth0 down");
    let (good, text) = examine();
    let fixes = ["`ip address add 10.77.0.100/32 dev eth0`", "`ip link set eth0 up`"];
    assert!(!good && fixes.iter().all(|fix| text.contains(fix)), "{text}");
}
