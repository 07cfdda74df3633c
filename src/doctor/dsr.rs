//! What direct server return needs: on the balancer, and on a server behind it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ringway_core::model::Model;

use crate::sys::bpf::XdpMode;
use crate::sys::ethtool;
use crate::sys::netlink::{Interface, Netlink};
use crate::xdp::engine::link_path;

use super::{Finding, Level, finding, number, read};

/// Looks at this machine as a balancer that pins in this directory.
pub fn balancer(model: Option<&Model>, pins: &Path) -> Vec<Finding> {
    let mut all = vec![kernel(), capabilities(), bpffs(), nft()];
    let Some(model) = model.filter(|model| !model.dsr.is_empty()) else {
        all.push(finding(Level::Note, "services", "the configuration has none with direct server return"));
        return all;
    };
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => {
            all.push(finding(Level::Bad, "netlink", format!("cannot be had: {error}")));
            return all;
        }
    };
    let interfaces = netlink.interfaces().unwrap_or_default();
    let addresses = netlink.addresses().unwrap_or_default();
    let mut names: Vec<&str> = model.dsr.iter().map(|each| each.interface.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        match interfaces.iter().find(|each| each.name == name) {
            Some(found) => {
                all.extend(interface(found));
                all.push(pinned(name, pins));
            }
            None => all.push(finding(Level::Bad, "interface", format!("there is no {name}"))),
        }
    }
    all.extend(arp_ignore(&interfaces));
    for service in &model.dsr {
        let entrance = interfaces.iter().find(|each| each.name == service.interface);
        let vip = service.vip.ip();
        all.push(if addresses.iter().any(|address| address.1 == vip) {
            finding(Level::Good, "address", format!("{vip} is here: the kernel answers ARP and ND for it"))
        } else {
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            let fix = format!("ip address add {vip}/{prefix} dev {}", service.interface);
            finding(Level::Bad, "address", format!("{vip} is not here, so nobody sends to it: `{fix}`"))
        });
        for server in &service.servers {
            all.push(match netlink.route(server.ip) {
                Ok(route) if route.local => finding(Level::Bad, "server", format!("{} is this machine", server.ip)),
                Ok(route) if route.gateway => {
                    finding(Level::Bad, "server", format!("{} is behind a router: it must be a neighbour", server.ip))
                }
                Ok(route) => neighbour(server.ip, entrance, interfaces.iter().find(|each| each.index == route.ifindex)),
                Err(error) => finding(Level::Bad, "server", format!("{} cannot be reached: {error}", server.ip)),
            });
        }
    }
    all
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (5, 18) {
        finding(Level::Good, "kernel", release)
    } else {
        finding(Level::Bad, "kernel", format!("{release}: direct server return needs Linux 5.18"))
    }
}

fn capabilities() -> Finding {
    let status = read("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    let needed = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_BPF", 39)];
    let missing: Vec<&str> = needed.iter().filter(|each| effective >> each.1 & 1 == 0).map(|each| each.0).collect();
    if missing.is_empty() {
        finding(Level::Good, "capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW")
    } else {
        let fix = format!("systemd: AmbientCapabilities={}", missing.join(" "));
        finding(Level::Bad, "capabilities", format!("missing: {}; {fix}", missing.join(", ")))
    }
}

fn bpffs() -> Finding {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        finding(Level::Good, "bpffs", "mounted at /sys/fs/bpf")
    } else {
        let text = "not mounted: forwarding ends with the process; `mount -t bpf bpf /sys/fs/bpf`, which needs \
                    CAP_SYS_ADMIN; systemd does it at boot";
        finding(Level::Note, "bpffs", text)
    }
}

fn nft() -> Finding {
    let found = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].into_iter().find(|path| Path::new(path).exists());
    match found {
        Some(path) => finding(Level::Good, "guard rule", format!("{path} is here")),
        None => finding(
            Level::Bad,
            "guard rule",
            "nft is missing: without it a stop makes the kernel reset connections; `apt-get install nftables`",
        ),
    }
}

