//! Errors one object at a time: what is served in place of an object that cannot be read.
//!
//! An API server refuses an object that has an error and keeps what it had. So does this: an object in error keeps its
//! last good version, and is left out where there is none. A policy that is left out must not leave its targets
//! unprotected, so they are closed; where it cannot be told what would have been protected, nothing new is served.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::graph::CONTROLLER;
use super::read::{Cx, Environment, FromNode as _};
use super::resources::meta::Meta;
use super::resources::refs::{GATEWAY_GROUP, PolicyTargetRef, RINGWAY_GROUP};
use super::resources::{Closed, Resources};
use super::source::{Diagnostic, FileId, Severity, Sources, Span};
use super::yaml::{self, Key, Node, Value};

/// Kinds whose absence would leave something open, or have it answered from the wrong place.
const CLOSING: [&str; 5] =
    ["AccessPolicy", "RateLimitPolicy", "BackendTLSPolicy", "ClientPolicy", "L4ForwardingPolicy"];
/// The filter that protects what is behind it.
const EXTERNAL_AUTH: &str = "ExternalAuth";
/// Fields of a rule of HTTPRoute and GRPCRoute. A rule without `matches` that has others is not taken for one that matches all.
const RULE_FIELDS: [&str; 7] = ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];

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

/// The last good version of every object, by the file that it stands in.
#[derive(Debug, Default)]
pub struct LastGood {
    objects: HashMap<ObjectKey, Arc<FileText>>,
    /// What `${file:PATH}` was replaced by.
    texts: HashMap<PathBuf, String>,
}

/// A file as it was.
#[derive(Debug)]
struct FileText {
    name: String,
    text: String,
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
    /// An error to everybody that it was to apply to.
    Closed,
    /// Nothing.
    Nothing,
}

impl Served {
    /// As `/status` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastGood => "LastGood",
            Self::Closed => "Closed",
            Self::Nothing => "Nothing",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::LastGood => "its last good version is served",
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
}

/// Notes what `${file:PATH}` was replaced by.
pub(super) struct Remembering<'a> {
    inner: &'a dyn Environment,
    texts: RefCell<HashMap<PathBuf, String>>,
}

impl<'a> Remembering<'a> {
    pub(super) fn new(inner: &'a dyn Environment) -> Self {
        Self { inner, texts: RefCell::default() }
    }
}

impl Environment for Remembering<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        let text = self.inner.file(path)?;
        self.texts.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }

    fn bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.inner.bytes(path)
    }
}

/// Replaces `${file:PATH}` as it was.
struct Remembered<'a> {
    inner: &'a dyn Environment,
    texts: &'a HashMap<PathBuf, String>,
}

impl Environment for Remembered<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        self.texts.get(path).map_or_else(|| self.inner.file(path), |text| Ok(text.clone()))
    }
}

