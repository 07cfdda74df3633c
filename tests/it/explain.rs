//! What `ringway explain` says, and what the process does with the same request.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, backend, command, gateway, policy};
use crate::support::tls::{Authority, Connector};

pub fn explain(proxy: &Proxy, arguments: &[&str]) -> Value {
    let all = [&["explain", "--config", "config.yaml", "-o", "json"], arguments].concat();
    let (code, out, error) = command(&all, &proxy.directory.0);
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).unwrap()
}

/// The method, path, Host and fields that were said to go upstream, in the form in which the echo responder says what
/// came.
fn upstream(found: &Value) -> Value {
    let lines: Vec<&str> =
        found["upstreamRequest"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let mut words = lines[0].split(' ');
    let mut out = json!({ "method": words.next(), "path": words.next(), "headers": {} });
    for line in &lines[1..] {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Host" {
            out["host"] = json!(value);
            continue;
        }
        let values = &mut out["headers"][name.to_lowercase()];
        match values.as_array_mut() {
            Some(values) => values.push(json!(value)),
            None => *values = json!([value]),
        }
    }
    out
}

/// Compares what was said with what was answered.
fn agree(found: &Value, response: &Response, question: &str) {
    if let Some(status) = found["outcome"]["answer"].as_u64() {
        assert_eq!(u64::from(response.status), status, "{question}: {found:#}");
        assert_eq!(response.header("location"), found["outcome"]["location"].as_str(), "{question}");
        return;
    }
    assert_eq!((response.status, &found["outcome"]["forward"]), (200, &json!(true)), "{question}: {found:#}");
    let mut told = response.json();
    // Where a backendRef has filters of its own, what it gets is said with it.
    let own = found["backends"].as_array().unwrap().iter().find(|share| !share["upstreamRequest"].is_null());
    let mut said = upstream(own.unwrap_or(found));
    let named: Vec<_> = found["backends"].as_array().unwrap().iter().map(|share| share["backend"].clone()).collect();
    let answered = json!(format!("Backend/default/{}", told["backend"].as_str().unwrap()));
    assert!(named.contains(&answered), "{question}: {answered} is not among {named:?}");
    // The one part that nobody can know.
    assert_eq!(said["headers"]["x-request-id"], json!(["(a random UUID)"]));
    for list in [&mut said, &mut told] {
        list["headers"].as_object_mut().unwrap().remove("x-request-id");
    }
    for part in ["method", "path", "host", "headers"] {
        assert_eq!(said[part], told[part], "{question}: {part}");
    }
}

const ROUTES: &str = "---
apiVersion: ringway.dev/v1alpha1
kind: HTTPRouteFilter
metadata: {name: captures}
spec: {urlRewrite: {path: {type: ReplaceRegexMatch, replaceRegexMatch: {pattern: '^/captured/([a-z]+)/(.*)$', substitution: '/$2/$1'}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: www}
spec:
  parentRefs: [{name: edge}]
  hostnames: [www.example.com]
  rules:
  - matches: [{path: {type: Exact, value: /exact}}]
    backendRefs: [{group: ringway.dev, kind: Backend, name: a}]
  - matches: [{path: {value: /old}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: '1'}], add: [{name: X-Add, value: more}], remove: [X-Remove]}}
    backendRefs: [{group: ringway.dev, kind: Backend, name: b}]
  - matches:
    - {path: {value: /api}, method: POST}
    - {path: {value: /api}, headers: [{name: x-version, value: two}], queryParams: [{name: q, value: '1'}]}
    backendRefs: [{group: ringway.dev, kind: Backend, name: a}, {group: ringway.dev, kind: Backend, name: b, weight: 0}]
  - matches: [{path: {value: /captured}}]
    filters:
    - {type: ExtensionRef, extensionRef: {group: ringway.dev, kind: HTTPRouteFilter, name: captures}}
    - {type: CORS, cors: {allowOrigins: ['https://*.example.com'], allowMethods: [PUT]}}
    backendRefs:
    - {group: ringway.dev, kind: Backend, name: a, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Own, value: '1'}]}}]}
  - matches: [{path: {type: RegularExpression, value: '/r[0-9]+'}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
  - matches: [{path: {value: /missing}}]
    backendRefs: [{group: ringway.dev, kind: Backend, name: missing}]
  - matches: [{path: {value: /empty}}]
    backendRefs: [{group: ringway.dev, kind: Backend, name: empty}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wild}
spec:
  parentRefs: [{name: edge}]
  hostnames: ['*.example.com']
  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: b}]}]
