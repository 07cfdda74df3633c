//! TCP routes.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::port_of_every_address;
use crate::support::proxy::{Options, Proxy, backend, gateway};

fn route(name: &str, parent: &str, split: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge{parent}}}]\n  rules: [{{backendRefs: [{split}]}}]\n"
    )
}

pub fn config(split: &str, backends: &str) -> String {
    gateway("  - {name: raw, port: 8080, protocol: TCP}\n") + &route("raw", "", split) + backends
}

pub const ONE: &str = "{group: ringway.dev, kind: Backend, name: origin}";

#[test]
fn bytes_pass_both_ways_whole() {
    let origin = Origin::script(|mut conn, _| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = conn.stream.read(&mut buffer) {
            if n == 0 || conn.stream.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    let sent: Vec<u8> =
        (0..2_000_000_u32).map(|index| u8::try_from(index.wrapping_mul(40_503) >> 8 & 255).unwrap()).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let got = client.rest().unwrap();
    sender.join().unwrap();
    assert!(got == sent);
    proxy.expect_metric("ringway_bytes_total", &["direction=\"in\""], 2_000_000.0);
}

#[test]
fn half_close_is_passed_on() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
        conn.stream.write_all(format!("got {}", all.len()).as_bytes()).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("twelve bytes");
    client.finish();
    assert_eq!(client.rest().unwrap(), b"got 12");
}

/// Either side resets after a pause, and the other one sees it.
fn resets_after(pause: std::time::Duration) {
    let origin = Origin::script(move |conn, _| {
        std::thread::sleep(pause);
        conn.abort();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("x");
    assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))));

    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut conn, _| {
        let mut byte = [0; 1];
        conn.stream.read_exact(&mut byte).unwrap();
        sender.send(conn.stream.read(&mut byte).map_err(|error| error.kind())).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("x");
    std::thread::sleep(pause);
    client.abort();
    let seen = receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(seen, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn resets_are_passed_on() {
    resets_after(std::time::Duration::from_millis(100));
}

/// Long enough that a direction gives up what it moves bytes with.
const QUIET: std::time::Duration = std::time::Duration::from_millis(400);

#[test]
fn quiet_connections_go_on_from_either_side() {
    let origin = Origin::script(|mut conn, _| {
        std::thread::sleep(QUIET);
        conn.stream.write_all(b"first").unwrap();
        let mut buffer = [0; 64];
        while let Ok(n) = conn.stream.read(&mut buffer) {
            if n == 0 {
                break;
            }
            conn.stream.write_all(&buffer[..n]).unwrap();
        }
        // One direction has ended, the other has not.
        std::thread::sleep(QUIET);
        conn.stream.write_all(b"last").unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    assert_eq!(client.raw(5), b"first");
    for _ in 0..3 {
        std::thread::sleep(QUIET);
        client.send("hello");
        assert_eq!(client.raw(5), b"hello");
    }
    std::thread::sleep(QUIET);
    client.finish();
    assert_eq!(client.rest().unwrap(), b"last");
    crate::support::eventually("it has ended", || proxy.metric("ringway_connections_active", &[]) == 0.0);
}

#[test]
fn resets_of_quiet_connections_are_passed_on() {
    resets_after(QUIET);
}

#[test]
fn what_has_no_endpoint_is_reset() {
    let missing = "{group: ringway.dev, kind: Backend, name: nobody}";
    for (split, backends) in
        [(missing, String::new()), (ONE, backend("origin", &[])), (ONE, backend("origin", &["127.0.0.1:1"]))]
    {
        let proxy = Proxy::start(&config(split, &backends));
        // The reset may come so early that connecting itself reports it.
        if let Ok(mut client) = Client::try_connect(&proxy.address) {
            client.try_send("x");
            assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))), "{split} {backends}");
        }
    }
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    let origin = Origin::script(|mut conn, _| {
        conn.stream.write_all(b"hello").unwrap();
    });
    let dead = format!("{}:9", crate::support::address());
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&dead, &origin.address])));
    for _ in 0..6 {
        assert_eq!(proxy.client().rest().unwrap(), b"hello");
    }
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""], 1.0);
}

