//! Session persistence: clients go where they went.

use std::collections::HashSet;
use std::process::Command;

use crate::balance::policy;
use crate::support::h2::{DATA, END_STREAM, H2};
use crate::support::origin::Origin;
use crate::support::proxy::{Directory, Options, Proxy, backend, command, config, gateway};
use crate::support::tls::{Authority, Connector};

const NAME: &str = "ringway_sessions_total";

/// Answers with its own name.
fn named(name: &str) -> Origin {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes();
    Origin::replying(move |_| answer.clone())
}

fn five() -> Vec<Origin> {
    ["a", "b", "c", "d", "e"].map(named).into()
}

fn addresses(origins: &[Origin]) -> Vec<&str> {
    origins.iter().map(|origin| origin.address.as_str()).collect()
}

/// Everything to these origins, with this session persistence.
fn sticky(origins: &[&str], session: &str) -> String {
    config(origins, &format!("    sessionPersistence: {session}\n"))
}

/// A file of keys, and options with it.
fn keyed(directory: &Directory, keys: &[char]) -> Options {
    let text: String = keys.iter().map(|key| key.to_string().repeat(44) + "\n").collect();
    let file = directory.write("keys", &text);
    Options { arguments: vec!["--session-keys".to_owned(), file.display().to_string()], ..Options::default() }
}

/// Who answered, and the line that gives a token, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    by: String,
    line: Option<String>,
}

impl Answer {
    /// The cookie that it sets, as it is sent back.
    fn cookie(&self) -> String {
        self.line.as_ref().unwrap_or_else(|| panic!("no cookie: {self:?}")).split(';').next().unwrap().to_owned()
    }
}

/// Asks on a connection of its own.
fn ask(proxy: &Proxy, target: &str, fields: &str) -> Answer {
    let mut client = proxy.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let response = client.response();
    assert_eq!(response.status, 200, "{response:?}");
    Answer { by: response.text().to_owned(), line: response.header("set-cookie").map(str::to_owned) }
}

fn again(proxy: &Proxy, cookie: &str) -> Answer {
    ask(proxy, "/", &format!("Cookie: {cookie}\r\n"))
}

/// So many sessions: who serves them, and their cookies.
fn begin(proxy: &Proxy, count: usize) -> Vec<(String, String)> {
    (0..count).map(|_| ask(proxy, "/", "")).map(|answer| (answer.by.clone(), answer.cookie())).collect()
}

fn expect_kept(proxy: &Proxy, sessions: &[(String, String)]) {
    for (by, cookie) in sessions {
        assert_eq!(again(proxy, cookie), Answer { by: by.clone(), line: None });
    }
}

#[test]
fn clients_stay_over_connections_and_cores() {
    let origins = five();
    let proxy = Proxy::start(&sticky(&addresses(&origins), "{type: Cookie, cookie: {}}"));
    let first = ask(&proxy, "/", "");
    let line = first.line.as_ref().unwrap();
    let (token, attributes) = line.split_once("; ").unwrap();
    let (name, token) = token.split_once('=').unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    assert!(name.starts_with("ringway-") && token.len() == 48, "{line}");
    let sessions = begin(&proxy, 10);
    assert!(sessions.iter().map(|(by, _)| by).collect::<HashSet<_>>().len() >= 3, "{sessions:?}");
    for _ in 0..10 {
        expect_kept(&proxy, &sessions);
    }
    // On one connection, and whatever its method and body are.
    let mut client = proxy.client();
    for (by, cookie) in &sessions {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nContent-Length: 3\r\n\r\nabc"));
        let response = client.response();
        assert_eq!((response.text(), response.header("set-cookie")), (by.as_str(), None));
    }
    proxy.expect_metric(NAME, &["HTTPRoute/default/all", "result=\"begun\""], 11.0);
    proxy.expect_metric(NAME, &["HTTPRoute/default/all", "result=\"kept\""], 110.0);
    assert_eq!(proxy.metric(NAME, &[]), 121.0);
}

