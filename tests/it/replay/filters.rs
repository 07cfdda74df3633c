//! Filters of HTTPRoutes.

use super::http::path;
use super::*;
use crate::support::eventually;

/// HTTPRouteRequestHeaderModifier
#[test]
fn http_route_request_header_modifier() {
    let rules = format!(
        "  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Header-Set, value: set-overwrites}}]}}}}]\n    {to}\n  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: X-Header-Add, value: add-appends}}]}}}}]\n    {to}\n  - matches: [{}]\n    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [X-Header-Remove]}}}}]\n    {to}\n",
        path("PathPrefix", "/set"),
        path("PathPrefix", "/add"),
        path("PathPrefix", "/remove"),
        to = to("v1")
    );
    header_modifier(&rules);
}

/// HTTPRouteBackendRequestHeaderModifier
#[test]
fn http_route_backend_request_header_modifier() {
    let at = |path: &str, change: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: v1, port: 8080, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{change}}}}}]}}]\n"
        )
    };
    header_modifier(
        &(at("/set", "set: [{name: X-Header-Set, value: set-overwrites}]")
            + &at("/add", "add: [{name: X-Header-Add, value: add-appends}]")
            + &at("/remove", "remove: [X-Header-Remove]")),
    );
}

fn header_modifier(rules: &str) {
    let world = world(&(gateway(WEB) + &route("modifier", "", rules)));
    let header = |path: &'static str, fields: &'static [(&'static str, &'static str)], name: &str| {
        let seen = world.seen(Ask { fields, ..get("", path) });
        seen["headers"][name][0].as_str().map(str::to_owned)
    };
    assert_eq!(header("/set", &[("Some-Other", "x")], "x-header-set").as_deref(), Some("set-overwrites"));
    assert_eq!(header("/set", &[("X-Header-Set", "some")], "x-header-set").as_deref(), Some("set-overwrites"));
    assert_eq!(header("/set", &[("Some-Other", "x")], "some-other").as_deref(), Some("x"));
    assert_eq!(header("/add", &[], "x-header-add").as_deref(), Some("add-appends"));
    assert_eq!(header("/add", &[("X-Header-Add", "some")], "x-header-add").as_deref(), Some("some,add-appends"));
    assert_eq!(header("/remove", &[("X-Header-Remove", "val")], "x-header-remove"), None);
}

/// HTTPRouteRequestHeaderModifierBackendWeights
#[test]
fn http_route_request_header_modifier_backend_weights() {
    let share = |name: &str, weight: u32| {
        format!(
            "{{name: {name}, port: 8080, weight: {weight}, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: Backend, value: {name}}}]}}}}]}}"
        )
    };
    let rules = format!("  - backendRefs: [{}, {}]\n", share("v1", 1), share("v2", 1));
    let world = world(&(gateway(WEB) + &route("weights", "", &rules)));
    for _ in 0..40 {
        let seen = world.seen(get("", "/"));
        assert_eq!(seen["headers"]["backend"][0], seen["backend"]);
    }
    assert!(world.origins[..2].iter().all(|origin| !origin.requests().is_empty()));
}

/// HTTPRouteResponseHeaderModifier
#[test]
fn http_route_response_header_modifier() {
    let rules = format!(
        "  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: Content-Type, value: text/set}}], add: [{{name: X-Header-Add, value: add-appends}}], remove: [Content-Language]}}}}]\n    {}\n",
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("response", "", &rules)));
    let response = world.ask(get("", "/"));
    assert_eq!(
        (response.header("content-type"), response.header("x-header-add")),
        (Some("text/set"), Some("add-appends"))
    );
}

/// Location of the answer to a request for each path.
fn redirects(listeners: &str, filters: &[(&str, &str)], cases: &[(u16, &str, u16, &str)]) {
    let rules: String = filters
        .iter()
        .map(|(path, redirect)| {
            format!("  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]\n")
        })
        .collect();
    let world = world(&(gateway(listeners) + &route("redirects", "", &rules)));
    for (port, path, status, location) in cases {
        let response = world.ask(Ask { port: *port, ..get("example.org", path) });
        assert_eq!((response.status, response.header("location")), (*status, Some(*location)), "{port} {path}");
    }
}