/// Reads a file, object by object.
pub(super) fn read(
    id: FileId,
    sources: &Sources,
    environment: &dyn Environment,
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
            met.push(Met {
                key: key(object, &cx),
                api_version: scalar(object, "apiVersion", &cx).unwrap_or_default(),
                errors: cx.errors() - before + within,
                span: object.span,
            });
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

/// What is remembered of files without errors.
pub(super) fn remember(files: &[File], sources: &Sources, environment: Remembering<'_>) -> LastGood {
    let mut last_good = LastGood { objects: HashMap::new(), texts: environment.texts.into_inner() };
    for file in files {
        let text = Arc::new(file.text(sources));
        last_good.objects.extend(file.met.iter().filter_map(|met| Some((met.key.clone()?, Arc::clone(&text)))));
    }
    last_good
}

impl File {
    fn text(&self, sources: &Sources) -> FileText {
        FileText { name: sources.name(self.id).to_owned(), text: sources.text(self.id).to_owned() }
    }

    /// Its objects with what is known of them.
    fn objects(&self) -> impl Iterator<Item = (&Met, &Node)> {
        self.met.iter().zip(self.documents.iter().flat_map(objects))
    }
}

/// Chooses what is served of files that have errors. `None`: nothing of them can be, which is reported.
pub(super) fn recover(
    files: &[File],
    sources: &mut Sources,
    environment: Remembering<'_>,
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
    let mut bad: Vec<(&File, &Met, &Node)> = Vec::new();
    for file in files.iter().filter(|file| !file.broken) {
        let text = Arc::new(file.text(sources));
        let cx = Cx::new(&environment, file.directory.clone());
        for (met, object) in file.objects() {
            if is_good(met) {
                found.resources.read(object, &cx);
                good.extend(&met.key);
                found.last_good.objects.extend(met.key.clone().map(|key| (key, Arc::clone(&text))));
            } else {
                bad.push((file, met, object));
            }
        }
    }
    let kept =
        keep(wanted(files, &bad, &good, &count, sources, last), sources, &environment, last, &mut found.resources);
    found
        .last_good
        .objects
        .extend(kept.keys().filter_map(|key| Some((key.clone(), Arc::clone(last.objects.get(key)?)))));
    for file in files.iter().filter(|file| file.broken) {
        for (met, _) in file.objects() {
            let Some(key) = met.key.clone().filter(|key| !good.contains(key)) else { continue };
            let served = if kept.contains_key(&key) { Served::LastGood } else { Served::Nothing };
            let error = first_error(file, None, sources, diagnostics);
            found.in_error.push(InError { api_version: met.api_version.clone(), key, error, served });
        }
    }
    for (file, met, object) in bad {
        found.spans.push(met.span);
        let Some(key) = met.key.clone() else { continue };
        let cx = Cx::new(&environment, file.directory.clone());
        let served = match kept.get(&key) {
            Some(targets) => close_new(&key, object, targets, &cx, &mut found.resources).map(|()| Served::LastGood),
            None => close(&key, object, &cx, &mut found.resources),
        };
        let Some(served) = served else {
            let message =
                format!("{} {}: what it applies to cannot be read: nothing new is served", key.kind, full_name(&key));
            diagnostics.push(Diagnostic::error(met.span.begin(), message));
            refused = true;
            continue;
        };
        let error = first_error(file, Some(met.span), sources, diagnostics);
        diagnostics
            .push(Diagnostic::note(met.span.begin(), format!("{} {}: {}", key.kind, full_name(&key), served.told())));
        if !found.in_error.iter().any(|known| known.key == key) {
            found.in_error.push(InError { api_version: met.api_version.clone(), key, error, served });
        }
    }
    for key in kept.keys() {
        if !found.in_error.iter().any(|known| known.key == *key) {
            let error = files.iter().find(|file| file.broken).map(|file| first_error(file, None, sources, diagnostics));
            let (key, error) = (key.clone(), error.unwrap_or_default());
            found.in_error.push(InError { api_version: String::new(), key, error, served: Served::LastGood });
        }
    }
    found.in_error.sort_by(|a, b| a.key.cmp(&b.key));
    found.last_good.texts = environment.texts.into_inner();
    if !kept.is_empty() {
        for (path, text) in &last.texts {
            found.last_good.texts.entry(path.clone()).or_insert_with(|| text.clone());
        }
    }
    (!refused).then_some(found)
}

fn full_name(key: &ObjectKey) -> String {
    if key.namespace.is_empty() { key.name.clone() } else { format!("{}/{}", key.namespace, key.name) }
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
    bad: &[(&File, &Met, &Node)],
    good: &HashSet<&ObjectKey>,
    met: &HashMap<&ObjectKey, usize>,
    sources: &Sources,
    last: &LastGood,
) -> HashSet<ObjectKey> {
    let mut wanted: HashSet<ObjectKey> = bad.iter().filter_map(|(_, met, _)| met.key.clone()).collect();
    for file in files.iter().filter(|file| file.broken) {
        wanted.extend(file.met.iter().filter_map(|met| met.key.clone()));
        let name = sources.name(file.id);
        let is_new = !last.objects.values().any(|text| text.name == name);
        let lost =
            last.objects.iter().filter(|(key, text)| if is_new { !met.contains_key(key) } else { text.name == name });
        wanted.extend(lost.map(|(key, _)| key.clone()));
    }
    wanted.retain(|key| !good.contains(key) && last.objects.contains_key(key));
    wanted
}

/// Reads the last good versions of objects: those that could be, with what they apply to.
fn keep(
    wanted: HashSet<ObjectKey>,
    sources: &mut Sources,
    environment: &Remembering<'_>,
    last: &LastGood,
    resources: &mut Resources,
) -> HashMap<ObjectKey, Vec<PolicyTargetRef>> {
    let environment = Remembered { inner: environment, texts: &last.texts };
    let mut files: Vec<&Arc<FileText>> = wanted.iter().map(|key| &last.objects[key]).collect();
    files.sort_by_key(|file| (&file.name, Arc::as_ptr(file)));
    files.dedup_by_key(|file| Arc::as_ptr(file));
    let mut kept = HashMap::new();
    for file in files {
        let id = sources.add(format!("{} (last good version)", file.name), file.text.clone());
        let documents = yaml::parse(id, sources.text(id), &mut Vec::new()).nodes;
        let directory = Path::new(&file.name).parent().unwrap_or_else(|| Path::new("")).to_owned();
        let cx = Cx::new(&environment, directory);
        for object in documents.iter().flat_map(objects) {
            let Some(key) = key(object, &cx) else { continue };
            if wanted.contains(&key) && last.objects.get(&key).is_some_and(|text| Arc::ptr_eq(text, file)) {
                let before = cx.errors();
                resources.read(object, &cx);
                if cx.errors() == before {
                    let targets = targets(object, &cx).unwrap_or_default();
                    kept.insert(key, targets);
                }
            }
        }
    }
    kept
}

/// Whether a scalar within a node is this text.
fn mentions(node: &Node, wanted: &str) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => text == wanted,
        Value::List(items) => items.iter().any(|item| mentions(item, wanted)),
        Value::Map(entries) => entries.iter().any(|(_, value)| mentions(value, wanted)),
    }
}

