//! What `ringway diff` says of files that a process does not serve yet.

use std::path::Path;

use serde_json::Value;

use crate::support::proxy::{Options, Proxy, backend, command, gateway, policy};
use crate::support::tls::{Authority, Leaf};

const GROUP: &str = "group: gateway.networking.k8s.io";

fn route(name: &str, path: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: web}}]\n  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{group: ringway.dev, kind: Backend, name: {to}}}]}}]\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let group = match kind {
        "GatewayClass" | "BackendTLSPolicy" => "gateway.networking.k8s.io/v1",
        "ReferenceGrant" => "gateway.networking.k8s.io/v1beta1",
        "Service" | "Secret" | "ConfigMap" | "Namespace" => "v1",
        _ => "ringway.dev/v1alpha1",
    };
    format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\n{spec}\n")
}

fn target(kind: &str, name: &str) -> String {
    let group = if kind == "Backend" { "ringway.dev" } else { "gateway.networking.k8s.io" };
    format!("targetRefs: [{{group: {group}, kind: {kind}, name: {name}}}]")
}

/// Asks what this would change.
fn ask(proxy: &Proxy, yaml: &str, admin: &str, output: &str) -> String {
    let directory = proxy.directory.0.join("next");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("next.yaml"), yaml.replace("{ip}", proxy.ip())).unwrap();
    let arguments = ["diff", "--config", "next/next.yaml", "--admin", admin, "-o", output];
    let (code, out, error) = command(&arguments, &proxy.directory.0);
    assert_eq!(code, 0, "{error}");
    out
}

fn socket(proxy: &Proxy) -> String {
    format!("unix:{}", proxy.socket().display())
}

/// Every change, with its effect as far as the first colon or semicolon.
fn changes(proxy: &Proxy, yaml: &str) -> Vec<String> {
    let found: Value = serde_json::from_str(&ask(proxy, yaml, &socket(proxy), "json")).unwrap();
    assert_eq!(found["notCompared"], Value::Null);
    let short = |each: &Value| {
        let what = |field: &str| each[field].as_str().unwrap().to_owned();
        let effect = what("connections");
        let effect = effect.split([':', ';', ',']).next().unwrap();
        format!("{} {} {}: {effect}", what("change"), what("kind"), what("name").replace(proxy.ip(), "IP"))
    };
    found["changes"].as_array().unwrap().iter().map(short).collect()
}

#[test]
fn what_files_would_change_is_said_before_they_do() {
    let web = "  - {name: web, port: 8080, protocol: HTTP}\n";
    let raw = "  - {name: raw, port: 8081, protocol: TCP}\n";
    let more = "  - {name: more, port: 8082, protocol: HTTP}\n";
    let old =
        gateway(&(web.to_owned() + raw)) + &route("a", "/a", "x") + &route("b", "/b", "x") + &backend("x", &["echo"]);
    let proxy = Proxy::start(&old);
    assert_eq!(ask(&proxy, &old, &socket(&proxy), "table"), "no difference: the process serves these files\n");
    let new = gateway(&(web.to_owned() + more))
        + &route("a", "/changed", "x")
        + &route("c", "/c", "y")
        + &backend("x", &["127.0.0.1:9"])
        + &backend("y", &["echo"])
        + &policy("  connection: {backlog: 100}\n");
    assert_eq!(
        changes(&proxy, &new),
        [
            "removed socket IP:8081 TCP: drained",
            "added socket IP:8082 HTTP: bound",
            "changed socket IP:8080 HTTP: rebound",
            "removed listener default/edge/raw at IP:8081: what is under way stays",
            "added listener default/edge/more at IP:8082: connections stay",
            "removed route HTTPRoute/default/b: what is under way stays",
            "added route HTTPRoute/default/c: connections stay",
            "changed route HTTPRoute/default/a: connections stay",
            "added backend Backend/default/y: connections stay",
            "changed backend Backend/default/x: connections stay",
            "changed Gateway default/edge: drained",
            "added ClientPolicy default/clients: rebound",
        ]
    );
}

