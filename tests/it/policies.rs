//! AccessPolicy, RateLimitPolicy, ResponsePolicy, and HTTP sent to HTTPS, through the whole proxy.

use std::time::{Duration, Instant};

use crate::support::client::Response;
use crate::support::origin::Origin;
use crate::support::proxy::{Options, Proxy, backend, gateway, policy};
use crate::support::tls::{Authority, Connector};

fn route(name: &str, path: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - name: all\n    matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]\n"
    )
}

/// A policy for a Gateway or a route.
fn ours(kind: &str, name: &str, target: (&str, &str), spec: &str) -> String {
    let (of, target) = target;
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: {of}, name: {target}}}]\n{spec}"
    )
}

const GATEWAY: (&str, &str) = ("Gateway", "edge");

fn base() -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &backend("echo", &["echo"])
}

fn ask(proxy: &Proxy, path: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x.org\r\n{fields}\r\n"));
    client.response()
}

fn from(proxy: &Proxy, client: &str, path: &str) -> Response {
    ask(proxy, path, &format!("X-Forwarded-For: {client}\r\n"))
}

const BELIEVED: &str = "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8, 10.0.0.0/8]}}\n";

#[test]
fn access_by_address_goes_by_the_longest_prefix() {
    let rules = "  authorization:\n    defaultAction: Deny\n    rules:\n    - {action: Allow, principal: {clientCIDRs: [192.0.2.0/24, '2001:db8::/32']}}\n    - {action: Deny, principal: {clientCIDRs: [192.0.2.128/25]}}\n    - {action: Allow, principal: {clientCIDRs: [192.0.2.200]}}\n";
    let open =
        "  authorization: {defaultAction: Allow, rules: [{action: Deny, principal: {clientCIDRs: [192.0.2.0/24]}}]}\n";
    let yaml = base()
        + &route("closed", "/", "echo")
        + &route("open", "/open", "echo")
        + &ours("AccessPolicy", "closed", GATEWAY, rules)
        + &ours("AccessPolicy", "open", ("HTTPRoute", "open"), open)
        + &policy(BELIEVED);
    let proxy = Proxy::start(&yaml);
    for (client, path, status) in [
        ("192.0.2.1", "/", 200),
        ("192.0.2.129", "/", 403),
        ("192.0.2.200", "/", 200),
        ("198.51.100.1", "/", 403),
        ("2001:db8::1", "/", 200),
        ("[2001:db8::1]:4711", "/", 200),
        ("2001:db9::1", "/", 403),
        // What stands in front of the address that a proxy of ours has seen is the client's own claim.
        ("192.0.2.1, 198.51.100.1", "/", 403),
        ("198.51.100.1, 192.0.2.1, 10.0.0.7", "/", 200),
        ("192.0.2.1", "/open", 403),
        ("198.51.100.1", "/open", 200),
    ] {
        assert_eq!(from(&proxy, client, path).status, status, "{client} {path}");
    }
    // Nobody says who they are: the peer's own address.
    assert_eq!(ask(&proxy, "/", "").status, 403);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"access_denied\""], 5.0);
}

#[test]
fn addresses_of_peers_that_are_not_believed_are_their_own() {
    let rules = "  authorization: {rules: [{action: Allow, principal: {clientCIDRs: [192.0.2.0/24]}}]}\n";
    let proxy = Proxy::start(&(base() + &route("r", "/", "echo") + &ours("AccessPolicy", "a", GATEWAY, rules)));
    assert_eq!(from(&proxy, "192.0.2.1", "/").status, 403);
}

#[test]
fn requests_over_a_rate_are_429_on_all_cores_together() {
    let rules = "  rules: [{limit: {requests: 60, unit: Hour}, burst: 20, exemptCIDRs: [198.51.100.0/24]}]\n";
    let yaml = base() + &route("r", "/", "echo") + &ours("RateLimitPolicy", "slow", GATEWAY, rules) + &policy(BELIEVED);
    let proxy = Proxy::with(&yaml, &Options { workers: 4, ..Options::default() });
    let count = |client: &str| (0..30).filter(|_| from(&proxy, client, "/").status == 200).count();
    assert_eq!((count("192.0.2.1"), count("192.0.2.2"), count("198.51.100.9")), (20, 20, 30));
    // One network of 64 bits is one client.
    assert_eq!((count("2001:db8::1"), count("2001:db8::2"), count("2001:db8:0:1::1")), (20, 0, 20));
    let refused = from(&proxy, "192.0.2.1", "/");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 429 && (1..=60).contains(&wait), "{wait}");
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"rate_limited\""], 51.0);
    // A reload that leaves the limit as it is forgets nothing.
    proxy.reload(&(yaml + &route("more", "/more", "echo")));
    assert_eq!(from(&proxy, "192.0.2.1", "/more").status, 429);
}

