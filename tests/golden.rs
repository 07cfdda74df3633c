//! Golden files: what a configuration is said to be wrong with, which conditions its objects get, and what is served.
//!
//! `tests/golden/NAME.in.yaml` is loaded and compared with `NAME.out.yaml`. `RINGWAY_BLESS=1` writes the latter anew;
//! the change is then to be read like any other.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs, reason = "tests")]

use std::net::IpAddr;
use std::path::Path;

use ringway::control::graph::{OnLink, Resolve};
use ringway::control::lenient::LastGood;
use ringway::control::provider::Input;
use ringway::control::read::Environment;
use ringway::control::{effective, load, load_leniently};
use serde_json::{Value, json};

#[path = "fuzz/harness/configuration.rs"]
mod harness;

struct FixedEnvironment;

impl Environment for FixedEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "HOST" => Some("www.example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        if path.ends_with("name.txt") { Ok("from-file\n".to_owned()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    }
}

struct FixedResolver;

impl Resolve for FixedResolver {
    fn resolve(&mut self, hostname: &str) -> Vec<IpAddr> {
        match hostname {
            "two.example" => vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            _ => Vec::new(),
        }
    }

    fn on_link(&mut self, interface: &str, ip: IpAddr) -> OnLink {
        match (interface, ip.to_string().as_str()) {
            ("missing0", _) => OnLink::NoInterface,
            (_, "198.51.100.1") => OnLink::Router,
            _ => OnLink::Yes,
        }
    }
}

/// Conditions in one line each: they are read more often than they are written.
fn conditions(list: &Value) -> Vec<String> {
    let one = |condition: &Value| {
        format!(
            "{}={} {}",
            condition["type"].as_str().unwrap(),
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap()
        )
    };
    list.as_array().unwrap().iter().map(one).collect()
}

fn status(value: &Value) -> Value {
    let mut out = serde_json::Map::new();
    for item in value["items"].as_array().unwrap() {
        let namespace = item["metadata"]["namespace"].as_str().map(|name| format!("{name}/")).unwrap_or_default();
        let name =
            format!("{} {namespace}{}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap());
        let status = &item["status"];
        if !status["listeners"].is_array() && status["conditions"].is_array() {
            out.insert(name.clone(), json!(conditions(&status["conditions"])));
        }
        if status["listeners"].is_array() {
            let sets = status["attachedListenerSets"].as_u64().filter(|sets| *sets > 0);
            let sets = sets.map(|sets| format!(" ({sets} ListenerSets)")).unwrap_or_default();
            out.insert(format!("{name}{sets}"), json!(conditions(&status["conditions"])));
            for listener in status["listeners"].as_array().unwrap() {
                let key = format!(
                    "{name} listener {} ({} attached)",
                    listener["name"].as_str().unwrap(),
                    listener["attachedRoutes"]
                );
                out.insert(key, json!(conditions(&listener["conditions"])));
            }
        }
        for (index, parent) in status["parents"].as_array().into_iter().flatten().enumerate() {
            out.insert(format!("{name} parent {index}"), json!(conditions(&parent["conditions"])));
        }
        for (index, ancestor) in status["ancestors"].as_array().into_iter().flatten().enumerate() {
            let target = &ancestor["ancestorRef"];
            let target = format!("{} {}", target["kind"].as_str().unwrap(), target["name"].as_str().unwrap());
            out.insert(format!("{name} target {index}, {target}"), json!(conditions(&ancestor["conditions"])));
        }
    }
    Value::Object(out)
}

fn outcome(name: &str, text: &str) -> String {
    let strict = name.contains("strict");
    let inputs = vec![Input { name: name.to_owned(), text: Ok(text.to_owned()) }];
    let loaded = if name.starts_with("lenient") {
        load_leniently(inputs, &LastGood::default(), &FixedEnvironment, &mut FixedResolver)
    } else {
        load(inputs, strict, &FixedEnvironment, &mut FixedResolver)
    };
    let diagnostics: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|each| match &each.help {
            Some(help) => format!("{} (help: {help})", loaded.sources.line(each)),
            None => loaded.sources.line(each),
        })
        .collect();
    let mut out = json!({ "diagnostics": diagnostics });
    if let Some(accepted) = &loaded.accepted {
        out["status"] = status(&accepted.status);
        let mut model = effective::effective(&accepted.model);
        // The defaults of clients are the same everywhere; one file shows them.
        if !name.starts_with("client") {
            for socket in model["sockets"].as_array_mut().unwrap() {
                socket.as_object_mut().unwrap().remove("clients");
            }
        }
        out["model"] = model;
    }
    ringway::term::yaml(&out)
}

