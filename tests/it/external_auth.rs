//! Filter ExternalAuth: another server is asked whether a request may pass.

mod bodies;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::explain::explain;
use crate::http2_upstream::{PLAIN, frames};
use crate::support::client::Response;
use crate::support::eventually;
use crate::support::h2::{DATA, END_STREAM, H2, get, post};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, gateway};
use crate::support::tls::{Authority, TlsOrigin};

/// A route with these rules.
fn route(rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: app}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n{rules}"
    )
}

/// The filter; `more` are further fields of it, each with a comma in front.
fn filter(more: &str) -> String {
    format!(
        "{{type: ExternalAuth, externalAuth: {{protocol: HTTP, backendRef: {{group: ringway.dev, kind: Backend, name: auth}}{more}}}}}"
    )
}

const TO_APP: &str = "    backendRefs: [{group: ringway.dev, kind: Backend, name: app}]\n";

/// Everything is asked for at `auth` and goes to `app`.
pub fn config(auth: &str, app: &str, more: &str) -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + &route(&format!("  - filters: [{}]\n{TO_APP}", filter(more)))
        + &backend("auth", &[auth])
        + &backend("app", &[app])
}

/// With one worker, so that connections are counted easily.
pub fn start(yaml: &str) -> Proxy {
    Proxy::with(yaml, &Options { workers: 1, ..Default::default() })
}

/// A server that lets those pass who say so in their Authorization, and tells the others why not.
fn judge() -> Origin {
    Origin::replying(|request| {
        match request.header("authorization") {
        Some("Bearer good") => b"HTTP/1.1 200 OK\r\nX-User: me\r\nX-Groups: a\r\nX-Groups: b\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        Some("Bearer other") => b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec(),
        Some("Bearer away") => {
            b"HTTP/1.1 302 Found\r\nLocation: https://login.example/?to=x\r\nSet-Cookie: state=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        Some("Bearer broken") => b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nlate".to_vec(),
        _ => b"HTTP/1.1 401 Who Are You\r\nWWW-Authenticate: Bearer realm=\"x\"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"no\":\"a\"\r\n1\r\n}\r\n0\r\n\r\n".to_vec(),
    }
    })
}

fn ask(proxy: &Proxy, line: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("{line} HTTP/1.1\r\nHost: x.org\r\n{fields}\r\n"));
    client.response_to(line.split(' ').next().unwrap()).unwrap()
}

pub fn expect_results(proxy: &Proxy, results: [(&str, f64); 3]) {
    for (result, count) in results {
        let label = format!("result=\"{result}\"");
        let count_now = || proxy.metric("ringway_external_auth_total", &["route=\"HTTPRoute/default/app\"", &label]);
        eventually(&format!("{result} is {count}"), || (count_now() - count).abs() < 0.1);
    }
}

/// Servers that resolve them would answer for another path than the one that is asked for.
#[test]
fn a_path_that_leads_out_of_its_prefix_is_not_asked_for() {
    let (auth, app) = (judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ", http: {path: /check}"));
    for path in ["/a%2F..%2F..%2Fping", "/a/..%5c..%5cping", "/a%2f%2e%2e/b", "/a/..;/b"] {
        let answer = ask(&proxy, &format!("GET {path}"), "Authorization: Bearer good\r\n");
        assert_eq!(answer.status, 400, "{path}");
    }
    assert_eq!((auth.requests().len(), app.requests().len()), (0, 0));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_target\""], 4.0);
    assert_eq!(ask(&proxy, "GET /a%2Fb", "Authorization: Bearer good\r\n").status, 200);
    assert_eq!(auth.requests()[0].target, "/check/a%2Fb");
}

