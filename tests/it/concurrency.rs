//! How much a client may have under way: requests (RateLimitPolicy `maxConcurrentRequests`) and connections (ClientPolicy
//! `connectionLimit.perClient`), over all cores, and given back however they end.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::{Client, Response};
use crate::support::eventually;
use crate::support::h2::{CANCEL, DATA, H2};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, config, gateway, policy};
use crate::support::tls::{Authority, ClientOptions, Connector};
use crate::tls::https;

/// An origin that answers `/hold` and `/late` when its gate is open, and everything else at once: `/cut` by closing, `/half` by half
/// an answer, `/chat` by switching protocols.
struct Gate {
    origin: Origin,
    open: Arc<AtomicBool>,
}

impl Gate {
    fn new() -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&open);
        let origin = Origin::script(move |mut conn, seen| {
            while let Some(mut request) = conn.head() {
                let target = request.target.clone();
                seen.lock().unwrap().push(request.clone());
                match target.as_str() {
                    "/hold" | "/late" | "/hold/asking" => {
                        while !gate.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                    "/cut" => return,
                    "/half" => {
                        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                        return conn.abort();
                    }
                    "/chat" => {
                        conn.send(
                            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi",
                        );
                        while conn.fill() {}
                        return;
                    }
                    _ => {}
                }
                if !conn.body(&mut request) || !conn.reply("200 OK", "ok") {
                    return;
                }
            }
        });
        Self { origin, open }
    }

    /// How many requests for a path have come.
    fn came(&self, target: &str) -> usize {
        self.origin.requests().iter().filter(|request| request.target == target).count()
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// A RateLimitPolicy for the Gateway.
fn limits(rules: &str) -> String {
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: limits}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]\n  rules: [{rules}]\n"
    )
}

const BELIEVED: &str = "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8]}}\n";

fn start(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 4, ..Options::default() })
}

/// A request that is under way: it has come to the origin. What has just been answered may still be counted for a moment,
/// so it comes again while it is refused.
fn begin(proxy: &Proxy, gate: &Gate, path: &str, fields: &str) -> Client {
    let mut begun = None;
    eventually("the request comes to the origin", || {
        let before = gate.came(path);
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x.example\r\n{fields}\r\n"));
        client.stream.set_nonblocking(true).unwrap();
        while gate.came(path) == before {
            if client.stream.peek(&mut [0]).is_ok() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        client.stream.set_nonblocking(false).unwrap();
        begun = Some(client);
        true
    });
    begun.unwrap()
}

fn ask(proxy: &Proxy, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("GET /quick HTTP/1.1\r\nHost: x.example\r\n{fields}\r\n"));
    client.response()
}

fn forwarded(client: &str) -> String {
    format!("X-Forwarded-For: {client}\r\n")
}

#[test]
fn requests_under_way_are_limited_for_each_client_over_all_cores() {
    let gate = Gate::new();
    let yaml = config(&[&gate.origin.address], "")
        + &policy(BELIEVED)
        + &limits("{maxConcurrentRequests: 3, exemptCIDRs: [198.51.100.0/24]}");
    let proxy = start(&yaml);
    let one = forwarded("192.0.2.1");
    let mut held: Vec<Client> = (0..3).map(|_| begin(&proxy, &gate, "/hold", &one)).collect();
    // Other connections are on other cores, and the client is the same.
    for _ in 0..12 {
        let refused = ask(&proxy, &one);
        assert_eq!((refused.status, refused.header("retry-after")), (429, None));
    }
    // Who is believed says who the client is; others do not have what this one has.
    for other in ["192.0.2.2", "192.0.2.1, 192.0.2.3", "2001:db8::1"] {
        assert_eq!(ask(&proxy, &forwarded(other)).status, 200, "{other}");
    }
    // A network of 64 bits is one client.
    held.extend(
        ["2001:db8::1", "2001:db8::2", "2001:db8::2"].map(|six| begin(&proxy, &gate, "/hold", &forwarded(six))),
    );
    assert_eq!(ask(&proxy, &forwarded("2001:db8::3")).status, 429);
    assert_eq!(ask(&proxy, &forwarded("2001:db8:0:1::1")).status, 200);
    let exempt = forwarded("198.51.100.7");
    held.extend((0..5).map(|_| begin(&proxy, &gate, "/hold", &exempt)));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"concurrency_limited\""], 13.0);
    gate.open();
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
    eventually("the client's requests have ended", || ask(&proxy, &one).status == 200);
    assert_eq!(proxy.metric("ringway_downstream_errors_total", &["reason=\"limit_full\""]), 0.0);
    // Connections that a refused request came on, and one that was held, are of use.
    assert_eq!(held[0].get("/quick").status, 200);
}