/// What a client has sent already travels with the connect, so a connect that fails must leave it for the next endpoint.
#[test]
fn first_bytes_reach_the_endpoint_that_takes_the_connection_once() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
        conn.stream.write_all(&all).unwrap();
    });
    let dead: Vec<String> = (0..2).map(|_| format!("{}:9", crate::support::address())).collect();
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&dead[0], &origin.address, &dead[1]])));
    for length in [1, 300, 8 << 10, 100 << 10] {
        for round in 0..6_u8 {
            let sent: Vec<u8> = (0..length).map(|index: usize| round.wrapping_add(index.to_le_bytes()[0])).collect();
            let mut client = proxy.client();
            client.send(&sent);
            client.finish();
            assert!(client.rest().unwrap() == sent, "{length} bytes, round {round}");
        }
    }
    assert!(proxy.metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""]) > 0.0);
}

#[test]
fn weights_are_kept() {
    let one = Origin::script(|mut conn, _| drop(conn.stream.write_all(b"1")));
    let two = Origin::script(|mut conn, _| drop(conn.stream.write_all(b"2")));
    let split = "{group: ringway.dev, kind: Backend, name: one, weight: 3}, {group: ringway.dev, kind: Backend, name: two, weight: 1}";
    let proxy = Proxy::start(&config(split, &(backend("one", &[&one.address]) + &backend("two", &[&two.address]))));
    let ones = (0..40).filter(|_| proxy.client().rest().unwrap() == b"1").count();
    assert!((27..=33).contains(&ones), "{ones}");
}

#[test]
fn the_oldest_route_of_a_listener_serves_it_and_parents_choose_by_name_and_port() {
    let says = |word: &'static [u8]| Origin::script(move |mut conn, _| drop(conn.stream.write_all(word)));
    let (one, two, three) = (says(b"1"), says(b"2"), says(b"3"));
    let reference = |name: &str| format!("{{group: ringway.dev, kind: Backend, name: {name}}}");
    let backends =
        backend("one", &[&one.address]) + &backend("two", &[&two.address]) + &backend("three", &[&three.address]);
    let yaml = gateway("  - {name: a, port: 8080, protocol: TCP}\n  - {name: b, port: 8081, protocol: TCP}\n")
        + &route("first", ", sectionName: a", &reference("one"))
        + &route("second", ", sectionName: a", &reference("two"))
        + &route("third", ", port: 8081", &reference("three"))
        + &backends;
    let proxy = Proxy::start(&yaml);
    let said = |address: &str| Client::connect(address).rest().unwrap();
    assert_eq!(said(&proxy.address), b"1");
    assert_eq!(said(&proxy.port(8081)), b"3");
    let mut before = proxy.client();
    // The older one goes, and the next has the listener. An established connection stays where it is.
    proxy.reload(&yaml.replace("metadata: {name: first}", "metadata: {name: zeta}"));
    assert_eq!(said(&proxy.address), b"2");
    assert_eq!(before.rest().unwrap(), b"1");
}

#[test]
fn the_built_in_echo_returns_bytes() {
    let proxy = Proxy::start(&config(ONE, &backend("origin", &["echo"])));
    let mut client = proxy.client();
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
    // Bytes are counted as they pass, not when the connection ends.
    for direction in ["in", "out"] {
        let label = format!("direction=\"{direction}\"");
        crate::support::eventually("they are counted", || proxy.metric("ringway_bytes_total", &[&label]) == 5.0);
    }
    client.finish();
    client.expect_close();
}

#[test]
fn idle_connections_end() {
    let yaml = config(ONE, &backend("origin", &["echo"]))
        + &crate::support::proxy::policy("  timeout: {tcp: {idleTimeout: 300ms}}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    client.send("hi");
    client.raw(2);
    assert!(matches!(client.rest(), Err(crate::support::client::Ended::Reset(_))));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"idle_timeout\""], 1.0);
}