fn interface(found: &Interface) -> Vec<Finding> {
    let name = &found.name;
    let mut all = Vec::new();
    all.push(if found.running {
        finding(Level::Good, "interface", format!("{name} is up, MTU {}", found.mtu))
    } else {
        finding(Level::Bad, "interface", format!("{name} is down: `ip link set {name} up`"))
    });
    if found.mac.is_none() {
        all.push(finding(Level::Bad, "interface", format!("{name} has no MAC address: it is no Ethernet")));
    }
    all.push(driver(found));
    all.push(match ethtool::large_receive_offload(name) {
        Ok(true) => {
            let text = format!(
                "LRO is on at {name}: it must be off for native mode, `ethtool -K {name} lro off`; GRO may stay"
            );
            finding(Level::Bad, "offloads", text)
        }
        Ok(false) => finding(Level::Good, "offloads", format!("LRO is off at {name}")),
        Err(error) => finding(Level::Note, "offloads", format!("{name} does not say whether LRO is on: {error}")),
    });
    all
}

/// Where the program of an interface runs, or would.
fn driver(found: &Interface) -> Finding {
    let name = &found.name;
    match (found.xdp, found.kind.as_deref()) {
        (Some(XdpMode::Native), _) => {
            return finding(Level::Good, "driver", format!("a program runs in the driver of {name}"));
        }
        (Some(XdpMode::Generic), _) => {
            return finding(Level::Good, "driver", format!("a program runs in the stack at {name}"));
        }
        (None, Some("veth")) => {
            let text = format!(
                "{name} is a veth: the program runs in the stack; native mode needs an XDP program at its peer"
            );
            return finding(Level::Note, "driver", text);
        }
        (None, Some("vlan" | "bridge" | "macvlan")) => {
            let text = format!(
                "{name} is virtual: the program runs in the stack; the interface below may do it in the driver"
            );
            return finding(Level::Note, "driver", text);
        }
        (None, _) => {}
    }
    match Netlink::native_xdp(found.index) {
        Ok(true) => finding(Level::Good, "driver", format!("the driver of {name} runs XDP programs")),
        Ok(false) => finding(
            Level::Note,
            "driver",
            format!("the driver of {name} does not run XDP programs: the program runs in the stack (`xdp: Generic`)"),
        ),
        Err(_) => {
            finding(Level::Note, "driver", format!("the kernel does not say what {name} can: `xdp: Auto` tries it"))
        }
    }
}

/// Whether forwarding at an interface outlives the process.
fn pinned(name: &str, pins: &Path) -> Finding {
    let path = link_path(pins, name);
    if path.exists() {
        finding(Level::Good, "link", format!("pinned at {}: forwarding outlives the process", path.display()))
    } else {
        let text = format!("nothing is pinned for {name} at {}: `ringway run` does it at its start", path.display());
        finding(Level::Note, "link", text)
    }
}

/// Several interfaces on one network all answer for an address of one of them, unless told otherwise.
fn arp_ignore(interfaces: &[Interface]) -> Option<Finding> {
    let answering: Vec<&str> = interfaces
        .iter()
        .filter(|each| each.name != "lo" && each.mac.is_some() && each.running)
        .filter(|each| conf("all", "arp_ignore").max(conf(&each.name, "arp_ignore")) == 0)
        .map(|each| each.name.as_str())
        .collect();
    (answering.len() > 1).then(|| {
        let text = format!(
            "{} answer ARP for addresses of each other, the virtual one too: \
             `sysctl -w net.ipv4.conf.all.arp_ignore=1`",
            answering.join(", ")
        );
        finding(Level::Note, "ARP", text)
    })
}

/// What comes in has to fit out.
fn neighbour(server: IpAddr, entrance: Option<&Interface>, way: Option<&Interface>) -> Finding {
    match (entrance, way) {
        (Some(entrance), Some(way)) if way.mtu < entrance.mtu => {
            let text = format!(
                "{server} is behind {0} with MTU {1}, requests come in by {2} with {3}: larger ones are lost; \
                 `ip link set {0} mtu {3}`",
                way.name, way.mtu, entrance.name, entrance.mtu
            );
            finding(Level::Bad, "server", text)
        }
        (_, Some(way)) => finding(Level::Good, "server", format!("{server} is a neighbour at {}", way.name)),
        _ => finding(Level::Good, "server", format!("{server} is a neighbour")),
    }
}

