//! `tests/golden/import/NAME.in.yaml` are Ingresses, `NAME.out.yaml` what is made of them, then what is left to a person
//! and what `ringway check` says of it.

use std::path::Path;

use ringway::control::provider::Input;
use ringway::control::source::Severity;
use ringway::import::{ANNOTATIONS, Fate, Imported, Options, ingress_nginx};

use super::{compare, files, golden, load_text, said};

fn import(name: &str, text: &str, options: &Options) -> Imported {
    ingress_nginx(vec![Input { name: name.to_owned(), text: Ok(text.to_owned()) }], options)
}

/// The output, which has to be loadable, and what is said beside it.
fn translated(name: &str, text: &str) -> String {
    let imported = import(name, text, &Options::default());
    let errors: Vec<String> = imported.diagnostics.iter().map(|each| imported.sources.line(each)).collect();
    let mut out = imported.yaml.unwrap_or_else(|| panic!("{name}: {errors:?}"));
    let loaded = load_text("out.yaml", &out, false);
    assert!(loaded.accepted.is_some(), "{name}: what is written cannot be loaded:\n{}\n{out}", said(&loaded));
    for each in &imported.attention {
        out += &format!("# left to you: {each}\n");
    }
    for each in &loaded.diagnostics {
        assert_eq!(each.severity, Severity::Warning);
        out += &format!("# check: {}\n", loaded.sources.line(each));
    }
    out
}

#[test]
fn translations_are_as_written_and_can_be_loaded() {
    let mut good = true;
    for path in files(&golden("import"), ".in.yaml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let out = translated(name, &std::fs::read_to_string(&path).unwrap());
        good &= compare(&path.with_file_name(name.replace(".in.yaml", ".out.yaml")), &out);
    }
    assert!(good, "run with RINGWAY_BLESS=1 and read the change");
}

#[test]
fn every_documented_annotation_has_its_place() {
    assert_eq!(ANNOTATIONS.len(), 117 + 13, "the table of the documentation, and what its text describes");
    let all: String =
        files(&golden("import"), ".in.yaml").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating-from-ingress-nginx.md");
    let page = std::fs::read_to_string(&path).unwrap();
    for (index, (name, fate)) in ANNOTATIONS.iter().enumerate() {
        assert!(!ANNOTATIONS[..index].iter().any(|(earlier, _)| earlier == name), "{name} is there twice");
        assert!(all.contains(&format!("nginx.ingress.kubernetes.io/{name}: ")), "no golden file has {name}");
        if matches!(fate, Fate::Translated(_)) {
            assert!(golden("import").join(format!("{name}.in.yaml")).exists(), "{name} has no golden pair of its own");
        }
    }
    // The table is everything between its head and the next empty line.
    let title = "| Annotation | | |\n|---|---|---|\n";
    let head = page.find(title).expect("the table") + title.len();
    let end = page[head..].find("\n\n").map_or(page.len(), |at| head + at + 1);
    let rows: String = ANNOTATIONS.iter().map(|(name, fate)| row(name, *fate)).collect();
    assert!(compare(&path, &format!("{}{rows}{}", &page[..head], &page[end..])), "{}", path.display());
}

/// The five behaviours of ingress-nginx that surprise: each is named where it matters, with what was made of it.
#[test]
fn surprises_are_spelled_out() {
    for (number, pair, made) in [
        (1, "use-regex", "(?i)(?:"),
        (2, "use-regex", "makes every path of this host a regular expression"),
        (3, "rewrite-target", "rewrite-target alone makes every path of the host a regular expression"),
        (4, "slashes", "type: RequestRedirect"),
        (5, "affinity", "doubled slashes stay as they are"),
    ] {
        let text = std::fs::read_to_string(golden("import").join(format!("{pair}.in.yaml"))).unwrap();
        let yaml = import(pair, &text, &Options::default()).yaml.unwrap();
        let plain = yaml.lines().map(|line| line.trim_start_matches([' ', '#'])).collect::<Vec<_>>().join(" ");
        assert!(plain.contains(&format!("SURPRISE {number}: ")), "{pair}: {number}\n{yaml}");
        assert!(plain.contains(made), "{pair}: {number}: {made}\n{yaml}");
    }
}