#[test]
fn rates_by_header_and_by_route() {
    let rules = "  rules:\n  - {limit: {requests: 1, unit: Hour}, burst: 3, key: {type: Header, header: X-Key}}\n  - {limit: {requests: 1, unit: Hour}, burst: 8, key: {type: Route}}\n";
    let proxy = Proxy::start(
        &(base() + &route("r", "/", "echo") + &ours("RateLimitPolicy", "keys", ("HTTPRoute", "r"), rules)),
    );
    let count = |fields: &str| (0..5).filter(|_| ask(&proxy, "/", fields).status == 200).count();
    // What the first refuses has been counted by the second all the same.
    assert_eq!((count("X-Key: a\r\n"), count("X-Key: b\r\n"), count("")), (3, 3, 0));
}

#[test]
fn a_rate_recovers_at_its_pace() {
    let rules = "  rules: [{limit: {requests: 5, unit: Second}, burst: 1}]\n";
    let proxy = Proxy::start(&(base() + &route("r", "/", "echo") + &ours("RateLimitPolicy", "pace", GATEWAY, rules)));
    let begun = Instant::now();
    let mut passed: u32 = 0;
    while begun.elapsed() < Duration::from_millis(1500) {
        passed += u32::from(ask(&proxy, "/", "").status == 200);
    }
    let most = 1 + begun.elapsed().as_millis() / 200;
    assert!(passed >= 2 && u128::from(passed) <= most, "{passed} of {most}");
}

#[test]
fn errors_get_pages_of_their_own() {
    let origin = Origin::replying(|request| {
        let status = request.target.trim_start_matches("/o/");
        format!("HTTP/1.1 {status} X\r\nX-Of: origin\r\nContent-Length: 6\r\n\r\norigin").into_bytes()
    });
    let rules = "  responseOverride:\n  - match: {statusCodes: [{value: 503}]}\n    response: {contentType: text/html, body: {inline: '<p>Back soon</p>'}}\n  - match: {statusCodes: [{type: Range, range: {start: 500, end: 599}}]}\n    response: {statusCode: 500, contentType: text/plain, body: {type: ValueRef, valueRef: {group: '', kind: ConfigMap, name: page}}}\n";
    let yaml = base()
        + &route("origin", "/o", "origin")
        + &route("none", "/none", "none")
        + &route("dead", "/dead", "dead")
        + &backend("origin", &[&origin.address])
        + &backend("none", &[])
        + &backend("dead", &["127.0.0.1:1"])
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: page}\ndata: {response.body: broken}\n"
        + &ours("ResponsePolicy", "pages", GATEWAY, rules);
    let proxy = Proxy::start(&yaml);
    for (path, status, body) in [
        ("/o/200", 200, "origin"),
        ("/o/404", 404, "origin"),
        ("/o/503", 503, "<p>Back soon</p>"),
        ("/o/502", 500, "broken"),
        ("/none", 503, "<p>Back soon</p>"),
        ("/dead", 500, "broken"),
    ] {
        let response = ask(&proxy, path, "");
        assert_eq!((response.status, response.text()), (status, body), "{path}");
        assert_eq!(response.header("x-of").is_some(), body == "origin", "{path}");
    }
    // The connection goes on after an answer that was replaced.
    let mut client = proxy.client();
    assert_eq!((client.get("/o/503").status, client.get("/o/200").status), (503, 200));
}

/// What no rule answers has the pages of the listener's policy.
#[test]
fn what_no_rule_takes_has_pages_too() {
    let page = |text: &str| {
        format!(
            "  strictTransportSecurity: {{maxAge: 1h}}\n  responseOverride: [{{match: {{statusCodes: [{{value: 404}}, {{value: 413}}]}}, response: {{body: {{inline: {text}}}}}}}]\n"
        )
    };
    let (authority, origin) = (Authority::new("ca"), Origin::echo());
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: bare, port: 8081, protocol: HTTP}\n  - {name: tls, port: 8443, protocol: HTTPS, hostname: site.example, tls: {certificateRefs: [{name: site}]}}\n  - {name: other, port: 8443, protocol: HTTPS, hostname: other.example, tls: {certificateRefs: [{name: site}]}}\n";
    let at = |listener: &str, text: &str| {
        ours("ResponsePolicy", listener, GATEWAY, &page(text))
            .replace("name: edge}]", &format!("name: edge, sectionName: {listener}}}]"))
    };
    let yaml = gateway(listeners)
        + &backend("echo", &[&origin.address])
        + &authority.leaf(&["site.example", "other.example"]).secret("site")
        + &route("app", "/app", "echo")
        + &ours("ResponsePolicy", "app", ("HTTPRoute", "app"), &page("of-the-route"))
        + &at("web", "of-the-listener")
        + &at("tls", "of-tls")
        + &at("other", "of-the-other")
        + &policy("  limits: {bodyBytes: 10}\n");
    let proxy = Proxy::start(&yaml);
    let post = |path: &str, port: u16| {
        let mut client = crate::support::client::Client::connect(&proxy.port(port));
        client.send(format!("POST {path} HTTP/1.1\r\nHost: x.org\r\nContent-Length: 11\r\n\r\nelevenbytes"));
        let response = client.response();
        (response.status, response.text().trim_end().to_owned())
    };
    assert_eq!(ask(&proxy, "/nowhere", "").text(), "of-the-listener");
    assert_eq!(post("/nowhere", 8080), (413, "of-the-listener".to_owned()));
    assert_eq!(post("/app", 8080), (413, "of-the-route".to_owned()));
    assert_eq!(post("/nowhere", 8081), (413, "Content Too Large".to_owned()));
    // Whether it was the length that was said, or the chunks that came.
    let mut client = proxy.client();
    client.send("POST /app HTTP/1.1\r\nHost: x.org\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nelevenbytes\r\n0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "of-the-route"));
    let connector = Connector::new(&authority);
    let mut client = connector.client(&proxy.port(8443), "site.example");
    client.send("GET /nowhere HTTP/1.1\r\nHost: site.example\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text()), (404, "of-tls"));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=3600"));
    // What another listener has is not said to somebody who has not come to it.
    client.send("GET /nowhere HTTP/1.1\r\nHost: other.example\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text()), (421, "Misdirected Request\n"));
}

