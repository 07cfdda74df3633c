//! What tests are made of. None of it shares code with the proxy.

pub mod client;
pub mod h2;
pub mod origin;
pub mod proxy;
pub mod tls;

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A loopback address that nothing else uses: 127.a.b.c with the process's id and a counter in it.
pub fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 1 + process % 250, process / 250 % 64 * 4 + next / 250, 1 + next % 250)
}

/// A port that is free on every address: below those that the system gives to whoever asks for any, as every client of
/// the tests beside this one does, and none that the tests name.
pub fn port_of_every_address() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(next % 12_000).unwrap();
        let is_free = |every: &str| {
            let (tcp, udp) = (TcpListener::bind((every, port)), std::net::UdpSocket::bind((every, port)));
            // A machine may have no IPv6.
            ![tcp.err(), udp.err()].into_iter().flatten().any(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        };
        if is_free("0.0.0.0") && is_free("::") {
            return port;
        }
    }
}

/// An interpreter of Python that has a package, or `None`, which is said: `scripts/test` makes one in `target/python`.
pub fn python(package: &str) -> Option<String> {
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python3");
    let found = [made, "python3"].into_iter().find(|python| {
        let run = std::process::Command::new(python).args(["-c", &format!("import {package}")]).output();
        run.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: no Python with the package {package}; scripts/test installs it");
    }
    found.map(str::to_owned)
}

/// Where a package for Node.js is, or `None`, which is said: `scripts/test` puts them into `target/node`.
pub fn node_modules(package: &str) -> Option<&'static str> {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/target/node/node_modules");
    let runs = std::process::Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if runs && std::path::Path::new(modules).join(package).is_dir() {
        return Some(modules);
    }
    eprintln!("SKIPPED: no Node.js with the package {package}; scripts/test installs it");
    None
}

/// Waits until something holds, for at most ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "still not so after 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A small random generator (SplitMix64): the seed is printed by who uses it.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// An endpoint whose queue of connections is full, so that it answers no SYN until somebody accepts. How many stand in it.
pub fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let hole = TcpListener::bind(format!("{}:0", address())).unwrap();
    socket2::SockRef::from(&hole).listen(0).unwrap();
    let target = hole.local_addr().unwrap();
    let stuffing = (0..3).filter_map(|_| TcpStream::connect_timeout(&target, Duration::from_millis(200)).ok());
    let stuffing: Vec<TcpStream> = stuffing.collect();
    (hole, stuffing)
}