#[test]
fn sessions_survive_reloads_and_restarts() {
    let origins = five();
    let all = addresses(&origins);
    let session = "{cookie: {name: sid}}";
    let mut proxy = Proxy::start(&sticky(&all[..3], session));
    let sessions = begin(&proxy, 9);
    // Endpoints come, in another order, and a rule stands above.
    let mut more = all.clone();
    more.reverse();
    let rule = "    sessionPersistence: {cookie: {name: sid}}\n";
    let other = "  rules:\n  - matches: [{path: {value: /other}}]\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n";
    proxy.reload(&config(&more, rule).replace("  rules:\n", other));
    expect_kept(&proxy, &sessions);
    // The machine's own key is the same after a restart.
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    let after = Proxy::with(&sticky(&more, session), &Options { workers: 1, ..Options::default() });
    expect_kept(&after, &sessions);
}

#[test]
fn machines_with_the_same_keys_agree() {
    let origins = five();
    let yaml = sticky(&addresses(&origins), "{cookie: {name: sid}}");
    let directory = Directory::new();
    let (one, two) = (Proxy::with(&yaml, &keyed(&directory, &['A'])), Proxy::with(&yaml, &keyed(&directory, &['A'])));
    let sessions = begin(&one, 10);
    expect_kept(&two, &sessions);
    // Others do not, and their tokens are not taken.
    let stranger = Proxy::start(&yaml);
    let answer = again(&stranger, &sessions[0].1);
    assert!(answer.line.is_some());
    stranger.expect_metric(NAME, &["result=\"rejected\""], 1.0);
    assert_eq!(again(&one, &answer.cookie()).line.map(|_| "another"), Some("another"));
    // A new key in front: sessions go on, and get tokens by it.
    keyed(&directory, &['B', 'A']);
    let (by, cookie) = &sessions[0];
    let mut renewed = None;
    crate::support::eventually("the new key is in use", || {
        let answer = again(&one, cookie);
        assert_eq!(answer.by, *by);
        renewed = answer.line;
        renewed.is_some()
    });
    let renewed = renewed.unwrap().split(';').next().unwrap().to_owned();
    crate::support::eventually("and on the other machine", || again(&two, &renewed).line.is_none());
    // A file that cannot be used changes nothing.
    directory.write("keys", "AAAA\n");
    crate::support::eventually("the file is refused", || one.log().contains("session keys not changed"));
    expect_kept(&one, &[(by.clone(), renewed)]);
}

#[test]
fn a_file_of_keys_that_cannot_be_used_is_refused_at_the_start() {
    let directory = Directory::new();
    directory.write("short", "AAAA\n");
    directory.write("config.yaml", &config(&["echo"], "").replace("{ip}", "127.0.0.1"));
    for (file, why) in [("short", "line 1 is not 32 bytes"), ("missing", "No such file")] {
        let (code, _, said) = command(
            &["run", "--admin", "unix:admin.sock", "--config", "config.yaml", "--session-keys", file],
            &directory.0,
        );
        assert!(code == 1 && said.contains(why), "{code} {said}");
    }
}

/// An endpoint that accepts one connection, answers one request on it, and is gone.
fn mortal() -> (String, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(format!("{}:0", crate::support::address())).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let life = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let _read = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nmortal").unwrap();
    });
    (address, life)
}

#[test]
fn a_session_moves_when_its_endpoint_has_gone() {
    let origins = five();
    let all = addresses(&origins);
    let (mortal, life) = mortal();
    let session = "{cookie: {name: sid}}";
    let proxy = Proxy::start(&sticky(&[&mortal], session));
    let first = ask(&proxy, "/", "");
    assert_eq!(first.by, "mortal");
    life.join().unwrap();
    // It is still there and cannot be connected to: nothing has been sent, so another one gets the request.
    proxy.reload(&sticky(&[&mortal, all[0], all[1], all[2]], session));
    let moved = again(&proxy, &first.cookie());
    assert!(moved.by != "mortal" && moved.line.is_some(), "{moved:?}");
    expect_kept(&proxy, &[(moved.by.clone(), moved.cookie())]);
    proxy.expect_metric(NAME, &["result=\"moved\""], 1.0);
    // It is taken away.
    let index = ["a", "b", "c"].iter().position(|name| *name == moved.by).unwrap();
    let left: Vec<&str> = all.iter().copied().filter(|address| *address != all[index]).collect();
    proxy.reload(&sticky(&left, session));
    let third = again(&proxy, &moved.cookie());
    assert!(third.by != moved.by && third.line.is_some(), "{third:?}");
    expect_kept(&proxy, &[(third.by.clone(), third.cookie())]);
    proxy.expect_metric(NAME, &["result=\"moved\""], 2.0);
    // Where there is no endpoint at all, the answer sets no cookie.
    proxy.reload(&sticky(&[&mortal], session));
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", first.cookie()));
    let response = client.response();
    assert_eq!((response.status, response.header("set-cookie")), (502, None));
}