";

#[test]
fn what_is_explained_is_what_is_done() {
    let listeners = "  - {name: web, port: 8080, protocol: HTTP, hostname: '*.example.com'}\n";
    let trusted = "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8]}}\n  headers: {forwarded: true}\n  limits: {bodyBytes: 1000}\n";
    let yaml = gateway(listeners) + ROUTES + &policy(trusted) + &backend("a", &["echo"]) + &backend("b", &["echo"]);
    let proxy = Proxy::start(&(yaml + &backend("empty", &[])));
    let questions: &[(&str, &str, &str, &[&str])] = &[
        ("www.example.com", "GET", "/exact", &[]),
        ("WWW.Example.com:8080", "GET", "/%65xact", &["X-Forwarded-For: 198.51.100.9", "X-Forwarded-Proto: https"]),
        (
            "www.example.com",
            "GET",
            "/old/page?q=%20",
            &["X-Set: old", "x-add: one", "X-Remove: me", "Connection: x-gone", "X-Gone: 1"],
        ),
        ("www.example.com", "GET", "/oldish", &["Cookie: a=b", "Cookie: c=d"]),
        ("www.example.com", "POST", "/api/x", &["Content-Length: 0"]),
        ("www.example.com", "GET", "/api?q=1", &["X-Version: two"]),
        ("www.example.com", "GET", "/api?q=1", &["X-Version: two", "X-Version: three"]),
        ("www.example.com", "GET", "/r123?x", &[]),
        ("www.example.com", "GET", "/captured/a/b", &["Origin: https://a.example.com"]),
        (
            "www.example.com",
            "OPTIONS",
            "/captured/a/b",
            &["Origin: https://a.example.com", "Access-Control-Request-Method: PUT"],
        ),
        ("www.example.com", "GET", "/missing", &[]),
        ("www.example.com", "GET", "/empty", &[]),
        ("www.example.com", "GET", "/a/../../b", &[]),
        ("www.example.com", "OPTIONS", "/", &["Max-Forwards: 0"]),
        ("www.example.com", "OPTIONS", "/", &["Max-Forwards: 3"]),
        ("www.example.com", "POST", "/api", &["Content-Length: 1001"]),
        ("www.example.com", "TRACE", "/", &[]),
        ("a.b.example.com", "GET", "//x;y", &["TE: trailers", "Upgrade: h2c"]),
        ("example.com", "GET", "/", &[]),
        ("bad_host!", "GET", "/", &[]),
    ];
    for (host, method, path, fields) in questions {
        let host_field = format!("Host: {host}");
        let url = format!("http://x:8080{path}");
        let mut arguments = vec!["-X", method, "-H", &host_field, "--to", &proxy.address, "--from", "127.0.0.1"];
        fields.iter().for_each(|field| arguments.extend(["-H", field]));
        arguments.push(&url);
        let found = explain(&proxy, &arguments);
        let mut client = proxy.client();
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        client.send(format!("{method} {path} HTTP/1.1\r\n{host_field}\r\n{lines}\r\n"));
        agree(&found, &client.response_to(method).unwrap(), &format!("{arguments:?}"));
    }
}

