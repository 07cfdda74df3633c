//! Networks of namespaces: a client, balancers and servers on one switch. Everything carries the process's id in its
//! name and goes when the test ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const VIP4: &str = "10.77.0.100";
pub const VIP6: &str = "fd77::100";

/// Runs a command line; its failure is the test's.
pub fn sh(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something holds.
pub fn eventually(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "still not so after {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A network. Members are `c` (the client, .10), `lb` (.2), `s1` (.11), `s2` (.12), and whatever else is added.
pub struct Net {
    prefix: String,
    members: Vec<String>,
    pub directory: PathBuf,
}

impl Net {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("rwd{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(directory.join("bpf")).unwrap();
        sh(&format!("mount -t bpf bpf {}", directory.join("bpf").display()));
        let mut net = Self { prefix, members: Vec::new(), directory };
        net.space("sw");
        net.ip("sw", "link add br0 type bridge");
        net.ip("sw", "link set br0 up");
        // The machine may filter what bridges carry.
        net.exec("sw", "sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true");
        net
    }

    /// The usual members, with the VIP on the balancer and at the servers' loopback.
    pub fn usual() -> Self {
        let mut net = Self::new();
        net.member("c", 10);
        net.member("lb", 2);
        net.address("lb", VIP4, VIP6, "eth0");
        for (server, last) in [("s1", 11), ("s2", 12)] {
            net.server(server, last);
        }
        net
    }

    pub fn space(&mut self, name: &str) {
        sh(&format!("ip netns add {}", self.name(name)));
        self.members.push(name.to_owned());
        self.ip(name, "link set lo up");
    }

    pub fn member(&mut self, name: &str, last: u8) {
        self.space(name);
        self.wire(name, "eth0", "br0", 77, last);
        // Dead neighbours are noticed soon.
        self.exec(name, "sysctl -qw net.ipv4.neigh.default.interval_probe_time_ms=1000 2>/dev/null || true");
    }

    /// An interface of a member at a bridge, with the addresses 10.NET.0.LAST and fdNET::LAST.
    pub fn wire(&self, name: &str, device: &str, bridge: &str, network: u8, last: u8) {
        let (full, port) = (self.name(name), if bridge == "br0" { "p" } else { bridge });
        self.ip("sw", &format!("link add {port}-{name} type veth peer name {device} netns {full}"));
        self.ip("sw", &format!("link set {port}-{name} master {bridge} up"));
        self.ip(name, &format!("link set {device} address 02:00:00:00:{:02x}:{last:02x}", network - 77));
        self.ip(name, &format!("link set {device} up"));
        self.ip(name, &format!("addr add 10.{network}.0.{last}/24 dev {device}"));
        self.ip(name, &format!("addr add fd{network}::{last}/64 dev {device} nodad"));
    }

    pub fn server(&mut self, name: &str, last: u8) {
        self.member(name, last);
        self.behind_vip(name);
    }

    /// A member has the VIP, and does not say so.
    pub fn behind_vip(&self, name: &str) {
        let set = "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
        self.exec(name, set);
        self.address(name, VIP4, VIP6, "lo");
    }

    pub fn address(&self, name: &str, v4: &str, v6: &str, device: &str) {
        self.ip(name, &format!("addr add {v4}/32 dev {device}"));
        self.ip(name, &format!("addr add {v6}/128 dev {device} nodad"));
    }

    pub fn name(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }

    pub fn ip(&self, member: &str, arguments: &str) {
        sh(&format!("ip -n {} {arguments}", self.name(member)));
    }

    pub fn exec(&self, member: &str, line: &str) {
        sh(&format!("nsenter --net=/run/netns/{} sh -ec '{line}'", self.name(member)));
    }

    /// Runs something in a member's namespace, on a thread of its own.
    pub fn spawn<T: Send + 'static>(&self, member: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(member));
        std::thread::spawn(move || {
            let file = std::fs::File::open(path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            run()
        })
    }

    pub fn within<T: Send + 'static>(&self, member: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(member, run).join().unwrap()
    }

    /// Serves TCP at an address of a member: every line is answered by the member's name, `get N` by N bytes.
    pub fn serve(&self, member: &str, address: &str) {
        let (address, name): (SocketAddr, String) = (address.parse().unwrap(), member.to_owned());
        let listener = self.within(member, move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let name = name.clone();
                std::thread::spawn(move || answer(stream, &name));
            }
        });
    }

    pub fn connect(&self, address: &str) -> Connection {
        self.try_connect(address, 5).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub fn try_connect(&self, address: &str, seconds: u64) -> std::io::Result<Connection> {
        self.connect_from("c", address, seconds)
    }

    pub fn connect_from(&self, member: &str, address: &str, seconds: u64) -> std::io::Result<Connection> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(member, move || {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(seconds))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut connection = Connection { stream: BufReader::new(stream), server: String::new() };
            connection.server = connection.ask()?;
            Ok(connection)
        })
    }

    pub fn connections(&self, address: &str, count: usize) -> Vec<Connection> {
        (0..count).map(|_| self.connect(address)).collect()
    }

    /// Starts the real binary in a member's namespace.
    pub fn ringway(&self, member: &str, yaml: &str) -> Ringway {
        self.ringway_with(member, yaml, &[])
    }

    /// The same with more arguments.
    pub fn ringway_with(&self, member: &str, yaml: &str, more: &[&str]) -> Ringway {
        Ringway::start(self, member, yaml, more)
    }

    /// Runs a program in a member's namespace to its end; whether it succeeded, and what it wrote.
    pub fn run(&self, member: &str, program: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(member))).arg(program).args(arguments);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for member in &self.members {
            let _gone = Command::new("ip").args(["netns", "del", &self.name(member)]).status();
        }
        let _unmounted = Command::new("umount").arg("-l").arg(self.directory.join("bpf")).status();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