/// HTTPRouteRedirectHostAndStatus
#[test]
fn http_route_redirect_host_and_status() {
    redirects(
        WEB,
        &[("/host", "{hostname: example.net}"), ("/both", "{hostname: example.net, statusCode: 301}")],
        &[(8080, "/host", 302, "http://example.net:8080/host"), (8080, "/both", 301, "http://example.net:8080/both")],
    );
}

/// HTTPRoute303Redirect, HTTPRoute307Redirect, HTTPRoute308Redirect
#[test]
fn http_route_303_307_308_redirects() {
    redirects(
        WEB,
        &[("/303", "{statusCode: 303}"), ("/307", "{statusCode: 307}"), ("/308", "{statusCode: 308}")],
        &[
            (8080, "/303", 303, "http://example.org:8080/303"),
            (8080, "/307", 307, "http://example.org:8080/307"),
            (8080, "/308", 308, "http://example.org:8080/308"),
        ],
    );
}

/// HTTPRouteRedirectPath
#[test]
fn http_route_redirect_path() {
    let prefix = |value: &str| format!("{{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {value}}}}}");
    let full = "{path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}}";
    let (replaced, host) = (
        prefix("/replacement-prefix"),
        "{hostname: example.net, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}",
    );
    redirects(
        WEB,
        &[("/original-prefix", &replaced), ("/full", full), ("/host-prefix", host), ("/root", &prefix("/"))],
        &[
            (8080, "/original-prefix/lemon", 302, "http://example.org:8080/replacement-prefix/lemon"),
            (8080, "/original-prefix/", 302, "http://example.org:8080/replacement-prefix/"),
            (8080, "/full/path/original", 302, "http://example.org:8080/full-path-replacement"),
            (8080, "/host-prefix/a?q=1", 302, "http://example.net:8080/new/a?q=1"),
            (8080, "/root/x", 302, "http://example.org:8080/x"),
            (8080, "/root", 302, "http://example.org:8080/"),
        ],
    );
}

/// HTTPRouteRedirectPort
#[test]
fn http_route_redirect_port() {
    redirects(
        WEB,
        &[
            ("/port", "{port: 8083}"),
            ("/code", "{port: 8083, statusCode: 301}"),
            ("/host", "{port: 8083, hostname: example.net}"),
            ("/eighty", "{port: 80}"),
        ],
        &[
            (8080, "/port", 302, "http://example.org:8083/port"),
            (8080, "/code", 301, "http://example.org:8083/code"),
            (8080, "/host", 302, "http://example.net:8083/host"),
            (8080, "/eighty", 302, "http://example.org/eighty"),
        ],
    );
}

/// HTTPRouteRedirectScheme
#[test]
fn http_route_redirect_scheme() {
    redirects(
        WEB,
        &[
            ("/scheme", "{scheme: https}"),
            ("/code", "{scheme: https, statusCode: 301}"),
            ("/host", "{scheme: https, hostname: example.net}"),
        ],
        &[
            (8080, "/scheme", 302, "https://example.org/scheme"),
            (8080, "/code", 301, "https://example.org/code"),
            (8080, "/host", 302, "https://example.net/host"),
        ],
    );
}

