//! Errors in one object: the others are served, what was good stays, and nothing is served without its protection.

use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Directory, Options, Proxy, backend, config, gateway, spawn};

fn route(name: &str, path: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - name: all\n    matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: echo}}]\n{rule}"
    )
}

/// A policy for a route.
fn ours(kind: &str, route: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {route}}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {route}}}]\n{spec}"
    )
}

fn base() -> String {
    gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &backend("echo", &["echo"])
}

const UNKNOWN_FIELD: &str = "    timeout: {request: 5s}\n";

fn status(proxy: &Proxy, path: &str) -> u16 {
    proxy.client().get(path).status
}

fn in_error(proxy: &Proxy, served: &str) -> f64 {
    proxy.metric("ringway_config_objects_in_error", &[&format!("served=\"{served}\"")])
}

/// The conditions of an object, as `TYPE=STATUS REASON`.
fn conditions(proxy: &Proxy, kind: &str, name: &str) -> Vec<String> {
    let all: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/status").1).unwrap();
    let items = all["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["kind"] == kind && item["metadata"]["name"] == name);
    let status = &found.unwrap_or_else(|| panic!("{kind} {name} in {all:#}"))["status"];
    let own = [&status["conditions"], &status["parents"][0]["conditions"], &status["ancestors"][0]["conditions"]];
    let list = own.into_iter().find_map(|list| list.as_array()).unwrap();
    let text = |each: &serde_json::Value, name: &str| each[name].as_str().unwrap().to_owned();
    list.iter()
        .map(|each| format!("{}={} {}", text(each, "type"), text(each, "status"), text(each, "reason")))
        .collect()
}

#[test]
fn an_object_in_error_leaves_the_others_served() {
    let yaml = base()
        + &route("good", "/good", "")
        + &route("bad", "/bad", UNKNOWN_FIELD)
        + &route("under", "/", "")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: far}\nspec: {ports: [{port: 70000}]}\n"
        + &route("far", "/far", "").replace("group: ringway.dev, kind: Backend, name: echo", "name: far, port: 80");
    let proxy = Proxy::start(&yaml);
    assert_eq!((status(&proxy, "/good"), status(&proxy, "/else")), (200, 200));
    assert_eq!(status(&proxy, "/bad"), 500, "its requests do not fall to the route of everything");
    assert_eq!(status(&proxy, "/far"), 500, "a backend that is left out is none");
    assert_eq!(conditions(&proxy, "HTTPRoute", "bad")[0], "Accepted=False Invalid");
    assert_eq!(conditions(&proxy, "HTTPRoute", "good")[0], "Accepted=True Accepted");
    assert_eq!(conditions(&proxy, "Service", "far")[0], "Accepted=False Invalid");
    assert_eq!(conditions(&proxy, "HTTPRoute", "far")[1], "ResolvedRefs=False BackendNotFound");
    assert_eq!((in_error(&proxy, "nothing"), in_error(&proxy, "last_good")), (2.0, 0.0));
    assert_eq!(proxy.metric("ringway_config_errors", &[]), 2.0);
    let log = proxy.log();
    for wanted in ["config.yaml:", "unknown field `timeout`", "70000 is out of range", "THE CONFIGURATION HAS ERRORS"] {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
}

#[test]
fn the_last_good_version_of_an_object_is_kept() {
    let proxy = Proxy::start(&(base() + &route("a", "/a", "") + &route("b", "/b", "")));
    let yaml = base() + &route("a", "/a", "") + &route("b", "/moved", UNKNOWN_FIELD) + &route("c", "/c", "");
    proxy.write_config(&yaml);
    let (code, said) = proxy.admin("POST", "/reload");
    assert_eq!(code, 409, "{said}");
    assert!(said.contains("unknown field `timeout`") && said.contains("generation 2 is served without"), "{said}");
    assert_eq!(["/a", "/b", "/c", "/moved"].map(|path| status(&proxy, path)), [200, 200, 200, 404]);
    assert!(conditions(&proxy, "HTTPRoute", "b").contains(&"ringway.dev/Stale=True Invalid".to_owned()));
    assert_eq!((in_error(&proxy, "nothing"), in_error(&proxy, "last_good")), (0.0, 1.0));
    // What is removed on purpose goes, whatever else is in error, and what was kept stays kept.
    proxy.write_config(&(base() + &route("b", "/moved", UNKNOWN_FIELD) + &route("c", "/c", "")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(["/a", "/b", "/c", "/moved"].map(|path| status(&proxy, path)), [404, 200, 200, 404]);
    proxy.reload(&(base() + &route("b", "/moved", "") + &route("c", "/c", "")));
    assert_eq!(["/a", "/b", "/c", "/moved"].map(|path| status(&proxy, path)), [404, 404, 200, 200]);
    assert_eq!(proxy.metric("ringway_config_errors", &[]) + in_error(&proxy, "last_good"), 0.0);
    // An object that is there twice is in error as a whole: which is meant cannot be told.
    proxy.write_config(&(base() + &route("b", "/x", "") + &route("b", "/y", "") + &route("c", "/c", "")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(["/moved", "/c", "/x", "/y"].map(|path| status(&proxy, path)), [200, 200, 404, 404]);
}

#[test]
fn policies_in_error_leave_nothing_open() {
    let deny = |field: &str| format!("  authorization: {{{field}: Deny}}\n");
    let limit = |unit: &str| format!("  rules: [{{limit: {{requests: 1000, unit: {unit}}}}}]\n");
    let routes = base() + &route("shut", "/shut", "") + &route("slow", "/slow", "") + &route("free", "/free", "");
    let good =
        ours("AccessPolicy", "shut", &deny("defaultAction")) + &ours("RateLimitPolicy", "slow", &limit("Second"));
    let bad =
        ours("AccessPolicy", "shut", &deny("defaultActoin")) + &ours("RateLimitPolicy", "slow", &limit("Fortnight"));
    let asked = |proxy: &Proxy| ["/shut", "/slow", "/free"].map(|path| status(proxy, path));
    let proxy = Proxy::start(&(routes.clone() + &bad));
    assert_eq!(asked(&proxy), [500, 500, 200]);
    assert_eq!(conditions(&proxy, "AccessPolicy", "shut")[0], "Accepted=False Invalid");
    proxy.reload(&(routes.clone() + &good));
    assert_eq!(asked(&proxy), [403, 200, 200]);
    proxy.write_config(&(routes.clone() + &bad));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(&proxy), [403, 200, 200], "the last good versions");
    assert_eq!(in_error(&proxy, "last_good"), 2.0);
    // A new policy with an error has no last good version; the route's own policy comes before the Gateway's.
    let all =
        ours("AccessPolicy", "all", &deny("defaultActoin")).replace("HTTPRoute, name: all", "Gateway, name: edge");
    proxy.write_config(&(routes.clone() + &good + &all));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(&proxy), [403, 500, 500]);
    // The last good version does not apply to a route that came with the error.
    let wider = bad.replace(
        "HTTPRoute, name: shut}]",
        "HTTPRoute, name: shut}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: new}]",
    );
    proxy.reload(&(routes.clone() + &good));
    proxy.write_config(&(routes.clone() + &route("new", "/new", "") + &wider));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!((asked(&proxy), status(&proxy, "/new")), ([403, 200, 200], 500));
    // What it applies to cannot be told: the last good generation is left as it is, and there is no start.
    proxy.reload(&(routes.clone() + &good));
    let unknown = ours("AccessPolicy", "more", &deny("defaultAction")).replace("name: more}]", "nam: more}]");
    let newer = routes + &route("new", "/new", "") + &good + &unknown;
    proxy.write_config(&newer);
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!((asked(&proxy), status(&proxy, "/new")), ([403, 200, 200], 404));
    let directory = Directory::new();
    directory.write("config.yaml", &newer.replace("{ip}", proxy.ip()));
    assert_eq!(spawn(&directory, &Options::default()).wait().unwrap().code(), Some(64));
}

#[test]
fn a_backend_whose_tls_is_in_error_gets_nothing() {
    let origin = Origin::echo();
    let policy = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: tls}\nspec:\n  targetRefs: [{group: ringway.dev, kind: Backend, name: origin}]\n  validation: {wellKnownCACertificates: System}\n";
    let proxy = Proxy::start(&(config(&[&origin.address], "") + policy));
    assert_eq!(status(&proxy, "/secret"), 500);
    assert_eq!(origin.connections(), 0);
    assert_eq!(conditions(&proxy, "BackendTLSPolicy", "tls")[0], "Accepted=False Invalid");
}

#[test]
fn listeners_whose_policy_is_in_error_are_not_bound() {
    let listeners = "  - {name: web, port: 8080, protocol: HTTP}\n  - {name: other, port: 8081, protocol: HTTP}\n";
    let policy = |field: &str| {
        format!(
            "---\napiVersion: ringway.dev/v1alpha1\nkind: ClientPolicy\nmetadata: {{name: clients}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: other}}]\n  {field}: {{xForwardedFor: {{trustedCIDRs: [10.0.0.0/8]}}}}\n"
        )
    };
    let rest = backend("echo", &["echo"]) + &route("all", "/", "");
    let proxy = Proxy::start(&(gateway(listeners) + &rest + &policy("clientIpDetection")));
    assert_eq!(status(&proxy, "/"), 200);
    assert!(std::net::TcpStream::connect(proxy.port(8081)).is_err());
    proxy.reload(&(gateway(listeners) + &rest + &policy("clientIPDetection")));
    assert!(std::net::TcpStream::connect(proxy.port(8081)).is_ok());
    proxy.write_config(&(gateway(listeners) + &rest + &policy("clientIpDetection")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert!(std::net::TcpStream::connect(proxy.port(8081)).is_ok());
}

#[test]
fn a_file_that_is_not_yaml_keeps_its_objects() {
    let more = Directory::new();
    more.write("b.yaml", &route("b", "/b", ""));
    let arguments = vec!["--config".to_owned(), more.0.display().to_string()];
    let options = Options { arguments, ..Options::default() };
    let proxy = Proxy::with(&(base() + &route("a", "/a", "")), &options);
    let asked = || ["/a", "/b", "/c", "/x"].map(|path| status(&proxy, path));
    assert_eq!(asked(), [200, 200, 404, 404]);
    more.write("b.yaml", &(route("b", "/x", "") + "---\nspec: [\n"));
    more.write("c.yaml", &route("c", "/c", ""));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 200, 200, 404], "the others are served, and the file's own as they were");
    assert!(proxy.admin("GET", "/status").1.contains("LastGood"));
    // Moved to a file that cannot be read.
    std::fs::remove_file(more.0.join("b.yaml")).unwrap();
    more.write("d.yaml", &(route("b", "/b", "") + "---\nspec: [\n"));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 200, 200, 404]);
    // A policy may be in it: nothing new is served.
    more.write("d.yaml", &(route("b", "/b", "") + "---\nkind: AccessPolicy\nspec: [\n"));
    more.write("e.yaml", &route("x", "/x", ""));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 200, 200, 404]);
    more.write("d.yaml", &route("b", "/b", ""));
    assert_eq!(proxy.admin("POST", "/reload").0, 200);
    assert_eq!(asked(), [200, 200, 200, 200]);
}