#[test]
fn requests_pass_or_get_the_servers_answer() {
    let (auth, app) = (judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ""));
    // One connection all along: a request that is refused leaves it in order, body and all.
    let mut client = proxy.client();
    let mut send = |method: &str, token: &str| {
        client.send(format!(
            "{method} /a?b HTTP/1.1\r\nHost: x.org\r\nAuthorization: Bearer {token}\r\nContent-Length: 4\r\n\r\nbody"
        ));
        client.response_to(method).unwrap()
    };
    for _ in 0..3 {
        let passed = send("POST", "good");
        assert_eq!((passed.status, passed.text()), (200, "POST /a?b"));
        assert_eq!(send("GET", "other").status, 200, "any success lets it pass");
        let refused = send("POST", "bad");
        assert_eq!((refused.status, refused.text()), (401, "{\"no\":\"a\"}"));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"x\""));
        assert_eq!(refused.header("content-type"), Some("application/json"));
        assert!(refused.header("date").is_some() && refused.header("transfer-encoding").is_none());
        let away = send("POST", "away");
        assert_eq!((away.status, away.header("location")), (302, Some("https://login.example/?to=x")));
        assert_eq!(away.headers("set-cookie"), ["state=1", "b=2"]);
        let broken = send("POST", "broken");
        assert_eq!((broken.status, broken.header("retry-after"), broken.text()), (503, Some("7"), "late"));
    }
    let asked = auth.requests();
    assert_eq!((asked.len(), auth.connections(), app.requests().len()), (15, 1, 6));
    let first = &asked[0];
    assert_eq!((&*first.method, &*first.target, first.body.len()), ("POST", "/a?b", 0));
    for (name, value) in [
        ("host", "x.org"),
        ("content-length", "0"),
        ("authorization", "Bearer good"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/a?b"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "x.org"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    assert!(first.header("x-forwarded-for").is_some());
    // What the answer has goes on, but for what describes its own content.
    let sent = &app.requests()[0];
    assert_eq!((sent.header("x-user"), sent.headers("x-groups")), (Some("me"), vec!["a", "b"]));
    assert_eq!((sent.header("content-type"), sent.header("content-length")), (None, Some("4")));
    assert_eq!((sent.body.as_slice(), sent.header("authorization")), (&b"body"[..], Some("Bearer good")));
    expect_results(&proxy, [("allowed", 6.0), ("denied", 9.0), ("error", 0.0)]);
    // The answer to HEAD has no body.
    let refused = ask(&proxy, "HEAD /", "");
    assert_eq!(refused.status, 401);
}

#[test]
fn what_the_server_says_of_a_client_cannot_be_said_by_it() {
    let auth = Origin::replying(|request| {
        let user = if request.target.ends_with("/nobody") { "" } else { "X-User: me\r\n" };
        format!(
            "HTTP/1.1 200 OK\r\n{user}X-Other: o\r\nX-Forwarded-For: 9.9.9.9\r\nHost: evil\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    let app = Origin::echo();
    let more = ", http: {path: /check/, allowedHeaders: [Cookie, X-User, Expect], allowedResponseHeaders: [X-User, X-Forwarded-For, Host]}";
    let proxy = start(&config(&auth.address, &app.address, more));
    let spoofed = "X-User: root\r\nx_user: root\r\nX-Other: mine\r\nCookie: c=1\r\nAccept: text/html\r\n";
    assert_eq!(ask(&proxy, "GET /somebody", spoofed).status, 200);
    assert_eq!(ask(&proxy, "GET /nobody", spoofed).status, 200);
    let sent = app.requests();
    for (request, user) in sent.iter().zip([Some("me"), None]) {
        assert_eq!((request.header("x-user"), request.header("x_user")), (user, None), "{}", request.raw);
        assert_eq!((request.header("x-other"), request.header("host")), (Some("mine"), Some("x.org")));
        assert!(!request.raw.contains("9.9.9.9") && !request.raw.contains("root"), "{}", request.raw);
    }
    let asked = &auth.requests()[0];
    assert_eq!(asked.target, "/check/somebody");
    assert_eq!(
        (asked.header("x-user"), asked.header("cookie"), asked.header("accept")),
        (Some("root"), Some("c=1"), None)
    );
}

#[test]
fn nothing_passes_when_the_server_does_not_answer() {
    let app = Origin::echo();
    let unreachable = Origin::script(|conn, _| drop(conn));
    let cases: [(&str, Vec<u8>, u16); 6] = [
        ("garbage", b"\x16\x03\x01 what?\r\n\r\n".to_vec(), 502),
        ("nothing", Vec::new(), 502),
        ("half a head", b"HTTP/1.1 200 OK\r\nX-User: m".to_vec(), 502),
        ("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(), 502),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhalf".to_vec(), 502),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec(),
            502,
        ),
    ];
    for (what, bytes, status) in cases {
        let auth = Origin::closing(bytes);
        let proxy = start(&config(&auth.address, &app.address, ""));
        assert_eq!(ask(&proxy, "GET /", "Authorization: Bearer good\r\n").status, status, "{what}");
        proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"auth_unavailable\""], 1.0);
        expect_results(&proxy, [("allowed", 0.0), ("denied", 0.0), ("error", 1.0)]);
    }
    let proxy = start(&config(&unreachable.address, &app.address, ""));
    assert_eq!(ask(&proxy, "POST /", "Content-Length: 0\r\n").status, 502);
    // Nobody listens there; a Backend without endpoints; one that there is not; a refusal of any length.
    let nobody = crate::support::address();
    let proxy = start(&config(&format!("{nobody}:9"), &app.address, ""));
    assert!(matches!(ask(&proxy, "GET /", "").status, 502 | 503));
    let empty = config("1.2.3.4:5", &app.address, "").replace("{ip: \"1.2.3.4\", port: 5}", "");
    assert_eq!(ask(&start(&empty), "GET /", "").status, 503);
    let missing =
        config("127.0.0.1:9", &app.address, "").replace("kind: Backend, name: auth}", "kind: Backend, name: other}");
    assert_eq!(ask(&start(&missing), "GET /", "").status, 500);
    let long = Origin::replying(|_| {
        let mut answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 300000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 300_000, b'x');
        answer
    });
    let proxy = start(&config(&long.address, &app.address, ""));
    assert_eq!(ask(&proxy, "GET /", "").status, 502);
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn a_server_that_is_slow_takes_no_longer_than_the_request_may() {
    let app = Origin::echo();
    let auth = Origin::script(|mut conn, seen| {
        while let Some(request) = conn.request() {
            let slow = request.target == "/slow";
            seen.lock().unwrap().push(request);
            std::thread::sleep(if slow { Duration::from_secs(20) } else { Duration::ZERO });
            conn.reply("200 OK", "");
        }
    });
    let yaml =
        config(&auth.address, &app.address, "").replace(TO_APP, &format!("    timeouts: {{request: 400ms}}\n{TO_APP}"));
    let proxy = start(&yaml);
    assert_eq!(ask(&proxy, "GET /slow", "").status, 504);
    assert_eq!(ask(&proxy, "GET /fast", "").status, 200);
    assert_eq!(app.request().target, "/fast");
    expect_results(&proxy, [("allowed", 1.0), ("denied", 0.0), ("error", 1.0)]);
    proxy.expect_metric(
        "ringway_upstream_errors_total",
        &["backend=\"Backend/default/auth\"", "reason=\"timeout\""],
        1.0,
    );
}

/// Lets those pass whose body begins with `good`.
pub fn body_judge() -> Origin {
    Origin::replying(|request| {
        let status = if request.body.starts_with(b"good") { "200 OK" } else { "403 Forbidden" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
}

#[test]
fn over_http2() {
    let (auth, app) = (judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ""));
    let mut client = H2::connect(&proxy.address);
    for _ in 0..3 {
        let refused = client.get("/a");
        let refused = client.answer(refused);
        assert_eq!((refused.status(), refused.text()), (401, "{\"no\":\"a\"}"));
        let fields = [get("/a"), vec![("authorization", "Bearer good")]].concat();
        let passed = client.open(&fields, true);
        assert_eq!(client.answer(passed).text(), "GET /a");
    }
    assert_eq!(auth.connections(), 1);
    // Bodies that go along: whole with the head, later, in many frames, and one that is asked for.
    let (auth, app) = (body_judge(), Origin::echo());
    let proxy = start(&config(&auth.address, &app.address, ", forwardBody: {maxSize: 49152}"));
    let mut client = H2::connect(&proxy.address);
    let stream = client.open(&post("/now"), false);
    client.frame(DATA, END_STREAM, stream, b"goodbye");
    assert_eq!(client.answer(stream).text(), "POST /now");
    let long = b"good".repeat(12_288);
    let stream = client.open(&[post("/long"), vec![("content-length", "49152")]].concat(), false);
    std::thread::sleep(Duration::from_millis(20));
    for piece in long.chunks(16_384) {
        client.frame(DATA, 0, stream, piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    client.frame(DATA, END_STREAM, stream, b"");
    assert_eq!(client.answer(stream).text(), "POST /long");
    let stream = client.open(&[post("/wait"), vec![("expect", "100-continue")]].concat(), false);
    while !client.answers.get(&stream).is_some_and(|answer| answer.heads.contains(&100)) {
        assert!(client.step());
    }
    client.frame(DATA, END_STREAM, stream, b"good");
    assert_eq!(client.answer(stream).text(), "POST /wait");
    let stream = client.open(&post("/bad"), false);
    client.frame(DATA, END_STREAM, stream, b"bad");
    assert_eq!(client.answer(stream).status(), 403);
    let bodies = |origin: &Origin| origin.requests().into_iter().map(|request| request.body).collect::<Vec<_>>();
    assert_eq!(bodies(&app), [b"goodbye".to_vec(), long, b"good".to_vec()]);
    assert_eq!(bodies(&auth)[..3], bodies(&app));
}

#[test]
fn a_client_that_leaves_takes_the_question_along() {
    let app = Origin::echo();
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gone);
    let auth = Origin::script(move |mut conn, seen| {
        let Some(request) = conn.request() else { return };
        seen.lock().unwrap().push(request);
        // Until the proxy ends the connection.
        assert!(conn.request().is_none());
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = start(&config(&auth.address, &app.address, ""));
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("it is asked", || auth.requests().len() == 1);
    client.abort();
    eventually("the question is over", || gone.load(Ordering::SeqCst) == 1);
    let mut client = H2::connect(&proxy.address);
    let stream = client.get("/b");
    eventually("it is asked", || auth.requests().len() == 2);
    client.reset(stream, 8);
    eventually("the question is over", || gone.load(Ordering::SeqCst) == 2);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 2.0);
    expect_results(&proxy, [("allowed", 0.0), ("denied", 0.0), ("error", 0.0)]);
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn connections_to_the_server_are_kept_and_may_end() {
    let app = Origin::echo();
    // Every connection takes two questions and ends, as those of servers with an idle timeout do.
    let auth = Origin::script(|mut conn, seen| {
        for _ in 0..2 {
            let Some(request) = conn.request() else { return };
            seen.lock().unwrap().push(request);
            conn.send("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let proxy = start(&config(&auth.address, &app.address, ""));
    let mut client = proxy.client();
    for round in 0..10 {
        client.send(format!("POST /{round} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response().status, 200, "{round}");
    }
    assert_eq!((auth.requests().len(), app.requests().len()), (10, 10));
    expect_results(&proxy, [("allowed", 10.0), ("denied", 0.0), ("error", 0.0)]);
}

#[test]
fn a_request_that_is_sent_again_is_not_asked_for_again() {
    let auth = judge();
    let count = AtomicUsize::new(0);
    let app = Origin::replying(move |_| {
        let status = if count.fetch_add(1, Ordering::SeqCst) < 2 { "503 Service Unavailable" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let yaml = config(&auth.address, &app.address, "")
        .replace(TO_APP, &format!("    retry: {{codes: [503], attempts: 3, backoff: 1ms}}\n{TO_APP}"));
    let proxy = start(&yaml);
    assert_eq!(ask(&proxy, "GET /", "Authorization: Bearer good\r\nX-User: root\r\n").status, 200);
    assert_eq!((auth.requests().len(), app.requests().len()), (1, 3));
    assert!(app.requests().iter().all(|request| request.header("x-user") == Some("me")));
}

#[test]
fn order_of_filters() {
    let (auth, app) = (judge(), Origin::echo());
    let cors = "{type: CORS, cors: {allowOrigins: [\"https://a.example\"], allowMethods: [PUT]}}";
    let change = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: filter}], add: [{name: X-User, value: filter}], remove: [Authorization]}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /inner}}}";
    let respond = "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Out, value: filter}]}}";
    let gone = "{type: RequestRedirect, requestRedirect: {statusCode: 301, hostname: b.example}}";
    let rules = format!(
        "  - matches: [{{path: {{value: /a}}}}]\n    filters: [{change}, {rewrite}, {cors}, {respond}, {}]\n{TO_APP}  - matches: [{{path: {{value: /gone}}}}]\n    filters: [{}, {gone}]\n",
        filter(""),
        filter("")
    );
    let yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + &route(&rules)
        + &backend("auth", &[&auth.address])
        + &backend("app", &[&app.address]);
    let proxy = start(&yaml);
    // A preflight has no credentials: it is answered before anybody is asked.
    let origin = "Origin: https://a.example\r\n";
    let preflight = ask(&proxy, "OPTIONS /a/x", &format!("{origin}Access-Control-Request-Method: PUT\r\n"));
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("https://a.example")));
    assert_eq!(auth.requests().len(), 0);
    // Who is refused may read why; other filters have nothing to do with that.
    let refused = ask(&proxy, "GET /a/x", &format!("{origin}X-Set: mine\r\n"));
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("https://a.example")));
    assert_eq!(refused.header("x-out"), None);
    // The server sees the request as it came; filters change it afterwards, with what the answer has added.
    let passed = ask(&proxy, "GET /a/x", "Authorization: Bearer good\r\n");
    assert_eq!((passed.text(), passed.header("x-out")), ("GET /inner/x", Some("filter")));
    let (asked, sent) = (&auth.requests()[1], app.request());
    assert_eq!((&*asked.target, asked.header("host"), asked.header("x-set")), ("/a/x", Some("x.org"), None));
    assert_eq!((sent.header("x-user"), sent.header("x-set")), (Some("me,filter"), Some("filter")));
    assert_eq!((sent.header("authorization"), sent.header("host")), (None, Some("inner.example")));
    // An answer in place of a backend's is given to those that pass.
    assert_eq!(ask(&proxy, "GET /gone", "").status, 401);
    assert_eq!(ask(&proxy, "GET /gone", "Authorization: Bearer good\r\n").status, 301);
}

#[test]
fn a_share_of_a_split_may_have_a_server_of_its_own() {
    let (auth, own, app, next) = (judge(), judge(), Origin::echo(), Origin::echo());
    let to = |name: &str, more: &str| format!("    - {{group: ringway.dev, kind: Backend, name: {name}{more}}}\n");
    let filters = format!(", filters: [{}]", filter("").replace("name: auth", "name: own"));
    let rules = format!(
        "  - matches: [{{path: {{value: /one}}}}]\n    backendRefs:\n{}{}  - matches: [{{path: {{value: /both}}}}]\n    filters: [{}]\n    backendRefs:\n{}{}",
        to("app", ""),
        to("next", &filters),
        filter(", http: {allowedResponseHeaders: [X-First]}"),
        to("app", ""),
        to("next", &filters)
    );
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &route(&rules);
    for (name, origin) in [("auth", &auth), ("own", &own), ("app", &app), ("next", &next)] {
        yaml += &backend(name, &[&origin.address]);
    }
    let proxy = start(&yaml);
    let statuses = |path: &str, fields: &str| {
        let mut statuses: Vec<u16> = (0..10).map(|_| ask(&proxy, &format!("GET {path}"), fields).status).collect();
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses("/one", ""), [[200; 5], [401; 5]].concat());
    assert_eq!((auth.requests().len(), own.requests().len()), (0, 5));
    assert_eq!((app.requests().len(), next.requests().len()), (5, 0));
    assert_eq!(statuses("/both", ""), [401; 10]);
    assert_eq!((auth.requests().len(), own.requests().len()), (10, 5));
    assert_eq!(statuses("/both", "Authorization: Bearer good\r\nX-First: me\r\nX-User: root\r\n"), [200; 10]);
    assert_eq!((auth.requests().len(), own.requests().len()), (20, 10));
    assert_eq!((app.requests().len(), next.requests().len()), (10, 5));
    assert!(
        next.requests()
            .iter()
            .all(|request| request.header("x-user") == Some("me") && request.header("x-first").is_none())
    );
    // The rule's server names what it says, so the rest is the client's to say.
    assert!(app.requests()[5..].iter().all(|request| request.header("x-user") == Some("root")));
}

#[test]
fn a_filter_that_cannot_be_honoured_lets_nothing_pass() {
    let app = Origin::echo();
    let yaml =
        config("127.0.0.1:9", &app.address, "").replace("protocol: HTTP, backendRef", "protocol: GRPC, backendRef");
    let proxy = start(&yaml);
    assert_eq!(ask(&proxy, "GET /", "Authorization: Bearer good\r\n").status, 500);
    let (_, status) = proxy.admin("GET", "/status");
    assert!(status.contains("UnsupportedValue") && status.contains("protocol GRPC"), "{status}");
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn the_server_may_speak_tls_or_http2() {
    let authority = Authority::new("ca");
    let auth = TlsOrigin::answering(&authority.leaf(&["auth.internal"]), usize::MAX);
    let app = Origin::echo();
    let tls = |name: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: auth}}\nspec:\n  targetRefs: [{{group: ringway.dev, kind: Backend, name: auth}}]\n  validation: {{caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: ca}}], hostname: {name}}}\n"
        ) + &authority.config_map("ca")
    };
    let proxy = start(&(config(&auth.address, &app.address, "") + &tls("auth.internal")));
    assert_eq!(ask(&proxy, "GET /", "").status, 200);
    assert_eq!(auth.seen()[0].server_name.as_deref(), Some("auth.internal"));
    // Not the one that it is taken for, and a policy that cannot be honoured: nothing is asked in plain text.
    let proxy = start(&(config(&auth.address, &app.address, "") + &tls("other.internal")));
    assert_eq!(ask(&proxy, "GET /", "").status, 502);
    let broken = tls("auth.internal").replace("name: ca}]", "name: missing}]");
    let proxy = start(&(config(&auth.address, &app.address, "") + &broken));
    assert_eq!(ask(&proxy, "GET /", "").status, 500);
    assert_eq!(app.requests().len(), 1);
    let (address, _) = frames(PLAIN, |mut server, _| {
        let mut count = 0;
        while let Some(stream) = server.request() {
            count += 1;
            server.reply(stream, if count % 2 == 1 { "200" } else { "403" }, b"two");
        }
    });
    let yaml = config("1.2.3.4:5", &app.address, "").replace(
        "spec: {endpoints: [{ip: \"1.2.3.4\", port: 5}]",
        &format!(
            "spec: {{appProtocol: kubernetes.io/h2c, endpoints: [{{ip: \"{}\", port: {}}}]",
            address.rsplit_once(':').unwrap().0,
            address.rsplit_once(':').unwrap().1
        ),
    );
    let proxy = start(&yaml);
    for _ in 0..2 {
        assert_eq!(ask(&proxy, "GET /", "").text(), "GET /");
        let refused = ask(&proxy, "GET /", "");
        assert_eq!((refused.status, refused.text()), (403, "two"));
    }
}

