//! Configuration that somebody else has thought of: what the fuzz targets `configuration` and `import` share with the
//! random edits of `tests/golden.rs`.

use std::net::IpAddr;
use std::path::Path;

use ringway::control::graph::{OnLink, Resolve};
use ringway::control::lenient::LastGood;
use ringway::control::provider::Input;
use ringway::control::read::Environment;
use ringway::control::{Loaded, effective, load, load_leniently};
use ringway::import::{Options, ingress_nginx};

/// What ends a file, and what ends a generation of files.
const FILE: char = '\u{1}';
const GENERATION: char = '\u{2}';

struct Nothing;

impl Environment for Nothing {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "PORT").then(|| "8080".to_owned())
    }

    fn file(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

struct Nobody;

impl Resolve for Nobody {
    fn resolve(&mut self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn on_link(&mut self, _: &str, _: IpAddr) -> OnLink {
        OnLink::Yes
    }
}

fn inputs(generation: &str) -> Vec<Input> {
    let file = |(index, text): (usize, &str)| Input { name: format!("{index}.yaml"), text: Ok(text.to_owned()) };
    generation.split(FILE).enumerate().map(file).collect()
}

/// Everything that is said can be shown, and what is accepted can be printed.
fn shown(loaded: &Loaded) {
    for each in &loaded.diagnostics {
        assert!(!loaded.sources.render(each, false).is_empty());
    }
    if let Some(accepted) = &loaded.accepted {
        assert!(effective::effective(&accepted.model).is_object());
        assert!(accepted.status["items"].is_array());
    }
}

/// Loads one generation after the other, as a process does, by provider's input, graph and translation. What has no error
/// means the same whether errors would have been put up with or not.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut last = LastGood::default();
    for generation in text.split(GENERATION).take(4) {
        let strict = load(inputs(generation), false, &Nothing, &mut Nobody);
        let lenient = load_leniently(inputs(generation), &last, &Nothing, &mut Nobody);
        shown(&strict);
        shown(&lenient);
        assert_eq!(strict.errors() == 0, lenient.errors() == 0);
        if strict.errors() == 0 {
            let (strict, lenient) = (strict.accepted.as_ref(), lenient.accepted.as_ref());
            assert_eq!(strict.map(|each| &each.model), lenient.map(|each| &each.model));
            assert!(lenient.is_some());
        } else {
            assert!(strict.accepted.is_none());
        }
        if lenient.accepted.is_some() {
            last = lenient.last_good;
        }
    }
}

/// Translates Ingresses. What is written can be loaded.
pub fn import(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for open in [false, true] {
        let options = Options { open, ..Options::default() };
        let imported = ingress_nginx(inputs(&text), &options);
        for each in &imported.diagnostics {
            assert!(!imported.sources.render(each, false).is_empty());
        }
        let Some(yaml) = imported.yaml else { return };
        let loaded = load(inputs(&yaml), false, &Nothing, &mut Nobody);
        let errors: Vec<String> = loaded.diagnostics.iter().map(|each| loaded.sources.line(each)).collect();
        assert!(loaded.accepted.is_some(), "{errors:#?}\n{yaml}");
    }
}