#[test]
fn policies_and_objects_of_every_other_kind_are_told() {
    let base =
        gateway("  - {name: web, port: 8080, protocol: HTTP}\n") + &route("a", "/", "x") + &backend("x", &["echo"]);
    let (on_route, on_backend) = (target("HTTPRoute", "a"), target("Backend", "x"));
    let every = |size: u32, kinds: &[(&str, String)]| {
        let rest = kinds.iter().map(|(kind, spec)| object(kind, "it", spec));
        base.clone() + &policy(&format!("  limits: {{bodyBytes: {size}}}\n")) + &rest.collect::<String>()
    };
    let of = |n: u32| {
        vec![
            ("GatewayClass", format!("spec: {{controllerName: ringway.dev/gateway, description: n{n}}}")),
            (
                "BackendTLSPolicy",
                format!(
                    "spec: {{{on_backend}, validation: {{wellKnownCACertificates: System, hostname: n{n}.example}}}}"
                ),
            ),
            (
                "ReferenceGrant",
                format!(
                    "spec: {{from: [{{{GROUP}, kind: HTTPRoute, namespace: n{n}}}], to: [{{group: \"\", kind: Service}}]}}"
                ),
            ),
            ("Namespace", String::new()),
            ("Service", format!("spec: {{ports: [{{port: {n}}}]}}")),
            ("ConfigMap", format!("data: {{page: n{n}}}")),
            ("Secret", format!("stringData: {{key: n{n}}}")),
            ("BackendPolicy", format!("spec: {{{on_backend}, timeout: {{tcp: {{connectTimeout: {n}s}}}}}}")),
            ("HTTPRouteFilter", format!("spec: {{directResponse: {{statusCode: {}}}}}", 400 + n)),
            (
                "AccessPolicy",
                format!(
                    "spec: {{{on_route}, authorization: {{defaultAction: Deny, rules: [{{action: Allow, principal: {{clientCIDRs: [10.0.0.{n}]}}}}]}}}}"
                ),
            ),
            ("RateLimitPolicy", format!("spec: {{{on_route}, rules: [{{limit: {{requests: {n}, unit: Second}}}}]}}")),
            ("ResponsePolicy", format!("spec: {{{on_route}, strictTransportSecurity: {{maxAge: {n}s}}}}")),
        ]
    };
    let kinds = || of(1).into_iter().map(|(kind, _)| kind);
    let proxy = Proxy::start(&every(1, &of(1)));
    assert_eq!(changes(&proxy, &every(1, &of(1))), Vec::<String>::new());
    let objects = |all: Vec<String>| -> Vec<String> {
        let derived = [" socket ", " listener ", " route ", " backend "];
        all.into_iter().filter(|each| !derived.iter().any(|kind| each.contains(kind))).collect()
    };
    let effect = |kind: &str, otherwise: &str| {
        let upstream = ["BackendTLSPolicy", "BackendPolicy"].contains(&kind);
        if upstream { "what is under way stays".to_owned() } else { otherwise.to_owned() }
    };
    // A Namespace says nothing but that it is there.
    let mut wanted: Vec<String> = kinds()
        .filter(|kind| *kind != "Namespace")
        .map(|kind| {
            let name = if kind == "GatewayClass" { "it" } else { "default/it" };
            format!("changed {kind} {name}: {}", effect(kind, "connections stay"))
        })
        .chain(["changed ClientPolicy default/clients: connections stay".to_owned()])
        .collect();
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    wanted.sort();
    assert_eq!(sorted(objects(changes(&proxy, &every(2, &of(2))))), wanted);
    let gone: Vec<String> = kinds()
        .map(|kind| {
            let name = if matches!(kind, "GatewayClass" | "Namespace") { "it" } else { "default/it" };
            let stays = matches!(kind, "GatewayClass" | "Service") || !effect(kind, "").is_empty();
            let effect = if stays { "what is under way stays" } else { "connections stay" };
            format!("removed {kind} {name}: {effect}")
        })
        .chain(["removed ClientPolicy default/clients: connections stay".to_owned()])
        .collect();
    assert_eq!(sorted(objects(changes(&proxy, &base))), sorted(gone.clone()));
    // And the other way round.
    proxy.reload(&base);
    let come = |each: &String| {
        let (kind, name) = each.trim_start_matches("removed ").split(':').next().unwrap().split_once(' ').unwrap();
        format!("added {kind} {name}: {}", effect(kind, "connections stay"))
    };
    assert_eq!(sorted(objects(changes(&proxy, &every(1, &of(1))))), sorted(gone.iter().map(come).collect()));
}

