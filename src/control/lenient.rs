//! Errors one object at a time: what is served in place of an object that cannot be read.
//!
//! An API server refuses an object that has an error and keeps what it had. So does this: an object in error keeps its
//! last good version, and is left out where there is none. A policy that is left out must not leave its targets
//! unprotected, so they are closed; where it cannot be told what would have been protected, nothing new is served.

mod closed;
mod conditions;
mod last_good;
mod protection;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::inventory::{Inventory, Seen};
use super::read::{Cx, FromNode as _};
use super::resources::Resources;
use super::resources::meta::Meta;
use super::resources::refs::PolicyTargetRef;
use super::source::{Diagnostic, FileId, Severity, Sources, Span};
use super::yaml::{self, Key, Node, Value};

use closed::{CLOSING, EXTERNAL_AUTH, close, close_new, targets};
pub(super) use conditions::mark;
pub use last_good::LastGood;
pub(super) use last_good::Remembering;
use last_good::{Remembered, Texts};
use protection::Protection;

/// What an object is told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// `namespace/name`, or the name alone.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// An object in error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InError {
    /// Its `apiVersion` as written.
    pub api_version: String,
    /// What it is called.
    pub key: ObjectKey,
    /// Its first error: `file:line:column: error: message`.
    pub error: String,
    /// What is served in its place.
    pub served: Served,
}

/// What is served in place of an object in error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Its last good version.
    LastGood,
    /// Its last good version without what its new one protects and it does not.
    LastGoodInPart,
    /// An error to everybody that it was to apply to.
    Closed,
    /// Nothing.
    Nothing,
}

impl Served {
    /// A version of it is served.
    pub fn is_last_good(self) -> bool {
        matches!(self, Self::LastGood | Self::LastGoodInPart)
    }

    /// As `/status` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastGood => "LastGood",
            Self::LastGoodInPart => "LastGoodInPart",
            Self::Closed => "Closed",
            Self::Nothing => "Nothing",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::LastGood => "its last good version is served",
            Self::LastGoodInPart => {
                "its last good version is served, but for what only the new one protects, which is not served"
            }
            Self::Closed => "it is left out, and what it was to apply to is not served",
            Self::Nothing => "it is left out",
        }
    }
}

/// A file that has been read.
pub(super) struct File {
    pub(super) id: FileId,
    directory: PathBuf,
    documents: Vec<Node>,
    /// It has an error that belongs to no object of it.
    broken: bool,
    met: Vec<Met>,
}

/// An object that has been met, in the order of [`objects`].
struct Met {
    key: Option<ObjectKey>,
    api_version: String,
    /// Errors of its own.
    errors: usize,
    span: Span,
    /// What was put in place of its `${file:PATH}`.
    texts: Texts,
    /// Of a kind that is read.
    seen: Option<Seen>,
}

/// Reads a file, object by object.
pub(super) fn read(
    id: FileId,
    sources: &Sources,
    environment: &Remembering<'_>,
    resources: &mut Resources,
    diagnostics: &mut Vec<Diagnostic>,
) -> File {
    let mut faults = Vec::new();
    let yaml::Documents { nodes: documents, complete } = yaml::parse(id, sources.text(id), &mut faults);
    let directory = Path::new(sources.name(id)).parent().unwrap_or_else(|| Path::new("")).to_owned();
    let cx = Cx::new(environment, directory.clone());
    let mut met = Vec::new();
    let mut placed = 0;
    for document in &documents {
        for object in objects(document) {
            let before = cx.errors();
            resources.read(object, &cx);
            let within =
                faults.iter().filter(|fault| fault.span.is_some_and(|span| object.span.contains(span))).count();
            placed += within;
            let (key, errors) = (key(object, &cx), cx.errors() - before + within);
            let api_version = scalar(object, "apiVersion", &cx).unwrap_or_default();
            let texts = environment.take();
            let seen = key.as_ref().and_then(|key| {
                let read = (directory.as_path(), &*texts);
                if errors == 0 { Seen::new(key, &api_version, object, environment, read) } else { None }
            });
            met.push(Met { key, api_version, errors, span: object.span, texts, seen });
        }
    }
    let nameless = met.iter().any(|object| object.errors > 0 && object.key.is_none());
    let broken = !complete || placed < faults.len() || nameless;
    diagnostics.append(&mut faults);
    diagnostics.extend(cx.finish());
    File { id, directory, documents, broken, met }
}