fn answer(stream: TcpStream, name: &str) {
    let Ok(mut out) = stream.try_clone() else { return };
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let sent = match line.strip_prefix("get ") {
            Some(count) => {
                let chunk = vec![b'x'; 1 << 20];
                let mut left: usize = count.parse().unwrap();
                let mut result = Ok(());
                while left > 0 && result.is_ok() {
                    let now = left.min(chunk.len());
                    result = out.write_all(&chunk[..now]);
                    left -= now;
                }
                result
            }
            None => writeln!(out, "{name}"),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// A connection of the client and the server that answered at first.
pub struct Connection {
    stream: BufReader<TcpStream>,
    pub server: String,
}

impl Connection {
    /// Who answers now.
    pub fn ask(&mut self) -> std::io::Result<String> {
        self.send()?;
        self.answered()
    }

    /// Asks without waiting.
    pub fn send(&mut self) -> std::io::Result<()> {
        writeln!(self.stream.get_mut(), "who")
    }

    /// Waits for the answer.
    pub fn answered(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("closed"));
        }
        Ok(line.trim().to_owned())
    }

    pub fn is_kept(&mut self) -> bool {
        self.ask().is_ok_and(|server| server == self.server)
    }

    pub fn download(&mut self, bytes: usize) {
        writeln!(self.stream.get_mut(), "get {bytes}").unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let read = self.stream.read(&mut buffer[..left.min(1 << 20)]).unwrap();
            assert!(read > 0, "ended with {left} bytes to go");
            left -= read;
        }
    }

    pub fn local(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }
}

pub fn kept(connections: &mut [Connection]) -> usize {
    connections.iter_mut().filter_map(|each| each.is_kept().then_some(())).count()
}

/// The real binary.
pub struct Ringway {
    pub child: Child,
    directory: PathBuf,
    member: String,
    namespace: String,
    pub bpf: PathBuf,
    more: Vec<String>,
}