#[test]
fn a_reload_amid_a_question_is_no_way_around_it() {
    let app = Origin::echo();
    let (slow, strict) = (
        Origin::script(|mut conn, seen| {
            while let Some(request) = conn.request() {
                seen.lock().unwrap().push(request);
                std::thread::sleep(Duration::from_secs(1));
                conn.reply("200 OK", "");
            }
        }),
        judge(),
    );
    let proxy = start(&config(&slow.address, &app.address, ""));
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("it is asked", || slow.requests().len() == 1);
    proxy.reload(&config(&strict.address, &app.address, ""));
    assert_eq!(client.response().status, 401);
    assert_eq!((strict.requests().len(), app.requests().len()), (1, 0));
}

#[test]
fn an_explanation_says_what_would_be_asked_and_asks_nobody() {
    let (auth, app) = (judge(), Origin::echo());
    let more = ", http: {path: /check, allowedHeaders: [Cookie], allowedResponseHeaders: [X-User]}, forwardBody: {maxSize: 100}";
    let proxy = start(&config(&auth.address, &app.address, more));
    let url = format!("http://{}/a?b", proxy.address);
    let found = explain(&proxy, &[url.as_str(), "-H", "Cookie: c=1", "-H", "X-User: root"]);
    let asked = &found["externalAuth"];
    assert_eq!((asked["to"].as_str(), asked["bodyUpTo"].as_u64()), (Some("Backend/default/auth"), Some(100)));
    let lines: Vec<&str> = asked["question"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(lines[0], "GET /check/a?b HTTP/1.1");
    assert!(lines.contains(&"Cookie: c=1") && !lines.iter().any(|line| line.contains("root")), "{lines:?}");
    assert_eq!(found["outcome"]["forward"], true);
    assert!(!found["upstreamRequest"].to_string().contains("root"), "{found}");
    assert_eq!((auth.requests().len(), app.requests().len()), (0, 0));
}

#[test]
fn an_upgrade_is_asked_for_like_any_request() {
    let auth = judge();
    let app = Origin::script(|mut conn, seen| {
        let Some(request) = conn.head() else { return };
        seen.lock().unwrap().push(request);
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        // Until the client leaves.
        conn.fill();
    });
    let proxy = start(&config(&auth.address, &app.address, ""));
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(ask(&proxy, "GET /", upgrade).status, 401);
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{upgrade}Authorization: Bearer good\r\n\r\n"));
    assert_eq!(client.response().status, 101);
    assert_eq!(client.raw(5), b"hello");
    assert_eq!(app.request().header("x-user"), Some("me"));
    let asked = auth.requests();
    assert!(asked.len() == 2 && asked.iter().all(|request| request.header("upgrade").is_none()));
}