#[test]
fn what_a_good_version_was_replaced_by_is_kept_with_it() {
    let secret = Directory::new();
    let file = secret.write("path", "/a\n");
    let yaml = base() + &route("a", &format!("\"${{file:{}}}\"", file.display()), "") + &route("b", "/b", "");
    let proxy = Proxy::start(&yaml);
    std::fs::remove_file(&file).unwrap();
    eventually("the file is missed", || proxy.metric("ringway_config_errors", &[]) > 0.0);
    assert_eq!(["/a", "/b"].map(|path| status(&proxy, path)), [200, 200]);
    proxy.write_config(&(yaml + &route("c", "/c", "")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(["/a", "/b", "/c"].map(|path| status(&proxy, path)), [200, 200, 200]);
}

/// What another object has read of the file since is that one's own.
#[test]
fn what_a_good_version_was_replaced_by_is_kept_while_it_is_needed() {
    let secret = Directory::new();
    let file = secret.write("path", "/a\n");
    let path = format!("\"${{file:{}}}\"", file.display());
    let proxy = Proxy::start(&(base() + &route("a", &path, "") + &route("b", "/b", "")));
    secret.write("path", "/new\n");
    for more in ["/1", "/2", "/3"] {
        let yaml = base() + &route("a", &path, UNKNOWN_FIELD) + &route("b", &path, "") + &route("c", more, "");
        proxy.write_config(&yaml);
        assert_eq!(proxy.admin("POST", "/reload").0, 409);
        assert_eq!(["/a", "/new", "/b", more].map(|path| status(&proxy, path)), [200, 200, 404, 200], "{more}");
    }
    proxy.reload(&(base() + &route("a", &path, "") + &route("b", "/b", "")));
    assert_eq!(["/a", "/new"].map(|path| status(&proxy, path)), [404, 200]);
}

#[test]
fn routes_of_one_name_are_all_closed() {
    let more = Directory::new();
    more.write("b.yaml", &(route("twice", "/one", "") + &route("thrice", "/x", "")));
    more.write("c.yaml", &route("twice", "/two", "").replace("spec:", "spec:\n  hostnames: [other.test]"));
    more.write("d.yaml", &(route("thrice", "/y", UNKNOWN_FIELD) + &route("thrice", "/z", "")));
    let arguments = vec!["--config".to_owned(), more.0.display().to_string()];
    let proxy = Proxy::with(&(base() + &route("under", "/", "")), &Options { arguments, ..Options::default() });
    assert_eq!(["/one", "/x", "/y", "/z", "/else"].map(|path| status(&proxy, path)), [500, 500, 500, 500, 200]);
    let two = |host: &str| {
        let mut client = proxy.client();
        client.send(format!("GET /two HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().status
    };
    assert_eq!((two("other.test"), two("else.test")), (500, 200));
    assert_eq!(conditions(&proxy, "HTTPRoute", "twice")[0], "Accepted=False Invalid");
    assert_eq!(in_error(&proxy, "nothing"), 2.0);
}

const ASKS: &str = "    filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {group: ringway.dev, kind: Backend, name: echo}}}]\n";

/// A rule more for the route before it.
fn rule(name: &str, path: &str, rest: &str) -> String {
    format!(
        "  - name: {name}\n    matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{group: ringway.dev, kind: Backend, name: echo}}]\n{rest}"
    )
}

/// An API server would go on with the old version; so does this, without what the new one was to protect.
#[test]
fn a_last_good_route_serves_nothing_that_its_new_version_asks_about() {
    let good =
        base() + &route("under", "/", "") + &route("a", "/a", "") + &rule("b", "/b", "") + &rule("c", "/c/d", "");
    let proxy = Proxy::start(&good);
    let asked = |proxy: &Proxy| ["/a", "/b", "/b/x", "/c/d", "/new", "/else"].map(|path| status(proxy, path));
    assert_eq!(asked(&proxy), [200; 6]);
    // `/b` is to be asked about from now on, and so is `/new`, and all of `/c`.
    let newer = base()
        + &route("under", "/", "")
        + &route("a", "/a", UNKNOWN_FIELD)
        + &rule("b", "/b", ASKS)
        + &rule("c", "/c", ASKS)
        + &rule("d", "/new", ASKS);
    proxy.write_config(&newer);
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(&proxy), [200, 500, 500, 500, 500, 200]);
    assert!(conditions(&proxy, "HTTPRoute", "a").contains(&"ringway.dev/Stale=True Invalid".to_owned()));
    assert!(proxy.admin("GET", "/status").1.contains("LastGoodInPart"));
    assert_eq!((in_error(&proxy, "nothing"), in_error(&proxy, "last_good")), (0.0, 1.0));
    // It holds for as long as the error does.
    proxy.write_config(&(newer.clone() + &route("other", "/other", "")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!((asked(&proxy), status(&proxy, "/other")), ([200, 500, 500, 500, 500, 200], 200));
    // What is asked about already goes on.
    proxy.reload(&newer.replace(UNKNOWN_FIELD, ""));
    assert_eq!(asked(&proxy), [200; 6]);
    proxy.write_config(&newer);
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(&proxy), [200; 6]);
    assert!(!proxy.admin("GET", "/status").1.contains("LastGoodInPart"));
    // Which requests it is to be asked about cannot be told.
    proxy.reload(&good);
    proxy.write_config(&newer.replace("{value: /b}", "{value: [b]}"));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(&proxy), [200; 6], "nothing new is served");
}

#[test]
fn a_last_good_route_serves_nothing_that_a_policy_names_in_its_new_version() {
    let deny = |section: &str| {
        ours("AccessPolicy", "a", "  authorization: {defaultAction: Deny}\n")
            .replace("name: a}]", &format!("name: a, sectionName: {section}}}]"))
    };
    let under = base() + &route("under", "/", "");
    let good = under.clone() + &route("a", "/a", "") + &rule("old", "/shut", "") + &deny("old");
    let proxy = Proxy::start(&good);
    let asked = || ["/a", "/shut", "/new", "/else"].map(|path| status(&proxy, path));
    assert_eq!(asked(), [200, 403, 200, 200]);
    // The rule has another name now, and so the policy's target; and another rule is new.
    let newer = under.clone()
        + &route("a", "/a", UNKNOWN_FIELD)
        + &rule("renamed", "/shut", "")
        + &rule("new", "/new", "")
        + &deny("renamed").replace(
            "renamed}]",
            "renamed}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a, sectionName: new}]",
        );
    proxy.write_config(&newer);
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 500, 500, 200]);
    // So it is when the policy is in error too, but for what its last good version denies.
    proxy.reload(&good);
    proxy.write_config(&newer.replace("defaultAction", "defaultActoin"));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 403, 500, 200]);
    // A policy that names what neither has protects nothing.
    proxy.reload(&good);
    let typo = deny("typo").replace("{name: a}", "{name: b}");
    proxy.write_config(&(under + &route("a", "/a", UNKNOWN_FIELD) + &rule("old", "/shut", "") + &deny("old") + &typo));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 403, 200, 200]);
    proxy.reload(&newer.replace(UNKNOWN_FIELD, ""));
    assert_eq!(asked(), [200, 403, 403, 200]);
}

