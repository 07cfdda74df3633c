//! `ringway doctor`: whether this machine has what serving needs.

pub mod dsr;

use std::fs;

use ringway_core::model::{Model, Protocol, Socket};

use crate::rt;
use crate::sys;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but could be better.
    Note,
    /// Prevents serving.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is to be taken.
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

fn finding(level: Level, subject: &'static str, text: impl Into<String>) -> Finding {
    Finding { level, subject, text: text.into() }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}

/// Looks at everything.
pub fn examine(model: Option<&Model>) -> Vec<Finding> {
    let mut all = vec![
        kernel(),
        driver(),
        cores(),
        descriptors(),
        backlog(),
        migration(),
        pipes(),
        local_ports(),
        low_ports(),
        kernel_tls(),
        aes(),
        pacing(),
    ];
    all.extend(model.into_iter().flat_map(congestion_controls));
    all.extend(model.and_then(transparency));
    all.extend(model.into_iter().flat_map(|model| &model.sockets).map(port));
    all
}

/// For people.
pub fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    for each in findings {
        let mark = match each.level {
            Level::Good => "ok  ",
            Level::Note => "note",
            Level::Bad => "BAD ",
        };
        out.push_str(&format!("{mark}  {:12} {}\n", each.subject, each.text));
    }
    out
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (6, 1) {
        finding(Level::Good, "kernel", release)
    } else {
        finding(Level::Note, "kernel", format!("{release}: io_uring is used from 6.1 on; epoll works"))
    }
}

fn driver() -> Finding {
    match rt::probe_ring() {
        Ok(()) => finding(Level::Good, "io_uring", "can be had: workers use it"),
        Err(error) => {
            let why = match number("/proc/sys/kernel/io_uring_disabled") {
                Some(2) => "; kernel.io_uring_disabled=2 turns it off for everyone",
                Some(1) => "; kernel.io_uring_disabled=1 turns it off except for root and kernel.io_uring_group",
                _ => "; a container's seccomp profile or an old kernel forbids it",
            };
            finding(Level::Note, "io_uring", format!("cannot be had: {error}{why}; workers use epoll, which is slower"))
        }
    }
}

fn cores() -> Finding {
    let cores = core_affinity::get_core_ids().unwrap_or_default().len();
    finding(if cores > 0 { Level::Good } else { Level::Note }, "cores", format!("{cores} usable: one worker each"))
}

fn descriptors() -> Finding {
    match sys::raise_descriptor_limit() {
        Ok(limit) if limit >= 65_536 => finding(Level::Good, "descriptors", format!("{limit}")),
        Ok(limit) => finding(
            Level::Note,
            "descriptors",
            format!(
                "{limit}, of which nine tenths are for connections, two per proxied one; raise LimitNOFILE or `ulimit -Hn`"
            ),
        ),
        Err(error) => finding(Level::Bad, "descriptors", format!("cannot be raised: {error}")),
    }
}

fn backlog() -> Finding {
    match number("/proc/sys/net/core/somaxconn") {
        Some(found) if found >= 4096 => finding(Level::Good, "backlog", format!("net.core.somaxconn={found}")),
        Some(found) => {
            finding(Level::Note, "backlog", format!("net.core.somaxconn={found}: bursts of connections want 4096"))
        }
        None => finding(Level::Note, "backlog", "net.core.somaxconn cannot be read"),
    }
}

fn migration() -> Finding {
    match number("/proc/sys/net/ipv4/tcp_migrate_req") {
        Some(1) => finding(Level::Good, "migration", "net.ipv4.tcp_migrate_req=1"),
        _ => finding(
            Level::Note,
            "migration",
            "net.ipv4.tcp_migrate_req is not 1: connections that wait when a listener is removed may be reset",
        ),
    }
}

fn pipes() -> Finding {
    const SYS_RESOURCE: u32 = 24;
    let size = number("/proc/sys/fs/pipe-max-size").unwrap_or(0);
    let soft = number("/proc/sys/fs/pipe-user-pages-soft").unwrap_or(0);
    let unbounded = soft == 0 || has_capability(SYS_RESOURCE);
    if size < 1 << 20 {
        let text = format!("fs.pipe-max-size={size}: bulk transfers want 1048576");
        finding(Level::Note, "pipes", text)
    } else if unbounded {
        finding(Level::Good, "pipes", "as many as needed for splicing")
    } else {
        let count = soft / 256;
        let text =
            format!("{count} of 1 MiB (fs.pipe-user-pages-soft={soft}): more bulk transfers at a time are copied");
        finding(if count >= 64 { Level::Good } else { Level::Note }, "pipes", text)
    }
}

