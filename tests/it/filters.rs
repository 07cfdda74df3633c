//! Filters of rules and of backendRefs, through the whole proxy.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Response;
use crate::support::eventually;
use crate::support::origin::{Origin, Request};
use crate::support::proxy::{Proxy, backend, gateway};

/// A route `app` with these rules.
fn route(rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: app}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n{rules}"
    )
}

/// A listener on 8080, these rules, and Backends with one endpoint each.
fn start(rules: &str, backends: &[(&str, &str)], more: &str) -> Proxy {
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &route(rules);
    for (name, endpoint) in backends {
        yaml += &backend(name, &[endpoint]);
    }
    Proxy::start(&(yaml + more))
}

fn ask(proxy: &Proxy, line: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("{line} HTTP/1.1\r\nHost: x.org\r\n{fields}\r\n"));
    client.response_to(line.split(' ').next().unwrap()).unwrap()
}

#[test]
fn filters_of_a_backend_ref_follow_those_of_its_rule() {
    let rules = "  - matches: [{path: {value: /a}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: rule}], add: [{name: X-Add, value: rule}], remove: [X-Gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-From, value: rule}]}}
    - {type: URLRewrite, urlRewrite: {hostname: rule.example}}
    backendRefs:
    - group: ringway.dev
      kind: Backend
      name: echo
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Set, value: ref}, {name: X-Add, value: ref}, {name: X-Gone, value: back}]}}
      - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-From, value: ref}]}}
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}
  - matches: [{path: {value: /go}}]
    backendRefs:
    - group: ringway.dev
      kind: Backend
      name: echo
      filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example, statusCode: 307}}]
";
    let proxy = start(rules, &[("echo", "echo")], "");
    let response = ask(&proxy, "GET /a/x?q", "X-Add: mine\r\nX-Gone: mine\r\n");
    assert_eq!(response.header("x-from"), Some("rule,ref"));
    let seen = response.json();
    assert_eq!((seen["path"].as_str(), seen["host"].as_str()), (Some("/b/x?q"), Some("rule.example")));
    let headers = &seen["headers"];
    for (name, value) in [("x-set", "rule,ref"), ("x-add", "mine,rule,ref"), ("x-gone", "back")] {
        assert_eq!(headers[name][0].as_str(), Some(value), "{name}: {headers}");
    }
    let response = ask(&proxy, "GET /go/on", "");
    assert_eq!((response.status, response.header("location")), (307, Some("http://other.example:8080/go/on")));
}

#[test]
fn filters_of_a_backend_ref_change_what_an_origin_gets_and_answers() {
    let origin = Origin::replying(|_| b"HTTP/1.1 200 OK\r\nX-Of: origin\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let filters = "      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [X-Of], set: [{name: X-By, value: ref}]}}]\n";
    let rules =
        format!("  - backendRefs:\n    - group: ringway.dev\n      kind: Backend\n      name: origin\n{filters}");
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    let response = ask(&proxy, "GET /", "");
    assert_eq!((response.header("x-of"), response.header("x-by"), response.text()), (None, Some("ref"), "ok"));
}

fn mirror(name: &str, more: &str) -> String {
    format!(
        "    - {{type: RequestMirror, requestMirror: {{backendRef: {{group: ringway.dev, kind: Backend, name: {name}}}{more}}}}}\n"
    )
}

const TO_ORIGIN: &str = "    backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n";