impl Ringway {
    fn start(net: &Net, member: &str, yaml: &str, more: &[&str]) -> Self {
        let directory = net.directory.join(member);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("config.yaml"), yaml).unwrap();
        let bpf = net.directory.join("bpf").join(member);
        let more: Vec<String> = more.iter().map(|each| (*each).to_owned()).collect();
        let mut found = Self {
            child: Self::spawn(&directory, &net.name(member), &bpf, &more),
            directory,
            member: member.to_owned(),
            namespace: net.name(member),
            bpf,
            more,
        };
        found.ready();
        found
    }

    fn spawn(directory: &std::path::Path, namespace: &str, bpf: &std::path::Path, more: &[String]) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg(env!("CARGO_BIN_EXE_ringway"))
            .args(["run", "--no-pin", "--workers", "1", "--driver", "epoll", "--admin"])
            .arg(format!("unix:{}", directory.join("admin.sock").display()))
            .arg("--config")
            .arg(directory.join("config.yaml"))
            .arg("--bpf-dir")
            .arg(bpf)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.try_admin("GET", "/readyz").is_none_or(|(status, _)| status != 200) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{} did not start:\n{}", self.member, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would, and starts it again.
    pub fn crash_and_start(&mut self) {
        self.kill();
        self.start_again();
    }

    pub fn start_again(&mut self) {
        self.child = Self::spawn(&self.directory, &self.namespace, &self.bpf, &self.more);
        self.ready();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn try_admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.directory.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn admin(&self, method: &str, path: &str) -> String {
        let (status, body) = self.try_admin(method, path).unwrap();
        assert_eq!(status, 200, "{method} {path}: {body}\n{}", self.log());
        body
    }

    pub fn reload(&self, yaml: &str) {
        std::fs::write(self.directory.join("config.yaml"), yaml).unwrap();
        self.admin("POST", "/reload");
    }

    /// The `dsr` part of the status.
    pub fn status(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(&self.admin("GET", "/status")).unwrap();
        status["ringway"]["dsr"].clone()
    }

    /// A counter of frames.
    pub fn frames(&self, name: &str) -> u64 {
        self.status()["frames"][name].as_u64().unwrap()
    }

    /// Runs another command of the binary against this process.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(env!("CARGO_BIN_EXE_ringway"))
            .args(arguments)
            .arg("--admin")
            .arg(format!("unix:{}", self.directory.join("admin.sock").display()))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn config(&self) -> String {
        self.directory.join("config.yaml").display().to_string()
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.member, self.log());
        }
    }
}

/// A Gateway with both VIPs and TCP port 80, forwarded to servers with these weights.
pub fn config(servers: &[(&str, u32)], more: &str) -> String {
    let refs: Vec<String> = servers
        .iter()
        .map(|(name, weight)| format!("{{group: ringway.dev, kind: Backend, name: {name}, weight: {weight}}}"))
        .collect();
    let mut yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: ringway
  addresses: [{{type: IPAddress, value: {VIP4}}}, {{type: IPAddress, value: \"{VIP6}\"}}]
  listeners: [{{name: web, port: 80, protocol: TCP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{}]}}]
---
apiVersion: ringway.dev/v1alpha1
kind: L4ForwardingPolicy
metadata: {{name: direct}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}}]
  forwarding: {{mode: DSR, dsr: {{interface: eth0, {more}}}}}
  healthCheck: {{active: {{type: TCP, interval: 500ms, timeout: 500ms, unhealthyThreshold: 3, healthyThreshold: 2}}}}
",
        refs.join(", ")
    );
    for (name, last) in [("s1", 11), ("s2", 12)] {
        yaml += &format!(
            "---\napiVersion: ringway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec: {{endpoints: [{{ip: 10.77.0.{last}, port: 80}}, {{ip: \"fd77::{last}\", port: 80}}]}}\n"
        );
    }
    yaml
}
