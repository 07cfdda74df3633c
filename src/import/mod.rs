//! `ringway import ingress-nginx`: Ingress objects with ingress-nginx's annotations to Gateway API objects.
//!
//! What is written can be loaded. What keeps somebody out and cannot be honoured closes its rules (they answer 403 and
//! say why) rather than leaving them open, and every other choice is a comment where it was made.

mod affinity;
mod annotations;
mod authorize;
mod controller;
mod filters;
mod ingress;
mod paths;
mod policies;
mod traffic;
mod translate;
mod yaml;

use std::path::Path;

use crate::control::provider::Input;
use crate::control::read::{Cx, Environment};
use crate::control::source::{Diagnostic, Severity, Sources};
use crate::control::yaml as tree;

pub use annotations::{ANNOTATIONS, Fate, fate};

/// How to translate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The Gateway's name.
    pub gateway: String,
    /// Ingresses of other classes are left out; those without a class are not.
    pub class: String,
    /// Leave rules open that cannot be protected as they were.
    pub open: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { gateway: "edge".to_owned(), class: "nginx".to_owned(), open: false }
    }
}

/// A translation.
#[derive(Debug)]
pub struct Imported {
    /// The files, for rendering diagnostics.
    pub sources: Sources,
    /// What is wrong with the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The objects, unless there were errors.
    pub yaml: Option<String>,
    /// How many Ingresses were translated.
    pub ingresses: usize,
    /// What a person has to look at: `namespace/name: what`, in the order of the files.
    pub attention: Vec<String>,
}

impl Imported {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|each| each.severity == Severity::Error).count()
    }
}

/// Nothing is replaced in what comes from a cluster.
struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Translates files.
pub fn ingress_nginx(inputs: Vec<Input>, options: &Options) -> Imported {
    let mut sources = Sources::default();
    let mut diagnostics = Vec::new();
    let mut given = ingress::Given::default();
    for input in inputs {
        let text = match input.text {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", input.name);
                diagnostics.push(Diagnostic { severity: Severity::Error, span: None, message, help: None });
                continue;
            }
        };
        let file = sources.add(input.name, text);
        let documents = tree::parse(file, sources.text(file), &mut diagnostics).nodes;
        let cx = Cx::new(&Nothing, std::path::PathBuf::new());
        documents.iter().for_each(|document| given.read(document, &cx));
        diagnostics.extend(cx.finish());
    }
    let mut imported = Imported { sources, diagnostics, yaml: None, ingresses: 0, attention: Vec::new() };
    if imported.errors() == 0 {
        given.tell_apart();
        let translated = translate::translate(&given, options);
        imported.ingresses = translated.ingresses;
        imported.attention = translated.attention;
        imported.yaml = Some(translated.yaml);
    }
    imported
}
