//! UDP routes.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::proxy::{Options, Proxy, backend, gateway, policy};
use crate::support::{address, eventually, port_of_every_address};

const ONE: &str = "{group: ringway.dev, kind: Backend, name: origin}";

fn route(name: &str, parent: &str, split: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge{parent}}}]\n  rules: [{{backendRefs: [{split}]}}]\n"
    )
}

fn config(split: &str, backends: &str) -> String {
    gateway("  - {name: raw, port: 8080, protocol: UDP}\n") + &route("raw", "", split) + backends
}

/// A client with a port of its own.
fn client(proxy: &str) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(proxy).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let n = socket.recv(&mut buffer).unwrap();
    buffer.truncate(n);
    buffer
}

/// Whether a question gets no answer.
fn is_lost(socket: &UdpSocket, question: &[u8]) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.send(question).unwrap();
    let lost = socket.recv(&mut [0; 64]).is_err();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    lost
}

/// An endpoint that answers with its name and what it got, `times` over.
struct Endpoint {
    address: String,
    /// Different sources seen.
    sources: Arc<std::sync::Mutex<std::collections::HashSet<std::net::SocketAddr>>>,
    seen: Arc<AtomicUsize>,
}

fn endpoint(name: &'static str, times: usize) -> Endpoint {
    let socket = UdpSocket::bind(format!("{}:0", address())).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let sources = Arc::new(std::sync::Mutex::default());
    let seen = Arc::new(AtomicUsize::new(0));
    let (all, count) = (Arc::clone(&sources), Arc::clone(&seen));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let known: &std::sync::Mutex<std::collections::HashSet<_>> = &all;
            known.lock().unwrap().insert(from);
            count.fetch_add(1, Ordering::Relaxed);
            let answer = [name.as_bytes(), &buffer[..n]].concat();
            for _ in 0..times {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    Endpoint { address, sources, seen }
}

#[test]
fn datagrams_of_every_length_pass_both_ways() {
    let origin = endpoint("", 1);
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let client = client(&proxy.address);
    for length in [0, 1, 128, 512, 1472, 1500, 9000, 32_768, 65_507] {
        let question: Vec<u8> = (0..length).map(|at: usize| (at * 7 % 256).to_le_bytes()[0]).collect();
        assert!(ask(&client, &question) == question, "{length} bytes");
    }
    proxy.expect_metric("ringway_bytes_total", &["direction=\"in\""], 65_507.0);
    proxy.expect_metric("ringway_bytes_total", &["direction=\"out\""], 65_507.0);
    assert_eq!(proxy.metric("ringway_connections_active", &[]), 1.0);
}

/// Bursts of one flow leave as one message, which arrives as the same datagrams.
#[test]
fn bursts_pass_both_ways() {
    let origin = endpoint("", 1);
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let clients: Vec<UdpSocket> = (0..4).map(|_| client(&proxy.address)).collect();
    for lengths in [[1200; 8], [1200, 1200, 1200, 17, 1200, 1200, 1, 0], [9000, 9000, 1, 2, 3, 3, 3, 1472]] {
        for client in &clients {
            for (number, length) in lengths.iter().enumerate() {
                client.send(&vec![u8::try_from(number).unwrap(); *length]).unwrap();
            }
        }
        for client in &clients {
            for (number, length) in lengths.iter().enumerate() {
                let mut buffer = vec![0; 64 << 10];
                let n = client.recv(&mut buffer).unwrap();
                assert_eq!((n, &buffer[..n]), (*length, &*vec![u8::try_from(number).unwrap(); *length]));
            }
        }
    }
}

#[test]
fn many_clients_get_their_own_answers() {
    let origin = endpoint("", 3);
    let proxy = Proxy::start(&config(ONE, &backend("origin", &[&origin.address])));
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let address = proxy.address.clone();
            std::thread::spawn(move || {
                let clients: Vec<UdpSocket> = (0..50).map(|_| client(&address)).collect();
                for round in 0..10_u32 {
                    for (number, client) in clients.iter().enumerate() {
                        client.send(format!("{thread} {number} {round}").as_bytes()).unwrap();
                        if number % 10 == 9 {
                            for (other, client) in clients.iter().enumerate().skip(number - 9).take(10) {
                                let expected = format!("{thread} {other} {round}");
                                for _ in 0..3 {
                                    let mut buffer = [0; 64];
                                    let n = client.recv(&mut buffer).unwrap();
                                    assert_eq!(&buffer[..n], expected.as_bytes());
                                }
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(origin.sources.lock().unwrap().len(), 200, "each client has a socket of its own towards the endpoint");
    assert_eq!(origin.seen.load(Ordering::Relaxed), 2000);
    proxy.expect_metric("ringway_connections_total", &[], 200.0);
}

#[test]
fn flows_are_split_by_weight_and_stay_where_they_are() {
    let (one, two) = (endpoint("1", 1), endpoint("2", 1));
    let split = "{group: ringway.dev, kind: Backend, name: one, weight: 3}, {group: ringway.dev, kind: Backend, name: two, weight: 1}";
    let yaml = config(split, &(backend("one", &[&one.address]) + &backend("two", &[&two.address])));
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let mut ones = 0;
    // All at once: a port that is used again would find its flow.
    let clients: Vec<UdpSocket> = (0..40).map(|_| client(&proxy.address)).collect();
    for client in &clients {
        let first = ask(client, b"");
        ones += usize::from(first == b"1");
        for _ in 0..3 {
            assert_eq!(ask(client, b""), first);
        }
    }
    assert_eq!(ones, 30);
}

#[test]
fn shares_of_invalid_backends_are_dropped() {
    let origin = endpoint("", 1);
    let split = "{group: ringway.dev, kind: Backend, name: origin, weight: 1}, {group: ringway.dev, kind: Backend, name: nobody, weight: 1}";
    let yaml = config(split, &backend("origin", &[&origin.address]));
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let clients: Vec<UdpSocket> = (0..10).map(|_| client(&proxy.address)).collect();
    let lost = clients.iter().filter(|client| is_lost(client, b"x")).count();
    assert_eq!(lost, 5);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"invalid_backend\""], 5.0);
    proxy.reload(&gateway("  - {name: raw, port: 8080, protocol: UDP}\n"));
    assert!(is_lost(&client(&proxy.address), b"x"));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"no_route\""], 1.0);
    proxy.reload(&config(ONE, &backend("origin", &[])));
    assert!(is_lost(&client(&proxy.address), b"x"));
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"no_endpoint\""], 1.0);
}

#[test]
fn the_built_in_echo_returns_datagrams() {
    let proxy = Proxy::start(&config(ONE, &backend("origin", &["echo"])));
    assert_eq!(ask(&client(&proxy.address), b"hello"), b"hello");
}

#[test]
fn quiet_flows_end() {
    let origin = endpoint("", 1);
    let yaml =
        config(ONE, &backend("origin", &[&origin.address])) + &policy("  timeout: {udp: {idleTimeout: 300ms}}\n");
    let proxy = Proxy::start(&yaml);
    let client = client(&proxy.address);
    let descriptors = proxy.descriptors();
    ask(&client, b"x");
    eventually("the flow has ended", || proxy.metric("ringway_connections_active", &[]) == 0.0);
    ask(&client, b"x");
    assert_eq!(origin.sources.lock().unwrap().len(), 2);
    eventually("its socket is closed", || proxy.descriptors() <= descriptors);
}

#[test]
fn a_flood_of_sources_is_bounded_and_talkers_stay() {
    let origin = endpoint("", 1);
    let yaml = config(ONE, &backend("origin", &[&origin.address])) + &policy("  limits: {udpFlows: 50}\n");
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let talker = client(&proxy.address);
    assert_eq!(ask(&talker, b"hello"), b"hello");
    for round in 0..100 {
        let flood: Vec<UdpSocket> = (0..20).map(|_| client(&proxy.address)).collect();
        for source in &flood {
            source.send(b"flood").unwrap();
        }
        assert_eq!(ask(&talker, b"still here"), b"still here", "round {round}");
    }
    assert!(proxy.metric("ringway_connections_active", &[]) <= 50.0);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"flow_evicted\""], 1000.0);
    let local = origin.sources.lock().unwrap().len();
    assert!(local > 100, "{local}");
    // The talker's flow is still the one it began with.
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