#[test]
fn server_names_and_hosts_that_disagree() {
    let authority = Authority::new("ca");
    let listener = |name: &str, host: &str| {
        format!(
            "  - {{name: {name}, port: 8080, protocol: HTTPS, hostname: {host}, tls: {{certificateRefs: [{{name: site}}]}}}}\n"
        )
    };
    let yaml = gateway(&(listener("a", "a.example.com") + &listener("b", "b.example.com")))
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: a}]}]\n"
        + &backend("a", &["echo"])
        + &authority.leaf(&["a.example.com", "b.example.com"]).secret("site");
    let proxy = Proxy::start(&yaml);
    for (name, host) in [("a", "a"), ("a", "b"), ("b", "b"), ("a", "c")] {
        let (name, host) = (format!("{name}.example.com"), format!("Host: {host}.example.com"));
        let url = format!("https://{name}:8080/x?y");
        let found = explain(&proxy, &["-H", &host, "--to", &proxy.address, "--from", "127.0.0.1", &url]);
        let mut client = Connector::new(&authority).client(&proxy.address, &name);
        client.send(format!("GET /x?y HTTP/1.1\r\n{host}\r\n\r\n"));
        agree(&found, &client.response(), &format!("{name} {host}"));
    }
    let found = explain(&proxy, &["--to", &proxy.address, "https://c.example.com:8080/"]);
    assert_eq!(found["outcome"]["refuse"], "alert unrecognized_name", "{found:#}");
}

#[test]
fn streams_go_to_the_endpoint_that_is_named() {
    let yaml = gateway("  - {name: raw, port: 8080, protocol: TCP}\n")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: raw}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{group: ringway.dev, kind: Backend, name: origin}]}]\n";
    // Origins that say who they are.
    let origins: Vec<_> =
        (0..5).map(|_| std::net::TcpListener::bind((crate::support::address(), 0)).unwrap()).collect();
    let addresses: Vec<String> = origins.iter().map(|origin| origin.local_addr().unwrap().to_string()).collect();
    for (origin, address) in origins.into_iter().zip(addresses.clone()) {
        std::thread::spawn(move || {
            for stream in origin.incoming() {
                // A client that has gone is the test's end.
                let _sent = stream.and_then(|mut stream| stream.write_all(address.as_bytes()));
            }
        });
    }
    let list: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let balanced = "---\napiVersion: ringway.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: hash}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  loadBalancer: {type: ConsistentHash, consistentHash: {type: FiveTuple}}\n";
    let proxy = Proxy::start(&(yaml + balanced + &backend("origin", &list)));
    for _ in 0..8 {
        let mut stream = std::net::TcpStream::connect(&proxy.address).unwrap();
        let from = stream.local_addr().unwrap().to_string();
        let mut answered = String::new();
        stream.read_to_string(&mut answered).unwrap();
        let found = explain(&proxy, &["--from", &from, &format!("tcp://{}", proxy.address)]);
        let endpoints = found["backends"][0]["endpoints"].as_array().unwrap();
        let chosen: Vec<_> =
            endpoints.iter().filter(|each| each["chosen"] == true).map(|each| &each["address"]).collect();
        assert_eq!(chosen, [&json!(answered)], "{found:#}");
    }
}