#[test]
fn a_deferred_accept_waits_for_the_first_bytes() {
    let yaml = config(ONE, &backend("origin", &["echo"]))
        + &crate::support::proxy::policy("  connection: {deferAccept: 20s}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(proxy.metric("ringway_connections_total", &[]), 0.0);
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
    proxy.expect_metric("ringway_connections_total", &[], 1.0);
}

#[test]
fn socket_options_bind_anew_and_a_wrong_interface_changes_nothing() {
    let plain = config(ONE, &backend("origin", &["echo"]));
    let with = |spec: &str| plain.clone() + &crate::support::proxy::policy(spec);
    let proxy = Proxy::start(&plain);
    let mut before = proxy.client();
    before.send("a");
    assert_eq!(before.raw(1), b"a");
    proxy.reload(&with("  connection: {backlog: 16, fastOpen: 16}\n  tcpKeepalive: {probes: 0}\n"));
    let mut client = proxy.client();
    client.send("b");
    assert_eq!(client.raw(1), b"b");
    proxy.write_config(&with("  connection: {bindToDevice: no-such-device}\n"));
    let (status, body) = proxy.admin("POST", "/reload");
    assert_eq!(status, 409, "{body}");
    let mut client = proxy.client();
    client.send("c");
    assert_eq!(client.raw(1), b"c");
    if crate::support::proxy::is_root() {
        proxy.reload(&with("  connection: {bindToDevice: lo}\n"));
        let mut client = proxy.client();
        client.send("d");
        assert_eq!(client.raw(1), b"d");
    }
    // An established connection has outlived all of it.
    before.send("e");
    assert_eq!(before.raw(1), b"e");
}

/// Copies of the process's sockets.
fn sockets(proxy: &Proxy) -> Vec<std::os::fd::OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(proxy.child.id()).unwrap()).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).unwrap() {
        let number: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let flags = rustix::process::PidfdGetfdFlags::empty();
        if let Ok(copy) = rustix::process::pidfd_getfd(&process, number, flags) {
            found.push(copy);
        }
    }
    found
}

#[test]
fn connections_that_last_are_looked_after() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
    });
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let mut client = proxy.client();
    client.send("x");
    let there = origin.address.parse().unwrap();
    let is_to_origin = |fd: &std::os::fd::OwnedFd| {
        socket2::SockRef::from(fd).peer_addr().is_ok_and(|peer| peer.as_socket() == Some(there))
    };
    crate::support::eventually("the endpoint's socket has its options", || {
        sockets(&proxy).iter().filter(|fd| is_to_origin(fd)).any(|fd| {
            let socket = socket2::SockRef::from(fd);
            let patience = socket.tcp_user_timeout().unwrap();
            socket.keepalive().unwrap() && patience == Some(std::time::Duration::from_secs(30))
        })
    });
    client.send("y");
}

/// What the kernel says of an option of the process's listening sockets on a port, one for each worker.
fn listener_options(proxy: &Proxy, port: u16, option: i32) -> Vec<u32> {
    use std::os::fd::AsRawFd as _;
    let mut found = Vec::new();
    for copy in sockets(proxy) {
        let socket = socket2::SockRef::from(&copy);
        let here = socket.local_addr().ok().and_then(|address| address.as_socket());
        if here.is_none_or(|here| here.port() != port) || !socket.is_listener().unwrap_or(false) {
            continue;
        }
        let mut value = [0_u32; 64];
        let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
        // SAFETY: the kernel writes at most `length` bytes to `value`, and both outlive the call.
        let got = unsafe {
            libc::getsockopt(copy.as_raw_fd(), libc::IPPROTO_TCP, option, value.as_mut_ptr().cast(), &raw mut length)
        };
        assert_eq!(got, 0);
        // Of a listening socket, TCP_INFO has its backlog where a connection has what was acknowledged selectively
        // (`tcpi_sacked`, behind eight bytes and six numbers).
        found.push(if option == libc::TCP_INFO { value[7] } else { value[0] });
    }
    found
}

