//! TCPRoute and UDPRoute with traffic.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::support::address;
use crate::support::client::Client;

/// Endpoints of either transport that answer with their name; a Service `NAME` on port 80 for each.
struct Named {
    tcp: Origin,
    udp: UdpSocket,
    name: &'static str,
}

impl Named {
    fn new(name: &'static str) -> Self {
        let tcp = Origin::script(move |mut conn, _| {
            if conn.fill() {
                conn.send(name);
            }
            conn.close();
        });
        let udp = UdpSocket::bind(format!("{}:0", address())).unwrap();
        let answering = udp.try_clone().unwrap();
        std::thread::spawn(move || {
            while let Ok((_, from)) = answering.recv_from(&mut [0; 64]) {
                let _sent = answering.send_to(name.as_bytes(), from);
            }
        });
        Self { tcp, udp, name }
    }

    fn service(&self, namespace: &str) -> String {
        let (udp, name) = (self.udp.local_addr().unwrap(), self.name);
        let (ip, port) = self.tcp.address.rsplit_once(':').unwrap();
        let slice = |number: u8, ip: &str, port: &str, protocol: &str| {
            let label = format!("labels: {{kubernetes.io/service-name: {name}}}");
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{number}, namespace: {namespace}, {label}}}\naddressType: IPv4\nports: [{{name: {protocol}, port: {port}, protocol: {protocol}}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
            )
            .replace("name: TCP", "name: t")
            .replace("name: UDP", "name: u")
        };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{name: t, port: 80}}, {{name: u, port: 80, protocol: UDP}}]}}\n"
        ) + &slice(1, ip, port, "TCP")
            + &slice(2, &udp.ip().to_string(), &udp.port().to_string(), "UDP")
    }
}

const KINDS: [(&str, &str); 2] = [("TCPRoute", "TCP"), ("UDPRoute", "UDP")];