#[test]
fn tokens_that_are_not_good_are_replaced() {
    let origins = five();
    let yaml = sticky(&addresses(&origins), "{cookie: {name: sid}}");
    let other = "  rules:\n  - matches: [{path: {value: /other}}]\n    sessionPersistence: {cookie: {name: sid, path: /other}}\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n";
    let proxy = Proxy::start(&yaml.replace("  rules:\n", other));
    let good = ask(&proxy, "/", "").cookie();
    let of_the_other = ask(&proxy, "/other", "").cookie();
    let mut bent = good.clone().into_bytes();
    let last = bent.len() - 1;
    bent[last] = if bent[last] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    let long = format!("sid={}", "A".repeat(4000));
    let many = "sid=x; ".repeat(500);
    let bad = [bent.as_str(), &of_the_other, "sid=", "sid=10.0.0.1:80", &long, &many, &good[..good.len() - 1]];
    for bad in bad {
        let answer = again(&proxy, bad);
        assert!(answer.cookie() != bad && answer.cookie().len() == 4 + 48, "{bad} {answer:?}");
    }
    proxy.expect_metric(NAME, &["result=\"rejected\""], 7.0);
    assert_eq!(proxy.metric(NAME, &["result=\"kept\""]), 0.0);
    // A good one beside them is found, as a browser sends the cookies of several paths.
    let both = format!("{of_the_other}; {good}");
    assert_eq!(again(&proxy, &both).line, None);
    assert_eq!(ask(&proxy, "/other", &format!("Cookie: {both}\r\n")).line, None);
}

#[test]
fn sessions_end_with_their_time() {
    let origins = five();
    let proxy = Proxy::start(&sticky(&addresses(&origins), "{absoluteTimeout: 1s, cookie: {name: sid}}"));
    let first = ask(&proxy, "/", "");
    assert!(!first.line.as_ref().unwrap().contains("Max-Age"), "{first:?}");
    let cookie = first.cookie();
    let mut next = None;
    crate::support::eventually("the session is over", || {
        next = again(&proxy, &cookie).line;
        next.is_some()
    });
    assert_ne!(next.unwrap().split(';').next().unwrap(), cookie);
    proxy.expect_metric(NAME, &["result=\"expired\""], 1.0);
}

#[test]
fn permanent_cookies_say_until_when() {
    let origins = five();
    let session = "{absoluteTimeout: 5m, cookie: {name: sid, lifetimeType: Permanent, path: /app}}";
    let proxy = Proxy::start(&sticky(&addresses(&origins), session));
    let answer = ask(&proxy, "/app", "");
    assert!(answer.line.unwrap().ends_with("; Path=/app; Max-Age=300; HttpOnly; SameSite=Lax"));
    // In the words of the versions before, with an end for who is idle: the token is given anew while it is used, and
    // the session goes on to the same end.
    let older = "{sessionName: sid, absoluteTimeout: 5m, idleTimeout: 10s, cookieConfig: {lifetimeType: Permanent}}";
    proxy.reload(&sticky(&addresses(&origins), older));
    let first = ask(&proxy, "/", "");
    let mut renewed = first.clone();
    crate::support::eventually("the token is given anew", || {
        renewed = again(&proxy, &first.cookie());
        renewed.line.is_some()
    });
    assert_eq!(renewed.by, first.by);
    let line = renewed.line.clone().unwrap();
    let left: u64 = line.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((1..300).contains(&left) && line.contains("; Path=/; "), "{line}");
    assert_ne!(renewed.cookie(), first.cookie());
    assert_eq!(again(&proxy, &renewed.cookie()).by, first.by);
}