#[test]
fn limits_by_header_and_by_route_hold_together() {
    let gate = Gate::new();
    let rules = "{maxConcurrentRequests: 1, key: {type: Header, header: X-Key}}, {maxConcurrentRequests: 3, key: {type: Route}}";
    let proxy = start(&(config(&[&gate.origin.address], "") + &limits(rules)));
    let a = begin(&proxy, &gate, "/hold", "X-Key: a\r\n");
    assert_eq!(ask(&proxy, "X-Key: a\r\n").status, 429);
    assert_eq!(ask(&proxy, "X-Key: b\r\n").status, 200);
    // What one limit refuses has no place in another: there is room for two.
    let mut others = [begin(&proxy, &gate, "/hold", ""), begin(&proxy, &gate, "/hold", "X-Key: b\r\n")];
    assert_eq!((ask(&proxy, "").status, ask(&proxy, "X-Key: c\r\n").status), (429, 429));
    a.abort();
    eventually("there is a place", || ask(&proxy, "X-Key: a\r\n").status == 200);
    gate.open();
    assert!(others.iter_mut().all(|client| client.response().status == 200));
}

#[test]
fn what_ends_in_any_way_is_no_longer_under_way() {
    let gate = Gate::new();
    let rule = "  - matches: [{path: {value: /late}}]\n    timeouts: {request: 1s}\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  - matches: [{path: {value: /moved}}]\n    filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example}}]\n  - matches: [{path: {value: /dead}}]\n    backendRefs: [{group: ringway.dev, kind: Backend, name: dead}]\n";
    let yaml = config(&[&gate.origin.address], rule)
        + &backend("dead", &["127.0.0.1:1"])
        + &limits("{maxConcurrentRequests: 1, key: {type: Route}}");
    let proxy = start(&yaml);
    let free = |after: &str| eventually(&format!("there is a place after {after}"), || ask(&proxy, "").status == 200);
    let taken = |by: &str| assert_eq!(ask(&proxy, "").status, 429, "{by}");

    begin(&proxy, &gate, "/hold", "").abort();
    free("a client's reset");
    // Nobody answers in time.
    let mut late = begin(&proxy, &gate, "/late", "");
    assert_eq!(late.response().status, 504);
    free("a request that took too long");
    for (path, status) in [("/cut", 502), ("/moved", 302), ("/dead", 502), ("/quick", 200)] {
        eventually(path, || proxy.client().get(path).status == status);
        free(path);
    }
    eventually("half an answer", || {
        let mut half = proxy.client();
        half.send("GET /half HTTP/1.1\r\nHost: x.example\r\n\r\n");
        half.response_to("GET").is_err()
    });
    free("an answer that was cut");
    // A body that does not end, and a client that takes it back.
    let mut body = begin(&proxy, &gate, "/body", "Content-Length: 1000000\r\n");
    body.send("some");
    taken("a body that is on its way");
    body.abort();
    free("half a body");
    // Another protocol is under way for as long as it is spoken.
    let mut chat = begin(&proxy, &gate, "/chat", "Connection: upgrade\r\nUpgrade: websocket\r\n");
    assert_eq!(chat.response_to("GET").unwrap().status, 101);
    assert_eq!(chat.raw(2), b"hi");
    taken("a connection that speaks another protocol");
    drop(chat);
    free("another protocol");
    assert_eq!(proxy.metric("ringway_panics_total", &[]), 0.0);
}