/// A row of the documentation's table.
fn row(name: &str, fate: Fate) -> String {
    let (what, how) = match fate {
        Fate::Translated(to) => ("translated", to),
        Fate::Refused(why) => ("refused", why),
        Fate::Closed(why) => ("closed", why),
        Fate::NoEffect(why) => ("no effect", why),
    };
    format!("| `{name}` | {what} | {how} |\n")
}

#[test]
fn closed_rules_are_opened_on_demand_only() {
    let text = std::fs::read_to_string(golden("import").join("closed.in.yaml")).unwrap();
    let closed = import("closed", &text, &Options::default()).yaml.unwrap();
    assert_eq!(closed.matches("# CLOSED. It led to Service app port 80").count(), 5, "{closed}");
    assert_eq!(closed.matches("name: app").count(), 1, "only the Ingress that was open leads anywhere:\n{closed}");
    let open = import("closed", &text, &Options { open: true, ..Options::default() }).yaml.unwrap();
    assert!(!open.contains("directResponse") && open.matches("name: app").count() == 6, "{open}");
    assert!(open.contains("OPEN, BUT WAS PROTECTED"), "{open}");
}

#[test]
fn secrets_without_a_name_close_or_are_left_to_a_person() {
    for annotations in [
        "auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: 'default/'",
        "auth-tls-secret: 'a b/ca'",
        "backend-protocol: HTTPS, nginx.ingress.kubernetes.io/proxy-ssl-secret: \"$'x/ca\"",
    ] {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: a, annotations: {{nginx.ingress.kubernetes.io/{annotations}}}}}\nspec:\n  tls: [{{hosts: [a.example], secretName: s}}]\n  rules:\n  - host: a.example\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: a, port: {{number: 80}}}}}}}}]}}\n"
        );
        let imported = import("in.yaml", &text, &Options::default());
        let yaml = imported.yaml.unwrap();
        let loaded = load_text("out.yaml", &yaml, false);
        assert!(loaded.accepted.is_some(), "{}\n{yaml}", said(&loaded));
        assert!(
            !imported.attention.is_empty() && (yaml.contains("CLOSED") || yaml.contains("NOT TRANSLATED")),
            "{yaml}"
        );
    }
}

/// A cluster has one of a name; what would be written for two could not be loaded.
#[test]
fn an_ingress_that_is_there_twice_is_refused() {
    let one = |namespace: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: a, namespace: {namespace}}}\nspec:\n  rules:\n  - http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: a, port: {{number: 80}}}}}}}}]}}\n"
        )
    };
    let twice = import("in.yaml", &(one("x") + &one("y") + &one("x")), &Options::default());
    let lines: Vec<String> = twice.diagnostics.iter().map(|each| twice.sources.line(each)).collect();
    assert_eq!((lines, twice.yaml), (vec!["in.yaml:16:1: error: Ingress x/a is there twice".to_owned()], None));
    assert!(import("in.yaml", &(one("x") + &one("y")), &Options::default()).yaml.is_some());
}

#[test]
fn what_is_wrong_with_an_ingress_is_said_with_its_place() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec:\n  rules:\n  - http: {paths: [{path: /, pathType: prefix, backend: {service: {name: a, port: {number: 70000}}}}]}\n---\napiVersion: extensions/v1beta1\nkind: Ingress\n";
    let imported = import("in.yaml", text, &Options::default());
    let lines: Vec<String> = imported.diagnostics.iter().map(|each| imported.sources.line(each)).collect();
    assert!(imported.yaml.is_none() && imported.errors() == lines.len(), "{lines:?}");
    // What an API server would not have taken is not passed on.
    let host =
        text.replace("prefix,", "Prefix,").replace("70000", "80").replace("- http:", "- host: a_b.example\n    http:");
    for (broken, wanted) in [
        (host.clone(), "\"a_b.example\" is not a hostname"),
        (host.replace("{name: a}", "{name: A}"), "\"A\" should match"),
        (host.replace("{name: a}", "{name: a, namespace: b.c}"), "\"b.c\" should match"),
    ] {
        let imported = import("in.yaml", &broken, &Options::default());
        let lines: Vec<String> = imported.diagnostics.iter().map(|each| imported.sources.line(each)).collect();
        assert!(imported.yaml.is_none() && lines.iter().any(|line| line.contains(wanted)), "{wanted}: {lines:?}");
    }
    assert!(lines[0].starts_with("in.yaml:6:") && lines[0].contains("70000 is out of range"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("networking.k8s.io/v1: export it again")), "{lines:?}");
}