/// HTTPRouteRedirectPortAndScheme
#[test]
fn http_route_redirect_port_and_scheme() {
    let listeners = "  - {name: http, port: 8080, protocol: HTTP}\n  - {name: other, port: 8090, protocol: HTTP}\n";
    redirects(
        listeners,
        &[
            ("/nil-nil", "{hostname: example.net}"),
            ("/nil-80", "{hostname: example.net, port: 80}"),
            ("/nil-8080", "{hostname: example.net, port: 8080}"),
            ("/https-nil", "{hostname: example.net, scheme: https}"),
            ("/https-443", "{hostname: example.net, scheme: https, port: 443}"),
            ("/https-8443", "{hostname: example.net, scheme: https, port: 8443}"),
            ("/http-nil", "{hostname: example.net, scheme: http}"),
            ("/http-80", "{hostname: example.net, scheme: http, port: 80}"),
            ("/http-8080", "{hostname: example.net, scheme: http, port: 8080}"),
        ],
        &[
            (8080, "/nil-nil", 302, "http://example.net:8080/nil-nil"),
            (8090, "/nil-nil", 302, "http://example.net:8090/nil-nil"),
            (8090, "/nil-80", 302, "http://example.net/nil-80"),
            (8090, "/nil-8080", 302, "http://example.net:8080/nil-8080"),
            (8090, "/https-nil", 302, "https://example.net/https-nil"),
            (8090, "/https-443", 302, "https://example.net/https-443"),
            (8090, "/https-8443", 302, "https://example.net:8443/https-8443"),
            (8090, "/http-nil", 302, "http://example.net/http-nil"),
            (8090, "/http-80", 302, "http://example.net/http-80"),
            (8090, "/http-8080", 302, "http://example.net:8080/http-8080"),
        ],
    );
}

/// HTTPRouteBackendRequestRedirect
#[test]
fn http_route_backend_request_redirect() {
    let rules = "  - backendRefs: [{name: v1, port: 8080, filters: [{type: RequestRedirect, requestRedirect: {hostname: example.net, statusCode: 301}}]}]\n";
    let world = world(&(gateway(WEB) + &route("redirect", "", rules)));
    let response = world.ask(get("", "/x"));
    assert_eq!((response.status, response.header("location")), (301, Some("http://example.net:8080/x")));
    assert!(world.origins[0].requests().is_empty());
}

fn rewrites(filters: &[(&str, &str)], cases: &[(&str, &str, &str)], at_backend: bool) {
    let rules: String = filters
        .iter()
        .map(|(path, rewrite)| {
            let filter = format!("filters: [{{type: URLRewrite, urlRewrite: {rewrite}}}]");
            match at_backend {
                true => format!("  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: v1, port: 8080, {filter}}}]\n"),
                false => format!("  - matches: [{{path: {{value: {path}}}}}]\n    {filter}\n    {}\n", to("v1")),
            }
        })
        .collect();
    let world = world(&(gateway(WEB) + &route("rewrites", "", &rules)));
    for (path, host, target) in cases {
        let seen = world.seen(get("example.org", path));
        assert_eq!((seen["host"].as_str(), seen["path"].as_str()), (Some(*host), Some(*target)), "{path}");
    }
}

/// HTTPRouteRewriteHost
#[test]
fn http_route_rewrite_host() {
    rewrites(
        &[("/one", "{hostname: one.example.org}"), ("/", "{hostname: example.net}")],
        &[("/one", "one.example.org", "/one"), ("/two", "example.net", "/two")],
        false,
    );
}

const PATHS: [(&str, &str); 4] = [
    ("/prefix/one", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}"),
    ("/strip", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}"),
    ("/full/one", "{path: {type: ReplaceFullPath, replaceFullPath: /one}}"),
    ("/both", "{hostname: example.net, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}}"),
];

/// HTTPRouteRewritePath
#[test]
fn http_route_rewrite_path() {
    rewrites(
        &PATHS,
        &[
            ("/prefix/one/two", "example.org", "/one/two"),
            ("/strip/three", "example.org", "/three"),
            ("/strip", "example.org", "/"),
            ("/full/one/two", "example.org", "/one"),
            ("/both/x?q=1", "example.net", "/new/x?q=1"),
        ],
        false,
    );
}

/// HTTPRouteBackendURLRewrite
#[test]
fn http_route_backend_url_rewrite() {
    rewrites(&PATHS, &[("/prefix/one/two", "example.org", "/one/two"), ("/both/x", "example.net", "/new/x")], true);
}

fn mirror(name: &str, more: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 8080}}{more}}}}}")
}