#[test]
fn flows_make_room_when_descriptors_run_out() {
    let origin = endpoint("", 1);
    let yaml = config(ONE, &backend("origin", &[&origin.address]));
    let options = Options { workers: 1, descriptors: Some(80), ..Options::default() };
    let proxy = Proxy::with(&yaml, &options);
    let clients: Vec<UdpSocket> = (0..300).map(|_| client(&proxy.address)).collect();
    for client in &clients {
        assert_eq!(ask(client, b"x"), b"x");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"flow_evicted\""], 200.0);
}

#[test]
fn an_endpoint_that_is_not_there_is_noticed() {
    let gone = UdpSocket::bind(format!("{}:0", address())).unwrap().local_addr().unwrap().to_string();
    let origin = endpoint("", 1);
    let yaml = config(ONE, &backend("origin", &[&gone, &origin.address]));
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let clients: Vec<UdpSocket> = (0..4).map(|_| client(&proxy.address)).collect();
    for client in &clients {
        // The first datagram may meet the dead endpoint, whose ICMP answer ends the flow; a later one finds the other.
        eventually("an answer comes", || !is_lost(client, b"x"));
    }
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"connect_refused\""], 1.0);
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let origin = endpoint("", 1);
    let port = port_of_every_address();
    let anywhere = gateway(&format!("  - {{name: raw, port: {port}, protocol: UDP}}\n"));
    let anywhere = anywhere.replace("  addresses: [{type: IPAddress, value: \"{ip}\"}]\n", "");
    let proxy = Proxy::start(&(anywhere + &route("raw", "", ONE) + &backend("origin", &[&origin.address])));
    for ip in ["127.0.0.1", "127.3.4.5", "[::1]"] {
        let socket = UdpSocket::bind(if ip == "[::1]" { "[::1]:0" } else { "127.0.0.1:0" });
        // A machine may have no IPv6; a connected socket takes answers of the address that it is connected to only.
        let Ok(socket) = socket else { continue };
        socket.connect(format!("{ip}:{port}")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ask(&socket, ip.as_bytes()), ip.as_bytes());
    }
    drop(proxy);
}