#[test]
fn secrets_and_certificates_are_told_by_names_and_fingerprints() {
    let authority = Authority::new("ca");
    let (old, new) = (authority.leaf(&["site.example"]), authority.leaf(&["site.example"]));
    let (hash, other) = ("{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=", "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=");
    let base = gateway(
        "  - {name: web, port: 8080, protocol: HTTPS, tls: {certificateRefs: [{name: site}, {group: ringway.dev, kind: Certificate, name: files}]}}\n",
    ) + &route("a", "/", "x")
        + &backend("x", &["echo"])
        + &object("Certificate", "files", "spec: {certificateFile: files.pem, privateKeyFile: files.key}")
        + &object(
            "AccessPolicy",
            "closed",
            &format!("spec: {{{}, basicAuth: {{users: {{name: users}}}}}}", target("HTTPRoute", "a")),
        );
    let users = |line: &str| object("Secret", "users", &format!("stringData: {{auth: \"{line}\"}}"));
    let ip = crate::support::address();
    let options = Options { arguments: vec!["--admin".to_owned(), format!("{ip}:9901")], ..Options::default() };
    let proxy = Proxy::with(&gateway("  - {name: web, port: 8080, protocol: HTTP}\n"), &options);
    // Both configurations name these files, each those of its own directory.
    let (here, there) = (proxy.directory.0.clone(), proxy.directory.0.join("next"));
    std::fs::create_dir_all(&there).unwrap();
    let files = |directory: &Path, leaf: &Leaf| {
        std::fs::write(directory.join("files.pem"), &leaf.chain).unwrap();
        std::fs::write(directory.join("files.key"), &leaf.key).unwrap();
    };
    files(&here, &old);
    files(&there, &old);
    let running = base.clone() + &old.secret("site") + &users(&format!("a:{hash}"));
    proxy.reload(&running);
    assert_eq!(changes(&proxy, &running), Vec::<String>::new());
    let next = base.clone() + &new.secret("site") + &users(&format!("a:{other}"));
    let wanted =
        ["changed certificate Secret/default/site: connections stay", "changed Secret default/users: connections stay"];
    assert_eq!(changes(&proxy, &next), wanted);
    let told = ask(&proxy, &next, &socket(&proxy), "table");
    let fingerprint = |leaf: &Leaf| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf.certificates()[0]);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let line = |leaf, whose: &str| format!("    sha256 {} ({whose})\n", fingerprint(leaf));
    assert_eq!(
        told,
        format!(
            "~ certificate Secret/default/site\n{}{}    connections stay; new handshakes are given it\n~ Secret default/users\n    connections stay; what comes next is served by it\n",
            line(&old, "running"),
            line(&new, "files")
        )
    );
    // Without the name the listener is another, and nothing else goes with the certificate.
    let without = base.replace("{name: site}, ", "") + &users(&format!("a:{hash}"));
    let wanted = [
        "changed listener default/edge/web at IP:8080: connections stay",
        "removed certificate Secret/default/site: connections stay",
        "changed Gateway default/edge: connections stay",
    ];
    assert_eq!(changes(&proxy, &without), wanted);
    // What can be asked for over TCP does not say which passwords there are.
    let over_tcp = |path: &str| {
        let mut client = crate::support::client::Client::connect(&format!("{ip}:9901"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        String::from_utf8(client.response().body).unwrap()
    };
    let (near, far): (Value, Value) = (
        serde_json::from_str(&proxy.admin("GET", "/config").1).unwrap(),
        serde_json::from_str(&over_tcp("/config")).unwrap(),
    );
    let digests = |config: &Value, kind: &str| -> Vec<String> {
        let all = config["objects"].as_array().unwrap().iter().filter(|object| object["kind"] == kind);
        all.map(|object| object["digest"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(digests(&far, "Secret"), ["hidden", "hidden"]);
    assert_eq!(digests(&near, "Secret").iter().map(String::len).collect::<Vec<_>>(), [64, 64]);
    assert_eq!(digests(&near, "AccessPolicy"), digests(&far, "AccessPolicy"));
    let told = ask(&proxy, &next, &format!("{ip}:9901"), "table");
    assert!(told.starts_with("~ certificate Secret/default/site\n"), "{told}");
    assert!(!told.contains("~ Secret default/users"), "{told}");
    assert!(
        told.ends_with("not compared: content of Secrets: the process tells it apart over its Unix socket only\n"),
        "{told}"
    );
    for text in [near.to_string(), far.to_string()] {
        assert!(
            !text.contains("W8r/fyL") && !text.contains("PRIVATE KEY") && !text.contains("BEGIN CERTIFICATE"),
            "{text}"
        );
    }
    // Files that an object names change without it.
    files(&there, &new);
    assert_eq!(changes(&proxy, &running), ["changed certificate Certificate/default/files: connections stay"]);
}

/// What a process serves in place of an object is compared with it, not what its files say.
#[test]
fn objects_in_error_are_told_by_what_is_served_of_them() {
    let policy = |field: &str| {
        let spec = format!("spec: {{{}, {field}: {{defaultAction: Deny}}}}", target("HTTPRoute", "a"));
        gateway("  - {name: web, port: 8080, protocol: HTTP}\n")
            + &route("a", "/", "x")
            + &backend("x", &["echo"])
            + &object("AccessPolicy", "it", &spec)
    };
    let (good, bad) = (policy("authorization"), policy("authorizatoin"));
    let proxy = Proxy::start(&bad);
    assert_eq!(proxy.client().get("/").status, 500);
    let told =
        ["changed route HTTPRoute/default/a: connections stay", "changed AccessPolicy default/it: connections stay"];
    assert_eq!(changes(&proxy, &good), told);
    proxy.reload(&good);
    proxy.write_config(&bad);
    assert_eq!(proxy.admin("POST", "/reload").0, 409);
    assert_eq!(changes(&proxy, &good), Vec::<String>::new(), "its last good version is served");
}