/// Another server may let pass less, and so may the same one that is asked otherwise.
#[test]
fn a_last_good_route_serves_nothing_that_its_new_version_asks_another_server_about() {
    let asks = |more: &str| {
        format!(
            "    filters: [{{type: ExternalAuth, externalAuth: {{protocol: HTTP, backendRef: {{group: ringway.dev, kind: Backend, name: echo}}{more}}}}}]\n"
        )
    };
    let other = asks("").replace("name: echo}", "name: strict}");
    let made = |a: &str, rest: &str, b: &str, c: &str| {
        base()
            + &backend("strict", &["echo"])
            + &route("a", "/a", a).replacen("    backendRefs", &format!("{rest}    backendRefs"), 1)
            + &rule("b", "/b", b)
            + &rule("c", "/c", c)
    };
    let good = made(&asks(""), "", &asks(""), &asks(", http: {path: /one}"));
    let proxy = Proxy::start(&good);
    let asked = || ["/a", "/b", "/c"].map(|path| status(&proxy, path));
    assert_eq!(asked(), [200; 3]);
    let broken = |a: &str, b: &str, c: &str| {
        proxy.write_config(&made(a, UNKNOWN_FIELD, b, c));
        assert_eq!(proxy.admin("POST", "/reload").0, 409);
        asked()
    };
    // The same in other words, then another server for one rule, then another path for another.
    let same = "    filters: [{externalAuth: {backendRef: {name: \"echo\", kind: Backend, group: ringway.dev}, http: null, protocol: HTTP}, type: ExternalAuth}]\n";
    assert_eq!(broken(same, &asks(""), &asks(", http: {path: /one}")), [200; 3]);
    assert!(proxy.admin("GET", "/status").1.contains("\"LastGood\""));
    assert_eq!(broken(&asks(""), &other, &asks(", http: {path: /one}")), [200, 500, 200]);
    assert!(proxy.admin("GET", "/status").1.contains("\"LastGoodInPart\""));
    assert_eq!(broken(&asks(""), &asks(""), &asks(", http: {path: /two}")), [200, 200, 500]);
    // A filter that nobody can read asks as it did if it says the same, and else nobody knows.
    assert_eq!(
        broken(&asks("").replace("type: ExternalAuth", "type: ExternalAuht"), &asks(""), &asks(", http: {path: /one}")),
        [200; 3]
    );
    assert_eq!(
        broken(&asks("").replace("externalAuth:", "externalAuht:"), &asks(""), &asks(", http: {path: /one}")),
        [500, 200, 200]
    );
}