#[test]
fn streams_of_http_2_are_requests_of_their_client() {
    let gate = Gate::new();
    let authority = Authority::new("ca");
    let rules = limits("{maxConcurrentRequests: 2}");
    let plain = start(&(config(&[&gate.origin.address], "") + &rules));
    let secure = start(&(https(&authority, &[&gate.origin.address]) + &rules));
    let options = ClientOptions { alpn: &["h2"], ..ClientOptions::default() };
    let tls = Connector::with(&authority, options).open(&secure.address, "site.example").unwrap();
    streams(&gate, H2::connect(&plain.address));
    streams(&gate, H2::over(tls));
    eventually("nothing is under way", || ask(&plain, "").status == 200);
}

fn streams<S: std::io::Read + std::io::Write>(gate: &Gate, mut client: H2<S>) {
    let before = gate.came("/hold");
    let fields = |path| [(":method", "GET"), (":scheme", "http"), (":authority", "site.example"), (":path", path)];
    let held = [client.open(&fields("/hold"), true), client.open(&fields("/hold"), true)];
    eventually("both come to the origin", || gate.came("/hold") == before + 2);
    let refused = client.open(&fields("/quick"), true);
    assert_eq!(client.answer(refused).status(), 429);
    let again = |client: &mut H2<S>, what: &str| {
        eventually(what, || {
            let stream = client.open(&fields("/quick"), true);
            client.answer(stream).status() == 200
        });
    };
    client.reset(held[0], CANCEL);
    again(&mut client, "a stream's place is free when it is reset");
    // A tunnel is a request until it ends.
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "site.example"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    let mut tunnel = 0;
    eventually("a tunnel is there", || {
        tunnel = client.open(&connect, false);
        while client.answers.get(&tunnel).is_none_or(|answer| answer.body.len() < 2) {
            assert!(client.step(), "{:?}", client.answers);
        }
        client.answers[&tunnel].status() == 200
    });
    client.frame(DATA, 0, tunnel, b"more");
    let refused = client.open(&fields("/quick"), true);
    assert_eq!(client.answer(refused).status(), 429);
    client.reset(tunnel, CANCEL);
    again(&mut client, "a tunnel's place is free when it ends");
    drop(client);
}

#[test]
fn a_reload_keeps_what_is_under_way_and_goes_by_the_new_limit() {
    let gate = Gate::new();
    let yaml = |most: u32, more: &str| {
        config(&[&gate.origin.address], "") + &limits(&format!("{{maxConcurrentRequests: {most}}}{more}"))
    };
    let proxy = start(&yaml(2, ""));
    let mut held: Vec<Client> = (0..2).map(|_| begin(&proxy, &gate, "/hold", "")).collect();
    assert_eq!(ask(&proxy, "").status, 429);
    proxy.reload(&yaml(2, ", {limit: {requests: 1000, unit: Second}}"));
    assert_eq!(ask(&proxy, "").status, 429);
    proxy.reload(&yaml(3, ""));
    held.push(begin(&proxy, &gate, "/hold", ""));
    assert_eq!(ask(&proxy, "").status, 429);
    proxy.reload(&yaml(1, ""));
    // Below what there is: nothing more until there is less than that.
    held.pop().unwrap().abort();
    held.pop().unwrap().abort();
    eventually("they have ended", || proxy.metric("ringway_connections_active", &[]) == 1.0);
    assert_eq!(ask(&proxy, "").status, 429);
    gate.open();
    assert_eq!(held[0].response().status, 200);
    eventually("nothing is under way", || ask(&proxy, "").status == 200);
}

