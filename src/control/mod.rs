//! The control path: files to resources, resources to a graph with conditions, the graph to the model that is served.
//!
//! ```text
//! provider -> yaml -> resources -> graph -> translate -> core::model -> snapshot -> workers
//!                                    +----> status
//! ```
//! It may block and allocate; it runs on one thread and never touches a connection.

pub mod effective;
pub mod graph;
pub mod inventory;
pub mod lenient;
pub mod provider;
pub mod read;
pub mod resources;
pub mod schema;
pub mod source;
pub mod status;
mod translate;
pub mod yaml;

use ringway_core::model::Model;

use graph::{Graph, Resolve};
use inventory::Inventory;
use lenient::{InError, LastGood, Remembering};
use provider::Input;
use read::{Environment, FileSeen, Recording};
use resources::Resources;
use source::{Diagnostic, Severity, Sources};

/// The result of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The files, for rendering diagnostics.
    pub sources: Sources,
    /// Errors and warnings, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// What is to be served, unless errors keep it from being so.
    pub accepted: Option<Accepted>,
    /// Whether a hostname was looked up, so that it has to be looked up again.
    pub resolves: bool,
    /// Files that objects refer to.
    pub files: Vec<FileSeen>,
    /// Objects in error that did not keep the others from being served.
    pub in_error: Vec<InError>,
    /// What to fall back on once this is served.
    pub last_good: LastGood,
}

/// A configuration that can be served.
#[derive(Debug)]
pub struct Accepted {
    /// What it means.
    pub model: Model,
    /// The conditions of its objects, in the API's shape.
    pub status: serde_json::Value,
    /// Its objects.
    pub objects: Inventory,
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

/// Loads what a provider has read. Any error refuses all of it; with `strict`, warnings are errors.
pub fn load(inputs: Vec<Input>, strict: bool, environment: &dyn Environment, resolver: &mut dyn Resolve) -> Loaded {
    let mut loaded = load_from(inputs, None, environment, resolver);
    if strict {
        for each in loaded.diagnostics.iter_mut().filter(|each| each.severity == Severity::Warning) {
            each.severity = Severity::Error;
        }
        if loaded.errors() > 0 {
            loaded.accepted = None;
        }
    }
    loaded
}

/// Loads what a provider has read. Objects in error are left out or keep their last good version, as [`lenient`] says.
pub fn load_leniently(
    inputs: Vec<Input>,
    last: &LastGood,
    environment: &dyn Environment,
    resolver: &mut dyn Resolve,
) -> Loaded {
    load_from(inputs, Some(last), environment, resolver)
}

fn load_from(
    inputs: Vec<Input>,
    last: Option<&LastGood>,
    environment: &dyn Environment,
    resolver: &mut dyn Resolve,
) -> Loaded {
    let environment = Recording::new(environment);
    let remembering = Remembering::new(&environment);
    let mut sources = Sources::default();
    let mut diagnostics = Vec::new();
    let mut resources = Resources::default();
    let mut files = Vec::new();
    let mut unreadable = false;
    for input in inputs {
        let text = match input.text {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", input.name);
                diagnostics.push(Diagnostic { severity: Severity::Error, span: None, message, help: None });
                unreadable = true;
                continue;
            }
        };
        let file = sources.add(input.name, text);
        files.push(lenient::read(file, &sources, &remembering, &mut resources, &mut diagnostics));
    }
    let good = diagnostics.iter().all(|each| each.severity != Severity::Error);
    let (mut in_error, mut last_good, mut spans) = (Vec::new(), LastGood::default(), Vec::new());
    let usable = match last {
        Some(_) if good => {
            last_good = LastGood::of(&files, &sources);
            true
        }
        None => good,
        Some(_) if unreadable => false,
        Some(last) => match lenient::recover(&files, &mut sources, &remembering, last, &mut diagnostics) {
            Some(found) => {
                (resources, in_error, last_good, spans) =
                    (found.resources, found.in_error, found.last_good, found.spans);
                true
            }
            None => false,
        },
    };
    let mut resolver = Counting { inner: resolver, asked: false };
    let mut accepted = None;
    if usable {
        let graph = Graph::build(&resources, &environment, &mut resolver);
        let mut status = status::status(&graph);
        lenient::mark(&mut status, &in_error);
        let mut objects = if good { lenient::inventory(files) } else { last_good.inventory() };
        inventory::mark(&mut objects, &in_error);
        accepted = Some(Accepted { model: translate::translate(&graph), status, objects });
        // What an object in error leads to is no news.
        let told = |each: &Diagnostic| each.span.is_none_or(|span| !spans.iter().any(|object| object.contains(span)));
        diagnostics.extend(graph.diagnostics.into_iter().filter(told));
    }
    diagnostics.sort_by_key(|each| each.span);
    Loaded { sources, diagnostics, accepted, resolves: resolver.asked, files: environment.files(), in_error, last_good }
}
