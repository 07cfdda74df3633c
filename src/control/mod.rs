//! The control path: files to resources, resources to a graph with conditions, the graph to the model that is served.
//!
//! ```text
//! provider -> yaml -> resources -> graph -> translate -> core::model -> snapshot -> workers
//!                                    +----> status
//! ```
//! It may block and allocate; it runs on one thread and never touches a connection.

pub mod effective;
pub mod graph;
pub mod provider;
pub mod read;
pub mod resources;
pub mod schema;
pub mod source;
pub mod status;
mod translate;
pub mod yaml;

use std::path::Path;

use ringway_core::model::Model;

use graph::{Graph, Resolve};
use provider::Input;
use read::{Cx, Environment, FileSeen, Recording};
use resources::Resources;
use source::{Diagnostic, Severity, Sources};

/// The result of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The files, for rendering diagnostics.
    pub sources: Sources,
    /// Errors and warnings, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// What is to be served, unless there were errors.
    pub accepted: Option<Accepted>,
    /// Whether a hostname was looked up, so that it has to be looked up again.
    pub resolves: bool,
    /// Files that objects refer to.
    pub files: Vec<FileSeen>,
}

/// A configuration without errors.
#[derive(Debug)]
pub struct Accepted {
    /// What it means.
    pub model: Model,
    /// The conditions of its objects, in the API's shape.
    pub status: serde_json::Value,
}

impl Loaded {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|each| each.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.diagnostics.iter().filter(|each| each.severity == Severity::Warning).count()
    }
}

/// Counts look-ups on the way to the resolver.
struct Counting<'a> {
    inner: &'a mut dyn Resolve,
    asked: bool,
}

impl Resolve for Counting<'_> {
    fn resolve(&mut self, hostname: &str) -> Vec<std::net::IpAddr> {
        self.asked = true;
        self.inner.resolve(hostname)
    }

    fn is_usable(&mut self, ip: std::net::IpAddr) -> bool {
        self.inner.is_usable(ip)
    }

    fn on_link(&mut self, interface: &str, ip: std::net::IpAddr) -> graph::OnLink {
        self.inner.on_link(interface, ip)
    }
}

/// Loads what a provider has read. With `strict`, warnings are errors.
pub fn load(inputs: Vec<Input>, strict: bool, environment: &dyn Environment, resolver: &mut dyn Resolve) -> Loaded {
    let environment = Recording::new(environment);
    let mut sources = Sources::default();
    let mut diagnostics = Vec::new();
    let mut resources = Resources::default();
    for input in inputs {
        let text = match input.text {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", input.name);
                diagnostics.push(Diagnostic { severity: Severity::Error, span: None, message, help: None });
                continue;
            }
        };
        let directory = Path::new(&input.name).parent().unwrap_or_else(|| Path::new("")).to_owned();
        let file = sources.add(input.name, text);
        let documents = yaml::parse(file, sources.text(file), &mut diagnostics);
        let cx = Cx::new(&environment, directory);
        for document in &documents {
            resources.read(document, &cx);
        }
        diagnostics.extend(cx.finish());
    }
    let mut resolver = Counting { inner: resolver, asked: false };
    let mut accepted = None;
    if diagnostics.iter().all(|each| each.severity != Severity::Error) {
        let graph = Graph::build(&resources, &environment, &mut resolver);
        accepted = Some(Accepted { model: translate::translate(&graph), status: status::status(&graph) });
        diagnostics.extend(graph.diagnostics);
    }
    diagnostics.sort_by_key(|each| each.span);
    if strict {
        for each in diagnostics.iter_mut().filter(|each| each.severity == Severity::Warning) {
            each.severity = Severity::Error;
        }
        accepted = accepted.filter(|_| diagnostics.iter().all(|each| each.severity != Severity::Error));
    }
    Loaded { sources, diagnostics, accepted, resolves: resolver.asked, files: environment.files() }
}