/// What is left out must not leave open what it would have closed. `None`: it cannot be told what that is.
fn close(key: &ObjectKey, object: &Node, cx: &Cx<'_>, resources: &mut Resources) -> Option<Served> {
    match key.kind.as_str() {
        "HTTPRoute" | "GRPCRoute" => {
            // Requests that would have been its own must not fall to a route that is less specific.
            let reduced = reduced(object, cx);
            let rules =
                |route: &Node| match route.get("spec").and_then(|spec| spec.get("rules")).map(|rules| &rules.value) {
                    Some(Value::List(rules)) => rules.len(),
                    _ => 0,
                };
            // A rule that asks another server must not fall to one that does not.
            if mentions(object, EXTERNAL_AUTH) && reduced.as_ref().is_none_or(|reduced| rules(reduced) < rules(object))
            {
                return None;
            }
            let Some(reduced) = reduced else { return Some(Served::Nothing) };
            cx.silent(|cx| resources.read(&reduced, cx));
            Some(Served::Closed)
        }
        "GatewayClass" | "Namespace" => {
            close_targets(key, Vec::new(), resources);
            Some(Served::Closed)
        }
        kind if CLOSING.contains(&kind) => {
            close_targets(key, targets(object, cx)?, resources);
            Some(Served::Closed)
        }
        _ => Some(Served::Nothing),
    }
}

/// What the new version of a policy would apply to and its last good one does not must not be left open either. `None`: it
/// cannot be told what that is.
fn close_new(
    key: &ObjectKey,
    object: &Node,
    covered: &[PolicyTargetRef],
    cx: &Cx<'_>,
    resources: &mut Resources,
) -> Option<()> {
    if !CLOSING.contains(&key.kind.as_str()) {
        return Some(());
    }
    let same = |a: &PolicyTargetRef, b: &PolicyTargetRef| {
        (&a.kind, &a.name, &a.section_name) == (&b.kind, &b.name, &b.section_name)
    };
    let mut targets = targets(object, cx)?;
    targets.retain(|target| !covered.iter().any(|known| same(target, known)));
    close_targets(key, targets, resources);
    Some(())
}

fn close_targets(key: &ObjectKey, targets: Vec<PolicyTargetRef>, resources: &mut Resources) {
    let (kind, namespace, name) = (key.kind.clone(), key.namespace.clone(), key.name.clone());
    resources.closed.push(Closed { kind, namespace, name, targets });
}