/// Who answers at a port; `-` for nobody.
fn who(proxy: &Proxy, port: u16, kind: &str) -> String {
    if kind == "TCPRoute" {
        // The reset may be there before the handshake has been seen to be done.
        let Ok(mut client) = Client::try_connect(&proxy.port(port)) else { return "-".to_owned() };
        client.try_send("who?");
        return client.rest().map_or_else(|_| "-".to_owned(), |name| String::from_utf8(name).unwrap());
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket.connect(proxy.port(port)).unwrap();
    socket.send(b"who?").unwrap();
    let mut name = [0; 64];
    socket.recv(&mut name).map_or_else(|_| "-".to_owned(), |n| String::from_utf8_lossy(&name[..n]).into_owned())
}

fn listener(name: &str, port: u16, protocol: &str) -> String {
    format!("  - {{name: {name}, port: {port}, protocol: {protocol}}}\n")
}

fn stream_route(kind: &str, name: &str, parents: &str, split: &str) -> String {
    object(kind, name, &format!("  parentRefs: [{parents}]\n  rules: [{{backendRefs: [{split}]}}]"))
}

/// UDPRoute
#[test]
fn udp_route() {
    let one = Named::new("one");
    let yaml = gateway(&listener("l", 9000, "UDP"))
        + &stream_route("UDPRoute", "r", "{name: same-namespace}", "{name: one, port: 80}")
        + &one.service("infra");
    assert_eq!(who(&Proxy::start(&yaml), 9000, "UDPRoute"), "one");
}

/// TCPRouteMultipleRoutesAttachment, UDPRouteMultipleRoutesAttachment: the oldest route has the traffic, and when it goes
/// the next has it.
#[test]
fn stream_routes_multiple_routes_attachment() {
    let (one, two) = (Named::new("one"), Named::new("two"));
    for (kind, protocol) in KINDS {
        let old = stream_route(kind, "z-old", "{name: same-namespace}", "{name: one, port: 80}")
            .replace("{name: z-old, ", "{name: z-old, creationTimestamp: '2026-01-01T00:00:00Z', ");
        let new = stream_route(kind, "a-new", "{name: same-namespace}", "{name: two, port: 80}")
            .replace("{name: a-new, ", "{name: a-new, creationTimestamp: '2026-02-01T00:00:00Z', ");
        let base = gateway(&listener("l", 9000, protocol)) + &one.service("infra") + &two.service("infra");
        let proxy = Proxy::start(&format!("{base}{old}{new}"));
        assert_eq!(who(&proxy, 9000, kind), "one");
        proxy.reload(&format!("{base}{new}"));
        assert_eq!(who(&proxy, 9000, kind), "two");
    }
}

/// TCPRouteParentRefAttachAll, UDPRouteParentRefAttachAllListeners
#[test]
fn stream_routes_attach_to_all_listeners() {
    let one = Named::new("one");
    for (kind, protocol) in KINDS {
        let yaml = gateway(&(listener("a", 9000, protocol) + &listener("b", 9001, protocol)))
            + &stream_route(kind, "r", "{name: same-namespace}", "{name: one, port: 80}")
            + &one.service("infra");
        let proxy = Proxy::start(&yaml);
        for port in [9000, 9001] {
            assert_eq!(who(&proxy, port, kind), "one", "{kind} {port}");
        }
    }
}

/// TCPRouteParentRefPortAndSectionName, UDPRouteParentRefPortAndSectionName
#[test]
fn stream_routes_choose_listeners_by_port_and_section_name() {
    let (one, two) = (Named::new("one"), Named::new("two"));
    for (kind, protocol) in KINDS {
        let yaml =
            gateway(&(listener("a", 9000, protocol) + &listener("b", 9001, protocol) + &listener("c", 9002, protocol)))
                + &stream_route(
                    kind,
                    "one",
                    "{name: same-namespace, sectionName: a, port: 9000}",
                    "{name: one, port: 80}",
                )
                + &stream_route(kind, "two", "{name: same-namespace, port: 9001}", "{name: two, port: 80}")
                + &one.service("infra")
                + &two.service("infra");
        let proxy = Proxy::start(&yaml);
        for (port, expected) in [(9000, "one"), (9001, "two"), (9002, "-")] {
            assert_eq!(who(&proxy, port, kind), expected, "{kind} {port}");
        }
    }
}

/// TCPRouteReferenceGrant, UDPRouteReferenceGrant: traffic passes while there is a grant.
#[test]
fn stream_routes_reference_grant() {
    let one = Named::new("one");
    for (kind, protocol) in KINDS {
        let base = gateway(&listener("l", 9000, protocol))
            + &stream_route(kind, "r", "{name: same-namespace}", "{name: one, namespace: elsewhere, port: 80}")
            + &one.service("elsewhere");
        let grant = gateway::granted(kind, "infra", ", name: one");
        let proxy = Proxy::start(&(base.clone() + &grant));
        assert_eq!(who(&proxy, 9000, kind), "one", "{kind}");
        proxy.reload(&base);
        assert_eq!(who(&proxy, 9000, kind), "-", "{kind}");
        proxy.reload(&(base + &grant));
        assert_eq!(who(&proxy, 9000, kind), "one", "{kind}");
    }
}

/// TCPRouteWeightedRouting, UDPRouteWeightedRouting
#[test]
fn stream_routes_weighted_routing() {
    let (one, two, three) = (Named::new("one"), Named::new("two"), Named::new("three"));
    for (kind, protocol) in KINDS {
        let split =
            "{name: one, port: 80, weight: 70}, {name: two, port: 80, weight: 30}, {name: three, port: 80, weight: 0}";
        let yaml = gateway(&listener("l", 9000, protocol))
            + &stream_route(kind, "r", "{name: same-namespace}", split)
            + &one.service("infra")
            + &two.service("infra")
            + &three.service("infra");
        let proxy = Proxy::start(&yaml);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..500 {
            *counts.entry(who(&proxy, 9000, kind)).or_default() += 1;
        }
        assert!(counts["one"].abs_diff(350) <= 25 && counts["two"].abs_diff(150) <= 25, "{kind} {counts:?}");
        assert!(!counts.contains_key("three"), "{kind} {counts:?}");
    }
}
