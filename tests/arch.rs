//! What must not depend on what, and documents that must not lag behind the code.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Lines that are code: no comments, and nothing behind `#[cfg(test)]`.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_core_depends_on_small_pure_crates_only() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "ringway-core", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let allowed = [
        "ringway-core",
        "httparse",
        "foldhash",
        "ipnet",
        "memchr",
        "regex",
        "regex-automata",
        "regex-syntax",
        "aho-corasick",
    ];
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let name = line.split(' ').next().unwrap();
        assert!(allowed.contains(&name), "ringway-core must not depend on {name}");
    }
}

#[test]
fn the_core_performs_no_io_and_reads_no_clock() {
    for (path, text) in rust_files("src/core") {
        if path.starts_with("src/core/benches") || path.starts_with("src/core/tests") {
            continue;
        }
        for forbidden in [
            "std::net::Tcp",
            "std::net::Udp",
            "std::fs",
            "std::io::",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "println!",
            "async ",
        ] {
            assert!(!code(&text).contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

#[test]
fn only_the_seam_names_the_runtime() {
    for (path, text) in rust_files("src") {
        let seam = path.starts_with("src/rt");
        for name in ["monoio", "io_uring::"] {
            assert!(seam || !code(&text).contains(name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn only_http2_knows_frames() {
    for (path, text) in rust_files("src") {
        let room = path.starts_with("src/http2") || path.starts_with("src/core");
        for name in ["http2::frame", "http2::Connection", "http2::hpack"] {
            assert!(room || !code(&text).contains(name), "{} names {name}", path.display());
        }
    }
}

/// The load generator and the origin of measurements are not to share a mistake with what they measure.
#[test]
fn the_proxy_and_the_harness_share_no_codec() {
    let dependencies = |manifest: &str| std::fs::read_to_string(root().join(manifest)).unwrap();
    for name in ["\nh2 ", "\nhttp ", "\ntokio "] {
        assert!(!dependencies("Cargo.toml").contains(name), "the proxy depends on {name}");
    }
    assert!(!dependencies("bench-harness/Cargo.toml").contains("\nringway"));
}

#[test]
fn unsafe_code_has_two_rooms() {
    for (path, text) in rust_files("src") {
        let room = path.starts_with("src/sys") || path.starts_with("src/buffer");
        for form in ["unsafe {", "unsafe fn", "unsafe impl"] {
            assert!(room || !code(&text).contains(form), "{} has {form}", path.display());
        }
    }
}

#[test]
fn the_data_path_does_not_know_control() {
    for directory in [
        "src/worker",
        "src/downstream",
        "src/upstream",
        "src/relay",
        "src/rt",
        "src/buffer",
        "src/sys",
        "src/snapshot",
        "src/xdp",
    ] {
        for (path, text) in rust_files(directory) {
            for name in ["control::", "serde", "granit", "crate::server", "crate::admin"] {
                assert!(!code(&text).contains(name), "{} names {name}", path.display());
            }
        }
    }
}

/// Every row of `docs/bad-input.md` names a metric that exists and a test that exists.
#[test]
fn bad_input_rows_have_a_metric_and_a_test() {
    let text = std::fs::read_to_string(root().join("docs/bad-input.md")).unwrap();
    let metrics = std::fs::read_to_string(root().join("src/metrics/names.rs")).unwrap();
    let tests: String = rust_files("tests/it").into_iter().map(|(_, text)| text).collect();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Input") && !line.starts_with("|--"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 25, "{} rows", rows.len());
    for row in &rows {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        for reason in quoted(row[2]) {
            assert!(
                metrics.contains(&format!("\"{reason}\"")) || reason.starts_with("ringway_"),
                "no metric {reason}: {row:?}"
            );
        }
        assert!(!quoted(row[2]).is_empty() && !quoted(row[3]).is_empty(), "{row:?}");
        for test in quoted(row[3]) {
            let name = test.rsplit("::").next().unwrap();
            assert!(tests.contains(&format!("fn {name}(")), "no test {test}: {row:?}");
        }
    }
}

/// The Gateway API's conformance tests, v1.6.1 and its main branch of August 2026 without those of meshes, are restated or
/// left out with a reason.
#[test]
fn every_conformance_test_is_restated_or_left_out_with_a_reason() {
    let names = std::fs::read_to_string(root().join("tests/it/replay/conformance.txt")).unwrap();
    let words = |text: &str, put: &mut std::collections::HashSet<String>| {
        put.extend(text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned));
    };
    let mut restated = std::collections::HashSet::new();
    for (_, text) in rust_files("tests/it/replay") {
        // What stands above a test.
        let lines: Vec<&str> = text.lines().collect();
        for (index, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
            let above = lines[..index].iter().rev().take_while(|line| line.starts_with("///"));
            above.for_each(|line| words(line, &mut restated));
        }
    }
    let document = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let mut left_out = std::collections::HashSet::new();
    for row in document.split("conformance tests").last().unwrap().lines().filter(|line| line.starts_with("| ")) {
        words(row.split('|').nth(1).unwrap(), &mut left_out);
    }
    for name in names.lines() {
        assert!(restated.contains(name) != left_out.contains(name), "{name}: restated or left out, and not both");
    }
    assert!(names.lines().count() > 130);
}

/// A suite that `scripts/test` does not name is run by nobody.
#[test]
fn every_suite_is_run_by_the_script() {
    let script = std::fs::read_to_string(root().join("scripts/test")).unwrap();
    let run: Vec<&str> = script.split_whitespace().collect();
    let mut count = 0;
    for directory in ["tests", "src/core/tests", "bench-harness/tests"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") && !path.join("main.rs").exists() {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            count += 1;
            assert!(
                run.windows(2).any(|pair| pair == ["--test", name]),
                "scripts/test does not run {}",
                path.display()
            );
        }
    }
    assert!(count > 12, "{count} suites");
}

/// Every reason that is counted is explained in the operations page.
#[test]
fn every_reason_is_documented() {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let names = std::fs::read_to_string(root().join("src/metrics/names.rs")).unwrap();
    let mut count = 0;
    for label in names.lines().filter_map(|line| line.trim().strip_suffix("\",")?.split(" = \"").nth(1)) {
        count += 1;
        assert!(text.contains(&format!("`{label}`")), "docs/operations.md does not explain {label}");
    }
    assert!(count > 20);
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