#[test]
fn idle_sessions_end() {
    let origins = five();
    let proxy = Proxy::start(&sticky(&addresses(&origins), "{idleTimeout: 1s}"));
    let cookie = ask(&proxy, "/", "").cookie();
    crate::support::eventually("the session is over", || {
        again(&proxy, &cookie);
        proxy.metric(NAME, &["result=\"expired\""]) >= 1.0
    });
}

#[test]
fn a_field_carries_the_token_too() {
    let origins = five();
    let proxy = Proxy::start(&sticky(&addresses(&origins), "{type: Header, header: {name: X-Session}}"));
    let ask = |field: &str| {
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        let response = client.response();
        assert_eq!(response.header("set-cookie"), None);
        (response.text().to_owned(), response.header("x-session").map(str::to_owned))
    };
    for _ in 0..5 {
        let (by, token) = ask("");
        let token = token.unwrap();
        for _ in 0..5 {
            assert_eq!(ask(&format!("x-sEssion: {token}\r\n")), (by.clone(), None));
        }
        assert!(ask(&format!("cookie: x-session={token}\r\n")).1.is_some());
    }
}

#[test]
fn sessions_win_over_weights() {
    let (old, new) = (named("old"), named("new"));
    let split = |old_weight: u32, new_weight: u32| {
        gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
            + &format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - sessionPersistence: {{cookie: {{name: sid}}}}\n    backendRefs:\n    - {{group: ringway.dev, kind: Backend, name: old, weight: {old_weight}}}\n    - {{group: ringway.dev, kind: Backend, name: new, weight: {new_weight}}}\n"
            )
            + &backend("old", &[&old.address])
            + &backend("new", &[&new.address])
    };
    let proxy = Proxy::start(&split(1, 1));
    let sessions = begin(&proxy, 12);
    let count = |by: &str| sessions.iter().filter(|(found, _)| found == by).count();
    assert!(count("old") > 2 && count("new") > 2, "{sessions:?}");
    // Taken out of the split, the old one goes on with those that it has.
    proxy.reload(&split(0, 1));
    expect_kept(&proxy, &sessions);
    assert!(begin(&proxy, 6).iter().all(|(by, _)| by == "new"));
}

#[test]
fn policies_give_sessions_to_rules() {
    let origins = five();
    let rules = "  rules:\n  - matches: [{path: {value: /one}}]\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  - matches: [{path: {value: /own}}]\n    sessionPersistence: {cookie: {name: mine}}\n    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n";
    let spec = "  sessionPersistence: {cookie: {name: sid}}\n  sessionCookie: {sameSite: Strict, secure: true, domain: example.com}\n";
    let yaml = config(&addresses(&origins), "").replace("  rules:\n", rules) + &policy(spec);
    let proxy = Proxy::start(&yaml);
    let attributes = |line: &str| line.split_once("; ").unwrap().1.to_owned();
    let (one, own, rest) = (ask(&proxy, "/one", ""), ask(&proxy, "/own", ""), ask(&proxy, "/", ""));
    for answer in [&one, &own, &rest] {
        let expected = "Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Strict";
        assert_eq!(attributes(answer.line.as_ref().unwrap()), expected);
    }
    // Rules do not share sessions, so a policy's cookie has the rule in its name.
    let name = |answer: &Answer| answer.cookie().split_once('=').unwrap().0.to_owned();
    assert!(name(&one).starts_with("sid-") && name(&rest).starts_with("sid-") && name(&one) != name(&rest));
    assert_eq!(name(&own), "mine");
    let all = format!("Cookie: {}; {}; {}\r\n", rest.cookie(), own.cookie(), one.cookie());
    for (target, answer) in [("/one", &one), ("/own", &own), ("/", &rest)] {
        assert_eq!(ask(&proxy, target, &all), Answer { by: answer.by.clone(), line: None }, "{target}");
    }
}

#[test]
fn what_cannot_be_had_is_a_condition() {
    let origin = named("a");
    let proxy = Proxy::start(&sticky(&[&origin.address], "{type: Header, header: {name: Content-Length}}"));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "a");
    let (_, status) = proxy.admin("GET", "/status");
    assert!(status.contains("PartiallyInvalid") && status.contains("cannot use the field Content-Length"), "{status}");
}