/// RFC 9110 sections 10.2.1, 10.2.3 and 11.6.1: what a status says nothing without.
#[test]
fn pages_keep_what_a_status_needs() {
    let origin = Origin::replying(|request| {
        let status = request.target.trim_start_matches('/');
        format!("HTTP/1.1 {status} X\r\nWWW-Authenticate: Basic realm=\"a\"\r\nAllow: GET\r\nRetry-After: 7\r\nX-Of: origin\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let rules = "  responseOverride: [{match: {statusCodes: [{type: Range, range: {start: 400, end: 599}}]}, response: {body: {inline: page}}}]\n";
    let yaml = base()
        + &route("all", "/", "origin")
        + &backend("origin", &[&origin.address])
        + &ours("ResponsePolicy", "pages", GATEWAY, rules);
    let proxy = Proxy::start(&yaml);
    for status in [401, 405, 503] {
        let response = ask(&proxy, &format!("/{status}"), "");
        assert_eq!((response.status, response.text(), response.header("x-of")), (status, "page", None));
        for (name, value) in [("www-authenticate", "Basic realm=\"a\""), ("allow", "GET"), ("retry-after", "7")] {
            assert_eq!(response.headers(name), [value], "{status}");
        }
    }
}

/// RFC 6797 section 8.1: of two the first counts, so there is one, and it is the policy's.
#[test]
fn an_endpoints_own_hsts_is_replaced() {
    let authority = Authority::new("ca");
    let origin = Origin::replying(|_| {
        b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: tls, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n";
    let yaml = gateway(listeners)
        + &authority.leaf(&["site.example"]).secret("site")
        + &route("all", "/", "origin")
        + &backend("origin", &[&origin.address])
        + &ours("ResponsePolicy", "hsts", GATEWAY, "  strictTransportSecurity: {maxAge: 1h}\n");
    let proxy = Proxy::start(&yaml);
    let mut client = Connector::new(&authority).client(&proxy.port(8443), "site.example");
    assert_eq!(client.get("/").headers("strict-transport-security"), ["max-age=3600"]);
    assert_eq!(ask(&proxy, "/", "").headers("strict-transport-security"), ["max-age=1"]);
}

#[test]
fn plain_http_is_sent_to_https() {
    let yaml = base() + &route("r", "/app", "echo") + &policy("  httpsRedirect: {}\n");
    let proxy = Proxy::start(&yaml);
    for path in ["/app/x?q=1", "/no-route"] {
        let response = ask(&proxy, path, "");
        let location = format!("https://x.org{path}");
        assert_eq!((response.status, response.header("location")), (308, Some(&*location)), "{path}");
    }
    proxy.reload(&(base() + &route("r", "/app", "echo") + &policy("  httpsRedirect: {statusCode: 301, port: 8443}\n")));
    let response = ask(&proxy, "/app", "");
    assert_eq!((response.status, response.header("location")), (301, Some("https://x.org:8443/app")));
}

#[test]
fn browsers_are_told_to_come_by_tls_only_over_tls() {
    let authority = Authority::new("ca");
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: tls, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: site}]}}\n";
    let origin = Origin::echo();
    let yaml = gateway(listeners)
        + &authority.leaf(&["site.example"]).secret("site")
        + &route("all", "/", "origin")
        + &backend("origin", &[&origin.address])
        + &route("ours", "/ours", "echo")
        + &backend("echo", &["echo"])
        + &route("broken", "/broken", "nowhere")
        + &ours("ResponsePolicy", "hsts", GATEWAY, "  strictTransportSecurity: {maxAge: 1h, preload: true}\n");
    let proxy = Proxy::start(&yaml);
    let mut secure = Connector::new(&authority).client(&proxy.port(8443), "site.example");
    for (path, status) in [("/", 200), ("/ours", 200), ("/broken", 500)] {
        // A browser must not believe it without TLS (RFC 6797 section 7.2).
        let plain = ask(&proxy, path, "");
        assert_eq!((plain.status, plain.header("strict-transport-security")), (status, None), "{path}");
        secure.send(format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n\r\n"));
        let answer = secure.response();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers("strict-transport-security"), ["max-age=3600; preload"], "{path}");
    }
}