/// A name that stands nowhere in a file is of nothing in it.
#[test]
fn a_policy_for_a_rule_that_nobody_has_holds_nothing_back() {
    let deny = |section: &str| {
        ours("AccessPolicy", "b", "  authorization: {defaultAction: Deny}\n")
            .replace("name: b}]", &format!("name: b, sectionName: {section}}}]"))
    };
    let more = Directory::new();
    more.write("b.yaml", &(route("b", "/b", "") + &rule("other", "/other", "")));
    let arguments = vec!["--config".to_owned(), more.0.display().to_string()];
    let options = Options { arguments, ..Options::default() };
    let proxy = Proxy::with(&(base() + &route("a", "/a", "")), &options);
    let asked = || ["/a", "/b", "/other", "/new"].map(|path| status(&proxy, path));
    assert_eq!(asked(), [200, 200, 200, 404]);
    let put = |text: &str, section: &str| {
        more.write("b.yaml", &(route("b", "/b", "") + text));
        proxy.write_config(&(base() + &route("a", "/a", "") + &route("new", "/new", "") + &deny(section)));
        assert_eq!(proxy.admin("POST", "/reload").0, 409);
        asked()
    };
    let cut = "---\nspec: [\n";
    assert_eq!(put(cut, "nobody"), [200; 4], "what is new is served, and what cannot be read as it was");
    assert!(proxy.admin("GET", "/status").1.contains("\"LastGood\""));
    // Here the file may have the rule, so the route answers nobody; the others are served.
    let renamed = rule("renamed", "/other", "") + cut;
    assert_eq!(put(&renamed, "renamed"), [200, 500, 500, 200]);
    assert!(proxy.admin("GET", "/status").1.contains("\"LastGoodInPart\""));
    let variable = rule("\"${RULE}\"", "/other", "") + cut;
    assert_eq!(put(&variable, "renamed"), [200, 500, 500, 200]);
    // A rule that is there is denied as it is, and one that is not takes nothing with it.
    assert_eq!(put(cut, "other"), [200, 200, 403, 200]);
    // Nor does one beside rules that are no list.
    more.write("b.yaml", &route("b", "/b", "").replace("rules:\n  - name: all", "rules:\n    name: all"));
    proxy.write_config(&(base() + &route("a", "/a", "") + &route("new", "/new", "") + &deny("nobody")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200; 4]);
    proxy.write_config(&(base() + &route("a", "/a", "") + &route("new", "/new", "") + &deny("all")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), [200, 403, 200, 200]);
}