#[test]
fn cookies_go_on_to_the_endpoint() {
    let origin = named("a");
    let proxy = Proxy::start(&sticky(&[&origin.address], "{cookie: {name: sid}}"));
    let cookie = ask(&proxy, "/", "Cookie: x=1\r\n").cookie();
    again(&proxy, &format!("x=1; {cookie}; y=2"));
    let seen: Vec<Vec<String>> = origin
        .requests()
        .iter()
        .map(|request| request.headers("cookie").into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(seen, [vec!["x=1".to_owned()], vec![format!("x=1; {cookie}; y=2")]]);
}

#[test]
fn an_endpoints_own_cookies_stay() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nSet-Cookie: app=1\r\nContent-Length: 0\r\n\r\n".to_vec());
    let proxy = Proxy::start(&sticky(&[&origin.address], "{cookie: {name: sid}}"));
    let response = proxy.client().get("/");
    let cookies = response.headers("set-cookie");
    assert!(cookies.len() == 2 && cookies[0] == "app=1" && cookies[1].starts_with("sid="), "{response:?}");
}

/// A WebSocket is a session's as well.
#[test]
fn upgrades_have_sessions() {
    let origin = Origin::script(|mut conn, _| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&sticky(&[&origin.address], "{cookie: {name: sid}}"));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 101);
    assert!(response.header("set-cookie").unwrap().starts_with("sid="), "{response:?}");
}

#[test]
fn over_https_the_cookie_is_secure() {
    let origins = five();
    let authority = Authority::new("sessions");
    let leaf = authority.leaf(&["site.example"]);
    let listener = "  - {name: web, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}\n";
    let rest = sticky(&addresses(&origins), "{cookie: {name: sid}}");
    let (_, rest) = rest.split_once("---\n").unwrap();
    let yaml =
        gateway(listener) + "---\n" + rest + &leaf.secret("cert") + &policy("  sessionCookie: {sameSite: None}\n");
    let proxy = Proxy::start(&yaml);
    let connector = Connector::new(&authority);
    let response = connector.client(&proxy.address, "site.example").get("/");
    // The test's client asks for another host than its handshake does, which one listener for all serves.
    let line = response.header("set-cookie").unwrap();
    assert!(line.ends_with("; Path=/; HttpOnly; Secure; SameSite=None"), "{line}");
    let cookie = line.split(';').next().unwrap();
    for _ in 0..4 {
        let mut client = connector.client(&proxy.address, "site.example");
        client.send(format!("GET / HTTP/1.1\r\nHost: example.com\r\nCookie: {cookie}\r\n\r\n"));
        let again = client.response();
        assert_eq!((again.text(), again.header("set-cookie")), (response.text(), None));
    }
}

/// In HTTP/2 a Cookie field may come in pieces (RFC 9113 section 8.2.3).
#[test]
fn requests_of_http2_have_sessions() {
    let origins = five();
    let proxy = Proxy::start(&sticky(&addresses(&origins), "{cookie: {name: sid}}"));
    for (by, cookie) in begin(&proxy, 5) {
        let mut client = H2::connect(&proxy.address);
        for _ in 0..3 {
            let mut fields = crate::support::h2::get("/");
            fields.extend([("cookie", "a=b"), ("cookie", cookie.as_str()), ("cookie", "c=d")]);
            let stream = client.open(&fields, true);
            assert_eq!(client.answer(stream).text(), by);
        }
    }
    proxy.expect_metric(NAME, &["result=\"kept\""], 15.0);
    // Each of these streams is a session that begins.
    let mut client = H2::connect(&proxy.address);
    for _ in 0..3 {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).status(), 200);
    }
    proxy.expect_metric(NAME, &["result=\"begun\""], 8.0);
}

fn calls(main: &str, other: &str) -> String {
    let rule = |by: &str, session: &str| {
        format!(
            "  - matches: [{{headers: [{{name: x-by, value: {by}}}]}}]\n    sessionPersistence: {session}\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: servers}}]\n"
        )
    };
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: calls}\nspec:\n  parentRefs: [{name: edge}]\n  rules:\n"
        + &rule("cookie", "{cookie: {name: sid}}")
        + &rule("field", "{type: Header, header: {name: x-session}}")
        + &backend("servers", &[main, other])
}