/// A policy's targets as far as they have to be known; `None`: one of them is not.
fn targets(object: &Node, cx: &Cx<'_>) -> Option<Vec<PolicyTargetRef>> {
    let Value::List(list) = &object.get("spec")?.get("targetRefs")?.value else { return None };
    let one = |node: &Node| {
        let kind = scalar(node, "kind", cx)?;
        let group = match kind.as_str() {
            "Service" => "",
            "Backend" => RINGWAY_GROUP,
            _ => GATEWAY_GROUP,
        };
        let read = |fields: &[&str]| {
            let mut reduced = only(node, fields);
            if let Value::Map(entries) = &mut reduced.value {
                let value = Value::Scalar { text: group.to_owned(), plain: false };
                let key = Key { span: node.span, name: "group".to_owned() };
                entries.push((key, Node { span: node.span, value }));
            }
            cx.silent(|cx| PolicyTargetRef::from_node(&reduced, cx))
        };
        // Without its section it applies to more, which is the safe side.
        read(&["kind", "name", "sectionName"]).or_else(|| read(&["kind", "name"]))
    };
    if list.is_empty() { None } else { list.iter().map(one).collect() }
}

/// A route with its hostnames and conditions and nothing else, so that its requests are answered 500; rules whose
/// conditions cannot be read are left out. `None`: nothing of it can be read.
fn reduced(object: &Node, cx: &Cx<'_>) -> Option<Node> {
    let spec = object.get("spec")?;
    let Value::List(rules) = &spec.get("rules")?.value else { return None };
    let with = |rules: Vec<Node>| {
        let mut kept = only(spec, &["parentRefs", "hostnames"]);
        let mut whole = only(object, &["apiVersion", "kind"]);
        let meta = object.get("metadata").map(|meta| only(meta, &["name", "namespace", "creationTimestamp"]));
        let key = |name: &str| Key { span: object.span.begin(), name: name.to_owned() };
        if let (Value::Map(fields), Value::Map(entries)) = (&mut kept.value, &mut whole.value) {
            fields.push((key("rules"), Node { span: spec.span, value: Value::List(rules) }));
            entries.extend(meta.map(|meta| (key("metadata"), meta)));
            entries.push((key("spec"), kept));
        }
        whole
    };
    let reads = |whole: &Node| {
        cx.silent(|cx| {
            let before = cx.errors();
            Resources::default().read(whole, cx);
            cx.errors() == before
        })
    };
    let rule = |rule: &Node| {
        let Value::Map(entries) = &rule.value else { return None };
        let whole =
            rule.get("matches").is_some() || entries.iter().all(|(key, _)| RULE_FIELDS.contains(&key.name.as_str()));
        let rule = only(rule, &["matches"]);
        (whole && reads(&with(vec![rule.clone()]))).then_some(rule)
    };
    let rules: Vec<Node> = rules.iter().filter_map(rule).collect();
    if rules.is_empty() {
        return None;
    }
    let whole = with(rules);
    reads(&whole).then_some(whole)
}

/// Says in a status what is in error: an object that is left out is not accepted, one whose last good version is served
/// has the condition `ringway.dev/Stale`.
pub(super) fn mark(status: &mut Json, in_error: &[InError]) {
    let Some(items) = status["items"].as_array_mut() else { return };
    for object in in_error {
        let key = &object.key;
        let message = format!("{}: {}", object.error, object.served.told());
        let (kind, state) = match object.served {
            Served::LastGood => ("ringway.dev/Stale", "True"),
            Served::Closed | Served::Nothing => ("Accepted", "False"),
        };
        let condition =
            json!({ "type": kind, "status": state, "reason": "Invalid", "message": message, "observedGeneration": 1 });
        let is_it = |item: &&mut Json| {
            item["kind"] == key.kind.as_str()
                && item["metadata"]["name"] == key.name.as_str()
                && item["metadata"]["namespace"].as_str().unwrap_or_default() == key.namespace
        };
        if let Some(item) = items.iter_mut().find(is_it) {
            let own = &mut item["status"];
            let list = ["parents", "ancestors"].into_iter().find(|name| own[*name].is_array());
            match list {
                Some(name) => {
                    for each in own[name].as_array_mut().into_iter().flatten() {
                        put(&mut each["conditions"], &condition);
                    }
                }
                None => put(&mut own["conditions"], &condition),
            }
            continue;
        }
        let mut meta = json!({ "name": key.name });
        if !key.namespace.is_empty() {
            meta["namespace"] = json!(key.namespace);
        }
        items.push(json!({
            "apiVersion": object.api_version,
            "kind": key.kind,
            "metadata": meta,
            "status": { "conditions": [condition], "controllerName": CONTROLLER },
        }));
    }
}

/// Adds a condition, or puts it in the place of that of its type.
fn put(conditions: &mut Json, condition: &Json) {
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => *known = condition.clone(),
        None => list.push(condition.clone()),
    }
}