#[test]
fn socket_options_reach_the_kernel() {
    let plain = config(ONE, &backend("origin", &["echo"]));
    let proxy = Proxy::start(&plain);
    let port = proxy.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let all = |option| listener_options(&proxy, port, option);
    assert_eq!((all(libc::TCP_DEFER_ACCEPT), all(libc::TCP_FASTOPEN)), (vec![0, 0], vec![0, 0]));
    proxy.reload(
        &(plain + &crate::support::proxy::policy("  connection: {backlog: 77, fastOpen: 33, deferAccept: 20s}\n")),
    );
    crate::support::eventually("the old sockets are gone", || all(libc::TCP_INFO).len() == 2);
    assert_eq!((all(libc::TCP_INFO), all(libc::TCP_FASTOPEN)), (vec![77, 77], vec![33, 33]));
    // The kernel counts in retransmissions of the SYN and rounds up.
    let deferred = all(libc::TCP_DEFER_ACCEPT);
    assert!(deferred.len() == 2 && deferred.iter().all(|seconds| (20..=63).contains(seconds)), "{deferred:?}");
}

/// The congestion control of a socket.
fn congestion_control(socket: &std::os::fd::OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    let mut name = [0_u8; 16];
    let mut length = libc::socklen_t::try_from(name.len()).unwrap();
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
    // SAFETY: the kernel writes at most `length` bytes to `name`, and both outlive the call.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, name.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(got, 0);
    name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

#[test]
fn connections_ask_for_their_congestion_control() {
    let origin = Origin::script(|mut conn, _| {
        let mut all = Vec::new();
        conn.stream.read_to_end(&mut all).unwrap();
    });
    let listed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
    let other = listed.split_whitespace().find(|name| *name != "reno").unwrap_or("reno");
    let plain = config(ONE, &backend("origin", &[&origin.address]));
    let with = |down: &str, up: &str| {
        let spec = format!("  connection: {{congestionControl: {down}}}\n");
        let up = crate::balance::policy(&format!("  connection: {{congestionControl: {up}}}\n"));
        plain.clone() + &crate::support::proxy::policy(&spec) + &up
    };
    let proxy = Proxy::start(&plain);
    let there = origin.address.parse().unwrap();
    let both = || {
        let mut client = proxy.client();
        client.send("x");
        let here = client.stream.local_addr().unwrap();
        let find = |wanted: std::net::SocketAddr| {
            let to_it = |fd: &std::os::fd::OwnedFd| {
                socket2::SockRef::from(fd).peer_addr().is_ok_and(|peer| peer.as_socket() == Some(wanted))
            };
            // The newest is this client's.
            sockets(&proxy).iter().rev().find(|fd| to_it(fd)).map(congestion_control)
        };
        crate::support::eventually("the endpoint is connected", || find(there).is_some());
        let found = (find(here).unwrap(), find(there).unwrap());
        client.finish();
        client.expect_close();
        crate::support::eventually("the connection is gone", || find(there).is_none());
        found
    };
    // A socket that is bound anew stands beside the old one for a moment.
    let becomes = |down: &str, up: &str| {
        crate::support::eventually("both ask for it", || both() == (down.to_owned(), up.to_owned()));
    };
    // Over loopback nothing is paced, whatever the system's default is.
    assert_eq!(both(), ("reno".to_owned(), "reno".to_owned()));
    proxy.reload(&with(other, "reno"));
    becomes(other, "reno");
    proxy.reload(&with("reno", other));
    becomes("reno", other);
    // What there is not: no connection to an endpoint fails for it, and a socket is not bound.
    proxy.reload(&with("reno", "no_such"));
    let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    becomes("reno", default.trim());
    proxy.write_config(&with("no_such", "reno"));
    let (status, body) = proxy.admin("POST", "/reload");
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("congestionControl"), "{body}");
    assert_eq!(both().0, "reno");
}

#[test]
fn requests_go_on_where_a_socket_is_bound_anew() {
    let origin = Origin::echo();
    let plain = crate::support::proxy::config(&[&origin.address], "");
    let proxy = Proxy::start(&plain);
    let mut client = proxy.client();
    for backlog in [100, 200, 100] {
        assert_eq!(client.get("/a").status, 200);
        proxy.reload(
            &(plain.clone() + &crate::support::proxy::policy(&format!("  connection: {{backlog: {backlog}}}\n"))),
        );
        assert_eq!(client.get("/b").status, 200);
        assert_eq!(proxy.client().get("/c").status, 200);
    }
}

