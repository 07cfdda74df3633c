//! The operator's tools, as far as they need no process: golden files and what must agree with what.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod agreement;
mod explain;
mod import;
mod schema;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ringway::control::graph::{OnLink, Resolve};
use ringway::control::provider::Input;
use ringway::control::read::ProcessEnvironment;
use ringway::control::{Loaded, load};

fn golden(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(directory)
}

/// Files of a directory that end in `suffix`, in order.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = all.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    found.sort();
    assert!(!found.is_empty(), "no {suffix} in {}", directory.display());
    found
}

/// Compares with a golden file, or writes it anew with `RINGWAY_BLESS=1`.
fn compare(path: &Path, found: &str) -> bool {
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        std::fs::write(path, found).unwrap();
        return true;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected != found {
        eprintln!("--- {} differs; found:\n{found}", path.display());
    }
    expected == found
}

/// Every machine is this one: no name resolves, every server is on its network.
struct AnyMachine;

impl Resolve for AnyMachine {
    fn resolve(&mut self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn on_link(&mut self, _: &str, _: IpAddr) -> OnLink {
        OnLink::Yes
    }
}

/// Loads one file's text.
fn load_text(name: &str, text: &str, strict: bool) -> Loaded {
    let inputs = vec![Input { name: name.to_owned(), text: Ok(text.to_owned()) }];
    load(inputs, strict, &ProcessEnvironment, &mut AnyMachine)
}

/// The diagnostics of a load, a line each.
fn said(loaded: &Loaded) -> String {
    loaded.diagnostics.iter().map(|each| loaded.sources.line(each) + "\n").collect()
}
