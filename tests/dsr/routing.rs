//! Routing daemons that announce a VIP while its balancer is ready: the configurations of docs/dsr.md, run.

use std::process::{Child, Command, Stdio};

use crate::net::{Net, Ringway, VIP4, VIP6, config, eventually, kept};
use crate::support::can_run;

const BOTH: [(&str, u32); 2] = [("s1", 1), ("s2", 1)];

/// The configuration (0) or the script (1) that the page shows for a daemon, with this network's addresses.
fn shown(daemon: &str, which: usize) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dsr.md")).unwrap();
    let behind = page.split_once(&format!("\n{daemon} (`/etc/")).unwrap().1;
    // What stands within fences is every second part; its first line is the rest of the fence.
    let block = behind.split("```").nth(1 + 2 * which).unwrap().split_once('\n').unwrap().1;
    block.replace("192.0.2.100", VIP4).replace("192.0.2.1", "10.77.0.1").replace("2001:db8::100", VIP6)
}

/// A process that ends with its owner.
struct Daemon(Child);

impl Daemon {
    fn start(net: &Net, member: &str, command: &str) -> Self {
        let mut child = Command::new("nsenter");
        child.arg(format!("--net=/run/netns/{}", net.name(member))).args(["sh", "-c", command]);
        Self(child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn bird(net: &Net, member: &str, text: &str) -> Daemon {
    let at = |name: &str| net.directory.join(format!("{member}-{name}")).display().to_string();
    std::fs::write(at("bird.conf"), text).unwrap();
    let (good, said) = net.run(member, "bird", &["-p", "-c", &at("bird.conf")]);
    assert!(good, "{said}");
    Daemon::start(net, member, &format!("exec bird -f -c {} -s {} -P {}", at("bird.conf"), at("ctl"), at("pid")))
}

/// Client, router, two balancers that announce the VIP to it, two servers.
fn network() -> Net {
    let mut net = Net::new();
    for (name, last) in [("r", 1), ("lb", 2), ("lb2", 3)] {
        net.member(name, last);
    }
    for (name, last) in [("s1", 11), ("s2", 12)] {
        net.server(name, last);
        net.ip(name, "route add default via 10.77.0.1");
        net.serve(name, &format!("{VIP4}:80"));
        net.serve(name, &format!("[{VIP6}]:80"));
    }
    for name in ["lb", "lb2"] {
        net.address(name, VIP4, VIP6, "eth0");
        net.exec(name, "sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    }
    net.space("c");
    crate::net::sh(&format!("ip -n {} link add far type veth peer name eth0 netns {}", net.name("r"), net.name("c")));
    for (name, device, last) in [("r", "far", 1), ("c", "eth0", 2)] {
        net.ip(name, &format!("link set {device} up"));
        net.ip(name, &format!("addr add 10.88.0.{last}/24 dev {device}"));
    }
    net.ip("c", "route add default via 10.88.0.1");
    net.exec("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1");
    net
}

const ROUTER: &str = "
router id 10.77.0.1;
protocol device { scan time 1; }
protocol kernel { ipv4 { export all; }; merge paths on; }
protocol bgp one { local 10.77.0.1 as 65000; neighbor 10.77.0.2 as 65001; connect delay time 1; error wait time 1,2; ipv4 { import all; export none; }; }
protocol bgp two { local 10.77.0.1 as 65000; neighbor 10.77.0.3 as 65001; connect delay time 1; error wait time 1,2; ipv4 { import all; export none; }; }
";

/// The balancers that the router knows for the VIP.
fn ways(net: &Net) -> Vec<&'static str> {
    let (_, text) = net.run("r", "ip", &["route", "show", &format!("{VIP4}/32")]);
    ["10.77.0.2", "10.77.0.3"].into_iter().filter(|way| text.contains(&format!("via {way} "))).collect()
}

fn balancer(net: &Net, name: &str) -> Ringway {
    net.ringway_with(name, &config(&BOTH, "xdp: Generic"), &["--admin", "127.0.0.1:9901"])
}

/// The loop around the page's script.
fn watcher(net: &Net, member: &str, script: &str) -> Daemon {
    let path = net.directory.join(format!("{member}-watch"));
    std::fs::write(&path, script).unwrap();
    Daemon::start(net, member, &format!("while sleep 0.3; do sh {} >/dev/null 2>&1; done", path.display()))
}

/// Both announce; one drains, so it is withdrawn, and comes back; one dies. No flow is lost by any of it.
fn announced_and_withdrawn(net: &Net, mut first: Ringway, _second: Ringway) {
    eventually("both are announced", 30, || ways(net) == ["10.77.0.2", "10.77.0.3"]);
    let address = format!("{VIP4}:80");
    let connect = |_| net.connect_from("c", &address, 5).unwrap_or_else(|error| panic!("{error}"));
    let mut connections: Vec<_> = (0..100).map(connect).collect();
    first.stop();
    eventually("what has stopped is withdrawn", 30, || ways(net) == ["10.77.0.3"]);
    assert_eq!(kept(&mut connections), 100, "after a withdrawal");
    first.start_again();
    eventually("it is announced again", 30, || ways(net).len() == 2);
    assert_eq!(kept(&mut connections), 100, "after it came back");
}

#[test]
fn bird_announces_what_is_ready() {
    if !can_run("routing::bird_announces_what_is_ready") {
        return;
    }
    let net = network();
    let _router = bird(&net, "r", ROUTER);
    let balancers = ["lb", "lb2"].map(|name| balancer(&net, name));
    let mut daemons = Vec::new();
    for (name, last) in [("lb", 2), ("lb2", 3)] {
        let text = shown("BIRD 2", 0);
        daemons.push(bird(&net, name, &format!("router id 10.77.0.{last};\nprotocol device {{}}\n{text}")));
        let control = net.directory.join(format!("{name}-ctl"));
        daemons.push(watcher(
            &net,
            name,
            &shown("BIRD 2", 1).replace("birdc", &format!("birdc -s {}", control.display())),
        ));
    }
    let [first, second] = balancers;
    announced_and_withdrawn(&net, first, second);
}

/// `zebra` and `bgpd` with the page's configuration. They run as a user of their own, in a directory of theirs.
fn frr(net: &Net, member: &str) -> Vec<Daemon> {
    let place = net.directory.join(format!("{member}-frr"));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("zebra.conf"), "").unwrap();
    std::fs::write(place.join("bgpd.conf"), shown("FRR", 0)).unwrap();
    crate::net::sh(&format!("chown -R frr:frr {}", place.display()));
    let start = |daemon: &str| {
        let line = "cd PLACE; exec /usr/lib/frr/NAME -P 0 -f PLACE/NAME.conf -i PLACE/NAME.pid -z PLACE/zserv --vty_socket PLACE";
        let line = line.replace("PLACE", &place.display().to_string()).replace("NAME", daemon);
        Daemon::start(net, member, &line)
    };
    let zebra = start("zebra");
    eventually("zebra listens", 10, || place.join("zserv").exists());
    vec![zebra, start("bgpd")]
}

#[test]
fn frr_announces_what_is_ready() {
    if !can_run("routing::frr_announces_what_is_ready") {
        return;
    }
    let net = network();
    let _router = bird(&net, "r", ROUTER);
    let balancers = ["lb", "lb2"].map(|name| balancer(&net, name));
    let mut daemons = Vec::new();
    for name in ["lb", "lb2"] {
        daemons.extend(frr(&net, name));
        let sockets = net.directory.join(format!("{name}-frr"));
        let script = shown("FRR", 1).replace("vtysh", &format!("vtysh --vty_socket {} -d bgpd", sockets.display()));
        daemons.push(watcher(&net, name, &script));
    }
    let [first, second] = balancers;
    announced_and_withdrawn(&net, first, second);
}