#[test]
fn an_ipv6_only_listener_takes_no_ipv4() {
    let port = port_of_every_address();
    let yaml = config(ONE, &backend("origin", &["echo"]))
        .replace("port: 8080", &format!("port: {port}"))
        .replace("  addresses: [{type: IPAddress, value: \"{ip}\"}]\n", "");
    let proxy = Proxy::start(&yaml);
    let is_served = |address: &str| {
        Client::try_connect(&format!("{address}:{port}")).is_ok_and(|mut client| {
            client.try_send("x");
            client.raw(1) == b"x"
        })
    };
    assert!(is_served("127.0.0.1"));
    let ipv6 = is_served("[::1]");
    proxy.reload(&(yaml + &crate::support::proxy::policy("  connection: {ipv6Only: true}\n")));
    crate::support::eventually("IPv4 is refused", || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err()
    });
    assert_eq!(is_served("[::1]"), ipv6);
}

#[test]
fn no_queued_connection_is_lost_when_a_listener_ends() {
    // Clients keep coming while the process is told to drain: whoever was connected is served.
    let origin = Origin::script(|mut conn, _| {
        conn.stream.write_all(b"served").unwrap();
    });
    let mut proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                let mut served = 0;
                let mut lost = 0;
                while let Ok(mut client) = Client::try_connect(&address) {
                    match client.rest() {
                        Ok(bytes) if bytes == b"served" => served += 1,
                        _ => lost += 1,
                    }
                }
                (served, lost)
            })
        })
        .collect();
    crate::support::eventually("some are served", || proxy.metric("ringway_connections_total", &[]) > 200.0);
    proxy.signal("TERM");
    let mut lost = 0;
    for thread in threads {
        let (served, gone) = thread.join().unwrap();
        assert!(served > 0);
        lost += gone;
    }
    assert_eq!(proxy.wait(40), Some(0));
    // The instant between the last look at the queue and the close remains: at most one for each client.
    assert!(lost <= 4, "{lost} lost");
}

#[test]
fn connections_that_a_shutdown_resets_are_counted() {
    let yaml = config(ONE, &backend("origin", &["echo"]));
    let options = Options { workers: 1, descriptors: Some(60), ..Options::default() };
    let mut proxy = Proxy::with(&yaml, &options);
    // More than there are descriptors for: some wait in the queue and cannot be taken from it at the end either.
    let mut clients: Vec<Client> = (0..80).map(|_| proxy.client()).collect();
    proxy.expect_metric("ringway_accept_errors_total", &[], 1.0);
    proxy.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(200));
    // Room for the question of how many were lost.
    drop(clients.drain(..10));
    let lost = &["reason=\"lost\""][..];
    proxy.expect_metric("ringway_accept_errors_total", lost, 1.0);
    let lost = proxy.metric("ringway_accept_errors_total", lost);
    let is_served = |client: &mut Client| client.try_send("x") && matches!(client.stream.read(&mut [0]), Ok(1));
    let served = clients.iter_mut().map(is_served).filter(|served| *served).count();
    assert!(served > 0);
    let reset = (clients.len() - served) as f64;
    assert_eq!(reset, lost);
    drop(clients);
    assert_eq!(proxy.wait(40), Some(0));
}

#[test]
fn connections_go_to_the_worker_on_whose_core_they_arrive() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).unwrap();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    // Nothing to choose from on a single core.
    let Some(two) = cores.get(..2) else { return };
    let options = Options { workers: 2, arguments: vec!["--steer".to_owned()], ..Options::default() };
    let proxy = Proxy::with(&config(ONE, &backend("origin", &["echo"])), &options);
    for (worker, core) in two.iter().enumerate() {
        // On loopback a connection arrives on its client's core.
        let mut only = CpuSet::new();
        only.set(*core);
        sched_setaffinity(None, &only).unwrap();
        let clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
        proxy.expect_metric("ringway_worker_connections", &[&format!("worker=\"{worker}\"")], 20.0);
        drop(clients);
        crate::support::eventually("they are gone", || proxy.metric("ringway_worker_connections", &[]) == 0.0);
    }
}