#[test]
fn calls_of_grpc_stay_with_their_server() {
    let Some(python) = crate::support::python("grpc") else { return };
    let (one, two) = (crate::grpc::Server::start(&python, "one"), crate::grpc::Server::start(&python, "two"));
    let proxy = Proxy::start(&calls(&one.address, &two.address));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_sessions.py");
    let output = Command::new(&python).args([script, &proxy.address]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.starts_with("done"), "{said}");
    proxy.expect_metric(NAME, &["GRPCRoute/default/calls", "result=\"kept\""], 80.0);
    proxy.expect_metric(NAME, &["GRPCRoute/default/calls", "result=\"begun\""], 16.0);
}

/// Calls over HTTP/2 go where those of gRPC-Web in HTTP/1.1 have been: the rule's sessions are the same.
#[test]
fn calls_of_grpc_and_of_grpc_web_share_sessions() {
    let server = |name: &'static str| {
        crate::http2_upstream::frames(crate::http2_upstream::PLAIN, move |mut server, _| {
            while let Some(stream) = server.request() {
                let message = [&[0, 0, 0, 0, 3][..], name.as_bytes()].concat();
                server.reply(stream, "200", &message);
            }
        })
        .0
    };
    let (one, two) = (server("one"), server("two"));
    let proxy = Proxy::start(&calls(&one, &two));
    for _ in 0..4 {
        let mut client = proxy.client();
        client.send("POST /test.Service/Unary HTTP/1.1\r\nHost: a\r\nX-By: cookie\r\nContent-Type: application/grpc-web\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0");
        let response = client.response();
        let cookie = response.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        for _ in 0..3 {
            let mut client = H2::connect(&proxy.address);
            let mut fields = crate::support::h2::post("/test.Service/Unary");
            let more = [("content-type", "application/grpc"), ("te", "trailers"), ("x-by", "cookie")];
            fields.extend(more);
            fields.push(("cookie", &cookie));
            let stream = client.open(&fields, false);
            client.frame(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0]);
            assert_eq!(client.answer(stream).body, response.body[..8]);
        }
    }
    proxy.expect_metric(NAME, &["result=\"kept\""], 12.0);
}

/// A Service of these origins, and a route to it.
fn service(origins: &[Origin], spec: &str) -> String {
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: app}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{name: app, port: 80}]}]\n"
        + &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: app}}\nspec: {{ports: [{{port: 80}}], {spec}}}\n"
        );
    for (index, origin) in origins.iter().enumerate() {
        let (ip, port) = origin.address.rsplit_once(':').unwrap();
        yaml += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: app-{index}, labels: {{kubernetes.io/service-name: app}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [{ip}]}}]\n"
        );
    }
    yaml
}

/// A Service keeps clients by their address; a policy's sessions take the place of that.
#[test]
fn a_policys_sessions_win_over_a_services_affinity() {
    let origins = five();
    let affinity = service(&origins, "sessionAffinity: ClientIP");
    let proxy = Proxy::start(&affinity);
    let asked: HashSet<String> = (0..20).map(|_| ask(&proxy, "/", "").by).collect();
    assert_eq!(asked.len(), 1, "one address, one endpoint: {asked:?}");
    assert!(ask(&proxy, "/", "").line.is_none());
    let policy = "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: app}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: app}]\n  sessionPersistence: {cookie: {}}\n";
    proxy.reload(&(affinity + policy));
    let sessions = begin(&proxy, 20);
    let asked: HashSet<&str> = sessions.iter().map(|(by, _)| by.as_str()).collect();
    assert!(asked.len() > 1, "what has no token goes by the policy's balancer: {asked:?}");
    expect_kept(&proxy, &sessions);
    assert!(proxy.log().contains("sessionPersistence of BackendPolicy default/app takes the place of sessionAffinity"));
    proxy.reload(&service(&origins, "sessionAffinity: None"));
    let asked: HashSet<String> = (0..20).map(|_| ask(&proxy, "/", "").by).collect();
    assert!(asked.len() > 1, "{asked:?}");
}