#[test]
fn golden_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("RINGWAY_BLESS").is_some();
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".in.yaml").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let mut failed = Vec::new();
    for name in names {
        let input = std::fs::read_to_string(directory.join(format!("{name}.in.yaml"))).unwrap();
        let found = outcome(&name, &input);
        let path = directory.join(format!("{name}.out.yaml"));
        if bless {
            std::fs::write(&path, &found).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != found {
            eprintln!("--- {name}: found\n{found}");
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?} differ; RINGWAY_BLESS=1 writes what was found");
}

/// Random numbers; the seed is printed, and `RINGWAY_SEED` sets it.
fn random() -> impl FnMut(usize) -> usize {
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_u64);
    eprintln!("RINGWAY_SEED={seed}");
    let mut state = seed;
    move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below.max(1)
    }
}

/// The inputs of some directories.
fn texts(directories: &[&str]) -> Vec<String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = directories.iter().flat_map(|directory| std::fs::read_dir(project.join(directory)).unwrap());
    let mut texts: Vec<String> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|it| it == "yaml") && !path.to_string_lossy().ends_with(".out.yaml")
        })
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    texts.sort();
    texts
}

/// One of `texts` with some lines and characters changed.
fn broken(texts: &[String], next: &mut impl FnMut(usize) -> usize) -> String {
    let pieces = [
        "{", "}", "[", "]", ": ", "- ", "---\n", "&a ", "*a", "null", "\"", "'", "\t", "$", "${", "0", "-1", "\u{0}",
        "\u{2028}",
    ];
    let mut text = texts[next(texts.len())].clone();
    for _ in 0..=next(4) {
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let at = next(lines.len());
        match next(6) {
            0 => drop(lines.remove(at)),
            1 => {
                let line = lines[next(lines.len())].clone();
                lines.insert(at, line);
            }
            2 => {
                let other = next(lines.len());
                lines.swap(at, other);
            }
            3 => lines.truncate(at),
            4 => {
                let other = &texts[next(texts.len())];
                let other: Vec<&str> = other.split_inclusive('\n').collect();
                lines.insert(at, other[next(other.len())].to_owned());
            }
            _ => {
                let line = &mut lines[at];
                let places: Vec<usize> = line.char_indices().map(|(place, _)| place).collect();
                line.insert_str(places[next(places.len())], pieces[next(pieces.len())]);
            }
        }
        text = lines.concat();
        if text.is_empty() {
            text = "a\n".to_owned();
        }
    }
    text
}

/// Whatever stands in files, loading ends, by errors or by a model; the second generation follows on the first.
#[test]
fn broken_configurations_are_errors_and_never_panics() {
    let mut next = random();
    let texts = texts(&["examples", "tests/golden"]);
    for _ in 0..1500 {
        let first = texts[next(texts.len())].clone();
        let (second, third) = (broken(&texts, &mut next), broken(std::slice::from_ref(&first), &mut next));
        harness::configuration(format!("{first}\u{2}{third}\u{1}{second}").as_bytes());
    }
}

/// Whatever stands in Ingresses, what is written for them can be loaded.
#[test]
fn broken_ingresses_are_errors_or_translations() {
    let mut next = random();
    let texts = texts(&["tests/golden/import"]);
    for _ in 0..1500 {
        harness::import(broken(&texts, &mut next).as_bytes());
    }
}

/// Found by random edits: a caret under a character of several bytes, and patterns of gRPC that differed from themselves, so
/// that every reload was a new generation.
#[test]
fn what_random_edits_have_found() {
    harness::configuration("kind: \u{2028}[".as_bytes());
    harness::configuration("a: \u{2028}\u{1}\u{2028}".as_bytes());
    let pattern = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec: {gatewayClassName: ringway, listeners: [{name: web, port: 8080, protocol: HTTP}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: a}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{matches: [{method: {type: RegularExpression, method: 'Get.*'}}]}]\n";
    harness::configuration(pattern.as_bytes());
}

/// A few lines cannot become a billion nodes.
#[test]
fn alias_bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{before}]\n");
    }
    let found = outcome("bomb", &bomb);
    assert!(found.contains("anchors and aliases stand for more than"), "{found}");
}