/// The objects of a document; those of a List one by one.
fn objects(document: &Node) -> Vec<&Node> {
    let is = |field: &str, text: &str| {
        document
            .get(field)
            .is_some_and(|node| matches!(&node.value, Value::Scalar { text: found, .. } if found == text))
    };
    match document.get("items").map(|items| &items.value) {
        Some(Value::List(items)) if is("kind", "List") && is("apiVersion", "v1") => {
            items.iter().flat_map(objects).collect()
        }
        _ => vec![document],
    }
}

fn scalar(object: &Node, field: &str, cx: &Cx<'_>) -> Option<String> {
    cx.silent(|cx| String::from_node(object.get(field)?, cx))
}

fn key(object: &Node, cx: &Cx<'_>) -> Option<ObjectKey> {
    let kind = scalar(object, "kind", cx)?;
    // Whatever else is wrong with its metadata, its name says which object it is.
    let meta = object.get("metadata")?;
    let meta = only(meta, &["name", "namespace"]);
    let meta = cx.silent(|cx| Meta::from_node(&meta, cx))?;
    let namespace = if matches!(kind.as_str(), "GatewayClass" | "Namespace") { String::new() } else { meta.namespace };
    Some(ObjectKey { kind, namespace, name: meta.name })
}

/// A mapping with some of its fields.
fn only(node: &Node, names: &[&str]) -> Node {
    let entries: Vec<(Key, Node)> = match &node.value {
        Value::Map(entries) => entries.iter().filter(|(key, _)| names.contains(&key.name.as_str())).cloned().collect(),
        _ => Vec::new(),
    };
    Node { span: node.span, value: Value::Map(entries) }
}

/// What can be served of files that have errors.
pub(super) struct Recovered {
    pub(super) resources: Resources,
    pub(super) in_error: Vec<InError>,
    pub(super) last_good: LastGood,
    /// Where objects in error stand.
    pub(super) spans: Vec<Span>,
}

impl File {
    /// Its objects with what is known of them.
    fn objects(&self) -> impl Iterator<Item = (&Met, &Node)> {
        self.met.iter().zip(self.documents.iter().flat_map(objects))
    }
}

/// The objects of files without errors.
pub(super) fn inventory(files: Vec<File>) -> Inventory {
    files.into_iter().flat_map(|file| file.met).filter_map(|met| Some((met.key?, met.seen?))).collect()
}

/// An object in error, with the file that it stands in.
type Bad<'f> = (&'f File, &'f Met, &'f Node);

/// What of an object is served as it was.
struct Kept {
    /// Of a policy, what it applies to.
    targets: Vec<PolicyTargetRef>,
    served: Served,
}