#[test]
fn a_request_that_has_to_be_asked_for_is_under_way_meanwhile() {
    let gate = Gate::new();
    let origin = Origin::echo();
    let filter = "    filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {group: ringway.dev, kind: Backend, name: auth}, http: {path: /hold}}}]\n";
    let asking = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: asking}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n  - matches: [{path: {value: /asking}}]\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n".to_owned()
        + filter;
    let yaml = config(&[&origin.address], "")
        + &asking
        + &backend("auth", &[&gate.origin.address])
        + &limits("{maxConcurrentRequests: 1}");
    let proxy = start(&yaml);
    let mut client = proxy.client();
    client.send("GET /asking HTTP/1.1\r\nHost: x.example\r\n\r\n");
    eventually("it is asked for", || gate.origin.requests().len() == 1);
    assert_eq!(ask(&proxy, "").status, 429);
    gate.open();
    // It does not stand in its own way when it is decided about again.
    assert_eq!(client.response().status, 200);
    eventually("it has ended", || ask(&proxy, "").status == 200);
    eventually("it comes again", || client.get("/asking").status == 200);
}

/// A connection from an address.
fn from(source: &str, address: &str) -> std::io::Result<Client> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    socket.connect(&address.parse::<SocketAddr>().unwrap().into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(Client::over(stream))
}

/// Whether it is served: what it says is answered.
fn is_served(client: &mut Client, hello: &str) -> bool {
    client.try_send(hello) && client.stream.peek(&mut [0]).is_ok_and(|count| count > 0)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x.example\r\n\r\n";

#[test]
fn each_client_has_so_many_connections_on_all_cores() {
    let authority = Authority::new("ca");
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: raw, port: 9000, protocol: TCP}\n  - {name: tls, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listeners)
        + &backend("echo", &["echo"])
        + &authority.leaf(&["site.example"]).secret("site")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all}\nspec:\n  parentRefs: [{name: edge, sectionName: web}, {name: edge, sectionName: tls}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]}]\n"
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge, sectionName: raw}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]}]\n"
        + &policy("  connection: {connectionLimit: {perClient: {value: 2, exemptCIDRs: [127.88.0.3]}}}\n");
    let proxy = start(&yaml);
    // Every port counts for itself.
    for (port, hello) in [(8080, GET), (9000, "hello")] {
        let address = proxy.port(port);
        let open = |source: &str| {
            let mut client = from(source, &address).ok()?;
            is_served(&mut client, hello).then_some(client)
        };
        let mut mine: Vec<Client> = (0..2).map(|_| open("127.88.0.1").unwrap()).collect();
        assert!((0..8).all(|_| open("127.88.0.1").is_none()), "{port}");
        let others: Vec<Client> = (0..2).map(|_| open("127.88.0.2").unwrap()).collect();
        assert!(open("127.88.0.2").is_none());
        let exempt: Vec<Client> = (0..6).map(|_| open("127.88.0.3").unwrap()).collect();
        // A place is free when a connection ends, in order or not.
        drop(mine.pop());
        eventually("a place is free", || open("127.88.0.1").is_some());
        mine.pop().unwrap().abort();
        eventually("both are free", || {
            let two = (open("127.88.0.1"), open("127.88.0.1"));
            two.0.is_some() && two.1.is_some()
        });
        drop((others, exempt));
    }
    let (connector, address) = (Connector::new(&authority), proxy.port(8443));
    let mut two = [connector.client(&address, "site.example"), connector.client(&address, "site.example")];
    assert!(two.iter_mut().all(|client| client.get("/").status == 200));
    assert!(connector.connect(&address, "site.example").is_err());
    assert!(proxy.metric("ringway_accept_errors_total", &["reason=\"client_limit\""]) >= 19.0);
    assert_eq!(proxy.metric("ringway_downstream_errors_total", &["reason=\"limit_full\""]), 0.0);
}