/// A listener that is renamed with its policy keeps neither its old name nor goes without one.
#[test]
fn a_last_good_gateway_serves_no_listener_that_a_policy_may_name_anew() {
    let listeners = |name: &str| {
        gateway(&format!(
            "  - {{name: web, port: 8080, protocol: HTTP}}\n  - {{name: {name}, port: 8081, protocol: HTTP}}\n"
        ))
    };
    let deny = |name: &str| {
        let policy = ours("AccessPolicy", "edge", "  authorization: {defaultAction: Deny}\n");
        policy.replace("HTTPRoute, name: edge}]", &format!("Gateway, name: edge, sectionName: {name}}}]"))
    };
    let rest = backend("echo", &["echo"]) + &route("all", "/", "");
    let proxy = Proxy::start(&(listeners("old") + &rest + &deny("old")));
    let asked = || {
        let other = crate::support::client::Client::connect(&proxy.port(8081)).get("/").status;
        (status(&proxy, "/"), other)
    };
    assert_eq!(asked(), (200, 403));
    let broken = listeners("renamed").replace("name: web,", "name: web, hostnam: x,");
    proxy.write_config(&(broken + &rest + &deny("renamed")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(asked(), (200, 500));
}

#[test]
fn strict_refuses_the_whole_generation() {
    let options = Options { arguments: vec!["--strict".to_owned()], ..Options::default() };
    let proxy = Proxy::with(&(base() + &route("a", "/a", "")), &options);
    proxy.write_config(&(base() + &route("a", "/a", "") + &route("b", "/b", UNKNOWN_FIELD) + &route("c", "/c", "")));
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(["/a", "/b", "/c"].map(|path| status(&proxy, path)), [200, 404, 404]);
    assert_eq!(proxy.metric("ringway_config_generation", &[]), 1.0);
    let directory = Directory::new();
    directory.write("config.yaml", &(base() + &route("b", "/b", UNKNOWN_FIELD)).replace("{ip}", proxy.ip()));
    assert_eq!(spawn(&directory, &options).wait().unwrap().code(), Some(64));
}

/// A route that asks another server must not fall to one that does not, nor be left out without a word.
#[test]
fn a_route_that_asks_and_cannot_be_read_refuses_what_is_new() {
    let asks = "    filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {group: ringway.dev, kind: Backend, name: echo}}}]\n";
    let good = base() + &route("under", "/", "");
    let proxy = Proxy::start(&good);
    let unreadable = route("admin", "/admin", asks).replace("{value: /admin}", "{value: [admin]}");
    for bad in [unreadable, route("admin", "/admin", asks) + "    broken: [\n"] {
        proxy.write_config(&(good.clone() + &route("new", "/new", "") + &bad));
        assert_eq!(proxy.admin("POST", "/reload").0, 409);
        let rules = proxy.admin("GET", "/status").1;
        assert!(!rules.contains("\"new\""), "nothing new is served");
    }
    proxy.reload(&(good + &route("new", "/new", "")));
    assert_eq!(status(&proxy, "/new"), 200);
}
