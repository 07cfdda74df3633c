//! AccessPolicy `basicAuth`: names and passwords against an htpasswd Secret.

use base64::Engine as _;

use crate::support::client::Response;
use crate::support::h2::{H2, get};
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, gateway, policy};

/// Hashes of `open sesame`: bcrypt by both its names, SHA-256 and SHA-512 crypt, apr1, SHA-1.
const HASHES: [&str; 7] = [
    "$2b$04$j2pMHBcYv1/Wg7vw6D3STekJSdVQINPvks4YYp.vc6MneOeh2zMoq",
    "$2y$04$j2pMHBcYv1/Wg7vw6D3STekJSdVQINPvks4YYp.vc6MneOeh2zMoq",
    "$5$saltstring$sOFRiuqOzKEQCZAIFmMrCbPuMEMUPOi/BmBpBwWMgW3",
    "$6$saltstring$b4SOQO.YI.BXjgbKQa.97c9EQud0NW8Txr5rCRGsAucjEsL95TW5MDF/7KcC3bcG5NoxZbmB6Lh82fxg8soAZ0",
    "$6$rounds=2000$abc$qOKkleyckMlmzB5Bn4er920qk4lDbD2A5j6RZD3BQnc9/.svLN6qPuHfpijQhgYozNQ7T4/Tf3ZDa9zaYM99T1",
    "$apr1$abcdefgh$T64oOxnD8c28.dQa.2Lty1",
    "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=",
];

/// bcrypt of `slow` with a cost of 11, about a tenth of a second.
const SLOW: &str = "$2b$11$MHxrD28P8NXulYbf2mGC0Oxco9ewBDnftEfbPUNKMJAfIbreJwoBO";

fn route(name: &str, path: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{group: ringway.dev, kind: Backend, name: origin}}]}}]\n"
    )
}

fn access(name: &str, to: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {to}}}]\n{spec}"
    )
}

fn secret(lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: users}}\nstringData:\n  auth: |\n{lines}")
}

fn everybody() -> String {
    let line = |(n, hash): (usize, &&str)| format!("user{n}:{hash}");
    secret(&HASHES.iter().enumerate().map(line).chain([format!("slow:{SLOW}")]).collect::<Vec<_>>())
}

fn base(origin: &str) -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &route("closed", "/") + &backend("origin", &[origin])
}

fn login(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn ask(proxy: &Proxy, path: &str, authorization: &str, more: &str) -> Response {
    let mut client = proxy.client();
    let field = if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x.org\r\n{field}{more}\r\n"));
    client.response()
}

#[test]
fn passwords_of_every_scheme() {
    let origin = Origin::echo();
    let proxy = Proxy::start(
        &(base(&origin.address)
            + &everybody()
            + &access("a", "closed", "  basicAuth: {users: {name: users}, realm: The Cave}\n")),
    );
    for round in 0..2 {
        for n in 0..HASHES.len() {
            let user = format!("user{n}");
            assert_eq!(ask(&proxy, "/", &login(&user, "open sesame"), "").status, 200, "{user} {round}");
            let refused = ask(&proxy, "/", &login(&user, "open says me"), "");
            assert_eq!(refused.status, 401, "{user} {round}");
            assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"The Cave\", charset=\"UTF-8\""));
        }
    }
    for nobody in [
        "",
        "Basic",
        "Basic !!!",
        "Basic dXNlcjA=",
        "Bearer x",
        &login("nobody", "open sesame"),
        &login("", ""),
        &login("user0", ""),
    ] {
        assert_eq!(ask(&proxy, "/", nobody, "").status, 401, "{nobody}");
    }
    // The connection and a body that came along are in order, and so is HTTP/2.
    let mut client = proxy.client();
    for (password, status) in [("wrong", 401), ("open sesame", 200), ("wrong", 401), ("open sesame", 200)] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: x.org\r\nAuthorization: {}\r\nContent-Length: 4\r\n\r\nbody",
            login("user1", password)
        ));
        assert_eq!(client.response().status, status);
    }
    let mut client = H2::connect(&proxy.address);
    for (password, status) in [("wrong", 401), ("open sesame", 200)] {
        let field = login("user2", password);
        let stream = client.open(
            &[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/"), ("authorization", &field)],
            true,
        );
        assert_eq!(client.answer(stream).status(), status);
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"unauthorized\""], 20.0);
    assert!(!proxy.log().contains("sesame"));
}

#[test]
fn the_endpoint_gets_the_field_only_where_it_is_to() {
    let origin = Origin::echo();
    let yaml = base(&origin.address)
        + &route("kept", "/kept")
        + &everybody()
        + &access("a", "closed", "  basicAuth: {users: {name: users}}\n")
        + &access("b", "kept", "  basicAuth: {users: {name: users}, forwardAuthorization: true}\n");
    let proxy = Proxy::start(&yaml);
    let field = login("user6", "open sesame");
    for path in ["/", "/kept"] {
        assert_eq!(ask(&proxy, path, &field, "").status, 200);
    }
    let seen = origin.requests();
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[1].header("authorization"), Some(field.as_str()));
}