#[test]
fn connections_are_those_of_whom_the_proxy_header_names() {
    let spec = "  proxyProtocol: {trustedCIDRs: [127.0.0.0/8], optional: true}\n  connection: {connectionLimit: {perClient: {value: 1, exemptCIDRs: [192.0.2.200]}}}\n";
    let proxy = start(&(config(&["echo"], "") + &policy(spec)));
    let open = |header: &str| {
        let mut client = proxy.client();
        (client.try_send(format!("{header}{GET}")) && client.response_to("GET").is_ok()).then_some(client)
    };
    let named = |source: &str| {
        let family = if source.contains(':') { "TCP6" } else { "TCP4" };
        let to = if source.contains(':') { "::1" } else { "198.51.100.1" };
        format!("PROXY {family} {source} {to} 1000 443\r\n")
    };
    let one = open(&named("192.0.2.1"));
    assert!(one.is_some() && open(&named("192.0.2.1")).is_none());
    let others: Vec<_> = ["192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"].map(|source| open(&named(source))).into();
    assert!(others.iter().all(Option::is_some));
    assert!(open(&named("2001:db8::ffff")).is_none(), "a network of 64 bits is one client");
    let exempt: Vec<_> = (0..3).map(|_| open(&named("192.0.2.200"))).collect();
    assert!(exempt.iter().all(Option::is_some));
    // Who names nobody is who it is.
    let itself = open("");
    assert!(itself.is_some() && open("").is_none());
    drop(one);
    eventually("the place is free", || open(&named("192.0.2.1")).is_some());
    proxy.expect_metric("ringway_accept_errors_total", &["reason=\"client_limit\""], 3.0);
}

#[test]
fn a_reload_keeps_the_connections_of_each_client() {
    let yaml = |value: u32, more: &str| {
        config(&["echo"], "")
            + &policy(&format!("  connection: {{connectionLimit: {{perClient: {{value: {value}}}}}{more}}}\n"))
    };
    let proxy = start(&yaml(2, ""));
    let open = || {
        let mut client = Client::try_connect(&proxy.address).ok()?;
        (client.try_send(GET) && client.response_to("GET").is_ok()).then_some(client)
    };
    let mut all = vec![open().unwrap(), open().unwrap()];
    proxy.reload(&yaml(3, ""));
    all.push(open().unwrap());
    assert!(open().is_none());
    // The socket is bound anew.
    proxy.reload(&yaml(3, ", backlog: 100"));
    assert!(open().is_none());
    proxy.reload(&yaml(4, ", backlog: 100"));
    all.push(open().unwrap());
    assert!(open().is_none());
    assert!(all.iter_mut().all(|client| client.get("/").status == 200));
    all.clear();
    eventually("all places are free", || {
        let four: Vec<_> = (0..4).map(|_| open()).collect();
        four.iter().all(Option::is_some)
    });
}

/// A table has room for its keys; who comes beyond that is let pass and counted.
#[test]
fn a_full_table_refuses_nobody() {
    let gate = Gate::new();
    let rules = "{maxConcurrentRequests: 1, key: {type: Header, header: X-Key}, maxKeys: 8}";
    let proxy = start(&(config(&[&gate.origin.address], "") + &limits(rules)));
    let held: Vec<Client> = (0..60).map(|key| begin(&proxy, &gate, "/hold", &format!("X-Key: {key}\r\n"))).collect();
    let full = proxy.metric("ringway_downstream_errors_total", &["reason=\"limit_full\""]);
    // Five lines of seven places.
    assert!((25.0..60.0).contains(&full), "{full}");
    held.into_iter().for_each(Client::abort);
    eventually("everything has ended", || proxy.metric("ringway_connections_active", &[]) == 0.0);
    let one = begin(&proxy, &gate, "/hold", "X-Key: 1\r\n");
    assert_eq!(ask(&proxy, "X-Key: 1\r\n").status, 429);
    one.abort();
}