/// Looks at this machine as a server behind a virtual address.
pub fn server(vip: SocketAddr) -> Vec<Finding> {
    let mut all = Vec::new();
    let ip = vip.ip();
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return vec![finding(Level::Bad, "netlink", format!("cannot be had: {error}"))],
    };
    let interfaces = netlink.interfaces().unwrap_or_default();
    let addresses = netlink.addresses().unwrap_or_default();
    let place = addresses.iter().find(|address| address.1 == ip);
    let place = place.and_then(|address| interfaces.iter().find(|each| each.index == address.0));
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    all.push(match place {
        Some(found) if found.name == "lo" || found.kind.as_deref() == Some("dummy") => {
            finding(Level::Good, "address", format!("{ip} is at {}", found.name))
        }
        Some(found) => finding(
            Level::Bad,
            "address",
            format!(
                "{ip} is at {0}, so this server answers for it: `ip address del {ip} dev {0}` and `ip address add {ip}/{prefix} dev lo`",
                found.name
            ),
        ),
        None => finding(Level::Bad, "address", format!("{ip} is not here: `ip address add {ip}/{prefix} dev lo`")),
    });
    if ip.is_ipv4() {
        all.extend(arp(&interfaces));
        all.push(return_path(&interfaces));
    } else {
        all.push(finding(
            Level::Good,
            "ND",
            "addresses at lo are not announced on other interfaces; nothing to set for IPv6",
        ));
    }
    all.push(listening(vip));
    all.push(finding(
        Level::Note,
        "MTU",
        "answers leave with this machine's own MTU; it must not be larger than the path to the clients bears",
    ));
    all
}

fn conf(interface: &str, name: &str) -> u64 {
    number(&format!("/proc/sys/net/ipv4/conf/{interface}/{name}")).unwrap_or(0)
}

/// The kernel uses the larger value of `all` and the interface.
fn arp(interfaces: &[Interface]) -> Vec<Finding> {
    let ethernet = || interfaces.iter().filter(|each| each.name != "lo" && each.mac.is_some());
    let mut all = Vec::new();
    for (name, wanted, why) in [
        ("arp_ignore", 1, "this server answers ARP for the virtual address and takes the balancer's traffic"),
        ("arp_announce", 2, "this server's ARP requests name the virtual address as theirs"),
    ] {
        let bad: Vec<&str> = ethernet()
            .filter(|each| conf("all", name).max(conf(&each.name, name)) < wanted)
            .map(|each| each.name.as_str())
            .collect();
        all.push(if bad.is_empty() {
            finding(Level::Good, "ARP", format!("{name} is {wanted} or more"))
        } else {
            let fix = format!("sysctl -w net.ipv4.conf.all.{name}={wanted}");
            finding(Level::Bad, "ARP", format!("{name} is too low at {}: {why}; `{fix}`", bad.join(", ")))
        });
    }
    all
}

fn return_path(interfaces: &[Interface]) -> Finding {
    let strict: Vec<&str> = interfaces
        .iter()
        .filter(|each| each.name != "lo" && conf("all", "rp_filter").max(conf(&each.name, "rp_filter")) == 1)
        .map(|each| each.name.as_str())
        .collect();
    if strict.is_empty() {
        finding(Level::Good, "rp_filter", "not strict")
    } else {
        let text = format!(
            "strict at {}: requests are dropped if answers to the client leave by another interface; `sysctl -w \
             net.ipv4.conf.all.rp_filter=2`",
            strict.join(", ")
        );
        finding(Level::Note, "rp_filter", text)
    }
}

fn listening(vip: SocketAddr) -> Finding {
    const LISTEN: &str = "0A";
    let port = format!("{:04X}", vip.port());
    let tables: &[&str] = &["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"];
    let mut found = Vec::new();
    for table in tables {
        for line in read(table).unwrap_or_default().lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else { continue };
            let Some((address, local_port)) = local.rsplit_once(':') else { continue };
            if local_port == port && (state == LISTEN || table.contains("udp")) {
                found.push(address.to_owned());
            }
        }
    }
    let any = |address: &String| address.bytes().all(|byte| byte == b'0');
    let exact = hex(vip.ip());
    if found.iter().any(|address| any(address) || *address == exact) {
        finding(Level::Good, "service", format!("something listens on port {}", vip.port()))
    } else if found.is_empty() {
        finding(Level::Bad, "service", format!("nothing listens on port {}", vip.port()))
    } else {
        let text = format!("port {} is served at another address only: make the service listen on {vip}", vip.port());
        finding(Level::Bad, "service", text)
    }
}

/// An address as `/proc/net/tcp` writes it: words of the machine's byte order.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("4 bytes")));
    words.map(|word| format!("{word:08X}")).collect()
}