#[test]
fn address_and_password_both_or_either() {
    let origin = Origin::echo();
    let rules = "  authorization: {rules: [{action: Allow, principal: {clientCIDRs: [192.0.2.0/24]}}]}\n  basicAuth: {users: {name: users}}\n";
    let yaml = base(&origin.address)
        + &route("either", "/either")
        + &everybody()
        + &access("both", "closed", rules)
        + &access("either", "either", &format!("{rules}  satisfy: Any\n"))
        + &policy("  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8]}}\n");
    let proxy = Proxy::start(&yaml);
    let field = login("user6", "open sesame");
    for (path, client, field, status) in [
        ("/", "192.0.2.1", field.as_str(), 200),
        ("/", "192.0.2.1", "", 401),
        ("/", "198.51.100.1", &field, 403),
        ("/", "198.51.100.1", "", 403),
        ("/either", "192.0.2.1", &field, 200),
        ("/either", "192.0.2.1", "", 200),
        ("/either", "198.51.100.1", &field, 200),
        ("/either", "198.51.100.1", "", 401),
    ] {
        assert_eq!(
            ask(&proxy, path, field, &format!("X-Forwarded-For: {client}\r\n")).status,
            status,
            "{path} {client} {field}"
        );
    }
}

/// Whoever changes the file or loses it shuts out who is not in it any more, what was known of passwords notwithstanding.
#[test]
fn a_file_that_changes_or_cannot_be_used_lets_nobody_in() {
    let origin = Origin::echo();
    let policy = access("a", "closed", "  basicAuth: {users: {name: users}}\n");
    let proxy = Proxy::start(&(base(&origin.address) + &everybody() + &policy));
    let field = login("user0", "open sesame");
    assert_eq!(ask(&proxy, "/", &field, "").status, 200);
    for (file, status) in [
        (secret(&[format!("user0:{SLOW}")]), 401),
        (secret(&["user0:open sesame".to_owned()]), 500),
        (String::new(), 500),
        (everybody(), 200),
    ] {
        proxy.reload(&(base(&origin.address) + &file + &policy));
        assert_eq!(ask(&proxy, "/", &field, "").status, status, "{file}");
        let (_, conditions) = proxy.admin("GET", "/status");
        assert_eq!(conditions.contains("nobody is let in"), status == 500, "{conditions}");
    }
}

/// Passwords are checked beside the event loop, and no more wait than may.
#[test]
fn a_flood_of_passwords_holds_nobody_else_up() {
    let origin = Origin::echo();
    let yaml = base(&origin.address)
        + &route("open", "/open")
        + &everybody()
        + &access("a", "closed", "  basicAuth: {users: {name: users}}\n")
        + &access("b", "open", "  authorization: {defaultAction: Allow}\n");
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let mut client = H2::connect(&proxy.address);
    let ask = |client: &mut H2, path: &str, field: &str| {
        client.open(
            &[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path), ("authorization", field)],
            true,
        )
    };
    let streams: Vec<u32> = (0..110).map(|n| ask(&mut client, "/", &login("slow", &n.to_string()))).collect();
    let open = ask(&mut client, "/open", "");
    assert_eq!(client.answer(open).status(), 200);
    let told: usize =
        streams.iter().filter(|stream| client.answers.get(stream).is_some_and(|answer| answer.status() == 401)).count();
    assert!(told < 60, "the open route waited for {told} passwords");
    let statuses: Vec<u16> = streams.iter().map(|stream| client.answer(*stream).status()).collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(401) + count(503), 110, "{statuses:?}");
    assert!(count(503) > 0 && count(401) >= 64, "{statuses:?}");
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"passwords_busy\""], 1.0);
    // Room again.
    let stream = ask(&mut client, "/", &login("slow", "slow"));
    assert_eq!(client.answer(stream).status(), 200);
}

/// A request that is taken back while its password is being checked is over, and what has not been looked at is not.
#[test]
fn requests_that_are_taken_back_wait_for_no_check() {
    let yaml = base("echo") + &everybody() + &access("a", "closed", "  basicAuth: {users: {name: users}}\n");
    let proxy = Proxy::with(&yaml, &Options { workers: 1, ..Options::default() });
    let mut client = H2::connect(&proxy.address);
    let streams: Vec<u32> = (0..60)
        .map(|n| {
            client.open(&[get("/"), vec![("authorization", login("slow", &n.to_string()).as_str())]].concat(), true)
        })
        .collect();
    // They have been begun.
    client.settle();
    streams.iter().for_each(|stream| client.reset(*stream, 8));
    client.settle();
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"aborted\""], 40.0);
    // A handful may have been checked by then.
    let refused = crate::support::proxy::sum(&proxy.metrics(), "ringway_requests_total", &["4xx"]);
    assert!(refused <= 20.0, "{refused} were checked");
    assert_eq!(ask(&proxy, "/", &login("user0", "open sesame"), "").status, 200);
}