/// What a running process knows of endpoints, for requests, connections and flows.
#[test]
fn endpoints_are_said_with_what_they_work_on() {
    // Takes requests and answers none.
    let origin = Origin::script(|mut conn, seen| {
        while let Some(request) = conn.request() {
            seen.lock().unwrap().push(request);
        }
    });
    let idle = Origin::echo();
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: raw, port: 8081, protocol: TCP}\n  - {name: names, port: 8082, protocol: UDP}\n  - {name: tls, port: 8083, protocol: TLS, tls: {mode: Passthrough}}\n";
    let route = |kind: &str, section: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {section}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: {section}}}]\n  {}rules: [{{backendRefs: [{{group: ringway.dev, kind: Backend, name: app}}]}}]\n",
            if kind == "TLSRoute" { "hostnames: [tls.example.com]\n  " } else { "" }
        )
    };
    let routes =
        route("HTTPRoute", "web") + &route("TCPRoute", "raw") + &route("UDPRoute", "names") + &route("TLSRoute", "tls");
    let yaml = gateway(listeners) + &routes + &backend("app", &[&origin.address]);
    let proxy = Proxy::start(&yaml);
    let socket = format!("unix:{}", proxy.socket().display());
    let targets = [
        format!("http://{}/", proxy.address),
        format!("tcp://{}", proxy.port(8081)),
        format!("udp://{}", proxy.port(8082)),
        format!("tls://{}", proxy.port(8083)),
    ];
    let endpoints = |target: &str, admin: &str| {
        let arguments = [target, "--sni", "tls.example.com", "--admin", admin];
        explain(&proxy, &arguments)["backends"][0]["endpoints"].clone()
    };
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is there", || origin.requests().len() == 1);
    let _open = std::net::TcpStream::connect(proxy.port(8081)).unwrap();
    eventually("both are in flight", || proxy.metric("ringway_upstream_in_flight", &[]) >= 2.0);
    let app = origin.address.as_str();
    for target in &targets {
        let told = endpoints(target, &socket);
        let wanted = json!([{ "address": app, "weight": 1, "chosen": null, "health": "Assumed", "state": "Serving", "inFlight": 2 }]);
        assert_eq!(told, wanted, "{target}");
        // Without a process there is nothing to be known.
        let told = endpoints(target, "unix:/nonexistent/admin.sock");
        let wanted = json!([{ "address": app, "weight": 1, "chosen": null, "health": "Assumed", "state": "Unknown", "inFlight": null }]);
        assert_eq!(told, wanted, "{target}");
    }
    // Files that the process does not serve yet.
    let newer = gateway(listeners) + &routes + &backend("app", &[&idle.address]);
    proxy.directory.write("next.yaml", &newer.replace("{ip}", proxy.ip()));
    let next = |admin: &str| {
        let arguments = ["explain", "--config", "next.yaml", "-o", "json", &targets[0], "--admin", admin];
        let (code, out, error) = command(&arguments, &proxy.directory.0);
        assert_eq!(code, 0, "{error}");
        let found: Value = serde_json::from_str(&out).unwrap();
        let all = found["backends"][0]["endpoints"].as_array().unwrap().clone();
        all.iter()
            .map(|each| (each["address"].clone(), each["state"].clone(), each["inFlight"].clone()))
            .collect::<Vec<_>>()
    };
    let of = |address: &str, state: &str, count: Value| (json!(address), json!(state), count);
    assert_eq!(next(&socket), [of(&idle.address, "New", Value::Null), of(app, "Removed", json!(2))]);
    // Served, while the old one has something to do.
    proxy.reload(&newer);
    assert_eq!(next(&socket), [of(&idle.address, "Serving", json!(0)), of(app, "Draining", json!(2))]);
    let arguments = ["explain", "--config", "next.yaml", &targets[0], "--admin", &socket];
    let (_, out, _) = command(&arguments, &proxy.directory.0);
    assert!(out.contains(&format!("{}  weight 1, assumed healthy, 0 in flight", idle.address)), "{out}");
    assert!(
        out.contains(&format!("{app}  weight 0, draining: gone, but not done, assumed healthy, 2 in flight")),
        "{out}"
    );
    assert_eq!(proxy.admin("POST", "/backends").0, 405);
}

#[test]
fn questions_that_cannot_be_answered() {
    let proxy = Proxy::start(&gateway("  - {name: web, port: 8080, protocol: HTTP}\n"));
    for (arguments, code, message) in [
        (&["ftp://x"][..], 2, "ftp:// is not explained"),
        (&["http://x:81/"][..], 1, "no listener is bound to port 81"),
        (&["tcp://x:8080"][..], 1, "speaks HTTP"),
    ] {
        let all = [&["explain", "--config", "config.yaml"], arguments].concat();
        let (found, _, error) = command(&all, &proxy.directory.0);
        assert_eq!(found, code, "{error}");
        assert!(error.contains(message), "{error}");
    }
}