fn has_capability(number: u32) -> bool {
    let found = read("/proc/self/status").and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim().to_owned();
        u64::from_str_radix(&line, 16).ok()
    });
    found.is_some_and(|found| found >> number & 1 == 1)
}

/// Where the configuration asks for connections that leave from clients' addresses.
fn transparency(model: &Model) -> Option<Finding> {
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    let wanted = model.backends.iter().find(|backend| backend.settings.connection.transparent)?;
    Some(if has_capability(NET_ADMIN) || has_capability(NET_RAW) {
        finding(Level::Good, "transparent", "connections may leave from clients' addresses")
    } else {
        let text = format!(
            "{} is to be reached from clients' addresses: that needs CAP_NET_RAW (systemd: AmbientCapabilities=)",
            wanted.name
        );
        finding(Level::Bad, "transparent", text)
    })
}

fn local_ports() -> Finding {
    let range = read("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u32>().ok());
    let count = ends.next().zip(ends.next()).map_or(0, |(low, high)| high.saturating_sub(low) + 1);
    let text = format!("{count} local ports: as many connections to one endpoint");
    finding(if count >= 28_000 { Level::Good } else { Level::Note }, "local ports", text)
}

fn low_ports() -> Finding {
    const NET_BIND_SERVICE: u32 = 10;
    let start = number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let may = has_capability(NET_BIND_SERVICE);
    if may || start <= 80 {
        finding(Level::Good, "low ports", "may be bound")
    } else {
        let text = format!("ports below {start} need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)");
        finding(Level::Note, "low ports", text)
    }
}

/// Which library's AES-GCM TLS uses on this processor.
fn aes() -> Finding {
    let aes = crate::tls::Aes::of_this_processor();
    let why = match aes {
        crate::tls::Aes::AwsLc => "",
        crate::tls::Aes::Ring => ": the processor has VAES and no AVX-512",
    };
    finding(Level::Good, "AES-GCM", format!("by {}{why}", aes.name()))
}

/// BBR is paced by the queue of the device, or where that is not `fq` by a timer for every connection.
fn pacing() -> Finding {
    let control = read("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_else(|| "unknown".to_owned());
    let queue = read("/proc/sys/net/core/default_qdisc").unwrap_or_else(|| "unknown".to_owned());
    if control.starts_with("bbr") && queue != "fq" {
        let text = format!(
            "net.ipv4.tcp_congestion_control={control} with net.core.default_qdisc={queue}: a timer for each connection paces \
             what it sends, which costs CPU; devices that serve want the queue fq (`tc qdisc replace dev eth0 root fq`)"
        );
        return finding(Level::Note, "congestion", text);
    }
    finding(Level::Good, "congestion", format!("net.ipv4.tcp_congestion_control={control}"))
}

/// What the configuration names and the kernel has not loaded.
fn congestion_controls(model: &Model) -> Vec<Finding> {
    let listed = read("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    let of_sockets = model.sockets.iter().filter_map(|socket| socket.client.connection.congestion.as_deref());
    let of_backends = model.backends.iter().filter_map(|backend| backend.settings.connection.congestion.as_deref());
    let mut missing: Vec<&str> = of_sockets.chain(of_backends).collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|name| !listed.split_whitespace().any(|each| each == *name));
    let text = |name: &str| format!("\"{name}\" is not among {listed}; `modprobe tcp_{name}` may load it");
    missing.into_iter().map(|name| finding(Level::Bad, "congestion", text(name))).collect()
}

/// The kernel's TLS is an upper layer protocol of TCP; the list of those that are loaded names it.
fn kernel_tls() -> Finding {
    let listed = read("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    if listed.split_whitespace().any(|name| name == "tls") {
        finding(Level::Good, "kernel TLS", "is there; it is not used yet: TLS is encrypted in this process")
    } else {
        finding(Level::Good, "kernel TLS", "is absent; TLS is encrypted in this process in any case")
    }
}

fn port(socket: &Socket) -> Finding {
    let bind = socket.bind;
    let bound = match socket.protocol {
        Protocol::Udp(_) => sys::bind_udp(bind, sys::Listening::Alone, &socket.client.connection).map(drop),
        Protocol::Http(_) | Protocol::Tls(_) | Protocol::Tcp(_) => sys::bind_probe(bind, &socket.client.connection),
    };
    match bound {
        Ok(()) => finding(Level::Good, "port", format!("{bind} is free")),
        Err(error) => finding(Level::Bad, "port", format!("{bind}: {error}; a running ringway has its own ports")),
    }
}