/// Chooses what is served of files that have errors. `None`: nothing of them can be, which is reported.
pub(super) fn recover(
    files: &[File],
    sources: &mut Sources,
    environment: &Remembering<'_>,
    last: &LastGood,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Recovered> {
    let mut count: HashMap<&ObjectKey, usize> = HashMap::new();
    for key in files.iter().flat_map(|file| &file.met).filter_map(|met| met.key.as_ref()) {
        *count.entry(key).or_default() += 1;
    }
    let is_good = |met: &Met| met.errors == 0 && met.key.as_ref().is_none_or(|key| count[key] == 1);
    let mut refused = false;
    for file in files.iter().filter(|file| file.broken) {
        let text = sources.text(file.id);
        if let Some(kind) = CLOSING.iter().chain([&EXTERNAL_AUTH]).find(|kind| text.contains(*kind)) {
            let message =
                format!("{} cannot be read, and a {kind} may be in it: nothing new is served", sources.name(file.id));
            diagnostics.push(Diagnostic { severity: Severity::Error, span: None, message, help: None });
            refused = true;
        }
    }
    let mut found = Recovered {
        resources: Resources::default(),
        in_error: Vec::new(),
        last_good: LastGood::default(),
        spans: Vec::new(),
    };
    let mut good: HashSet<&ObjectKey> = HashSet::new();
    let mut bad: Vec<Bad<'_>> = Vec::new();
    for file in files.iter().filter(|file| !file.broken) {
        found.last_good.add(file, sources, is_good);
        for (met, object) in file.objects() {
            if is_good(met) {
                // As it was read the first time, should a file have changed since.
                let environment = Remembered { inner: environment, texts: &met.texts };
                environment.with(&file.directory, |cx| found.resources.read(object, cx));
                good.extend(&met.key);
            } else {
                bad.push((file, met, object));
            }
        }
    }
    let protection = Protection::of(files, sources, environment, &found.resources);
    let wanted = wanted(files, &bad, &good, &count, sources, last);
    let mut unknown = HashSet::new();
    let kept = keep(&wanted, &bad, &protection, sources, environment, last, &mut found.resources, &mut unknown);
    found.last_good.keep(kept.keys(), last);
    // Those in files that cannot be read have no place of their own.
    for key in unknown.iter().filter(|key| !bad.iter().any(|(_, met, _)| met.key.as_ref() == Some(*key))) {
        diagnostics.push(Diagnostic { severity: Severity::Error, span: None, message: nothing_new(key), help: None });
        refused = true;
    }
    for file in files.iter().filter(|file| file.broken) {
        for (met, _) in file.objects() {
            let Some(key) = met.key.clone().filter(|key| !good.contains(key)) else { continue };
            let served = kept.get(&key).map_or(Served::Nothing, |kept| kept.served);
            let error = first_error(file, None, sources, diagnostics);
            found.in_error.push(InError { api_version: met.api_version.clone(), key, error, served });
        }
    }
    for (file, met, object) in bad {
        found.spans.push(met.span);
        let Some(key) = met.key.clone() else { continue };
        let cx = Cx::new(environment, file.directory.clone());
        let served = match kept.get(&key) {
            _ if unknown.contains(&key) => None,
            Some(kept) => close_new(&key, object, &kept.targets, &cx, &mut found.resources).map(|()| kept.served),
            None => close(&key, object, &cx, &mut found.resources),
        };
        let Some(served) = served else {
            diagnostics.push(Diagnostic::error(met.span.begin(), nothing_new(&key)));
            refused = true;
            continue;
        };
        let error = first_error(file, Some(met.span), sources, diagnostics);
        diagnostics
            .push(Diagnostic::note(met.span.begin(), format!("{} {}: {}", key.kind, key.full_name(), served.told())));
        match found.in_error.iter_mut().find(|known| known.key == key) {
            // Of an object that is there twice one version may close more than the other.
            Some(known) if known.served == Served::Nothing => known.served = served,
            Some(_) => {}
            None => found.in_error.push(InError { api_version: met.api_version.clone(), key, error, served }),
        }
    }
    for (key, kept) in &kept {
        if !found.in_error.iter().any(|known| known.key == *key) {
            let error = files.iter().find(|file| file.broken).map(|file| first_error(file, None, sources, diagnostics));
            let (key, error) = (key.clone(), error.unwrap_or_default());
            found.in_error.push(InError { api_version: String::new(), key, error, served: kept.served });
        }
    }
    found.in_error.sort_by(|a, b| a.key.cmp(&b.key));
    (!refused).then_some(found)
}

fn nothing_new(key: &ObjectKey) -> String {
    format!("{} {}: what it applies to cannot be read: nothing new is served", key.kind, key.full_name())
}

/// Reads the last good versions of objects: those that could be, with what is served of them. `unknown` are those of which
/// it cannot be told what may be.
#[allow(clippy::too_many_arguments, reason = "both versions, and where they come from")]
fn keep(
    wanted: &HashSet<ObjectKey>,
    bad: &[Bad<'_>],
    protection: &Protection,
    sources: &mut Sources,
    environment: &Remembering<'_>,
    last: &LastGood,
    resources: &mut Resources,
    unknown: &mut HashSet<ObjectKey>,
) -> HashMap<ObjectKey, Kept> {
    let mut newer: HashMap<&ObjectKey, Vec<(&Node, Cx<'_>)>> = HashMap::new();
    for (file, met, object) in bad {
        if let Some(key) = &met.key {
            newer.entry(key).or_default().push((object, Cx::new(environment, file.directory.clone())));
        }
    }
    let mut kept = HashMap::new();
    for version in last.versions(wanted, sources) {
        let environment = Remembered { inner: environment, texts: version.texts };
        environment.with(&version.directory, |cx| {
            let (key, newer) = (version.key, newer.get(version.key).map_or(&[][..], Vec::as_slice));
            let Some(lasting) = protection.lasting(key, &version.node, cx, newer) else {
                unknown.insert(key.clone());
                return;
            };
            let before = cx.errors();
            resources.read(lasting.old.as_ref().unwrap_or(&version.node), cx);
            if cx.errors() > before {
                return;
            }
            let part = lasting.old.is_some() || !lasting.new.is_empty() || !lasting.closed.is_empty();
            for (index, route) in &lasting.new {
                newer[*index].1.silent(|cx| resources.read_beside(route, cx));
            }
            resources.closed.extend(lasting.closed);
            let targets = targets(&version.node, cx).unwrap_or_default();
            let served = if part { Served::LastGoodInPart } else { Served::LastGood };
            kept.insert(key.clone(), Kept { targets, served });
        });
    }
    kept
}

/// The first error of an object, or of a file that belongs to no object.
fn first_error(file: &File, within: Option<Span>, sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let is_it = |span: Span| match within {
        Some(object) => object.contains(span),
        None => span.file == file.id,
    };
    let all = diagnostics.iter().filter(|each| each.severity == Severity::Error && each.span.is_some_and(is_it));
    let first = all.min_by_key(|each| each.span);
    // Of two objects of one name only the second has an error of its own.
    let twice = || within.map_or_else(|| sources.name(file.id).to_owned(), |object| sources.place(object));
    first.map_or_else(|| format!("{}: error: it is defined twice", twice()), |each| sources.line(each))
}

/// Objects whose last good version is to be served: those in error, and those of a file that cannot be read. Where such a
/// file is new, whatever is found nowhere any more may have been moved to it.
fn wanted(
    files: &[File],
    bad: &[Bad<'_>],
    good: &HashSet<&ObjectKey>,
    met: &HashMap<&ObjectKey, usize>,
    sources: &Sources,
    last: &LastGood,
) -> HashSet<ObjectKey> {
    let mut wanted: HashSet<ObjectKey> = bad.iter().filter_map(|(_, met, _)| met.key.clone()).collect();
    for file in files.iter().filter(|file| file.broken) {
        wanted.extend(file.met.iter().filter_map(|met| met.key.clone()));
        let name = sources.name(file.id);
        let is_new = !last.files().any(|(_, of)| of == name);
        let lost = last.files().filter(|(key, of)| if is_new { !met.contains_key(key) } else { *of == name });
        wanted.extend(lost.map(|(key, _)| key.clone()));
    }
    wanted.retain(|key| !good.contains(key) && last.has(key));
    wanted
}