/// HTTPRouteRequestMirror
#[test]
fn http_route_request_mirror() {
    let rules = format!(
        "  - filters: [{}, {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Header-Set, value: set}}]}}}}]\n    {}\n",
        mirror("v2", ""),
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("mirror", "", &rules)));
    let seen = world.seen(get("", "/mirror?id=7"));
    assert_eq!((seen["backend"].as_str(), seen["headers"]["x-header-set"][0].as_str()), (Some("v1"), Some("set")));
    eventually("the copy arrives", || world.origins[1].requests().iter().any(|each| each.target == "/mirror?id=7"));
}

/// HTTPRouteRequestMultipleMirrors
#[test]
fn http_route_request_multiple_mirrors() {
    let rules = format!("  - filters: [{}, {}]\n    {}\n", mirror("v2", ""), mirror("v3", ""), to("v1"));
    let world = world(&(gateway(WEB) + &route("mirrors", "", &rules)));
    world.expect(&[(get("", "/x?id=8"), "v1")]);
    eventually("both arrive", || {
        world.origins[1..].iter().all(|each| each.requests().iter().any(|one| one.target == "/x?id=8"))
    });
}

/// HTTPRouteRequestPercentageMirror
#[test]
fn http_route_request_percentage_mirror() {
    let rules = format!(
        "  - filters: [{}, {}]\n    {}\n",
        mirror("v2", ", percent: 20"),
        mirror("v3", ", fraction: {numerator: 1, denominator: 2}"),
        to("v1")
    );
    let world = world(&(gateway(WEB) + &route("mirrors", "", &rules)));
    let mut client = world.proxy.client();
    for _ in 0..500 {
        client.get("/");
    }
    // Six standard deviations: 54 and 67.
    let near = |origin: &Origin, wanted: usize, off: usize| origin.requests().len().abs_diff(wanted) <= off;
    eventually("the shares arrive", || near(&world.origins[1], 100, 54) && near(&world.origins[2], 250, 67));
}

/// HTTPRouteCORS
#[test]
fn http_route_cors() {
    let cors = "{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600}}";
    let methods = "{type: CORS, cors: {allowOrigins: ['https://www.foo.com'], allowMethods: ['*']}}";
    let origins = "{type: CORS, cors: {allowOrigins: ['*'], allowMethods: [PUT]}}";
    let rules: String = [("/cors-1", cors), ("/cors-2", methods), ("/cors-3", origins)]
        .iter()
        .map(|(path, filter)| {
            format!("  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{filter}]\n    {}\n", to("v1"))
        })
        .collect();
    let world = world(&(gateway(WEB) + &route("cors", "", &rules)));
    let preflight = |path: &'static str, origin: &str, method: &str| {
        let fields = [
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "x-header-1, x-header-2"),
        ];
        world.ask(Ask { method: "OPTIONS", fields: &fields, ..get("", path) })
    };
    for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
        let answer = preflight("/cors-1", origin, "GET");
        assert!(matches!(answer.status, 200 | 204));
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{origin} {name}");
        }
        let simple = world.ask(Ask { fields: &[("Origin", origin)], ..get("", "/cors-1") });
        assert_eq!((simple.status, simple.header("access-control-allow-origin")), (200, Some(origin)));
    }
    assert_eq!(preflight("/cors-1", "https://foobar.com", "GET").header("access-control-allow-origin"), None);
    let foreign = world.ask(Ask { fields: &[("Origin", "https://foobar.com")], ..get("", "/cors-1") });
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let any = preflight("/cors-2", "https://www.foo.com", "POST");
    assert!(matches!(any.header("access-control-allow-methods"), Some("*" | "POST")));
    assert_eq!(any.header("access-control-allow-credentials"), None);
    for origin in ["https://foobar.com", "https://foobar.com:12345"] {
        let answer = preflight("/cors-3", origin, "PUT");
        assert!(matches!(answer.header("access-control-allow-origin"), Some(found) if found == origin || found == "*"));
        assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    }
}