#[test]
fn mirrors_get_copies_and_their_answers_are_ignored() {
    let (origin, one, two) = (Origin::echo(), Origin::echo(), Origin::closing("nonsense"));
    let none = Origin::echo();
    let rules = format!(
        "  - filters:\n{}{}{}{}    - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-By, value: rule}}]}}}}\n{TO_ORIGIN}",
        mirror("one", ""),
        mirror("two", ", percent: 100"),
        mirror("none", ", fraction: {numerator: 0, denominator: 7}"),
        mirror("missing", "")
    );
    let backends =
        [("origin", &*origin.address), ("one", &*one.address), ("two", &*two.address), ("none", &*none.address)];
    let proxy = start(&rules, &backends, "");
    assert_eq!(ask(&proxy, "GET /a?b", "").text(), "GET /a?b");
    // A body that comes with its head, one in chunks, and one that comes later.
    let mut client = proxy.client();
    client.send("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().text(), "POST /b");
    client.send("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "POST /c");
    client.send("PUT /d HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    std::thread::sleep(Duration::from_millis(50));
    client.send("def");
    assert_eq!(client.response().text(), "PUT /d");
    for mirror in [&one, &two] {
        eventually("copies arrive", || mirror.requests().len() == 4);
        let mut seen: Vec<(String, Vec<u8>)> =
            mirror.requests().into_iter().map(|request| (request.target, request.body)).collect();
        seen.sort();
        let expected: [(&str, &[u8]); 4] = [("/a?b", b""), ("/b", b"hello"), ("/c", b"abc"), ("/d", b"abcdef")];
        assert!(seen.iter().zip(expected).all(|(seen, wanted)| (&*seen.0, &*seen.1) == wanted), "{seen:?}");
        assert!(mirror.requests().iter().all(|request| request.header("x-by") == Some("rule")));
    }
    assert_eq!((none.requests().len(), origin.requests().len()), (0, 4));
    // Two connections of the client at most, one copy after the other: they are kept.
    assert!(one.connections() <= 4, "{}", one.connections());
}

#[test]
fn long_bodies_are_not_mirrored_and_mirrors_that_hang_hold_nobody_up() {
    let (origin, copy) = (
        Origin::echo(),
        Origin::script(|mut conn, seen| {
            while let Some(request) = conn.request() {
                seen.lock().unwrap().push(request);
                std::thread::sleep(Duration::from_secs(20));
            }
        }),
    );
    let rules = format!("  - filters:\n{}{TO_ORIGIN}", mirror("copy", ""));
    let proxy = start(&rules, &[("origin", &origin.address), ("copy", &copy.address)], "");
    let start = Instant::now();
    let mut client = proxy.client();
    client.send(format!("POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 100 << 10));
    client.send(vec![b'x'; 100 << 10]);
    assert_eq!(client.response().text(), "POST /long");
    proxy.expect_metric("ringway_upstream_errors_total", &["reason=\"mirror_dropped\""], 1.0);
    for _ in 0..20 {
        assert_eq!(client.get("/short").text(), "GET /short");
    }
    eventually("copies arrive", || copy.requests().len() == 20);
    assert!(copy.requests().iter().all(|request| request.target == "/short"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_share_of_requests_is_mirrored() {
    let (origin, half) = (Origin::echo(), Origin::echo());
    let rules = format!("  - filters:\n{}{TO_ORIGIN}", mirror("half", ", fraction: {numerator: 1, denominator: 2}"));
    let proxy = start(&rules, &[("origin", &origin.address), ("half", &half.address)], "");
    let mut client = proxy.client();
    for _ in 0..400 {
        client.get("/");
    }
    // Six standard deviations of 400 tosses are 60.
    eventually("copies arrive", || half.requests().len() > 140);
    assert!(half.requests().len() < 260, "{}", half.requests().len());
}

#[test]
fn cors_answers_preflights_and_marks_answers() {
    let origin = Origin::replying(|request| {
        assert_ne!((request.method.as_str(), request.target.as_str()), ("OPTIONS", "/a"), "a preflight came through");
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://wrong\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let cors = "    filters: [{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, PUT], allowHeaders: [X-One, X-Two], exposeHeaders: [X-Out], allowCredentials: true, maxAge: 3600}}]\n";
    let rules = format!(
        "  - matches: [{{path: {{value: /a}}}}]\n{cors}{TO_ORIGIN}  - matches: [{{path: {{value: /gone}}}}]\n{cors}    backendRefs: [{{group: ringway.dev, kind: Backend, name: missing}}]\n  - matches: [{{path: {{value: /any}}}}]\n    filters: [{{type: CORS, cors: {{allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']}}}}]\n{TO_ORIGIN}"
    );
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    let preflight = |path: &str, origin: &str| {
        let fields = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-one\r\n"
        );
        ask(&proxy, &format!("OPTIONS {path}"), &fields)
    };
    let answer = preflight("/a", "https://x.y.bar.com");
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://x.y.bar.com"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "X-One, X-Two"),
        ("access-control-expose-headers", "X-Out"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "3600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let refused = preflight("/a", "https://bar.com");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (204, None));
    let any = preflight("/any", "https://else.org:8443");
    assert_eq!(any.header("access-control-allow-origin"), Some("https://else.org:8443"));
    assert_eq!(any.header("access-control-allow-methods"), Some("*"));
    assert_eq!(any.header("access-control-allow-credentials"), None);

    let simple = ask(&proxy, "GET /a", "Origin: https://www.foo.com\r\n");
    assert_eq!(simple.header("access-control-allow-origin"), Some("https://www.foo.com"));
    assert_eq!((simple.header("access-control-allow-credentials"), simple.header("x-kept")), (Some("true"), Some("1")));
    let foreign = ask(&proxy, "GET /a", "Origin: https://foo.com\r\n");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (200, None));
    // Scripts may see errors of ours as well.
    let failed = ask(&proxy, "GET /gone", "Origin: https://www.foo.com\r\n");
    assert_eq!((failed.status, failed.header("access-control-allow-origin")), (500, Some("https://www.foo.com")));
    // OPTIONS without what makes it a preflight is a request like any other.
    assert_eq!(ask(&proxy, "OPTIONS /any", "Origin: https://www.foo.com\r\n").status, 200);
}

/// An origin that answers by what `status` says for the request and how many there have been.
fn failing(status: impl Fn(&Request, usize) -> &'static str + Send + Sync + 'static) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::replying(move |request| {
        let status = status(request, count.fetch_add(1, Ordering::SeqCst));
        format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody").into_bytes()
    })
}

#[test]
fn listed_statuses_are_retried() {
    let origin = failing(|_, count| match count % 3 {
        0 => "500 Oh",
        1 => "503 No",
        _ => "200 OK",
    });
    let rules = format!("  - retry: {{codes: [500, 503], attempts: 3, backoff: 100ms}}\n{TO_ORIGIN}");
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    let begun = Instant::now();
    assert_eq!(ask(&proxy, "GET /", "").status, 200);
    // 100 ms before the second and 200 ms before the third are the least.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(origin.requests().len(), 3);
    // What has come with its head is sent again with it.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.requests().len(), 6);
    assert!(origin.requests()[3..].iter().all(|request| request.body == b"abc"));
}

#[test]
fn other_statuses_are_not_retried_and_the_last_answer_is_passed_on() {
    let origin = failing(|request, _| if request.target == "/502" { "502 Bad" } else { "500 Oh" });
    let rules = format!("  - retry: {{codes: [500], attempts: 2, backoff: 1ms}}\n{TO_ORIGIN}");
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    assert_eq!(ask(&proxy, "GET /502", "").status, 502);
    assert_eq!(origin.requests().len(), 1);
    let last = ask(&proxy, "GET /500", "");
    assert_eq!((last.status, last.text()), (500, "body"));
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn resets_and_timeouts_are_retried() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let origin = Origin::script(move |mut conn, _| {
        while let Some(request) = conn.request() {
            let count = {
                let mut log = log.lock().unwrap();
                log.push(request.target.clone());
                log.iter().filter(|target| **target == request.target).count()
            };
            match (&*request.target, count) {
                ("/reset", 1 | 2) | ("/dead", _) => {
                    conn.abort();
                    return;
                }
                ("/slow", 1) | ("/stuck", _) => std::thread::sleep(Duration::from_secs(3)),
                _ => {}
            }
            if !conn.reply("200 OK", "fine") {
                return;
            }
        }
    });
    let rules = format!(
        "  - retry: {{attempts: 2, backoff: 1ms}}\n    timeouts: {{request: 10s, backendRequest: 300ms}}\n{TO_ORIGIN}"
    );
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    for (path, status) in [("/reset", 200), ("/slow", 200), ("/dead", 502), ("/stuck", 504)] {
        assert_eq!(ask(&proxy, &format!("GET {path}"), "").status, status, "{path}");
    }
    let count = |path: &str| seen.lock().unwrap().iter().filter(|target| *target == path).count();
    assert_eq!((count("/reset"), count("/slow"), count("/stuck")), (3, 2, 3));
    // A kept connection that turns out to be dead costs none of the attempts.
    assert!((3..=4).contains(&count("/dead")), "{}", count("/dead"));
}

#[test]
fn the_request_timeout_spans_retries() {
    let origin = failing(|_, _| "503 No");
    let rules = format!(
        "  - retry: {{codes: [503], attempts: 100, backoff: 300ms}}\n    timeouts: {{request: 700ms}}\n{TO_ORIGIN}"
    );
    let proxy = start(&rules, &[("origin", &origin.address)], "");
    let begun = Instant::now();
    assert_eq!(ask(&proxy, "GET /", "").status, 504);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!((1..=3).contains(&origin.requests().len()), "{}", origin.requests().len());
}

#[test]
fn a_refused_connection_is_retried() {
    let address = format!("{}:9999", crate::support::address());
    let rules = format!("  - retry: {{attempts: 50, backoff: 50ms}}\n{TO_ORIGIN}");
    let proxy = start(&rules, &[("origin", &address)], "");
    let mut client = proxy.client();
    client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let _origin = Origin::at(&address, |mut conn, _| {
        if conn.request().is_some() {
            conn.reply("200 OK", "here");
        }
    });
    assert_eq!(client.response().text(), "here");
}

/// Answers of a backendRef's own stand for its share only, and `explain` says so.
#[test]
fn a_backend_ref_answers_by_itself() {
    let answer = "filters: [{type: ExtensionRef, extensionRef: {group: ringway.dev, kind: HTTPRouteFilter, name: answer}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-By, value: ref}]}}]";
    let rules = format!(
        "  - matches: [{{path: {{value: /all}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: echo, {answer}}}]\n  - matches: [{{path: {{value: /some}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: echo, {answer}}}, {{group: ringway.dev, kind: Backend, name: echo}}]\n"
    );
    let more = route_filter("answer", "{directResponse: {statusCode: 503, body: {inline: later}}}");
    let proxy = start(&rules, &[("echo", "echo")], &more);
    let all = ask(&proxy, "GET /all", "");
    assert_eq!((all.status, all.text(), all.header("x-by")), (503, "later", Some("ref")));
    let answers: Vec<u16> = (0..40).map(|_| ask(&proxy, "GET /some", "").status).collect();
    assert!(answers.contains(&503) && answers.contains(&200), "{answers:?}");
    let url = |path: &str| format!("http://{}{path}", proxy.address);
    let found = crate::explain::explain(&proxy, &[&url("/all")]);
    assert_eq!(found["outcome"]["answer"], 503, "{found:#}");
    let found = crate::explain::explain(&proxy, &[&url("/some")]);
    assert_eq!(found["backends"][0]["directResponse"], 503, "{found:#}");
    assert_eq!(found["upstreamRequest"][0], "GET /some HTTP/1.1", "{found:#}");
}

fn route_filter(name: &str, spec: &str) -> String {
    format!("---\napiVersion: ringway.dev/v1alpha1\nkind: HTTPRouteFilter\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn extension_refs_rewrite_by_regular_expressions_and_answer() {
    let rule = |path: &str, name: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: ExtensionRef, extensionRef: {{group: ringway.dev, kind: HTTPRouteFilter, name: {name}}}}}]\n"
        )
    };
    let to_echo = "    backendRefs: [{group: ringway.dev, kind: Backend, name: echo}]\n";
    let rules = rule("/api", "rewrite")
        + to_echo
        + &rule("/maintenance", "answer")
        + &rule("/page", "page")
        + &rule("/nothing", "missing")
        + to_echo;
    let more = route_filter(
        "rewrite",
        "{urlRewrite: {path: {type: ReplaceRegexMatch, replaceRegexMatch: {pattern: '^/api/v([0-9]+)/(.*)$', substitution: '/$2/in/\\1'}}}}",
    ) + &route_filter(
        "answer",
        "{directResponse: {statusCode: 503, contentType: text/html, body: {inline: '<p>${soon}</p>'}}}",
    ) + &route_filter(
        "page",
        "{directResponse: {body: {type: ValueRef, valueRef: {group: '', kind: ConfigMap, name: page}}}}",
    ) + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: page}\ndata: {response.body: hello, other: x}\n";
    let proxy = start(&rules, &[("echo", "echo")], &more);
    assert_eq!(ask(&proxy, "GET /api/v2/users/7?q=1", "").json()["path"].as_str(), Some("/users/7/in/2?q=1"));
    assert_eq!(ask(&proxy, "GET /api/other", "").json()["path"].as_str(), Some("/api/other"));
    let answer = ask(&proxy, "GET /maintenance", "");
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text()),
        (503, Some("text/html"), "<p>${soon}</p>")
    );
    assert_eq!(ask(&proxy, "GET /page", "").text(), "hello");
    assert_eq!(ask(&proxy, "GET /nothing", "").status, 500);
}
