//! `ringway check` as people use it. What each kind means is tested by the golden files.

use crate::support::proxy::{Directory, command};

const GOOD: &str = include_str!("../../examples/quickstart.yaml");

#[test]
fn every_error_of_every_file_is_reported_at_once() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("d")).unwrap();
    directory.write("d/a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n");
    directory.write("d/b.yml", "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassname: ringway, listeners: []}\n");
    directory.write("d/c.json", "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": 5}}");
    directory.write("d/ignored.txt", "not yaml: [");
    let (code, _, error) = command(&["check", "--config", "d"], &directory.0);
    assert_eq!(code, 64);
    for line in [
        "d/a.yaml:4:23: error: 70000 is out of range: expected 1 to 65535",
        "d/b.yml:4:8: error: `gatewayClassName` is missing",
        "d/b.yml:4:8: error: unknown field `gatewayClassname` in Gateway spec",
        "did you mean `gatewayClassName`?",
        "d/c.json:1:62: error: expected a string, found an integer",
        "4 errors, 0 warnings, in 3 files",
    ] {
        assert!(error.contains(line), "{line:?} is missing in:\n{error}");
    }
    assert!(error.contains("spec: {ports: [{port: 70000}]}\n"), "the source line is shown:\n{error}");
    assert!(error.contains("^^^^^"), "with a caret:\n{error}");
}

#[test]
fn examples_are_accepted_without_a_warning() {
    for example in [
        include_str!("../../examples/balancing.yaml"),
        include_str!("../../examples/external-auth.yaml"),
        include_str!("../../examples/filters.yaml"),
        include_str!("../../examples/policies.yaml"),
        include_str!("../../examples/sessions.yaml"),
    ] {
        let directory = Directory::new();
        directory.write("a.yaml", example);
        let (code, _, error) = command(&["check", "--strict", "--config", "a.yaml"], &directory.0);
        assert_eq!(code, 0, "{error}");
    }
}

/// Some conditions say by being met that something is wrong.
#[test]
fn the_table_of_conditions_says_what_is_and_what_is_not() {
    let directory = Directory::new();
    let listeners = "  - {name: one, port: 8080, protocol: TCP}\n  - {name: two, port: 8080, protocol: HTTP}\n";
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: edge, port: 8081}], rules: [{}]}\n";
    directory.write("a.yaml", &(crate::support::proxy::gateway(listeners).replace("{ip}", "127.0.0.1") + route));
    let (_, out, _) = command(&["check", "--status", "--config", "a.yaml"], &directory.0);
    for wanted in [
        "  IS  Conflicted Gateway default/edge listener one (0 routes): ProtocolConflict: ",
        "  NOT Accepted Gateway default/edge listener one (0 routes): ProtocolConflict: ",
        "  NOT Accepted HTTPRoute default/r at Gateway default/edge port 8081: NoMatchingParent: ",
    ] {
        assert!(out.contains(wanted), "{wanted} is not in {out}");
    }
}

