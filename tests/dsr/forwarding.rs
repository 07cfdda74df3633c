//! Whole networks: requests through the balancer, answers past it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringway::sys::netlink::Netlink;
use ringway::sys::packet::PacketSocket;

use crate::frames;
use crate::net::{Net, Ringway, VIP4, VIP6, config, eventually, kept};
use crate::support::{Random, can_run};

const BOTH: [(&str, u32); 2] = [("s1", 1), ("s2", 1)];

fn started() -> (Net, Ringway) {
    let net = Net::usual();
    for server in ["s1", "s2"] {
        net.serve(server, &format!("{VIP4}:80"));
        net.serve(server, &format!("[{VIP6}]:80"));
    }
    let ringway = net.ringway("lb", &config(&BOTH, "xdp: Generic"));
    all_up(&ringway);
    (net, ringway)
}

fn all_up(ringway: &Ringway) {
    eventually("all servers are up", 15, || states(ringway).iter().all(|(_, state)| state == "up"));
}

/// Every server's state, by VIP and address.
fn states(ringway: &Ringway) -> Vec<(String, String)> {
    let status = ringway.status();
    let services = status["services"].as_array().unwrap();
    let of = |service: &serde_json::Value| -> Vec<(String, String)> {
        let servers = service["servers"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        servers.iter().map(|server| (text(&server["address"]), text(&server["state"]))).collect()
    };
    services.iter().flat_map(of).collect()
}

/// Counts frames at the balancer's interface that come from a VIP and go to the client.
pub fn watch_answers(net: &Net, done: Arc<AtomicBool>, seen: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    net.spawn("lb", move || {
        let interfaces = Netlink::open().unwrap().interfaces().unwrap();
        let eth0 = interfaces.iter().find(|each| each.name == "eth0").unwrap().index;
        // Everything.
        let socket = PacketSocket::open(eth0, &[(0x06, 0, 0, 0xffff)]).unwrap();
        let mut buffer = vec![0; 1 << 17];
        while !done.load(Ordering::Relaxed) {
            match socket.receive(&mut buffer).unwrap() {
                Some(frame) => {
                    // TCP and UDP only: the balancer's kernel rightly answers neighbour solicitations for the VIP.
                    let served = |protocol: Option<&u8>| matches!(protocol, Some(6 | 17));
                    let v4 = served(frame.get(23)) && frame.get(26..34) == Some(&[10, 77, 0, 100, 10, 77, 0, 10]);
                    let v6 = frame.get(12..14) == Some(&[0x86, 0xdd])
                        && served(frame.get(20))
                        && frame.get(36..38) == Some(&[0x01, 0x00])
                        && frame.get(52..54) == Some(&[0x00, 0x10]);
                    if v4 || v6 {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    })
}

#[test]
fn a_gigabyte_passes_the_balancer_by() {
    if !can_run("forwarding::a_gigabyte_passes_the_balancer_by") {
        return;
    }
    let (net, ringway) = started();
    let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = watch_answers(&net, Arc::clone(&done), Arc::clone(&seen));
    for address in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        let before = ringway.status();
        net.connect(&address).download(1 << 30);
        let after = ringway.status();
        let bytes = |status: &serde_json::Value| -> u64 {
            status["services"].as_array().unwrap().iter().map(|each| each["bytes"].as_u64().unwrap()).sum()
        };
        let through = bytes(&after) - bytes(&before);
        eprintln!("{address}: 1 GiB downloaded, {through} bytes through the balancer");
        assert!(through > 0 && through < (1 << 30) / 20, "{through} bytes went through the balancer");
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 0, "answers came by the balancer");
    assert_eq!(ringway.frames("drop_no_server"), 0);
}

#[test]
fn two_hundred_connections_outlive_drain_undrain_reload_crash_and_restart() {
    if !can_run("forwarding::two_hundred_connections_outlive_drain_undrain_reload_crash_and_restart") {
        return;
    }
    let (net, mut ringway) = started();
    let address = format!("{VIP4}:80");
    let mut connections = net.connections(&address, 160);
    connections.extend(net.connections(&format!("[{VIP6}]:80"), 40));
    let mut per_server: HashMap<String, usize> = HashMap::new();
    for each in &connections {
        *per_server.entry(each.server.clone()).or_default() += 1;
    }
    assert!(per_server.len() == 2 && per_server.values().all(|count| *count > 50), "{per_server:?}");

    ringway.reload(&config(&[("s1", 0), ("s2", 1)], "xdp: Generic"));
    assert_eq!(kept(&mut connections), 200, "after a drain");
    let fresh = net.connections(&address, 60);
    assert!(fresh.iter().all(|each| each.server == "s2"), "a drained server got a new connection");
    assert!(states(&ringway).iter().any(|(ip, state)| ip == "10.77.0.11" && state == "draining"));

    ringway.reload(&config(&BOTH, "xdp: Generic"));
    assert_eq!(kept(&mut connections), 200, "after an undrain");
    ringway.reload(&config(&BOTH, "xdp: Generic, hash: SourceIP"));
    assert_eq!(kept(&mut connections), 200, "after a reload with another hash");
    ringway.reload(&config(&BOTH, "xdp: Generic"));
    ringway.kill();
    assert_eq!(kept(&mut connections), 200, "without a process");
    let fresh = net.connections(&address, 20);
    assert_eq!(fresh.len(), 20, "new connections without a process");
    ringway.start_again();
    assert!(ringway.log().contains("taking over what is pinned"), "{}", ringway.log());
    assert_eq!(kept(&mut connections), 200, "after a crash and a start");
    // A drain that a restart falls into.
    ringway.reload(&config(&[("s1", 1), ("s2", 0)], "xdp: Generic"));
    ringway.crash_and_start();
    assert_eq!(kept(&mut connections), 200, "restarted while draining");
    ringway.reload(&config(&BOTH, "xdp: Generic, flowTable: {maxEntries: 4096}"));
    assert_eq!(kept(&mut connections), 200, "after the flow table got another size");

    let flows = ringway.command(&["dsr", "flows"]);
    let first = &connections[0];
    let line = flows.lines().find(|line| line.contains(&format!("{} -> ", first.local()))).unwrap();
    let last = if first.server == "s1" { "10.77.0.11" } else { "10.77.0.12" };
    assert!(line.contains(&format!("server {last}")), "{line}");
    let from = first.local().to_string();
    let explained =
        ringway.command(&["explain", "tcp://10.77.0.100:80", "--from", &from, "--config", &ringway.config()]);
    assert!(explained.contains(&format!("goes to {last}")), "{explained}");
    let sixth = connections.iter().find(|each| each.local().is_ipv6()).unwrap();
    let (from, last) = (sixth.local().to_string(), if sixth.server == "s1" { "fd77::11" } else { "fd77::12" });
    let explained =
        ringway.command(&["explain", "tcp://[fd77::100]:80", "--from", &from, "--config", &ringway.config()]);
    assert!(explained.contains(&format!("goes to {last}")), "{explained}");
    for text in [ringway.command(&["status"]), ringway.command(&["dsr", "status"])] {
        for part in ["10.77.0.100:80", "[fd77::100]:80", "10.77.0.11", "fd77::12", "flows", "pass_no_vip"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
    let table = ringway.command(&["dsr", "status"]);
    assert!(table.contains("eth0 (generic)") && table.contains("up"), "{table}");
    assert!(ringway.admin("GET", "/metrics").contains("ringway_dsr_frames_total{result=\"sent\"}"));

    ringway.stop();
    assert_eq!(kept(&mut connections), 200, "after an orderly stop");
    // A newer binary whose maps are laid out differently: it finds the link, but none of its maps.
    let own = format!("v{}", ringway_core::dsr::abi::VERSION);
    std::fs::rename(ringway.bpf.join(&own), ringway.bpf.join("v0")).unwrap();
    let adopted = ringway.log().matches("taking over what is pinned").count();
    ringway.start_again();
    assert_eq!(ringway.log().matches("taking over what is pinned").count(), adopted);
    assert!(ringway.log().contains("program taken over and replaced"), "{}", ringway.log());
    assert_eq!(kept(&mut connections), 200, "after the maps were made anew");
    assert!(ringway.bpf.join(&own).exists() && !ringway.bpf.join("v0").exists());

    // The guard rule: without the program the kernel stays silent, and what was sent meanwhile is sent again.
    ringway.kill();
    let link = ringway.bpf.join("link-eth0");
    std::fs::remove_file(&link).unwrap();
    let detached = "ip -d link show eth0 | grep -q xdp && exit 1 || true";
    // The kernel lets go of it a little later.
    eventually("the program is gone", 5, || net.run("lb", "sh", &["-c", detached]).0);
    connections.iter_mut().for_each(|each| each.send().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(300));
    ringway.start_again();
    assert!(connections.iter_mut().all(|each| each.answered().unwrap() == each.server), "while nothing forwarded");
    assert!(link.exists());
    ringway.command(&["dsr", "detach"]);
    assert!(net.try_connect(&address, 2).is_err(), "forwarded after a detach");
}

/// Explained from the files alone, a new flow goes where it then goes.
#[test]
fn what_is_explained_is_what_happens() {
    if !can_run("forwarding::what_is_explained_is_what_happens") {
        return;
    }
    let (net, mut ringway) = started();
    let connections = net.connections(&format!("{VIP4}:80"), 20);
    ringway.kill();
    for each in &connections {
        let from = each.local().to_string();
        let text =
            ringway.command(&["explain", "tcp://10.77.0.100:80", "--from", &from, "--config", &ringway.config()]);
        let last = if each.server == "s1" { "10.77.0.11" } else { "10.77.0.12" };
        assert!(text.contains("not asked") && text.contains(&format!("goes to {last}")), "{text}");
    }
}

#[test]
fn weights_share_new_flows_and_a_detach_on_stop_ends_them() {
    if !can_run("forwarding::weights_share_new_flows_and_a_detach_on_stop_ends_them") {
        return;
    }
    let net = Net::usual();
    for server in ["s1", "s2"] {
        net.serve(server, &format!("{VIP4}:80"));
        net.serve(server, &format!("[{VIP6}]:80"));
    }
    let weights = config(&[("s1", 1), ("s2", 3)], "xdp: Generic, hash: FiveTuple, flowTable: {stateless: true}");
    let mut ringway = net.ringway_with("lb", &weights, &["--dsr-detach-on-stop"]);
    all_up(&ringway);
    for address in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        let mut connections = net.connections(&address, 100);
        let heavy = connections.iter().filter(|each| each.server == "s2").count();
        assert!((60..=90).contains(&heavy), "{heavy} of 100 at three quarters of the weight");
        assert_eq!(kept(&mut connections), 100);
    }
    assert_eq!(ringway.status()["flows"], 0, "nothing is remembered");
    assert!(ringway.bpf.join("link-eth0").exists());
    ringway.stop();
    assert!(!ringway.bpf.exists(), "everything was taken away");
    net.exec("lb", "! ip -d link show eth0 | grep -q xdp; ! nft list tables | grep -q ringway_dsr");
}

#[test]
fn a_dead_server_takes_only_its_own_flows() {
    if !can_run("forwarding::a_dead_server_takes_only_its_own_flows") {
        return;
    }
    let (net, ringway) = started();
    let address = format!("{VIP4}:80");
    let mut connections = net.connections(&address, 100);
    net.ip("sw", "link set p-s2 down");
    eventually("its death is noticed", 15, || {
        states(&ringway).iter().any(|(ip, state)| ip == "10.77.0.12" && state != "up")
    });
    let mut living: Vec<_> = connections.extract_if(.., |each| each.server == "s1").collect();
    let count = living.len();
    assert!(count > 20);
    assert_eq!(kept(&mut living), count);
    let fresh = net.connections(&address, 30);
    assert!(fresh.iter().all(|each| each.server == "s1"));
    net.ip("sw", "link set p-s2 up");
    all_up(&ringway);
    assert_eq!(kept(&mut living), count, "after it came back");
}

#[test]
fn a_service_that_ends_leaves_the_table_and_comes_back() {
    if !can_run("forwarding::a_service_that_ends_leaves_the_table_and_comes_back") {
        return;
    }
    let net = Net::usual();
    // Only one of them listens.
    net.serve("s1", &format!("{VIP4}:80"));
    net.serve("s1", &format!("[{VIP6}]:80"));
    let ringway = net.ringway("lb", &config(&BOTH, "xdp: Generic"));
    eventually("the other is unhealthy", 15, || {
        states(&ringway).iter().filter(|(_, state)| state == "unhealthy").count() == 2
    });
    let fresh = net.connections(&format!("{VIP4}:80"), 30);
    assert!(fresh.iter().all(|each| each.server == "s1"));
    let status = ringway.command(&["dsr", "status"]);
    assert!(status.contains("connection refused"), "{status}");
    net.serve("s2", &format!("{VIP4}:80"));
    net.serve("s2", &format!("[{VIP6}]:80"));
    all_up(&ringway);
    let fresh = net.connections(&format!("{VIP4}:80"), 40);
    assert!(fresh.iter().any(|each| each.server == "s2"));
}

/// Whether a packet comes to a member within two seconds.
fn watch_for(net: &Net, member: &str, packet: Vec<u8>) -> std::thread::JoinHandle<bool> {
    net.spawn(member, move || {
        let interfaces = Netlink::open().unwrap().interfaces().unwrap();
        let eth0 = interfaces.iter().find(|each| each.name == "eth0").unwrap();
        let socket = PacketSocket::open(eth0.index, &[(0x06, 0, 0, 0xffff)]).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut buffer = vec![0; 1 << 16];
        while std::time::Instant::now() < end {
            match socket.receive(&mut buffer).unwrap() {
                Some(frame) if frame.get(14..) == Some(&packet) && frame[..6] == eth0.mac.unwrap() => return true,
                Some(_) => {}
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        false
    })
}

/// Frames of the client's, made by hand and sent at the balancer.
fn inject(net: &Net, frames: Vec<Vec<u8>>) {
    net.within("c", move || {
        let interfaces = Netlink::open().unwrap().interfaces().unwrap();
        let eth0 = interfaces.iter().find(|each| each.name == "eth0").unwrap().index;
        let socket = PacketSocket::open(eth0, &[(0x06, 0, 0, 0)]).unwrap();
        for mut frame in frames {
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
            while socket.send(&frame).is_err() {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn errors_about_a_flow_reach_its_server_and_fragments_are_counted() {
    if !can_run("forwarding::errors_about_a_flow_reach_its_server_and_fragments_are_counted") {
        return;
    }
    let (net, ringway) = started();
    for address in [format!("{VIP4}:80"), format!("[{VIP6}]:80")] {
        let connection = net.connect(&address);
        let vip: SocketAddr = address.parse().unwrap();
        let (kind, code) = if vip.is_ipv4() { (3, 4) } else { (2, 0) };
        let about = frames::tcp(vip, connection.local(), frames::ACK, &[0; 64]);
        let error = frames::frame(&frames::icmp_error(connection.local().ip(), kind, code, &about));
        let before = ringway.frames("icmp");
        let watchers = ["s1", "s2"].map(|server| (server, watch_for(&net, server, error[14..].to_vec())));
        std::thread::sleep(std::time::Duration::from_millis(300));
        inject(&net, vec![error]);
        for (server, watcher) in watchers {
            assert_eq!(watcher.join().unwrap(), server == connection.server, "{address}, {server}");
        }
        assert_eq!(ringway.frames("icmp"), before + 1);
    }
    let client: SocketAddr = "10.77.0.10:5000".parse().unwrap();
    let mut fragment = frames::tcp(client, format!("{VIP4}:80").parse().unwrap(), frames::ACK, &[0; 64]);
    fragment[6] = 0x20;
    let before = ringway.frames("pass_fragment");
    inject(&net, vec![frames::frame(&fragment); 7]);
    eventually("fragments are counted", 5, || ringway.frames("pass_fragment") >= before + 7);
    let (client, vip) = ("fd77::10".parse().unwrap(), VIP6.parse().unwrap());
    inject(&net, vec![frames::frame(&frames::packet(client, vip, 44, &[6; 64])); 5]);
    eventually("fragments are counted", 5, || ringway.frames("pass_fragment") >= before + 12);
}

#[test]
fn a_syn_flood_harms_no_flow_and_fills_no_more_than_the_table() {
    if !can_run("forwarding::a_syn_flood_harms_no_flow_and_fills_no_more_than_the_table") {
        return;
    }
    let net = Net::usual();
    for server in ["s1", "s2"] {
        net.serve(server, &format!("{VIP4}:80"));
        net.serve(server, &format!("[{VIP6}]:80"));
    }
    let more = "xdp: Generic, flowTable: {maxEntries: 8192, newFlowsPerSecond: 1000}";
    let ringway = net.ringway("lb", &config(&BOTH, more));
    all_up(&ringway);
    let address = format!("{VIP4}:80");
    let mut connections = net.connections(&address, 100);
    let vip: SocketAddr = address.parse().unwrap();
    let mut random = Random(0xf100d);
    let frames: Vec<Vec<u8>> = (0..300_000)
        .map(|_| {
            let [a, b, c, d, ..] = random.next().to_le_bytes();
            let client = SocketAddr::from(([198, 18, a, b], 1024 + u16::from_le_bytes([c, d]) % 60_000));
            frames::frame(&frames::tcp(client, vip, frames::SYN, &[]))
        })
        .collect();
    // Tables change under it.
    let started = std::time::Instant::now();
    inject(&net, frames);
    let seconds = started.elapsed().as_secs_f64();
    ringway.reload(&config(&[("s1", 1), ("s2", 3)], more));
    assert_eq!(kept(&mut connections), 100);
    let status = ringway.status();
    let flows = status["flows"].as_u64().unwrap();
    eprintln!("300,000 SYNs in {seconds:.1} s, {} capped, {flows} flows remembered", status["frames"]["flow_capped"]);
    assert!(flows <= 8192, "{flows}");
    assert!(status["frames"]["flow_capped"].as_u64().unwrap() > 100_000);
}