#[test]
fn the_oldest_route_of_a_listener_serves_it_and_parents_choose_by_name_and_port() {
    let (one, two, three) = (endpoint("1", 1), endpoint("2", 1), endpoint("3", 1));
    let reference = |name: &str| format!("{{group: ringway.dev, kind: Backend, name: {name}}}");
    let backends =
        backend("one", &[&one.address]) + &backend("two", &[&two.address]) + &backend("three", &[&three.address]);
    let listeners = gateway(
        "  - {name: a, port: 8080, protocol: UDP}\n  - {name: b, port: 8081, protocol: UDP}\n  - {name: tcp, port: 8080, protocol: TCP}\n",
    );
    let yaml = listeners
        + &route("first", ", sectionName: a", &reference("one"))
        + &route("second", ", sectionName: a", &reference("two"))
        + &route("third", ", port: 8081", &reference("three"))
        + &backends;
    let proxy = Proxy::start(&yaml);
    assert_eq!(ask(&client(&proxy.address), b""), b"1");
    assert_eq!(ask(&client(&proxy.port(8081)), b""), b"3");
    // The older one goes, and the next has the listener.
    proxy.reload(&yaml.replace("metadata: {name: first}", "metadata: {name: zeta}"));
    assert_eq!(ask(&client(&proxy.address), b""), b"2");
}

#[test]
fn a_drain_passes_answers_that_are_on_their_way() {
    let slow = UdpSocket::bind(format!("{}:0", address())).unwrap();
    let mut proxy = Proxy::start(&config(ONE, &backend("origin", &[&slow.local_addr().unwrap().to_string()])));
    let client = client(&proxy.address);
    client.send(b"question").unwrap();
    let mut buffer = [0; 64];
    let (n, from) = slow.recv_from(&mut buffer).unwrap();
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    slow.send_to(&buffer[..n], from).unwrap();
    let n = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"question");
    assert_eq!(proxy.wait(20), Some(0));
}