/// What can be copied from the documents loads.
#[test]
fn examples_in_the_documents_have_no_errors() {
    let documents = [
        include_str!("../../README.md"),
        include_str!("../../docs/configuration.md"),
        include_str!("../../docs/dsr.md"),
        include_str!("../../docs/operations.md"),
    ];
    let mut seen = 0;
    for document in documents {
        for block in document.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // A fragment of an object is no configuration.
            let objects = block.split("---\n").filter(|object| object.starts_with("apiVersion: "));
            let objects: Vec<&str> = objects.collect();
            if objects.is_empty() {
                continue;
            }
            let directory = Directory::new();
            directory.write("a.yaml", &objects.join("---\n"));
            let (code, _, error) = command(&["check", "--config", "a.yaml"], &directory.0);
            assert_eq!(code, 0, "{error}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn warnings_are_errors_when_strict() {
    let directory = Directory::new();
    directory.write(
        "a.yaml",
        &GOOD.replacen("name: echo}]}]", "name: ecko}]}]", 1).replacen("name: echo}]", "name: ecko}]", 1),
    );
    let (code, out, error) = command(&["check", "--config", "a.yaml"], &directory.0);
    assert_eq!(code, 0, "{error}");
    assert!(
        error.contains("warning: there is no Backend default/ecko") && error.contains("did you mean `echo`?"),
        "{error}"
    );
    assert!(out.starts_with("good: "), "{out}");
    assert_eq!(command(&["check", "--strict", "--config", "a.yaml"], &directory.0).0, 64);
}

#[test]
fn variables_are_replaced() {
    let directory = Directory::new();
    directory.write("port", "8123\n");
    let text = GOOD.replace("port: 8080", "port: \"x\"").replace("\"x\"", "${RINGWAY_TEST_UNSET:-8123}");
    directory.write(
        "a.yaml",
        &text.replace(
            "- {name: web, port: ${RINGWAY_TEST_UNSET:-8123}, protocol: HTTP}",
            "- name: web\n    port: ${RINGWAY_TEST_UNSET:-8123}\n    protocol: HTTP",
        ),
    );
    directory.write(
        "b.yaml",
        &text.replace(
            "- {name: web, port: ${RINGWAY_TEST_UNSET:-8123}, protocol: HTTP}",
            "- name: web\n    port: ${file:port}\n    protocol: HTTP",
        ),
    );
    directory.write(
        "c.yaml",
        &text.replace(
            "- {name: web, port: ${RINGWAY_TEST_UNSET:-8123}, protocol: HTTP}",
            "- name: web\n    port: ${RINGWAY_TEST_UNSET}\n    protocol: HTTP",
        ),
    );
    for file in ["a.yaml", "b.yaml"] {
        let (code, out, error) = command(&["check", "--effective", "--config", file], &directory.0);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("127.0.0.1:8123"), "{out}");
    }
    let (code, _, error) = command(&["check", "--config", "c.yaml"], &directory.0);
    assert_eq!(code, 64);
    assert!(error.contains("environment variable `RINGWAY_TEST_UNSET` is not set"), "{error}");
}

#[test]
fn outputs_are_json_and_yaml() {
    let directory = Directory::new();
    directory.write("a.yaml", GOOD);
    let (_, out, _) = command(&["check", "--status", "-o", "json", "--config", "a.yaml"], &directory.0);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["items"][0]["status"]["listeners"][0]["attachedRoutes"], 1);
    let (_, out, _) = command(&["check", "--effective", "-o", "yaml", "--config", "a.yaml"], &directory.0);
    assert!(out.contains("protocol: HTTP") && out.contains("requestHeaders: 10s"), "{out}");
}

#[test]
fn a_path_that_does_not_exist_is_an_error() {
    let directory = Directory::new();
    let (code, _, error) = command(&["check", "--config", "nowhere.yaml"], &directory.0);
    assert_eq!(code, 64);
    assert!(error.contains("cannot read nowhere.yaml"), "{error}");
}

#[test]
fn an_import_can_be_checked_and_explained() {
    let directory = Directory::new();
    directory.write("cluster.yaml", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: app\n  annotations:\n    nginx.ingress.kubernetes.io/rewrite-target: /$2\n    nginx.ingress.kubernetes.io/limit-rate: '5'\nspec:\n  rules:\n  - host: www.example.com\n    http: {paths: [{path: '/api(/|$)(.*)', pathType: ImplementationSpecific, backend: {service: {name: app, port: {name: web}}}}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: app}\nspec: {ports: [{name: web, port: 8080}]}\n");
    directory.write("rest.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: app}\nspec: {ports: [{name: web, port: 8080}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: app-1, labels: {kubernetes.io/service-name: app}}\naddressType: IPv4\nports: [{name: web, port: 9000}]\nendpoints: [{addresses: [10.0.0.5]}]\n");
    let (code, out, error) = command(&["import", "ingress-nginx", "cluster.yaml"], &directory.0);
    assert_eq!(code, 0, "{error}");
    assert!(
        error.contains("default/app: limit-rate:") && error.contains("1 Ingress translated, 1 matter left"),
        "{error}"
    );
    directory.write("edge.yaml", &out);
    let both = ["--config", "edge.yaml", "--config", "rest.yaml"];
    let (code, _, error) = command(&[&["check", "--strict"], &both[..]].concat(), &directory.0);
    assert_eq!(code, 0, "{error}");
    let question = ["explain", "-o", "json", "http://www.example.com/API/v1/x?q"];
    let (code, out, error) = command(&[&question, &both[..]].concat(), &directory.0);
    assert_eq!(code, 0, "{error}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["upstreamRequest"][0], "GET /v1/x?q HTTP/1.1", "{found:#}");
    assert_eq!(found["backends"][0]["endpoints"][0]["address"], "10.0.0.5:9000", "{found:#}");
    assert_eq!(command(&["import", "ingress-nginx", "missing.yaml"], &directory.0).0, 64);
}
